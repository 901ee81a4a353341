//! The only asynchronous part of delivery: it passes inputs to the [`Core`], and carries out the effects that the core returns.
//!
//! ```text
//!   rings ──publish──▶ ┌────────┐ ──Effect::Upload──▶ a task ─▶ Client ─▶ server
//!   config ──────────▶ │ Driver │ ◀─Input::Ended─────
//!   API ─────────────▶ │ (Core) │ ──Effect::Write, Pick …──▶ the spool's thread
//!                      └────────┘ ◀─Input::Written, Picked …
//!                          └──────── Effect::Release ──▶ Ledger ──▶ the ring's tail
//! ```
//!
//! Inputs are handled one after the other, each with all its effects, even if effects cause further inputs.

mod hours;
mod requests;
mod say;
mod spool;
mod store;
mod uploads;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::client::Upload;
use super::core::{Core, Effect, EventNo, Held, Input, LaneId, UploadId};
use super::endpoints::Endpoints;
use super::ledger::Ticket;
use super::recent::Recent;
use super::record::Relocatable;
use crate::event::Event;
use crate::rate_limited::RateLimited;
use crate::readiness;
use crate::spool::worker::Worker;
use crate::spool::{Moved, Recovered};

/// The most events whose texts are kept in memory, and the most bytes of these. The texts of others are read from the ring again.
const TEXTS: (usize, usize) = (256, 1 << 20);

/// An event's data that the core does not need for decisions.
pub struct HeldEvent {
    number: EventNo,
    ticket: Ticket,
    /// None: the texts are read from the ring again.
    texts: Option<Rc<Event>>,
    /// Its pictures, once they are needed.
    source: Option<Arc<Relocatable>>,
}

impl Held for HeldEvent {
    fn length(&self) -> u32 {
        self.ticket.length()
    }
}

/// A lane's servers, recent outcomes, and limits for log messages.
struct Destination {
    endpoints: Endpoints,
    /// Outcomes of the last hour.
    recent: Recent,
    /// Limits messages about changes of its condition.
    changes: RateLimited,
    /// Limits messages about single events.
    log_limiter: RateLimited,
}

/// The state of an upload that runs, or may start soon.
#[derive(Default)]
struct Running {
    /// The event that was picked for it.
    picked: Option<Upload>,
    /// Ends the upload.
    abort: Option<oneshot::Sender<()>>,
    /// Answers an upload that waits to send its body again.
    body: Option<oneshot::Sender<bool>>,
}

/// The events whose texts are in memory, and the size of each.
#[derive(Default)]
struct Texts {
    events: BTreeMap<EventNo, usize>,
    bytes: usize,
}

/// Runs the deliveries.
pub struct Driver {
    core: RefCell<Core<HeldEvent>>,
    inputs: RefCell<VecDeque<Input<HeldEvent>>>,
    /// A buffer for effects, reused for each input; `None` while inputs are being handled.
    effects: Cell<Option<Vec<Effect<HeldEvent>>>>,
    destinations: RefCell<BTreeMap<LaneId, Rc<Destination>>>,
    uploads: RefCell<BTreeMap<UploadId, Running>>,
    texts: RefCell<Texts>,
    /// When the timer fires.
    armed: Cell<Option<Instant>>,
    rearm: Notify,
    looks_for_key: Cell<bool>,
    log_limiter: RateLimited,
    /// Events and dead letters that the spool gave up since the last log message.
    given_up: Cell<(usize, usize)>,
    evictions: RateLimited,
    /// Events moved to heirs since the last log message.
    moved: Cell<Moved>,
    /// The spool's thread.
    pub worker: Worker,
    me: Weak<Driver>,
}

