//! One destination's lane: what waits for it, its uploads, its state. Nothing here knows of another lane, so a slow, dead or poisoned
//! destination costs the others nothing.
//!
//! ```text
//!            ┌────────────── acknowledged ──────────────┐
//!            ▼                                          │
//!  Up: as many as there are places ──failure──▶ pause ──over──▶ one upload, as a probe
//!      live first, then the backlog           ▲               │
//!      live events: queue                     └── failure ────┘
//!                                         live events: into the spool
//! ```
//!
//! A destination over TLS waits while the clock is not set or the kernel has no random numbers, and begins anew when that is over:
//! nothing is tried, nothing counts as a failure.
//!
//! A lane that keeps the order sends one event at a time: the oldest of the backlog, and live ones when that is empty. Whenever anything is
//! written to the spool it stores what it holds up to there, so its numbers there are in order, too.
//!
//! In memory a delivery is in one of four places: `queue`, `in_flight`, `rejected`, `storing` (an upload may be reading it meanwhile).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::backlog::{Backlog, Pick};
use super::counters::{Counters, End};
use super::evidence::Evidence;
use super::health::Health;
use super::limit::ConcurrencyLimit;
use super::queue::{Queue, RunSet};
use super::retry::RetryState;
use super::rounds::Rounds;
use super::{EventNo, LaneId, Rejection, Target, UploadId};
use crate::config::Report;
use crate::event::EventId;
use crate::spool::{Address, Destination};

/// A lane that sends once a period does so for the first time within this.
const FIRST_ROUND: Duration = Duration::from_secs(60);

/// A destination and what waits for it.
#[derive(Debug)]
pub struct Lane {
    /// Which it is.
    pub id: LaneId,
    /// Its destination, as the spool names it.
    pub address: Address,
    /// It speaks TLS, or signs, which needs the time and random numbers.
    pub needs_box: bool,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// Whether it goes on, and where its events go else.
    pub phase: Phase,
    /// In memory, and not on their way.
    pub queue: Queue,
    /// Its server refused them: to be kept as dead letters.
    pub rejected: BTreeMap<EventNo, Rejection>,
    /// They are being written.
    pub storing: BTreeMap<EventNo, Meanwhile>,
    /// In the spool.
    pub backlog: Backlog,
    /// On their way.
    pub in_flight: BTreeMap<UploadId, InFlight>,
    /// How many of these there may be.
    pub limit: ConcurrencyLimit,
    /// How its destination fares.
    pub health: Health,
    /// Whose fault failures are.
    pub evidence: Evidence,
    /// When the last live event came.
    pub live_at: Option<Instant>,
    /// Nothing begins before, so that other destinations have the last live event first; see [`Lane::yield_to_others`].
    pub yields_until: Option<Instant>,
    /// Nothing more is taken out of the spool.
    pub leaves_backlog: bool,
    /// Nothing is taken out of the spool at this time of the day.
    pub is_off_hours: bool,
    /// Events go one at a time, the oldest first; see [`super::LaneSettings::in_order`].
    pub in_order: Option<Duration>,
    /// Which events it gets.
    pub report: Report,
    /// Where it sends once a period.
    pub rounds: Option<Rounds>,
    /// The first event that was published when it was there.
    pub born: EventNo,
    /// Of those before: taken over from lanes that were removed.
    pub taken_over: RunSet,
    /// What was acknowledged, while it may inherit the same from a removed destination: that is not sent again. None once there is
    /// nothing left to inherit.
    pub delivered: Option<Delivered>,
    /// What became of its events.
    pub counters: Counters,
}

/// Events by ring and sequence.
#[derive(Debug, Default)]
pub struct Delivered(BTreeMap<[u8; 16], RunSet>);

impl Delivered {
    /// Adds one.
    pub fn add(&mut self, event: EventId) {
        self.0.entry(event.ring.0).or_default().insert(event.sequence);
    }

    /// Whether it is there.
    pub fn contains(&self, event: EventId) -> bool {
        self.0.get(&event.ring.0).is_some_and(|sequences| sequences.contains(event.sequence))
    }
}

/// Whether a lane goes on, and where an event goes that comes to it, new or back from a failed try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Into the queue.
    Open,
    /// The destination was removed: to the lanes that inherit; with none it is kept in the spool.
    Closed(Vec<LaneId>),
    /// The process ends: into the spool, or it stays in the ring.
    Suspended,
}

/// An upload.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// What it sends.
    pub source: Source,
    /// When it began.
    pub began: Instant,
    /// Events acknowledged until then.
    pub acknowledged: u64,
    /// The configuration then.
    pub generation: u64,
    /// What is known of its event.
    pub retry: Option<RetryState>,
    /// It is being ended, for the ring needs its event's room.
    pub is_aborted: bool,
}

/// Where an upload's event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the ring; perhaps it is being stored.
    Ring(EventNo),
    /// It came from the ring, and is in the spool by now; `holds_room` while the upload reads on in the ring.
    Stored {
        /// Which.
        event: EventNo,
        /// Its number in the spool.
        counter: u64,
        /// The upload reads in the ring.
        holds_room: bool,
    },
    /// It is being taken out of the spool.
    Picking(Pick),
    /// It came from the spool.
    Spool(u64),
}

/// What a delivery that is being stored does meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// Nothing: it was taken out of the queue, where this was known of it.
    Waits(Option<RetryState>),
    /// It was on its way, and failed.
    Failed(Option<RetryState>),
    /// It is on its way.
    InFlight,
    /// Its way is over.
    Ended(End),
}

