//! One destination's lane: its waiting events, its uploads and its state. A lane does not use any other lane, so a slow, dead or
//! blocked destination does not affect the others.
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
//! While the clock is not set or the kernel has no random numbers, a lane over TLS waits: it tries nothing and counts no failure.
//! It starts again when they are there.
//!
//! A lane in strict order sends one event at a time: the oldest of the backlog, or the oldest live one if the backlog is empty.
//! Whenever any event is written to the spool, such a lane also stores what it holds up to that event. So its numbers in the
//! spool are in order, too.
//!
//! [`Deliveries`] records where each delivery in memory is.

use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::counters::Counters;
use super::deliveries::Deliveries;
use super::had::Had;
use super::in_flight::{InFlight, Source};
use super::limit::ConcurrencyLimit;
use super::retry::RetryState;
use super::rounds::Rounds;
use super::standing::Standing;
use super::{EventNo, LaneId, Target};
use crate::config::Report;
use crate::spool::{Address, Destination};

/// A lane that sends once a period sends for the first time within this time.
const FIRST_ROUND: Duration = Duration::from_secs(60);

/// A destination's lane.
#[derive(Debug)]
pub struct Lane {
    /// Its number.
    pub id: LaneId,
    /// Its destination, by its name in the spool.
    pub address: Address,
    /// It uses TLS or signs requests, so it needs the clock to be set and random numbers.
    pub needs_box: bool,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// Whether it is open, and where its events go if not.
    pub phase: Phase,
    /// Its deliveries in memory.
    pub deliveries: Deliveries,
    /// Events in the spool.
    pub backlog: Backlog,
    /// How many uploads may be in flight.
    pub limit: ConcurrencyLimit,
    /// What is known of its server.
    pub standing: Standing,
    /// When the last live event came.
    pub live_at: Option<Instant>,
    /// No upload begins before this, so that other destinations send the last live event first; see [`Lane::yield_to_others`].
    pub yields_until: Option<Instant>,
    /// No more events are taken out of the spool.
    pub leaves_backlog: bool,
    /// No events are taken out of the spool at this time of the day.
    pub is_off_hours: bool,
    /// Strict order: events go one at a time, the oldest first; see [`super::LaneSettings::in_order`].
    pub in_order: Option<Duration>,
    /// Which events it gets.
    pub report: Report,
    /// The rounds, where it sends once a period.
    pub rounds: Option<Rounds>,
    /// The events that it was given.
    pub had: Had,
    /// Counts what became of its events.
    pub counters: Counters,
}

/// Whether a lane is open, and where an event goes that comes to it, either new or back from a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Events go into the queue.
    Open,
    /// The destination was removed: events go to the lanes that inherit; with none they are kept in the spool.
    Closed(Vec<LaneId>),
    /// The process ends: events go into the spool, or stay in the ring.
    Suspended,
}

impl Lane {
    /// A lane with nothing to send.
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
            deliveries: Deliveries::default(),
            backlog: Backlog::default(),
            limit: ConcurrencyLimit::default(),
            standing: Standing::new(now),
            live_at: None,
            yields_until: None,
            leaves_backlog: false,
            is_off_hours: settings.is_off_hours,
            in_order: settings.in_order,
            report: settings.report,
            rounds: settings.period.map(|period| Rounds::new(period, first_round(period, random, now))),
            had: Had::new(born),
            counters: Counters::default(),
        }
    }

    /// Its destination, by its name in the spool.
    pub fn destination(&self) -> Destination {
        self.address.destination
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the destination was removed.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// An heir was removed: replaces it by its own heirs.
    pub fn replace_heir(&mut self, removed: LaneId, by: &[LaneId]) {
        let Phase::Closed(heirs) = &mut self.phase else { return };
        if heirs.contains(&removed) {
            heirs.retain(|heir| *heir != removed && !by.contains(heir));
            heirs.extend(by);
        }
    }

    /// Whether queued events should go to the spool.
    pub fn wants_spool(&self) -> bool {
        !self.is_open() || !self.standing.is_up() || self.leaves_backlog && self.rounds.is_some()
    }

    /// Whether an event waits or is in flight, as far as is known.
    pub fn has_something(&self) -> bool {
        !self.deliveries.is_empty() || !self.backlog.is_empty()
    }

    /// The lane as the target of an event to be stored; `destination` gives the destinations of its heirs.
    pub fn target(&self, destination: impl Fn(LaneId) -> Option<Destination>) -> Target {
        let heirs = match &self.phase {
            Phase::Closed(heirs) => Some(heirs.iter().filter_map(|heir| destination(*heir)).collect()),
            _ => None,
        };
        Target { address: self.address.clone(), heirs }
    }

    /// Whether it is closed and has nothing left.
    pub fn is_over(&self) -> bool {
        self.is_closed() && self.deliveries.is_empty()
    }

    /// The state of an event that failed, unless the configuration has changed since.
    pub fn still_known(&self, retry: Option<RetryState>) -> Option<RetryState> {
        retry.filter(|state| state.generation == self.standing.moment().1)
    }

    /// Applies another config and begins anew, because the cause of earlier failures may have been fixed.
    pub fn configure(&mut self, settings: super::LaneSettings, random: &mut fastrand::Rng, now: Instant) {
        if self.rounds.as_ref().map(Rounds::period) != settings.period {
            self.rounds = settings.period.map(|period| Rounds::new(period, first_round(period, random, now)));
        }
        (self.needs_box, self.response_timeout) = (settings.needs_box, settings.response_timeout);
        (self.in_order, self.is_off_hours) = (settings.in_order, settings.is_off_hours);
        self.standing.begin_anew(now);
        self.deliveries.forgive();
        self.backlog.forgive();
    }

    /// An upload that begins now.
    pub fn upload(&self, source: Source, retry: Option<RetryState>, now: Instant) -> InFlight {
        let (acknowledged, generation) = self.standing.moment();
        InFlight { source, began: now, acknowledged, generation, retry, is_aborted: false }
    }
}

/// When a lane that sends once a period does so first. It is soon, so that events of an earlier process do not wait for a whole
/// period, and random, so that boxes do not all send at once.
fn first_round(period: Duration, random: &mut fastrand::Rng, now: Instant) -> Instant {
    now + period.min(FIRST_ROUND).mul_f64(random.f64())
}
