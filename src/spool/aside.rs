//! What leaves a destination's folder other than by delivery: dead letters, quarantine, destinations that come and go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::file::{Destination, URL_FILE};
use super::index::{BLOCK, Entry, Mask, slots};
use super::volume::{Fault, Home};
use super::{Hidden, Lodging, SMALL_PART, Spool, Waiting};

/// Events moved at once when a destination goes: what lies between two fsyncs.
const PAGE: usize = 256;

/// Files with their blocks, the oldest first.
#[derive(Debug)]
pub struct Shelf<K> {
    files: BTreeMap<K, u32>,
    blocks: u64,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Shelf { files: BTreeMap::new(), blocks: 0 }
    }
}

impl<K: Ord + Copy> Shelf<K> {
    /// Puts a file on it.
    pub fn add(&mut self, key: K, blocks: u32) {
        let before = self.files.insert(key, blocks).unwrap_or(0);
        self.blocks = self.blocks - u64::from(before) + u64::from(blocks);
    }

    /// Takes a file off; its blocks.
    pub fn remove(&mut self, key: K) -> Option<u32> {
        let blocks = self.files.remove(&key)?;
        self.blocks -= u64::from(blocks);
        Some(blocks)
    }

    /// The one with the lowest key.
    pub fn oldest(&self) -> Option<K> {
        self.files.keys().next().copied()
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.files.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What they take.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }
}

/// What became of a removed destination's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reassigned {
    /// They wait for the added destinations now.
    pub moved: u64,
    /// They are dead letters now.
    pub dead: u64,
}

impl<D: Disk> Spool<D> {
    /// A destination is there from now on; nothing happens when it was already.
    ///
    /// # Errors
    /// When its folder cannot be made (it is tried again with the first event for it), or there are too many destinations.
    pub fn add(&mut self, url: &str) -> Result<Destination, Fault> {
        let destination = Destination::of(url);
        let slot = self.lodge(destination, Some(url.to_owned()))?;
        self.make_folders(1 << slot)?;
        Ok(destination)
    }

    /// The slot of a destination, a free one for a new destination.
    pub(super) fn lodge(&mut self, destination: Destination, url: Option<String>) -> Result<usize, Fault> {
        if let Some(slot) = self.slot(destination) {
            return Ok(slot);
        }
        let slot = self.lodgings.iter().position(Option::is_none).ok_or_else(|| Fault {
            operation: "keep",
            path: self.volume.folder(Home::To(destination)),
            source: std::io::Error::other("there are too many destinations with spooled events"),
        })?;
        self.lodgings[slot] = Some(Lodging::new(destination, url));
        Ok(slot)
    }

