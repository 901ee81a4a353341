//! Creates rings: what a recognizer does with the file that it finds at the path, by the table in docs/ring-abi.md, and what it
//! does if its ring's name is removed. A ring is completed under another name before it gets its own, so no process ever sees an
//! incomplete ring.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::file::{Naming, OpenError, RingFile, RingId, inode, names, open_regular};
use super::identity;
use super::layout::{self, FileHeader, HEADER_SIZE, MAGIC, OLDEST_ABI, Word};
use super::lock::{Side, lock, lock_error, unlock};
use super::mapping::{Access, Mapping};
use super::open_error::{io_error, not_a_ring};
use super::{Memory, Words as _, fifo};

/// How often a producer tries again after another process was faster.
const TRIES: usize = 100;

impl RingFile {
    /// Creates the ring at `path` as the producer, or takes over the one there. For `capacity` see [`layout::is_capacity`].
    ///
    /// # Errors
    /// Like [`RingFile::open_consumer`]; a capacity out of range is [`OpenError::NotARing`].
    pub fn open_producer(path: &Path, capacity: u64) -> Result<RingFile, OpenError> {
        if !layout::is_capacity(capacity) {
            return Err(not_a_ring(path, format!("capacity {capacity} is not a power of two from 64 KiB to 1 GiB")));
        }
        for _ in 0..TRIES {
            if let Some(ring) = RingFile::try_open_producer(path, capacity)? {
                fifo::offer(&ring, path);
                return Ok(ring);
            }
        }
        Err(OpenError::Busy { path: path.to_owned(), side: Side::Producer.name(), pid: 0, inode: (0, 0) })
    }

