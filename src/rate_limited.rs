//! A brake for messages that a broken or hostile peer, disk or ring can cause as often as it likes.
//!
//! Each place in the code that complains has a count of its own, so that many complaints of one kind do not hide the first of another:
//! the first few are said at once, then one a period, with the number of those that were not. Where somebody repeats a thousand things
//! for ever, the log grows by a line a minute for each kind of thing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

/// After the first few, one message of a kind is said in this time.
const PERIOD: Duration = Duration::from_secs(60);

/// Lets the first messages of each kind through, then one every period, and counts the rest.
#[derive(Debug)]
pub struct RateLimited {
    /// Messages of a kind that are said at once; at least 1.
    burst: u32,
    kinds: RefCell<BTreeMap<(&'static str, u32), Kind>>,
}

/// What is known of one place that complains.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Messages that may be said before the next period begins.
    left: u32,
    /// When `left` was last raised.
    raised: Instant,
    suppressed: u64,
}

/// Ends a message that stands for others: ` (and 12 more like this not shown)`; nothing when there were none.
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
    /// A brake that was never used: `burst` messages of each kind at once, then one a minute.
    pub const fn new(burst: u32) -> RateLimited {
        RateLimited { burst, kinds: RefCell::new(BTreeMap::new()) }
    }

    /// Calls `message`, or counts it as suppressed. Calls from one place in the code are one kind.
    #[track_caller]
    pub fn say(&self, message: impl FnOnce(More)) {
        let place = Location::caller();
        self.say_of((place.file(), place.line()), message);
    }

    /// The same where one place in the code has several kinds.
    pub fn say_of(&self, kind: (&'static str, u32), message: impl FnOnce(More)) {
        if let Some(more) = self.admit(kind, Instant::now()) {
            message(more);
        }
    }

    /// What a message of this kind ends with; none when it is not to be said.
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
            kind.raised = now; // the period begins with the first message, not with the last quiet time
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
