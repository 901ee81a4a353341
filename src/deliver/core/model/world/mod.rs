//! Simulates everything outside the core: the clock, servers, the spool and its thread, a ring. It checks at every step that
//! - deliveries balance, and a ticket is released exactly once, and never while an upload reads its event in the ring;
//! - a destination acknowledges no event twice, and never has two uploads of the same event;
//! - a destination has at most four bodies in transit, at most one probe, and no upload in a requested pause or without a clock;
//! - an event has one file in the spool, however many destinations lack it;
//!
//! and at the end, when nothing fails any more, that each delivery is done (acknowledged, a dead letter, handed over, or given up
//! for the ring) within a time that is computed beforehand: `checks.rs`.

mod checks;
mod ring;
pub mod servers;
mod spool;
mod uploads;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use super::history::{DESTINATIONS, Step};
use super::{Answer, Mode, TIMEOUT};
use crate::config::Report;
use crate::deliver::core::lane::Lane;
use crate::deliver::core::{Core, Held, Input, LaneId, LaneSettings, UploadId};
use crate::event::EventId;
use crate::readiness::NotReady;
use crate::ring::file::RingId;
use crate::spool::{Address, Destination};
use servers::Server;
use spool::{Call, Folder};

/// The id of an event.
fn id_of(number: u64) -> EventId {
    EventId { ring: RingId([0; 16]), sequence: number }
}

/// An event's room in the ring.
#[derive(Debug)]
pub struct Token {
    number: u64,
    length: u32,
}

impl Held for Token {
    fn length(&self) -> u32 {
        self.length
    }
}

#[derive(Debug)]
struct Event {
    length: u32,
    bad: u8,
    too_large: bool,
    is_released: bool,
}

#[derive(Clone, Debug)]
struct Upload {
    generation: u32,
    lane: LaneId,
    server: usize,
    event: u64,
    /// Whether it reads the event in the ring.
    in_ring: bool,
    counter: Option<u64>,
    has_body: bool,
    answer: Answer,
    ends_at: Instant,
    is_stale: bool,
}

/// An action outside the core that ends later.
#[derive(Debug)]
enum Later {
    BodyGone(UploadId),
    Again(UploadId),
    End(UploadId),
    Spool(Call),
}

pub struct World {
    core: Core<Token>,
    random: fastrand::Rng,
    now: Instant,
    began: Instant,
    servers: Vec<Server>,
    events: Vec<Event>,
    uploads: BTreeMap<UploadId, Upload>,
    lanes: BTreeMap<LaneId, usize>,
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    what: BTreeMap<u64, Later>,
    next: u64,
    // The spool.
    usable: bool,
    latency: Duration,
    busy_until: Instant,
    folders: BTreeMap<[u8; 8], Folder>,
    /// The newest counter of each event that was ever stored.
    counters: BTreeMap<u64, u64>,
    next_counter: u64,
    /// The number of writes.
    rounds: u64,
    delivered: BTreeSet<(usize, u64)>,
    dead: BTreeSet<(usize, u64)>,
    /// Events whose pictures are no longer available.
    lost: BTreeSet<(usize, u64)>,
    /// How long an event to be stored waits for others.
    window: Duration,
    /// Since when each event has had to be stored and could have been.
    wanted: BTreeMap<u64, Instant>,
    // The ring.
    tail: usize,
    /// The units between the tail and the newest event.
    used: u64,
    /// Events that are not released.
    open: usize,
    spilled: usize,
    capacity: u64,
    dropped: u64,
    /// Events whose room the ring needed although the spool could not take them.
    given_up: BTreeSet<u64>,
    /// Set while the box's clock is not set.
    lack: Option<NotReady>,
    is_stopped: bool,
    /// Whether a stored event can always be opened.
    always_relocates: bool,
    /// Destinations in strict order, with the time for which an event may stop the others.
    in_order: [Option<Duration>; DESTINATIONS],
    /// Destinations whose backlog waits for its hours.
    off_hours: [bool; DESTINATIONS],
    /// Destinations that get all events, once a period.
    periodic: [bool; DESTINATIONS],
    /// Whether the order is guaranteed so far: the disk refused no event, and no events of a removed destination were taken over.
    keeps_order: bool,
}

