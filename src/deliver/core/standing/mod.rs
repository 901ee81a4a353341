//! What a lane knows of its server: how it fares, and whose fault failures are. [`classify`] learns from each try.

pub mod classify;
mod judge;

use std::ops::Deref;
use std::time::Instant;

pub use judge::{Judge, Verdict};

use super::Notice;
use super::evidence::Evidence;
use super::health::Health;
use crate::readiness::NotReady;

/// See the module. Everything may read the server's health. Only the methods of this module change it.
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

    /// Forgets what is known of the server, because the cause of earlier failures may have been fixed.
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

    /// Sets what the box lacks for TLS, if anything. Returns whether that changes the lane's state.
    pub fn look_at_box(&mut self, lack: Option<NotReady>, judge: &mut Judge<'_>) -> bool {
        let lack = lack.filter(|_| judge.needs_box);
        let lacked = self.health.waits();
        if let Some(lack) = lack {
            let is_news = self.health.wait_for(lack, judge.now);
            if is_news {
                judge.notices.push(Notice::Waits { lane: judge.lane, lack });
            }
            return is_news;
        }
        if let Some(lacked) = lacked {
            self.health.begin_anew(judge.now);
            judge.notices.push(Notice::WaitsNoMore { lane: judge.lane, lacked });
        }
        lacked.is_some()
    }

    #[cfg(test)]
    pub(super) fn parts(&mut self) -> (&mut Health, &mut Evidence) {
        (&mut self.health, &mut self.evidence)
    }

    /// Whether it has failed for so long that the next probe should be the newest event: the row of bad events may be long.
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
