//! Reads the rings: attaches to a ring, reads its events, and leaves a ring that was replaced or lost.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::ring_watch::RingWatch;
use super::wake_up::WakeUp;
use super::{Phase, Uplink, add};
use crate::deliver::core::Scope;
use crate::deliver::ledger::Ledger;
use crate::event::Event;
use crate::ring::consumer::{self, Frame, Reader};
use crate::ring::file::{Naming, OpenError, RingFile};
use crate::ring::wake::publications;
use crate::ring::{Memory, Word};

/// The interval between checks for a missing ring, and between checks of a ring that holds events: whether it was replaced,
/// whether its recognizer is alive, whether events were refused.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The interval for a ring without events, so that an idle box is rarely woken.
const LOOK_IDLE: Duration = Duration::from_secs(5);
/// How many events are read at once before uploads get to run.
const BATCH: usize = 32;
/// How often, and after which pause, a ring that is in use is tried again at the start.
const LOCK_TRIES: u32 = 3;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// There may be more events.
    Full,
    /// No event can be read: one must be released first, or reading ends here.
    NoRoom,
    /// All published events were read.
    End,
}

/// A ring that is being read.
pub(super) struct Attached {
    pub(super) file: Arc<RingFile>,
    reader: Reader<Arc<RingFile>>,
    pub(super) ledger: Rc<Ledger>,
    wake_up: WakeUp,
    /// The position at which reading ends, once the uplink stops.
    read_to: Option<u64>,
    /// How many events were refused for lack of room, at the last check.
    pub(super) dropped: u64,
    /// The length of the largest record so far, in bytes.
    pub(super) largest: u64,
    /// When to give up uploads, if their room is needed, but not at once.
    pub(super) relief_at: Option<Instant>,
}

impl Attached {
    /// Whether all events before the end were read.
    fn is_read(&self) -> bool {
        self.read_to.is_some_and(|end| self.reader.is_past(end))
    }
}

