//! The shared memory itself. This is the one file with `unsafe` for it.
//!
//! # The rules
//! The language knows nothing of memory that another process writes, so this file keeps to what holds on the machines we build
//! for:
//! 1. Header words and the words of a record are read and written as relaxed or ordered *atomics* of their own size. A hostile
//!    producer can make them any value, but no access is a data race.
//! 2. Nothing is ever read twice and believed to be the same: callers copy a word once and check the copy.
//! 3. Picture bytes are lent as `&[u8]` to the base64 encoder and to nobody else ([`PictureSource::lend`]). A producer that
//!    breaks the protocol may change them meanwhile. The encoder's reads are in bounds whatever the bytes are, it takes no
//!    branch and no index from them that is not masked, and so its output is always base64 of the announced length.
//!    (`tests/ring/hostile_producer.rs` rewrites pictures while they are encoded, under AddressSanitizer.)
//! 4. A file that shrinks under the mapping raises SIGBUS. `guard` maps zeros over the whole mapping and marks it lost; the
//!    faulting instruction then goes on. Whoever read from it asks [`Memory::lost`] afterwards, and throws away what it got.
//! 5. Of a consumer's mapping only the header page is writable.
//!
//! A spooled event's file ([`MappedFile`]) is our own: nobody else writes it, so its bytes are lent to whoever asks. Rule 4 holds
//! for it all the same: flash that cannot be read raises SIGBUS too.
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

/// The memory under a record went away while it was being read: the ring's file was truncated, or a spooled one cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file under the event was truncated, or failed, while it was read")]
pub struct Lost;

/// Where a picture's bytes lie.
pub trait PictureSource {
    /// Gives `encode` the bytes of `range`. It must not keep them, nor take them to be the same twice.
    ///
    /// # Errors
    /// [`Lost`] when the memory went away; what `encode` saw is then not the picture.
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost>;
}

/// What a mapping is for.
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
    /// Where a producer wakes a consumer that sleeps on the FIFO.
    fifo: OnceLock<File>,
}

#[derive(Debug)]
enum Backing {
    /// A mapped file, with its place in the SIGBUS guard's table.
    File { guarded: Option<guard::Slot>, access: Access },
    /// Heap memory, for tests under Miri.
    Heap(Layout),
}