impl Driver {
    /// A driver without destinations; has to be called inside a `LocalRuntime`. `found` receives the result of opening the spool.
    pub fn start(worker: Worker, found: oneshot::Receiver<Recovered>) -> Rc<Driver> {
        let driver = Rc::new_cyclic(|me| Driver {
            core: RefCell::new(Core::new(fastrand::Rng::new())),
            inputs: RefCell::default(),
            effects: Cell::new(Some(Vec::new())),
            destinations: RefCell::default(),
            uploads: RefCell::default(),
            texts: RefCell::default(),
            armed: Cell::new(None),
            rearm: Notify::new(),
            looks_for_key: Cell::new(false),
            log_limiter: RateLimited::new(3),
            given_up: Cell::default(),
            evictions: RateLimited::new(1),
            moved: Cell::default(),
            worker,
            me: me.clone(),
        });
        let opening = Rc::clone(&driver);
        tokio::task::spawn_local(async move {
            if let Ok(found) = found.await {
                opening.was_opened(&found);
            }
        });
        tokio::task::spawn_local(Rc::clone(&driver).keep_time());
        driver
    }

    /// Handles an input and all its effects.
    fn handle(&self, input: Input<HeldEvent>) {
        self.inputs.borrow_mut().push_back(input);
        let Some(mut effects) = self.effects.take() else { return };
        loop {
            let Some(input) = self.inputs.borrow_mut().pop_front() else { break };
            let wants_box = self.core.borrow().wants_box(&input);
            let of_box = wants_box.then(|| Input::Box(readiness::of_tls()));
            for input in of_box.into_iter().chain([input]) {
                self.core.borrow_mut().handle(Instant::now(), input, &mut effects);
                effects.drain(..).for_each(|effect| self.perform(effect));
            }
        }
        self.effects.set(Some(effects));
        let next = self.core.borrow().next_timer();
        if next.is_some_and(|next| self.armed.get().is_none_or(|armed| next < armed)) {
            self.rearm.notify_one();
        }
    }

    fn perform(&self, effect: Effect<HeldEvent>) {
        match effect {
            Effect::Release(held) => self.release(held),
            Effect::Upload(lane, upload, event) => self.upload(lane, upload, event),
            Effect::UploadPicked(lane, upload) => self.upload_picked(lane, upload),
            Effect::Forget(upload) => drop(self.uploads.borrow_mut().remove(&upload)),
            Effect::Abort(upload) => {
                let abort = self.uploads.borrow_mut().get_mut(&upload).and_then(|running| running.abort.take());
                let _it_may_have_ended = abort.map(|abort| abort.send(()));
            }
            Effect::Body(upload, may_go) => {
                let body = self.uploads.borrow_mut().get_mut(&upload).and_then(|running| running.body.take());
                let _it_may_have_ended = body.map(|body| body.send(may_go));
            }
            Effect::Pick(lane, upload, destination, wanted) => self.pick(lane, upload, destination, wanted),
            Effect::Spooled(lane, destination, counter, fate) => self.settle_spooled(lane, destination, counter, fate),
            Effect::Write(jobs) => self.write(jobs),
            Effect::Repair(needs) => self.repair(needs),
            Effect::Settle => self.settle_some(),
            Effect::Retire(lane) => {
                if let Some(destination) = self.destination(lane) {
                    destination.endpoints.retire();
                }
            }
            Effect::Removed(lane) => drop(self.destinations.borrow_mut().remove(&lane)),
            Effect::Say(notice) => self.say(notice),
        }
    }

    /// Runs the core's timer and the hours of backlogs, and drops connections that have been idle for too long.
    async fn keep_time(self: Rc<Self>) {
        loop {
            let next = self.drop_idle().into_iter().chain(self.look_at_hours());
            let next = next.chain(self.core.borrow().next_timer()).min();
            self.armed.set(next);
            match next {
                None => self.rearm.notified().await,
                Some(moment) => {
                    let _rearmed = tokio::time::timeout_at(moment.into(), self.rearm.notified()).await;
                }
            }
            self.handle(Input::Tick);
        }
    }

    /// Drops connections that have been idle for too long. Returns when the next one will be.
    fn drop_idle(&self) -> Option<Instant> {
        self.destinations.borrow().values().filter_map(|one| one.endpoints.drop_idle()).min().map(Into::into)
    }

    fn destination(&self, lane: LaneId) -> Option<Rc<Destination>> {
        self.destinations.borrow().get(&lane).cloned()
    }

    fn release(&self, held: HeldEvent) {
        self.texts.borrow_mut().forget(held.number);
        held.ticket.release();
    }
}
