//! What a lane knows of its destination: up or not and why, and how long nothing may start.

use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;
use crate::readiness::NotReady;

/// How a destination fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The last try succeeded, or there was none yet.
    Up,
    /// It cannot be reached, or fails.
    Down,
    /// It answers, but not as a receiver of events.
    Misconfigured,
    /// It refuses one event after another.
    Refusing,
    /// Nothing is tried: TLS needs what the box does not have yet.
    Waits(NotReady),
}

impl Condition {
    /// Its name in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Down => "down",
            Condition::Misconfigured => "misconfigured",
            Condition::Refusing => "refusing",
            Condition::Waits(lack) => lack.state(),
        }
    }
}

/// A destination's health.
#[derive(Debug)]
pub struct Health {
    /// How it fares.
    pub condition: Condition,
    /// Since when.
    pub since: Instant,
    /// The last failure, also of an event that was only refused, and when.
    pub last_failure: Option<(Failure, Instant)>,
    /// The status of the last answer that refused an event, and in words.
    pub last_refusal: Option<(Option<u16>, String)>,
    /// When it acknowledged an event last.
    pub last_success: Option<Instant>,
    /// Failures since the last success, counted once a pause.
    pub failures: u32,
    /// Refusals since the last success.
    pub refusals: u32,
    /// Counts the configurations: what began under an old one says nothing about the new one.
    pub generation: u64,
    paused_until: Option<Instant>,
}

impl Health {
    /// Of a destination that nothing is known of.
    pub fn new() -> Health {
        Health {
            condition: Condition::Up,
            since: Instant::now(),
            last_failure: None,
            last_refusal: None,
            last_success: None,
            failures: 0,
            refusals: 0,
            generation: 0,
            paused_until: None,
        }
    }

    /// Forgets what was: somebody may have set right what was wrong.
    pub fn begin_anew(&mut self) {
        *self = Health { generation: self.generation + 1, ..Health::new() };
    }

    /// The box lacks what the destination needs. True when this is news.
    pub fn wait_for(&mut self, lack: NotReady) -> bool {
        if self.waits() == Some(lack) {
            return false;
        }
        let now = Instant::now();
        self.condition = Condition::Waits(lack);
        (self.since, self.last_failure) = (now, Some((lack.failure(), now)));
        true
    }

    /// What of the box it waits for.
    pub fn waits(&self) -> Option<NotReady> {
        match self.condition {
            Condition::Waits(lack) => Some(lack),
            _ => None,
        }
    }

    /// Whether more than a probe may be tried.
    pub fn is_up(&self) -> bool {
        self.condition == Condition::Up
    }

    /// When the pause ends, if there is one.
    pub fn paused_until(&self) -> Option<Instant> {
        self.paused_until.filter(|until| *until > Instant::now())
    }

    /// An event was acknowledged; true when that ends a time of failures. One that began before the failure that made a pause says
    /// nothing of the time after.
    pub fn succeeded(&mut self) -> bool {
        self.refusals = 0;
        self.last_success = Some(Instant::now());
        if self.paused_until().is_some() || self.waits().is_some() {
            return false;
        }
        (self.failures, self.paused_until) = (0, None);
        let recovered = !self.is_up();
        if recovered {
            (self.condition, self.since) = (Condition::Up, Instant::now());
        }
        recovered
    }

    /// A try failed: nothing starts before `pause` is over, unless nothing starts anyway. Uploads that fail together make one pause, the longest of theirs: a
    /// server may have asked for it. True when this is news.
    pub fn failed(&mut self, condition: Condition, failure: &Failure, pause: Duration) -> bool {
        if self.waits().is_some() {
            return false;
        }
        let now = Instant::now();
        let is_paused = self.paused_until().is_some();
        self.paused_until = self.paused_until.max(Some(now + pause));
        if is_paused {
            return false;
        }
        self.failures += 1;
        if self.is_up() {
            self.since = now;
        }
        let is_news = self.is_up() || self.last_failure.as_ref().is_none_or(|(last, _)| !last.is_like(failure));
        (self.condition, self.last_failure) = (condition, Some((failure.clone(), now)));
        is_news
    }
}

impl Default for Health {
    fn default() -> Self {
        Health::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::Code;
    use super::*;

    #[test]
    fn what_began_before_the_clock_was_lost_ends_no_waiting_for_it_and_makes_no_pause() {
        let mut health = Health::new();
        assert!(health.wait_for(NotReady::Randomness) && !health.wait_for(NotReady::Randomness), "it is news once");
        assert!(health.wait_for(NotReady::Clock) && !health.wait_for(NotReady::Clock), "what comes next is news");
        let broken = Failure::new(Code::Stalled, "broken");
        assert!(!health.failed(Condition::Down, &broken, Duration::from_secs(60)) && !health.succeeded());
        assert!(health.waits() == Some(NotReady::Clock) && health.paused_until().is_none() && health.failures == 0);
        assert_eq!(health.last_failure.as_ref().unwrap().0, NotReady::Clock.failure());
        health.begin_anew();
        assert!(health.is_up());
    }
}