    /// One attempt at the table of "Making, taking over, replacing"; none if another process was faster.
    fn try_open_producer(path: &Path, capacity: u64) -> Result<Option<RingFile>, OpenError> {
        let file = match open_regular(path, true) {
            Ok(file) => file,
            Err(OpenError::Missing(_)) => {
                return RingFile::make(path, capacity, None, |fresh| link(fresh, path));
            }
            Err(error) => return Err(error),
        };
        lock(&file, Side::Producer).map_err(|error| lock_error(path, &file, Side::Producer, error))?;
        if !names(path, inode(&file).map_err(|error| io_error(path, error))?) {
            return Ok(None); // the file was replaced between open and lock
        }
        // From here on the holder of the lock may change the name.
        let kept = file.try_clone().map_err(|error| io_error(path, error))?;
        match RingFile::check(path, file, Access::Producer) {
            Ok(ring) if ring.mapping.capacity() == capacity || !ring.is_empty() => {
                let fresh = suffixed(path, ".new");
                if ring.is_at(&fresh) {
                    fs::remove_file(&fresh).map_err(|error| io_error(path, error))?; // its creator died before it removed this name
                }
                allocate(&kept, HEADER_SIZE as u64 + ring.mapping.capacity()).map_err(|error| io_error(path, error))?;
                ring.mapping.store(Word::ProducerPid, u64::from(std::process::id()), Ordering::Relaxed);
                Ok(Some(ring))
            }
            Ok(_old_and_locked) => RingFile::make(path, capacity, None, |fresh| fs::rename(fresh, path)),
            Err(OpenError::NotARing { .. }) => {
                fs::rename(path, suffixed(path, ".bad")).map_err(|error| io_error(path, error))?;
                drop(kept);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The ring to go on with after the name of this one was removed: a new ring; none if the name is still there, or no new ring
    /// can be made. A consumer that has the old ring locked reads it to its end. If there is none, nothing else ever will: then
    /// the unread events move to the new ring, under the same ids.
    pub(super) fn renewed(&self, path: &Path, folder: (u64, u64)) -> Result<Option<RingFile>, OpenError> {
        let is_removed = self.file.metadata().is_ok_and(|found| found.nlink() == 0);
        if !is_removed || self.naming(path) != Naming::Nothing || folder_of(path) != Some(folder) {
            return Ok(None); // or the path leads to another folder now: the process has changed its root or working folder
        }
        let heir_of = lock(&self.file, Side::Consumer).is_ok().then_some(self);
        let made = RingFile::make(path, self.mapping.capacity(), heir_of, |fresh| link(fresh, path));
        match &made {
            Ok(Some(made)) => {
                made.store(Word::Dropped, self.load(Word::Dropped, Ordering::Relaxed), Ordering::Relaxed);
                fifo::offer(made, path);
            }
            _ if heir_of.is_some() => drop(unlock(&self.file, Side::Consumer)), // the name may come back
            _ => {}
        }
        made
    }

    /// Continues `old`: takes over its id and its unread events.
    fn inherit(&mut self, old: &RingFile) {
        let [head, tail] = [Word::Head, Word::Tail].map(|word| old.load(word, Ordering::Acquire));
        let capacity = self.capacity();
        let tail = if layout::positions_are_plausible(head, tail, capacity) { tail } else { head };
        for position in (0..head.wrapping_sub(tail)).step_by(layout::ALIGN) {
            let offset = (tail.wrapping_add(position) & (capacity - 1)) as usize;
            self.set_word(offset, old.word(offset));
        }
        self.set_id(old.id);
        self.store(Word::Tail, tail, Ordering::Relaxed);
        self.store(Word::Head, head, Ordering::Relaxed);
        for word in [Word::AbiVersion, Word::Sequence, Word::Publications, Word::Consumed] {
            self.store(word, old.load(word, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn set_id(&mut self, id: RingId) {
        let (low, high) = id.0.split_at(8);
        for (at, half) in [low, high].into_iter().enumerate() {
            let word = u64::from_le_bytes(half.try_into().expect("8 bytes"));
            self.mapping.set_header_word(offset_of!(FileHeader, id) + 8 * at, word);
        }
        self.id = id;
    }

    /// Creates a ring as `PATH.new`, locked and complete, and calls `name_it` to give it its name. None if another process was
    /// faster.
    fn make(
        path: &Path,
        capacity: u64,
        heir_of: Option<&RingFile>,
        name_it: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<Option<RingFile>, OpenError> {
        let fresh = suffixed(path, ".new");
        let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&fresh) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Another process is creating one just now, or was killed while creating one: then remove it.
                let leftover = match open_regular(&fresh, true) {
                    Err(OpenError::Missing(_)) => return Ok(None),
                    opened => opened?,
                };
                lock(&leftover, Side::Producer).map_err(|error| lock_error(path, &leftover, Side::Producer, error))?;
                if names(&fresh, inode(&leftover).map_err(|error| io_error(path, error))?) {
                    fs::remove_file(&fresh).map_err(|error| io_error(path, error))?;
                }
                return Ok(None);
            }
            Err(error) => return Err(io_error(path, error)),
        };
        // Before it was locked, another process may have taken it for that of a dead process.
        if lock(&file, Side::Producer).is_err() {
            return Ok(None);
        }
        let ring = match RingFile::fill(file, capacity) {
            Ok(mut ring) if ring.is_at(&fresh) => {
                heir_of.into_iter().for_each(|old| ring.inherit(old));
                ring
            }
            Ok(_taken_for_dead) => return Ok(None),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                return Err(io_error(path, error));
            }
        };
        match name_it(&fresh) {
            Ok(()) => Ok(Some(ring)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(io_error(path, error))
            }
        }
    }

    /// Turns the new, locked file into an empty ring.
    fn fill(file: File, capacity: u64) -> io::Result<RingFile> {
        allocate(&file, HEADER_SIZE as u64 + capacity)?;
        let mapping = Mapping::of_file(&file, capacity, Access::Producer)?;
        let found = file.metadata()?;
        let inode = (found.dev(), found.ino());
        mapping.set_header_word(offset_of!(FileHeader, magic), MAGIC);
        mapping.set_header_word(offset_of!(FileHeader, abi_version), layout::pack(OLDEST_ABI, HEADER_SIZE as u32));
        mapping.set_header_word(offset_of!(FileHeader, capacity), capacity);
        mapping.store(Word::ProducerPid, u64::from(std::process::id()), Ordering::Relaxed);
        let mut ring = RingFile { file, mapping, id: RingId([0; 16]), inode };
        ring.set_id(identity::new_id(inode));
        Ok(ring)
    }
}

/// Gives `fresh` the name `path`, if that name is free.
fn link(fresh: &Path, path: &Path) -> io::Result<()> {
    let linked = fs::hard_link(fresh, path);
    fs::remove_file(fresh)?;
    linked
}

/// The folder of `path`, as device and inode number.
pub(super) fn folder_of(path: &Path) -> Option<(u64, u64)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()))
}

/// Gives the file its size with memory allocated: a full tmpfs must fail here, and not cause a SIGBUS later.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, size as libc::off_t) {
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return file.set_len(size),
            result => return Ok(result?),
        }
    }
}

/// `path` with `suffix` appended to its last name.
pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
