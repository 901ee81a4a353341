//! Stores an event: makes room, writes a file, makes it durable, and only then gives it its names.

use std::path::{Path, PathBuf};

use super::batch::Order;
use super::disk::Disk;
use super::events::Hidden;
use super::file::Destination;
use super::index::{Entry, Mask, blocks, slots};
use super::room::MOST_UNDELETABLE;
use super::volume::{DiskError, Home};
use super::{Spool, State};
use crate::picture::PictureSource;
use crate::ring::Words;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;

/// How many files are tried for one event.
const TRIES: u32 = 3;

/// An event that is durable for all its destinations.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub counter: u64,
    /// What was evicted for it.
    pub evicted: Vec<Evicted>,
}

/// An event that was evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Its number.
    pub counter: u64,
    /// The destinations that will not get it. For a dead letter, the one that refused it.
    pub destinations: Vec<Destination>,
    /// Whether it was a dead letter.
    pub was_dead: bool,
}

/// An event that was not stored. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[error("the event was not spooled: {reason}")]
pub struct StoreError {
    /// Why.
    pub reason: Reason,
    /// What was evicted for it nevertheless.
    pub evicted: Vec<Evicted>,
}

/// Why an event was not stored.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// See [`State::Unavailable`].
    #[error("the spool is unavailable: {0}")]
    Unavailable(String),
    /// There is no destination, or an unknown one.
    #[error("the spool has no such destination")]
    NoSuchDestination,
    /// It exceeds the bound of the whole spool.
    #[error("its {0} bytes are more than the spool may hold")]
    TooLarge(u64),
    /// The file system would be too full even if the spool were empty.
    #[error("only {0} bytes are free on its file system")]
    NoRoom(u64),
    /// The file system has no inodes beyond those that are left to others.
    #[error("only {0} files can still be made on its file system (df -i shows its inodes)")]
    NoFiles(u64),
    /// Files must be sealed, and there is no key, or there are no random numbers yet. The event is not written in clear instead.
    #[error("{0}: without it nothing is kept on flash")]
    NoKey(String),
    /// The ring's file was truncated while the event was read from it.
    #[error("the ring's file was truncated while the event was read from it")]
    Lost,
    /// An operation of the disk failed.
    #[error("{0}")]
    Disk(#[from] DiskError),
}

impl<D: Disk> Spool<D> {
    /// Stores the record at `frame` in `source`, an event of `ring`, for the destinations in `to`. It is durable if this returns
    /// Ok.
    ///
    /// # Errors
    /// [`StoreError`]; everything that was created for the event is deleted.
    pub fn store<S: Words + PictureSource + ?Sized>(
        &mut self,
        ring: RingId,
        source: &S,
        frame: &Frame,
        to: &[Destination],
    ) -> Result<Stored, StoreError> {
        let mut evicted = Vec::new();
        let stored = self.mask(to).and_then(|mask| {
            self.check_key()?;
            self.sweep()?;
            let copies = self.copies(mask);
            self.make_room(copies * u64::from(blocks(self.file_len(frame))), copies, Some(&mut evicted))?;
            self.make_needed_folders(mask, &mut evicted)?;
            self.make_all_folders();
            self.write_until_stored(ring, source, frame, mask, &mut evicted).map(|counter| (counter, mask))
        });
        match stored {
            Ok((counter, mask)) => {
                slots(mask).for_each(|slot| self.count(slot, |tally| &mut tally.stored));
                (self.state, self.eviction_helps) = (State::Usable, true);
                Ok(Stored { counter, evicted })
            }
            Err(reason) => {
                // These say nothing about the next event.
                if !matches!(
                    reason,
                    Reason::Unavailable(_)
                        | Reason::NoSuchDestination
                        | Reason::NoKey(_)
                        | Reason::Lost
                        | Reason::TooLarge(_)
                ) {
                    self.state = match &reason {
                        // Another program removed the folders: they must be created and listed again.
                        Reason::Disk(fault) if fault.source.kind() == std::io::ErrorKind::NotFound => {
                            State::Unavailable(reason.to_string())
                        }
                        _ => State::Troubled(reason.to_string()),
                    };
                }
                Err(StoreError { reason, evicted })
            }
        }
    }

    /// Gives a stored event to more destinations, without writing it again. Returns how many of them lacked it.
    ///
    /// # Errors
    /// `NoSuchDestination` also if the event is in no folder any more: then store it again.
    pub fn share(&mut self, counter: u64, to: &[Destination]) -> Result<u64, Reason> {
        let mask = self.mask(to)?;
        if self.swapped.may_mean_another(counter) {
            return Err(Reason::NoSuchDestination);
        }
        slots(mask).try_for_each(|slot| self.unlink_if_done(counter, slot))?;
        let known = self.events.get(counter).ok_or(Reason::NoSuchDestination)?;
        let from = slots(known.mask).next().ok_or(Reason::NoSuchDestination)?;
        self.make_folders(mask)?;
        let from = self.name_in(from, counter);
        let mask = mask & !known.mask;
        let copies = u64::from(mask.count_ones());
        if copies > 0 && !self.volume.has_links() {
            self.make_room(copies * u64::from(known.blocks), copies, None)?;
        }
        self.link(&from, Entry { mask, ..known })?;
        slots(mask).for_each(|slot| self.count(slot, |tally| &mut tally.stored));
        Ok(slots(mask).count() as u64)
    }

