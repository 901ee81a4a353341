//! Sealing: what lies on the flash shows neither faces nor names, and what was changed there is noticed.
//!
//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015) in the form of the age file format: the record is cut into chunks of
//! [`CHUNK`], each sealed with ChaCha20-Poly1305 under the file's own key.
//!
//! ```text
//!  file key = HKDF-SHA-256(secret: the key, salt: 32 random bytes, info: "sophon-uplink spool file 2" + the file's head)
//!  nonce    = the chunk's number (11 bytes, big-endian) + 1 for the last chunk, 0 for another one
//! ```
//!
//! - A nonce cannot come twice under one key, whatever a power cut made us forget: each file has a key of its own, by 256 bits out of
//!   the kernel's random source, and is written once. Nothing is remembered.
//! - The head is bound by the key: a file with another head opens nowhere. A chunk that was changed, moved, doubled or taken from
//!   another file does not open either, nor does a file that was cut off after a whole chunk: its head has another length, and its last
//!   chunk is not marked.
//! - ChaCha20-Poly1305 rather than AES-GCM: not every Cortex-A53 has the AES instructions, and without them AES costs several times
//!   as much; this costs the same on each, in constant time. `ring` is in the binary for TLS anyway.
//! - Chunks are small, so that an upload holds 64 KiB of an event in clear at most, however large its pictures: the encoder asks for
//!   48 KiB at once, which lie in four chunks. Nothing is held once its last picture was read: an upload may wait long for its answer.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::ring::aead::{Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce};

use super::disk::Mapped;
use crate::picture::{Lost, PictureSource};
use crate::ring::Words;
use crate::ring::layout::ALIGN;

/// Bytes of the record in a chunk; the last one may have fewer.
pub const CHUNK: usize = 16 * 1024;
/// What sealing adds to each.
pub const TAG: usize = MAX_TAG_LEN;

/// Bytes of a record of `length` when it is sealed.
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
    /// Seals the chunk that `buffer` has from `from` on, in its place, with its tag behind it. Each number only once.
    pub fn seal(&self, number: usize, is_last: bool, buffer: &mut Vec<u8>, from: usize) {
        let sealed = self.0.seal_in_place_separate_tag(nonce(number, is_last), Aad::empty(), &mut buffer[from..]);
        buffer.extend_from_slice(sealed.expect("a chunk is short enough").as_ref());
    }

    /// Opens a chunk with its tag in its place; false where it is not what was sealed under this number.
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

/// A sealed record that is read: offsets count in clear, from the record's first byte.
#[derive(Debug)]
pub struct Sealed<M> {
    mapped: M,
    key: FileKey,
    /// Where the first chunk lies in the file.
    start: usize,
    /// Of the record, in clear.
    length: usize,
    window: Mutex<Window>,
    /// A chunk did not open, and somebody was given zeros for it.
    broken: AtomicBool,
}

/// Neighbouring chunks in clear. A record is read from the front to the back, so that each is opened once.
#[derive(Debug, Default)]
struct Window {
    /// The numbers of the chunks in `clear`.
    chunks: Range<usize>,
    /// Room for one tag behind the last of them.
    clear: Vec<u8>,
}

impl<M: Mapped> Sealed<M> {
    /// A record of `length` bytes, sealed with `key`, in `mapped` from `start` on, where all of it must be.
    pub fn new(mapped: M, key: FileKey, start: usize, length: usize) -> Sealed<M> {
        Sealed { mapped, key, start, length, window: Mutex::default(), broken: AtomicBool::new(false) }
    }

    /// Opens every chunk, the first one last: that is where reading begins.
    ///
    /// # Errors
    /// `Ok(false)` where one does not open; [`Lost`] where the file cannot be read.
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

    /// Sees to it that the window holds at least these chunks; `Ok(false)` where one does not open.
    fn fill(&self, window: &mut Window, chunks: Range<usize>) -> Result<bool, Lost> {
        if window.chunks.start <= chunks.start && chunks.end <= window.chunks.end {
            return Ok(true);
        }
        // What is there already is what the last call ended with.
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
            if range.end.next_multiple_of(ALIGN) == self.length {
                *window = Window::default(); // it was read to its end; who reads it again opens it again
            }
        }
        if self.broken.load(Ordering::Relaxed) { Err(Lost) } else { self.mapped.lend(0..0, &mut |_| ()) }
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
    fn what_was_read_to_its_end_is_in_clear_no_longer_and_can_be_read_again() {
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
        let end = record.len() - 3; // a picture's: the record goes on to a multiple of 8
        for _ in 0..2 {
            for part in [0..CHUNK + 100, CHUNK + 100..end] {
                assert_eq!(sealed.lend(part.clone(), &mut |bytes| assert!(bytes == &record[part.clone()])), Ok(()));
                assert_eq!(sealed.window().clear.capacity() == 0, part.end == end);
            }
        }
    }
}
