//! A destination's health: whether it is up, why not, and how long no upload may start.

use std::time::{Duration, Instant};

use crate::deliver::failure::Failure;
use crate::readiness::NotReady;

/// The condition of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The last attempt succeeded, or there was none yet, or failures are the fault of single events.
    Up,
    /// It cannot be reached, or it fails.
    Down,
    /// It answers, but not like a receiver of events.
    Misconfigured,
    /// It refuses one event after another.
    Refusing,
    /// Nothing is tried: TLS needs something that the box does not have yet.
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

/// A failure is recent for this long: the next upload is likely to fail as well.
const LATELY: Duration = Duration::from_secs(10);

/// A destination's health.
#[derive(Clone, Debug)]
pub struct Health {
    /// Its condition.
    pub condition: Condition,
    /// Since when it has this condition.
    pub since: Instant,
    /// The last failure and its time, also that of a single event.
    pub last_failure: Option<(Failure, Instant)>,
    /// When an upload was last given up because the ring needed its event's room.
    gave_up_at: Option<Instant>,
    /// When it last acknowledged an event.
    pub last_success: Option<Instant>,
    /// Pauses since the last success: they make the next pause longer.
    pub pauses: u32,
    /// Refusals since the last success.
    pub refusals: u32,
    /// Counts the configurations: an attempt under an old one says nothing about the new one.
    pub generation: u64,
    /// No upload starts before this, because the destination fails.
    paused_until: Option<Instant>,
    /// No upload starts before this, because the server asked for it.
    asked_until: Option<Instant>,
    /// No event that failed is tried again before this.
    retries_at: Option<Instant>,
}

impl Health {
    /// The health of a new destination.
    pub fn new(now: Instant) -> Health {
        Health {
            condition: Condition::Up,
            since: now,
            last_failure: None,
            gave_up_at: None,
            last_success: None,
            pauses: 0,
            refusals: 0,
            generation: 0,
            paused_until: None,
            asked_until: None,
            retries_at: None,
        }
    }

    /// Resets the health, because the cause of earlier failures may have been fixed.
    pub fn begin_anew(&mut self, now: Instant) {
        *self = Health { generation: self.generation + 1, ..Health::new(now) };
    }

    /// The box lacks what the destination needs. Returns true if that is new.
    pub fn wait_for(&mut self, lack: NotReady, now: Instant) -> bool {
        if self.waits() == Some(lack) {
            return false;
        }
        (self.condition, self.since, self.last_failure) = (Condition::Waits(lack), now, Some((lack.into(), now)));
        true
    }

    /// What the destination waits for.
    pub fn waits(&self) -> Option<NotReady> {
        match self.condition {
            Condition::Waits(lack) => Some(lack),
            _ => None,
        }
    }

    /// Whether more than a probe may be sent.
    pub fn is_up(&self) -> bool {
        self.condition == Condition::Up
    }

    /// Whether it is not up, or an attempt failed or was given up recently.
    pub fn failed_lately(&self, now: Instant) -> bool {
        let failed_at = self.last_failure.as_ref().map(|(_, moment)| *moment);
        let last = failed_at.max(self.gave_up_at);
        !self.is_up() || last.is_some_and(|moment| now.saturating_duration_since(moment) < LATELY)
    }

    /// An upload was given up because the ring needed its event's room: the upload takes longer than the ring has room for.
    pub fn gave_up(&mut self, now: Instant) {
        self.gave_up_at = Some(now);
    }

    /// When the pause ends, if there is one.
    pub fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.max(self.asked_until).filter(|until| *until > now)
    }

    /// When events that failed may be tried again, if not now.
    pub fn retries_at(&self, now: Instant) -> Option<Instant> {
        self.retries_at.filter(|moment| *moment > now)
    }

    /// An event was acknowledged. Returns true if that ends a period of failures. A pause that the server asked for goes on.
    pub fn succeeded(&mut self, now: Instant) -> bool {
        self.refusals = 0;
        self.last_success = Some(now);
        if self.waits().is_some() {
            return false;
        }
        (self.pauses, self.paused_until, self.retries_at) = (0, None, None);
        if self.paused_until(now).is_some() || self.is_up() {
            return false;
        }
        (self.condition, self.since) = (Condition::Up, now);
        true
    }

    /// An event was not taken, but the destination may be healthy.
    pub fn note(&mut self, failure: Failure, now: Instant) {
        if self.waits().is_none() {
            self.last_failure = Some((failure, now));
        }
    }

    /// The destination seems to fail: from now on one probe at a time. Returns true if that is new.
    pub fn doubt(&mut self, condition: Condition, failure: Failure, now: Instant) -> bool {
        if self.waits().is_some() {
            return false;
        }
        if self.is_up() {
            self.since = now;
        }
        let is_news = self.is_up() || self.last_failure.as_ref().is_none_or(|(last, _)| !last.is_like(&failure));
        (self.condition, self.last_failure) = (condition, Some((failure, now)));
        is_news
    }

    /// No upload starts before `pause` is over. Does nothing while the lane waits for the box (clock, random numbers). Uploads
    /// that fail together make one pause, the longest of theirs.
    pub fn pause(&mut self, pause: Duration, now: Instant) {
        if self.waits().is_some() {
            return;
        }
        if self.paused_until(now).is_none() {
            self.pauses += 1;
        }
        self.paused_until = self.paused_until.max(Some(now + pause));
    }

    /// The server asked for a pause before the next upload.
    pub fn pause_as_asked(&mut self, pause: Duration, now: Instant) {
        self.pause(Duration::ZERO, now);
        self.asked_until = self.asked_until.max(Some(now + pause));
    }

    /// No event that failed is tried again before `pause` is over.
    pub fn pause_retries(&mut self, pause: Duration, now: Instant) {
        if self.retries_at(now).is_none() {
            self.pauses += 1;
        }
        self.retries_at = self.retries_at.max(Some(now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::failure::Code;

    fn failure(why: &str) -> Failure {
        Failure::new(Code::Stalled, why)
    }

    #[test]
    fn what_began_before_the_clock_was_lost_ends_no_waiting_for_it_and_makes_no_pause() {
        let now = Instant::now();
        let mut health = Health::new(now);
        let is_news = [NotReady::Randomness, NotReady::Randomness, NotReady::Clock, NotReady::Clock];
        assert_eq!(is_news.map(|lack| health.wait_for(lack, now)), [true, false, true, false], "each is news once");
        assert!(!health.doubt(Condition::Down, failure("broken"), now) && !health.succeeded(now));
        health.pause(Duration::from_secs(60), now);
        assert!(health.waits() == Some(NotReady::Clock) && health.paused_until(now).is_none() && health.pauses == 0);
        assert_eq!(health.last_failure.as_ref().unwrap().0, Failure::from(NotReady::Clock));
        health.begin_anew(now);
        assert!(health.is_up());
    }

    #[test]
    fn a_success_ends_our_pause_and_not_the_one_that_the_server_asked_for() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut health = Health::new(now);
        health.doubt(Condition::Down, failure("why"), now);
        health.pause(60 * second, now);
        assert!(health.paused_until(now) == Some(now + 60 * second) && health.succeeded(now));
        assert!(health.paused_until(now).is_none() && health.is_up());
        health.doubt(Condition::Down, failure("why"), now);
        health.pause_as_asked(second, now);
        health.pause(second / 2, now);
        assert!(!health.succeeded(now) && health.paused_until(now) == Some(now + second) && !health.is_up());
        assert!(health.succeeded(now + second));
    }
}
