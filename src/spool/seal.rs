//! Sealing: sealed files on the flash show neither faces nor names, and changes to them are detected.
//!
//! It uses STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015) in the form of the age file format: the record is divided
//! into chunks of [`CHUNK`] bytes, and each chunk is sealed with ChaCha20-Poly1305 under the file's own key.
//!
//! ```text
//!  file key = HKDF-SHA-256(secret: the key, salt: 32 random bytes, info: "sophon-uplink spool file 2" + the file's head)
//!  nonce    = the chunk's number (11 bytes, big-endian) + 1 for the last chunk, 0 for another one
//! ```
//!
//! - No nonce is used twice under one key, even after a power cut: each file has its own key, from 256 bits of the kernel's
//!   random source, and is written once. No state is needed for this.
//! - The key depends on the head: a file with a changed head cannot be opened. A chunk that was changed, moved, repeated or taken
//!   from another file cannot be opened either. The same holds for a file that was truncated after a whole chunk: its head has
//!   another length, and its last chunk is not marked.
//! - ChaCha20-Poly1305 instead of AES-GCM: not every Cortex-A53 has the AES instructions, and without them AES costs several
//!   times as much. ChaCha20 costs the same on each, in constant time. `ring` is in the binary for TLS anyway.
//! - Chunks are small, so an upload holds at most 64 KiB of an event in clear, however large its pictures are: the encoder reads
//!   48 KiB at once, which are in four chunks. The chunks are dropped when the body is complete, because an
//!   upload may wait long for its answer.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::ring::aead::{Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce};

use super::disk::Mapped;
use crate::picture::{Lost, PictureSource};
use crate::ring::Words;
use crate::ring::layout::ALIGN;

/// How many bytes of the record a chunk has. The last one may have fewer.
pub const CHUNK: usize = 16 * 1024;
/// How many bytes sealing adds to each chunk.
pub const TAG: usize = MAX_TAG_LEN;

/// The size of a sealed record of `length` bytes.
pub const fn sealed_len(length: u64) -> u64 {
    length + length.div_ceil(CHUNK as u64) * TAG as u64
}

/// The key of one file.
pub struct FileKey(pub(super) LessSafeKey);

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKey")
    }
}

impl FileKey {
    /// Seals the chunk at the end of `buffer`, from `from`, in place, and appends its tag. Use each number only once.
    pub fn seal(&self, number: usize, is_last: bool, buffer: &mut Vec<u8>, from: usize) {
        let sealed = self.0.seal_in_place_separate_tag(nonce(number, is_last), Aad::empty(), &mut buffer[from..]);
        buffer.extend_from_slice(sealed.expect("a chunk is short enough").as_ref());
    }

    /// Opens a chunk with its tag, in place. False if it is not the chunk that was sealed with this number.
    fn open(&self, number: usize, is_last: bool, sealed: &mut [u8]) -> bool {
        self.0.open_in_place(nonce(number, is_last), Aad::empty(), sealed).is_ok()
    }
}

