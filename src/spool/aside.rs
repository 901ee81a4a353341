//! What leaves a destination's folder other than by delivery: dead letters and quarantine, each within a small part of the bounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::file::{Destination, URL_FILE};
use super::index::{BLOCK, Entry, blocks};
use super::volume::{Fault, Home};
use super::{Hidden, SMALL_PART, Spool, Waiting};

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

impl<D: Disk> Spool<D> {
    /// Moves an event to the quarantine: it is damaged, or no event could be made of its record. Where it is now; none when it
    /// was too large to be kept.
    ///
    /// # Errors
    /// When it cannot be moved; it is not offered again before the next start.
    pub fn set_aside(&mut self, destination: Destination, counter: u64) -> Result<Option<PathBuf>, Fault> {
        let from = self.volume.file(Home::To(destination), counter);
        let known = self.slot(destination).and_then(|slot| Some((slot, self.events.get(counter)?)));
        // It may not have the size that it was stored with.
        let blocks = self.volume.stat(&from).map_or(1, |found| blocks(found.bytes));
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
    pub(super) fn bury(&mut self, slot: usize, counters: &[u64]) -> Result<(), Fault> {
        self.available()?;
        let destination = self.destination(slot);
        let folder = self.volume.folder(Home::Dead(destination));
        self.volume.make_folder(&folder)?;
        if let Some(url) = self.lodgings[slot].as_ref().and_then(|lodging| lodging.url.clone()) {
            let _for_people_only = self.write_url(&folder.join(URL_FILE), &url);
        }
        let mut made = Vec::new();
        let linked = counters.iter().try_for_each(|counter| self.link_dead(destination, *counter, &mut made));
        if let Err(fault) = linked.and_then(|()| self.volume.sync_folder(&folder)) {
            for counter in made {
                if self.volume.unlink(&self.volume.file(Home::Dead(destination), counter)).is_ok() {
                    self.dead.remove((counter, destination));
                }
            }
            return Err(fault);
        }
        for counter in counters {
            if self.unlink(*counter, slot)? {
                self.count(slot, |tally| &mut tally.dead);
            }
        }
        Ok(())
    }

    fn link_dead(&mut self, destination: Destination, counter: u64, made: &mut Vec<u64>) -> Result<(), Fault> {
        let blocks = self.events.get(counter).map_or(0, |entry| entry.blocks);
        let to = self.volume.file(Home::Dead(destination), counter);
        if self.dead.files.contains_key(&(counter, destination)) {
            self.volume.unlink(&to)?; // from a call that failed half-way: it need not be durable
            self.dead.remove((counter, destination));
        }
        while !self.dead.is_empty() && !self.fits_small_part(&self.dead, blocks) {
            self.give_up_dead()?;
        }
        if !self.fits_small_part(&self.dead, blocks) {
            self.tally.dead_evicted += 1; // too large to be kept even alone
            return Ok(());
        }
        self.dead.add((counter, destination), blocks);
        made.push(counter);
        self.volume.link(&self.volume.file(Home::To(destination), counter), &to)
    }

    /// All dead letters, the oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = (Destination, Waiting)> {
        self.dead.files.iter().map(|((counter, destination), blocks)| {
            (*destination, Waiting { counter: *counter, bytes: u64::from(*blocks) * BLOCK })
        })
    }

    /// Sends dead letters once more: all of them, or those with these numbers, to `to` or else to their own destinations. How many
    /// there were.
    ///
    /// # Errors
    /// What failed; what was not sent stays a dead letter. A letter whose own destination is not in the config needs a `to`.
    pub fn resend_all(&mut self, numbers: Option<&[u64]>, to: Option<Destination>) -> Result<u64, Fault> {
        let is_meant = |counter: &u64| numbers.is_none_or(|numbers| numbers.contains(counter));
        let letters: Vec<_> = self.dead.files.keys().copied().filter(|(counter, _)| is_meant(counter)).collect();
        let mut sent = 0;
        for (counter, from) in letters {
            sent += u64::from(self.resend(from, counter, to.unwrap_or(from))?);
        }
        Ok(sent)
    }

    /// Sends a dead letter of `from` once more, to `to`. False when there is no such letter.
    ///
    /// # Errors
    /// What failed; the letter stays one.
    pub fn resend(&mut self, from: Destination, counter: u64, to: Destination) -> Result<bool, Fault> {
        self.available()?;
        let Some(blocks) = self.dead.files.get(&(counter, from)).copied() else {
            return Ok(false);
        };
        let slot = self.known(to)?;
        if !self.lodgings[slot].as_ref().is_some_and(|lodging| lodging.configured) {
            return Err(self.is_not_configured(to));
        }
        self.make_folders(1 << slot)?;
        let letter = self.volume.file(Home::Dead(from), counter);
        if self.volume.stat(&letter).is_err_and(|fault| fault.source.kind() == std::io::ErrorKind::NotFound) {
            self.dead.remove((counter, from)); // its link failed, and looked as if it could not be undone
            return Ok(false);
        }
        self.unlink_if_done(counter, slot)?;
        if !self.is_in(counter, slot) {
            self.link(&letter, Entry { counter, blocks, mask: 1 << slot })?;
            self.count(slot, |tally| &mut tally.resent);
        }
        self.volume.unlink(&letter)?;
        self.dead.remove((counter, from));
        Ok(true)
    }
}
