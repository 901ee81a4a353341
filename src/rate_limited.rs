//! A rate limit for log messages that a broken or hostile peer, disk or ring can cause without limit.
//!
//! Each place in the code has its own count, so that many messages of one kind do not hide the first message of another. The
//! first few are logged at once. Then one per period is logged, with the number of those left out. So if something repeats for
//! ever, the log grows by one line per minute and kind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

/// Time between two messages of a kind, after the first few.
const PERIOD: Duration = Duration::from_secs(60);

/// Logs the first messages of each kind, then one per period, and counts the rest.
#[derive(Debug)]
pub struct RateLimited {
    /// Number of messages of a kind that are logged at once; at least 1.
    burst: u32,
    kinds: RefCell<BTreeMap<(&'static str, u32), Kind>>,
}

/// The state of one kind of message.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Messages that may be logged before the next period begins.
    left: u32,
    /// When `left` was last raised.
    raised: Instant,
    suppressed: u64,
}

/// The end of a message that represents others: ` (and 12 more like this not shown)`; empty if there were none.
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
    /// A new limiter: `burst` messages of each kind at once, then one per minute.
    pub const fn new(burst: u32) -> RateLimited {
        RateLimited { burst, kinds: RefCell::new(BTreeMap::new()) }
    }

    /// Calls `message`, or counts it as suppressed. All calls from one place in the code are one kind.
    #[track_caller]
    pub fn say(&self, message: impl FnOnce(More)) {
        let place = Location::caller();
        self.say_of((place.file(), place.line()), message);
    }

    /// The same for a place in the code with several kinds.
    pub fn say_of(&self, kind: (&'static str, u32), message: impl FnOnce(More)) {
        if let Some(more) = self.admit(kind, Instant::now()) {
            message(more);
        }
    }

    /// Returns the end of a message of this kind; none if it is not logged.
    fn admit(&self, kind: (&'static str, u32), now: Instant) -> Option<More> {
        let mut kinds = self.kinds.borrow_mut();
        let kind = kinds.entry(kind).or_insert(Kind { left: self.burst, raised: now, suppressed: 0 });
        let periods = now.saturating_duration_since(kind.raised).as_secs() / PERIOD.as_secs();
        if periods > 0 {
            kind.left = u32::try_from(periods).unwrap_or(u32::MAX).saturating_add(kind.left).min(self.burst);
            kind.raised = now;
        }
        if kind.left == 0 {
            kind.suppressed += 1;
            return None;
        }
        if kind.left == self.burst {
            kind.raised = now; // the period begins with this message, not with the last quiet time
        }
        kind.left -= 1;
        Some(More(std::mem::take(&mut kind.suppressed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_said_then_one_a_minute_with_the_count_of_the_rest() {
        let brake = RateLimited::new(3);
        let began = Instant::now();
        let at = |second: u64| brake.admit(("here", 1), began + Duration::from_secs(second)).map(|more| more.0);
        assert_eq!([at(0), at(0), at(1), at(2), at(59)], [Some(0), Some(0), Some(0), None, None]);
        assert_eq!([at(60), at(61), at(100)], [Some(2), None, None], "one a minute");
        assert_eq!(at(120), Some(2));
        assert_eq!((121..=3720).filter_map(at).collect::<Vec<_>>(), [59; 60], "an hour has sixty lines");
        assert_eq!(
            [at(9000), at(9000), at(9000), at(9000)],
            [Some(0), Some(0), Some(0), None],
            "it was quiet meanwhile"
        );
    }

    #[test]
    fn many_of_one_kind_do_not_hide_the_first_of_another() {
        let brake = RateLimited::new(1);
        let said = RefCell::new(Vec::new());
        for number in 0..10 {
            brake.say(|more| said.borrow_mut().push(format!("{number}{more}")));
        }
        brake.say(|more| said.borrow_mut().push(format!("another{more}")));
        assert_eq!(*said.borrow(), ["0", "another"]);
    }

    #[test]
    fn what_was_not_shown_is_counted_in_words() {
        assert_eq!(More(7).to_string(), " (and 7 more like this not shown)");
        assert_eq!(More(0).to_string(), "");
    }
}
