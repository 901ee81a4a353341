//! What is to be done, as the core decides it.

use super::backlog::Wanted;
use super::spooling::Needs;
use super::{EventNo, LaneId, Notice, UploadId};
use crate::spool::{Address, Destination};

/// What is to be done.
#[derive(Debug)]
pub enum Effect<T> {
    /// Nobody needs the event any more.
    Release(T),
    /// Send an event out of the ring.
    Upload(LaneId, UploadId, EventNo),
    /// Send what was picked.
    UploadPicked(LaneId, UploadId),
    /// Close what was picked: it is not sent now.
    Forget(UploadId),
    /// End an upload; [`Input::Ended`](super::Input::Ended) says when it has ended.
    Abort(UploadId),
    /// An upload that begins once more has its body, or is not to go on.
    Body(UploadId, bool),
    /// Take an event out of the spool.
    Pick(LaneId, UploadId, Destination, Wanted),
    /// An event in the spool.
    Spooled(LaneId, Destination, u64, Fate),
    /// Store these, in this order.
    Write(Vec<Job>),
    /// Open the spool, or look for its key.
    Repair(Needs),
    /// Move some of what waits for removed destinations.
    Settle,
    /// A lane was closed: it begins no request any more.
    Retire(LaneId),
    /// A closed lane has nothing left.
    Removed(LaneId),
    /// Somebody should know.
    Say(Notice),
}

/// What becomes of an event in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 2xx.
    Delivered,
    /// The destination had it before, from another removed one.
    Had,
    /// It is to be kept as a dead letter.
    Dead(Rejection),
    /// It cannot be read now.
    Skipped,
    /// It waits again.
    PutBack,
}

/// Why an event is to be kept as a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What the server answered; none where it did not.
    pub status: Option<u16>,
    /// In words.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
}

/// A destination that an event is stored for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub address: Address,
    /// It was removed, and these get what waits for it.
    pub heirs: Option<Vec<Destination>>,
}

/// What the spool is to do for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub event: EventNo,
    /// Its number in the spool, if it was stored before.
    pub counter: Option<u64>,
    /// Who is to get it.
    pub to: Vec<Target>,
    /// Whose dead letter it is to be.
    pub dead: Vec<(Target, Rejection)>,
    /// Of `to`: whose upload is reading the record. The room in the ring is free only when that reads on in the file.
    pub in_flight: Vec<Destination>,
}

impl Job {
    /// Whether the event is only to be stored, and new to the spool.
    pub fn is_plain(&self) -> bool {
        self.counter.is_none() && self.dead.is_empty()
    }
}
