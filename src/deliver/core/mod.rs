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
//! | `mod.rs` | what comes in, what goes out |
//! | [`lane`], [`queue`], [`backlog`] | one destination; what waits for it in memory, in the spool |
//! | [`schedule`], [`limit`] | what is sent next, how many at once |
//! | [`classify`], [`evidence`], [`health`], [`retry`], [`backoff`] | what a try means, and whose fault it was |
//! | [`events`] | the events, and who needs them |
//! | `uploads.rs`, `writing.rs`, `spooling.rs`, `lanes.rs`, `pressure.rs` | the way of an event; to the spool; lanes that come and go; a ring that fills |
//! | [`counters`] | what is counted |
//! | `model.rs` | random histories, and what holds in all of them |

pub mod backlog;
pub mod backoff;
pub mod classify;
pub mod counters;
pub mod events;
pub mod evidence;
pub mod health;
pub mod lane;
mod lanes;
pub mod limit;
#[cfg(test)]
mod model;
pub mod pressure;
pub mod queue;
pub mod retry;
pub mod schedule;
pub mod spooling;
mod uploads;
mod writing;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::deliver::outcome::Outcome;
use crate::event::EventId;
use crate::readiness::NotReady;
use crate::spool::{Address, Destination};
use backlog::Wanted;
use classify::Judge;
use counters::Counters;
use events::Events;
use lane::Lane;
use spooling::{Needs, Writer};

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

/// Why an event is to be kept as a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What the server answered; none where it did not.
    pub status: Option<u16>,
    /// In words.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
}

/// A destination that an event is stored for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub address: Address,
    /// It was removed, and these get what waits for it.
    pub heirs: Option<Vec<Destination>>,
}

/// What the spool is to do for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which.
    pub event: EventNo,
    /// Its number in the spool, if it was stored before.
    pub counter: Option<u64>,
    /// Who is to get it.
    pub to: Vec<Target>,
    /// Whose dead letter it is to be.
    pub dead: Vec<(Target, Rejection)>,
    /// Of `to`: whose upload is reading the record. The room in the ring is free only when that reads on in the file.
    pub in_flight: Vec<Destination>,
}

impl Job {
    /// Whether the event is only to be stored, and new to the spool.
    pub fn is_plain(&self) -> bool {
        self.counter.is_none() && self.dead.is_empty()
    }
}

/// An event is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the spool.
    pub counter: u64,
    /// Uploads on their way read on in the file.
    pub is_relocated: bool,
}

/// Why a job was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The spool cannot do it now: why, and what has to be done first.
    Later(String, Needs),
    /// This event will never be stored.
    Unfit,
    /// The ring's file went away.
    Lost,
}

/// What a pick came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picked {
    /// This one is open, and the spool offers it to nobody else.
    Event(u64),
    /// This one cannot be sent; the spool knows.
    Unusable(u64),
    /// There is none.
    Nothing,
    /// Something is short just now.
    Later,
}

/// What a lane is told by the config.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    /// Its destination.
    pub address: Address,
    /// It speaks TLS, which needs the time and random numbers.
    pub is_tls: bool,
    /// How long an answer may take.
    pub response_timeout: Duration,
}

/// What happened.
#[derive(Debug)]
pub enum Input<T> {
    /// An event was read.
    Published(T),
    /// The kernel took the last byte of an upload's body, or it has none any more.
    BodyGone(LaneId, UploadId),
    /// An upload begins once more, and waits for [`Effect::Body`].
    BodyWanted(LaneId, UploadId),
    /// An upload came to its end; its connection reads nothing any more.
    Ended {
        /// Whose.
        lane: LaneId,
        /// Which.
        upload: UploadId,
        /// Its event, for what is said of it.
        id: EventId,
        /// What became of it.
        outcome: Outcome,
        /// How long the try took that counts.
        took: Duration,
    },
    /// [`Effect::Pick`] was done.
    Picked(LaneId, UploadId, Picked),
    /// [`Effect::Write`] was done.
    Written(Vec<(EventNo, Result<Stored, NotStored>)>),
    /// The spool was opened; why not, if not.
    Opened(Option<String>),
    /// The key was looked for; whether it is there.
    KeyChecked(bool),
    /// [`Effect::Settle`] was done: whether anything was moved. Else it failed.
    Settled(Result<bool, ()>),
    /// There may be something in the spool that was not known.
    LookIntoSpool,
    /// The spool has to see to removed destinations, and try again whatever failed.
    Settle,
    /// The spool's folder is not the one that was opened.
    Reopen,
    /// The lanes, those that are kept by number.
    Configured(Vec<(Option<LaneId>, LaneSettings)>),
    /// The ring needs the room of these.
    Spill(Vec<EventNo>),
    /// Nothing more is to be taken out of the spool.
    LeaveBacklog,
    /// The process ends: no upload starts any more, and what is not sent by then goes to the spool.
    Suspend,
    /// The box lacks something that TLS needs, or nothing.
    Box(Option<NotReady>),
    /// Time went by.
    Tick,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect<T> {
    /// Nobody needs the event any more.
    Release(T),
    /// Send an event out of the ring.
    Upload(LaneId, UploadId, EventNo),
    /// Send what was picked.
    UploadPicked(LaneId, UploadId),
    /// Close what was picked: it is not sent now.
    Forget(UploadId),
    /// End an upload; [`Input::Ended`] says when it has ended.
    Abort(UploadId),
    /// An upload that begins once more has its body, or is not to go on.
    Body(UploadId, bool),
    /// Take an event out of the spool.
    Pick(LaneId, UploadId, Destination, Wanted),
    /// An event in the spool.
    Spooled(LaneId, Destination, u64, Fate),
    /// Store these, in this order.
    Write(Vec<Job>),
    /// Open the spool, or look for its key.
    Repair(Needs),
    /// Move some of what waits for removed destinations.
    Settle,
    /// A lane was closed: it begins no request any more.
    Retire(LaneId),
    /// A closed lane has nothing left.
    Removed(LaneId),
    /// Somebody should know.
    Say(Notice),
}

/// What becomes of an event in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 2xx.
    Delivered,
    /// It is to be kept as a dead letter.
    Dead(Rejection),
    /// It cannot be read now.
    Skipped,
    /// It waits again.
    PutBack,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The destination does not seem to be well.
    NotDelivered {
        /// Whose.
        lane: LaneId,
        /// In words.
        why: String,
    },
    /// An event was not taken; others are.
    NotTaken {
        /// By whom.
        lane: LaneId,
        /// Which.
        event: EventId,
        /// In words.
        why: String,
    },
    /// An event becomes a dead letter.
    Rejected {
        /// Whose.
        lane: LaneId,
        /// Which.
        event: EventId,
        /// In words.
        why: String,
    },
    /// An event's pictures went away.
    Lost {
        /// For whom.
        lane: LaneId,
        /// Which.
        event: EventId,
    },
    /// An event was given up for want of room.
    GaveUp {
        /// For whom.
        lane: LaneId,
        /// It had been refused.
        is_rejected: bool,
    },
    /// The destination takes events again.
    UpAgain {
        /// Whose.
        lane: LaneId,
        /// What was wrong.
        was: String,
    },
    /// The box lacks something.
    Waits {
        /// Who needs it.
        lane: LaneId,
        /// What.
        lack: NotReady,
    },
    /// The box has it.
    WaitsNoMore {
        /// Who needed it.
        lane: LaneId,
        /// What.
        lacked: NotReady,
    },
    /// A destination was removed.
    Removed {
        /// Whose.
        lane: LaneId,
        /// Who gets what waits.
        heirs: Vec<LaneId>,
    },
    /// Nothing can be stored.
    SpoolFails(String),
    /// Events can be stored again.
    SpoolWorks(String),
}