/// The destination that uses TLS, and needs the clock.
const OVER_TLS: usize = 3;

/// How long an event may stop the others of a destination in strict order.
const STOPS_OTHERS: Duration = Duration::from_secs(60);

/// The period of destinations that send once a period.
const PERIOD: Duration = Duration::from_secs(7);

/// The capacity of the ring, in units of an event's length.
const CAPACITY: u64 = 400;

fn destination(server: usize) -> Destination {
    Destination([server as u8; 8])
}

impl World {
    pub fn new(seed: u64) -> World {
        let now = Instant::now();
        let server = |_| Server {
            mode: Mode::Well,
            bad: Answer::Status(400, 0),
            delay: Duration::from_millis(1),
            stale: 0,
            acknowledged: BTreeMap::new(),
            given: BTreeSet::new(),
            asked_until: None,
            removed: None,
            tries: BTreeMap::new(),
            lane: None,
            generation: 0,
        };
        World {
            core: Core::new(fastrand::Rng::with_seed(seed)),
            random: fastrand::Rng::with_seed(seed ^ 1),
            now,
            began: now,
            servers: (0..DESTINATIONS).map(server).collect(),
            events: Vec::new(),
            uploads: BTreeMap::new(),
            lanes: BTreeMap::new(),
            later: BinaryHeap::new(),
            what: BTreeMap::new(),
            next: 0,
            usable: true,
            latency: Duration::from_millis(1),
            busy_until: now,
            folders: BTreeMap::new(),
            counters: BTreeMap::new(),
            next_counter: 1,
            rounds: 0,
            window: Duration::ZERO,
            wanted: BTreeMap::new(),
            delivered: BTreeSet::new(),
            dead: BTreeSet::new(),
            lost: BTreeSet::new(),
            tail: 0,
            used: 0,
            open: 0,
            spilled: 0,
            capacity: CAPACITY,
            dropped: 0,
            given_up: BTreeSet::new(),
            lack: None,
            is_stopped: false,
            always_relocates: false,
            in_order: [None; DESTINATIONS],
            off_hours: [false; DESTINATIONS],
            periodic: [false; DESTINATIONS],
            keeps_order: true,
        }
    }

