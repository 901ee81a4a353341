//! Quarantine: damaged files, and files that are not the spool's, are moved to `bad/`, within a small share of the bounds.

use std::path::{Path, PathBuf};

use super::Bounds;
use super::disk::Disk;
use super::file::{BAD_SUFFIX, counter};
use super::index::blocks;
use super::shelf::Shelf;
use super::volume::{DiskError, Home, Volume};

/// The files in `bad/`, and the next one's number.
#[derive(Debug)]
pub struct Quarantine {
    files: Shelf<u64>,
    next: u64,
}

impl Default for Quarantine {
    fn default() -> Quarantine {
        Quarantine { files: Shelf::default(), next: 1 }
    }
}

impl Quarantine {
    /// Lists the folder. Calls `problem` for files that cannot be looked at. Files with other names are left alone and not
    /// counted.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn scan<D: Disk>(&mut self, volume: &Volume<D>, mut problem: impl FnMut(DiskError)) -> Result<(), DiskError> {
        let (counters, _) = volume.names(&volume.folder(Home::Bad), |name| counter(name, BAD_SUFFIX))?;
        self.files = Shelf::default();
        for counter in counters {
            match volume.stat(&volume.file(Home::Bad, counter)) {
                Ok(found) => self.files.add(counter, blocks(found.bytes)),
                Err(fault) => problem(fault),
            }
            self.next = self.next.max(counter + 1);
        }
        Ok(())
    }

    /// Moves the file at `from` to quarantine, within its bounds. Returns its new path; none if it was too large to be kept.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn take<D: Disk>(
        &mut self,
        volume: &Volume<D>,
        bounds: Bounds,
        from: &Path,
        blocks: u32,
    ) -> Result<Option<PathBuf>, DiskError> {
        if !Shelf::<u64>::default().has_room(bounds, blocks) {
            volume.unlink(from)?; // too large to be kept even alone
            return Ok(None);
        }
        while !self.files.has_room(bounds, blocks) {
            self.give_up_at(volume, 0)?;
        }
        let counter = self.next;
        self.next = counter.saturating_add(1);
        let path = volume.file(Home::Bad, counter);
        volume.rename(from, &path)?;
        self.files.add(counter, blocks);
        Ok(Some(path))
    }

    /// Deletes the file at this place, from the oldest on. False if there is no such file.
    ///
    /// # Errors
    /// If it cannot be deleted.
    pub fn give_up_at<D: Disk>(&mut self, volume: &Volume<D>, place: usize) -> Result<bool, DiskError> {
        let Some((counter, _)) = self.files.iter().nth(place) else {
            return Ok(false);
        };
        let path = volume.file(Home::Bad, counter);
        match volume.unlink(&path) {
            Err(fault) if volume.stat(&path).is_ok_and(|found| found.regular) => Err(fault),
            _removed_or_a_folder_of_somebody_else => Ok(self.files.remove(counter).is_some()),
        }
    }

    /// How many files.
    pub fn len(&self) -> u64 {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The blocks that they take.
    pub fn blocks(&self) -> u64 {
        self.files.blocks()
    }
}
