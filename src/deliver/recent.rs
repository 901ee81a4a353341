//! Outcomes of a destination's events in the last hour: they show whether refusals are an exception or the rule.
//!
//! No timer is needed: the slots are a ring buffer, and a slot is cleared when it is used again.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The duration of one slot.
const SLOT: Duration = Duration::from_secs(300);
/// The slots of one hour, and the current one.
const SLOTS: usize = 13;

/// Acknowledged and refused events of the last hour, in slots of five minutes.
#[derive(Debug)]
pub struct Recent {
    began: Instant,
    newest: Cell<usize>,
    /// For each slot: acknowledged events, and dead letters.
    slots: RefCell<[[u64; 2]; SLOTS]>,
    last_refusal: RefCell<Option<String>>,
}

/// Results of a destination's events in the last hour, to five minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LastHour {
    /// 2xx.
    pub acknowledged: u64,
    /// Events that became dead letters: the server refused them, or they failed again and again.
    pub dead: u64,
    /// The server's answer to the last event that it refused since the start.
    pub last_refusal: Option<String>,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent {
            began: Instant::now(),
            newest: Cell::new(0),
            slots: RefCell::default(),
            last_refusal: RefCell::default(),
        }
    }
}

impl Recent {
    /// An event was acknowledged.
    pub fn acknowledged(&self) {
        self.count(0, self.began.elapsed());
    }

    /// An event became a dead letter for the reason `why`.
    pub fn refused(&self, why: &str) {
        self.count(1, self.began.elapsed());
        self.last_refusal.replace(Some(why.to_owned()));
    }

    /// The sums of the last hour.
    pub fn last_hour(&self) -> LastHour {
        let [acknowledged, dead] = self.sums(self.began.elapsed());
        LastHour { acknowledged, dead, last_refusal: self.last_refusal.borrow().clone() }
    }

    fn count(&self, kind: usize, now: Duration) {
        self.advance(now);
        self.slots.borrow_mut()[self.newest.get() % SLOTS][kind] += 1;
    }

    fn sums(&self, now: Duration) -> [u64; 2] {
        self.advance(now);
        [0, 1].map(|kind| self.slots.borrow().iter().map(|slot| slot[kind]).sum())
    }

    /// Clears the slots since the last used one.
    fn advance(&self, now: Duration) {
        let number = (now.as_secs() / SLOT.as_secs()) as usize;
        let mut slots = self.slots.borrow_mut();
        for passed in (self.newest.get() + 1..=number).rev().take(SLOTS) {
            slots[passed % SLOTS] = [0; 2];
        }
        self.newest.set(self.newest.get().max(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_remembered_and_no_more() {
        let (recent, at) = (Recent::default(), Duration::from_secs);
        recent.count(0, at(0));
        recent.count(1, at(0));
        recent.count(1, at(1800));
        assert_eq!(recent.sums(at(3599)), [1, 2]);
        assert_eq!(recent.sums(at(3900)), [0, 1], "an hour and five minutes");
        assert_eq!(recent.sums(at(100_000)), [0, 0]);
        recent.refused("the server answered 413");
        assert_eq!(recent.last_hour().last_refusal.unwrap(), "the server answered 413");
    }
}
