//! Room: what the spool takes, and what is evicted for new events.

use super::disk::Disk;
use super::index::{BLOCK, SLOTS, slots};
use super::readers::OpenFile;
use super::store::{Evicted, Reason};
use super::volume::DiskError;
use super::{Bounds, Spool};

/// So many of the oldest files are tried if they cannot be deleted, for example because of damaged inodes.
pub(super) const MOST_UNDELETABLE: usize = 64;
/// How many files others can still create on the file system, for example for a config that is saved or a package that is
/// unpacked.
const MIN_FREE_FILES: u64 = 128;

/// What can be evicted.
#[derive(Clone, Copy)]
enum Kind {
    Event,
    Letter,
    Quarantined,
}

impl<D: Disk> Spool<D> {
    /// Evicts the oldest events until `files` files with `blocks` blocks in total fit all bounds. Without `evicted` it evicts
    /// nothing, and it is an error if they do not fit.
    pub(super) fn make_room(
        &mut self,
        blocks: u64,
        files: u64,
        mut evicted: Option<&mut Vec<Evicted>>,
    ) -> Result<(), Reason> {
        let wanted = blocks * BLOCK;
        let max_bytes = self.bounds.max_bytes.saturating_sub(self.notes() * BLOCK);
        if wanted > max_bytes || files > self.bounds.max_files {
            return Err(Reason::TooLarge(wanted));
        }
        let free = self.volume.free()?;
        // Asked once: file systems report freed space late.
        let short = self.bounds.min_free_bytes.saturating_add(wanted).saturating_sub(free.bytes);
        // As for bytes, this matters only if there is something to store.
        let left_to_others = if files == 0 { 0 } else { MIN_FREE_FILES };
        let short_of_files = (left_to_others + files).saturating_sub(free.files);
        if short > self.named_blocks() * BLOCK {
            return Err(Reason::NoRoom(free.bytes));
        }
        if short_of_files > self.inodes() {
            return Err(Reason::NoFiles(free.files));
        }
        // An eviction makes no room while its file is being read. If what is being read leaves too little, it does not count.
        let in_use = self.readers.blocks(|_| false);
        let counts_readers = in_use * BLOCK + wanted <= max_bytes && in_use * BLOCK + short <= self.blocks() * BLOCK;
        let taken = |spool: &Self| if counts_readers { spool.blocks() } else { spool.named_blocks() };
        let (taken_before, files_before) = (taken(self), self.inodes());
        while taken_before.saturating_sub(taken(self)) * BLOCK < short
            || files_before - self.inodes() < short_of_files
            || taken(self) * BLOCK + wanted > max_bytes
            || self.files() + files > self.bounds.max_files
        {
            let evicted = evicted.as_deref_mut().ok_or(Reason::NoRoom(free.bytes))?;
            if !self.give_up_oldest(evicted)? {
                return Err(Reason::NoRoom(free.bytes));
            }
        }
        Ok(())
    }

    /// The error of an operation for which there is no room.
    pub(super) fn no_room(&self, reason: Reason) -> DiskError {
        match reason {
            Reason::Disk(fault) => fault,
            _ => DiskError {
                operation: "copy to",
                path: self.volume.root().to_owned(),
                source: std::io::ErrorKind::StorageFull.into(),
            },
        }
    }

    /// Makes room on the file system for others: evicts the `count` oldest files. Returns what was evicted.
    pub fn give_way(&mut self, count: usize) -> Vec<Evicted> {
        let mut evicted = Vec::new();
        (0..count).for_each(|_| drop(self.give_up_a_file(&mut evicted)));
        evicted
    }

