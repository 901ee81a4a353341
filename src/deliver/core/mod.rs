//! The heart of delivery: one owned state machine that decides everything and does nothing. It reads no clock, draws its random numbers
//! from a generator that it is given, and knows events and destinations by number.
//!
//! ```text
//!   what happened ──▶ Core::handle(now, Input) ──▶ Effects: what is to be done ──▶ driver: uploads, the spool's thread, the ring
//!        ▲                                                                              │
//!        └──────────────────────────────── and what came of it ─────────────────────────┘
//! ```
//!
//! A *delivery* is one event for one destination. Each destination has a lane of its own, with its queue, its uploads and what it knows
//! of its backlog; what they share is the event's room in the ring, which is released when no delivery needs it, and the spool.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod.rs` | the state of all deliveries, and one turn of it |
//! | `input.rs`, `effect.rs`, `notice.rs`, `questions.rs` | what it is told, what it wants done, what somebody should know, what can be asked |
//! | [`lane`], [`queue`], [`backlog`] | one destination; what waits for it in memory, in the spool |
//! | [`schedule`], [`limit`], [`rounds`] | what is sent next, how many at once, and when, where that is once a period |
//! | [`classify`], [`evidence`], [`health`], [`retry`], [`backoff`] | what a try means, and whose fault it was |
//! | [`events`] | the events, and who needs them |
//! | `uploads.rs`, `writing.rs`, `spooling.rs`, `lanes.rs`, `pressure.rs` | the way of an event; to the spool; lanes that come and go; a ring that fills |
//! | [`counters`] | what is counted |
//! | `model/` | random histories, and what holds in all of them |

pub mod backlog;
pub mod backoff;
pub mod classify;
pub mod counters;
mod effect;
pub mod events;
pub mod evidence;
pub mod health;
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

/// An event's number: over all rings, the order in which events were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNo(pub u64);

/// A lane's number; none comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// An upload's number; none comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub u64);

/// What the owner of an event needs of it, among others its room in the ring.
pub trait Held {
    /// What the event takes in the ring, in bytes.
    fn length(&self) -> u32;
}

/// One turn: its moment, and what it comes to.
struct Turn<'a, T> {
    now: Instant,
    effects: &'a mut Vec<Effect<T>>,
}

impl<T> Turn<'_, T> {
    /// These uploads wait to begin once more, and may not.
    fn deny(&mut self, uploads: impl IntoIterator<Item = UploadId>) {
        self.effects.extend(uploads.into_iter().map(|upload| Effect::Body(upload, false)));
    }
}

/// The state of all deliveries.
#[derive(Debug)]
pub struct Core<T> {
    lanes: BTreeMap<LaneId, Lane>,
    /// The lanes in force, in the order of the config.
    order: Vec<LaneId>,
    events: Events<T>,
    writer: Writer,
    next_lane: LaneId,
    next_upload: UploadId,
    /// Lanes to be looked at, and when the others are.
    due: BTreeMap<LaneId, Option<Instant>>,
    /// What the box lacks for TLS.
    lack: Option<NotReady>,
    /// The process ends.
    is_ending: bool,
    /// Of lanes that are gone.
    gone: Counters,
    random: fastrand::Rng,
}

impl<T: Held> Core<T> {
    /// Without lanes.
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

    /// Takes note of what happened; what is to be done is added to `effects`, in this order.
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

    /// Does what can be done by now: uploads, writes.
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

    /// Something changed for a lane.
    fn touch(&mut self, lane: LaneId, now: Instant) {
        self.due.insert(lane, Some(now));
    }
}
