//! What a lane knows of its events in the spool: which failed, and whether there may be others. Which are on their way, the spool
//! knows itself.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::lane::Hold;
use crate::ring::mapping::MappedFile;
use crate::spool::worker::RealSpool;
use crate::spool::{Destination, ReadError, SpooledEvent};

/// Events that failed are remembered up to here; more would say something about the server, not about them.
const MAX_HOLDS: usize = 64;

/// A lane's events in the spool.
#[derive(Debug, Default)]
pub struct Backlog {
    holds: BTreeMap<u64, Hold>,
    /// There is nothing but what is flying or held.
    dry: bool,
    /// Counts what was added: whoever looked before knows nothing of it.
    additions: u64,
    /// Nothing is picked before.
    not_before: Option<Instant>,
}

/// What a pick is to leave out, and what was known when it began.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Failed lately; by the end of their holds.
    held: BTreeMap<Instant, u64>,
    /// Something that failed lately is better than nothing.
    is_probe: bool,
    additions: u64,
}

/// An event out of the spool.
pub type Opened = (u64, Result<SpooledEvent<MappedFile>, ReadError>);

impl Backlog {
    /// There is a new event, which failed before as `hold` says.
    pub fn add(&mut self, counter: u64, hold: Hold) {
        if hold.failures > 0 {
            self.hold(counter, hold);
        }
        self.wake();
    }

    /// There may be something new.
    pub fn wake(&mut self) {
        self.additions += 1;
        (self.dry, self.not_before) = (false, None);
    }

    /// Nothing that failed is held back any longer.
    pub fn forgive(&mut self) {
        self.holds.clear();
        self.wake();
    }

    fn hold(&mut self, counter: u64, hold: Hold) {
        self.holds.insert(counter, hold);
        if self.holds.len() > MAX_HOLDS {
            self.holds.pop_first();
        }
    }

    /// What is known of an event.
    pub fn hold_of(&self, counter: u64) -> Hold {
        self.holds.get(&counter).copied().unwrap_or_default()
    }

    /// Whether something may be there to be sent now; else when to look again, if ever.
    pub fn is_ready(&self, is_probe: bool) -> Result<(), Option<Instant>> {
        let now = Instant::now();
        if let Some(moment) = self.not_before.filter(|moment| *moment > now) {
            return Err(Some(moment));
        }
        let first = self.holds.values().filter_map(|hold| hold.not_before).min();
        match first {
            _ if !self.dry => Ok(()),
            Some(first) if is_probe || first <= now => Ok(()),
            first => Err(first),
        }
    }

    /// Begins to pick an event.
    pub fn pick(&self, is_probe: bool) -> Pick {
        let now = Instant::now();
        let later = self.holds.iter().filter_map(|(counter, hold)| Some((hold.not_before?, *counter)));
        Pick { held: later.filter(|(moment, _)| *moment > now).collect(), is_probe, additions: self.additions }
    }

    /// A pick found nothing: whatever it did not leave out is not there.
    pub fn found_nothing(&mut self, pick: &Pick) {
        if self.additions != pick.additions {
            return;
        }
        self.dry = true;
        self.holds.retain(|counter, _| !pick.is_probe && pick.holds_back(*counter));
    }

    /// An event that failed is not there any more.
    pub fn is_gone(&mut self, counter: u64) {
        self.holds.remove(&counter);
    }

    /// Nothing is picked before `moment`.
    pub fn rest_until(&mut self, moment: Instant) {
        self.not_before = Some(moment);
    }
}

impl Pick {
    fn holds_back(&self, counter: u64) -> bool {
        self.held.values().any(|held| *held == counter)
    }

    /// Hands out the oldest event that is not held; where only held ones are left and a probe is wanted, the one whose hold ends
    /// first.
    pub fn open(&self, spool: &mut RealSpool, destination: Destination) -> Option<Opened> {
        let first = |after: Option<u64>| spool.list(destination, after).map(|waiting| waiting.counter);
        let is_there = |held: &u64| first(held.checked_sub(1)).next() == Some(*held);
        let free = first(None).find(|counter| !self.holds_back(*counter));
        let held = || self.held.values().copied().filter(|_| self.is_probe).find(is_there);
        let counter = free.or_else(held)?;
        let opened = spool.read(destination, counter);
        if opened.is_ok() {
            spool.hand_out(destination, counter);
        }
        Some((counter, opened))
    }
}
