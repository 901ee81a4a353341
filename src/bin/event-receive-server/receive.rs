//! Receives an event: applies the limits, reads the body and the id, checks the event and stores it.
//!
//! | answer | when |
//! | --- | --- |
//! | 200 | it is stored, or was stored before |
//! | 400 | it has faults; the answer lists all of them |
//! | 408 | its body did not come in time |
//! | 411 | it has no Content-Length: many servers read a chunked body as empty, so this server reports it to the sender |
//! | 413 | it is too large |
//! | 415 | it is neither JSON nor form-data, or it is compressed |
//! | 503 | too many bodies are being received |
//! | 507, 500 | the store is full or broken; nothing of the event was stored |

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use serde_json::json as object;
use sophon_uplink::serve::body::{self, Broken};
use sophon_uplink::serve::discard;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::boxes::StateReport;
use crate::error::ApiError;
use crate::event::{self, Event};
use crate::fields::{Body, Format};
use crate::json::shortened;
use crate::routes::{App, Reply, json};
use crate::store::{Content, Delivery, Expected, RequestHead, Sender};
use crate::{clock, http::Limits};

/// Unit of the memory for bodies: a semaphore counts with 32 bits only.
pub const ROOM_UNIT: u64 = 1024;

/// The sender's id of an event, or the fault of that id.
type Id = Result<Option<String>, String>;

/// Answers a POST to one of the paths that accept data.
pub async fn receive(app: &Arc<App>, expected: Expected, request: Request<Incoming>) -> Reply {
    match take(app, expected, request).await {
        Ok(received) => json(StatusCode::OK, received),
        Err(error) => {
            app.store.refused(&error);
            error.reply()
        }
    }
}

async fn take(app: &Arc<App>, expected: Expected, request: Request<Incoming>) -> Result<String, ApiError> {
    let (head, body) = request.into_parts();
    let id = event_id(&head.headers);
    let admitted = match admit(app, expected, &head, &id, &body).await {
        Ok(admitted) => admitted,
        Err(error) => {
            discard(body, &head.headers, app.limits.body_progress);
            return Err(error);
        }
    };
    let sender = admitted.sender.clone();
    let body = read(&app.limits, body, admitted).await?;
    let received_at = clock::now();
    let format = format(&head.headers).map_err(|(status, error)| ApiError::new(status, error))?;
    let parts = Body::read(&format, body.clone()).await;
    let broken = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the event could not be checked: this is a bug");
    let checked = tokio::task::spawn_blocking(move || check(expected, parts, id)).await;
    let (content, id) = checked.map_err(broken)??;
    let answer = content.answer();
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().into();
    let delivery = Delivery { sender, id, received_at, format: format.name(), content_type, body, content };
    app.store.clone().keep(delivery).await?;
    Ok(answer)
}

/// A request to be read, with its share of the memory for bodies.
struct Admitted {
    length: u64,
    sender: Sender,
    room: OwnedSemaphorePermit,
}

