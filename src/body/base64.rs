//! Pictures as base64 (RFC 4648 section 4: standard alphabet, padded, no line breaks), a chunk at a time.
//!
//! The encoder reads the picture where it lies and writes into a pooled buffer; the buffer is the very chunk handed to hyper, and
//! goes back to the pool when the socket has taken it. Nothing else touches a picture's bytes.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::{GeneralPurposeConfig, Simd};
use bytes::{Buf, Bytes};

use super::Sent;
use crate::ring::mapping::{Lost, PictureSource};

/// Bytes of picture a chunk: a multiple of 3, so that only a picture's last chunk is padded; 64 KiB encoded.
pub const CHUNK: usize = 48 * 1024;
const ENCODED_CHUNK: usize = CHUNK / 3 * 4;
const _: () = assert!(CHUNK.is_multiple_of(3));

/// Buffers kept for the next upload: as many as uploads run at once where nothing is wrong.
const KEPT: usize = 4;

/// NEON on the box, AVX2 where there is any: a quarter to a half of the scalar engine's instructions.
static ENGINE: LazyLock<Simd> = LazyLock::new(|| Simd::standard(GeneralPurposeConfig::new()));

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
        free.unwrap_or_else(|| vec![0; ENCODED_CHUNK].into_boxed_slice())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(buffer);
        }
    }
}

/// A piece of a body on its way; counts what the transport takes of it.
#[derive(Debug)]
pub struct Chunk {
    content: Content,
    sent: Sent,
}

#[derive(Debug)]
enum Content {
    Text(Bytes),
    Encoded { buffer: Box<[u8]>, rest: Range<usize>, pool: Arc<Pool> },
}

impl Chunk {
    pub(super) fn text(text: Bytes, sent: &Sent) -> Chunk {
        Chunk { content: Content::Text(text), sent: Arc::clone(sent) }
    }

    /// Encodes `range` of `source`, at most [`CHUNK`] bytes.
    pub(super) fn encode(
        pool: &Arc<Pool>,
        source: &dyn PictureSource,
        range: Range<usize>,
        sent: &Sent,
    ) -> Result<Chunk, Lost> {
        let mut buffer = pool.take();
        let mut written = 0;
        let lent = source.lend(range, &mut |bytes| {
            written = ENGINE.encode_slice(bytes, &mut buffer).expect("a chunk fits its buffer");
        });
        let chunk = Chunk {
            content: Content::Encoded { buffer, rest: 0..written, pool: Arc::clone(pool) },
            sent: sent.clone(),
        };
        lent.map(|()| chunk)
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.len(),
            Content::Encoded { rest, .. } => rest.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match &self.content {
            Content::Text(text) => text,
            Content::Encoded { buffer, rest, .. } => &buffer[rest.clone()],
        }
    }

    fn advance(&mut self, count: usize) {
        match &mut self.content {
            Content::Text(text) => text.advance(count),
            Content::Encoded { rest, .. } => {
                assert!(count <= rest.len());
                rest.start += count;
            }
        }
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Content::Encoded { buffer, pool, .. } = &mut self.content {
            pool.give_back(std::mem::take(buffer));
        }
    }
}
