//! What a start found.

use std::path::{Path, PathBuf};

use super::disk_error::DiskError;
use super::file::Destination;

/// How many of each are reported one by one.
const TOLD: usize = 16;

/// What a start found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Waiting events, each counted once.
    pub events: u64,
    /// The size of the whole spool.
    pub bytes: u64,
    /// Unfinished files in `new/`, which were deleted.
    pub unfinished: u64,
    /// Configured destinations without a folder: they were not configured when the last event was stored.
    pub added: Vec<Destination>,
    /// Destinations with events that are no longer configured. [`Spool::settle`](super::Spool::settle) moves these events.
    pub removed: Vec<Removed>,
    /// Events that another program removed, counted for each destination.
    pub vanished: u64,
    /// Events in a folder that was at the spool's path before. They can be reached, and will be moved here.
    pub left: u64,
    /// How many files were not the spool's, and are in quarantine now.
    pub foreign: u64,
    /// The first of these: the old path, and the new one; none if it was too large to be kept.
    pub quarantine: Vec<(PathBuf, Option<PathBuf>)>,
    /// The first failures that did not matter.
    pub problems: Vec<DiskError>,
    /// Why the spool cannot be used.
    pub unavailable: Option<DiskError>,
}

/// A destination that is no longer configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its folder's name.
    pub destination: Destination,
    /// Its URL, if its folder says.
    pub url: Option<String>,
    /// Events in its folder.
    pub events: u64,
}

impl Recovered {
    /// Adds a failure that did not matter.
    pub(super) fn problem(&mut self, fault: DiskError) {
        if self.problems.len() < TOLD {
            self.problems.push(fault);
        }
    }

    /// Adds a file that went to quarantine.
    pub(super) fn foreign(&mut self, from: &Path, to: Option<PathBuf>) {
        self.foreign += 1;
        if self.quarantine.len() < TOLD {
            self.quarantine.push((from.to_owned(), to));
        }
    }
}
