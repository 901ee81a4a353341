//! What a start found.

use std::path::{Path, PathBuf};

use super::disk_error::DiskError;
use super::file::Destination;

/// At most so many of each are told of one by one.
const TOLD: usize = 16;

/// What a start found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Events that wait, each counted once.
    pub events: u64,
    /// What everything in the spool takes.
    pub bytes: u64,
    /// Files in `new/` that were never finished.
    pub unfinished: u64,
    /// Configured destinations that have no folder: those that were not configured when the last event was stored.
    pub added: Vec<Destination>,
    /// Destinations with events that are not configured any more: [`Spool::settle`](super::Spool::settle) sees to them.
    pub removed: Vec<Removed>,
    /// Events that were there before, and are not any more, once for each destination: somebody removed them.
    pub vanished: u64,
    /// Events of a folder that was at the spool's path before, which can be reached, and are to be moved here.
    pub left: u64,
    /// What was not ours and is in `bad/` now: how much, and the first of it with its new names.
    pub foreign: u64,
    /// From, to; without the latter it was too large to be kept.
    pub quarantine: Vec<(PathBuf, Option<PathBuf>)>,
    /// What failed and did not matter, the first of it.
    pub problems: Vec<DiskError>,
    /// Why the spool cannot be used.
    pub unavailable: Option<DiskError>,
}

/// A destination that is not configured any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its folder's name.
    pub destination: Destination,
    /// As its folder says.
    pub url: Option<String>,
    /// Events in its folder.
    pub events: u64,
}

impl Recovered {
    /// Something failed and did not matter.
    pub(super) fn problem(&mut self, fault: DiskError) {
        if self.problems.len() < TOLD {
            self.problems.push(fault);
        }
    }

    /// What was not ours is in quarantine now.
    pub(super) fn foreign(&mut self, from: &Path, to: Option<PathBuf>) {
        self.foreign += 1;
        if self.quarantine.len() < TOLD {
            self.quarantine.push((from.to_owned(), to));
        }
    }
}
