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
//! A failed event goes back to its place in the queue: events go out oldest first.

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
    /// The destination was removed from the config, and none was added that could get the event instead.
    pub abandoned: Cell<u64>,
    /// Tries that came to nothing; not the end of an event.
    pub failures: Cell<u64>,
}

/// A destination and what waits for it.
pub struct Lane {
    client: Client,
    /// Oldest first.
    queue: RefCell<VecDeque<Rc<Delivery>>>,
    state: RefCell<State>,
    in_flight: Cell<usize>,
    /// Something of the above changed.
    changed: Notify,
    phase: RefCell<Phase>,
    random: RefCell<fastrand::Rng>,
    /// What became of its events.
    pub counters: LaneCounters,
    /// The same over all lanes, removed ones too.
    totals: Rc<LaneCounters>,
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

#[derive(Debug)]
struct State {
    /// Failures since the last success, counted once a pause.
    failures: u32,
    refusals: u32,
    /// No upload starts before.
    paused_until: Option<Instant>,
    /// The last failure's reason, so that it is logged once and not at every try.
    why: Option<String>,
}

impl Lane {
    /// A lane for `url`; [`Lane::run`] works it.
    pub fn new(url: Url, settings: Settings, totals: Rc<LaneCounters>) -> Rc<Lane> {
        Rc::new(Lane {
            client: Client::new(url, settings),
            queue: RefCell::default(),
            state: RefCell::new(State { failures: 0, refusals: 0, paused_until: None, why: None }),
            in_flight: Cell::new(0),
            changed: Notify::new(),
            phase: RefCell::new(Phase::Open),
            random: RefCell::new(fastrand::Rng::new()),
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
        match &*self.phase.borrow() {
            Phase::Open => {
                let mut queue = self.queue.borrow_mut();
                let place = queue.partition_point(|other| other.order < delivery.order);
                queue.insert(place, delivery);
                self.changed.notify_one();
            }
            Phase::Closed(Some(heir)) => heir.push(delivery),
            Phase::Closed(None) => self.end(&delivery, |counters| &counters.abandoned),
            Phase::Suspended => {}
        }
    }

    /// Uses other settings, and tries again at once: somebody may have set right what was wrong.
    pub fn configure(&self, settings: Settings) {
        self.client.configure(settings);
        self.state.borrow_mut().paused_until = None;
        self.changed.notify_one();
    }

    /// Ends the lane: no upload starts any more, and what waits goes to `heir`. An upload on its way comes to its end; if it
    /// fails, its event goes to the heir too.
    pub fn close(&self, heir: Option<Rc<Lane>>) {
        self.phase.replace(Phase::Closed(heir));
        self.queue.take().into_iter().for_each(|delivery| self.push(delivery));
        self.changed.notify_one();
    }

    /// For the end of the process: no upload starts any more, and what waits stays in the ring.
    pub fn suspend(&self) {
        self.phase.replace(Phase::Suspended);
        self.queue.take();
        self.changed.notify_one();
    }

    /// Events that wait.
    pub fn queued(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Events that are on their way now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Works the lane until it is closed.
    pub async fn run(self: Rc<Self>) {
        while matches!(*self.phase.borrow(), Phase::Open) {
            let pause = self.pause();
            if pause.is_none()
                && let Some(delivery) = self.take()
            {
                tokio::task::spawn_local(Rc::clone(&self).upload(delivery));
                continue;
            }
            let idle = self.client.drop_idle().then_some(IDLE_LIMIT);
            let timer = pause.into_iter().chain(idle).min();
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(timer.unwrap_or_default()), if timer.is_some() => {}
            }
        }
    }

    /// How long nothing may start, if at all.
    fn pause(&self) -> Option<Duration> {
        let until = self.state.borrow().paused_until?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn take(&self) -> Option<Rc<Delivery>> {
        let most = if self.state.borrow().why.is_some() { 1 } else { IN_FLIGHT };
        if self.in_flight.get() >= most {
            return None;
        }
        let delivery = self.queue.borrow_mut().pop_front()?;
        self.in_flight.set(self.in_flight.get() + 1);
        Some(delivery)
    }

    async fn upload(self: Rc<Self>, delivery: Rc<Delivery>) {
        let outcome = self.client.send(&delivery.upload).await;
        self.in_flight.set(self.in_flight.get() - 1);
        self.settle(delivery, outcome);
        self.changed.notify_one();
    }

    fn settle(&self, delivery: Rc<Delivery>, outcome: Outcome) {
        let random = &mut *self.random.borrow_mut();
        let failures = self.state.borrow().failures + 1;
        match outcome {
            Outcome::Acknowledged => {
                self.succeeded();
                self.end(&delivery, |counters| &counters.acknowledged);
            }
            Outcome::SourceLost => {
                warn!(event = %delivery.upload.id, url = %self.url(), "lost: the ring's file was truncated under it");
                self.end(&delivery, |counters| &counters.lost);
            }
            Outcome::Refused { why } => self.refused(delivery, why, random),
            Outcome::Down { why, retry_after } => {
                self.failed(delivery, why, backoff::after_failure(failures, retry_after, random));
            }
            Outcome::Misconfigured { why } => {
                self.failed(delivery, why, backoff::after_misconfiguration(failures, random));
            }
        }
    }

    fn succeeded(&self) {
        let is_paused = self.pause().is_some();
        let mut state = self.state.borrow_mut();
        if is_paused {
            // It began before the failure that made the pause: it says nothing of the time after.
            state.refusals = 0;
            return;
        }
        if let Some(why) = state.why.take() {
            info!(url = %self.url(), "up again (was: {why})");
        }
        (state.failures, state.refusals, state.paused_until) = (0, 0, None);
    }

    /// Gives one event up, but not one after another.
    fn refused(&self, delivery: Rc<Delivery>, why: String, random: &mut fastrand::Rng) {
        let refusals = {
            let mut state = self.state.borrow_mut();
            state.refusals += 1;
            state.refusals
        };
        if refusals >= BROKEN_AFTER {
            let why = format!("{why} to {BROKEN_AFTER} events in a row: check the server, nothing more is given up");
            self.failed(delivery, why, backoff::after_misconfiguration(refusals - BROKEN_AFTER, random));
            return;
        }
        warn!(event = %delivery.upload.id, url = %self.url(), "given up: {why}");
        self.end(&delivery, |counters| &counters.refused);
    }

    /// The event goes back to its place; nothing starts before the pause is over. Uploads that fail together make one pause, the
    /// longest of theirs: a server may have asked for it.
    fn failed(&self, delivery: Rc<Delivery>, why: String, pause: Duration) {
        self.count(|counters| &counters.failures);
        self.push(delivery);
        let is_paused = self.pause().is_some();
        let mut state = self.state.borrow_mut();
        state.paused_until = state.paused_until.max(Some(Instant::now() + pause));
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
