//! The ring in shared memory: a recognizer publishes events into it, the uplink takes them out.
//!
//! ```text
//!  layout.rs    the numbers of docs/ring-abi.md
//!  mapping.rs   the memory itself: the only `unsafe` for shared memory, the SIGBUS guard, the futex calls
//!  file.rs      the file around it, the two locks
//!  identity.rs  what makes a ring unlike every other one
//!  create.rs    making, taking over, replacing that file
//!  producer.rs  publishes (fake-recognizer and tests; the recognizer uses include/sophon_ring.h)
//!  consumer.rs  takes records out, trusting nothing; gives their room back
//!  inspect.rs   a look from outside, for `sophon-uplink ring`
//!  opener.rs    a process that opens rings for an uplink that may not
//!  wake.rs      sleeping without missing a publication
//!  fifo.rs      the FIFO that an event loop sleeps on
//! ```
//!
//! Producer and consumer are written against [`Memory`], so that the same code runs over the shared mapping, over heap memory
//! under Miri, and over a model of memory under loom.

pub mod consumer;
pub mod create;
pub mod fifo;
pub mod file;
pub mod identity;
pub mod inspect;
pub mod layout;
pub mod mapping;
pub mod opener;
pub mod producer;
pub mod wake;

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use layout::Word;

/// Bytes that are read as words: the ring's data area, or one record on its own.
pub trait Words {
    /// The eight bytes at `offset`, a multiple of 8 inside the area. Another process may be writing there: the value is
    /// whatever it is, but reading it is not a data race.
    ///
    /// # Panics
    /// When `offset` is outside the area.
    fn word(&self, offset: usize) -> u64;
}

/// Memory with a ring in it.
pub trait Memory: Words {
    /// Bytes of the data area: a power of two.
    fn capacity(&self) -> u64;
    /// A word of the header; a u32 word is widened.
    fn load(&self, word: Word, order: Ordering) -> u64;
    /// Writes a word of the header; a u32 word takes the low half.
    fn store(&self, word: Word, value: u64, order: Ordering);
    /// A sequentially consistent fence.
    fn fence(&self);
    /// Writes eight bytes of the data area; for the producer.
    fn set_word(&self, offset: usize, value: u64);
    /// Sleeps while `publications` is `expected`, until woken, for at most `timeout`; may return early.
    fn futex_wait(&self, expected: u32, timeout: Duration);
    /// Wakes who sleeps in [`Memory::futex_wait`].
    fn futex_wake(&self);
    /// Wakes who sleeps on the FIFO, if this side has one to write to.
    fn fifo_wake(&self) {}
    /// Whether the memory went away under us (the file was truncated): what is read since is zeros.
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
