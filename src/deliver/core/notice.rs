//! Notices of the core: what is to be logged or reported. `driver/say.rs` has the texts.

use super::LaneId;
use crate::event::EventId;
use crate::readiness::NotReady;

/// A notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The destination seems to be failing.
    NotDelivered {
        /// Its lane.
        lane: LaneId,
        /// The reason, as text.
        why: String,
    },
    /// One event was not taken; the destination takes others.
    NotTaken {
        /// The lane.
        lane: LaneId,
        /// The event.
        event: EventId,
        /// The reason, as text.
        why: String,
    },
    /// An event becomes a dead letter.
    Rejected {
        /// The lane.
        lane: LaneId,
        /// The event.
        event: EventId,
        /// The reason, as text.
        why: String,
    },
    /// An event's pictures are no longer available.
    Lost {
        /// The lane.
        lane: LaneId,
        /// The event.
        event: EventId,
        /// They were read from the spool, not from the ring.
        is_spooled: bool,
    },
    /// An event was given up because there was no room.
    GaveUp {
        /// The lane.
        lane: LaneId,
        /// Whether the server had refused it.
        is_rejected: bool,
    },
    /// The destination takes events again.
    UpAgain {
        /// Its lane.
        lane: LaneId,
        /// What had been wrong.
        was: String,
    },
    /// The box lacks something that the lane needs.
    Waits {
        /// The lane that needs it.
        lane: LaneId,
        /// What is missing.
        lack: NotReady,
    },
    /// The box now has what the lane needed.
    WaitsNoMore {
        /// The lane that needed it.
        lane: LaneId,
        /// What had been missing.
        lacked: NotReady,
    },
    /// A destination was removed.
    Removed {
        /// Its lane.
        lane: LaneId,
        /// The lanes that get its waiting events.
        heirs: Vec<LaneId>,
    },
    /// Nothing can be stored.
    SpoolFails(String),
    /// Events can be stored again.
    SpoolWorks(String),
}
