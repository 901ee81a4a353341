//! Servers, and their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::deliver::core::LaneId;
use crate::deliver::failure::{Code, Early, Failure};
use crate::deliver::outcome::AttemptOutcome;

/// A server's answer to an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Ok,
    /// This status, with a `Retry-After` of this many seconds (0: none).
    Status(u16, u64),
    /// This status, before the server has the whole event.
    Early(u16),
    Reset,
    Silence,
    Unreachable,
    SourceLost,
    /// The upload had to be sent again but was not, because another attempt had failed.
    NotBegun,
}

/// The mode of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// It takes every event that is not bad.
    Well,
    /// It gives this answer to every event.
    All(Answer),
    /// It gives this answer to this percentage of tries.
    Some(u8, Answer),
}

impl Answer {
    pub fn random(random: &mut fastrand::Rng) -> Answer {
        match random.u8(..12) {
            0 => Answer::Status([400, 413, 422][random.usize(..3)], 0),
            1 => Answer::Status([503, 429, 500, 413, 404, 409][random.usize(..6)], random.u64(1..20)),
            2 | 3 => Answer::Status([500, 503, 408][random.usize(..3)], 0),
            4 | 5 => Answer::Status([401, 403, 404, 302][random.usize(..4)], 0),
            6 => Answer::Status([402, 409, 423][random.usize(..3)], 0),
            7 => Answer::Early([200, 400, 403, 413, 500][random.usize(..5)]),
            8 => Answer::Reset,
            9 => Answer::Silence,
            10 => Answer::Unreachable,
            _ => Answer::SourceLost,
        }
    }

    /// A random answer to a single event. "Unreachable" is not one, because it is never about an event.
    pub fn of_event(random: &mut fastrand::Rng) -> Answer {
        match Answer::random(random) {
            Answer::Unreachable => Answer::Reset,
            answer => answer,
        }
    }

    pub(super) fn outcome(self) -> AttemptOutcome {
        let status = |status: u16, early: Option<Early>, asked: u64| {
            let mut headers = hyper::HeaderMap::new();
            if asked > 0 {
                headers.insert("retry-after", asked.into());
            }
            AttemptOutcome::of_answer(status, &headers, early)
        };
        match self {
            Answer::Ok => AttemptOutcome::Acknowledged,
            Answer::Status(code, asked) => status(code, None, asked),
            Answer::Early(code) => status(code, Some(Early { sent: 1, total: 2 }), 0),
            Answer::Reset => AttemptOutcome::down(Failure::new(Code::Interrupted, "reset")),
            Answer::Silence => AttemptOutcome::down(Failure::new(Code::NoAnswer, "no answer")),
            Answer::Unreachable => {
                AttemptOutcome::Unreachable { failure: Failure::new(Code::ConnectRefused, "refused") }
            }
            Answer::SourceLost => AttemptOutcome::SourceLost,
            Answer::NotBegun => AttemptOutcome::NotBegun { failure: Failure::new(Code::Interrupted, "closed") },
        }
    }

    /// Whether an event that always gets this answer is given up in the end.
    pub(super) fn is_final(self) -> bool {
        // An event that the server asks for again is never given up.
        !matches!(self, Answer::Ok | Answer::Unreachable | Answer::Status(429, _) | Answer::Status(_, 1..))
    }
}

impl Mode {
    pub fn random(random: &mut fastrand::Rng) -> Mode {
        match random.u8(..3) {
            0 => Mode::Well,
            1 => Mode::All(Answer::random(random)),
            _ => Mode::Some([1, 10, 50, 90][random.usize(..4)], Answer::random(random)),
        }
    }
}

impl Server {
    /// Whether the server was removed from the config after the event was published.
    pub fn was_removed_after(&self, event: u64) -> bool {
        self.removed.is_some_and(|removed| event < removed)
    }
}

/// A server and what it received.
pub struct Server {
    pub mode: Mode,
    pub bad: Answer,
    pub delay: Duration,
    pub stale: u32,
    /// When each event was last acknowledged, and by which lane it was sent.
    pub acknowledged: BTreeMap<u64, (Instant, LaneId)>,
    pub given: BTreeSet<u64>,
    /// No upload may begin before this, as the server requested.
    pub asked_until: Option<Instant>,
    /// How many events had been published when it was removed from the config.
    pub removed: Option<u64>,
    /// How often each event was sent to it.
    pub tries: BTreeMap<u64, u32>,
    pub lane: Option<LaneId>,
    /// Counts the configs.
    pub generation: u32,
}
