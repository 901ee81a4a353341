//! What a lane knows of its events in the spool: which failed, and whether there may be others. Which are on their way, the spool
//! knows itself.

use std::time::Instant;

use super::queue::Failed;
use super::retry::RetryState;

/// Events that failed are remembered up to here. Further ones are looked for again when there are fewer.
const MAX_FAILED: usize = 4096;

/// A lane's events in the spool.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Known to have failed, and not on their way.
    failed: Failed,
    /// Up to here nothing is known to be there that was not tried.
    cursor: u64,
    /// The newest one that came since then; 0 where it was tried.
    newest: u64,
    /// There is nothing that was not tried, as far as is known.
    dry: bool,
    /// Some that failed were forgotten: they are behind the cursor.
    overflowed: bool,
    /// Counts what was added: whoever looked before knows nothing of it.
    additions: u64,
    /// Nothing is picked before.
    not_before: Option<Instant>,
    /// Always the oldest one is picked.
    pub is_in_order: bool,
}

/// Which event is to be taken out of the spool, and what was known when that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which.
    pub wanted: Wanted,
    /// It is the newest one, not the next.
    is_newest: bool,
    additions: u64,
}

/// An event to be taken out of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The oldest above a number that is none of these.
    Next {
        /// The number.
        after: u64,
        /// They failed.
        but: Vec<u64>,
    },
    /// One that failed before.
    This(u64, RetryState),
}

impl Backlog {
    /// Of which nothing is known yet.
    pub fn new(is_in_order: bool) -> Backlog {
        Backlog { is_in_order, ..Backlog::default() }
    }

    /// There is a new event, which failed before as `state` says.
    pub fn add(&mut self, counter: u64, state: Option<RetryState>) {
        self.put_back(counter, state);
        self.not_before = None;
    }

    /// An event that was on its way is there again.
    pub fn put_back(&mut self, counter: u64, state: Option<RetryState>) {
        self.additions += 1;
        if self.is_in_order {
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

    /// There may be something new, anywhere.
    pub fn wake(&mut self) {
        self.additions += 1;
        (self.cursor, self.dry, self.overflowed, self.not_before) = (0, false, false, None);
    }

    /// Nothing that failed is held back any longer.
    pub fn forgive(&mut self) {
        self.failed.clear();
        self.wake();
    }

    /// Whether something may be there that never failed; else when to look again, if ever.
    pub fn has_fresh(&self, now: Instant) -> Result<(), Option<Instant>> {
        match self.not_before.filter(|moment| *moment > now) {
            _ if self.dry => Err(None),
            Some(moment) => Err(Some(moment)),
            None => Ok(()),
        }
    }

    /// Whether there is nothing, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.dry && !self.overflowed && self.failed.count() == 0
    }

    /// When the first one that failed may be tried again.
    pub fn first_retry(&self, now: Instant) -> Option<Instant> {
        let (moment, _) = self.failed.first()?;
        Some(self.not_before.filter(|rest| *rest > now).map_or(moment, |rest| rest.max(moment)))
    }

    /// Whether one came that is newer than what is to be tried next.
    pub fn knows_newest(&self) -> bool {
        self.newest > self.cursor
    }

    /// Begins to pick one that never failed: the oldest, or the newest one where that is known.
    pub fn pick_fresh(&mut self, newest: bool) -> Pick {
        let is_newest = newest && self.knows_newest();
        let after = if is_newest { std::mem::take(&mut self.newest) - 1 } else { self.cursor };
        let but = self.failed.above(after).collect();
        Pick { wanted: Wanted::Next { after, but }, is_newest, additions: self.additions }
    }

    /// Begins to pick the first one that may be tried again.
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

    /// Begins to pick the oldest one, whatever is known of it; else when to look again.
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

    /// What is known of an event that was picked.
    pub fn take_state(&mut self, counter: u64) -> Option<RetryState> {
        self.failed.remove(counter)
    }

    /// A pick found an event.
    pub fn found(&mut self, pick: &Pick, counter: u64) {
        if pick.is_next() && self.additions == pick.additions {
            self.cursor = self.cursor.max(counter);
        }
    }

    /// A pick found nothing: what it was to look for is not there.
    pub fn found_nothing(&mut self, pick: &Pick) {
        if pick.is_next() && self.additions == pick.additions {
            self.dry = true;
            if self.is_in_order {
                self.failed.clear(); // they are gone
            }
        }
    }

    /// Nothing is picked before `moment`.
    pub fn rest_until(&mut self, moment: Instant) {
        self.not_before = Some(moment);
    }
}

impl Pick {
    /// Whether all that is older was tried.
    fn is_next(&self) -> bool {
        matches!(self.wanted, Wanted::Next { .. }) && !self.is_newest
    }
}

impl Wanted {
    /// What is known of the event.
    pub fn state(&self) -> Option<RetryState> {
        match self {
            Wanted::Next { .. } => None,
            Wanted::This(_, state) => Some(*state),
        }
    }

    /// Chooses among what is `listed` after a number, the oldest first.
    pub fn choose<I: Iterator<Item = u64>>(&self, listed: impl Fn(Option<u64>) -> I) -> Option<u64> {
        match self {
            Wanted::Next { after, but } => listed(Some(*after)).find(|counter| but.binary_search(counter).is_err()),
            Wanted::This(counter, _) => listed(counter.checked_sub(1)).next().filter(|first| first == counter),
        }
    }
}
