//! One destination's lane: its queue, its uploads, its state. Nothing here knows of another lane, so a slow, dead or poisoned
//! destination costs the others nothing.
//!
//! ```text
//!            ┌────────────── acknowledged ──────────────┐
//!            ▼                                          │
//!  Up: up to IN_FLIGHT uploads ──failure──▶ Waiting ──pause over──▶ Probing: one upload
//!                                             ▲                           │
//!                                             └────────── failure ────────┘
//! ```
//!
//! Events go out oldest first. A failed one goes back to its place; but where the server took the connection and then failed, the
//! fault may be the event's: the next probe is another one, so that no event can hold up all others, and this one waits a while
//! of its own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::client::{Client, IDLE_LIMIT, Settings};
use super::outcome::Outcome;
use super::{Delivery, backoff};
use crate::config::Url;
use crate::rate_limited::RateLimited;

/// Uploads at once to a destination that is up: enough to fill a connection of some latency, few enough for the memory budget.
pub const IN_FLIGHT: usize = 4;
/// This many refusals in a row are the server's fault, not the events'.
const BROKEN_AFTER: u32 = 5;

/// What became of a lane's share of the events.
#[derive(Debug, Default)]
pub struct LaneCounters {
    /// 2xx.
    pub acknowledged: Cell<u64>,
    /// The server did not want the event; it was given up.
    pub refused: Cell<u64>,
    /// The event's pictures went away (the ring's file was truncated).
    pub lost: Cell<u64>,
    /// The destination was removed from the config, and none was added that could get the event instead, or that does not get it
    /// already.
    pub abandoned: Cell<u64>,
    /// Tries that came to nothing; not the end of an event.
    pub failures: Cell<u64>,
}

/// A destination and what waits for it.
pub struct Lane {
    client: Client,
    /// Oldest first.
    queue: RefCell<VecDeque<Waiting>>,
    state: RefCell<State>,
    in_flight: Cell<usize>,
    /// Something of the above changed.
    changed: Notify,
    phase: RefCell<Phase>,
    random: RefCell<fastrand::Rng>,
    /// Messages about single events.
    complaints: RateLimited,
    /// What became of its events.
    pub counters: LaneCounters,
    /// The same over all lanes, removed ones too.
    totals: Rc<LaneCounters>,
}

/// An event in the queue, or on its way.
struct Waiting {
    delivery: Rc<Delivery>,
    /// Tries that failed and may have been the event's fault.
    failures: u32,
    /// Others go first until then.
    not_before: Option<Instant>,
}

/// Where an event goes that comes to the lane, new or back from a failed try.
enum Phase {
    /// Into the queue.
    Open,
    /// The destination was removed: to the lane that inherits, or it is given up.
    Closed(Option<Rc<Lane>>),
    /// The process ends: nowhere. It is not released, so it stays in the ring.
    Suspended,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last success, counted once a pause.
    failures: u32,
    refusals: u32,
    /// No upload starts before.
    paused_until: Option<Instant>,
    /// The last failure's reason, so that it is logged once and not at every try; none while the lane is up.
    why: Option<String>,
    /// Counts the configurations: what began under an old one says nothing about the new one.
    generation: u64,
}

impl Lane {
    /// A lane for `url`; [`Lane::run`] works it.
    pub fn new(url: Url, settings: Settings, totals: Rc<LaneCounters>) -> Rc<Lane> {
        Rc::new(Lane {
            client: Client::new(url, settings),
            queue: RefCell::default(),
            state: RefCell::default(),
            in_flight: Cell::new(0),
            changed: Notify::new(),
            phase: RefCell::new(Phase::Open),
            random: RefCell::new(fastrand::Rng::new()),
            complaints: RateLimited::new(5, Duration::from_secs(10)),
            counters: LaneCounters::default(),
            totals,
        })
    }

    /// Its destination.
    pub fn url(&self) -> &Url {
        self.client.url()
    }

    /// Adds an event in its order, or passes it on where the lane is closed.
    pub fn push(&self, delivery: Rc<Delivery>) {
        self.put(Waiting { delivery, failures: 0, not_before: None });
    }

