//! Room: what everything takes, and what is given up for what is new.

use super::disk::Disk;
use super::index::{BLOCK, SLOTS, slots};
use super::store::{Evicted, Reason};
use super::volume::DiskError;
use super::{Bounds, Spool};

/// Files that others can still make on the file system: a config that is saved, a package that is unpacked.
const MIN_FREE_FILES: u64 = 128;

impl<D: Disk> Spool<D> {
    /// Gives up the oldest until so many files, of so many blocks together, fit into every bound.
    pub(super) fn make_room(&mut self, blocks: u64, files: u64, evicted: &mut Vec<Evicted>) -> Result<(), Reason> {
        let wanted = blocks * BLOCK;
        let max_bytes = self.bounds.max_bytes.saturating_sub(self.notes() * BLOCK);
        if wanted > max_bytes || files > self.bounds.max_files {
            return Err(Reason::TooLarge(wanted));
        }
        let free = self.volume.free()?;
        // Asked once: file systems are slow to tell of room that was just made.
        let short = self.bounds.min_free_bytes.saturating_add(wanted).saturating_sub(free.bytes);
        // Others are left theirs when there is something to store, as with bytes.
        let left_to_others = if files == 0 { 0 } else { MIN_FREE_FILES };
        let short_of_files = (left_to_others + files).saturating_sub(free.files);
        if short > self.blocks() * BLOCK {
            return Err(Reason::NoRoom(free.bytes));
        }
        if short_of_files > self.inodes() {
            return Err(Reason::NoFiles(free.files));
        }
        let (blocks_before, files_before) = (self.blocks(), self.inodes());
        while (blocks_before - self.blocks()) * BLOCK < short
            || files_before - self.inodes() < short_of_files
            || self.blocks() * BLOCK + wanted > max_bytes
            || self.files() + files > self.bounds.max_files
        {
            self.give_up_oldest(evicted)?.ok_or(Reason::NoRoom(free.bytes))?;
        }
        Ok(())
    }

    /// Makes room on the file system for somebody else: gives up the oldest files, so many. What that was.
    pub fn give_way(&mut self, count: usize) -> Vec<Evicted> {
        let mut evicted = Vec::new();
        (0..count).for_each(|_| drop(self.give_up_a_file(&mut evicted)));
        evicted
    }

    /// Gives up the oldest until a file is gone, which may have several events; false where there is none.
    pub(super) fn give_up_a_file(&mut self, evicted: &mut Vec<Evicted>) -> Result<bool, DiskError> {
        let before = self.inodes();
        while self.inodes() == before {
            if self.give_up_oldest(evicted)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives up at once what is over the bounds, which were `before`; what that was.
    pub fn honour_bounds(&mut self, before: Bounds) -> Vec<Evicted> {
        let (bounds, mut evicted) = (self.bounds, Vec::new());
        if self.available().is_ok() {
            // What others take of the disk meanwhile is seen to when there is something to store: it may be less by then.
            let leaves_more = bounds.min_free_bytes > before.min_free_bytes;
            self.bounds.min_free_bytes = if leaves_more { bounds.min_free_bytes } else { 0 };
            let _the_next_store_says_so = self.make_room(0, 0, &mut evicted);
            self.bounds = bounds;
        }
        evicted
    }

    /// Gives up the oldest: an event, or a dead letter while those have more than their part. With neither left, what was set aside,
    /// and at last the other dead letters. Says how many blocks that was.
    fn give_up_oldest(&mut self, evicted: &mut Vec<Evicted>) -> Result<Option<u64>, DiskError> {
        let letter = self.letters.oldest();
        let entry = self.events.oldest();
        let entry = entry.filter(|entry| {
            !self.letters.has_too_much(self.bounds) || letter.is_none_or(|letter| entry.counter <= letter.0)
        });
        let Some(entry) = entry else {
            let is_letters_turn = self.letters.has_too_much(self.bounds) || self.quarantine.is_empty();
            let Some((counter, destination)) = letter.filter(|_| is_letters_turn) else {
                return Ok(self.quarantine.give_up_oldest(&self.volume)?.map(u64::from));
            };
            let blocks = self.give_up_dead()?;
            evicted.push(Evicted { counter, destinations: vec![destination], was_dead: true });
            return Ok(blocks.map(u64::from));
        };
        let mut destinations = Vec::new();
        let removed = slots(entry.mask).try_for_each(|slot| {
            if self.unlink(entry.counter, slot)? {
                self.count(slot, |tally| &mut tally.evicted);
                destinations.push(self.destinations.at(slot));
            }
            Ok(())
        });
        if !destinations.is_empty() {
            evicted.push(Evicted { counter: entry.counter, destinations, was_dead: false });
        }
        removed.map(|()| Some(u64::from(entry.blocks)))
    }

    /// What everything takes. A dead letter that also waits for another destination counts twice, so that the bound holds
    /// whichever of its names goes first.
    pub(super) fn blocks(&self) -> u64 {
        self.events.blocks(self.volume.has_links()) + self.letters.blocks() + self.quarantine.blocks()
    }

    /// The small files that say which destination a folder is, and who its heirs are: a block each, whether they are there yet or not.
    /// And why the dead letters are.
    pub(super) fn notes(&self) -> u64 {
        let destinations = self.destinations.iter().map(|(_, one)| 1 + u64::from(one.heirs().is_some()));
        let dead = self.letters.len().min(SLOTS as u64); // a folder for each, at most
        destinations.sum::<u64>() + dead + self.letters.reason_blocks()
    }

    pub(super) fn files(&self) -> u64 {
        self.events.files(self.volume.has_links()) + self.letters.len() + self.quarantine.len()
    }

    /// The same as the file system counts them: events that lie in one file are one.
    pub(super) fn inodes(&self) -> u64 {
        self.events.inodes(self.volume.has_links()) + self.letters.len() + self.quarantine.len()
    }
}
