//! The shared memory itself. This is the only file with `unsafe` for it.
//!
//! # The rules
//! The language does not define memory that another process writes. So this file relies only on what holds on our target
//! machines:
//! 1. Header words and the words of a record are read and written as relaxed or ordered *atomics* of their own size. A hostile
//!    producer can set them to any value, but no access is a data race.
//! 2. No word is read twice under the assumption that it is unchanged: callers copy a word once and check the copy.
//! 3. Picture bytes are lent as `&[u8]` only to the base64 encoder ([`PictureSource::lend`]). A producer that violates the
//!    protocol may change them meanwhile. The encoder's reads are in bounds whatever the bytes are, no branch and no unmasked
//!    index depends on them, and so its output is always base64 of the announced length. (`tests/ring/hostile_producer.rs`
//!    rewrites pictures while they are encoded, under AddressSanitizer.)
//! 4. If a file shrinks under its mapping, an access raises SIGBUS. [`sigbus`] then maps zeros over the whole mapping and marks
//!    it as lost, and the faulting instruction goes on. A reader checks [`Memory::lost`] afterwards, and discards what it has
//!    read.
//! 5. In a consumer's mapping only the header page is writable.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap};

use super::layout::{ALIGN, HEADER_SIZE, Word};
use super::{Memory, Words};
use crate::picture::{Lost, PictureSource};
use crate::sigbus;

/// The purpose of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Writes the whole file.
    Producer,
    /// Writes the header page, reads the data.
    Consumer,
    /// Writes nothing.
    Inspect,
}

/// A ring's memory: the header page and the data area after it.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    capacity: usize,
    backing: Backing,
    /// The FIFO by which a producer wakes a consumer.
    fifo: OnceLock<File>,
}

#[derive(Debug)]
enum Backing {
    /// A mapped file, with its slot in the SIGBUS guard's table.
    File { guarded: Option<sigbus::Watched>, access: Access },
    /// Heap memory, for tests under Miri.
    Heap(Layout),
}

// SAFETY: the memory is accessed through atomics (rules 1 and 2) and through `lend`, whose caller may be any thread. This value
// owns the base pointer until it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above: every access through a shared reference is atomic, or a lent read under rule 3.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a ring's file of `HEADER_SIZE + capacity` bytes.
    ///
    /// # Errors
    /// An error of the system (no memory, a file that cannot be mapped), or no free slot in the guard's table.
    pub fn of_file(file: &File, capacity: u64, access: Access) -> io::Result<Mapping> {
        let capacity = usize::try_from(capacity).map_err(io::Error::other)?;
        let length = NonZeroUsize::new(HEADER_SIZE + capacity).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = match access {
            Access::Producer => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            Access::Consumer | Access::Inspect => ProtFlags::PROT_READ,
        };
        // SAFETY: a new mapping at an address that the kernel chooses; it overlaps nothing.
        let base = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0)? };
        let backing = Backing::File { guarded: None, access };
        let mut mapping = Mapping { base: base.cast(), capacity, backing, fifo: OnceLock::new() };
        if access == Access::Consumer {
            // SAFETY: the first page of the mapping that was just created.
            unsafe { mprotect(base, HEADER_SIZE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)? };
        }
        let slot = sigbus::watch(base.cast(), length.get())?;
        mapping.backing = Backing::File { guarded: Some(slot), access };
        Ok(mapping)
    }

    /// Zeroed memory for a ring on the heap, for tests that cannot map a file.
    ///
    /// # Panics
    /// If `capacity` is not a power of two of at least 64 bytes.
    pub fn on_heap(capacity: usize) -> Mapping {
        assert!(capacity.is_power_of_two() && capacity >= 64);
        let layout = Layout::from_size_align(HEADER_SIZE + capacity, HEADER_SIZE).expect("a small power of two");
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Mapping { base, capacity, backing: Backing::Heap(layout), fifo: OnceLock::new() }
    }

    /// The eight bytes of the header at `offset`, a multiple of 8.
    pub fn header_word(&self, offset: usize) -> u64 {
        assert!(offset < HEADER_SIZE);
        self.atomic64(offset).load(Ordering::Relaxed)
    }

    /// Writes eight bytes of the header; only for the creator of the ring.
    pub fn set_header_word(&self, offset: usize, value: u64) {
        assert!(offset < HEADER_SIZE);
        self.atomic64(offset).store(value, Ordering::Relaxed);
    }

    fn atomic64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= HEADER_SIZE + self.capacity);
        // SAFETY: aligned (the base is page-aligned) and inside the mapping (asserted). All accesses to these bytes are atomic
        // (rule 1) while the reference lives, which is no longer than the mapping.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    fn atomic32(&self, word: Word) -> &AtomicU32 {
        debug_assert!(word.is_u32());
        // SAFETY: every `Word` is inside the header page and aligned to its size (asserted in layout.rs); it is accessed only as
        // a u32.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(word.offset()).cast()) }
    }

    /// Sets the FIFO for [`Memory::fifo_wake`]. It is open for reading too, so a write neither waits nor raises SIGPIPE.
    pub(super) fn wake_by(&self, fifo: File) {
        let set = self.fifo.set(fifo);
        debug_assert!(set.is_ok(), "once for each ring");
    }

    /// Whether it is the mapping of a producer.
    pub(super) fn is_producers(&self) -> bool {
        matches!(self.backing, Backing::File { access: Access::Producer, .. })
    }

    /// Whether it is the mapping of a consumer.
    pub(super) fn is_consumers(&self) -> bool {
        matches!(self.backing, Backing::File { access: Access::Consumer, .. })
    }

    fn writable(&self) -> bool {
        !matches!(self.backing, Backing::File { access: Access::Inspect, .. })
    }
}

