//! Waits for a publication without missing one, and without a system call of the recognizer while no consumer waits.
//!
//! The protocol is Dekker's: the producer writes `publications` and then reads `waiting`, the consumer writes `waiting` and then
//! reads `publications`, each with a SeqCst fence in between. So at least one of them sees the other's write: either the producer
//! wakes the consumer, or the consumer does not wait. `publications` is stored with release after `head`, so a consumer that sees
//! the new count also sees the new records.
//!
//! `waiting` tells what the consumer waits on. For the **futex** ([`sleep`]) the kernel compares `publications` once more under
//! its own lock. That needs a thread, [`Watcher`], because an event loop cannot wait for a futex together with sockets. For the
//! **FIFO** ([`super::fifo`]) the event loop itself waits: a byte that was written before the wait is still there. That needs a
//! recognizer whose header supports it.
//!
//! The limit on the wait is not part of the protocol. The reader checks the ring at intervals anyway, which covers a recognizer
//! that dies between its stores and the wake-up. [`Watcher`] is woken to stop; only if it is just about to wait at that moment,
//! it notices the stop when the limit ends the wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Memory, Word};

/// The longest wait, so that an idle box is rarely woken.
pub const WAIT_BOUND: Duration = Duration::from_secs(30);

/// The pause after a wake-up, if events come faster than this. Publications during the pause need no wake-up, and cost the
/// recognizer no system call. If events come more slowly, the pause would only add a wake-up for each.
pub(super) const REST: Duration = Duration::from_millis(1);

/// What a consumer waits on, as the value of `waiting`; 0: it does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOn {
    /// The word `publications`.
    Futex = 1,
    /// The FIFO next to the ring.
    Fifo = 2,
}

/// Producer: announces a publication, after `head` was stored. `publications` is the producer's private count.
pub fn announce(memory: &impl Memory, publications: &mut u32) {
    *publications = publications.wrapping_add(1);
    // Release: a consumer that acquires this count also sees `head`.
    memory.store(Word::Publications, u64::from(*publications), Ordering::Release);
    memory.fence();
    match memory.load(Word::Waiting, Ordering::Relaxed) {
        0 => {}
        waiting if waiting == WaitOn::Fifo as u64 => memory.fifo_wake(),
        _ => memory.futex_wake(),
    }
}

/// The count of publications. Read it before looking for records, and pass it to [`sleep`] if there are none.
pub fn publications(memory: &impl Memory) -> u32 {
    memory.load(Word::Publications, Ordering::Acquire) as u32
}

/// Consumer: waits until `publications` is not `seen`, for at most `bound`. `is_over` is asked after the wait. If this was the last
/// wait, returns false and leaves `waiting` as it is: whoever waits next may have stored its own value by then.
pub fn sleep(memory: &impl Memory, seen: u32, bound: Duration, is_over: impl FnOnce() -> bool) -> bool {
    if prepare_to_wait(memory, WaitOn::Futex, seen) {
        memory.futex_wait(seen, bound);
    }
    if is_over() {
        return false;
    }
    finish_wait(memory);
    true
}

/// Consumer: announces that it may wait from now on, until [`finish_wait`]. Returns false if there were publications after
/// `seen`: it must not wait then.
pub fn prepare_to_wait(memory: &impl Memory, on: WaitOn, seen: u32) -> bool {
    memory.store(Word::Waiting, on as u64, Ordering::Relaxed);
    memory.fence();
    publications(memory) == seen
}

/// Consumer: announces that it does not wait any more.
pub fn finish_wait(memory: &impl Memory) {
    memory.store(Word::Waiting, 0, Ordering::Relaxed);
}

/// A thread that waits on a ring and passes every wake-up to the event loop.
pub struct Watcher<M: Memory> {
    memory: M,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<M: Memory + Clone + Send + 'static> Watcher<M> {
    /// Starts the thread. `published` is notified after each publication, or once for several.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(memory: M, published: Arc<Notify>) -> io::Result<Watcher<M>> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, woken) = (Arc::clone(&stop), memory.clone());
        let watch = move || {
            let mut seen = publications(&memory);
            published.notify_one(); // for records from before the first wait
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                if !sleep(&memory, seen, WAIT_BOUND, || stopped.load(Ordering::Relaxed)) {
                    break;
                }
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
    /// Tells the thread to stop: it ends at once, or within [`WAIT_BOUND`]. Nothing waits for it, and it keeps its memory mapped.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.memory.futex_wake();
        drop(self.thread.take());
    }
}