    /// Runs a history, then lets everything work again, and waits for all deliveries.
    pub fn run(&mut self, steps: &[(u64, Step)]) -> Result<(), String> {
        for (pause, step) in steps {
            self.go_to(self.now + Duration::from_millis(*pause));
            self.step(step);
        }
        if self.is_stopped {
            return self.stop();
        }
        (self.usable, self.latency) = (true, Duration::from_millis(1));
        self.set_clock(true);
        (0..DESTINATIONS).for_each(|server| self.set_hours(server, true));
        for server in &mut self.servers {
            (server.mode, server.delay) = (Mode::Well, Duration::from_millis(1));
        }
        let began = self.now;
        let (good, all) = (began + self.bound_of_good(), began + self.bound_of_all());
        let mut is_checked = false;
        let count = self.events.len() as u64;
        while self.now < all && !self.is_over() {
            for _ in 0..6 {
                self.go_to(self.now + Duration::from_secs(5));
            }
            self.publish(1, 0, false); // an event that shows that the servers work
            self.go_to(self.now + Duration::from_secs(1) + self.longest_rest());
            if self.now >= good && !std::mem::replace(&mut is_checked, true) {
                self.check_over(count, |is_bad, _| !is_bad)?;
            }
        }
        self.check_over(count, |is_bad, bad| !is_bad || bad.is_final())?;
        self.check_nothing_lost()
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Publish { count, length, bad, too_large } => {
                for _ in 0..*count {
                    self.publish(*length, *bad, *too_large);
                }
            }
            Step::Window(window_ms) => self.set_window(Duration::from_millis(*window_ms)),
            Step::InOrder(mask) => self.set_in_order(*mask, STOPS_OTHERS),
            Step::Periodic(mask) => self.set_periodic(*mask),
            Step::Become(server, mode) => self.servers[*server].mode = *mode,
            Step::Bad(server, answer) => self.servers[*server].bad = *answer,
            Step::Delay(server, delay) => self.servers[*server].delay = Duration::from_millis(*delay),
            Step::Spool { usable, latency_ms } => {
                (self.usable, self.latency) = (*usable, Duration::from_millis(*latency_ms));
                self.keeps_order &= usable;
            }
            Step::Configure(mask) => self.configure(*mask),
            Step::Reload => {
                let mask =
                    self.servers.iter().enumerate().map(|(at, server)| u8::from(server.lane.is_some()) << at).sum();
                self.configure(mask);
            }
            Step::Stale(server, count) => self.servers[*server].stale = *count,
            Step::Clock(is_set) => self.set_clock(*is_set),
            Step::Hours(server, is_open) => self.set_hours(*server, *is_open),
            Step::Reopen => {
                self.keeps_order = false;
                self.input(Input::Reopen);
            }
            Step::Stop => {
                self.is_stopped = true;
                self.input(Input::LeaveBacklog);
                self.input(Input::Suspend);
            }
        }
    }

    /// Sets how long an event to be stored waits for others.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
        self.input(Input::Window(window));
    }

    /// Puts these destinations into strict order from the next config on.
    pub fn set_in_order(&mut self, mask: u8, stops_others: Duration) {
        self.in_order = std::array::from_fn(|server| (mask & 1 << server != 0).then_some(stops_others));
    }

    /// Lets these destinations get all events, once a period, from the next config on.
    pub fn set_periodic(&mut self, mask: u8) {
        self.periodic = std::array::from_fn(|server| mask & 1 << server != 0);
    }

    pub(super) fn report_of(&self, server: usize) -> Report {
        if self.periodic[server] { Report::History } else { Report::RealTime }
    }

    /// The longest time that an event may wait for its destination's period.
    pub(super) fn longest_rest(&self) -> Duration {
        if self.periodic.contains(&true) { PERIOD } else { Duration::ZERO }
    }

    /// Opens or closes the hours of a destination's backlog.
    pub fn set_hours(&mut self, server: usize, is_open: bool) {
        self.off_hours[server] = !is_open;
        if let Some(lane) = self.servers[server].lane {
            self.input(Input::BacklogHours(lane, is_open));
        }
    }

    fn set_clock(&mut self, is_set: bool) {
        let before = std::mem::replace(&mut self.lack, (!is_set).then_some(NotReady::Clock));
        if before.is_some() && is_set {
            let state = &mut self.servers[OVER_TLS];
            (state.asked_until, state.generation) = (None, state.generation + 1); // its lane starts again
        }
    }

    pub fn configure(&mut self, mask: u8) {
        let wanted: Vec<usize> = (0..DESTINATIONS).filter(|server| mask & 1 << server != 0).collect();
        let is_removed = |server: &Server, at: usize| server.lane.is_some() && !wanted.contains(&at);
        self.keeps_order &= !self.servers.iter().enumerate().any(|(at, server)| is_removed(server, at));
        self.call(Call::Configure(wanted.iter().map(|server| destination(*server)).collect()));
        let lanes = wanted.iter().map(|server| {
            let address =
                Address { destination: destination(*server), former: None, shown: format!("http://{server}/") };
            (
                self.servers[*server].lane,
                LaneSettings {
                    address,
                    needs_box: *server == OVER_TLS,
                    response_timeout: TIMEOUT,
                    in_order: self.in_order[*server],
                    is_off_hours: self.off_hours[*server],
                    report: self.report_of(*server),
                    period: self.periodic[*server].then_some(PERIOD),
                },
            )
        });
        let lanes: Vec<_> = lanes.collect();
        self.look_at_box(); // uploads that this starts begin under the old config
        let mut next = self.core.next_lane();
        for server in 0..DESTINATIONS {
            let state = &mut self.servers[server];
            state.asked_until = None;
            state.generation += 1;
            if !wanted.contains(&server) && state.lane.take().is_some() {
                state.removed = Some(self.events.len() as u64);
            }
        }
        for server in &wanted {
            if self.servers[*server].lane.is_none() {
                self.servers[*server].lane = Some(next);
                self.lanes.insert(next, *server);
                next = LaneId(next.0 + 1);
            }
        }
        self.input(Input::Configured(lanes));
        self.input(Input::Settle);
    }

    fn input(&mut self, input: Input<Token>) {
        if self.core.wants_box(&input) {
            self.look_at_box();
        }
        let mut effects = Vec::new();
        self.core.handle(self.now, input, &mut effects);
        self.perform(effects);
        self.check();
        self.check_window();
    }

    fn look_at_box(&mut self) {
        let mut effects = Vec::new();
        self.core.handle(self.now, Input::Box(self.lack), &mut effects);
        self.perform(effects);
    }

    fn later(&mut self, after: Duration, what: Later) {
        self.next += 1;
        self.later.push(Reverse((self.now + after, self.next)));
        self.what.insert(self.next, what);
    }

    /// Advances the time to `end`, and handles everything that is due until then.
    pub fn go_to(&mut self, end: Instant) {
        let mut ticks = (self.now, 0);
        loop {
            ticks = (self.now, if ticks.0 == self.now { ticks.1 + 1 } else { 0 });
            assert!(ticks.1 < 10_000, "the timer rings for nothing");
            let timer = self.core.next_timer();
            let next = self.later.peek().map(|Reverse((moment, _))| *moment);
            let Some(moment) = timer.into_iter().chain(next).min().filter(|moment| *moment <= end) else { break };
            self.now = self.now.max(moment);
            if next.is_some_and(|next| next <= self.now) {
                let Reverse((_, number)) = self.later.pop().unwrap();
                if let Some(what) = self.what.remove(&number) {
                    self.done(what);
                }
            } else {
                self.input(Input::Tick);
            }
            if self.tail < self.events.len() {
                self.relieve(false);
            }
        }
        self.now = self.now.max(end);
    }

    // --- for the fairness tests ---

    pub fn set(&mut self, server: usize, mode: Mode, bad: Answer, delay: Duration) {
        let state = &mut self.servers[server];
        (state.mode, state.bad, state.delay) = (mode, bad, delay);
    }

    pub fn set_spool(&mut self, usable: bool) {
        self.always_relocates = true;
        self.usable = usable;
    }

    pub fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// When a server acknowledged an event, since the start of the world.
    pub fn acknowledged(&self, server: usize, event: u64) -> Option<Duration> {
        self.servers[server].acknowledged.get(&event).map(|(moment, _)| *moment - self.began)
    }

    pub fn lane_of(&self, server: usize) -> &Lane {
        self.core.lane(self.servers[server].lane.unwrap()).unwrap()
    }

    /// How often an event was sent to a server.
    pub fn tries(&self, server: usize, event: u64) -> u32 {
        self.servers[server].tries.get(&event).copied().unwrap_or_default()
    }

    /// Events that hold room in the ring.
    pub fn in_ring(&self) -> usize {
        self.core.open_events()
    }

    /// The process ends soon.
    pub fn leave_backlog(&mut self) {
        self.input(Input::LeaveBacklog);
    }

    /// How many events were ever stored in the spool.
    pub fn stored(&self) -> usize {
        self.counters.len()
    }

    /// The number of writes.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
