//! The gateway: the store of `--jetstream`, which puts every event into a NATS JetStream and answers 2xx only when the stream has
//! it.
//!
//! ```text
//!  POST ──▶ admit: token (`access`), id, size ──▶ body, within a budget of bytes ──▶ checked (`event`)
//!                                                                                        │
//!  200 / 503 / 413 ◀── what the ack means (`outcome`) ◀── engine ◀── subject, id, headers (`message`)
//!                                                           │
//!                          what the stream and its server are set to (`settings`) ──▶ /healthz, ready or why not
//! ```
//! It holds no state: any number of gateways may stand behind a load balancer, and one that is killed loses nothing, for its
//! boxes send again what was not answered, under the same id, which the stream knows. What cannot be decided here is answered
//! with 503 and never with a status that makes a box give an event up.
//!
//! `gallery` is the other direction: the page, filled from the stream.
//!
//! One event is one message: subject `events.<box>.<kind>`, the body as it came. Memory is bounded by the bytes in flight,
//! whatever the number of boxes: a body's part of the budget is free again when the client library has dropped the body,
//! which may be after the answer.

mod access;
mod connection;
mod engine;
mod gallery;
mod info;
mod message;
mod metrics;
mod options;
mod outcome;
mod pull;
mod replies;
mod settings;

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;

use crate::error::ApiError;
use crate::http::Limits;
use crate::store::{Budget, Delivery, Expected, RequestHead, Sender, Store};
use access::Access;
use engine::Engine;
pub use gallery::Gallery;
use metrics::Metrics;
pub use options::{HELP, Options};
use outcome::{Ack, Trouble};

/// See the module.
pub struct Fleet {
    access: Access,
    engine: Engine,
    metrics: Metrics,
}

impl Fleet {
    /// Reads the files that are named, and begins to look for the engine; it need not be there yet.
    pub async fn start(options: &Options) -> Result<Fleet, String> {
        let access = Access::of(options.boxes.as_deref())?;
        let engine = Engine::start(options).await?;
        Ok(Fleet { access, engine, metrics: Metrics::default() })
    }

    /// The limits on what clients may use of a gateway. No request waits for memory: a client that is refused can try another
    /// gateway.
    pub fn limits() -> Limits {
        Limits { connections: 900, room_time: std::time::Duration::ZERO, ..Limits::default() }
    }

    async fn publish(&self, delivery: Delivery) -> Result<(), ApiError> {
        let message = message::of(delivery, self.engine.stream())?;
        let began = Instant::now();
        match self.engine.publish(message).await {
            Ok(ack) => {
                self.metrics.acknowledged(ack == Ack::Duplicate, began.elapsed());
                Ok(())
            }
            Err(trouble) => {
                if trouble.alarm {
                    self.metrics.alarm(&trouble);
                }
                Err(trouble.into())
            }
        }
    }
}

impl Store for Fleet {
    fn admit(&self, asked: &RequestHead) -> Result<Sender, ApiError> {
        let sender = self.access.sender(asked.headers)?;
        if let Expected::Event(_) = asked.expected {
            message::check_id(asked.id)?;
        }
        let limit = self.engine.ready()?;
        if asked.length > limit {
            return Err(outcome::too_large(asked.length, limit));
        }
        Ok(sender)
    }

    fn keep(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<(), ApiError>> {
        Box::pin(async move { self.publish(delivery).await })
    }

    fn refused(&self, refusal: &ApiError) {
        self.metrics.refused(refusal);
    }

    fn fault(&self) -> Option<String> {
        self.engine.fault()
    }

    fn metrics(&self, budget: Budget) -> Option<String> {
        Some(self.metrics.text(budget, &self.engine))
    }
}

impl From<Trouble> for ApiError {
    fn from(trouble: Trouble) -> ApiError {
        let Trouble { status, retry_after, reason, text, .. } = trouble;
        ApiError { retry_after, reason, ..ApiError::new(status, text) }
    }
}
