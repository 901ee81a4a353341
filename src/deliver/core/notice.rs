//! What somebody should know, as the core sees it; `driver/say.rs` finds the words.

use super::LaneId;
use crate::event::EventId;
use crate::readiness::NotReady;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The destination does not seem to be well.
    NotDelivered {
        /// Whose.
        lane: LaneId,
        /// In words.
        why: String,
    },
    /// An event was not taken; others are.
    NotTaken {
        /// By whom.
        lane: LaneId,
        /// Which.
        event: EventId,
        /// In words.
        why: String,
    },
    /// An event becomes a dead letter.
    Rejected {
        /// Whose.
        lane: LaneId,
        /// Which.
        event: EventId,
        /// In words.
        why: String,
    },
    /// An event's pictures went away.
    Lost {
        /// For whom.
        lane: LaneId,
        /// Which.
        event: EventId,
    },
    /// An event was given up for want of room.
    GaveUp {
        /// For whom.
        lane: LaneId,
        /// It had been refused.
        is_rejected: bool,
    },
    /// The destination takes events again.
    UpAgain {
        /// Whose.
        lane: LaneId,
        /// What was wrong.
        was: String,
    },
    /// The box lacks something.
    Waits {
        /// Who needs it.
        lane: LaneId,
        /// What.
        lack: NotReady,
    },
    /// The box has it.
    WaitsNoMore {
        /// Who needed it.
        lane: LaneId,
        /// What.
        lacked: NotReady,
    },
    /// A destination was removed.
    Removed {
        /// Whose.
        lane: LaneId,
        /// Who gets what waits.
        heirs: Vec<LaneId>,
    },
    /// Nothing can be stored.
    SpoolFails(String),
    /// Events can be stored again.
    SpoolWorks(String),
}
