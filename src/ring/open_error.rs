//! Why a ring cannot be opened.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Why a ring cannot be used at present.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no file: the recognizer has not created it yet.
    #[error("there is no ring at {0} yet")]
    Missing(PathBuf),
    /// The file is not a usable ring.
    #[error("{path} is not a usable ring: {reason}")]
    NotARing {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A running process uses the same side of the ring.
    #[error("{path} is in use by another {side}, process {pid}; stop that one first")]
    Busy {
        /// The file.
        path: PathBuf,
        /// "producer" or "consumer".
        side: &'static str,
        /// The pid of that process, from the header.
        pid: u32,
        /// The file's device and inode number.
        inode: (u64, u64),
    },
    /// This process uses the ring itself.
    #[error("{path} is {what}")]
    Ours {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// An error of the system.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// For example permission or memory.
        source: io::Error,
    },
}

pub(super) fn not_a_ring(path: &Path, reason: String) -> OpenError {
    OpenError::NotARing { path: path.to_owned(), reason }
}

/// An error of the system; if access was denied, with the owner of the file: in /dev/shm only the owner and root can remove it.
pub(super) fn io_error(path: &Path, source: io::Error) -> OpenError {
    let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
    let source = match fs::symlink_metadata(path).map(|found| found.uid()) {
        Ok(owner) if is_denied && owner != geteuid().as_raw() => {
            let me = geteuid();
            let hint = format!(
                "{source}: it is user {owner}'s, and this is user {me}: run as user {owner}, or let user {owner} or root remove it"
            );
            io::Error::new(source.kind(), hint)
        }
        _ => source,
    };
    OpenError::Io { path: path.to_owned(), source }
}
