//! Making a ring: what a recognizer does with what it finds at the path, by the table in docs/ring-abi.md. A ring is made complete under
//! another name and then given its own, so that nobody ever sees half of one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::Memory;
use super::file::{
    OpenError, RingFile, RingId, Side, inode, io_error, lock, lock_error, names, not_a_ring, open_regular,
};
use super::layout::{self, ABI_VERSION, FileHeader, HEADER_SIZE, MAGIC, Word};
use super::mapping::{Access, Mapping};

/// How often a producer looks again because another one was faster.
const TRIES: usize = 100;

impl RingFile {
    /// Makes the ring at `path`, or takes over the one there, as the producer. `capacity` as in
    /// [`layout::is_capacity`].
    ///
    /// # Errors
    /// As [`RingFile::open_consumer`]; a capacity out of range is [`OpenError::NotARing`].
    pub fn open_producer(path: &Path, capacity: u64) -> Result<RingFile, OpenError> {
        if !layout::is_capacity(capacity) {
            return Err(not_a_ring(path, format!("capacity {capacity} is not a power of two from 64 KiB to 1 GiB")));
        }
        for _ in 0..TRIES {
            if let Some(ring) = RingFile::try_open_producer(path, capacity)? {
                return Ok(ring);
            }
        }
        Err(OpenError::Busy { path: path.to_owned(), side: Side::Producer.name(), pid: 0 })
    }

    /// One try at the table of "Making, taking over, replacing"; none where another process was faster.
    fn try_open_producer(path: &Path, capacity: u64) -> Result<Option<RingFile>, OpenError> {
        let file = match open_regular(path, true) {
            Ok(file) => file,
            Err(OpenError::Missing(_)) => {
                return RingFile::make(path, capacity, |fresh| {
                    let linked = fs::hard_link(fresh, path);
                    fs::remove_file(fresh)?;
                    linked
                });
            }
            Err(error) => return Err(error),
        };
        lock(&file, Side::Producer).map_err(|error| lock_error(path, &file, Side::Producer, error))?;
        if !names(path, inode(&file).map_err(|error| io_error(path, error))?) {
            return Ok(None); // replaced between open and lock
        }
        // From here on the lock is the right to change the name.
        let kept = file.try_clone().map_err(|error| io_error(path, error))?;
        match RingFile::check(path, file, Access::Producer) {
            Ok(ring) if ring.mapping.capacity() == capacity || !ring.is_empty() => {
                let fresh = suffixed(path, ".new");
                if ring.is_at(&fresh) {
                    fs::remove_file(&fresh).map_err(|error| io_error(path, error))?; // its maker died between the names
                }
                allocate(&kept, HEADER_SIZE as u64 + ring.mapping.capacity()).map_err(|error| io_error(path, error))?;
                ring.mapping.store(Word::ProducerPid, u64::from(std::process::id()), Ordering::Relaxed);
                Ok(Some(ring))
            }
            Ok(_old_and_locked) => RingFile::make(path, capacity, |fresh| fs::rename(fresh, path)),
            Err(OpenError::NotARing { .. }) => {
                fs::rename(path, suffixed(path, ".bad")).map_err(|error| io_error(path, error))?;
                drop(kept);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a ring as `PATH.new`, locked and complete, and lets `name_it` give it its name. None where another was faster.
    fn make(
        path: &Path,
        capacity: u64,
        name_it: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<Option<RingFile>, OpenError> {
        let fresh = suffixed(path, ".new");
        let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&fresh) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // One is being made at this moment, or somebody was killed while making one: away with it.
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
        // Between its making and its lock another may have taken it for a dead one's.
        if lock(&file, Side::Producer).is_err() {
            return Ok(None);
        }
        let ring = match RingFile::fill(file, capacity) {
            Ok(ring) if ring.is_at(&fresh) => ring,
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

    /// Makes the new, locked file an empty ring.
    fn fill(file: File, capacity: u64) -> io::Result<RingFile> {
        allocate(&file, HEADER_SIZE as u64 + capacity)?;
        let mapping = Mapping::of_file(&file, capacity, Access::Producer)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let (id_low, id_high) = id.split_at(8);
        mapping.set_header_word(offset_of!(FileHeader, magic), MAGIC);
        mapping.set_header_word(offset_of!(FileHeader, abi_version), layout::pack(ABI_VERSION, HEADER_SIZE as u32));
        mapping.set_header_word(offset_of!(FileHeader, capacity), capacity);
        mapping.set_header_word(offset_of!(FileHeader, id), u64::from_le_bytes(id_low.try_into().expect("8 bytes")));
        mapping
            .set_header_word(offset_of!(FileHeader, id) + 8, u64::from_le_bytes(id_high.try_into().expect("8 bytes")));
        mapping.store(Word::ProducerPid, u64::from(std::process::id()), Ordering::Relaxed);
        let found = file.metadata()?;
        Ok(RingFile { file, mapping, id: RingId(id), inode: (found.dev(), found.ino()) })
    }
}

/// Gives the file its size with pages behind it: a full tmpfs must be an error here, not a SIGBUS later.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, size as libc::off_t) {
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return file.set_len(size),
            result => return Ok(result?),
        }
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
