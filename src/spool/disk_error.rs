//! An operation that the disk refused, and what that means.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::save::is_full;

/// An operation that the disk refused.
#[derive(Debug)]
pub struct DiskError {
    /// "write", "link", ...
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl DiskError {
    /// The disk is full: blocks, inodes or quota. Evicting older events may help.
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }

    /// Another file may succeed: the flash failed a write, or the name was taken.
    pub fn is_worth_another_file(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EIO)
            || self.source.kind() == io::ErrorKind::AlreadyExists
            || self.operation == SYNC
    }

    /// Another process has claimed the spool's folder.
    pub fn is_claimed(&self) -> bool {
        self.operation == CLAIM && self.source.kind() == io::ErrorKind::WouldBlock
    }

    /// This process may not open the folder, or make it durable.
    pub(super) fn is_not_our_folder(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
    }

    /// This process lacks descriptors, memory or slots in the SIGBUS guard. The file may be good.
    pub fn is_shortage(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN))
            || self.source.kind() == io::ErrorKind::Other
    }
}

/// [`DiskError::operation`] of a file that could not be made durable.
pub(super) const SYNC: &str = "sync";
/// [`DiskError::operation`] of a folder that could not be had for this process alone.
pub(super) const CLAIM: &str = "claim";

/// Makes an error of what the system said.
pub(super) fn fault(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError { operation, path: path.to_owned(), source }
}
