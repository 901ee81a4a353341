//! How the event loop hears of a publication: by the FIFO of a recognizer that has one, else by a thread that sleeps on the futex.
//!
//! A recognizer may be replaced by one of another release at any time, so the choice is looked at with every look at the ring. One whose
//! publications are found by that look, and not heard of, is not believed to write to its FIFO: an older one that has the pid of the one
//! before it, as in a container. Then the thread does, until another recognizer comes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use crate::ring::fifo::Fifo;
use crate::ring::file::RingFile;
use crate::ring::wake::Watcher;
use crate::ring::{Memory, Word};

/// How the publications of one ring are heard of.
pub(super) enum WakeUp {
    Fifo(Fifo),
    Thread {
        published: Arc<Notify>,
        _watcher: Watcher<Arc<RingFile>>,
        /// Of the recognizer whose FIFO will not do.
        refused: u64,
    },
}

impl WakeUp {
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn of(file: &Arc<RingFile>, path: &Path) -> io::Result<WakeUp> {
        Fifo::of(file, path).map_or_else(|| WakeUp::by_thread(file), |fifo| Ok(WakeUp::Fifo(fifo)))
    }

    fn by_thread(file: &Arc<RingFile>) -> io::Result<WakeUp> {
        let published = Arc::new(Notify::new());
        let watcher = Watcher::start(Arc::clone(file), Arc::clone(&published))?;
        Ok(WakeUp::Thread { published, _watcher: watcher, refused: fifo_pid(file) })
    }

    /// Looks whether the recognizer is another one. `seen` is the count of publications that was slept upon until this look.
    pub(super) fn follow(&mut self, file: &Arc<RingFile>, path: &Path, seen: u32) {
        let other = match self {
            WakeUp::Fifo(fifo) => {
                let is_heard = fifo.is_of(file) && !fifo.is_silent(file, seen);
                if is_heard { None } else { WakeUp::by_thread(file).ok() } // without a thread, the looks do
            }
            WakeUp::Thread { refused, .. } if *refused == fifo_pid(file) => None,
            WakeUp::Thread { refused, .. } => {
                *refused = fifo_pid(file);
                Fifo::of(file, path).map(WakeUp::Fifo)
            }
        };
        if let Some(other) = other {
            *self = other;
        }
    }

    /// Returns when something was published since `seen`, or by chance.
    pub(super) async fn published(&mut self, file: &RingFile, seen: u32) {
        match self {
            WakeUp::Fifo(fifo) => fifo.published(&**file, seen).await,
            WakeUp::Thread { published, .. } => published.notified().await,
        }
    }
}

fn fifo_pid(file: &RingFile) -> u64 {
    file.load(Word::FifoPid, Ordering::Acquire)
}
