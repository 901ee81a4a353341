//! Taking an event: its bounds, its body, its check (`request`), its place in the store.
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
use hyper::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use sophon_uplink::serve::discard;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use crate::http::Limits;
use crate::refusal::Refusal;
use crate::request::{self, Id};
use crate::routes::{App, Reply, failure, json};
use crate::store::{Asked, Brings, Sender};

/// The unit in which the memory for bodies is counted: a semaphore's count is 32 bits wide.
pub const ROOM_UNIT: u64 = 1024;

/// Answers a POST on one of the paths that take something.
pub async fn receive(app: &Arc<App>, brings: Brings, request: Request<Incoming>) -> Reply {
    match take(app, brings, request).await {
        Ok(received) => json(StatusCode::OK, received),
        Err(refusal) => {
            app.store.refused(&refusal);
            reply(&refusal)
        }
    }
}

/// The answer that says why something was not taken.
fn reply(refusal: &Refusal) -> Reply {
    let mut reply = failure(refusal.status, &refusal.errors);
    if refusal.unread {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        reply.headers_mut().insert(RETRY_AFTER, refusal.retry_after.into());
    }
    reply
}

async fn take(app: &Arc<App>, brings: Brings, request: Request<Incoming>) -> Result<String, Refusal> {
    let (head, body) = request.into_parts();
    let id = request::event_id(&head.headers);
    let admitted = match admit(app, brings, &head, &id, &body).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            discard(body, &head.headers, app.limits.body_progress);
            return Err(refusal);
        }
    };
    let sender = admitted.sender.clone();
    let body = read(&app.limits, body, admitted).await?;
    let delivery = request::delivery(brings, &head.headers, sender, id, body).await?;
    let answer = delivery.what.answer();
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