    fn put(&self, waiting: Waiting) {
        match &*self.phase.borrow() {
            Phase::Open => {
                let mut queue = self.queue.borrow_mut();
                let order = waiting.delivery.order;
                let place = queue.partition_point(|other| other.delivery.order < order);
                if queue.get(place).is_some_and(|other| other.delivery.order == order) {
                    // Inherited twice: once is enough.
                    self.end(&waiting.delivery, |counters| &counters.abandoned);
                    return;
                }
                queue.insert(place, waiting);
                self.changed.notify_one();
            }
            Phase::Closed(Some(heir)) => heir.push(waiting.delivery),
            Phase::Closed(None) => self.end(&waiting.delivery, |counters| &counters.abandoned),
            Phase::Suspended => {}
        }
    }

    /// Uses other settings, and begins anew: somebody may have set right what was wrong.
    pub fn configure(&self, settings: Settings) {
        self.client.configure(settings);
        let mut state = self.state.borrow_mut();
        *state = State { generation: state.generation + 1, ..State::default() };
        for waiting in &mut *self.queue.borrow_mut() {
            (waiting.failures, waiting.not_before) = (0, None);
        }
        self.changed.notify_one();
    }

    /// Ends the lane: no upload starts any more, and what waits goes to `heir`. An upload on its way comes to its end; if it
    /// fails, its event goes to the heir too.
    pub fn close(&self, heir: Option<Rc<Lane>>) {
        let waiting = self.queue.take();
        match &heir {
            Some(heir) => info!(url = %self.url(), "removed: {} waiting events go to {}", waiting.len(), heir.url()),
            None if waiting.is_empty() => info!(url = %self.url(), "removed"),
            None => warn!(
                url = %self.url(),
                "removed, and no destination was added: {} waiting events abandoned, up to {}",
                waiting.len(),
                waiting.back().expect("not empty").delivery.upload.event.id,
            ),
        }
        self.phase.replace(Phase::Closed(heir));
        waiting.into_iter().for_each(|waiting| self.put(waiting));
        self.changed.notify_one();
    }

    /// For the end of the process: no upload starts any more, and what waits stays in the ring.
    pub fn suspend(&self) {
        self.phase.replace(Phase::Suspended);
        self.queue.take();
        self.changed.notify_one();
    }

