//! Uploads, and where their events are.

use std::time::Instant;

use super::EventNo;
use super::backlog::Pick;
use super::counters::End;
use super::retry::RetryState;

/// An upload in flight.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// What it sends.
    pub source: Source,
    /// When it began.
    pub began: Instant,
    /// How many events the destination had acknowledged then.
    pub acknowledged: u64,
    /// The generation of the configuration then.
    pub generation: u64,
    /// The earlier failures of its event.
    pub retry: Option<RetryState>,
    /// The upload is being ended, because the ring needs its event's room.
    pub is_aborted: bool,
}

/// Where an upload's event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the ring; it may be being stored meanwhile.
    Ring(EventNo),
    /// It came from the ring and has been stored in the spool since.
    Stored {
        /// The event.
        event: EventNo,
        /// Its number in the spool.
        counter: u64,
        /// Whether the upload still reads the event in the ring.
        holds_room: bool,
    },
    /// It is being taken out of the spool.
    Picking(Pick),
    /// It came from the spool.
    Spool(u64),
}

/// What happens to a delivery while it is being stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// It waits: it was taken out of the queue with this state.
    Waits(Option<RetryState>),
    /// It was in flight, and failed.
    Failed(Option<RetryState>),
    /// It is in flight.
    InFlight,
    /// It is done.
    Ended(End),
}

impl InFlight {
    /// Its event, while the event is only in the ring.
    pub fn ring_event(&self) -> Option<EventNo> {
        match self.source {
            Source::Ring(event) => Some(event),
            _ => None,
        }
    }

    /// Its event's number in the spool, if it is stored.
    pub fn counter(&self) -> Option<u64> {
        match self.source {
            Source::Spool(counter) | Source::Stored { counter, .. } => Some(counter),
            Source::Picking(_) | Source::Ring(_) => None,
        }
    }

    /// Whether it came, or will come, from the spool.
    pub fn is_backlog(&self) -> bool {
        matches!(self.source, Source::Picking(_) | Source::Spool(_))
    }

    /// Whether it still reads this event in the ring, although the event is stored.
    pub fn holds_room_of_stored(&self, event: EventNo) -> bool {
        matches!(self.source, Source::Stored { event: other, holds_room: true, .. } if other == event)
    }
}
