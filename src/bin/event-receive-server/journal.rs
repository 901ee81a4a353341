//! The received events: the known ids, the recent events, the counters, and a notice of each new event.
//!
//! Two locks, so that a reader never waits for the disk. `writer` is held while an event is compared with the known ids and
//! stored; `shown` only while the list is read or changed. Storing an event is one blocking call that finishes even if its sender
//! disconnects: no event is stored without its id becoming known.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tracing::{info, warn};

use crate::clock;
use crate::disk::Disk;
use crate::event::Which;
use crate::recent::{Recent, Seen};
use crate::record::{self, Arrival, Record};
use crate::search::Search;

/// How many new events a reader of the stream may lag behind before it is dropped.
const MAX_LAG: usize = 64;

/// How many events are remembered. With a store the pictures are files, so more events fit.
struct Bounds {
    shown: usize,
    ids: usize,
}

const IN_MEMORY: Bounds = Bounds { shown: 200, ids: 100_000 };
#[cfg(feature = "jetstream")]
const OF_A_STREAM: Bounds = Bounds { shown: 1000, ids: 100_000 };
const ON_DISK: Bounds = Bounds { shown: 1000, ids: 1_000_000 };

/// The counts at the top of the page.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// Events stored; with a store, including earlier runs.
    pub received: u64,
    /// Deliveries of an event that was already stored.
    pub duplicates: u64,
    /// Deliveries answered with an error.
    pub rejected: u64,
    /// Deliveries that broke off before the end of their body.
    pub incomplete: u64,
    /// The stream that the events come from; none if they come by POST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The last rejection.
    pub last_rejection: Option<Rejection>,
}

/// The time and reason of a rejected delivery.
#[derive(Clone, Debug, Serialize)]
pub struct Rejection {
    at: String,
    errors: Vec<String>,
}

/// The result of storing a valid event.
#[derive(Debug, PartialEq)]
pub enum StoreOutcome {
    /// It was new and is now stored.
    Stored,
    /// Its id was known.
    Duplicate,
}

/// See the module.
pub struct Journal {
    store: Option<PathBuf>,
    writer: Mutex<Writer>,
    shown: Mutex<Recent>,
    /// Why the last event could not be stored; cleared by the next success.
    fault: Mutex<Option<String>>,
    logged: Mutex<Logged>,
    counters: watch::Sender<Counters>,
    news: broadcast::Sender<Weak<Record>>,
}

struct Writer {
    seen: Seen,
    disk: Option<Disk>,
}

/// When a rejection was last logged, and how many were suppressed since.
#[derive(Default)]
struct Logged {
    last: Option<Instant>,
    suppressed: u64,
}

impl Journal {
    /// A journal in memory only.
    pub fn in_memory() -> Journal {
        Journal::new(None, None, Seen::new(IN_MEMORY.ids), Recent::new(IN_MEMORY.shown), 0)
    }

    /// A journal of the events of a stream, which is called `source`. It ends with the process.
    #[cfg(feature = "jetstream")]
    pub fn of_stream(source: String) -> Journal {
        let journal = Journal::new(None, None, Seen::new(OF_A_STREAM.ids), Recent::new(OF_A_STREAM.shown), 0);
        journal.counters.send_modify(|counters| counters.source = Some(source));
        journal
    }

    /// The most events of a stream that are shown.
    #[cfg(feature = "jetstream")]
    pub fn most_of_a_stream() -> u64 {
        OF_A_STREAM.shown as u64
    }

    /// The journal of a folder, with the events stored in it.
    pub fn on_disk(folder: &Path) -> Result<Journal, String> {
        let (mut seen, mut shown, mut received) = (Seen::new(ON_DISK.ids), Recent::new(ON_DISK.shown), 0);
        let disk = Disk::open(folder, |id, line| {
            seen.insert(&id);
            shown.push(Arc::new(Record::new(id, line.into(), Vec::new())));
            received += 1;
        })?;
        info!("{} holds {received} events", folder.display());
        Ok(Journal::new(Some(folder.to_path_buf()), Some(disk), seen, shown, received))
    }