    /// How many files an event needs in these folders.
    pub(super) fn copies(&self, mask: Mask) -> u64 {
        if self.volume.has_links() { 1 } else { mask.count_ones().into() }
    }

    pub(super) fn mask(&mut self, to: &[Destination]) -> Result<Mask, Reason> {
        self.notice();
        if let State::Unavailable(why) = &self.state {
            return Err(Reason::Unavailable(why.clone()));
        }
        let add = |mask, destination| Some(mask | 1 << self.destinations.slot(destination)?);
        let mask = to.iter().copied().try_fold(0, add);
        mask.filter(|mask| *mask != 0).ok_or(Reason::NoSuchDestination)
    }

    /// Tries again to delete the names that could not be deleted.
    pub(super) fn sweep(&mut self) -> Result<(), DiskError> {
        self.volume.sweep()?;
        let done: Vec<_> = self.events.hidden_for(Hidden::Done).collect();
        let failures = done.into_iter().filter(|(counter, slot)| self.unlink(*counter, *slot).is_err());
        let _still_there = failures.take(MOST_UNDELETABLE).count();
        Ok(())
    }

    /// As [`Spool::make_folders`]. A full disk gets room once, as for the event itself.
    pub(super) fn make_needed_folders(&mut self, mask: Mask, evicted: &mut Vec<Evicted>) -> Result<(), DiskError> {
        match self.make_folders(mask) {
            Err(fault) if fault.is_full() && self.eviction_helps => {
                self.eviction_helps = false;
                if self.give_up_a_file(evicted)? { self.make_folders(mask) } else { Err(fault) }
            }
            made => made,
        }
    }

    fn write_until_stored<S: Words + PictureSource + ?Sized>(
        &mut self,
        ring: RingId,
        source: &S,
        frame: &Frame,
        mask: Mask,
        evicted: &mut Vec<Evicted>,
    ) -> Result<u64, Reason> {
        let mut tries = 1;
        loop {
            let counter = self.events.take_numbers(1).ok_or_else(|| {
                Reason::Unavailable("a file has the last number; it must be delivered or removed".into())
            })?;
            let entry = Entry { counter, blocks: blocks(self.file_len(frame)), mask };
            let fresh = self.volume.file(Home::New, counter);
            let written = self.write_alone(&fresh, Order { ring, source, frame, to: &[] });
            let linked = written.and_then(|()| Ok(self.link(&fresh, entry)?));
            self.volume.remove_fresh(counter);
            match linked {
                Ok(()) => return Ok(counter),
                Err(Reason::Disk(fault)) if tries < TRIES && fault.is_full() && self.eviction_helps => {
                    self.eviction_helps = false; // until a store succeeds: a full disk must not empty the spool for nothing
                    if !self.give_up_a_file(evicted)? {
                        return Err(fault.into());
                    }
                }
                Err(Reason::Disk(fault)) if tries < TRIES && fault.is_worth_another_file() => {}
                Err(reason) => return Err(reason),
            }
            tries += 1;
        }
    }

    /// Writes a file with one event and makes it durable.
    fn write_alone<S>(&mut self, path: &Path, order: Order<'_, S>) -> Result<(), Reason>
    where
        S: Words + PictureSource + ?Sized,
    {
        let mut file = self.volume.create(path)?;
        self.write((&mut file, path), 0, order)?;
        Ok(self.volume.sync(&mut file, path)?)
    }

    /// Gives a durable file its name in every folder of `entry`, and makes the names durable: all or none.
    pub(super) fn link(&mut self, from: &Path, entry: Entry) -> Result<(), DiskError> {
        self.link_names(from, entry)?;
        if let Err(fault) = self.sync_folders(entry.mask) {
            self.unlink_names(entry);
            return Err(fault);
        }
        self.events.add(entry);
        Ok(())
    }

    /// Gives a file its names, not durable yet: all or none.
    pub(super) fn link_names(&mut self, from: &Path, entry: Entry) -> Result<(), DiskError> {
        let mut made: Mask = 0;
        let is_fresh = from.starts_with(self.volume.folder(Home::New));
        let linked = slots(entry.mask).try_for_each(|slot| {
            let (to, is_last) = (self.name_in(slot, entry.counter), entry.mask >> slot == 1);
            let linked =
                if is_fresh && is_last { self.volume.link_last(from, &to) } else { self.volume.link(from, &to) };
            let taken = linked.as_ref().is_err_and(|fault| fault.source.kind() == std::io::ErrorKind::AlreadyExists);
            made |= Mask::from(!taken) << slot; // a link that failed may be there all the same
            linked
        });
        if linked.is_err() {
            self.unlink_names(Entry { mask: made, ..entry });
        }
        linked
    }

    pub(super) fn sync_folders(&self, mask: Mask) -> Result<(), DiskError> {
        slots(mask)
            .try_for_each(|slot| self.volume.sync_folder(&self.volume.folder(Home::To(self.destinations.at(slot)))))
    }

    /// Deletes names that must not count.
    pub(super) fn unlink_names(&mut self, entry: Entry) {
        for slot in slots(entry.mask) {
            if self.volume.unlink(&self.name_in(slot, entry.counter)).is_err() {
                self.events.add(Entry { mask: 1 << slot, ..entry });
                self.events.hide(entry.counter, slot, Hidden::Done);
            }
        }
    }

    pub(super) fn name_in(&self, slot: usize, counter: u64) -> PathBuf {
        self.volume.file(Home::To(self.destinations.at(slot)), counter)
    }
}