/// One turn: its moment, and what it comes to.
struct Turn<'a, T> {
    now: Instant,
    effects: &'a mut Vec<Effect<T>>,
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
            Input::Published(held) => self.published(held, turn),
            Input::BodyGone(lane, upload) => self.body_gone(lane, upload, turn),
            Input::BodyWanted(lane, upload) => self.body_wanted(lane, upload, turn),
            Input::Ended { lane, upload, id, outcome, took } => self.ended(lane, upload, id, outcome, took, turn),
            Input::Picked(lane, upload, picked) => self.picked(lane, upload, picked, turn),
            Input::Written(results) => self.written(results, turn),
            Input::Opened(problem) => self.opened(problem, turn),
            Input::KeyChecked(is_there) => self.key_checked(is_there, turn),
            Input::Settled(result) => self.settled(result, turn),
            Input::LookIntoSpool => self.look_into_spool_at(now),
            Input::Settle => {
                self.writer.settle(now);
                self.look_into_spool_at(now);
            }
            Input::Reopen => self.reopen(turn),
            Input::Configured(lanes) => self.configured(lanes, turn),
            Input::Spill(events) => self.spill(&events, turn),
            Input::LeaveBacklog => self.lanes.values_mut().for_each(|lane| lane.leaves_backlog = true),
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

    // --- what is told ---

    /// The number that the next event gets.
    pub fn next_event(&self) -> EventNo {
        self.events.next()
    }

    /// The number that the next lane gets.
    pub fn next_lane(&self) -> LaneId {
        self.next_lane
    }

    /// What was given with an event that is not over.
    pub fn held(&self, event: EventNo) -> Option<&T> {
        self.events.get(event).map(|pending| &pending.held)
    }

    /// The same, to be changed.
    pub fn held_mut(&mut self, event: EventNo) -> Option<&mut T> {
        self.events.get_mut(event).map(|pending| &mut pending.held)
    }

    /// Events that are not over.
    pub fn open_events(&self) -> usize {
        self.events.count()
    }

    /// The lanes in force, in the order of the config.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.order.iter().filter_map(|lane| self.lanes.get(lane))
    }

    /// A lane, also one that was removed and has something left.
    pub fn lane(&self, lane: LaneId) -> Option<&Lane> {
        self.lanes.get(&lane)
    }

    /// Uploads on their way, of the lanes in force.
    pub fn in_flight(&self) -> usize {
        self.lanes().map(|lane| lane.limit.in_flight()).sum()
    }

    /// Deliveries that are neither over nor in the spool.
    pub fn open_deliveries(&self) -> u64 {
        self.lanes.values().map(Lane::open_deliveries).sum()
    }

    /// What became of all deliveries so far, those of removed lanes too.
    pub fn totals(&self) -> Counters {
        self.lanes.values().fold(self.gone, |sum, lane| sum.plus(&lane.counters))
    }

    /// Why nothing can be written just now. A write that failed is no trouble any more once nothing waits: the next one will show
    /// whether it still would be.
    pub fn trouble(&self) -> Option<&str> {
        let trouble = self.writer.trouble()?;
        (trouble.needs != spooling::Needs::Nothing || !self.writer.is_idle()).then_some(trouble.why.as_str())
    }

    /// Whether a try to write failed that began after the last [`Input::Suspend`].
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        self.writer.is_in_trouble(now)
    }

    /// Whether a lane speaks TLS: then the box is to be looked at.
    pub fn is_tls(&self) -> bool {
        self.lanes().any(|lane| lane.is_tls)
    }
}

impl Judge<'_> {
    fn new(now: Instant, random: &mut fastrand::Rng) -> Judge<'_> {
        Judge { now, random, notices: Vec::new(), denied: Vec::new() }
    }
}
