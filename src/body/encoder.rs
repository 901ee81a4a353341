//! The buffers in which a body is sent.
//!
//! The encoder reads a picture in place and writes into a pooled buffer. hyper gets that buffer as a chunk, and it returns to the
//! pool when the socket has taken it. A picture's bytes are not copied anywhere else.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Buf;

use super::Sent;
use super::base64::encode;
use crate::picture::{Lost, PictureSource};

/// The size of a buffer, in bytes. Two buffers and a request's head go to the socket in one write, and fit into two of the
/// largest segments (65,483 bytes, on loopback). A slightly longer write would end in a segment of a few bytes, which wakes the
/// receiver once more.
pub const BUFFER: usize = 63 * 1024;

/// How many buffers are kept for later uploads: as many as there are uploads at once in normal operation.
const KEPT: usize = 4;

/// The length of `length` bytes in base64.
pub const fn encoded_len(length: usize) -> u64 {
    (length as u64).div_ceil(3) * 4
}

/// A pool of buffers for encoded chunks.
#[derive(Debug, Default)]
pub struct Pool {
    free: Mutex<Vec<Box<[u8]>>>,
}

impl Pool {
    fn take(&self) -> Box<[u8]> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(buffer);
        }
    }
}

/// A chunk of a body. It is filled, then sent, and counts the bytes that the transport takes.
#[derive(Debug)]
pub struct Chunk {
    buffer: Box<[u8]>,
    /// The bytes that are filled and not taken yet.
    rest: Range<usize>,
    pool: Arc<Pool>,
    sent: Sent,
}

impl Chunk {
    pub(super) fn new(pool: &Arc<Pool>, sent: &Sent) -> Chunk {
        Chunk { buffer: pool.take(), rest: 0..0, pool: Arc::clone(pool), sent: Arc::clone(sent) }
    }

    /// Copies as much of `text` as fits, and returns how much.
    pub(super) fn fill_text(&mut self, text: &[u8]) -> usize {
        let count = text.len().min(BUFFER - self.rest.end);
        self.buffer[self.rest.end..][..count].copy_from_slice(&text[..count]);
        self.rest.end += count;
        count
    }

    /// Encodes as much of the picture in `range` as fits, and returns how many bytes: all of them, or a multiple of 3, so that
    /// only the end of a picture is padded.
    pub(super) fn fill_picture(&mut self, source: &dyn PictureSource, range: Range<usize>) -> Result<usize, Lost> {
        let count = range.len().min((BUFFER - self.rest.end) / 4 * 3);
        source.lend(range.start..range.start + count, &mut |bytes| {
            self.rest.end += encode(bytes, &mut self.buffer[self.rest.end..]);
        })?;
        Ok(count)
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.buffer[self.rest.clone()]
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.rest.len());
        self.rest.start += count;
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}
