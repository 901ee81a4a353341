//! Sleeping on the ring without missing a publication, and without a system call from the recognizer while nobody sleeps.
//!
//! The two sides are Dekker's: the producer writes `publications` and then reads `waiting`, the consumer writes `waiting` and
//! then reads `publications`, each with a SeqCst fence between. So at least one sees the other's write: either the producer
//! wakes, or the consumer does not go to sleep. `publications` is stored with release after `head`, so who sees the new count finds the
//! new records.
//!
//! `waiting` says what the consumer sleeps on. On the **futex** ([`sleep`]) the kernel compares `publications` once more under its own
//! lock. That takes a thread, [`Watcher`], for an event loop cannot wait for a futex together with sockets. On the **FIFO**
//! ([`super::fifo`]) it sleeps with the event loop: a byte that was written before it sleeps is still there. It needs a recognizer whose
//! header knows it.
//!
//! The bound on the wait is no part of the protocol. Whoever reads the ring looks at it now and then anyway: that covers a recognizer that
//! dies between its stores and the wake-up. [`Watcher`] is woken to stop; only where it is just about to sleep then, it notices that by
//! the bound.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Memory, Word};

/// The longest sleep: an idle box is to be left alone.
pub const WAIT_BOUND: Duration = Duration::from_secs(30);

/// After a wake-up the consumer is awake anyway: where events come in less than this, what is published within it needs no wake-up
/// of its own, and the recognizer no system call for it. Where they come more slowly, the rest would be one more wake-up for each.
pub(super) const REST: Duration = Duration::from_millis(1);

/// What a consumer that may be asleep sleeps on, as it stands in `waiting`; 0 for one that is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOn {
    /// The word `publications`.
    Futex = 1,
    /// The FIFO beside the ring.
    Fifo = 2,
}

/// Producer: tells of a publication, after `head` was stored. `publications` is the producer's private count.
pub fn announce(memory: &impl Memory, publications: &mut u32) {
    *publications = publications.wrapping_add(1);
    // Release: who acquires this count sees `head`.
    memory.store(Word::Publications, u64::from(*publications), Ordering::Release);
    memory.fence();
    match memory.load(Word::Waiting, Ordering::Relaxed) {
        0 => {}
        waiting if waiting == WaitOn::Fifo as u64 => memory.fifo_wake(),
        _ => memory.futex_wake(),
    }
}

/// The count of publications, to be read before looking for records and given to [`sleep`] when there were none.
pub fn publications(memory: &impl Memory) -> u32 {
    memory.load(Word::Publications, Ordering::Acquire) as u32
}

/// Consumer: sleeps until `publications` is not `seen`, at most `bound`.
pub fn sleep(memory: &impl Memory, seen: u32, bound: Duration) {
    if prepare_to_wait(memory, WaitOn::Futex, seen) {
        memory.futex_wait(seen, bound);
    }
    finish_wait(memory);
}

/// Consumer: it may be asleep from now on, until [`finish_wait`]. False where something was published since `seen`: it must not sleep then.
pub fn prepare_to_wait(memory: &impl Memory, on: WaitOn, seen: u32) -> bool {
    memory.store(Word::Waiting, on as u64, Ordering::Relaxed);
    memory.fence();
    publications(memory) == seen
}

/// Consumer: it is awake.
pub fn finish_wait(memory: &impl Memory) {
    memory.store(Word::Waiting, 0, Ordering::Relaxed);
}

/// A thread that sleeps on a ring and passes every wake-up on to the event loop.
pub struct Watcher<M: Memory> {
    memory: M,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<M: Memory + Clone + Send + 'static> Watcher<M> {
    /// Starts the thread; `published` is notified after each publication (or once for several).
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(memory: M, published: Arc<Notify>) -> io::Result<Watcher<M>> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, woken) = (Arc::clone(&stop), memory.clone());
        let watch = move || {
            let mut seen = publications(&memory);
            published.notify_one(); // what was there before the first sleep
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                sleep(&memory, seen, WAIT_BOUND);
                let now = publications(&memory);
                if now != seen || memory.lost() {
                    seen = now;
                    published.notify_one();
                    if memory.lost() {
                        break; // nothing will be published here any more
                    }
                    if began.elapsed() < REST {
                        thread::sleep(REST);
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("ring-watcher".into()).stack_size(64 * 1024).spawn(watch)?;
        Ok(Watcher { memory: woken, stop, thread: Some(thread) })
    }
}

impl<M: Memory> Drop for Watcher<M> {
    /// The thread ends at once, or by itself within [`WAIT_BOUND`]; nobody waits for it, and it keeps the memory it looks at.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.memory.futex_wake();
        drop(self.thread.take());
    }
}
