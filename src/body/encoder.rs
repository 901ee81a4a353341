//! The buffers that a body goes out in.
//!
//! The encoder reads a picture where it lies and writes into a pooled buffer; the buffer is the very chunk handed to hyper, and
//! goes back to the pool when the socket has taken it. Nothing else touches a picture's bytes.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Buf;

use super::Sent;
use super::base64::encode;
use crate::ring::mapping::{Lost, PictureSource};

/// Bytes of a buffer. Two of them, with a request's head, go to the socket in one write, and fit into two of the largest segments that
/// there are (65,483 bytes, on loopback): a write that is a little longer ends in a segment of a few bytes, with a wake-up of the receiver
/// for itself.
pub const BUFFER: usize = 63 * 1024;

/// Buffers kept for the next upload: as many as uploads run at once where nothing is wrong.
const KEPT: usize = 4;

/// Length of `length` bytes in base64.
pub const fn encoded_len(length: usize) -> u64 {
    (length as u64).div_ceil(3) * 4
}

/// Buffers for encoded chunks.
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

/// A piece of a body: filled, then on its way, where it counts what the transport takes of it.
#[derive(Debug)]
pub struct Chunk {
    buffer: Box<[u8]>,
    /// What is filled and not taken yet.
    rest: Range<usize>,
    pool: Arc<Pool>,
    sent: Sent,
}

impl Chunk {
    pub(super) fn new(pool: &Arc<Pool>, sent: &Sent) -> Chunk {
        Chunk { buffer: pool.take(), rest: 0..0, pool: Arc::clone(pool), sent: Arc::clone(sent) }
    }

    /// Takes as much of `text` as there is room for, and says how much.
    pub(super) fn fill_text(&mut self, text: &[u8]) -> usize {
        let count = text.len().min(BUFFER - self.rest.end);
        self.buffer[self.rest.end..][..count].copy_from_slice(&text[..count]);
        self.rest.end += count;
        count
    }

    /// Encodes as much of the picture in `range` as there is room for, and says how much: all of it, or a multiple of 3 bytes,
    /// so that only a picture's end is padded.
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
