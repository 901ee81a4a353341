//! The ring's file, and the locks that decide who may use it.
//!
//! A lock is an open file description lock on one byte, so the kernel releases it when its owner ends. A dead producer or
//! consumer is therefore detected for certain, without a timeout or a pid. The pids in the header do not tell who lives. They
//! are for messages, and tell which process wrote other words: `FifoPid`, `ConsumerAbiPid`; and a producer pid of 0 tells that
//! the last producer closed the ring.
//!
//! The consumer only opens the file. The producer creates it, takes it over, replaces it or sets it aside ([`super::create`]).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::ops::{Deref, Range};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::unistd::geteuid;

use super::layout::{self, ABI_VERSION, FileHeader, HEADER_SIZE, MAGIC, OLDEST_ABI, Word};
pub use super::lock::Side;
use super::lock::{is_locked, lock, lock_error, unlock};
use super::mapping::{Access, Mapping};
pub use super::open_error::OpenError;
use super::open_error::{io_error, not_a_ring};
use super::{Memory, opener};
use crate::picture::{Lost, PictureSource};

/// Distinguishes a ring's events from those of every other ring ([`super::identity`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RingId(pub [u8; 16]);

impl std::fmt::Display for RingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&text).expect("digits"))
    }
}

/// A ring's file: open, mapped and checked. Dropping it releases the lock.
#[derive(Debug)]
pub struct RingFile {
    /// The open file, which holds the lock.
    pub(super) file: File,
    pub(super) mapping: Mapping,
    /// From the header.
    pub id: RingId,
    pub(super) inode: (u64, u64),
}

/// What the path of an open ring names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The ring itself.
    This,
    /// Another file: the ring was replaced.
    Another,
    /// Nothing: the ring's name was removed.
    Nothing,
}

/// The ring's memory: the owner of the file (and so of the lock) may use it.
impl Deref for RingFile {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.mapping
    }
}

impl RingFile {
    /// Opens the ring at `path` as the consumer, and locks that side.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub fn open_consumer(path: &Path) -> Result<RingFile, OpenError> {
        let ring = RingFile::open(path, Some(Side::Consumer), Access::Consumer)?;
        let pid = u64::from(std::process::id());
        ring.mapping.store(Word::ConsumerPid, pid, Ordering::Relaxed);
        ring.mapping.store(Word::ConsumerAbiPid, pid, Ordering::Relaxed);
        // Release: a process that sees this version also sees the pid.
        ring.mapping.store(Word::ConsumerAbi, u64::from(ABI_VERSION), Ordering::Release);
        Ok(ring)
    }

    /// Opens the ring at `path` to inspect it: takes no lock, and writes nothing.
    ///
    /// # Errors
    /// Like [`RingFile::open_consumer`], but never [`OpenError::Busy`].
    pub fn open_inspect(path: &Path) -> Result<RingFile, OpenError> {
        RingFile::open(path, None, Access::Inspect)
    }

    /// Whether `path` still names this file.
    pub fn is_at(&self, path: &Path) -> bool {
        names(path, self.inode)
    }

    /// What `path` names now.
    pub fn naming(&self, path: &Path) -> Naming {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino())),
            // The folder may belong to another user.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => match opener::open(path) {
                Some(opened) => opened.and_then(|file| inode(&file)),
                None => Err(error),
            },
            Err(error) => Err(error),
        };
        match found {
            Ok(found) if found == self.inode => Naming::This,
            Ok(_) => Naming::Another,
            Err(error) if error.raw_os_error() == Some(opener::NO_RING) => Naming::Another,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Naming::Nothing,
            Err(_) => Naming::This, // not known: go on as before
        }
    }

    /// The file's device and inode number.
    pub fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// The user id of the file's owner; that of root if it is not known.
    pub fn owner(&self) -> u32 {
        self.file.metadata().map_or(0, |found| found.uid())
    }

    /// Whether its last producer closed it: one that dies leaves its pid in the header.
    pub fn was_closed(&self) -> bool {
        self.mapping.load(Word::ProducerPid, Ordering::Relaxed) == 0
    }

    /// The pid of the process that holds `side`, from the header; none if no process does.
    pub fn holder(&self, side: Side) -> Option<u32> {
        is_locked(&self.file, side).then(|| self.mapping.load(side.pid_word(), Ordering::Relaxed) as u32)
    }

    /// Called by the producer: changes the ring to the newest version. Returns false if that is not possible, because the
    /// consumer of the ring knows only an older version. The consumer's lock is held meanwhile if it is free, so that no such
    /// consumer can attach between the check and the change.
    pub(super) fn become_newest(&self) -> bool {
        if self.load(Word::AbiVersion, Ordering::Relaxed) == u64::from(ABI_VERSION) {
            return true;
        }
        let is_unread = lock(&self.file, Side::Consumer).is_ok();
        let reads = self.load(Word::ConsumerAbi, Ordering::Acquire);
        let [pid, of] = [Word::ConsumerPid, Word::ConsumerAbiPid].map(|word| self.load(word, Ordering::Relaxed));
        let is_understood = is_unread || (reads >= u64::from(ABI_VERSION) && pid == of);
        if is_understood {
            self.store(Word::AbiVersion, u64::from(ABI_VERSION), Ordering::Release);
        }
        if is_unread {
            drop(unlock(&self.file, Side::Consumer));
        }
        is_understood
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mapping.load(Word::Head, Ordering::Relaxed) == self.mapping.load(Word::Tail, Ordering::Relaxed)
    }

    fn open(path: &Path, side: Option<Side>, access: Access) -> Result<RingFile, OpenError> {
        let file = open_regular(path, access != Access::Inspect)?;
        if let Some(side) = side {
            lock(&file, side).map_err(|error| lock_error(path, &file, side, error))?;
        }
        RingFile::check(path, file, access)
    }

    /// Checks and maps the file.
    pub(super) fn check(path: &Path, file: File, access: Access) -> Result<RingFile, OpenError> {
        let found = file.metadata().map_err(|error| io_error(path, error))?;
        if access == Access::Producer && ![0, geteuid().as_raw()].contains(&found.uid()) {
            return Err(not_a_ring(path, format!("it belongs to user {}", found.uid())));
        }
        let capacity = found.len().saturating_sub(HEADER_SIZE as u64);
        if !layout::is_capacity(capacity) {
            return Err(not_a_ring(path, format!("{} bytes are not 4096 more than a power of two", found.len())));
        }
        let mapping = Mapping::of_file(&file, capacity, access).map_err(|error| io_error(path, error))?;
        let id = check_header(&mapping, capacity, access).map_err(|reason| not_a_ring(path, reason))?;
        Ok(RingFile { file, mapping, id, inode: (found.dev(), found.ino()) })
    }
}