fn nonce(number: usize, is_last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[3..11].copy_from_slice(&(number as u64).to_be_bytes());
    bytes[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(bytes)
}

const _: () = assert!(CHUNK.is_multiple_of(ALIGN));

/// A sealed record that is being read. Offsets count in clear, from the record's first byte.
#[derive(Debug)]
pub struct Sealed<M> {
    mapped: M,
    key: FileKey,
    /// The offset of the first chunk in the file.
    start: usize,
    /// The size of the record in clear.
    length: usize,
    window: Mutex<Window>,
    /// Whether a chunk could not be opened, and was read as zeros.
    broken: AtomicBool,
}

/// Neighbouring chunks in clear. A record is read from front to back, so each chunk is opened once.
#[derive(Debug, Default)]
struct Window {
    /// The numbers of the chunks in `clear`.
    chunks: Range<usize>,
    /// The chunks, with room for one tag after the last.
    clear: Vec<u8>,
}

impl<M: Mapped> Sealed<M> {
    /// A record of `length` bytes that is sealed with `key`. All of it must be in `mapped`, from `start`.
    pub fn new(mapped: M, key: FileKey, start: usize, length: usize) -> Sealed<M> {
        Sealed { mapped, key, start, length, window: Mutex::default(), broken: AtomicBool::new(false) }
    }

    /// Opens every chunk. The first one is opened last, because reading begins there.
    ///
    /// # Errors
    /// `Ok(false)` if a chunk cannot be opened; [`Lost`] if the file cannot be read.
    pub fn check(&self) -> Result<bool, Lost> {
        let mut window = self.window();
        for number in (0..self.length.div_ceil(CHUNK)).rev() {
            if !self.fill(&mut window, number..number + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens these chunks into the window. `Ok(false)` if one cannot be opened.
    fn fill(&self, window: &mut Window, chunks: Range<usize>) -> Result<bool, Lost> {
        if window.chunks.start <= chunks.start && chunks.end <= window.chunks.end {
            return Ok(true);
        }
        // The last call ended with these chunks.
        let kept = if window.chunks.contains(&chunks.start) { window.chunks.end - chunks.start } else { 0 };
        if kept > 0 {
            let from = (chunks.start - window.chunks.start) * CHUNK;
            window.clear.copy_within(from..from + kept * CHUNK, 0);
        }
        window.clear.resize(chunks.len() * CHUNK + TAG, 0);
        window.chunks = 0..0; // until all of it is there
        for number in chunks.start + kept..chunks.end {
            if !self.open(number, &mut window.clear[(number - chunks.start) * CHUNK..])? {
                return Ok(false);
            }
        }
        window.chunks = chunks;
        Ok(true)
    }

    /// Opens a chunk into the beginning of `clear`.
    fn open(&self, number: usize, clear: &mut [u8]) -> Result<bool, Lost> {
        let length = CHUNK.min(self.length - number * CHUNK) + TAG;
        let (at, is_last) = (self.start + number * (CHUNK + TAG), (number + 1) * CHUNK >= self.length);
        let sealed = &mut clear[..length];
        self.mapped.lend(at..at + length, &mut |bytes| sealed.copy_from_slice(bytes))?;
        Ok(self.key.open(number, is_last, sealed))
    }
}

impl<M: Mapped> Words for Sealed<M> {
    fn word(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(ALIGN) && offset < self.length);
        let (number, mut window) = (offset / CHUNK, self.window());
        if self.fill(&mut window, number..number + 1) != Ok(true) {
            self.broken.store(true, Ordering::Relaxed);
            return 0;
        }
        let at = offset - window.chunks.start * CHUNK;
        u64::from_le_bytes(std::array::from_fn(|index| window.clear[at + index]))
    }
}

impl<M: Mapped> PictureSource for Sealed<M> {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        assert!(range.start <= range.end && range.end <= self.length);
        if range.is_empty() {
            encode(&[]);
        } else {
            let mut window = self.window();
            if !self.fill(&mut window, range.start / CHUNK..range.end.div_ceil(CHUNK))? {
                return Err(Lost); // it opened when it was checked
            }
            let before = window.chunks.start * CHUNK;
            encode(&window.clear[range.start - before..range.end - before]);
        }
        if self.broken.load(Ordering::Relaxed) { Err(Lost) } else { self.mapped.lend(0..0, &mut |_| ()) }
    }

    fn drop_clear(&self) {
        *self.window() = Window::default(); // whoever reads it again opens it again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::key::Key;

    /// A file in memory.
    struct File(Vec<u8>);

    impl Words for File {
        fn word(&self, _: usize) -> u64 {
            unreachable!("a sealed file has no words of its own")
        }
    }

    impl PictureSource for File {
        fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
            encode(&self.0[range]);
            Ok(())
        }
    }

    impl Mapped for File {
        fn size(&self) -> usize {
            self.0.len()
        }
    }

    #[test]
    fn what_is_dropped_is_in_clear_no_longer_and_can_be_read_again() {
        let record: Vec<u8> = (0..2 * CHUNK + 40).map(|index| (index % 251) as u8).collect();
        let key = || Key::new([7; 32]).of_file(b"head", &[1; 32]);
        let mut file = Vec::new();
        for (number, chunk) in record.chunks(CHUNK).enumerate() {
            let from = file.len();
            file.extend_from_slice(chunk);
            key().seal(number, (number + 1) * CHUNK >= record.len(), &mut file, from);
        }
        let sealed = Sealed::new(File(file), key(), 0, record.len());
        assert_eq!(sealed.check(), Ok(true));
        for _ in 0..2 {
            // The picture on the spot goes out last, and lies before the named ones.
            for part in [CHUNK + 100..record.len(), 0..CHUNK + 100] {
                assert_eq!(sealed.lend(part.clone(), &mut |bytes| assert!(bytes == &record[part.clone()])), Ok(()));
                assert!(sealed.window().clear.capacity() > 0);
            }
            sealed.drop_clear();
            assert_eq!(sealed.window().clear.capacity(), 0);
        }
    }
}