impl Uplink {
    /// Attaches to the ring at `path` once it exists, and reads it until [`Uplink::stop`].
    ///
    /// # Errors
    /// [`OpenError::Busy`] if another uplink has the ring at the start.
    pub fn read_ring(self: &Rc<Self>, path: PathBuf) -> Result<tokio::task::JoinHandle<()>, OpenError> {
        let watch = Rc::new(RingWatch::new(path));
        self.rings.borrow_mut().push(Rc::clone(&watch));
        let mut tries_left = LOCK_TRIES;
        let first = loop {
            match self.attach(&watch) {
                Ok(attached) => break Some(attached),
                // A recognizer holds the consumer's lock for microseconds, when it makes an older ring one of ABI 2.
                Err(OpenError::Busy { .. }) if tries_left > 0 => {
                    tries_left -= 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(error @ OpenError::Busy { .. }) => return Err(error),
                Err(error) => {
                    warn!("waiting: {error}");
                    break None;
                }
            }
        };
        let uplink = Rc::clone(self);
        self.reading.set(self.reading.get() + 1);
        Ok(tokio::task::spawn_local(async move {
            uplink.ring_task(&watch, first).await;
            uplink.reading.set(uplink.reading.get() - 1);
        }))
    }

    fn attach(&self, watch: &RingWatch) -> Result<Attached, OpenError> {
        let path = &watch.path;
        let file = Arc::new(RingFile::open_consumer(path).map_err(|error| self.held_by_us(error))?);
        let (reader, releaser, corrupt) = consumer::attach(Arc::clone(&file));
        let ledger = Ledger::new(Arc::clone(&file), releaser);
        let wake_up = WakeUp::of(&file, path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let capacity = file.capacity();
        watch.reads(Some(&file));
        watch.log_limiter.say(|more| info!(ring = %path.display(), id = %file.id, capacity, "attached{more}"));
        if let Some(corrupt) = corrupt {
            self.note_corrupt(watch, &corrupt);
            ledger.skip(corrupt.resume, 0);
        }
        let dropped = file.load(Word::Dropped, Ordering::Relaxed);
        Ok(Attached { file, reader, ledger, wake_up, read_to: None, dropped, largest: 0, relief_at: None })
    }

    /// A ring that is in use may be in use by this process: two entries of the config may name the same file, or a ring may come
    /// back under its name before its events are done.
    fn held_by_us(&self, error: OpenError) -> OpenError {
        let OpenError::Busy { path, pid, inode, .. } = &error else { return error };
        let rings = self.rings.borrow();
        let what = match rings.iter().find(|other| other.is_reading(*inode)) {
            Some(other) => {
                let other = other.path.display();
                format!("the same ring as {other}, and read as that one: remove one of the two from `rings`")
            }
            None if *pid == std::process::id() => "still being read to its end by this process".into(),
            None => return error,
        };
        OpenError::Ours { path: path.clone(), what }
    }

    async fn ring_task(&self, watch: &RingWatch, first: Option<Attached>) {
        let mut attached = first;
        while self.phase.get() != Phase::Over {
            match &mut attached {
                Some(ring) => {
                    let Some(next) = self.read_until_replaced(watch, ring).await else { return };
                    if next.is_none() {
                        watch.reads(None);
                    }
                    attached = next;
                }
                None if self.phase.get() != Phase::Running => return,
                None => {
                    attached = self.attach(watch).inspect_err(|error| watch.log_problem(error)).ok();
                    if attached.is_none() {
                        self.sleep(LOOK_AGAIN).await;
                    }
                }
            }
        }
    }

    /// Reads a ring to its end. Returns the ring that replaced it; or no ring, if its memory or its name has gone; or nothing at
    /// all, if the uplink stops and has read what was published before.
    async fn read_until_replaced(&self, watch: &RingWatch, ring: &mut Attached) -> Option<Option<Attached>> {
        let look = sleep_until(Instant::now());
        tokio::pin!(look);
        let mut was_idle = false;
        while self.phase.get() != Phase::Over {
            if self.phase.get() == Phase::Ending && ring.read_to.is_none() {
                ring.read_to = Some(ring.file.load(Word::Head, Ordering::Acquire));
            }
            let seen = publications(&ring.file);
            let read = self.read_batch(watch, ring);
            self.relieve(ring);
            if ring.is_read() {
                return None;
            }
            if ring.file.lost() {
                watch.log_limiter.say(|more| {
                    warn!(ring = %watch.path.display(), "the ring's file was truncated: waiting for a new one{more}");
                });
                return Some(None);
            }
            if read == Batch::Full {
                tokio::task::yield_now().await;
                continue;
            }
            if was_idle && ring.ledger.oldest().is_some() {
                was_idle = false;
                let next = look.deadline().min(self.next_look(LOOK_AGAIN));
                look.as_mut().reset(next);
            }
            tokio::select! {
                () = ring.wake_up.published(&ring.file, seen) => {}
                () = ring.ledger.released() => {}
                () = reached(ring.relief_at) => {}
                () = self.stop.notified() => {}
                () = &mut look => {
                    was_idle = ring.ledger.oldest().is_none();
                    look.as_mut().reset(self.next_look(if was_idle { LOOK_IDLE } else { LOOK_AGAIN }));
                    ring.ledger.refresh();
                    ring.wake_up.follow(&ring.file, &watch.path, seen);
                    if let Some(next) = self.leave(watch, ring) {
                        return Some(next);
                    }
                }
            }
        }
        None
    }

    /// The time of the next check of a ring. All rings have the same times, so that many rings wake the box no more often than
    /// one.
    pub(super) fn next_look(&self, pause: Duration) -> Instant {
        let (began, now) = (self.started, Instant::now());
        let pauses = now.duration_since(began).as_millis() / pause.as_millis() + 1;
        began + pause * pauses as u32
    }

    /// Decides whether to leave the ring, and for which one. That is the case if its name belongs to another file or to none, its
    /// recognizer is gone, and it is read to its end. The order of the checks matters: a recognizer publishes before it releases
    /// its lock, so what is read after that is complete. A recognizer that is alive still publishes into the old ring, whatever
    /// file is in its place.
    fn leave(&self, watch: &RingWatch, ring: &mut Attached) -> Option<Option<Attached>> {
        let (naming, id) = (watch.look(&ring.file), ring.file.id);
        let path = watch.path.display();
        if naming == Naming::This {
            return None;
        }
        if watch.has_recognizer() {
            if naming == Naming::Another {
                watch.log_limiter.say(|more| {
                    warn!(ring = %path, %id, "another file is at its path now, but its recognizer is alive: the ring is still read{more}");
                });
            }
            return None;
        }
        if self.read_batch(watch, ring) != Batch::End {
            return None;
        }
        if naming == Naming::Nothing {
            watch
                .log_limiter
                .say(|more| info!(ring = %path, %id, "its file and its recognizer are gone: detached{more}"));
            return Some(None);
        }
        let next = self.attach(watch).inspect_err(|error| watch.log_problem(error)).ok()?;
        watch.log_limiter.say(|more| info!(ring = %path, %id, "replaced by a new ring{more}"));
        Some(Some(next))
    }

    /// Reads a batch of events.
    fn read_batch(&self, watch: &RingWatch, ring: &mut Attached) -> Batch {
        for _ in 0..BATCH {
            if !ring.ledger.has_room() || ring.is_read() {
                return Batch::NoRoom;
            }
            match ring.reader.read() {
                Ok(Some(frame)) => self.take(watch, ring, &frame),
                Ok(None) => return Batch::End,
                Err(corrupt) => {
                    self.note_corrupt(watch, &corrupt);
                    ring.ledger.skip(corrupt.resume, 0);
                }
            }
        }
        Batch::Full
    }

    /// Passes one event to the driver, or counts why not.
    fn take(&self, watch: &RingWatch, ring: &mut Attached, frame: &Frame) {
        ring.largest = ring.largest.max(u64::from(frame.header.length));
        let event = Event::from_record(&ring.file, frame, ring.file.id);
        if ring.file.lost() {
            return; // zeros may have been read; the caller leaves the ring
        }
        add(&self.counters.read, 1);
        watch.event_came();
        let mut event = match event {
            Ok(event) => event,
            Err(malformed) => {
                add(&self.counters.malformed, 1);
                let (path, sequence) = (watch.path.display(), frame.header.sequence);
                watch.log_limiter.say(|more| {
                    warn!(ring = %path, sequence, "malformed event skipped: {malformed}{more}");
                });
                return ring.ledger.skip(frame.end, 1);
            }
        };
        let mended = std::mem::take(&mut event.mended);
        add(&self.counters.mended, u64::from(!mended.is_empty()));
        for mended in mended {
            let (kind, event) = ((mended.field, mended.how as u32), event.id);
            watch.log_limiter.say_of(kind, |more| warn!(%event, "{mended}{more}"));
        }
        let setup = self.setup.borrow();
        let config = setup.config();
        let is_filtered = event.score < config.threshold.0;
        add(&self.counters.filtered, u64::from(is_filtered));
        match (is_filtered, &config.history) {
            (false, _) => self.driver.publish(event, Scope::All, |number| ring.ledger.enter(frame, number)),
            (true, Some(_)) => self.driver.publish(event, Scope::History, |number| ring.ledger.enter(frame, number)),
            (true, None) => ring.ledger.skip(frame.end, 1),
        }
    }

    fn note_corrupt(&self, watch: &RingWatch, corrupt: &consumer::Corrupt) {
        add(&self.counters.corrupt, 1);
        watch.log_limiter.say(|more| warn!(ring = %watch.path.display(), "{corrupt}{more}"));
    }

    async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.notified() => {}
        }
    }
}

/// Waits until `moment`; for ever if there is none.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
