//! Handles a changed folder at the spool's path: a card that was mounted late, removed or put back, or `rm -rf`.
//!
//! The folder is identified by device and inode ([`Spool::notice`]). The new folder is opened as at a start. The events of the
//! former folder that can still be reached through its descriptor are moved into the new one, page by page. They get new numbers,
//! because the new folder may use their numbers for other events. Events that cannot be reached count as vanished. A lease knows
//! an event by its old number: [`Spool::follow`] returns the new one, and until then no other event is offered under the old
//! number. Dead letters and quarantine stay in the former folder.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Former};
use super::events::Hidden;
use super::file::{Destination, EVENT_SUFFIX, name};
use super::index::{Entry, blocks, slots};
use super::volume::{DiskError, Home};
use super::{Spool, State};

/// How many events one call moves.
const PAGE: usize = 32;

/// What is known of former folders.
#[derive(Debug, Default)]
pub(super) struct Swapped {
    /// The events that are still in the last one.
    left: Option<Left>,
    /// The old number and the slot of events that were leased then, with their new number once they were moved.
    strays: BTreeMap<(u64, usize), Option<u64>>,
    /// Lower numbers may mean events of a former folder.
    no_share_before: u64,
}

impl Swapped {
    /// How many events are still to be moved here for the destination in a slot.
    pub(super) fn in_slot(&self, slot: usize) -> u64 {
        self.left.as_ref().map_or(0, |left| left.in_slot(slot))
    }

    /// Whether another event is leased under this number.
    pub(super) fn is_stray(&self, counter: u64, slot: usize) -> bool {
        self.strays.contains_key(&(counter, slot))
    }

    /// Whether the number may mean an event of a former folder.
    pub(super) fn may_mean_another(&self, counter: u64) -> bool {
        counter < self.no_share_before
    }
}

/// The content of a folder that is no longer at the spool's path.
#[derive(Debug)]
struct Left {
    /// The path by which it can be reached.
    root: PathBuf,
    events: VecDeque<Entry>,
}

impl Left {
    /// Its events in the folder of a destination.
    fn in_slot(&self, slot: usize) -> u64 {
        self.events.iter().filter(|entry| entry.mask & 1 << slot != 0).count() as u64
    }
}

/// What one call moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Events that wait for the heirs of a removed destination now.
    pub to_heirs: u64,
    /// Events that were brought from a former folder.
    pub brought: u64,
    /// Events that could not be reached there.
    pub vanished: u64,
}

impl Moved {
    /// The sum of two calls.
    pub const fn plus(self, other: Moved) -> Moved {
        Moved {
            to_heirs: self.to_heirs + other.to_heirs,
            brought: self.brought + other.brought,
            vanished: self.vanished + other.vanished,
        }
    }

    /// All of them.
    pub const fn events(self) -> u64 {
        self.to_heirs + self.brought + self.vanished
    }
}

impl<D: Disk> Spool<D> {
    /// Checks whether the spool's folder is still at its path. If not, the spool is unavailable until [`Spool::open_again`].
    /// Returns whether it is unavailable.
    pub fn notice(&mut self) -> bool {
        let is_another = match self.volume.is_claimed() {
            Ok(is_claimed) => !is_claimed,
            Err(fault) => fault.source.kind() == io::ErrorKind::NotFound, // else nothing is known
        };
        if is_another && !matches!(self.state, State::Unavailable(_)) {
            let root = self.volume.root().display();
            let why = format!("{root} is not the folder that it was (another file system, or it was removed)");
            self.state = State::Unavailable(why);
        }
        matches!(self.state, State::Unavailable(_))
    }

    /// Claims the folder at the spool's path. If it is not the former folder, remembers the events in that one.
    pub(super) fn claim(&mut self) -> Result<(), DiskError> {
        let Some(Former { root, is_back }) = self.volume.claim()? else {
            return Ok(());
        };
        self.letters.close();
        let left_before = self.swapped.left.take().map(|left| left.events).unwrap_or_default();
        // The listing finds what was left in a folder that is back.
        let gone: Vec<Entry> = if is_back { Vec::new() } else { left_before.into() };
        let strays = &mut self.swapped.strays;
        let mut events = self.events.leave(|counter, slot| {
            strays.insert((counter, slot), None);
        });
        if is_back {
            self.swapped.strays.retain(|(counter, _), _| events.iter().any(|entry| entry.counter == *counter));
        }
        events.retain(|entry| entry.mask != 0);
        for slot in gone.iter().flat_map(|entry| slots(entry.mask)) {
            self.count(slot, |tally| &mut tally.vanished);
        }
        self.swapped.no_share_before = self.events.next();
        self.swapped.left = Some(Left { root, events }).filter(|left| !left.events.is_empty());
        Ok(())
    }

