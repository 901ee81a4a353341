//! From memory to the spool: deliveries that some lane cannot send now, or that the ring cannot hold any longer, oldest first.
//!
//! One event is written once for all destinations that lack it; one that comes to need it later shares the file. Where the spool
//! cannot be used, events stay where they are, in the ring, and uploads go on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::delivery::{Delivery, NotStored};
use super::job::{self, Done, Job};
use crate::rate_limited::RateLimited;
use crate::spool::store::Reason;
use crate::spool::worker::{RealSpool, Worker};
use crate::spool::{Evicted, Recovered, State, StoreError};

/// Events written together, at most, and about how many bytes of them: the disk is busy with them for a while, and whoever wants to
/// read waits.
const BATCH: usize = 32;
const BATCH_BYTES: u32 = 4 << 20;
/// An event that is to be stored waits so long for others, and for the uploads that it came with: its write is not to take the
/// processor from them. It is in the ring meanwhile.
const LINGER: Duration = Duration::from_millis(10);
/// Pauses between tries while the spool cannot be used.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Between two looks for a key that sealed events wait for.
const KEY_PAUSE: Duration = Duration::from_secs(2);

/// Writes deliveries into the spool.
pub struct Spooler {
    /// The spool's thread.
    pub worker: Worker,
    /// By order.
    waiting: RefCell<BTreeMap<u64, Rc<Delivery>>>,
    changed: Notify,
    /// The ring or the end of the process waits for what is to be written.
    hurry: Cell<bool>,
    hurried: Notify,
    trouble: RefCell<Option<Trouble>>,
    looks_for_key: Cell<bool>,
    /// When what waits for removed destinations is to be moved to their heirs.
    settle_at: Cell<Option<Instant>>,
    /// Events came into folders other than by a delivery's being stored; for one who waits.
    pub found_more: Notify,
    complaints: RateLimited,
    /// What was given up and not said yet: events and dead letters.
    given_up: Cell<(usize, usize)>,
    evictions: RateLimited,
    /// Events that heirs have by now, and that was not said yet.
    moved: Cell<u64>,
}

/// Why nothing can be written.
#[derive(Debug)]
struct Trouble {
    why: String,
    /// There was no key to seal with.
    lacks_key: bool,
    pause: Duration,
    until: Instant,
}

impl Spooler {
    /// A spooler for the spool of `worker`; [`Spooler::run`] works it.
    pub fn new(worker: Worker) -> Rc<Spooler> {
        Rc::new(Spooler {
            worker,
            waiting: RefCell::default(),
            changed: Notify::new(),
            hurry: Cell::new(false),
            hurried: Notify::new(),
            trouble: RefCell::default(),
            looks_for_key: Cell::new(false),
            settle_at: Cell::new(None),
            found_more: Notify::new(),
            complaints: RateLimited::new(3),
            given_up: Cell::default(),
            evictions: RateLimited::new(1),
            moved: Cell::new(0),
        })
    }

    /// There may be something to write of this delivery.
    pub fn add(&self, delivery: Rc<Delivery>) {
        self.waiting.borrow_mut().insert(delivery.order, delivery);
        self.changed.notify_one();
    }

    /// There is no time to lose, until everything is written.
    pub fn hurry(&self) {
        self.hurry.set(true);
        self.hurried.notify_one();
    }

