//! Taking an event: its bounds, its body, its id, its check, its place in the store.
//!
//! | answer | when |
//! | --- | --- |
//! | 200 | it is stored, or was before |
//! | 400 | something is wrong with it; the answer lists everything |
//! | 408 | its body did not come in time |
//! | 411 | it has no Content-Length: many servers read a chunked body as empty, so this one shows a sender that it sent one |
//! | 413 | it is too large |
//! | 415 | it is neither JSON nor form-data, or it is compressed |
//! | 503 | too many bodies are being received |
//! | 507, 500 | the store is full, or broken; nothing of the event was kept |

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use serde_json::json as object;
use sophon_uplink::serve::discard;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use crate::boxes::StateReport;
use crate::event::{self, Event};
use crate::fields::{Body, Format};
use crate::json::shortened;
use crate::refusal::Refusal;
use crate::routes::{App, Reply, json};
use crate::store::{Asked, Brings, Delivery, Sender, What};
use crate::{clock, http::Limits};

/// The unit in which the memory for bodies is counted: a semaphore's count is 32 bits wide.
pub const ROOM_UNIT: u64 = 1024;

/// What the sender called its event, or what is wrong with that.
type Id = Result<Option<String>, String>;

/// Answers a POST on one of the paths that take something.
pub async fn receive(app: &Arc<App>, brings: Brings, request: Request<Incoming>) -> Reply {
    match take(app, brings, request).await {
        Ok(received) => json(StatusCode::OK, received),
        Err(refusal) => {
            app.store.refused(&refusal);
            refusal.reply()
        }
    }
}

async fn take(app: &Arc<App>, brings: Brings, request: Request<Incoming>) -> Result<String, Refusal> {
    let (head, body) = request.into_parts();
    let id = event_id(&head.headers);
    let admitted = match admit(app, brings, &head, &id, &body).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            discard(body, &head.headers, app.limits.body_progress);
            return Err(refusal);
        }
    };
    let sender = admitted.sender.clone();
    let body = read(&app.limits, body, admitted).await?;
    let received_at = clock::now();
    let format = format(&head.headers).map_err(|(status, error)| Refusal::new(status, error))?;
    let parts = Body::read(&format, body.clone()).await;
    let broken = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the event could not be checked: this is a bug");
    let checked = tokio::task::spawn_blocking(move || check(brings, parts, id)).await;
    let (what, id) = checked.map_err(broken)??;
    let answer = what.answer();
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().into();
    let delivery = Delivery { sender, id, received_at, format: format.name(), content_type, body, what };
    app.store.clone().keep(delivery).await?;
    Ok(answer)
}

/// A request that is to be read, with its part of the memory for bodies.
struct Admitted {
    length: u64,
    sender: Sender,
    room: OwnedSemaphorePermit,
}

/// Decides by the head alone.
async fn admit(app: &App, brings: Brings, head: &Parts, id: &Id, body: &Incoming) -> Result<Admitted, Refusal> {
    let length = length(body, &app.limits)?;
    let asked = Asked { brings, headers: &head.headers, id, length };
    let sender = app.store.admit(&asked).map_err(|refusal| Refusal { unread: true, ..refusal })?;
    let units = u32::try_from(length.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
    let room = timeout(app.limits.room_time, app.bodies.clone().acquire_many_owned(units)).await;
    let Ok(Ok(room)) = room else {
        let error = "too many large events are being received; send it again";
        return Err(Refusal::unread(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    Ok(Admitted { length, sender, room })
}

/// Checks what a body says; it hashes megabytes, so it blocks.
fn check(brings: Brings, body: Result<Body, String>, id: Id) -> Result<(What, Option<String>), Refusal> {
    match brings {
        Brings::State => {
            let Body::Json(bytes) = body.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error))? else {
                let error = "Content-Type: came a form; allowed: application/json";
                return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
            };
            Ok((What::State(StateReport::of(&bytes).map_err(Refusal::faulty)?), None))
        }
        Brings::Event(report) => {
            let mut errors: Vec<String> = id.as_ref().err().cloned().into_iter().collect();
            let event = body
                .and_then(|body| Ok(event::check(&body.fields()?, report)))
                .unwrap_or_else(|error| Err(vec![error]))
                .map_err(|mut faults| errors.append(&mut faults));
            match (event, id) {
                (Ok(event), Ok(id)) => Ok((What::Event(Box::new(event)), id)),
                _ => Err(Refusal::faulty(errors)),
            }
        }
    }
}

impl What {
    fn answer(&self) -> String {
        match self {
            What::Event(event) => received(event),
            What::State(_) => object!({"status": "ok"}).to_string(),
        }
    }
}

/// The answer to an event that is kept: what of its pictures arrived, as docs/receivers.md asks for.
fn received(event: &Event) -> String {
    let mut pictures = serde_json::Map::new();
    for (which, picture) in event.pictures() {
        pictures.insert(which.name().to_owned(), object!({"bytes": picture.bytes.len(), "sha256": picture.sha256}));
    }
    object!({"status": "ok", "received": pictures}).to_string()
}

/// The body's announced length, if there is one and it is allowed.
fn length(body: &Incoming, limits: &Limits) -> Result<u64, Refusal> {
    match body.size_hint().exact() {
        None => {
            let error = "Content-Length: missing; a chunked body is not taken, because many servers read it as empty";
            Err(Refusal::unread(StatusCode::LENGTH_REQUIRED, error))
        }
        Some(length) if length > limits.body_bytes => {
            let error = format!("Content-Length: came {length}; allowed: at most {} bytes", limits.body_bytes);
            Err(Refusal::unread(StatusCode::PAYLOAD_TOO_LARGE, error))
        }
        Some(length) => Ok(length),
    }
}

/// Bytes that hold their part of the memory for bodies for as long as anything refers to them.
struct Held {
    bytes: BytesMut,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the whole body. One that ends before its announced length was never received.
async fn read(limits: &Limits, mut body: Incoming, admitted: Admitted) -> Result<Bytes, Refusal> {
    let Admitted { length, room, .. } = admitted;
    let end = Instant::now() + limits.body_time;
    let mut bytes = BytesMut::with_capacity(length as usize); // there is room for all of it
    loop {
        let next = timeout_at(end.min(Instant::now() + limits.body_progress), body.frame()).await;
        match next {
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    bytes.extend_from_slice(data);
                }
            }
            Ok(None) if bytes.len() as u64 == length => return Ok(Bytes::from_owner(Held { bytes, _room: room })),
            Ok(None | Some(Err(_))) => {
                let error = format!("body: ended after {} of {length} bytes", bytes.len());
                return Err(Refusal { incomplete: true, ..Refusal::unread(StatusCode::BAD_REQUEST, error) });
            }
            Err(_) => {
                let error = format!("body: only {} of {length} bytes came in time", bytes.len());
                return Err(Refusal::unread(StatusCode::REQUEST_TIMEOUT, error));
            }
        }
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

/// The id that the sender gave the event, under either of its two names.
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