    fn new(store: Option<PathBuf>, disk: Option<Disk>, seen: Seen, shown: Recent, received: u64) -> Journal {
        Journal {
            store,
            writer: Mutex::new(Writer { seen, disk }),
            shown: Mutex::new(shown),
            fault: Mutex::default(),
            logged: Mutex::default(),
            counters: watch::Sender::new(Counters { received, ..Counters::default() }),
            news: broadcast::Sender::new(MAX_LAG),
        }
    }

    /// Stores a valid event. Blocks during disk operations. After an error nothing of the event is left.
    pub fn take(&self, arrival: Arrival) -> io::Result<StoreOutcome> {
        let mut writer = lock(&self.writer);
        if writer.seen.contains(&arrival.id) {
            self.counters.send_modify(|counters| counters.duplicates += 1);
            return Ok(StoreOutcome::Duplicate);
        }
        let line = record::line(&arrival, writer.disk.is_some());
        let Arrival { id, event, .. } = arrival;
        let mut pictures = Vec::new();
        match &mut writer.disk {
            Some(disk) => {
                let stored = disk.store(&id, &event, &line);
                *lock(&self.fault) =
                    stored.as_ref().err().map(|error| format!("the last event could not be stored: {error}"));
                stored?;
            }
            None => pictures.extend(event.pictures().map(|(which, picture)| (which, picture.bytes.clone()))),
        }
        writer.seen.insert(&id);
        let record = Arc::new(Record::new(id, line.into(), pictures));
        // Add the event to the list before sending the notice, so that a reader who missed the notice finds it there.
        lock(&self.shown).push(record.clone());
        self.counters.send_modify(|counters| counters.received += 1);
        let _ = self.news.send(Arc::downgrade(&record));
        Ok(StoreOutcome::Stored)
    }

    /// Counts a delivery that was answered with an error. Logs at most one per second: a sender could fill the log.
    pub fn reject(&self, errors: &[String]) {
        let rejection = Rejection { at: clock::now(), errors: errors.to_vec() };
        self.counters.send_modify(|counters| {
            counters.rejected += 1;
            counters.last_rejection = Some(rejection);
        });
        let mut logged = lock(&self.logged);
        if logged.last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            logged.suppressed += 1;
            return;
        }
        logged.last = Some(Instant::now());
        let suppressed = std::mem::take(&mut logged.suppressed);
        warn!("rejected ({suppressed} more since the last message): {}", errors.join("; "));
    }

    /// Counts a delivery that broke off before the end of its body.
    pub fn cut_short(&self) {
        self.counters.send_modify(|counters| counters.incomplete += 1);
    }

    /// The latest events that `search` finds, the newest first.
    pub fn newest(&self, limit: usize, search: &Search) -> Vec<Arc<Record>> {
        lock(&self.shown).newest().filter(|record| search.finds(&record.keys)).take(limit).cloned().collect()
    }

    /// A picture of an event. Blocks during disk operations.
    pub fn picture(&self, id: &str, which: &Which) -> io::Result<Option<Bytes>> {
        if let Some(folder) = &self.store {
            return match std::fs::read(Disk::picture_path(folder, id, which)) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        }
        let shown = lock(&self.shown);
        let record = shown.newest().find(|record| record.id == id);
        let found = record.and_then(|record| record.pictures.iter().find(|(known, _)| known == which));
        Ok(found.map(|(_, bytes)| bytes.clone()))
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    /// Subscribes to the counters and to new events. A reference is dead if its event was pushed out of the list.
    pub fn follow(&self) -> (watch::Receiver<Counters>, broadcast::Receiver<Weak<Record>>) {
        (self.counters.subscribe(), self.news.subscribe())
    }

    /// Why events cannot be stored at present.
    pub fn fault(&self) -> Option<String> {
        lock(&self.fault).clone()
    }
}

/// After a panic under a lock, a count is at most one too low: that is no reason to stop serving.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_id_is_stored_once_and_counted() {
        let journal = Journal::in_memory();
        let arrival = || Arrival {
            id: "a".into(),
            box_name: None,
            received_at: String::new(),
            format: "json",
            event: Default::default(),
        };
        assert_eq!(journal.take(arrival()).unwrap(), StoreOutcome::Stored);
        assert_eq!(journal.take(arrival()).unwrap(), StoreOutcome::Duplicate);
        assert_eq!(journal.newest(10, &Search::default()).len(), 1);
        assert_eq!((journal.counters().received, journal.counters().duplicates), (1, 1));
    }
}
