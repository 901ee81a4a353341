//! Taking an event: its bounds, its body, its id, its check, its place in the journal.
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
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use hyper::{Request, StatusCode};
use serde_json::json as object;
use sophon_uplink::serve::discard;
use tokio::time::{Instant, timeout, timeout_at};

use crate::dialect::Report;
use crate::event::{self, Event};
use crate::fields::{Body, Format};
use crate::json::shortened;
use crate::picture::sha256_hex;
use crate::record::Arrival;
use crate::routes::{App, Reply, failure, json};
use crate::{clock, http::Limits};

/// The unit in which the memory for bodies is counted: a semaphore's count is 32 bits wide.
pub const ROOM_UNIT: u64 = 1024;

/// Why an event was not taken.
struct Refusal {
    status: StatusCode,
    errors: Vec<String>,
    /// Whether bytes of the request are still under way, so that the connection cannot be used again.
    unread: bool,
    /// Whether the sender went away before the body was whole.
    incomplete: bool,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { status, errors: vec![error.into()], unread: false, incomplete: false }
    }

    /// For what came whole and is wrong.
    fn faulty(errors: Vec<String>) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, errors, unread: false, incomplete: false }
    }

    fn unread(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { unread: true, ..Refusal::new(status, error) }
    }
}

/// What a POST brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    /// An event of a report.
    Event(Report),
    /// A box's state.
    State,
}

/// Answers a POST on one of the paths that take something.
pub async fn receive(app: &Arc<App>, brings: Brings, request: Request<Incoming>) -> Reply {
    match take(app, brings, request).await {
        Ok(received) => json(StatusCode::OK, received),
        Err(refusal) => {
            if refusal.incomplete {
                app.journal.cut_short();
            } else {
                app.journal.reject(&refusal.errors);
            }
            let mut reply = failure(refusal.status, &refusal.errors);
            if refusal.unread {
                reply.headers_mut().insert(CONNECTION, "close".parse().expect("a plain text"));
            }
            if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
                reply.headers_mut().insert(RETRY_AFTER, 1.into());
            }
            reply
        }
    }
}

async fn take(app: &Arc<App>, brings: Brings, request: Request<Incoming>) -> Result<String, Refusal> {
    let (head, body) = request.into_parts();
    let length = match length(&body, &app.limits) {
        Ok(length) => length,
        Err(refusal) => {
            discard(body, &head.headers, app.limits.body_progress);
            return Err(refusal);
        }
    };
    let units = u32::try_from(length.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
    let room = timeout(app.limits.body_progress, app.bodies.clone().acquire_many_owned(units)).await;
    let Ok(Ok(room)) = room else {
        discard(body, &head.headers, app.limits.body_progress);
        let error = "too many large events are being received; send it again";
        return Err(Refusal::unread(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    let bytes = read(&app.limits, body, length).await?;
    let received_at = clock::now();

    let format = format(&head.headers).map_err(|(status, error)| Refusal::new(status, error))?;
    let id = event_id(&head.headers);
    let body = Body::read(&format, bytes.clone()).await;
    let app = app.clone();
    let Brings::Event(report) = brings else {
        let Body::Json(bytes) = body.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error))? else {
            let error = "Content-Type: came a form; allowed: application/json";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        };
        return match app.boxes.take(&bytes, clock::now(), Instant::now()) {
            Ok(()) => Ok(object!({"status": "ok"}).to_string()),
            Err(errors) => Err(Refusal::faulty(errors)),
        };
    };
    let work = move || {
        let _room = room;
        let mut errors: Vec<String> = id.as_ref().err().cloned().into_iter().collect();
        let event = body
            .and_then(|body| Ok(event::check(&body.fields()?, report)))
            .unwrap_or_else(|error| Err(vec![error]))
            .map_err(|mut faults| errors.append(&mut faults));
        let (Ok(event), Ok(id)) = (event, id) else {
            return Err(Refusal::faulty(errors));
        };
        let id = of_report(id.unwrap_or_else(|| sha256_hex(&bytes)), report);
        let answer = received(&event);
        let arrival = Arrival { id, received_at, format: format.name(), event };
        app.journal.take(arrival).map(|_| answer).map_err(not_stored)
    };
    let broken = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the event could not be checked: this is a bug");
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

/// The answer to an event that is kept: what of its pictures arrived, as docs/receivers.md asks for.
fn received(event: &Event) -> String {
    let mut pictures = serde_json::Map::new();
    for (which, picture) in event.pictures() {
        pictures.insert(which.name().to_owned(), object!({"bytes": picture.bytes.len(), "sha256": picture.sha256}));
    }
    object!({"status": "ok", "received": pictures}).to_string()
}

/// The id under which an event is kept: one that came in both reports is there twice.
fn of_report(id: String, report: Report) -> String {
    const OF_HISTORY: &str = "-history";
    if report == Report::History && !id.ends_with(OF_HISTORY) { id + OF_HISTORY } else { id }
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

/// Reads the whole body. One that ends before its announced length was never received.
async fn read(limits: &Limits, mut body: Incoming, length: u64) -> Result<Bytes, Refusal> {
    let end = Instant::now() + limits.body_time;
    let mut bytes = BytesMut::new();
    loop {
        let next = timeout_at(end.min(Instant::now() + limits.body_progress), body.frame()).await;
        match next {
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    bytes.extend_from_slice(data);
                }
            }
            Ok(None) if bytes.len() as u64 == length => return Ok(bytes.freeze()),
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

fn not_stored(error: std::io::Error) -> Refusal {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let status = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal::new(status, format!("the event could not be stored, nothing of it was kept: {error}"))
}
