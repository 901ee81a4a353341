//! Opens an event. The reader continues whatever is wrong with an event.

use std::io;
use std::path::{Path, PathBuf};

use super::Spool;
use super::disk::Disk;
use super::events::Hidden;
use super::file::{Destination, Header};
use super::group::Part;
use super::index::blocks;
use super::key::{Key, KeyId};
use super::opened::{FileError, SpooledEvent};
use super::readers::FileId;
use super::volume::{DiskError, Home};

/// How many locked or foreign events one call looks for: other calls wait meanwhile.
const PAGE: usize = 255;

/// Why an event was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The event is not there: it was delivered or evicted.
    #[error("the event is not in the spool any more")]
    Gone,
    /// Another program removed its file. It counts as vanished; take the next event.
    #[error("the file of the spooled event {0} was removed by another program: the event is lost")]
    Removed(u64),
    /// It is damaged and went to quarantine; take the next event.
    #[error("the spooled event is damaged ({reason}); {}", .moved_to.as_ref().map_or("it could not be quarantined".into(), |path| format!("it is now {}", path.display())))]
    Damaged {
        /// What is wrong with it.
        reason: String,
        /// None if it could not be moved, or was too large to be kept.
        moved_to: Option<PathBuf>,
    },
    /// The disk cannot read it now. It stays, and is offered again after the next start; take the next event.
    #[error("the spooled event cannot be read: {0}")]
    Unreadable(String),
    /// It is sealed with another key than the one in use. It stays, and is offered again when the key changes; take the next
    /// event.
    #[error("{events} spooled events are sealed with the key {key}, and {}: they stay where they are", .in_use.map_or("there is no key".into(), |id| format!("the key in use is {id}")))]
    Locked {
        /// This event and the similar ones right after it, up to a page.
        events: u64,
        /// The key that opens it.
        key: KeyId,
        /// The key that is there.
        in_use: Option<KeyId>,
    },
    /// Another release wrote it in an unknown format. It stays, and is offered again after the next start; take the next event.
    #[error("{events} spooled events have the format {version} of another release: they stay where they are")]
    Foreign {
        /// This event and the similar ones right after it, up to a page.
        events: u64,
        /// The format's version.
        version: u32,
    },
    /// This process lacks descriptors or memory. The event may be good: try again later.
    #[error("{0}")]
    Shortage(DiskError),
}

impl<D: Disk> Spool<D> {
    /// Opens an event and checks all of it.
    ///
    /// # Errors
    /// [`ReadError`]. Except after a shortage the event is not offered again, so the reader always makes progress.
    pub fn read(&mut self, destination: Destination, counter: u64) -> Result<SpooledEvent<D::Mapped>, ReadError> {
        let slot = self.slot_with(destination, counter).ok_or(ReadError::Gone)?;
        self.available().map_err(ReadError::Shortage)?;
        let flaw = match self.volume.map(&self.volume.file(Home::To(destination), counter)) {
            Ok(mapped) => {
                let opened = Part::of(mapped, counter).and_then(|part| {
                    let file = FileId {
                        first: part.first().unwrap_or(counter),
                        slot: if self.volume.has_links() { 0 } else { slot },
                        is_group: part.first().is_some(),
                    };
                    let blocks = blocks(part.file_len());
                    Ok((SpooledEvent::check_part(part, self.key.usable())?, file, blocks))
                });
                match opened {
                    Ok((mut event, file, blocks)) => {
                        event.reading = Some(self.readers.add(counter, file, blocks));
                        return Ok(event);
                    }
                    Err(flaw) => flaw,
                }
            }
            Err(fault) if fault.source.kind() == io::ErrorKind::NotFound => {
                self.events.forget(counter, slot);
                self.count(slot, |tally| &mut tally.vanished);
                return Err(ReadError::Removed(counter));
            }
            Err(fault) if fault.source.kind() == io::ErrorKind::InvalidData => {
                FileError::Damaged("it is empty or no file".into())
            }
            Err(fault) if fault.is_shortage() => return Err(ReadError::Shortage(fault)),
            Err(fault) => {
                self.events.hide(counter, slot, Hidden::Stuck);
                return Err(ReadError::Unreadable(fault.to_string()));
            }
        };
        match flaw {
            FileError::Damaged(reason) => {
                let moved_to = self.quarantine(destination, counter).ok().flatten();
                Err(ReadError::Damaged { reason, moved_to })
            }
            FileError::Locked(key) => {
                let is_locked = |header: Result<Header, FileError>, in_use: Option<&Key>| {
                    header.is_ok_and(|header| header.is_locked(in_use))
                };
                let events = self.hide_with_next(destination, slot, counter, Hidden::Locked, is_locked);
                Err(ReadError::Locked { events, key, in_use: self.key.id() })
            }
            FileError::Foreign(version) => {
                let is_foreign = |header, _: Option<&Key>| matches!(header, Err(FileError::Foreign(_)));
                let events = self.hide_with_next(destination, slot, counter, Hidden::Stuck, is_foreign);
                Err(ReadError::Foreign { events, version })
            }
            FileError::Unreadable => {
                self.skip(destination, counter);
                Err(ReadError::Unreadable("its file was truncated, or the disk failed".into()))
            }
        }
    }

