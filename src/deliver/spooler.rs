//! From memory to the spool: deliveries that some lane cannot send now, or that the ring cannot hold any longer, oldest first.
//!
//! One event is written once for all destinations that lack it; one that comes to need it later shares the file. Where the spool
//! cannot be used, events stay where they are, in the ring, and uploads go on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::delivery::{Delivery, Job};
use crate::rate_limited::RateLimited;
use crate::ring::mapping::MappedFile;
use crate::spool::batch::Order;
use crate::spool::store::Reason;
use crate::spool::worker::{RealSpool, Worker};
use crate::spool::{Destination, Evicted, Fault, Reassigned, Recovered, SpooledEvent, State, StoreError, Stored};

/// Events written together, at most, and about how many bytes of them: the disk is busy with them for a while, and whoever wants to
/// read waits.
const BATCH: usize = 32;
const BATCH_BYTES: u32 = 4 << 20;
/// Pauses between tries while the spool cannot be used.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Writes deliveries into the spool.
pub struct Spooler {
    /// The spool's thread.
    pub worker: Worker,
    /// By order.
    waiting: RefCell<BTreeMap<u64, Rc<Delivery>>>,
    changed: Notify,
    trouble: RefCell<Option<Trouble>>,
    /// Folders of removed destinations that are still to be emptied, and to whom.
    removals: RefCell<Vec<Removal>>,
    /// Events came into folders other than by a delivery's being stored; for one who waits.
    pub found_more: Notify,
    complaints: RateLimited,
    is_writing: Cell<bool>,
}

/// Why nothing can be written.
#[derive(Debug)]
struct Trouble {
    why: String,
    pause: Duration,
    until: Instant,
}

#[derive(Clone, Debug)]
struct Removal {
    removed: Destination,
    added: Vec<Destination>,
    /// It failed before, and is tried again then.
    not_before: Option<Instant>,
}

/// What came of a [`Job`] that was done.
#[derive(Default)]
struct Done {
    counter: u64,
    /// Destinations that lacked it.
    linked: u64,
    evicted: Vec<Evicted>,
    /// The stored event, where an upload is to read on in it.
    moved: Option<Arc<SpooledEvent<MappedFile>>>,
    /// A dead letter that stays among what waits.
    fault: Option<String>,
}

impl Spooler {
    /// A spooler for the spool of `worker`; [`Spooler::run`] works it.
    pub fn new(worker: Worker) -> Rc<Spooler> {
        Rc::new(Spooler {
            worker,
            waiting: RefCell::default(),
            changed: Notify::new(),
            trouble: RefCell::default(),
            removals: RefCell::default(),
            found_more: Notify::new(),
            complaints: RateLimited::new(10, Duration::from_secs(10)),
            is_writing: Cell::new(false),
        })
    }

    /// There may be something to write of this delivery.
    pub fn add(&self, delivery: Rc<Delivery>) {
        self.waiting.borrow_mut().insert(delivery.order, delivery);
        self.changed.notify_one();
    }

