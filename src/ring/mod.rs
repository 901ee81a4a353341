//! The ring in shared memory: a recognizer publishes events into it, and the uplink reads and releases them.
//!
//! ```text
//!  layout.rs    the constants of docs/ring-abi.md
//!  mapping.rs   the memory itself: the only `unsafe` for shared memory, the futex calls
//!  file.rs      the ring's file
//!  lock.rs      its two locks
//!  open_error.rs  why it cannot be opened
//!  identity.rs  builds an id that is unique to the ring
//!  create.rs    creates, takes over and replaces that file
//!  producer.rs  publishes (fake-recognizer and tests; the recognizer uses include/sophon_ring.h)
//!  consumer.rs  reads records without trusting the producer, and releases their room
//!  inspect.rs   the state of a ring, for `sophon-uplink ring`
//!  opener.rs    a process that opens rings for an uplink without the right to
//!  wake.rs      waiting for a publication without missing one
//!  fifo.rs      the FIFO that an event loop waits on
//! ```
//!
//! Producer and consumer use the trait [`Memory`], so the same code runs over the shared mapping, over heap memory under Miri,
//! and over a memory model under loom.

pub mod consumer;
pub mod create;
pub mod fifo;
pub mod file;
pub mod identity;
pub mod inspect;
pub mod layout;
mod lock;
pub mod mapping;
mod open_error;
pub mod opener;
pub mod producer;
pub mod wake;

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use layout::Word;

/// Bytes that are read as words: the ring's data area, or a single record.
pub trait Words {
    /// The eight bytes at `offset`, a multiple of 8 inside the area. Another process may be writing there: any value is possible,
    /// but reading it is not a data race.
    ///
    /// # Panics
    /// If `offset` is outside the area.
    fn word(&self, offset: usize) -> u64;
}

/// Memory that contains a ring.
pub trait Memory: Words {
    /// The size of the data area in bytes: a power of two.
    fn capacity(&self) -> u64;
    /// Loads a word of the header; a u32 word is widened.
    fn load(&self, word: Word, order: Ordering) -> u64;
    /// Stores a word of the header; a u32 word takes the low half.
    fn store(&self, word: Word, value: u64, order: Ordering);
    /// A sequentially consistent fence.
    fn fence(&self);
    /// Writes eight bytes of the data area; only for the producer.
    fn set_word(&self, offset: usize, value: u64);
    /// Waits while `publications` is `expected`, until woken, for at most `timeout`; may return early.
    fn futex_wait(&self, expected: u32, timeout: Duration);
    /// Wakes those that wait in [`Memory::futex_wait`].
    fn futex_wake(&self);
    /// Wakes a consumer that waits on the FIFO, if this side has one to write to.
    fn fifo_wake(&self) {}
    /// Whether the memory was lost (the file was truncated): everything read since then is zeros.
    fn lost(&self) -> bool {
        false
    }
}

impl<P> Words for P
where
    P: Deref,
    P::Target: Words,
{
    fn word(&self, offset: usize) -> u64 {
        (**self).word(offset)
    }
}

impl<P> Memory for P
where
    P: Deref,
    P::Target: Memory,
{
    fn capacity(&self) -> u64 {
        (**self).capacity()
    }
    fn load(&self, word: Word, order: Ordering) -> u64 {
        (**self).load(word, order)
    }
    fn store(&self, word: Word, value: u64, order: Ordering) {
        (**self).store(word, value, order);
    }
    fn fence(&self) {
        (**self).fence();
    }
    fn set_word(&self, offset: usize, value: u64) {
        (**self).set_word(offset, value);
    }
    fn futex_wait(&self, expected: u32, timeout: Duration) {
        (**self).futex_wait(expected, timeout);
    }
    fn futex_wake(&self) {
        (**self).futex_wake();
    }
    fn fifo_wake(&self) {
        (**self).fifo_wake();
    }
    fn lost(&self) -> bool {
        (**self).lost()
    }
}