    /// Hides an event and the similar ones right after it. Otherwise a reader that looks for a readable event would try
    /// thousands, and each try looks at all before it. Returns how many there were.
    fn hide_with_next(
        &mut self,
        destination: Destination,
        slot: usize,
        counter: u64,
        why: Hidden,
        is_such: fn(Result<Header, FileError>, Option<&Key>) -> bool,
    ) -> u64 {
        let is_such = |other: &u64| {
            let mapped = self.volume.map(&self.volume.file(Home::To(destination), *other));
            let header =
                |mapped| Part::of(mapped, *other).and_then(|part| Header::read(&part)).map(|(header, _)| header);
            mapped.is_ok_and(|mapped| is_such(header(mapped), self.key.usable()))
        };
        let others = self.events.offered(slot, Some(counter)).map(|entry| entry.counter);
        let found: Vec<u64> = std::iter::once(counter).chain(others.take(PAGE).take_while(is_such)).collect();
        found.iter().for_each(|counter| self.events.hide(*counter, slot, why));
        found.len() as u64
    }

    /// Skips an event that could not be read to its end (its mapping was lost). It stays, and is not offered again before the
    /// next start.
    pub fn skip(&mut self, destination: Destination, counter: u64) {
        let counter = self.follow(destination, counter);
        if let Some(slot) = self.slot_with(destination, counter) {
            self.events.hide(counter, slot, Hidden::Stuck);
        }
    }

    /// Moves an event to quarantine: it is damaged, or its record is no valid event. Returns its new path; none if it was too
    /// large to be kept.
    ///
    /// # Errors
    /// If it cannot be moved. It is not offered again before the next start.
    pub fn quarantine(&mut self, destination: Destination, counter: u64) -> Result<Option<PathBuf>, DiskError> {
        self.available()?;
        let counter = self.follow(destination, counter);
        let from = self.volume.file(Home::To(destination), counter);
        let known = self.destinations.slot(destination).filter(|_| self.events.get(counter).is_some());
        match self.take_alone(&from, counter) {
            Ok(path) => {
                if let Some(slot) = known {
                    self.events.forget(counter, slot);
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

    /// Moves a file to quarantine; of a group only this event.
    fn take_alone(&mut self, from: &Path, counter: u64) -> Result<Option<PathBuf>, DiskError> {
        if self.volume.size_in_group(from, counter)?.is_some() {
            let alone = self.volume.file(Home::New, counter);
            // Without room for the copy the whole file stays with it.
            if let Ok(size) = self.volume.copy(from, Some(counter), &alone) {
                let taken = self.quarantine.take(&self.volume, self.bounds, &alone, blocks(size));
                self.volume.remove_fresh(counter);
                let path = taken?;
                self.volume.unlink(from)?;
                return Ok(path);
            }
        }
        // Its size may have changed since it was stored.
        let blocks = self.volume.stat(from).map_or(1, |found| blocks(found.bytes));
        self.quarantine.take(&self.volume, self.bounds, from, blocks)
    }
}
