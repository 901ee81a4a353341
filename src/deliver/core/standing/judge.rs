//! What a classification works on, and what comes of it.

use std::time::{Duration, Instant};

use crate::deliver::core::counters::End;
use crate::deliver::core::health::Condition;
use crate::deliver::core::in_flight::InFlight;
use crate::deliver::core::lane::Lane;
use crate::deliver::core::retry::RetryState;
use crate::deliver::core::{LaneId, Notice};
use crate::deliver::failure::Failure;
use crate::event::EventId;

/// Too Many Requests: never the fault of the event.
pub(super) const TOO_MANY: u16 = 429;

/// What an outcome means for the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The delivery is done.
    Over(End),
    /// The event is tried again.
    Again(Option<RetryState>),
}

/// A failed attempt.
pub(super) struct Failing<'a> {
    /// Its upload.
    pub upload: &'a InFlight,
    /// Its event.
    pub id: EventId,
    /// What the failure means for the destination.
    pub condition: Condition,
    /// What failed.
    pub failure: Failure,
    /// The pause that the server asks for, if that is about the destination.
    pub retry_after: Option<Duration>,
    /// Whether the answer has `Retry-After`, about the destination or about the event alone.
    pub is_asked_for: bool,
}

/// The context of a classification, and what it adds to the verdict.
pub struct Judge<'a> {
    /// The lane.
    pub(super) lane: LaneId,
    /// Strict order, and how long an event may stop the others.
    pub(super) in_order: Option<Duration>,
    /// Whether it needs the clock and random numbers.
    pub(super) needs_box: bool,
    /// The current time.
    pub now: Instant,
    /// Random numbers for pauses.
    pub random: &'a mut fastrand::Rng,
    /// Notices to be logged or reported.
    pub notices: Vec<Notice>,
    /// Attempts that failed.
    pub failures: u64,
    /// The server is in doubt: uploads may not send their bodies again.
    pub is_doubted: bool,
}

impl Judge<'_> {
    /// The context of a lane, without notices.
    pub fn new<'a>(lane: &Lane, now: Instant, random: &'a mut fastrand::Rng) -> Judge<'a> {
        let Lane { id, in_order, needs_box, .. } = *lane;
        Judge { lane: id, in_order, needs_box, now, random, notices: Vec::new(), failures: 0, is_doubted: false }
    }
}

impl Failing<'_> {
    /// Whether the server refused it before it had the whole body, for a reason other than its size or type.
    pub fn is_early(&self) -> bool {
        self.failure.early.is_some() && !matches!(self.failure.status, Some(413 | 415))
    }

    /// Whether the answer is about the server only.
    pub fn is_about_server(&self) -> bool {
        matches!(self.failure.status, Some(408 | 425 | TOO_MANY | 502 | 503 | 504))
    }
}
