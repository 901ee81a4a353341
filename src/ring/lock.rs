//! The locks on a ring's file: one byte for each side.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};

use super::file::{OpenError, inode};
use super::layout::{CONSUMER_LOCK, PRODUCER_LOCK, Word};
use super::open_error::io_error;

/// The two sides of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side of the recognizer.
    Producer,
    /// The side of the uplink.
    Consumer,
}

impl Side {
    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Side::Producer => "producer",
            Side::Consumer => "consumer",
        }
    }

    fn lock_range(self, kind: libc::c_int) -> libc::flock {
        let byte = match self {
            Side::Producer => PRODUCER_LOCK,
            Side::Consumer => CONSUMER_LOCK,
        };
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte as libc::off_t,
            l_len: 1,
            l_pid: 0,
        }
    }

    /// The word of the header with its process's pid.
    pub(super) fn pid_word(self) -> Word {
        match self {
            Side::Producer => Word::ProducerPid,
            Side::Consumer => Word::ConsumerPid,
        }
    }
}

/// Why `side` could not be locked: another process holds it (its pid is in the header), or an error of the system.
pub(super) fn lock_error(path: &Path, file: &File, side: Side, error: io::Error) -> OpenError {
    if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
        return io_error(path, error);
    }
    let mut pid = [0; 4];
    let read = file.read_exact_at(&mut pid, side.pid_word().offset() as u64);
    let pid = read.map_or(0, |()| u32::from_le_bytes(pid));
    OpenError::Busy { path: path.to_owned(), side: side.name(), pid, inode: inode(file).unwrap_or_default() }
}

/// Locks a side.
pub(super) fn lock(file: &File, side: Side) -> io::Result<()> {
    Ok(fcntl(file, FcntlArg::F_OFD_SETLK(&side.lock_range(libc::F_WRLCK))).map(drop)?)
}

/// Unlocks a side.
pub(super) fn unlock(file: &File, side: Side) -> io::Result<()> {
    Ok(fcntl(file, FcntlArg::F_OFD_SETLK(&side.lock_range(libc::F_UNLCK))).map(drop)?)
}

/// Whether another process, or another descriptor of this one, has locked a side.
pub(super) fn is_locked(file: &File, side: Side) -> bool {
    let mut range = side.lock_range(libc::F_WRLCK);
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut range));
    asked.is_ok() && i32::from(range.l_type) != libc::F_UNLCK
}
