//! Rounds of a lane that sends once a period: it rests, sends everything that waits, and rests again.
//!
//! ```text
//!   resting ──an event waits──▶ resting until the next moment of its period ──▶ sending ──nothing waits──▶ resting
//! ```
//!
//! A lane without waiting events sets no timer, so it does not wake an idle box.

use std::time::{Duration, Instant};

/// Decides when a lane may send.
#[derive(Debug)]
pub struct Rounds {
    period: Duration,
    /// One moment of the period; it may be in the future.
    anchor: Instant,
    /// When the waiting events are sent.
    due: Option<Instant>,
    is_sending: bool,
}

impl Rounds {
    /// Rounds whose first moment is `first`; `period` is not zero.
    pub fn new(period: Duration, first: Instant) -> Rounds {
        Rounds { period, anchor: first, due: None, is_sending: false }
    }

    /// The time between two moments.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Whether the lane is sending; it goes on until nothing waits.
    pub fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// When the lane sends its waiting events, if it is resting.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether an event may be sent now.
    ///
    /// # Errors
    /// When to look again; none if nothing waits.
    pub fn look(&mut self, has_something: bool, now: Instant) -> Result<(), Option<Instant>> {
        if !has_something {
            (self.is_sending, self.due) = (false, None);
            return Err(None);
        }
        if self.is_sending {
            return Ok(());
        }
        let due = *self.due.get_or_insert(next_moment(self.anchor, self.period, now));
        if now < due {
            return Err(Some(due));
        }
        (self.is_sending, self.due) = (true, None);
        Ok(())
    }
}

/// The first moment after `now` that is a whole number of periods after `anchor`; `anchor` itself, if that is still to come.
pub fn next_moment(anchor: Instant, period: Duration, now: Instant) -> Instant {
    match now.checked_duration_since(anchor) {
        None => anchor,
        Some(passed) => {
            let passed_periods = passed.as_nanos() / period.as_nanos();
            anchor + period * u32::try_from(passed_periods + 1).unwrap_or(u32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_waits_is_sent_at_the_next_moment_of_the_period_and_until_nothing_waits() {
        let began = Instant::now();
        let at = |seconds: u32| began + SECOND * seconds;
        let mut rounds = Rounds::new(60 * SECOND, at(10));
        assert_eq!(rounds.look(false, at(0)), Err(None), "nothing waits: no timer");
        assert_eq!(rounds.look(true, at(1)), Err(Some(at(10))));
        assert_eq!(rounds.look(true, at(9)), Err(Some(at(10))));
        assert_eq!(rounds.look(true, at(10)), Ok(()));
        assert_eq!(rounds.look(true, at(50)), Ok(()), "it is still at it");
        assert_eq!(rounds.look(false, at(51)), Err(None));
        assert_eq!(rounds.look(true, at(52)), Err(Some(at(70))), "what comes then waits for the next one");
        assert_eq!(rounds.look(true, at(500)), Ok(()), "a timer may ring late");
        assert_eq!(rounds.look(false, at(501)), Err(None));
        assert_eq!(rounds.look(true, at(550)), Err(Some(at(610))), "at a moment of the period: it is the next one's");
    }
}