// SAFETY: the memory is reached through atomics (rules 1 and 2) and through `lend`, whose caller may be any thread; the base
// pointer is owned by this value until it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above: every access through a shared reference is atomic, or a lent read under rule 3.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a ring's file of `HEADER_SIZE + capacity` bytes.
    ///
    /// # Errors
    /// What the system says (no memory, a file that cannot be mapped), or no free place in the guard's table.
    pub fn of_file(file: &File, capacity: u64, access: Access) -> io::Result<Mapping> {
        let capacity = usize::try_from(capacity).map_err(io::Error::other)?;
        let length = NonZeroUsize::new(HEADER_SIZE + capacity).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = match access {
            Access::Producer => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            Access::Consumer | Access::Inspect => ProtFlags::PROT_READ,
        };
        // SAFETY: a new mapping at an address of the kernel's choice; it overlaps nothing.
        let base = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0)? };
        let backing = Backing::File { guarded: None, access };
        let mut mapping = Mapping { base: base.cast(), capacity, backing, fifo: OnceLock::new() };
        if access == Access::Consumer {
            // SAFETY: the first page of the mapping just made.
            unsafe { mprotect(base, HEADER_SIZE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)? };
        }
        let slot = guard::watch(base.cast(), length.get())?;
        mapping.backing = Backing::File { guarded: Some(slot), access };
        Ok(mapping)
    }

    /// A zeroed ring memory on the heap, for tests that cannot map a file.
    ///
    /// # Panics
    /// When `capacity` is not a power of two of at least 64 bytes.
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

    /// Writes eight bytes of the header; for who makes the ring.
    pub fn set_header_word(&self, offset: usize, value: u64) {
        assert!(offset < HEADER_SIZE);
        self.atomic64(offset).store(value, Ordering::Relaxed);
    }

    fn atomic64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= HEADER_SIZE + self.capacity);
        // SAFETY: aligned (the base is page-aligned) and inside the mapping (asserted); everyone reaches these bytes
        // atomically (rule 1) for as long as the reference lives, which is no longer than the mapping.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    fn atomic32(&self, word: Word) -> &AtomicU32 {
        debug_assert!(word.is_u32());
        // SAFETY: every `Word` lies inside the header page, aligned to its size (asserted in layout.rs); only as a u32.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(word.offset()).cast()) }
    }

    /// From now on [`Memory::fifo_wake`] writes to this FIFO, which is open for reading too: so nothing waits, and nobody gets SIGPIPE.
    pub(super) fn wake_by(&self, fifo: File) {
        let set = self.fifo.set(fifo);
        debug_assert!(set.is_ok(), "once for each ring");
    }

    /// Whether it is a producer's.
    pub(super) fn is_producers(&self) -> bool {
        matches!(self.backing, Backing::File { access: Access::Producer, .. })
    }

    /// Whether it is a consumer's.
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
        // SAFETY: the word and the timeout outlive the call. Its result does not matter: woken, changed, timed out,
        // interrupted or EFAULT on a truncated file, the caller looks at the ring again.
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
        // SAFETY: the word outlives the call; waking nobody is no error.
        unsafe {
            libc::syscall(libc::SYS_futex, self.atomic32(Word::Publications).as_ptr(), libc::FUTEX_WAKE, i32::MAX);
        }
    }

    fn fifo_wake(&self) {
        if let Some(mut fifo) = self.fifo.get() {
            // Full: the consumer has as many wake-ups to read already.
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
        // SAFETY: inside the mapping (asserted), which lives as long as `self`; what another process may do to the bytes
        // meanwhile is rule 3.
        let bytes = unsafe { slice::from_raw_parts(self.base.as_ptr().add(HEADER_SIZE + range.start), range.len()) };
        encode(bytes);
        if self.lost() { Err(Lost) } else { Ok(()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match &mut self.backing {
            Backing::File { guarded, .. } => {
                drop(guarded.take()); // first: the guard must not know an address that may be somebody else's next
                // SAFETY: the mapping made in `of_file` (or the zeros that the guard put over all of it).
                let unmapped = unsafe { munmap(self.base.cast(), HEADER_SIZE + self.capacity) };
                debug_assert!(unmapped.is_ok());
            }
            // SAFETY: allocated in `on_heap` with this layout.
            Backing::Heap(layout) => unsafe { dealloc(self.base.as_ptr(), *layout) },
        }
    }
}

const _: () = assert!(ALIGN == align_of::<AtomicU64>());

/// A file that only this process knows, mapped to be read: a spooled event.
#[derive(Debug)]
pub struct MappedFile {
    base: NonNull<u8>,
    length: usize,
    guarded: Option<guard::Slot>,
}

// SAFETY: nothing is written through it; the base pointer is owned by this value until it is dropped.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps the whole of `file` as it is now.
    ///
    /// # Errors
    /// `InvalidData` for an empty file; what the system says (no memory), or no free place in the guard's table.
    pub fn of(file: &File) -> io::Result<MappedFile> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: a new mapping at an address of the kernel's choice; it overlaps nothing.
        let base = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0)? };
        let mut mapping = MappedFile { base: base.cast(), length: length.get(), guarded: None };
        mapping.guarded = Some(guard::watch(mapping.base, mapping.length)?);
        Ok(mapping)
    }

    /// Bytes of the file when it was mapped; never 0.
    pub fn size(&self) -> usize {
        self.length
    }
}

impl Words for MappedFile {
    fn word(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset < self.length && self.length - offset >= 8);
        // SAFETY: aligned (the base is page-aligned) and inside the mapping (asserted).
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }.load(Ordering::Relaxed)
    }
}