/// Checks the constants in the header, and for a producer the positions from which it continues.
fn check_header(mapping: &Mapping, capacity: u64, access: Access) -> Result<RingId, String> {
    let magic = mapping.header_word(offset_of!(FileHeader, magic));
    let (version, header_size) = (
        layout::low(mapping.header_word(offset_of!(FileHeader, abi_version))),
        layout::high(mapping.header_word(offset_of!(FileHeader, abi_version))),
    );
    if magic != MAGIC {
        return Err(format!("it begins with {magic:#018x}, not with {MAGIC:#018x} (SPOHRING)"));
    }
    if !layout::is_known_version(version) {
        return Err(format!(
            "its ABI version is {version}, this program knows {OLDEST_ABI} to {ABI_VERSION}: update the older side"
        ));
    }
    if header_size != HEADER_SIZE as u32 || mapping.header_word(offset_of!(FileHeader, capacity)) != capacity {
        return Err("the sizes in its header do not fit the size of the file".into());
    }
    let (head, tail) = (mapping.load(Word::Head, Ordering::Relaxed), mapping.load(Word::Tail, Ordering::Relaxed));
    if access == Access::Producer && !layout::positions_are_plausible(head, tail, capacity) {
        return Err(format!("its positions contradict each other (head {head}, tail {tail})"));
    }
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mapping.header_word(offset_of!(FileHeader, id)).to_le_bytes());
    id[8..].copy_from_slice(&mapping.header_word(offset_of!(FileHeader, id) + 8).to_le_bytes());
    Ok(RingId(id))
}

/// Opens the file at `path` if it is a regular file; anything else is not opened at all. If this process may not open it, the
/// opener does, if there is one.
pub(super) fn open_regular(path: &Path, write: bool) -> Result<File, OpenError> {
    let options = OpenOptions::new().read(true).write(write).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).clone();
    let opened = fs::symlink_metadata(path).and_then(|found| found.is_file().then(|| options.open(path)).transpose());
    let opened = match opened {
        // The file or its folder may belong to another user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            opener::open(path).unwrap_or(Err(error)).map(Some)
        }
        opened => opened,
    };
    match opened {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(not_a_ring(path, "not a regular file".into())),
        Err(error) if error.raw_os_error() == Some(opener::NO_RING) => {
            Err(not_a_ring(path, "its size or its header is no ring's".into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::Missing(path.to_owned())),
        Err(error) => Err(io_error(path, error)),
    }
}

pub(super) fn inode(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|found| (found.dev(), found.ino()))
}

/// Whether `path` names the file with this device and inode number.
pub(super) fn names(path: &Path, inode: (u64, u64)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == inode)
}

impl Drop for RingFile {
    /// When it ends in order, a producer removes its pid from the header, and a consumer the version that it reads. A process
    /// that dies cannot do so.
    fn drop(&mut self) {
        let pid = u64::from(std::process::id());
        if self.mapping.is_consumers() && self.mapping.load(Word::ConsumerAbiPid, Ordering::Relaxed) == pid {
            self.mapping.store(Word::ConsumerAbi, 0, Ordering::Relaxed);
        }
        if self.mapping.is_producers() && self.mapping.load(Word::ProducerPid, Ordering::Relaxed) == pid {
            self.mapping.store(Word::FifoPid, 0, Ordering::Relaxed);
            self.mapping.store(Word::ProducerPid, 0, Ordering::Relaxed);
        }
    }
}

impl PictureSource for RingFile {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        self.mapping.lend(range, encode)
    }
}
