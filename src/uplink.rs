//! The running uplink: a task for each ring that reads events into the lanes, and the lanes.
//!
//! ```text
//!  ring file ─▶ attach ─▶ read: threshold, malformed? ─▶ FanOut ─▶ lanes
//!                 ▲                                         │
//!                 └── replaced: once the old one is empty   └─▶ Ledger ─▶ tail
//! ```
//!
//! Everything runs on one thread but the ring's watchers, which only sleep and wake us.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::body::base64::Pool;
use crate::config::{Config, Fault};
use crate::deliver::client::{Settings, Upload};
use crate::deliver::lane::{Lane, LaneCounters};
use crate::deliver::ledger::Ledger;
use crate::deliver::{FanOut, tls};
use crate::event::Event;
use crate::rate_limited::RateLimited;
use crate::ring::Memory;
use crate::ring::consumer::{self, Frame, Reader};
use crate::ring::file::{OpenError, RingFile, Side};
use crate::ring::wake::Watcher;

/// How often a ring that is not there, or that may have been replaced, is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Events read in one go before the uploads get their turn.
const BATCH: usize = 32;

/// What became of the events, but for what the lanes count.
#[derive(Debug, Default)]
pub struct Counters {
    /// Taken out of a ring.
    pub read: Cell<u64>,
    /// Of these: score below the threshold.
    pub filtered: Cell<u64>,
    /// Of these: a record that no correct recognizer writes.
    pub malformed: Cell<u64>,
    /// Of these: sent to the lanes, one share a destination.
    pub shares: Cell<u64>,
    /// Times that a ring was found corrupt.
    pub corrupt: Cell<u64>,
}

/// The running uplink.
pub struct Uplink {
    config: RefCell<Config>,
    fan_out: FanOut,
    pool: Arc<Pool>,
    lane_totals: Rc<LaneCounters>,
    counters: Counters,
    stopping: Cell<bool>,
    stop: Notify,
    complaints: RateLimited,
}

/// A ring that is being read.
struct Attached {
    file: Arc<RingFile>,
    reader: Reader<Arc<RingFile>>,
    ledger: Rc<Ledger>,
    published: Arc<Notify>,
    _watcher: Watcher,
}

impl Uplink {
    /// Starts lanes and ring tasks; to be called inside a `LocalSet`.
    ///
    /// # Errors
    /// A certificate file that does not do.
    pub fn start(config: Config) -> Result<Rc<Uplink>, Fault> {
        let uplink = Rc::new(Uplink {
            config: RefCell::new(config.clone()),
            fan_out: FanOut::default(),
            pool: Arc::default(),
            lane_totals: Rc::default(),
            counters: Counters::default(),
            stopping: Cell::new(false),
            stop: Notify::new(),
            complaints: RateLimited::new(10, Duration::from_secs(10)),
        });
        uplink.apply(config)?;
        Ok(uplink)
    }

    /// Puts another configuration into force: lanes are kept, added and removed, no event is lost. Rings are attached to at the
    /// start of the program only; a change of theirs is said.
    ///
    /// # Errors
    /// A certificate file that does not do; then nothing has changed.
    pub fn apply(&self, config: Config) -> Result<(), Fault> {
        let settings = Settings {
            body: config.body,
            headers: config.headers.clone(),
            timeouts: config.timeouts,
            tls: tls::client_config(&config.tls)?,
            pool: Arc::clone(&self.pool),
        };
        let old = self.fan_out.lanes();
        let lane = |url: &crate::config::Url| match old.iter().find(|lane| lane.url() == url) {
            Some(lane) => {
                lane.configure(settings.clone());
                Rc::clone(lane)
            }
            None => {
                let lane = Lane::new(url.clone(), settings.clone(), Rc::clone(&self.lane_totals));
                tokio::task::spawn_local(Rc::clone(&lane).run());
                lane
            }
        };
        self.fan_out.replace(config.event_server_url.iter().map(lane).collect());
        if config.rings != self.config.borrow().rings {
            warn!("the list of rings is read at the start only: restart to put the change into force");
        }
        self.config.replace(config);
        Ok(())
    }

    /// Attaches to `path` as soon as there is a ring, and reads it until [`Uplink::stop`].
    ///
    /// # Errors
    /// [`OpenError::Busy`], when another uplink has the ring at the start.
    pub fn read_ring(self: &Rc<Self>, path: PathBuf) -> Result<tokio::task::JoinHandle<()>, OpenError> {
        let first = match self.attach(&path) {
            Ok(attached) => Some(attached),
            Err(error @ OpenError::Busy { .. }) => return Err(error),
            Err(error) => {
                warn!("waiting: {error}");
                None
            }
        };
        let uplink = Rc::clone(self);
        Ok(tokio::task::spawn_local(async move { uplink.ring_task(&path, first).await }))
    }