    /// Moves some events of the former folder into this one. None if none are left.
    ///
    /// # Errors
    /// The operation that failed; the call can be repeated.
    pub(super) fn move_some(&mut self) -> Result<Option<Moved>, DiskError> {
        let mut moved = Moved::default();
        while let Some(entry) = self.swapped.left.as_ref().and_then(|left| left.events.front().copied()) {
            if moved.events() == PAGE as u64 {
                return Ok(Some(moved));
            }
            let is_here = self.move_one(entry)?;
            *(if is_here { &mut moved.brought } else { &mut moved.vanished }) += 1;
        }
        self.swapped.left = None;
        Ok(Some(moved).filter(|moved| moved.events() > 0))
    }

    /// Moves one event: makes it durable here, then deletes it there. False if it cannot be reached.
    ///
    /// # Errors
    /// The event stays there for another try: this disk has no room for it, or refused an operation.
    fn move_one(&mut self, entry: Entry) -> Result<bool, DiskError> {
        let old = |spool: &Self, slot: usize| {
            let root = spool.swapped.left.as_ref().map(|left| left.root.clone()).unwrap_or_default();
            root.join("to").join(spool.destinations.at(slot).to_string()).join(name(entry.counter, EVENT_SUFFIX))
        };
        let found = slots(entry.mask).map(|slot| old(self, slot)).find(|path| self.volume.stat(path).is_ok());
        let counter = self.events.next();
        let size = match found {
            Some(from) => self.bring(&from, entry, counter)?,
            None => None,
        };
        if let Some(size) = size {
            let new = Entry { counter, blocks: blocks(size), ..entry };
            let placed = self.make_folders(entry.mask);
            let placed = placed.and_then(|()| self.link(&self.volume.file(Home::New, counter), new));
            self.volume.remove_fresh(counter);
            placed?;
            for slot in slots(entry.mask) {
                let _it_is_delivered_again_if_that_folder_comes_back = self.volume.unlink(&old(self, slot));
                if let Some(stray) = self.swapped.strays.get_mut(&(entry.counter, slot)) {
                    *stray = Some(counter);
                    self.events.hide(counter, slot, Hidden::Out);
                }
            }
        } else {
            for slot in slots(entry.mask) {
                self.count(slot, |tally| &mut tally.vanished);
                self.swapped.strays.remove(&(entry.counter, slot));
            }
        }
        self.swapped.left.iter_mut().for_each(|left| left.events.retain(|other| other.counter != entry.counter));
        Ok(size.is_some())
    }

    /// Copies an event's file here, to the number `counter`, without evicting another event for it. Returns its size; none if the
    /// file cannot be read there.
    fn bring(&mut self, from: &Path, entry: Entry, counter: u64) -> Result<Option<u64>, DiskError> {
        self.make_room(entry.blocks.into(), 1, None).map_err(|reason| self.no_room(reason))?;
        let fresh = self.volume.file(Home::New, counter);
        if self.events.take_numbers(1).is_none() {
            return Ok(None);
        }
        match self.volume.copy(from, Some(entry.counter), &fresh) {
            Err(fault) if fault.path == from && !fault.is_shortage() => Ok(None),
            copied => copied.map(Some),
        }
    }

    /// The present number of an event that was leased under the number `counter`.
    pub(super) fn follow(&mut self, destination: Destination, counter: u64) -> u64 {
        let Some(key) = self.destinations.slot(destination).map(|slot| (counter, slot)) else { return counter };
        if self.swapped.strays.is_empty() || !self.swapped.strays.contains_key(&key) {
            return counter;
        }
        let left =
            self.swapped.left.as_ref().and_then(|left| left.events.iter().find(|entry| entry.counter == counter));
        if let Some(entry) = left.copied() {
            let _it_is_delivered_again = self.move_one(entry);
        }
        self.swapped.strays.remove(&key).flatten().unwrap_or(u64::MAX) // no event's number: it is not there any more
    }
}