    /// The slot of a destination that must be there.
    fn known(&self, destination: Destination) -> Result<usize, Fault> {
        self.slot(destination).ok_or_else(|| Fault {
            operation: "find the destination of",
            path: self.volume.folder(Home::To(destination)),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    /// Makes the folders that are not there yet.
    pub(super) fn make_folders(&mut self, mask: Mask) -> Result<(), Fault> {
        for slot in slots(mask) {
            let Some(lodging) = self.lodgings[slot].as_ref().filter(|lodging| !lodging.made) else {
                continue;
            };
            let folder = self.volume.folder(Home::To(lodging.destination));
            let url = lodging.url.clone();
            self.volume.make_folder(&folder)?;
            let told = url.map_or(Ok(()), |url| self.write_url(&folder.join(URL_FILE), &url));
            drop(told); // for people only: no reason to refuse an event
            if let Some(lodging) = &mut self.lodgings[slot] {
                lodging.made = true;
            }
        }
        Ok(())
    }

    fn write_url(&mut self, path: &Path, url: &str) -> Result<(), Fault> {
        if self.volume.stat(path).is_ok() {
            return Ok(());
        }
        let fresh = self.volume.folder(Home::New).join(URL_FILE);
        let mut file = self.volume.create(&fresh)?;
        let written = self.volume.write(&mut file, &fresh, format!("{url}\n").as_bytes(), 0);
        let written = written.and_then(|()| self.volume.sync(&mut file, &fresh));
        let written = written.and_then(|()| self.volume.rename(&fresh, path));
        written.inspect_err(|_| drop(self.volume.unlink(&fresh)))
    }

    /// Moves an event to the quarantine: it is damaged, or no event could be made of its record. Where it is now; none when it
    /// was too large to be kept.
    ///
    /// # Errors
    /// When it cannot be moved; it is not offered again before the next start.
    pub fn set_aside(&mut self, destination: Destination, counter: u64) -> Result<Option<PathBuf>, Fault> {
        let from = self.volume.file(Home::To(destination), counter);
        let known = self.slot(destination).and_then(|slot| Some((slot, self.events.get(counter)?)));
        let blocks = known.map_or(1, |(_, entry)| entry.blocks);
        match self.move_to_bad(&from, blocks) {
            Ok(path) => {
                if let Some((slot, _)) = known {
                    self.forget(counter, slot);
                    self.count(slot, |tally| &mut tally.quarantined);
                }
                Ok(path)
            }
            Err(fault) => {
                self.skip(destination, counter);
                Err(fault)
            }
        }
    }

    /// Gives what is at `from` a name in `bad/`, within its bounds.
    pub(super) fn move_to_bad(&mut self, from: &Path, blocks: u32) -> Result<Option<PathBuf>, Fault> {
        while !self.bad.is_empty() && !self.fits_small_part(&self.bad, blocks) {
            self.give_up_bad()?;
        }
        let counter = self.next_bad;
        self.next_bad = counter.saturating_add(1);
        let path = self.volume.file(Home::Bad, counter);
        if !self.fits_small_part(&self.bad, blocks) {
            self.volume.unlink(from)?; // too large to be kept even alone
            return Ok(None);
        }
        self.volume.rename(from, &path)?;
        self.bad.add(counter, blocks);
        Ok(Some(path))
    }

    fn fits_small_part<K: Ord + Copy>(&self, shelf: &Shelf<K>, blocks: u32) -> bool {
        (shelf.blocks() + u64::from(blocks)) * BLOCK <= self.bounds.max_bytes / SMALL_PART
            && shelf.len() < (self.bounds.max_files / SMALL_PART).max(1)
    }

    /// Gives up the oldest file that was set aside; its blocks.
    pub(super) fn give_up_bad(&mut self) -> Result<Option<u32>, Fault> {
        let Some(counter) = self.bad.oldest() else {
            return Ok(None);
        };
        let path = self.volume.file(Home::Bad, counter);
        match self.volume.unlink(&path) {
            Err(fault) if self.volume.stat(&path).is_ok_and(|found| found.regular) => Err(fault),
            _removed_or_a_folder_of_somebody_else => Ok(self.bad.remove(counter)),
        }
    }

    /// Gives up the oldest dead letter; its blocks.
    pub(super) fn give_up_dead(&mut self) -> Result<Option<u32>, Fault> {
        let Some((counter, destination)) = self.dead.oldest() else {
            return Ok(None);
        };
        self.volume.unlink(&self.volume.file(Home::Dead(destination), counter))?;
        self.tally.dead_evicted += 1;
        Ok(self.dead.remove((counter, destination)))
    }

    /// A destination refused the event: it becomes a dead letter. False when it was not there (evicted meanwhile).
    ///
    /// # Errors
    /// What failed. The event stays, and is not offered again before the next start.
    pub fn to_dead(&mut self, destination: Destination, counter: u64) -> Result<bool, Fault> {
        let Some(slot) = self.slot(destination).filter(|slot| self.is_in(counter, *slot)) else {
            return Ok(false);
        };
        let moved = self.bury(slot, &[counter]);
        if moved.is_err() {
            self.hidden.insert((counter, slot), Hidden::Stuck);
        }
        moved.map(|()| true)
    }

    /// Makes dead letters of events in a folder: first they are durable there, then they are not here any more.
    fn bury(&mut self, slot: usize, counters: &[u64]) -> Result<(), Fault> {
        let destination = self.destination(slot);
        let folder = self.volume.folder(Home::Dead(destination));
        self.volume.make_folder(&folder)?;
        for counter in counters {
            let blocks = self.events.get(*counter).map_or(0, |entry| entry.blocks);
            while !self.dead.is_empty() && !self.fits_small_part(&self.dead, blocks) {
                self.give_up_dead()?;
            }
            if self.fits_small_part(&self.dead, blocks) {
                let to = self.volume.file(Home::Dead(destination), *counter);
                self.volume.link_again(&self.volume.file(Home::To(destination), *counter), &to)?;
                self.dead.add((*counter, destination), blocks);
            } else {
                self.tally.dead_evicted += 1; // too large to be kept even alone
            }
        }
        self.volume.sync_folder(&folder)?;
        for counter in counters {
            if self.unlink(*counter, slot)? {
                self.count(slot, |tally| &mut tally.dead);
            }
        }
        Ok(())
    }

    /// All dead letters, the oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = (Destination, Waiting)> {
        self.dead.files.iter().map(|((counter, destination), blocks)| {
            (*destination, Waiting { counter: *counter, bytes: u64::from(*blocks) * BLOCK })
        })
    }

    /// Sends a dead letter of `from` once more, to `to`. False when there is no such letter.
    ///
    /// # Errors
    /// What failed; the letter stays one.
    pub fn resend(&mut self, from: Destination, counter: u64, to: Destination) -> Result<bool, Fault> {
        let Some(blocks) = self.dead.files.get(&(counter, from)).copied() else {
            return Ok(false);
        };
        let slot = self.known(to)?;
        self.make_folders(1 << slot)?;
        let letter = self.volume.file(Home::Dead(from), counter);
        if self.is_in(counter, slot) {
            self.volume.sync_folder(&self.volume.folder(Home::To(to)))?;
            self.hidden.remove(&(counter, slot));
        } else {
            self.link(&letter, Entry { counter, blocks, mask: 1 << slot })?;
        }
        self.volume.unlink(&letter)?;
        self.dead.remove((counter, from));
        Ok(true)
    }

    /// A destination was removed: what waits for it waits for each of `added` from now on; with none added it becomes dead
    /// letters. Then its folder goes.
    ///
    /// # Errors
    /// What failed. Nothing is lost: what was not moved still waits for the removed destination, and the call can be repeated.
    pub fn reassign(&mut self, removed: Destination, added: &[Destination]) -> Result<Reassigned, Fault> {
        let mut done = Reassigned::default();
        let Some(slot) = self.slot(removed) else {
            return Ok(done);
        };
        let mut mask: Mask = 0;
        for destination in added.iter().filter(|destination| **destination != removed) {
            mask |= 1 << self.known(*destination)?;
        }
        self.make_folders(mask)?;
        loop {
            let page: Vec<u64> = self.events.in_slot(slot, None).map(|entry| entry.counter).take(PAGE).collect();
            if page.is_empty() {
                break;
            }
            // What is done with is only in the way.
            let (over, page): (Vec<u64>, Vec<u64>) =
                page.into_iter().partition(|counter| self.hidden.get(&(*counter, slot)) == Some(&Hidden::Done));
            over.into_iter().try_for_each(|counter| self.unlink(counter, slot).map(drop))?;
            if mask == 0 {
                self.bury(slot, &page)?;
                done.dead += page.len() as u64;
            } else {
                self.hand_over(slot, &page, mask)?;
                done.moved += page.len() as u64;
            }
        }
        self.remove_folder(removed);
        self.lodgings[slot] = None;
        Ok(done)
    }

    fn hand_over(&mut self, slot: usize, counters: &[u64], mask: Mask) -> Result<(), Fault> {
        let removed = Home::To(self.destination(slot));
        for (counter, heir) in counters.iter().flat_map(|counter| slots(mask).map(move |heir| (*counter, heir))) {
            self.unlink_if_done(counter, heir)?;
        }
        for entry in counters.iter().filter_map(|counter| self.events.get(*counter)).collect::<Vec<_>>() {
            for heir in slots(mask & !entry.mask) {
                let to = self.volume.file(Home::To(self.destination(heir)), entry.counter);
                self.volume.link_again(&self.volume.file(removed, entry.counter), &to)?;
                self.events.add(Entry { mask: 1 << heir, ..entry });
            }
        }
        for heir in slots(mask) {
            self.volume.sync_folder(&self.volume.folder(Home::To(self.destination(heir))))?;
        }
        counters.iter().try_for_each(|counter| self.unlink(*counter, slot).map(drop))
    }

    /// Removes an empty folder of a destination; that it stays there would do no harm.
    pub(super) fn remove_folder(&self, destination: Destination) {
        let folder = self.volume.folder(Home::To(destination));
        let removed = self.volume.unlink(&folder.join(URL_FILE)).and_then(|()| self.volume.remove_folder(&folder));
        drop(removed);
    }
}
