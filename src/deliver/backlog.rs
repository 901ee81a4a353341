//! What a lane knows of its events in the spool: which failed, and whether there may be others. Which are on their way, the spool
//! knows itself.

use std::collections::{BTreeMap, BTreeSet};

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
    /// The last event that was tried as a probe: the next probe is one after it, so that some that the server cannot bear do not hold
    /// up all others.
    probed: Option<u64>,
}

/// What a pick is to leave out, and what was known when it began.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Failed lately.
    held: BTreeSet<u64>,
    /// None: the oldest that is not held is wanted. Else a probe, the first one after this.
    probe_after: Option<Option<u64>>,
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
        let first_over = || self.holds.iter().min_by_key(|(_, hold)| hold.not_before).map(|(counter, _)| *counter);
        if self.holds.len() > MAX_HOLDS
            && let Some(counter) = first_over()
        {
            self.holds.remove(&counter);
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
        let is_held = |hold: &Hold| hold.not_before.is_some_and(|moment| moment > now);
        let held = self.holds.iter().filter(|(_, hold)| is_held(hold)).map(|(counter, _)| *counter).collect();
        Pick { held, probe_after: is_probe.then_some(self.probed), additions: self.additions }
    }

    /// A pick found an event.
    pub fn found(&mut self, pick: &Pick, counter: u64) {
        if pick.probe_after.is_some() {
            self.probed = Some(counter);
        }
    }

    /// The server is well: the next probe begins with the oldest again.
    pub fn forget_probes(&mut self) {
        self.probed = None;
    }

    /// A pick found nothing: whatever it did not leave out is not there.
    pub fn found_nothing(&mut self, pick: &Pick) {
        if self.additions != pick.additions {
            return;
        }
        self.dry = true;
        self.holds.retain(|counter, _| pick.probe_after.is_none() && pick.held.contains(counter));
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
    /// Hands out the event that is wanted.
    pub fn open(&self, spool: &mut RealSpool, destination: Destination) -> Option<Opened> {
        let counter = self.choose(|after| spool.list(destination, after).map(|waiting| waiting.counter))?;
        let opened = spool.read(destination, counter);
        if opened.is_ok() {
            spool.hand_out(destination, counter);
        }
        Some((counter, opened))
    }

    /// The oldest that is not held. For a probe: the next after the last one, which is better than none even if it is held.
    fn choose<I: Iterator<Item = u64>>(&self, listed: impl Fn(Option<u64>) -> I) -> Option<u64> {
        let free = |after| listed(after).find(|counter| !self.held.contains(counter));
        match self.probe_after {
            None => free(None),
            Some(last) => {
                free(last).or_else(|| free(None)).or_else(|| listed(last).next()).or_else(|| listed(None).next())
            }
        }
    }
}
