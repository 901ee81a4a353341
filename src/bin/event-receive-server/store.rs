//! Where what came in is kept. Two stores do this: `folder` (in memory, or in files: the default), and `fleet` (a NATS JetStream,
//! for `--jetstream`). Data flows one way: `receive` asks the store whether a request is to be read at all, reads and checks it, and
//! hands it over once. What the store says then is what the sender gets.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::header::HeaderMap;

use crate::boxes::StateReport;
use crate::dialect::Report;
use crate::event::Event;
use crate::refusal::Refusal;

/// What a POST brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    /// An event of a report.
    Event(Report),
    /// A box's state.
    State,
}

/// What is known of a request before its body is read.
#[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
pub struct Asked<'a> {
    pub brings: Brings,
    pub headers: &'a HeaderMap,
    /// What X-Event-Id says, or what is wrong with it.
    pub id: &'a Result<Option<String>, String>,
    /// Of the body, in bytes.
    pub length: u64,
}

/// The memory for bodies, in bytes.
#[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
pub struct Budget {
    pub used: u64,
    pub limit: u64,
}

/// Who sends, where the store asks for a proof of it.
pub type Sender = Option<Arc<str>>;

/// What came in, whole and in order.
#[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
pub struct Delivery {
    /// As [`Store::admit`] said.
    pub sender: Sender,
    /// What X-Event-Id says; of an event.
    pub id: Option<String>,
    /// RFC 3339.
    pub received_at: String,
    /// `json` or `form-data`.
    pub format: &'static str,
    /// As it was sent; in visible ASCII.
    pub content_type: String,
    /// As it came. Its part of the memory for bodies is free again when the last copy of this is gone.
    pub body: Bytes,
    pub what: What,
}

/// What a body says.
pub enum What {
    Event(Box<Event>),
    State(StateReport),
}

/// See the module.
pub trait Store: Send + Sync {
    /// Whether a request is to be read, and whose it is. What is refused here costs no more than its head.
    fn admit(&self, asked: &Asked) -> Result<Sender, Refusal>;

    /// Keeps a delivery. `Ok` only when it is where it will stay, or was there before.
    fn keep(self: Arc<Self>, delivery: Delivery) -> BoxFuture<'static, Result<(), Refusal>>;

    /// Counts what was not taken, whoever refused it.
    fn refused(&self, refusal: &Refusal);

    /// Why nothing can be kept at present.
    fn fault(&self) -> Option<String>;

    /// For Prometheus, where there is something.
    fn metrics(&self, _: Budget) -> Option<String> {
        None
    }
}