    /// Evicts the oldest events until a file is gone; it may have several events. False if there is none.
    pub(super) fn give_up_a_file(&mut self, evicted: &mut Vec<Evicted>) -> Result<bool, DiskError> {
        let before = self.inodes();
        while self.inodes() == before {
            if !self.give_up_oldest(evicted)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Evicts at once what exceeds the bounds, which were `before` until now. Returns what was evicted.
    pub fn honour_bounds(&mut self, before: Bounds) -> Vec<Evicted> {
        let (bounds, mut evicted) = (self.bounds, Vec::new());
        if self.available().is_ok() {
            // If others take more of the disk meanwhile, the next store handles that: they may take less by then.
            let leaves_more = bounds.min_free_bytes > before.min_free_bytes;
            self.bounds.min_free_bytes = if leaves_more { bounds.min_free_bytes } else { 0 };
            let _the_next_store_says_so = self.make_room(0, 0, Some(&mut evicted));
            self.bounds = bounds;
        }
        evicted
    }

    /// Evicts the oldest event that can be deleted, or a dead letter while dead letters take more than their share. If there is
    /// neither, evicts a file in quarantine, and last the other dead letters. False if there is no file.
    ///
    /// # Errors
    /// The first fault, if none of the oldest ones can be deleted.
    fn give_up_oldest(&mut self, evicted: &mut Vec<Evicted>) -> Result<bool, DiskError> {
        let oldest = self.letters.at(0).filter(|_| self.letters.has_too_much(self.bounds));
        let is_letters_turn =
            oldest.is_some_and(|letter| self.events.at(0).is_none_or(|entry| letter.0 < entry.counter));
        let kinds = match is_letters_turn {
            true => [Kind::Letter, Kind::Event, Kind::Quarantined],
            false => [Kind::Event, Kind::Quarantined, Kind::Letter],
        };
        let mut first_fault = None;
        for (kind, place) in kinds.into_iter().flat_map(|kind| (0..MOST_UNDELETABLE).map(move |place| (kind, place))) {
            let given_up = match kind {
                Kind::Event => self.give_up_event(place, evicted),
                Kind::Letter => self.give_up_letter(place, evicted),
                Kind::Quarantined => self.quarantine.give_up_at(&self.volume, place),
            };
            match given_up {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(fault) if fault.source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => return Err(fault),
                Err(fault) => drop(first_fault.get_or_insert(fault)),
            }
        }
        first_fault.map_or(Ok(false), Err)
    }

    fn give_up_letter(&mut self, place: usize, evicted: &mut Vec<Evicted>) -> Result<bool, DiskError> {
        let Some((counter, destination)) = self.letters.at(place) else { return Ok(false) };
        self.give_up_dead((counter, destination))?;
        evicted.push(Evicted { counter, destinations: vec![destination], was_dead: true });
        Ok(true)
    }

    fn give_up_event(&mut self, place: usize, evicted: &mut Vec<Evicted>) -> Result<bool, DiskError> {
        let Some(entry) = self.events.at(place) else { return Ok(false) };
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
        removed.map(|()| true)
    }

    /// The blocks of all files, also of those that have no name any more and are still being read.
    pub(super) fn blocks(&self) -> u64 {
        let has_name = |file: &OpenFile| {
            let (event, events) = (file.event(), &self.events);
            let is_listed = events.get(event).is_some() && !(file.is_group() && events.is_alone(event));
            is_listed || file.is_group() && events.counts_group_of(event)
        };
        self.named_blocks() + self.readers.blocks(has_name)
    }

    /// The blocks of the files with a name. A dead letter that also waits for another destination counts twice, so the bound holds
    /// whichever of its names is deleted first.
    fn named_blocks(&self) -> u64 {
        self.events.blocks(self.volume.has_links()) + self.letters.blocks() + self.quarantine.blocks()
    }

    /// The blocks of the small files: the URL and the heirs of each destination, one block each whether the file exists yet or
    /// not, and the reasons of the dead letters.
    pub(super) fn notes(&self) -> u64 {
        let destinations = self.destinations.iter().map(|(_, one)| 1 + u64::from(one.heirs().is_some()));
        let dead = self.letters.len().min(SLOTS as u64); // a folder for each, at most
        destinations.sum::<u64>() + dead + self.letters.reason_blocks()
    }

    pub(super) fn files(&self) -> u64 {
        self.events.files(self.volume.has_links()) + self.letters.len() + self.quarantine.len()
    }

    /// The same as the file system counts: events in one file count once.
    pub(super) fn inodes(&self) -> u64 {
        self.events.inodes(self.volume.has_links()) + self.letters.len() + self.quarantine.len()
    }
}
