//! A brake for messages that a broken or hostile peer can cause as often as it likes.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

/// Lets `burst` messages through every `period`, and counts the rest.
#[derive(Debug)]
pub struct RateLimited {
    burst: u32,
    period: Duration,
    began: Cell<Option<Instant>>,
    said: Cell<u32>,
    suppressed: Cell<u64>,
}

/// Ends a message that stands for others: ` (and 12 more)`; nothing when there were none.
#[derive(Debug)]
pub struct More(u64);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} more like this not shown)"),
        }
    }
}

impl RateLimited {
    /// A brake that was never used.
    pub const fn new(burst: u32, period: Duration) -> RateLimited {
        RateLimited { burst, period, began: Cell::new(None), said: Cell::new(0), suppressed: Cell::new(0) }
    }

    /// Calls `message`, or counts it as suppressed.
    pub fn say(&self, message: impl FnOnce(More)) {
        if self.began.get().is_none_or(|began| began.elapsed() >= self.period) {
            self.began.set(Some(Instant::now()));
            self.said.set(0);
        }
        if self.said.get() < self.burst {
            self.said.set(self.said.get() + 1);
            message(More(self.suppressed.take()));
        } else {
            self.suppressed.set(self.suppressed.get() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_said_and_the_rest_is_counted_into_the_next_period() {
        let brake = RateLimited::new(3, Duration::ZERO);
        let said = Cell::new(0);
        brake.began.set(Some(Instant::now() + Duration::from_secs(3600)));
        (0..10).for_each(|_| brake.say(|_| said.set(said.get() + 1)));
        // elapsed() of a moment to come is zero, and so is the period: every call begins one
        assert_eq!(said.get(), 10);

        let brake = RateLimited::new(3, Duration::from_secs(3600));
        let said = Cell::new(0);
        (0..10).for_each(|_| brake.say(|_| said.set(said.get() + 1)));
        assert_eq!((said.get(), brake.suppressed.get()), (3, 7));
        brake.began.set(None);
        brake.say(|more| assert_eq!(more.to_string(), " (and 7 more like this not shown)"));
        brake.say(|more| assert_eq!(more.to_string(), ""));
    }
}
