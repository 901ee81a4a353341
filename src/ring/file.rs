//! The file around the ring, and who may use it.
//!
//! A lock is an open file description lock on one byte, so the kernel ends it with its owner: a dead producer or consumer is
//! proved dead, never guessed from a timeout or a pid. The pids in the header only make messages readable.
//!
//! The consumer only ever opens it; the producer makes it, takes it over, replaces it or sets it aside ([`super::create`]).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::geteuid;

use super::layout::{
    self, ABI_VERSION, CONSUMER_LOCK, FileHeader, HEADER_SIZE, MAGIC, OLDEST_ABI, PRODUCER_LOCK, Word,
};
use super::mapping::{Access, Lost, Mapping, PictureSource};
use super::{Memory, opener};

/// Why a ring cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing there yet: the recognizer has not made it.
    #[error("there is no ring at {0} yet")]
    Missing(PathBuf),
    /// Something else is there.
    #[error("{path} is not a usable ring: {reason}")]
    NotARing {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The same side of the ring is in use by a living process.
    #[error("{path} is in use by another {side}, process {pid}; stop that one first")]
    Busy {
        /// The file.
        path: PathBuf,
        /// "producer" or "consumer".
        side: &'static str,
        /// As the other wrote it into the header.
        pid: u32,
        /// Of the file: device and number.
        inode: (u64, u64),
    },
    /// This process holds it itself.
    #[error("{path} is {what}")]
    Ours {
        /// The file.
        path: PathBuf,
        /// Why that is, and what to do.
        what: String,
    },
    /// What the system said.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Permission, memory, ...
        source: io::Error,
    },
}

/// What makes a ring's events unlike every other ring's ([`super::identity`]).
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

/// A ring's file, open, mapped and checked. Dropping it ends the lock.
#[derive(Debug)]
pub struct RingFile {
    /// Holds the lock.
    pub(super) file: File,
    pub(super) mapping: Mapping,
    /// From the header.
    pub id: RingId,
    pub(super) inode: (u64, u64),
}

/// Whether somebody holds a side of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The recognizer's.
    Producer,
    /// The uplink's.
    Consumer,
}

impl Side {
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

    fn pid_word(self) -> Word {
        match self {
            Side::Producer => Word::ProducerPid,
            Side::Consumer => Word::ConsumerPid,
        }
    }
}

/// What the path of a ring that is open names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The ring itself.
    This,
    /// Another file: the ring was replaced.
    Another,
    /// Nothing: the ring's name was removed.
    Nothing,
}

/// The file is its memory: whoever holds it (and so the lock) may use the ring.
impl Deref for RingFile {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.mapping
    }
}

impl RingFile {
    /// Opens the ring at `path` to consume it, and locks the consumer's side.
    ///
    /// # Errors
    /// Every [`OpenError`].
    pub fn open_consumer(path: &Path) -> Result<RingFile, OpenError> {
        let ring = RingFile::open(path, Some(Side::Consumer), Access::Consumer)?;
        let pid = u64::from(std::process::id());
        ring.mapping.store(Word::ConsumerPid, pid, Ordering::Relaxed);
        ring.mapping.store(Word::ConsumerAbiPid, pid, Ordering::Relaxed);
        // Release: who sees this version sees whose it is.
        ring.mapping.store(Word::ConsumerAbi, u64::from(ABI_VERSION), Ordering::Release);
        Ok(ring)
    }

    /// Opens the ring at `path` to look at it: takes no lock, writes nothing.
    ///
    /// # Errors
    /// As [`RingFile::open_consumer`], but never [`OpenError::Busy`].
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
            // In a folder that is for others.
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
            Err(_) => Naming::This, // nobody knows: nothing is done about it
        }
    }

    /// Of the file: device and number.
    pub fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// The number of the user whose file it is; root's, where that cannot be found out.
    pub fn owner(&self) -> u32 {
        self.file.metadata().map_or(0, |found| found.uid())
    }

    /// Whether its last producer closed it in order, as far as it says: one that died did not.
    pub fn was_closed(&self) -> bool {
        self.mapping.load(Word::ProducerPid, Ordering::Relaxed) == 0
    }

    /// The pid of who holds `side`, as it wrote it into the header; none when nobody does.
    pub fn holder(&self, side: Side) -> Option<u32> {
        let mut range = side.lock_range(libc::F_WRLCK);
        let asked = fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut range));
        (asked.is_ok() && i32::from(range.l_type) != libc::F_UNLCK)
            .then(|| self.mapping.load(side.pid_word(), Ordering::Relaxed) as u32)
    }

    /// Makes the ring, whose producer this is, one of the newest version, and says whether it is one now: not while a consumer reads it
    /// that knows only an older one. The consumer's lock is held meanwhile where it is free, so that no such one can attach between the
    /// look and the change.
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

    /// Maps the file, if it is a ring.
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

/// The header's constants, and (for who goes on from them) its positions.
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

/// Opens what is at `path` if it is a regular file; anything else is not even opened. What this process may not open, the opener
/// does where there is one.
pub(super) fn open_regular(path: &Path, write: bool) -> Result<File, OpenError> {
    let options = OpenOptions::new().read(true).write(write).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).clone();
    let opened = fs::symlink_metadata(path).and_then(|found| found.is_file().then(|| options.open(path)).transpose());
    let opened = match opened {
        // The file may be for others, and so may the folder that it is in.
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

/// Why `side` was not locked: somebody holds it (its pid is what it wrote into the header), or the system's reason.
pub(super) fn lock_error(path: &Path, file: &File, side: Side, error: io::Error) -> OpenError {
    if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
        return io_error(path, error);
    }
    let mut pid = [0; 4];
    let read = file.read_exact_at(&mut pid, side.pid_word().offset() as u64);
    let pid = read.map_or(0, |()| u32::from_le_bytes(pid));
    OpenError::Busy { path: path.to_owned(), side: side.name(), pid, inode: inode(file).unwrap_or_default() }
}

pub(super) fn inode(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|found| (found.dev(), found.ino()))
}

/// Whether `path` names the file with this inode.
pub(super) fn names(path: &Path, inode: (u64, u64)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == inode)
}

pub(super) fn lock(file: &File, side: Side) -> io::Result<()> {
    Ok(fcntl(file, FcntlArg::F_OFD_SETLK(&side.lock_range(libc::F_WRLCK))).map(drop)?)
}

pub(super) fn unlock(file: &File, side: Side) -> io::Result<()> {
    Ok(fcntl(file, FcntlArg::F_OFD_SETLK(&side.lock_range(libc::F_UNLCK))).map(drop)?)
}

pub(super) fn not_a_ring(path: &Path, reason: String) -> OpenError {
    OpenError::NotARing { path: path.to_owned(), reason }
}

/// What the system said, and whose file it is where it denies it: /dev/shm lets nobody but the owner and root remove it.
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

impl Drop for RingFile {
    /// A producer that ends in order takes its pid out of the header, a consumer the version that it reads; one that dies cannot.
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
