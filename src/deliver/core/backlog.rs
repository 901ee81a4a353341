//! A lane's view of its events in the spool: which ones failed, and whether there may be others. The spool itself tracks which
//! ones are leased.

use std::time::Instant;

use super::queue::Failed;
use super::retry::RetryState;

/// The most failed events that are remembered. When half of them are gone, the spool is searched again for the others.
const MAX_FAILED: usize = 4096;

/// A lane's events in the spool.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Failed events that are not in flight.
    failed: Failed,
    /// All events up to this number were tried, as far as is known.
    cursor: u64,
    /// The newest event that was added and not tried yet; 0 if there is none.
    newest: u64,
    /// Whether all events were tried, as far as is known.
    dry: bool,
    /// Whether some failed events were forgotten; they are below the cursor.
    overflowed: bool,
    /// Counts additions: a pick that began before an addition does not know of it.
    additions: u64,
    /// No event is picked before this.
    not_before: Option<Instant>,
}

/// An event to be taken out of the spool, with the state on which that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The event.
    pub wanted: Wanted,
    /// Whether it is the newest event and not the next one.
    is_newest: bool,
    additions: u64,
}

/// An event to be taken out of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The oldest event after a number, except for some.
    Next {
        /// The number.
        after: u64,
        /// The exceptions: events that failed.
        but: Vec<u64>,
    },
    /// An event that failed before.
    This(u64, RetryState),
}

impl Backlog {
    /// A new event was stored; `state` tells of earlier failures. `is_in_order`: the lane keeps the order.
    pub fn add(&mut self, counter: u64, state: Option<RetryState>, is_in_order: bool) {
        self.put_back(counter, state, is_in_order);
        self.not_before = None;
    }

    /// An event is no longer in flight and waits again.
    pub fn put_back(&mut self, counter: u64, state: Option<RetryState>, is_in_order: bool) {
        self.additions += 1;
        if is_in_order {
            self.cursor = self.cursor.min(counter.saturating_sub(1));
            self.dry = false;
        }
        match state {
            Some(_) if self.failed.count() >= MAX_FAILED => self.overflowed = true,
            Some(state) => self.failed.insert(counter, state),
            None => {
                self.newest = self.newest.max(counter);
                self.cursor = self.cursor.min(counter.saturating_sub(1));
                self.dry = false;
            }
        }
    }

    /// There may be new events with any number.
    pub fn wake(&mut self) {
        self.additions += 1;
        (self.cursor, self.dry, self.overflowed, self.not_before) = (0, false, false, None);
    }

    /// Forgets all failures: every event may be tried again.
    pub fn forgive(&mut self) {
        self.failed.clear();
        self.wake();
    }

    /// Whether there may be an event that never failed. An error: when to look again, if ever.
    pub fn has_fresh(&self, now: Instant) -> Result<(), Option<Instant>> {
        match self.not_before.filter(|moment| *moment > now) {
            _ if self.dry => Err(None),
            Some(moment) => Err(Some(moment)),
            None => Ok(()),
        }
    }

    /// Whether there is no event, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.dry && !self.overflowed && self.failed.count() == 0
    }

    /// When the first failed event may be tried again.
    pub fn first_retry(&self, now: Instant) -> Option<Instant> {
        let (moment, _) = self.failed.first()?;
        Some(self.not_before.filter(|rest| *rest > now).map_or(moment, |rest| rest.max(moment)))
    }

    /// Whether an event was added that is newer than the next one to be tried.
    pub fn knows_newest(&self) -> bool {
        self.newest > self.cursor
    }

    /// Picks an event that never failed: the oldest, or on request the newest if it is known.
    pub fn pick_fresh(&mut self, newest: bool) -> Pick {
        let is_newest = newest && self.knows_newest();
        let after = if is_newest { std::mem::take(&mut self.newest) - 1 } else { self.cursor };
        let but = self.failed.above(after).collect();
        Pick { wanted: Wanted::Next { after, but }, is_newest, additions: self.additions }
    }

    /// Picks the failed event that may be tried again first.
    pub fn pick_retry(&mut self) -> Option<Pick> {
        let (_, counter) = self.failed.first()?;
        let state = self.failed.remove(counter)?;
        if self.overflowed && self.failed.count() < MAX_FAILED / 2 {
            let not_before = self.not_before;
            self.wake();
            self.not_before = not_before;
        }
        Some(Pick { wanted: Wanted::This(counter, state), is_newest: false, additions: self.additions })
    }

    /// Picks the oldest event, whether or not it failed. An error: when to look again.
    pub fn pick_oldest(&mut self, now: Instant) -> Result<Pick, Instant> {
        let waits_until = self.failed.lowest().map(|state| state.retry_at).max(self.not_before);
        match waits_until.filter(|moment| *moment > now) {
            Some(moment) => Err(moment),
            None => Ok(Pick {
                wanted: Wanted::Next { after: self.cursor, but: Vec::new() },
                is_newest: false,
                additions: self.additions,
            }),
        }
    }

    /// Removes and returns the state of an event that was picked.
    pub fn take_state(&mut self, counter: u64) -> Option<RetryState> {
        self.failed.remove(counter)
    }

    /// A pick found event `counter`.
    pub fn found(&mut self, pick: &Pick, counter: u64) {
        if pick.is_next() && self.additions == pick.additions {
            self.cursor = self.cursor.max(counter);
        }
    }

    /// A pick found no event.
    pub fn found_nothing(&mut self, pick: &Pick, is_in_order: bool) {
        if pick.is_next() && self.additions == pick.additions {
            self.dry = true;
            if is_in_order {
                self.failed.clear(); // the spool has none of them any more
            }
        }
    }

    /// Picks no event before `moment`.
    pub fn rest_until(&mut self, moment: Instant) {
        self.not_before = Some(moment);
    }
}

impl Pick {
    /// Whether every older event was tried.
    fn is_next(&self) -> bool {
        matches!(self.wanted, Wanted::Next { .. }) && !self.is_newest
    }
}

impl Wanted {
    /// The state of the event.
    pub fn state(&self) -> Option<RetryState> {
        match self {
            Wanted::Next { .. } => None,
            Wanted::This(_, state) => Some(*state),
        }
    }

    /// Chooses the oldest suitable event from `listed`, which lists the events after a number.
    pub fn choose<I: Iterator<Item = u64>>(&self, listed: impl Fn(Option<u64>) -> I) -> Option<u64> {
        match self {
            Wanted::Next { after, but } => listed(Some(*after)).find(|counter| but.binary_search(counter).is_err()),
            Wanted::This(counter, _) => listed(counter.checked_sub(1)).next().filter(|first| first == counter),
        }
    }
}
