//! What a lane knows of its server: how it fares, and whose fault failures are. [`classify`] learns from each try.

pub mod classify;

use std::ops::Deref;
use std::time::Instant;

pub use classify::{Judge, Verdict};

use super::evidence::Evidence;
use super::health::Health;

/// See the module. Everything may read the server's health; only the outcome of an attempt changes it.
#[derive(Debug)]
pub struct Standing {
    health: Health,
    evidence: Evidence,
}

impl Standing {
    /// Of a server that nothing is known of.
    pub fn new(now: Instant) -> Standing {
        Standing { health: Health::new(now), evidence: Evidence::default() }
    }

    /// What was known says nothing any more.
    pub fn begin_anew(&mut self, now: Instant) {
        self.health.begin_anew(now);
        self.evidence.begin_anew();
    }

    /// An upload was given up, for the ring needed its event's room.
    pub fn gave_up(&mut self, now: Instant) {
        self.health.gave_up(now);
    }

    /// Events acknowledged so far, and which config is in force: what an upload remembers of the moment at which it began.
    pub fn moment(&self) -> (u64, u64) {
        (self.evidence.acknowledged, self.health.generation)
    }

    #[cfg(test)]
    pub(super) fn parts(&mut self) -> (&mut Health, &mut Evidence) {
        (&mut self.health, &mut self.evidence)
    }

    /// Whether it has failed for so long that the end of the row of events that it cannot bear may be far.
    pub fn has_failed_for_long(&self) -> bool {
        self.evidence.has_failed_for_long()
    }
}

impl Deref for Standing {
    type Target = Health;

    fn deref(&self) -> &Health {
        &self.health
    }
}
