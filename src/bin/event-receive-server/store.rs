//! The interface of a store. There are two: `folder` (in memory or in files: the default), and `fleet` (a NATS JetStream, for
//! `--jetstream`). Data flows one way: `receive` asks the store whether to read a request, reads and checks it, and passes it on
//! once. The store's result becomes the answer to the sender.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::header::HeaderMap;

use crate::boxes::StateReport;
use crate::dialect::Report;
use crate::error::ApiError;
use crate::event::Event;

/// What a POST must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// An event of a report.
    Event(Report),
    /// A box's state.
    State,
}

/// What is known of a request before its body is read.
#[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
pub struct RequestHead<'a> {
    pub expected: Expected,
    pub headers: &'a HeaderMap,
    /// The value of X-Event-Id, or its fault.
    pub id: &'a Result<Option<String>, String>,
    /// Length of the body, in bytes.
    pub length: u64,
}

/// The memory for bodies, in bytes.
#[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
pub struct Budget {
    pub used: u64,
    pub limit: u64,
}

/// The sender, if the store requires authentication.
pub type Sender = Option<Arc<str>>;

/// A complete and valid delivery.
#[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
pub struct Delivery {
    /// As returned by [`Store::admit`].
    pub sender: Sender,
    /// The value of X-Event-Id, for an event.
    pub id: Option<String>,
    /// RFC 3339.
    pub received_at: String,
    /// `json` or `form-data`.
    pub format: &'static str,
    /// The original Content-Type, in visible ASCII.
    pub content_type: String,
    /// The original body. Its share of the memory for bodies becomes free when the last copy is dropped.
    pub body: Bytes,
    pub content: Content,
}

/// The content of a body.
pub enum Content {
    Event(Box<Event>),
    State(StateReport),
}

/// See the module.
pub trait Store: Send + Sync {
    /// Decides whether a request is read, and who sent it. A request refused here costs no more than its head.
    fn admit(&self, asked: &RequestHead) -> Result<Sender, ApiError>;

    /// Stores a delivery. Returns `Ok` only if it is stored now or was before.
    fn keep(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<(), ApiError>>;

    /// Counts a refused request, whatever part of the server refused it.
    fn refused(&self, error: &ApiError);

    /// Why nothing can be stored at present.
    fn fault(&self) -> Option<String>;

    /// Metrics for Prometheus, if the store has any.
    fn metrics(&self, _: Budget) -> Option<String> {
        None
    }
}