    /// Why nothing can be written just now.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().as_ref().map(|trouble| trouble.why.clone())
    }

    /// Whether a try failed that began after the last [`Spooler::try_now`].
    pub fn is_in_trouble(&self) -> bool {
        self.trouble.borrow().as_ref().is_some_and(|trouble| trouble.until > Instant::now())
    }

    /// The spool is unavailable, as it says itself: it is opened again.
    pub fn reopen(&self) {
        if self.trouble.borrow().is_none() {
            self.fails("the spool's folder is not the one that was opened: it is opened anew", false);
        }
        self.changed.notify_one();
    }

    /// Tries again at once, whatever failed before.
    pub fn try_now(&self) {
        if let Some(trouble) = &mut *self.trouble.borrow_mut() {
            trouble.until = Instant::now();
        }
        self.changed.notify_one();
    }

    /// There may be something in the spool for a destination that was removed, or was put back.
    pub fn settle(&self) {
        self.settle_at.set(Some(Instant::now()));
        self.found_more.notify_one();
        self.try_now();
    }

    /// Sealed events wait for a key that is missing: looks for it until it is there, or nothing is to be sealed any more. Where nothing
    /// is to be written either, nobody else looks.
    pub fn look_for_key(self: &Rc<Self>) {
        if self.looks_for_key.replace(true) {
            return;
        }
        let spooler = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while spooler.worker.call(|spool| spool.check_key().is_err()).await {
                tokio::time::sleep(KEY_PAUSE).await;
            }
            spooler.looks_for_key.set(false);
            spooler.found_more.notify_one();
        });
    }

    /// Says what a start found, and sees to what waits for destinations that are not there any more.
    pub fn found(&self, found: &Recovered) {
        if let Some(fault) = &found.unavailable {
            return self.fails(&format!("the spool is unavailable: {fault}"), false);
        }
        self.works();
        self.found_more.notify_one();
        let Recovered { events, bytes, .. } = found;
        if *events > 0 {
            info!(events, bytes, "the spool has events of an earlier run");
        }
        if found.left > 0 {
            warn!(
                events = found.left,
                "another folder lies at the spool's path: what the one before holds is moved into it"
            );
        }
        if found.vanished > 0 {
            warn!(events = found.vanished, "spooled events are not there any more: somebody removed them");
        }
        for (from, to) in &found.set_aside {
            let to = to.as_ref().map_or("removed, it was too large".into(), |to| format!("now {}", to.display()));
            warn!("not a file of the spool: {} is {to}", from.display());
        }
        found.problems.iter().for_each(|fault| warn!("{fault}"));
        for removed in &found.removed {
            let url = removed.url.as_deref().unwrap_or("unknown");
            info!(url, events = removed.events, "a destination with spooled events is not in the config any more");
        }
        self.settle_at.set(Some(Instant::now()));
    }

    /// Works until the process ends.
    pub async fn run(self: Rc<Self>) {
        loop {
            self.linger().await;
            if !self.is_in_trouble() && self.work().await {
                continue;
            }
            // A pause that is over with nothing to write is waited for no more.
            let trouble = self.trouble.borrow().as_ref().map(|trouble| trouble.until);
            let trouble = trouble.filter(|until| *until > Instant::now());
            let timer = trouble.or(self.settle_at.get());
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }

    async fn linger(&self) {
        if self.waiting.borrow().is_empty() {
            return self.hurry.set(false);
        }
        if !self.hurry.get() {
            let _hurried = tokio::time::timeout(LINGER, self.hurried.notified()).await;
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
        let lacks_key = self.trouble.borrow().as_ref().is_some_and(|trouble| trouble.lacks_key);
        if lacks_key && self.worker.call(|spool| spool.check_key().is_ok()).await {
            self.works();
        }
        // In turn: neither keeps the other waiting.
        let (wrote, settled) = (self.write().await, self.settle_some().await);
        wrote || settled
    }

    async fn write(&self) -> bool {
        let (deliveries, jobs) = self.batch();
        if jobs.is_empty() {
            self.forget_trouble();
            return false;
        }
        let done = self.worker.call(move |spool| job::do_all(spool, &jobs)).await;
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
                delivery.stored(done.counter);
                if let Some(event) = done.moved {
                    let frame = event.frame;
                    delivery.relocate(event, frame);
                }
                self.add(delivery); // there may be more to do for it
                true
            }
            Err(error) => {
                self.tell_evicted(&error.evicted);
                let lacks_key = matches!(error.reason, Reason::NoKey(_));
                let why = match error.reason {
                    Reason::TooLarge(_) | Reason::NoSuchDestination => NotStored::Unfit,
                    Reason::Lost => NotStored::Lost,
                    _ => NotStored::Later,
                };
                if why == NotStored::Later {
                    self.fails(&error.to_string(), lacks_key);
                } else {
                    let event = delivery.upload.event.id;
                    self.complaints.say(|more| warn!(%event, "{error}{more}"));
                }
                delivery.not_stored(why);
                self.add(delivery);
                why != NotStored::Later
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

    /// Moves some events of removed destinations to their heirs; false when there is none to be moved now.
    async fn settle_some(&self) -> bool {
        let is_due = self.settle_at.get().is_some_and(|moment| moment <= Instant::now());
        // All that waited for removed destinations must be in their folders: else an heir may deliver an event, and get it again.
        if !is_due || self.waiting.borrow().values().any(|delivery| delivery.waits_for_removed()) {
            return false;
        }
        self.settle_at.set(None); // whoever comes meanwhile says so
        match self.worker.call(|spool| spool.settle()).await {
            Ok(Some(moved)) => {
                self.moved.set(self.moved.get() + moved);
                self.settle();
                true
            }
            Ok(None) => {
                let moved = self.moved.take();
                if moved > 0 {
                    info!(moved, "spooled events of a removed destination wait for those that are new");
                }
                false
            }
            Err(fault) => {
                self.complaints.say(|more| warn!("{fault}: what waits for a removed destination stays there{more}"));
                self.settle_at.set(Some(Instant::now() + PAUSES.1));
                false
            }
        }
    }

    fn works(&self) {
        if let Some(trouble) = self.trouble.take() {
            info!("the spool works again (was: {})", trouble.why);
            self.found_more.notify_one(); // what could not be read either, for want of the key
        }
    }

    /// Nothing waits to be written any more: what failed last is no trouble now, and the next event will show whether it still would be.
    /// A spool that cannot be used at all says so itself.
    fn forget_trouble(&self) {
        if self.waiting.borrow().is_empty() && self.trouble.borrow().as_ref().is_some_and(|trouble| !trouble.lacks_key)
        {
            self.trouble.take();
        }
    }

    fn fails(&self, why: &str, lacks_key: bool) {
        let mut trouble = self.trouble.borrow_mut();
        // Several events of one batch are one failure.
        let longer = |trouble: &Trouble| if trouble.until > Instant::now() { trouble.pause } else { trouble.pause * 2 };
        let pause = trouble.as_ref().map_or(PAUSES.0, |trouble| longer(trouble).min(PAUSES.1));
        if trouble.as_ref().is_none_or(|trouble| trouble.why != why) {
            warn!("{why}: events stay in the ring, uploads go on");
        }
        *trouble = Some(Trouble { why: why.to_owned(), lacks_key, pause, until: Instant::now() + pause });
    }

    fn tell(&self, done: &Done) {
        self.tell_evicted(&done.evicted);
        if let Some(fault) = &done.fault {
            self.complaints.say(|more| warn!("{fault}{more}"));
        }
    }

    fn tell_evicted(&self, evicted: &[Evicted]) {
        if evicted.is_empty() {
            return;
        }
        let letters = evicted.iter().filter(|one| one.was_dead).count();
        let (events, dead_letters) = self.given_up.get();
        self.given_up.set((events + evicted.len() - letters, dead_letters + letters));
        self.evictions.say(|_| {
            let (events, dead_letters) = self.given_up.take();
            warn!(events, dead_letters, "the spool is full: the oldest were given up; this is said once a minute");
        });
    }
}

/// Lists the folders of a spool that could not be used so far.
fn make_available(spool: &mut RealSpool) -> Option<Recovered> {
    matches!(spool.state(), State::Unavailable(_)).then(|| spool.open_again())
}
