//! The effects of the core: the actions that it decides on.

use super::backlog::Wanted;
use super::spooling::Needs;
use super::{EventNo, LaneId, Notice, UploadId};
use crate::spool::{Address, Destination};

/// An action.
#[derive(Debug)]
pub enum Effect<T> {
    /// No delivery needs the event any more: release it.
    Release(T),
    /// Send an event that is in the ring.
    Upload(LaneId, UploadId, EventNo),
    /// Send the event that was picked.
    UploadPicked(LaneId, UploadId),
    /// Close the event that was picked; it is not sent now.
    Forget(UploadId),
    /// End an upload; [`Input::Ended`](super::Input::Ended) reports when it has ended.
    Abort(UploadId),
    /// The answer to an upload that wants to send its body again: true if it may.
    Body(UploadId, bool),
    /// Read an event from the spool, and lease it.
    Pick(LaneId, UploadId, Destination, Wanted),
    /// Record what becomes of an event in the spool.
    Spooled(LaneId, Destination, u64, Fate),
    /// Store these events, in this order.
    Write(Vec<Job>),
    /// Open the spool, or look for its key.
    Repair(Needs),
    /// Move some of the events that wait for removed destinations.
    Settle,
    /// A lane was closed: it starts no request any more.
    Retire(LaneId),
    /// A closed lane has nothing left.
    Removed(LaneId),
    /// Log or report this.
    Say(Notice),
}

/// What becomes of an event in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged with a 2xx.
    Delivered,
    /// The destination has it already, from another destination that was removed.
    Had,
    /// It becomes a dead letter.
    Dead(Rejection),
    /// It cannot be read.
    Skipped,
    /// It was not sent, and waits again.
    PutBack,
}

/// Why an event becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status of the server's answer; none without an answer.
    pub status: Option<u16>,
    /// The reason, as text.
    pub reason: String,
    /// How many attempts there were.
    pub tries: u32,
}

/// A destination that an event is stored for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: Address,
    /// Set if it was removed: the destinations that get its waiting events.
    pub heirs: Option<Vec<Destination>>,
}

/// What the spool has to do for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The event.
    pub event: EventNo,
    /// Its number in the spool, if it was stored before.
    pub counter: Option<u64>,
    /// The destinations to store it for.
    pub to: Vec<Target>,
    /// Whose dead letter it becomes, and why.
    pub dead: Vec<(Target, Rejection)>,
    /// The destinations of `to` whose upload is reading the event. Its room in the ring is free only once that upload reads the
    /// file.
    pub in_flight: Vec<Destination>,
}

impl Job {
    /// Whether the event is only to be stored, and is new to the spool.
    pub fn is_plain(&self) -> bool {
        self.counter.is_none() && self.dead.is_empty()
    }
}
