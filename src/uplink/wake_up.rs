//! Wakes the event loop at a publication: by the FIFO, if the recognizer has one, else by a thread that sleeps on the futex.
//!
//! A recognizer of another release may take over at any time, so the choice is checked with every check of the ring. If a check
//! finds publications without a wake-up, the recognizer does not write to its FIFO. It is then an older one with the pid of its
//! predecessor, as happens in containers. In that case the thread is used until another recognizer comes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use crate::ring::fifo::Fifo;
use crate::ring::file::RingFile;
use crate::ring::wake::Watcher;
use crate::ring::{Memory, Word};

/// How publications of one ring wake the event loop.
pub(super) enum WakeUp {
    Fifo(Fifo),
    Thread {
        published: Arc<Notify>,
        _watcher: Watcher<Arc<RingFile>>,
        /// The pid of the recognizer whose FIFO does not work.
        refused: u64,
    },
}

impl WakeUp {
    /// # Errors
    /// If no thread can be started.
    pub(super) fn of(file: &Arc<RingFile>, path: &Path) -> io::Result<WakeUp> {
        Fifo::of(file, path).map_or_else(|| WakeUp::by_thread(file), |fifo| Ok(WakeUp::Fifo(fifo)))
    }

    fn by_thread(file: &Arc<RingFile>) -> io::Result<WakeUp> {
        let published = Arc::new(Notify::new());
        let watcher = Watcher::start(Arc::clone(file), Arc::clone(&published))?;
        Ok(WakeUp::Thread { published, _watcher: watcher, refused: fifo_pid(file) })
    }

    /// Checks whether the recognizer has changed. `seen` is the count of publications before the last wait.
    pub(super) fn follow(&mut self, file: &Arc<RingFile>, path: &Path, seen: u32) {
        let other = match self {
            WakeUp::Fifo(fifo) => {
                let is_heard = fifo.is_of(file) && !fifo.is_silent(file, seen);
                if is_heard { None } else { WakeUp::by_thread(file).ok() } // without a thread, the regular checks find publications
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

    /// Returns when there are publications after `seen`; may return without any.
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
