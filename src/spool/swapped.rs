//! Another folder at the spool's path than the one that was claimed: a card that was mounted late, pulled or put back; `rm -rf`.
//!
//! The folder is told by device and inode ([`Spool::notice`]). The new one is opened as at a start. Events of the former one that can still
//! be reached through its descriptor are moved into it, page by page, under new numbers, for its own numbers may stand for other events
//! there; what cannot be reached has vanished, and is counted. Who is delivering an event meanwhile knows its old number:
//! [`Spool::follow`] says the new one, and nothing else is offered under the old one until then. Dead letters, and what was set aside,
//! stay in the former folder.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use super::disk::{Disk, Former};
use super::file::{Destination, EVENT_SUFFIX, name};
use super::index::{Entry, slots};
use super::volume::{DiskError, Home};
use super::{Hidden, Spool, State};

/// Events moved in one call.
const PAGE: usize = 32;

/// What lies in a folder that is not at the spool's path any more.
#[derive(Debug)]
pub(super) struct Left {
    /// By which it can be reached.
    root: PathBuf,
    events: VecDeque<Entry>,
}

impl Left {
    /// Its events in the folder of a destination.
    pub(super) fn in_slot(&self, slot: usize) -> u64 {
        self.events.iter().filter(|entry| entry.mask & 1 << slot != 0).count() as u64
    }
}

/// What became of events that were not where they belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// They wait for the heirs of a removed destination now.
    pub to_heirs: u64,
    /// They were brought from the spool's former folder.
    pub brought: u64,
    /// They could not be reached in it.
    pub vanished: u64,
}

impl Moved {
    /// Both together.
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
    /// Looks whether the spool's folder is still at its path. Where it is not, the spool is unavailable until [`Spool::open_again`]; true
    /// while it is.
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

    /// Takes the folder at the spool's path. Where that is another one than before, what is in the former one is remembered.
    pub(super) fn claim(&mut self) -> Result<(), DiskError> {
        let Some(Former { root, is_back }) = self.volume.claim()? else {
            return Ok(());
        };
        self.reasons.close();
        let left_before = self.left.take().map(|left| left.events).unwrap_or_default();
        // What was left in a folder that is back is found there.
        let gone: Vec<Entry> = if is_back { Vec::new() } else { left_before.into() };
        let mut events: VecDeque<Entry> = std::mem::take(&mut self.events).iter().collect();
        for entry in &mut events {
            for slot in slots(entry.mask) {
                match self.hidden.remove(&(entry.counter, slot)) {
                    Some(Hidden::Done) => entry.mask &= !(1 << slot),
                    Some(Hidden::Out) => drop(self.strays.insert((entry.counter, slot), None)),
                    _ => {}
                }
            }
        }
        if is_back {
            self.strays.retain(|(counter, _), _| events.iter().any(|entry| entry.counter == *counter));
        }
        events.retain(|entry| entry.mask != 0);
        for slot in gone.iter().flat_map(|entry| slots(entry.mask)) {
            self.count(slot, |tally| &mut tally.vanished);
        }
        self.no_share_before = self.next;
        self.left = Some(Left { root, events }).filter(|left| !left.events.is_empty());
        Ok(())
    }

    /// Moves some events of the former folder into this one, or says that there is none left.
    ///
    /// # Errors
    /// What failed; the call can be repeated.
    pub(super) fn move_some(&mut self) -> Result<Option<Moved>, DiskError> {
        let mut moved = Moved::default();
        while let Some(entry) = self.left.as_ref().and_then(|left| left.events.front().copied()) {
            if moved.events() == PAGE as u64 {
                return Ok(Some(moved));
            }
            let is_here = self.move_one(entry)?;
            *(if is_here { &mut moved.brought } else { &mut moved.vanished }) += 1;
        }
        self.left = None;
        Ok(Some(moved).filter(|moved| moved.events() > 0))
    }

    /// Moves one: first it is durable here, then it is not there any more. False where it cannot be reached.
    fn move_one(&mut self, entry: Entry) -> Result<bool, DiskError> {
        let old = |spool: &Self, slot: usize| {
            let root = spool.left.as_ref().map(|left| left.root.clone()).unwrap_or_default();
            root.join("to").join(spool.destination(slot).to_string()).join(name(entry.counter, EVENT_SUFFIX))
        };
        let found = slots(entry.mask).map(|slot| old(self, slot)).find(|path| self.volume.stat(path).is_ok());
        let counter = self.next;
        let copied = found.is_some_and(|from| {
            self.next += 1;
            let fresh = self.volume.file(Home::New, counter);
            self.volume.copy(&from, Some(entry.counter), &fresh).is_ok()
        });
        if copied {
            let new = Entry { counter, ..entry };
            let placed = self.make_folders(entry.mask);
            let placed = placed.and_then(|()| self.link(&self.volume.file(Home::New, counter), new));
            self.remove_fresh(counter);
            placed?;
            for slot in slots(entry.mask) {
                let _it_is_delivered_again_if_that_folder_comes_back = self.volume.unlink(&old(self, slot));
                if let Some(stray) = self.strays.get_mut(&(entry.counter, slot)) {
                    *stray = Some(counter);
                    self.hidden.insert((counter, slot), Hidden::Out);
                }
            }
        } else {
            for slot in slots(entry.mask) {
                self.count(slot, |tally| &mut tally.vanished);
                self.strays.remove(&(entry.counter, slot));
            }
        }
        self.left.iter_mut().for_each(|left| left.events.retain(|other| other.counter != entry.counter));
        Ok(copied)
    }

    /// The number that an event has now whose number was `counter` when somebody began to deliver it.
    pub(super) fn follow(&mut self, destination: Destination, counter: u64) -> u64 {
        let Some(key) = self.slot(destination).map(|slot| (counter, slot)) else { return counter };
        if self.strays.is_empty() || !self.strays.contains_key(&key) {
            return counter;
        }
        let left = self.left.as_ref().and_then(|left| left.events.iter().find(|entry| entry.counter == counter));
        if let Some(entry) = left.copied() {
            let _it_is_delivered_again = self.move_one(entry);
        }
        self.strays.remove(&key).flatten().unwrap_or(u64::MAX) // no event's number: it is not there any more
    }
}