/// Decides from the head alone.
async fn admit(app: &App, expected: Expected, head: &Parts, id: &Id, body: &Incoming) -> Result<Admitted, ApiError> {
    let length = length(body, &app.limits)?;
    let asked = RequestHead { expected, headers: &head.headers, id, length };
    let sender = app.store.admit(&asked).map_err(|error| ApiError { unread: true, ..error })?;
    let units = u32::try_from(length.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
    let room = timeout(app.limits.room_time, app.bodies.clone().acquire_many_owned(units)).await;
    let Ok(Ok(room)) = room else {
        let error = "too many large events are being received; send it again";
        return Err(ApiError::unread(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    Ok(Admitted { length, sender, room })
}

/// Checks the content of a body. It hashes megabytes, so it blocks.
fn check(expected: Expected, body: Result<Body, String>, id: Id) -> Result<(Content, Option<String>), ApiError> {
    match expected {
        Expected::State => {
            let Body::Json(bytes) = body.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error))? else {
                let error = "Content-Type: came a form; allowed: application/json";
                return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
            };
            Ok((Content::State(StateReport::of(&bytes).map_err(ApiError::faulty)?), None))
        }
        Expected::Event(report) => {
            let mut errors: Vec<String> = id.as_ref().err().cloned().into_iter().collect();
            let event = body
                .and_then(|body| Ok(event::check(&body.fields()?, report)))
                .unwrap_or_else(|error| Err(vec![error]))
                .map_err(|mut faults| errors.append(&mut faults));
            match (event, id) {
                (Ok(event), Ok(id)) => Ok((Content::Event(Box::new(event)), id)),
                _ => Err(ApiError::faulty(errors)),
            }
        }
    }
}

impl Content {
    fn answer(&self) -> String {
        match self {
            Content::Event(event) => received(event),
            Content::State(_) => object!({"status": "ok"}).to_string(),
        }
    }
}

/// The answer to a stored event: what arrived of its pictures, as docs/receivers.md defines.
fn received(event: &Event) -> String {
    let mut pictures = serde_json::Map::new();
    for (which, picture) in event.pictures() {
        pictures.insert(which.name().to_owned(), object!({"bytes": picture.bytes.len(), "sha256": picture.sha256}));
    }
    object!({"status": "ok", "received": pictures}).to_string()
}

/// The announced length of the body, if it is present and allowed.
fn length(body: &Incoming, limits: &Limits) -> Result<u64, ApiError> {
    match body.size_hint().exact() {
        None => {
            let error = "Content-Length: missing; a chunked body is not taken, because many servers read it as empty";
            Err(ApiError::unread(StatusCode::LENGTH_REQUIRED, error))
        }
        Some(length) if length > limits.body_bytes => {
            let error = format!("Content-Length: came {length}; allowed: at most {} bytes", limits.body_bytes);
            Err(ApiError::unread(StatusCode::PAYLOAD_TOO_LARGE, error))
        }
        Some(length) => Ok(length),
    }
}

/// Bytes that hold their share of the memory for bodies until the last reference is dropped.
struct Held {
    bytes: BytesMut,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the whole body. A body that ends early counts as not received.
async fn read(limits: &Limits, mut body: Incoming, admitted: Admitted) -> Result<Bytes, ApiError> {
    let Admitted { length, room, .. } = admitted;
    let broken = |broken: Broken| match broken {
        // hyper never gives more than the announced length.
        Broken::TooLarge => ApiError::unread(StatusCode::PAYLOAD_TOO_LARGE, "body: longer than its Content-Length"),
        Broken::Off(came) => {
            let error = format!("body: ended after {came} of {length} bytes");
            ApiError { incomplete: true, ..ApiError::unread(StatusCode::BAD_REQUEST, error) }
        }
        Broken::Late(came) => {
            let error = format!("body: only {came} of {length} bytes came in time");
            ApiError::unread(StatusCode::REQUEST_TIMEOUT, error)
        }
    };
    match body::whole(&mut body, length, limits.body_time, limits.body_progress).await {
        Ok(bytes) if (bytes.len() as u64) < length => Err(broken(Broken::Off(bytes.len()))),
        Ok(bytes) => Ok(Bytes::from_owner(Held { bytes, _room: room })),
        Err(why) => Err(broken(why)),
    }
}

fn format(headers: &HeaderMap) -> Result<Format, (StatusCode, String)> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let came = shortened(&String::from_utf8_lossy(encoding.as_bytes()));
        let error = format!("Content-Encoding: came {came}; allowed: none");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let content_type = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    Format::of(content_type.as_deref())
}

/// The sender's id of the event, from either of its two headers.
fn event_id(headers: &HeaderMap) -> Result<Option<String>, String> {
    let mut found: Option<(&str, &[u8])> = None;
    for name in ["X-Event-Id", "Idempotency-Key"] {
        for value in headers.get_all(name) {
            let value = value.as_bytes();
            if !(1..=200).contains(&value.len()) || !value.iter().all(u8::is_ascii_graphic) {
                let came = shortened(&String::from_utf8_lossy(value));
                return Err(format!("{name}: came {came}; allowed: 1 to 200 visible ASCII characters"));
            }
            match found {
                Some((other, first)) if first != value => {
                    let came = shortened(&String::from_utf8_lossy(value));
                    return Err(format!("{name}: came {came}, which differs from {other}; allowed: the same value"));
                }
                _ => found = Some((name, value)),
            }
        }
    }
    Ok(found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()))
}
