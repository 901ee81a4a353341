//! Receives an event: applies the limits, reads the body and the id, has the event checked (`request`) and stores it.
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
use hyper::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use sophon_uplink::serve::body::{self, Broken};
use sophon_uplink::serve::discard;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::error::ApiError;
use crate::http::Limits;
use crate::request::{self, Id};
use crate::routes::{App, Reply, failure, json};
use crate::store::{Expected, RequestHead, Sender};

/// Unit of the memory for bodies: a semaphore counts with 32 bits only.
pub const ROOM_UNIT: u64 = 1024;

/// Answers a POST to one of the paths that accept data.
pub async fn receive(app: &Arc<App>, expected: Expected, request: Request<Incoming>) -> Reply {
    match take(app, expected, request).await {
        Ok(received) => json(StatusCode::OK, received),
        Err(error) => {
            app.store.refused(&error);
            reply(&error)
        }
    }
}

/// The answer that says why something was not taken.
fn reply(refusal: &ApiError) -> Reply {
    let mut reply = failure(refusal.status, &refusal.errors);
    if refusal.unread {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        reply.headers_mut().insert(RETRY_AFTER, refusal.retry_after.into());
    }
    reply
}

async fn take(app: &Arc<App>, expected: Expected, request: Request<Incoming>) -> Result<String, ApiError> {
    let (head, body) = request.into_parts();
    let id = request::event_id(&head.headers);
    let admitted = match admit(app, expected, &head, &id, &body).await {
        Ok(admitted) => admitted,
        Err(error) => {
            discard(body, &head.headers, app.limits.body_progress);
            return Err(error);
        }
    };
    let sender = admitted.sender.clone();
    let body = read(&app.limits, body, admitted).await?;
    let delivery = request::delivery(expected, &head.headers, sender, id, body).await?;
    let answer = delivery.content.answer();
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
