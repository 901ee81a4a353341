//! Quarantine: what is damaged or not ours leaves a destination's folder for `bad/`, within a small part of the bounds. And the list of
//! what lies in there, or among the dead letters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::file::Destination;
use super::index::{BLOCK, blocks};
use super::volume::{DiskError, Home};
use super::{SMALL_PART, Spool};

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

    /// Whether it is on it.
    pub fn contains(&self, key: K) -> bool {
        self.files.contains_key(&key)
    }

    /// A file's blocks.
    pub fn get(&self, key: K) -> Option<u32> {
        self.files.get(&key).copied()
    }

    /// All of them, the lowest key first.
    pub fn iter(&self) -> impl Iterator<Item = (K, u32)> {
        self.files.iter().map(|(key, blocks)| (*key, *blocks))
    }

    /// The keys from this one on.
    pub fn from(&self, key: K) -> impl Iterator<Item = K> {
        self.files.range(key..).map(|(key, _)| *key)
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
    pub fn quarantine(&mut self, destination: Destination, counter: u64) -> Result<Option<PathBuf>, DiskError> {
        self.available()?;
        let counter = self.follow(destination, counter);
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
    pub(super) fn move_to_bad(&mut self, from: &Path, blocks: u32) -> Result<Option<PathBuf>, DiskError> {
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
    pub(super) fn give_up_bad(&mut self) -> Result<Option<u32>, DiskError> {
        let Some(counter) = self.bad.oldest() else {
            return Ok(None);
        };
        let path = self.volume.file(Home::Bad, counter);
        match self.volume.unlink(&path) {
            Err(fault) if self.volume.stat(&path).is_ok_and(|found| found.regular) => Err(fault),
            _removed_or_a_folder_of_somebody_else => Ok(self.bad.remove(counter)),
        }
    }
}
