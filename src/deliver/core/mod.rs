//! The core of delivery: one state machine that makes every decision and does no I/O. It does not read the clock. It draws random
//! numbers from a generator that its owner passes in, and it refers to events and destinations by number.
//!
//! ```text
//!   what happened ──▶ Core::handle(now, Input) ──▶ Effects: what has to be done ──▶ driver: uploads, the spool's thread, the ring
//!        ▲                                                                               │
//!        └────────────────────────────────── the results ────────────────────────────────┘
//! ```
//!
//! A *delivery* is one event for one destination. Each destination has a lane of its own: a queue, uploads, and the state of its
//! backlog. Lanes share only the spool and each event's room in the ring, which is released when no delivery needs it.
//!
//! | file | content |
//! | --- | --- |
//! | `mod.rs` | the state of all deliveries, and how one input is handled |
//! | `input.rs`, `effect.rs`, `notice.rs`, `questions.rs` | the inputs, the resulting actions, what is to be logged, and the queries |
//! | [`lane`], [`deliveries`], [`queue`], [`backlog`], [`in_flight`], [`had`] | one destination; its events in memory, in the spool, and in flight; those it was given |
//! | [`schedule`], [`limit`], [`rounds`] | what is sent next, how many uploads run at once, and when a lane sends that sends once a period |
//! | [`standing`], [`evidence`], [`health`], [`retry`], [`backoff`] | what is known of the server; what the outcome of an attempt means, and what caused a failure |
//! | [`events`] | the pending events, and how many deliveries need each |
//! | `uploads.rs`, `writing.rs`, `spooling.rs` | the life of an upload; writing events to the spool; when the spool is used |
//! | `lanes.rs`, `pressure.rs` | adding and removing lanes, and shutdown; a ring that fills |
//! | [`counters`] | the counters |
//! | `model/` | runs random histories and checks the invariants that hold in all of them |

pub mod backlog;
pub mod backoff;
pub mod counters;
pub mod deliveries;
mod effect;
pub mod events;
pub mod evidence;
pub mod had;
pub mod health;
pub mod in_flight;
mod input;
pub mod lane;
mod lanes;
pub mod limit;
#[cfg(test)]
mod model;
mod notice;
pub mod pressure;
mod questions;
pub mod queue;
pub mod retry;
pub mod rounds;
pub mod schedule;
pub mod spooling;
pub mod standing;
mod uploads;
mod writing;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::readiness::NotReady;
use counters::Counters;
use events::Events;
use lane::Lane;
use spooling::Writer;

pub use effect::{Effect, Fate, Job, Rejection, Target};
pub use input::{Input, LaneSettings, NotStored, Picked, Scope, Stored};
pub use notice::Notice;

/// An event's number: the order in which events were read, over all rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNo(pub u64);

/// A lane's number; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// An upload's number; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub u64);

/// What the owner keeps for an event, such as its room in the ring.
pub trait Held {
    /// The event's length in the ring, in bytes.
    fn length(&self) -> u32;
}

/// One call of [`Core::handle`]: its time, and the effects it produces.
struct Turn<'a, T> {
    now: Instant,
    effects: &'a mut Vec<Effect<T>>,
}

impl<T> Turn<'_, T> {
    /// These uploads wait to send their bodies again: refuses them.
    fn deny(&mut self, uploads: impl IntoIterator<Item = UploadId>) {
        self.effects.extend(uploads.into_iter().map(|upload| Effect::Body(upload, false)));
    }
}

/// The state of all deliveries.
#[derive(Debug)]
pub struct Core<T> {
    lanes: BTreeMap<LaneId, Lane>,
    /// The configured lanes, in the order of the config.
    order: Vec<LaneId>,
    events: Events<T>,
    writer: Writer,
    next_lane: LaneId,
    next_upload: UploadId,
    /// When each lane has to run next; `None`: only after a change.
    due: BTreeMap<LaneId, Option<Instant>>,
    /// What TLS needs and the box does not have yet.
    lack: Option<NotReady>,
    /// The process is ending.
    is_ending: bool,
    /// Counters of lanes that were removed.
    gone: Counters,
    random: fastrand::Rng,
}

impl<T: Held> Core<T> {
    /// A core without lanes.
    pub fn new(random: fastrand::Rng) -> Core<T> {
        Core {
            lanes: BTreeMap::new(),
            order: Vec::new(),
            events: Events::default(),
            writer: Writer::default(),
            next_lane: LaneId(1),
            next_upload: UploadId(1),
            due: BTreeMap::new(),
            lack: None,
            is_ending: false,
            gone: Counters::default(),
            random,
        }
    }

    /// Handles one input, and appends the actions to be done to `effects`, in this order.
    pub fn handle(&mut self, now: Instant, input: Input<T>, effects: &mut Vec<Effect<T>>) {
        let mut turn = Turn { now, effects };
        let turn = &mut turn;
        match input {
            Input::Published(held, scope) => self.published(held, scope, turn),
            Input::BodyGone(lane, upload) => self.body_gone(lane, upload, turn),
            Input::BodyWanted(lane, upload) => self.body_wanted(lane, upload, turn),
            Input::Ended { lane, upload, id, outcome, took } => self.ended(lane, upload, id, outcome, took, turn),
            Input::Picked(lane, upload, picked) => self.picked(lane, upload, picked, turn),
            Input::Written(results) => self.written(results, turn),
            Input::Opened(problem) => self.opened(problem, turn),
            Input::KeyChecked(is_there) => self.key_checked(is_there, turn),
            Input::Settled(result) => self.settled(result, turn),
            Input::LookIntoSpool => self.look_into_spool_at(now),
            Input::BacklogHours(lane, is_open) => self.backlog_hours(lane, is_open, turn),
            Input::Settle => {
                self.writer.settle(now);
                self.look_into_spool_at(now);
            }
            Input::Reopen => self.reopen(turn),
            Input::Window(window) => self.writer.set_window(window, now),
            Input::Configured(lanes) => self.configured(lanes, turn),
            Input::Spill(events) => self.spill(&events, turn),
            Input::LeaveBacklog => self.leave_backlog(turn),
            Input::Suspend => self.suspend(turn),
            Input::Box(lack) => self.look_at_box(lack, turn),
            Input::Tick => {}
        }
        self.go_on(turn);
    }

    /// When [`Input::Tick`] is due, if ever.
    pub fn next_timer(&self) -> Option<Instant> {
        let lanes = self.due.values().flatten().copied();
        lanes.chain(self.writer.next_timer(self.blocks_settling())).min()
    }

    /// Does all that can be done now: starts uploads and writes.
    fn go_on(&mut self, turn: &mut Turn<'_, T>) {
        self.write(turn);
        loop {
            let is_due = |moment: &Option<Instant>| moment.is_some_and(|moment| moment <= turn.now);
            let Some(lane) = self.due.iter().find(|(_, moment)| is_due(moment)).map(|(lane, _)| *lane) else { break };
            let next = self.run(lane, turn);
            match next {
                Some(moment) => self.due.insert(lane, Some(moment.max(turn.now + Duration::from_nanos(1)))),
                None => self.due.insert(lane, None),
            };
        }
        self.write(turn);
    }

    /// A lane has to run again, because something changed for it.
    fn touch(&mut self, lane: LaneId, now: Instant) {
        self.due.insert(lane, Some(now));
    }
}
