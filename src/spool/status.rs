//! The state and the counts of the spool.

use std::io;

use super::destinations::DestinationEntry;
use super::disk::Disk;
use super::events::Hidden;
use super::file::Destination;
use super::index::BLOCK;
use super::{DiskError, Spool};

/// Whether events can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// They can.
    Usable,
    /// The last event could not be stored, for this reason. The next one is tried.
    Troubled(String),
    /// The folders could not be listed, for this reason. Nothing is stored before [`Spool::open_again`] succeeds.
    Unavailable(String),
}

/// What became of events in the spool since the process started. Each is counted once for each destination whose folder it was
/// in.
///
/// `recovered + stored + inherited + resent` came in; `delivered + expired + evicted + quarantined + dead + vanished +
/// handed_over` left; the difference is what waits or is hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Found by a start.
    pub recovered: u64,
    /// Stored.
    pub stored: u64,
    /// Taken over from a destination that was removed.
    pub inherited: u64,
    /// Dead letters that wait again.
    pub resent: u64,
    /// Delivered.
    pub delivered: u64,
    /// Moved to heirs, because the destination was removed.
    pub handed_over: u64,
    /// Deleted, because they had waited longer than the config allows.
    pub expired: u64,
    /// Evicted for newer ones.
    pub evicted: u64,
    /// Moved to quarantine because they were damaged.
    pub quarantined: u64,
    /// Made dead letters.
    pub dead: u64,
    /// Removed by another program.
    pub vanished: u64,
    /// Dead letters evicted to make room. Not part of the balance: they were counted
    /// as dead.
    pub dead_evicted: u64,
}

impl Tally {
    /// How many events are in the folders according to these counts.
    pub fn remaining(&self) -> u64 {
        let came = self.recovered + self.stored + self.inherited + self.resent;
        let left = self.delivered
            + self.expired
            + self.evicted
            + self.quarantined
            + self.dead
            + self.vanished
            + self.handed_over;
        came - left
    }
}

/// A destination's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationStatus {
    /// Its folder's name.
    pub destination: Destination,
    /// None if only a folder was found.
    pub url: Option<String>,
    /// Events in its folder that wait for it, or are being delivered.
    pub waiting: u64,
    /// Events in its folder that are not offered now: they could not be read, are sealed with another key, or are of another
    /// release.
    pub stuck: u64,
    /// Whether it was removed and has no heirs: its events stay.
    pub parked: bool,
    /// Bytes of everything in its folder, in whole blocks.
    pub bytes: u64,
    /// What became of its other events.
    pub tally: Tally,
}

/// The status at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether events can be stored.
    pub state: State,
    /// Whether the file system has hard links.
    pub has_hard_links: bool,
    /// Why there is no key, if files must be sealed.
    pub key_problem: Option<String>,
    /// Events that are known to be sealed with another key than the one in use, counted for each destination.
    pub locked: u64,
    /// The size of events, dead letters and quarantine, in whole blocks; without the small files (`notes`).
    pub bytes: u64,
    /// Events, dead letters and files in quarantine.
    pub files: u64,
    /// Events that wait, each counted once.
    pub events: u64,
    /// Dead letters.
    pub dead: u64,
    /// Files in quarantine.
    pub bad: u64,
    /// Bytes written since the process started: 0 while every server is up.
    pub bytes_written: u64,
    /// For all destinations, including removed ones.
    pub tally: Tally,
    /// In the order of their slots, which is not always the order of the config; removed ones are among them.
    pub destinations: Vec<DestinationStatus>,
}

impl Status {
    /// The status of a spool that is not known yet.
    pub fn of_nothing(why: &str) -> Status {
        Status {
            state: State::Unavailable(why.into()),
            has_hard_links: true,
            key_problem: None,
            locked: 0,
            bytes: 0,
            files: 0,
            events: 0,
            dead: 0,
            bad: 0,
            bytes_written: 0,
            tally: Tally::default(),
            destinations: Vec::new(),
        }
    }
}

impl<D: Disk> Spool<D> {
    /// Whether events can be stored.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Fails while the spool is unavailable: without a listing another file may have an event's name.
    pub(super) fn available(&mut self) -> Result<(), DiskError> {
        self.notice();
        let State::Unavailable(why) = &self.state else { return Ok(()) };
        Err(DiskError { operation: "use", path: self.volume.root().to_owned(), source: io::Error::other(why.clone()) })
    }

    /// The status now. Looks at every event in memory, and at no file.
    pub fn status(&self) -> Status {
        Status {
            state: self.state.clone(),
            has_hard_links: self.volume.has_links(),
            key_problem: self.key.problem().map(str::to_owned),
            locked: self.events.hidden_for(Hidden::Locked).count() as u64,
            bytes: self.blocks() * BLOCK,
            files: self.files(),
            events: self.events.len(),
            dead: self.letters.len(),
            bad: self.quarantine.len(),
            bytes_written: self.volume.bytes_written(),
            tally: self.destinations.tally(),
            destinations: self.destinations.iter().map(|(slot, one)| self.destination_status(slot, one)).collect(),
        }
    }

    fn destination_status(&self, slot: usize, one: &DestinationEntry) -> DestinationStatus {
        let (files, blocks) = self
            .events
            .in_slot(slot, None)
            .fold((0, 0), |(files, blocks), entry| (files + 1, blocks + u64::from(entry.blocks)));
        let (done, stuck) = self.events.hidden_in(slot);
        DestinationStatus {
            destination: one.destination(),
            url: one.url().map(str::to_owned),
            waiting: files - done - stuck + self.swapped.in_slot(slot),
            stuck,
            parked: one.is_parked(),
            bytes: blocks * BLOCK,
            tally: one.tally(),
        }
    }

    /// Events in a folder that are not done.
    pub(super) fn kept(&self, slot: usize) -> u64 {
        self.events.in_slot(slot, None).count() as u64 - self.events.hidden_in(slot).0 + self.swapped.in_slot(slot)
    }

    /// Names that could not be deleted so far.
    pub fn leftovers(&self) -> usize {
        self.volume.undeleted() + self.events.hidden_for(Hidden::Done).count()
    }
}