    /// Events that are on their way now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Works the lane until it is closed.
    pub async fn run(self: Rc<Self>) {
        while matches!(*self.phase.borrow(), Phase::Open) {
            let next = match self.take() {
                Ok(waiting) => {
                    tokio::task::spawn_local(Rc::clone(&self).upload(waiting));
                    continue;
                }
                Err(next) => next,
            };
            let idle = self.client.drop_idle().then(|| Instant::now() + IDLE_LIMIT);
            let timer = next.into_iter().chain(idle).min();
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }

    /// How long nothing may start, if at all.
    fn pause(&self) -> Option<Duration> {
        let until = self.state.borrow().paused_until?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// The next event to send, or when to look again (none: when something changes).
    fn take(&self) -> Result<Waiting, Option<Instant>> {
        if self.pause().is_some() {
            return Err(self.state.borrow().paused_until);
        }
        let is_up = self.state.borrow().why.is_none();
        if self.in_flight.get() >= if is_up { IN_FLIGHT } else { 1 } {
            return Err(None);
        }
        let mut queue = self.queue.borrow_mut();
        let now = Instant::now();
        let ready = queue.iter().position(|waiting| waiting.not_before.is_none_or(|moment| moment <= now));
        // A probe is better than none, even if it is the event that failed.
        let chosen = ready.or_else(|| (!is_up && !queue.is_empty()).then_some(0));
        match chosen.and_then(|index| queue.remove(index)) {
            Some(waiting) => {
                self.in_flight.set(self.in_flight.get() + 1);
                Ok(waiting)
            }
            None => Err(queue.iter().filter_map(|waiting| waiting.not_before).min()),
        }
    }

    async fn upload(self: Rc<Self>, waiting: Waiting) {
        let generation = self.state.borrow().generation;
        let outcome = self.client.send(&waiting.delivery.upload).await;
        self.in_flight.set(self.in_flight.get() - 1);
        match outcome {
            Outcome::Acknowledged => {
                self.succeeded();
                self.end(&waiting.delivery, |counters| &counters.acknowledged);
            }
            Outcome::SourceLost => self.lost(&waiting.delivery),
            _ if generation != self.state.borrow().generation => {
                self.count(|counters| &counters.failures);
                self.push(waiting.delivery);
            }
            failure => self.settle(waiting, failure),
        }
        self.changed.notify_one();
    }

    fn settle(&self, waiting: Waiting, failure: Outcome) {
        let failures = self.state.borrow().failures + 1;
        let random = &mut *self.random.borrow_mut();
        match failure {
            Outcome::Unreachable { why } => {
                let pause = backoff::after_failure(failures, None, random);
                self.failed(waiting, why, pause, None);
            }
            Outcome::Down { why, retry_after } => {
                let pause = backoff::after_failure(failures, retry_after, random);
                let own = backoff::after_failure(waiting.failures + 1, None, random);
                self.failed(waiting, why, pause, Some(own));
            }
            Outcome::Misconfigured { why } => {
                let pause = backoff::after_misconfiguration(failures, random);
                let own = backoff::after_failure(waiting.failures + 1, None, random);
                self.failed(waiting, why, pause, Some(own));
            }
            Outcome::Refused { why } => self.refused(waiting, why, random),
            Outcome::Acknowledged | Outcome::SourceLost => unreachable!("settled by the caller"),
        }
    }

    fn succeeded(&self) {
        let is_paused = self.pause().is_some();
        let mut state = self.state.borrow_mut();
        state.refusals = 0;
        if is_paused {
            return; // it began before the failure that made the pause: it says nothing of the time after
        }
        if let Some(why) = state.why.take() {
            info!(url = %self.url(), "up again (was: {why})");
        }
        (state.failures, state.paused_until) = (0, None);
    }

    fn lost(&self, delivery: &Delivery) {
        let (event, url) = (delivery.upload.event.id, self.url());
        self.complaints.say(|more| warn!(%event, %url, "lost: the ring's file was truncated under it{more}"));
        self.end(delivery, |counters| &counters.lost);
    }

    /// Gives one event up, but not one after another: then it must be the server.
    fn refused(&self, waiting: Waiting, why: String, random: &mut fastrand::Rng) {
        let refusals = {
            let mut state = self.state.borrow_mut();
            state.refusals += 1;
            state.refusals
        };
        if refusals >= BROKEN_AFTER {
            let why = format!("{why} to {BROKEN_AFTER} events in a row: check the server, nothing more is given up");
            let pause = backoff::after_misconfiguration(refusals - BROKEN_AFTER, random);
            self.failed(waiting, why, pause, Some(pause));
            return;
        }
        let (event, url) = (waiting.delivery.upload.event.id, self.url());
        self.complaints.say(|more| warn!(%event, %url, "given up: {why}{more}"));
        self.end(&waiting.delivery, |counters| &counters.refused);
    }

    /// The event goes back to its place; nothing starts before `pause` is over, and others go before it for `own` more. Uploads
    /// that fail together make one pause, the longest of theirs: a server may have asked for it.
    fn failed(&self, mut waiting: Waiting, why: String, pause: Duration, own: Option<Duration>) {
        self.count(|counters| &counters.failures);
        let is_paused = self.pause().is_some();
        let until = Instant::now() + pause;
        if let Some(own) = own {
            waiting.failures += 1;
            waiting.not_before = Some(until + own);
        }
        self.put(waiting);
        let mut state = self.state.borrow_mut();
        state.paused_until = state.paused_until.max(Some(until));
        if is_paused {
            return;
        }
        state.failures += 1;
        if state.why.as_ref() != Some(&why) {
            warn!(url = %self.url(), "not delivered, trying again: {why}");
            state.why = Some(why);
        }
    }

    /// The event's way to this destination is over.
    fn end(&self, delivery: &Delivery, counter: impl Fn(&LaneCounters) -> &Cell<u64>) {
        self.count(counter);
        delivery.done();
    }

    fn count(&self, counter: impl Fn(&LaneCounters) -> &Cell<u64>) {
        for counters in [&self.counters, &*self.totals] {
            let counter = counter(counters);
            counter.set(counter.get() + 1);
        }
    }
}
