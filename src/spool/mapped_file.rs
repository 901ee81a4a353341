//! A spooled event's file in memory.
//!
//! Only this process writes such a file, and not while it is mapped. So its bytes may be lent to any caller. Flash that cannot be
//! read raises SIGBUS, too: [`sigbus`] handles it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::picture::{Lost, PictureSource};
use crate::ring::Words;
use crate::sigbus;

/// A file of this process only, mapped for reading: a spooled event.
#[derive(Debug)]
pub struct MappedFile {
    base: NonNull<u8>,
    length: usize,
    guarded: Option<sigbus::Watched>,
}

// SAFETY: nothing is written through it; this value owns the base pointer until it is dropped.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps the whole of `file`, at its current size.
    ///
    /// # Errors
    /// `InvalidData` for an empty file; an error of the system (no memory), or no free slot in the guard's table.
    pub fn of(file: &File) -> io::Result<MappedFile> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: a new mapping at an address that the kernel chooses; it overlaps nothing.
        let base = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0)? };
        let mut mapping = MappedFile { base: base.cast(), length: length.get(), guarded: None };
        mapping.guarded = Some(sigbus::watch(mapping.base, mapping.length)?);
        Ok(mapping)
    }

    /// The size of the file when it was mapped, in bytes; never 0.
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
        // SAFETY: inside the mapping (asserted), which lives as long as `self`; the file is not written any more.
        encode(unsafe { slice::from_raw_parts(self.base.as_ptr().add(range.start), range.len()) });
        if self.guarded.as_ref().is_some_and(sigbus::Watched::is_lost) { Err(Lost) } else { Ok(()) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        drop(self.guarded.take()); // first, as for `Mapping`
        // SAFETY: the mapping from `of` (or the zeros that the guard mapped over all of it).
        let unmapped = unsafe { munmap(self.base.cast(), self.length) };
        debug_assert!(unmapped.is_ok());
    }
}
