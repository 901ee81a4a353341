//! Servers: what they answer, and how they fare.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::deliver::core::LaneId;
use crate::deliver::failure::{Code, Early, Failure};
use crate::deliver::outcome::AttemptOutcome;

/// What a server says to an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Ok,
    /// This status, after which so many seconds are asked for.
    Status(u16, u64),
    /// The same, before it has the whole event.
    Early(u16),
    Reset,
    Silence,
    Unreachable,
    SourceLost,
    /// It was not asked once more, because another try had failed.
    NotBegun,
}

/// How a server fares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// It takes all events that are not bad.
    Well,
    /// It says this to all.
    All(Answer),
    /// It says this to so many of a hundred tries.
    Some(u8, Answer),
}

impl Answer {
    pub fn random(random: &mut fastrand::Rng) -> Answer {
        match random.u8(..12) {
            0 => Answer::Status([400, 413, 422][random.usize(..3)], 0),
            1 => Answer::Status([503, 429][random.usize(..2)], random.u64(1..20)),
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

    /// What a server may say to one event: that there is no connection is about none.
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

    /// Whether an event to which this is said at each try is given up at last.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Answer::SourceLost) || !matches!(self, Answer::Ok | Answer::Unreachable | Answer::Status(429, _))
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
    /// Whether it was taken out of the config after an event was published.
    pub fn was_removed_after(&self, event: u64) -> bool {
        self.removed.is_some_and(|removed| event < removed)
    }
}

/// A server, and what it was asked.
pub struct Server {
    pub mode: Mode,
    pub bad: Answer,
    pub delay: Duration,
    pub stale: u32,
    /// When each event was acknowledged last, and by which lane it was sent.
    pub acknowledged: BTreeMap<u64, (Instant, LaneId)>,
    pub given: BTreeSet<u64>,
    /// Nothing may begin before, as it asked.
    pub asked_until: Option<Instant>,
    /// It was taken out of the config when so many events had been published.
    pub removed: Option<u64>,
    /// How often it was asked to take each event.
    pub tries: BTreeMap<u64, u32>,
    pub lane: Option<LaneId>,
    /// Counts the configs.
    pub generation: u32,
}