    /// Why nothing can be written just now.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().as_ref().map(|trouble| trouble.why.clone())
    }

    /// Tries again at once, whatever failed before.
    pub fn try_now(&self) {
        self.trouble.take();
        self.changed.notify_one();
    }

    /// Whether nothing is being written, and nothing will be before the next pause is over.
    pub fn is_at_rest(&self) -> bool {
        !self.is_writing.get() && (self.waiting.borrow().is_empty() || self.trouble.borrow().is_some())
    }

    /// A destination was removed: what waits for it waits for `added` from now on; with none, it becomes dead letters.
    pub fn reassign(&self, removed: Destination, added: Vec<Destination>) {
        self.removals.borrow_mut().push(Removal { removed, added, not_before: None });
        self.changed.notify_one();
    }

    /// Says what a start found, and sees to what waits for destinations that are not there any more.
    pub fn found(&self, found: &Recovered) {
        if let Some(fault) = &found.unavailable {
            return self.fails(&format!("the spool is unavailable: {fault}"));
        }
        self.works();
        self.found_more.notify_one();
        let Recovered { events, bytes, .. } = found;
        if *events > 0 {
            info!(events, bytes, "the spool has events of an earlier run");
        }
        for (from, to) in &found.set_aside {
            let to = to.as_ref().map_or("removed, it was too large".into(), |to| format!("now {}", to.display()));
            warn!("not a file of the spool: {} is {to}", from.display());
        }
        found.problems.iter().for_each(|fault| warn!("{fault}"));
        for removed in &found.removed {
            let url = removed.url.as_deref().unwrap_or("unknown");
            info!(url, events = removed.events, "a destination with spooled events is not in the config any more");
            self.reassign(removed.destination, found.added.clone());
        }
    }

    /// Works until the process ends.
    pub async fn run(self: Rc<Self>) {
        loop {
            let until = self.trouble.borrow().as_ref().map(|trouble| trouble.until);
            let timer = match until.filter(|until| *until > Instant::now()) {
                Some(until) => Some(until),
                None if self.work().await => continue,
                None => self.removals.borrow().iter().filter_map(|removal| removal.not_before).min(),
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }

    /// Does one thing; false when there is none to do now.
    async fn work(&self) -> bool {
        if self.trouble.borrow().is_some()
            && let Some(found) = self.worker.call(make_available).await
        {
            self.found(&found);
            if found.unavailable.is_some() {
                return false;
            }
        }
        self.remove().await || self.write().await
    }

    async fn write(&self) -> bool {
        let (deliveries, jobs) = self.batch();
        if jobs.is_empty() {
            return false;
        }
        self.is_writing.set(true);
        let done = self.worker.call(move |spool| store_all(spool, &jobs)).await;
        self.is_writing.set(false);
        let mut goes_on = true;
        for (delivery, done) in deliveries.into_iter().zip(done) {
            goes_on &= self.was_written(delivery, done);
        }
        goes_on
    }

    /// The oldest deliveries with something to write.
    fn batch(&self) -> (Vec<Rc<Delivery>>, Vec<Job>) {
        let (mut deliveries, mut jobs, mut bytes) = (Vec::new(), Vec::<Job>::new(), 0);
        while jobs.len() < BATCH && bytes < BATCH_BYTES && jobs.iter().all(Job::is_plain) {
            let Some((delivery, job)) = self.next() else { break };
            bytes += job.frame.header.length;
            deliveries.push(delivery);
            jobs.push(job);
        }
        (deliveries, jobs)
    }

    /// Goes on with a delivery whose job was done, or not; true when the spool can do another one.
    fn was_written(&self, delivery: Rc<Delivery>, done: Result<Done, StoreError>) -> bool {
        match done {
            Ok(done) => {
                self.works();
                self.tell(&done);
                delivery.stored(done.counter, done.linked);
                if let Some(event) = done.moved {
                    let frame = event.frame;
                    delivery.relocate(event, frame);
                }
                self.add(delivery); // there may be more to do for it
                true
            }
            Err(error) => {
                self.tell_evicted(&error.evicted);
                let is_unfit = matches!(error.reason, Reason::TooLarge(_) | Reason::Lost);
                if is_unfit {
                    let event = delivery.upload.event.id;
                    self.complaints.say(|more| warn!(%event, "{error}: it stays in the ring{more}"));
                } else {
                    self.fails(&error.to_string());
                }
                delivery.not_stored(is_unfit);
                self.add(delivery);
                is_unfit
            }
        }
    }

    /// The oldest delivery with something to write; those with nothing are forgotten.
    fn next(&self) -> Option<(Rc<Delivery>, Job)> {
        loop {
            let delivery = self.waiting.borrow_mut().pop_first()?.1;
            if let Some(job) = delivery.job() {
                return Some((delivery, job));
            }
        }
    }

    /// Gives the events of removed destinations their new place; false when there is none to be done now.
    async fn remove(&self) -> bool {
        let is_due = |removal: &mut Removal| removal.not_before.is_none_or(|moment| moment <= Instant::now());
        let due: Vec<_> = self.removals.borrow_mut().extract_if(.., is_due).collect();
        if due.is_empty() {
            return false;
        }
        let (inherited, jobs) = self.inherited();
        let removals = due.clone();
        // In one go: no heir may deliver an event before it is clear whether it gets it from anybody else too.
        let done = self.worker.call(move |spool| {
            let reassigned = removals.iter().map(|removal| spool.reassign(removal.removed, &removal.added));
            let reassigned: Vec<_> = reassigned.collect();
            (reassigned, jobs.iter().map(|job| store(spool, job)).collect::<Vec<_>>())
        });
        let (reassigned, done) = done.await;
        for (delivery, done) in inherited.into_iter().zip(done) {
            self.was_written(delivery, done);
        }
        for (removal, reassigned) in due.into_iter().zip(reassigned) {
            self.was_reassigned(removal, reassigned);
        }
        true
    }

    fn was_reassigned(&self, removal: Removal, done: Result<Reassigned, Fault>) {
        match done {
            Ok(Reassigned { moved, dead }) if moved + dead > 0 => {
                info!(moved, dead, "the spooled events of a removed destination have a new place");
                self.found_more.notify_one();
            }
            Ok(_nothing) => {}
            Err(fault) => {
                self.complaints.say(|more| warn!("{fault}: what waits for a removed destination stays there{more}"));
                let not_before = Some(Instant::now() + PAUSES.1);
                self.removals.borrow_mut().push(Removal { not_before, ..removal });
            }
        }
    }

    /// What heirs of removed lanes are to be given in the spool.
    fn inherited(&self) -> (Vec<Rc<Delivery>>, Vec<Job>) {
        let waiting: Vec<_> =
            self.waiting.borrow().values().filter(|delivery| delivery.is_inherited()).cloned().collect();
        waiting.into_iter().filter_map(|delivery| delivery.job().map(|job| (delivery, job))).unzip()
    }

    fn works(&self) {
        if let Some(trouble) = self.trouble.take() {
            info!("the spool works again (was: {})", trouble.why);
        }
    }

    fn fails(&self, why: &str) {
        let mut trouble = self.trouble.borrow_mut();
        let pause = trouble.as_ref().map_or(PAUSES.0, |trouble| (trouble.pause * 2).min(PAUSES.1));
        if trouble.as_ref().is_none_or(|trouble| trouble.why != why) {
            warn!("{why}: events stay in the ring, uploads go on");
        }
        *trouble = Some(Trouble { why: why.to_owned(), pause, until: Instant::now() + pause });
    }

    fn tell(&self, done: &Done) {
        self.tell_evicted(&done.evicted);
        if let Some(fault) = &done.fault {
            self.complaints.say(|more| warn!("{fault}{more}"));
        }
    }

    fn tell_evicted(&self, evicted: &[Evicted]) {
        for Evicted { counter, destinations } in evicted {
            let destinations = destinations.len();
            self.complaints.say(|more| {
                warn!(counter, destinations, "the spool is full: the oldest event was given up for a newer one{more}");
            });
        }
    }
}

/// Lists the folders of a spool that could not be used so far.
fn make_available(spool: &mut RealSpool) -> Option<Recovered> {
    matches!(spool.state(), State::Unavailable(_)).then(|| spool.open_again())
}

/// In the spool's thread: several events at once, where they are new to the spool and nothing else is to be done.
fn store_all(spool: &mut RealSpool, jobs: &[Job]) -> Vec<Result<Done, StoreError>> {
    let plain = jobs.iter().take_while(|job| job.is_plain()).count();
    let (together, alone) = jobs.split_at(plain);
    let orders =
        together.iter().map(|Job { ring, record, frame, to, .. }| Order { ring: *ring, source: &**record, frame, to });
    let stored = spool.store_all(&orders.collect::<Vec<_>>());
    let done = together.iter().zip(stored).map(|(job, stored)| {
        let Stored { counter, evicted } = stored?;
        Ok(finish(spool, job, Done { counter, linked: job.to.len() as u64, evicted, ..Done::default() }))
    });
    let mut done: Vec<_> = done.collect();
    done.extend(alone.iter().map(|job| store(spool, job)));
    done
}

/// One file for all destinations, shared where there is one already.
fn store(spool: &mut RealSpool, job: &Job) -> Result<Done, StoreError> {
    let fail = |reason: Reason| StoreError { reason, evicted: Vec::new() };
    let mut to = job.to.clone();
    for url in &job.dead {
        to.push(spool.add_removed(url).map_err(|fault| fail(fault.into()))?);
    }
    let shared = job.counter.and_then(|counter| Some((counter, spool.share(counter, &to).ok()?)));
    let done = match shared {
        Some((counter, linked)) => Done { counter, linked, ..Done::default() },
        None => {
            let Stored { counter, evicted } = spool.store(job.ring, &*job.record, &job.frame, &to)?;
            Done { counter, linked: to.len() as u64, evicted, ..Done::default() }
        }
    };
    Ok(finish(spool, job, done))
}

/// What is to be done once an event is stored: its uploads read on in the file, and those that nobody wants become dead letters.
fn finish(spool: &mut RealSpool, job: &Job, done: Done) -> Done {
    let counter = done.counter;
    job.flying.iter().for_each(|destination| spool.hand_out(*destination, counter));
    let moved = job.flying.first().and_then(|destination| spool.read(*destination, counter).ok().map(Arc::new));
    let bury = |url| spool.to_dead(Destination::of(url), counter).err().map(|fault| fault.to_string());
    let fault = job.dead.iter().map(String::as_str).filter_map(bury).last();
    Done { moved, fault, ..done }
}