    /// Stops reading, and waits up to `patience` for what is on its way. What was not acknowledged stays in the rings.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.set(true);
        self.stop.notify_waiters();
        let lanes = self.fan_out.lanes();
        let quiet = async {
            while lanes.iter().any(|lane| lane.in_flight() > 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        lanes.iter().for_each(|lane| lane.suspend());
        let _ = tokio::time::timeout(patience, quiet).await;
    }

    /// One line with every counter, in which `read` is the sum of what became of the events.
    pub fn summary(&self) -> String {
        let (counters, lanes) = (&self.counters, &self.lane_totals);
        let ended = [&lanes.acknowledged, &lanes.refused, &lanes.lost, &lanes.abandoned].map(Cell::get);
        let [acknowledged, refused, lost, abandoned] = ended;
        format!(
            "events read={} filtered={} malformed={} sent={}; shares={} acknowledged={acknowledged} refused={refused} \
             lost={lost} abandoned={abandoned} unfinished={} failed_tries={}; rings corrupt={}",
            counters.read.get(),
            counters.filtered.get(),
            counters.malformed.get(),
            counters.read.get() - counters.filtered.get() - counters.malformed.get(),
            counters.shares.get(),
            counters.shares.get() - ended.iter().sum::<u64>(),
            lanes.failures.get(),
            counters.corrupt.get(),
        )
    }

    fn attach(&self, path: &Path) -> Result<Attached, OpenError> {
        let file = Arc::new(RingFile::open_consumer(path)?);
        let (reader, releaser, corrupt) = consumer::attach(Arc::clone(&file));
        let ledger = Ledger::new(releaser);
        let published = Arc::new(Notify::new());
        let watcher = Watcher::start(Arc::clone(&file), Arc::clone(&published))
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let capacity = file.capacity();
        self.complaints.say(|more| info!(ring = %path.display(), id = %file.id, capacity, "attached{more}"));
        if let Some(corrupt) = corrupt {
            self.note_corrupt(path, &corrupt);
            ledger.skip(corrupt.resume, 0);
        }
        Ok(Attached { file, reader, ledger, published, _watcher: watcher })
    }

    async fn ring_task(&self, path: &Path, first: Option<Attached>) {
        let mut attached = first;
        while !self.stopping.get() {
            match &mut attached {
                Some(ring) => {
                    if let Some(next) = self.read_until_replaced(path, ring).await {
                        attached = next;
                    }
                }
                None => {
                    attached = self.attach(path).inspect_err(|error| self.complain_about(path, error)).ok();
                    if attached.is_none() {
                        self.sleep(LOOK_AGAIN).await;
                    }
                }
            }
        }
    }

    /// The ring that has taken this one's place, once this one is read to its end; no ring, when its memory went away; nothing at
    /// all when the uplink stops.
    async fn read_until_replaced(&self, path: &Path, ring: &mut Attached) -> Option<Option<Attached>> {
        let mut look = tokio::time::interval(LOOK_AGAIN);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stopping.get() {
            let more = self.read_batch(path, ring);
            if ring.file.lost() {
                self.complaints.say(|more| {
                    warn!(ring = %path.display(), "its file was truncated under us: left, waiting for a new one{more}");
                });
                return Some(None);
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = ring.published.notified() => {}
                () = ring.ledger.released() => {}
                () = self.stop.notified() => {}
                _ = look.tick() => {
                    ring.ledger.refresh();
                    if ring.file.is_replaced_at(path) && ring.ledger.has_room() && !self.read_batch(path, ring)
                        && let Some(next) = self.successor(path, ring)
                    {
                        return Some(Some(next));
                    }
                }
            }
        }
        None
    }

    /// The new ring at `path`, if it is one and the old one's recognizer is gone: one that lives still publishes into the old one,
    /// whatever somebody put in its place.
    fn successor(&self, path: &Path, ring: &Attached) -> Option<Attached> {
        let id = ring.file.id;
        if let Some(pid) = ring.file.holder(Side::Producer) {
            self.complaints.say(|more| {
                warn!(ring = %path.display(), %id, pid, "another file is there now, but its recognizer lives: staying{more}");
            });
            return None;
        }
        let next = self.attach(path).inspect_err(|error| self.complain_about(path, error)).ok()?;
        self.complaints.say(|more| info!(ring = %path.display(), %id, "replaced by a new ring{more}"));
        Some(next)
    }

    /// Reads some events; true when there may be more that can be read now.
    fn read_batch(&self, path: &Path, ring: &mut Attached) -> bool {
        for _ in 0..BATCH {
            if !ring.ledger.has_room() {
                return false;
            }
            match ring.reader.read() {
                Ok(Some(frame)) => self.take(path, ring, &frame),
                Ok(None) => return false,
                Err(corrupt) => {
                    self.note_corrupt(path, &corrupt);
                    ring.ledger.skip(corrupt.resume, 0);
                }
            }
        }
        true
    }

    /// Sends one event on its way, or counts why not.
    fn take(&self, path: &Path, ring: &Attached, frame: &Frame) {
        let event = Event::from_record(&ring.file, frame, ring.file.id);
        if ring.file.lost() {
            return; // what was read may be zeros; the caller leaves the ring
        }
        add(&self.counters.read, 1);
        let event = match event {
            Ok(event) => event,
            Err(malformed) => {
                add(&self.counters.malformed, 1);
                let sequence = frame.header.sequence;
                self.complaints.say(|more| {
                    warn!(ring = %path.display(), sequence, "malformed event skipped: {malformed}{more}");
                });
                return ring.ledger.skip(frame.end, 1);
            }
        };
        if let Some(fault) = &event.ext_fault {
            self.complaints.say(|more| warn!(event = %event.id, "ext_json left out: {fault}{more}"));
        }
        let config = self.config.borrow();
        if event.score < config.threshold.0 {
            add(&self.counters.filtered, 1);
            return ring.ledger.skip(frame.end, 1);
        }
        add(&self.counters.shares, config.event_server_url.len() as u64);
        let ticket = ring.ledger.enter(frame.end, event.weight());
        let source = Arc::clone(&ring.file);
        self.fan_out.send(Upload { event, source }, ticket);
    }

    fn note_corrupt(&self, path: &Path, corrupt: &consumer::Corrupt) {
        add(&self.counters.corrupt, 1);
        self.complaints.say(|more| warn!(ring = %path.display(), "{corrupt}{more}"));
    }

    fn complain_about(&self, path: &Path, error: &OpenError) {
        if !matches!(error, OpenError::Missing(_)) {
            self.complaints.say(|more| warn!(ring = %path.display(), "waiting: {error}{more}"));
        }
    }

    async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.notified() => {}
        }
    }
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