impl PictureSource for MappedFile {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: inside the mapping (asserted), which lives as long as `self`; nobody writes the file any more.
        encode(unsafe { slice::from_raw_parts(self.base.as_ptr().add(range.start), range.len()) });
        if self.guarded.as_ref().is_some_and(guard::Slot::is_lost) { Err(Lost) } else { Ok(()) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        drop(self.guarded.take()); // first, as for `Mapping`
        // SAFETY: the mapping made in `of` (or the zeros that the guard put over all of it).
        let unmapped = unsafe { munmap(self.base.cast(), self.length) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The SIGBUS guard (rule 4): a table of mappings that a signal handler may read at any moment.
mod guard {
    use std::io;
    use std::ptr::NonNull;
    use std::sync::Once;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    /// More rings than a box has; test processes make some too.
    const SLOTS: usize = 256;

    /// A mapping that the handler may replace. `base` is 0 while the place is free and 1 while it is being filled in.
    struct Entry {
        base: AtomicUsize,
        length: AtomicUsize,
        lost: AtomicBool,
    }

    static TABLE: [Entry; SLOTS] =
        [const { Entry { base: AtomicUsize::new(0), length: AtomicUsize::new(0), lost: AtomicBool::new(false) } };
            SLOTS];

    /// Who handled SIGBUS before us (the Rust runtime's stack guard), for faults that are not ours. Written once, before our
    /// handler is in place.
    static PREVIOUS: std::sync::OnceLock<SigAction> = std::sync::OnceLock::new();

    /// A place in the table, given back when dropped.
    #[derive(Debug)]
    pub struct Slot(usize);

    impl Slot {
        /// Whether the mapping was replaced by zeros.
        pub fn is_lost(&self) -> bool {
            TABLE[self.0].lost.load(Ordering::Acquire)
        }
    }

    impl Drop for Slot {
        fn drop(&mut self) {
            TABLE[self.0].base.store(0, Ordering::Release);
        }
    }

    /// Watches over `length` bytes from `base`, a mapping of the caller's.
    pub fn watch(base: NonNull<u8>, length: usize) -> io::Result<Slot> {
        install()?;
        let free = TABLE
            .iter()
            .position(|entry| entry.base.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok())
            .ok_or_else(|| io::Error::other("too many rings and spooled events are mapped in this process"))?;
        TABLE[free].lost.store(false, Ordering::Relaxed);
        TABLE[free].length.store(length, Ordering::Relaxed);
        TABLE[free].base.store(base.as_ptr() as usize, Ordering::Release);
        Ok(Slot(free))
    }

    fn install() -> io::Result<()> {
        static INSTALL: Once = Once::new();
        let mut result = Ok(());
        INSTALL.call_once(|| {
            let ours = SigAction::new(
                SigHandler::SigAction(on_sigbus),
                SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER,
                SigSet::empty(),
            );
            // SAFETY: the handler keeps to async-signal-safe calls (see there).
            match unsafe { sigaction(Signal::SIGBUS, &ours) } {
                Ok(previous) => drop(PREVIOUS.set(previous)),
                Err(error) => result = Err(error.into()),
            }
        });
        result
    }

    /// Runs in the thread that touched the missing page. Only atomics, `mmap` and `sigaction`: all async-signal-safe.
    extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler; SIGBUS fills in the address.
        let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
        if code <= 0 {
            return; // sent by a process: nothing faulted, and the guard stays in place
        }
        let ours = TABLE.iter().find(|entry| {
            let base = entry.base.load(Ordering::Acquire);
            base > 1 && address.wrapping_sub(base) < entry.length.load(Ordering::Relaxed)
        });
        if !ours.is_some_and(replace_by_zeros) {
            hand_on();
        }
    }

    fn replace_by_zeros(entry: &Entry) -> bool {
        entry.lost.store(true, Ordering::Release);
        let base = entry.base.load(Ordering::Relaxed) as *mut libc::c_void;
        let length = entry.length.load(Ordering::Relaxed);
        // SAFETY: replaces a mapping of ours, whole, by zeros: its owner keeps it mapped until its slot is given back.
        let mapped = unsafe {
            libc::mmap(
                base,
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        mapped == base
    }

    /// Puts the previous handler back; the instruction faults again and it gets its turn.
    fn hand_on() {
        match PREVIOUS.get() {
            // SAFETY: an action that was in force before.
            Some(previous) => drop(unsafe { sigaction(Signal::SIGBUS, previous) }),
            // SAFETY: the default action; no handler runs any more.
            None => drop(unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) }),
        }
    }
}