impl Lane {
    /// A lane in which nothing waits.
    pub fn new(
        id: LaneId,
        settings: super::LaneSettings,
        born: EventNo,
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Lane {
        Lane {
            id,
            address: settings.address,
            needs_box: settings.needs_box,
            response_timeout: settings.response_timeout,
            phase: Phase::Open,
            queue: Queue::default(),
            rejected: BTreeMap::new(),
            storing: BTreeMap::new(),
            backlog: Backlog::new(settings.in_order.is_some()),
            in_flight: BTreeMap::new(),
            limit: ConcurrencyLimit::default(),
            health: Health::new(now),
            evidence: Evidence::default(),
            live_at: None,
            yields_until: None,
            leaves_backlog: false,
            is_off_hours: settings.is_off_hours,
            in_order: settings.in_order,
            report: settings.report,
            rounds: settings.period.map(|period| Rounds::new(period, first_round(period, random, now))),
            born,
            taken_over: RunSet::default(),
            delivered: Some(Delivered::default()),
            counters: Counters::default(),
        }
    }

    /// Its destination, as the spool names it.
    pub fn destination(&self) -> Destination {
        self.address.destination
    }

    /// Whether it goes on.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the destination was removed.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// An heir was removed: its own heirs come in its place.
    pub fn replace_heir(&mut self, removed: LaneId, by: &[LaneId]) {
        let Phase::Closed(heirs) = &mut self.phase else { return };
        if heirs.contains(&removed) {
            heirs.retain(|heir| *heir != removed && !by.contains(heir));
            heirs.extend(by);
        }
    }

    /// Whether what is queued is better off in the spool.
    pub fn wants_spool(&self) -> bool {
        !self.is_open() || !self.health.is_up() || self.leaves_backlog && self.rounds.is_some()
    }

    /// Whether something waits, or is on its way, as far as is known.
    pub fn has_something(&self) -> bool {
        self.open_deliveries() > 0 || !self.in_flight.is_empty() || !self.backlog.is_empty()
    }

    /// The same for an event to be stored; `heirs` are its heirs' destinations.
    pub fn target(&self, destination: impl Fn(LaneId) -> Option<Destination>) -> Target {
        let heirs = match &self.phase {
            Phase::Closed(heirs) => Some(heirs.iter().filter_map(|heir| destination(*heir)).collect()),
            _ => None,
        };
        Target { address: self.address.clone(), heirs }
    }

    /// Whether it ever was given an event.
    pub fn has_had(&self, event: EventNo) -> bool {
        event >= self.born || self.taken_over.contains(event.0)
    }

    /// Deliveries in memory that are not over.
    pub fn open_deliveries(&self) -> u64 {
        let uploads = self.in_flight.values().filter(|upload| upload.ring_event().is_some());
        let uploads =
            uploads.filter(|upload| upload.ring_event().is_none_or(|event| !self.storing.contains_key(&event)));
        self.queue.len() + self.rejected.len() as u64 + self.storing.len() as u64 + uploads.count() as u64
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self) -> bool {
        self.is_closed() && self.in_flight.is_empty() && self.open_deliveries() == 0
    }

    /// The upload of an event in the ring.
    pub fn upload_of(&mut self, event: EventNo) -> Option<&mut InFlight> {
        self.in_flight.values_mut().find(|upload| upload.ring_event() == Some(event))
    }

    /// What is known of an event that failed, unless that was under another config.
    pub fn still_known(&self, retry: Option<RetryState>) -> Option<RetryState> {
        retry.filter(|state| state.generation == self.health.generation)
    }

    /// Uses another config, and begins anew: somebody may have set right what was wrong.
    pub fn configure(&mut self, settings: super::LaneSettings, random: &mut fastrand::Rng, now: Instant) {
        if self.rounds.as_ref().map(Rounds::period) != settings.period {
            self.rounds = settings.period.map(|period| Rounds::new(period, first_round(period, random, now)));
        }
        (self.needs_box, self.response_timeout) = (settings.needs_box, settings.response_timeout);
        (self.in_order, self.is_off_hours) = (settings.in_order, settings.is_off_hours);
        self.begin_anew(now);
        self.queue.forgive();
        self.backlog.is_in_order = self.in_order.is_some();
        self.backlog.forgive();
    }

    /// What was known of the destination says nothing any more.
    pub fn begin_anew(&mut self, now: Instant) {
        self.health.begin_anew(now);
        self.evidence.begin_anew();
    }
}

/// When a lane that sends once a period does so first: soon, so that what an earlier process left does not wait for a whole period, and
/// not with all boxes at once.
fn first_round(period: Duration, random: &mut fastrand::Rng, now: Instant) -> Instant {
    now + period.min(FIRST_ROUND).mul_f64(random.f64())
}

impl InFlight {
    /// Its event, while that has only the ring.
    pub fn ring_event(&self) -> Option<EventNo> {
        match self.source {
            Source::Ring(event) => Some(event),
            _ => None,
        }
    }

    /// Its event's number in the spool, where it has one.
    pub fn counter(&self) -> Option<u64> {
        match self.source {
            Source::Spool(counter) | Source::Stored { counter, .. } => Some(counter),
            Source::Picking(_) | Source::Ring(_) => None,
        }
    }

    /// Whether it came, or is to come, out of the spool.
    pub fn is_backlog(&self) -> bool {
        matches!(self.source, Source::Picking(_) | Source::Spool(_))
    }
}