impl Words for Mapping {
    fn word(&self, offset: usize) -> u64 {
        assert!(offset < self.capacity);
        self.atomic64(HEADER_SIZE + offset).load(Ordering::Relaxed)
    }
}

impl Memory for Mapping {
    fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    fn load(&self, word: Word, order: Ordering) -> u64 {
        if word.is_u32() {
            u64::from(self.atomic32(word).load(order))
        } else {
            self.atomic64(word.offset()).load(order)
        }
    }

    fn store(&self, word: Word, value: u64, order: Ordering) {
        assert!(self.writable());
        if word.is_u32() {
            self.atomic32(word).store(value as u32, order);
        } else {
            self.atomic64(word.offset()).store(value, order);
        }
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn set_word(&self, offset: usize, value: u64) {
        assert!(offset < self.capacity && !matches!(self.backing, Backing::File { access: Access::Consumer, .. }));
        self.atomic64(HEADER_SIZE + offset).store(value, Ordering::Relaxed);
    }

    fn futex_wait(&self, expected: u32, timeout: Duration) {
        let timeout = nix::sys::time::TimeSpec::from_duration(timeout);
        // SAFETY: the word and the timeout outlive the call. The result does not matter: whether woken, changed, timed out,
        // interrupted or EFAULT on a truncated file, the caller checks the ring again.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.atomic32(Word::Publications).as_ptr(),
                libc::FUTEX_WAIT,
                expected,
                std::ptr::from_ref(timeout.as_ref()),
            );
        }
    }

    fn futex_wake(&self) {
        // SAFETY: the word outlives the call; it is no error if no one waits.
        unsafe {
            libc::syscall(libc::SYS_futex, self.atomic32(Word::Publications).as_ptr(), libc::FUTEX_WAKE, i32::MAX);
        }
    }

    fn fifo_wake(&self) {
        if let Some(mut fifo) = self.fifo.get() {
            // Full: there are enough wake-ups for the consumer to read already.
            let _full = fifo.write(&[0]);
        }
    }

    fn lost(&self) -> bool {
        matches!(&self.backing, Backing::File { guarded: Some(slot), .. } if slot.is_lost())
    }
}

impl PictureSource for Mapping {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        assert!(range.start <= range.end && range.end <= self.capacity);
        // SAFETY: inside the mapping (asserted), which lives as long as `self`. Rule 3 covers what another process may do to the
        // bytes meanwhile.
        let bytes = unsafe { slice::from_raw_parts(self.base.as_ptr().add(HEADER_SIZE + range.start), range.len()) };
        encode(bytes);
        if self.lost() { Err(Lost) } else { Ok(()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match &mut self.backing {
            Backing::File { guarded, .. } => {
                drop(guarded.take()); // first: the guard must forget the address before it can be reused
                // SAFETY: the mapping from `of_file` (or the zeros that the guard mapped over all of it).
                let unmapped = unsafe { munmap(self.base.cast(), HEADER_SIZE + self.capacity) };
                debug_assert!(unmapped.is_ok());
            }
            // SAFETY: allocated in `on_heap` with this layout.
            Backing::Heap(layout) => unsafe { dealloc(self.base.as_ptr(), *layout) },
        }
    }
}

const _: () = assert!(ALIGN == align_of::<AtomicU64>());
