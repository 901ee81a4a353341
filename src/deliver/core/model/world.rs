//! Everything outside the core, in simulated time: servers, the spool and its thread, a ring. It holds at every step that
//! - deliveries balance, and a ticket is released once, and not while an upload reads there;
//! - a destination acknowledges no event twice, and has no two uploads of one at once;
//! - no more than four bodies are on their way to a destination, one probe, and none in a pause that was asked for;
//!
//! and at the end, when everything is well again, that everything has come to its end within a time that is known before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use super::super::pressure::Need;
use super::super::*;
use super::{DESTINATIONS, Step, TIMEOUT};
use crate::deliver::failure::{Code, Early, Failure};
use crate::ring::file::RingId;

/// What a server says to an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Ok,
    /// This status, after which so many seconds are asked for.
    Status(u16, u64),
    /// The same, before it has the whole event.
    Early(u16),
    Reset,
    Silence,
    Unreachable,
    SourceLost,
}

/// How a server fares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// It takes all events that are not bad.
    Well,
    /// It says this to all.
    All(Answer),
    /// It says this to so many of a hundred tries.
    Some(u8, Answer),
}

impl Answer {
    pub fn random(random: &mut fastrand::Rng) -> Answer {
        match random.u8(..12) {
            0 => Answer::Status([400, 413, 422][random.usize(..3)], 0),
            1 => Answer::Status([503, 429][random.usize(..2)], random.u64(1..20)),
            2 | 3 => Answer::Status([500, 503, 408][random.usize(..3)], 0),
            4 | 5 => Answer::Status([401, 403, 404, 302][random.usize(..4)], 0),
            6 => Answer::Status([402, 409, 423][random.usize(..3)], 0),
            7 => Answer::Early([200, 400, 403, 413, 500][random.usize(..5)]),
            8 => Answer::Reset,
            9 => Answer::Silence,
            10 => Answer::Unreachable,
            _ => Answer::SourceLost,
        }
    }

    /// What a server may say to one event: that there is no connection is about none.
    pub fn of_event(random: &mut fastrand::Rng) -> Answer {
        match Answer::random(random) {
            Answer::Unreachable => Answer::Reset,
            answer => answer,
        }
    }

    fn outcome(self) -> Outcome {
        let status = |status: u16, early: Option<Early>, asked: u64| {
            let mut headers = hyper::HeaderMap::new();
            if asked > 0 {
                headers.insert("retry-after", asked.into());
            }
            Outcome::of_answer(status, &headers, early)
        };
        match self {
            Answer::Ok => Outcome::Acknowledged,
            Answer::Status(code, asked) => status(code, None, asked),
            Answer::Early(code) => status(code, Some(Early { sent: 1, total: 2 }), 0),
            Answer::Reset => Outcome::down(Failure::new(Code::Interrupted, "reset")),
            Answer::Silence => Outcome::down(Failure::new(Code::NoAnswer, "no answer")),
            Answer::Unreachable => Outcome::Unreachable { failure: Failure::new(Code::ConnectRefused, "refused") },
            Answer::SourceLost => Outcome::SourceLost,
        }
    }

    /// Whether an event to which this is said at each try is given up at last.
    fn is_final(self) -> bool {
        matches!(self, Answer::SourceLost) || !matches!(self, Answer::Ok | Answer::Unreachable | Answer::Status(429, _))
    }
}

impl Mode {
    pub fn random(random: &mut fastrand::Rng) -> Mode {
        match random.u8(..3) {
            0 => Mode::Well,
            1 => Mode::All(Answer::random(random)),
            _ => Mode::Some([1, 10, 50, 90][random.usize(..4)], Answer::random(random)),
        }
    }
}

/// A room in the ring.
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

struct Server {
    mode: Mode,
    bad: Answer,
    delay: Duration,
    stale: u32,
    /// How often each event was acknowledged, and when first.
    acknowledged: BTreeMap<u64, (Instant, LaneId)>,
    given: BTreeSet<u64>,
    /// Nothing may begin before, as it asked.
    asked_until: Option<Instant>,
    lane: Option<LaneId>,
    /// Counts the configs.
    generation: u32,
}

#[derive(Clone, Debug)]
struct Upload {
    generation: u32,
    lane: LaneId,
    server: usize,
    event: u64,
    /// It reads the ring.
    in_ring: bool,
    counter: Option<u64>,
    has_body: bool,
    answer: Answer,
    ends_at: Instant,
    is_stale: bool,
}

/// What is done by somebody else, and when it is done.
#[derive(Debug)]
enum Later {
    BodyGone(UploadId),
    Again(UploadId),
    End(UploadId),
    Spool(Call),
}

#[derive(Debug)]
enum Call {
    Pick(LaneId, UploadId, Destination, Wanted),
    Fate(Destination, u64, Fate),
    Write(Vec<Job>),
    Repair(Needs),
    Settle,
    Configure(Vec<Destination>),
}

#[derive(Default)]
struct Folder {
    events: BTreeMap<u64, u64>,
    out: BTreeSet<u64>,
    is_configured: bool,
    heirs: Option<Vec<Destination>>,
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
    // the spool
    usable: bool,
    latency: Duration,
    busy_until: Instant,
    folders: BTreeMap<[u8; 8], Folder>,
    files: BTreeMap<u64, u64>,
    next_counter: u64,
    delivered: BTreeSet<(usize, u64)>,
    dead: BTreeSet<(usize, u64)>,
    // the ring
    tail: usize,
    spilled: usize,
    capacity: u64,
    dropped: u64,
    is_stopped: bool,
    /// A stored event can always be opened.
    always_relocates: bool,
}

/// Of the ring, in units of an event's length.
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
            files: BTreeMap::new(),
            next_counter: 1,
            delivered: BTreeSet::new(),
            dead: BTreeSet::new(),
            tail: 0,
            spilled: 0,
            capacity: CAPACITY,
            dropped: 0,
            is_stopped: false,
            always_relocates: false,
        }
    }

    /// Runs a history, then makes everything well, and waits.
    pub fn run(&mut self, steps: &[(u64, Step)]) -> Result<(), String> {
        for (pause, step) in steps {
            self.go_to(self.now + Duration::from_millis(*pause));
            self.step(step);
        }
        if self.is_stopped {
            return self.stop();
        }
        self.usable = true;
        self.latency = Duration::from_millis(1);
        for server in &mut self.servers {
            (server.mode, server.delay) = (Mode::Well, Duration::from_millis(1));
        }
        // What is known of each event that is not taken, and at most two pauses, of which the longest is five minutes.
        let bound = Duration::from_secs(2 * 300) + Duration::from_secs(3600 * 4);
        let end = self.now + bound;
        while self.now < end && !self.is_over() {
            for _ in 0..6 {
                self.go_to(self.now + Duration::from_secs(5));
            }
            self.publish(1, 0, false); // which shows that the servers are well
            self.go_to(self.now + Duration::from_secs(1));
        }
        self.go_to(self.now + Duration::from_secs(1200));
        self.check_end()
    }

    /// At the end of the process nothing is only in memory, where the spool can be used.
    fn stop(&mut self) -> Result<(), String> {
        self.go_to(self.now + Duration::from_secs(3600));
        if self.usable && self.core.open_deliveries() > 0 && self.events.iter().all(|event| !event.too_large) {
            return Err(format!("{} deliveries are neither over nor stored", self.core.open_deliveries()));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let configured = |server: &usize| self.servers[*server].lane.is_some();
        let is_left = |server: usize| {
            let folder = self.folders.get(&destination(server).0);
            folder.is_some_and(|folder| !folder.events.is_empty() && (configured(&server) || !self.is_parked(folder)))
        };
        let parked = self.core.lanes.values().filter(|lane| lane.is_closed()).count();
        self.core.open_deliveries() == 0
            && self.uploads.is_empty()
            && self.what.is_empty()
            && parked == 0
            && !(0..DESTINATIONS).any(is_left)
    }

    fn is_parked(&self, folder: &Folder) -> bool {
        folder.heirs.as_ref().is_some_and(Vec::is_empty)
    }

    fn check_end(&self) -> Result<(), String> {
        // Events that a destination never takes, and that are not given up, may wait for ever; everything else is over.
        let mut stuck = Vec::new();
        for (server, state) in self.servers.iter().enumerate().filter(|(_, state)| state.lane.is_some()) {
            for event in &state.given {
                let is_bad = self.events[*event as usize].bad & 1 << server != 0;
                let waits = self
                    .folders
                    .get(&destination(server).0)
                    .is_some_and(|folder| folder.events.values().any(|one| one == event));
                let lane = &self.core.lanes[&state.lane.unwrap()];
                let is_here = waits || lane.holds(self.number_of(*event));
                if is_here && (!is_bad || state.bad.is_final()) {
                    stuck.push((server, *event, is_bad, lane.health.condition));
                }
            }
        }
        if stuck.is_empty() {
            return Ok(());
        }
        Err(format!("{} deliveries never come to their end: {:?}", stuck.len(), &stuck[..stuck.len().min(5)]))
    }

    fn number_of(&self, event: u64) -> EventNo {
        self.core
            .events
            .numbers()
            .into_iter()
            .find(|no| self.core.held(*no).is_some_and(|held| held.number == event))
            .unwrap_or(EventNo(0))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish { count, length, bad, too_large } => {
                for _ in 0..*count {
                    self.publish(*length, *bad, *too_large);
                }
            }
            Step::Become(server, mode) => self.servers[*server].mode = *mode,
            Step::Bad(server, answer) => self.servers[*server].bad = *answer,
            Step::Delay(server, delay) => self.servers[*server].delay = Duration::from_millis(*delay),
            Step::Spool { usable, latency_ms } => {
                (self.usable, self.latency) = (*usable, Duration::from_millis(*latency_ms));
            }
            Step::Configure(mask) => self.configure(*mask),
            Step::Reload => {
                let mask =
                    self.servers.iter().enumerate().map(|(at, server)| u8::from(server.lane.is_some()) << at).sum();
                self.configure(mask);
            }
            Step::Stale(server, count) => self.servers[*server].stale = *count,
            Step::Stop => {
                self.is_stopped = true;
                self.input(Input::LeaveBacklog);
                self.input(Input::Suspend);
            }
        }
    }

    pub fn configure(&mut self, mask: u8) {
        let wanted: Vec<usize> = (0..DESTINATIONS).filter(|server| mask & 1 << server != 0).collect();
        self.call(Call::Configure(wanted.iter().map(|server| destination(*server)).collect()));
        let lanes = wanted.iter().map(|server| {
            let address =
                Address { destination: destination(*server), former: None, shown: format!("http://{server}/") };
            (self.servers[*server].lane, LaneSettings { address, is_tls: false, response_timeout: TIMEOUT })
        });
        let lanes: Vec<_> = lanes.collect();
        let mut next = self.core.next_lane();
        for server in 0..DESTINATIONS {
            let state = &mut self.servers[server];
            state.asked_until = None;
            state.generation += 1;
            if !wanted.contains(&server) {
                state.lane = None;
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

    /// An event comes, unless the ring is full.
    pub fn publish(&mut self, length: u32, bad: u8, too_large: bool) -> bool {
        if self.used() + u64::from(length) > self.capacity {
            self.dropped += 1;
            self.relieve(true);
            return false;
        }
        let number = self.events.len() as u64;
        self.events.push(Event { length, bad, too_large, is_released: false });
        for server in self.servers.iter_mut().filter(|server| server.lane.is_some()) {
            server.given.insert(number);
        }
        self.input(Input::Published(Token { number, length }));
        self.relieve(false);
        true
    }

    fn used(&self) -> u64 {
        self.events[self.tail..].iter().map(|event| u64::from(event.length)).sum()
    }

    /// What `Uplink::relieve` does.
    fn relieve(&mut self, dropped: bool) {
        let excess = self.used().saturating_sub(self.capacity / 2).max(if dropped { self.capacity / 2 } else { 0 });
        let (mut before, mut spill) = (0, Vec::new());
        for at in self.tail..self.events.len() {
            if before >= excess {
                break;
            }
            before += u64::from(self.events[at].length);
            if at >= self.spilled {
                self.spilled = at + 1;
                spill.extend(
                    self.core.events.numbers().into_iter().find(|no| self.core.held(*no).unwrap().number == at as u64),
                );
            }
        }
        if !spill.is_empty() {
            self.input(Input::Spill(spill));
        }
        let mut dropped = dropped;
        loop {
            let free = self.capacity - self.used();
            let need = match () {
                () if dropped => Need::Refused,
                () if free < self.capacity / 16 => Need::Now,
                () if free < self.capacity / 8 => Need::Soon,
                () => return,
            };
            if self.tail >= self.events.len() {
                return;
            }
            let oldest = self.number_of(self.tail as u64);
            let mut effects = Vec::new();
            let is_free = self.core.give_up(self.now, oldest, need, &mut effects);
            self.perform(effects);
            self.check();
            if !is_free {
                return;
            }
            dropped = false;
        }
    }

    fn input(&mut self, input: Input<Token>) {
        let mut effects = Vec::new();
        self.core.handle(self.now, input, &mut effects);
        self.perform(effects);
        self.check();
    }

    fn later(&mut self, after: Duration, what: Later) {
        self.next += 1;
        self.later.push(Reverse((self.now + after, self.next)));
        self.what.insert(self.next, what);
    }

    /// Lets time go by.
    pub fn go_to(&mut self, end: Instant) {
        loop {
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

    fn done(&mut self, what: Later) {
        match what {
            Later::BodyGone(id) => {
                if let Some(upload) = self.uploads.get_mut(&id) {
                    upload.has_body = false;
                    let lane = upload.lane;
                    self.input(Input::BodyGone(lane, id));
                }
            }
            Later::Again(id) => {
                let Some(upload) = self.uploads.get_mut(&id) else { return };
                upload.has_body = false;
                let lane = upload.lane;
                self.input(Input::BodyGone(lane, id));
                self.input(Input::BodyWanted(lane, id));
            }
            Later::End(id) => self.end(id),
            Later::Spool(call) => self.spool(call),
        }
    }

    fn end(&mut self, id: UploadId) {
        let Some(upload) = self.uploads.remove(&id) else { return };
        if upload.has_body {
            self.input(Input::BodyGone(upload.lane, id));
        }
        let server = &mut self.servers[upload.server];
        if upload.answer == Answer::Ok {
            // One that was taken out of the config and came back as an heir may get again what it has.
            let before = server.acknowledged.insert(upload.event, (self.now, upload.lane));
            let is_new = before.is_none_or(|(_, lane)| lane != upload.lane);
            assert!(is_new, "event {} was acknowledged twice by {}", upload.event, upload.server);
        }
        let is_current = server.lane == Some(upload.lane) && server.generation == upload.generation;
        let event_id = crate::event::EventId { ring: RingId([0; 16]), sequence: upload.event };
        let outcome = upload.answer.outcome();
        let took = Duration::from_millis(1);
        if let (Outcome::Down { failure, retry_after: Some(asked) }, true) = (&outcome, is_current) {
            let asked_until = self.now + *asked;
            self.input(Input::Ended { lane: upload.lane, upload: id, id: event_id, outcome: outcome.clone(), took });
            if failure.status == Some(429)
                && self.core.lane(upload.lane).is_some_and(|lane| lane.health.paused_until(self.now).is_some())
            {
                self.servers[upload.server].asked_until = Some(asked_until);
            }
            return;
        }
        self.input(Input::Ended { lane: upload.lane, upload: id, id: event_id, outcome, took });
    }

    fn begin(&mut self, lane: LaneId, id: UploadId, event: u64, counter: Option<u64>) {
        let server = self.lanes[&lane];
        let state = &mut self.servers[server];
        assert!(
            state.asked_until.is_none_or(|until| until <= self.now),
            "an upload begins in a pause that was asked for"
        );
        let has_it = state.acknowledged.get(&event).is_some_and(|(_, before)| *before == lane);
        assert!(!has_it, "event {event} is sent again to {server}");
        let twice = self.uploads.values().any(|upload| upload.lane == lane && upload.event == event);
        assert!(!twice, "event {event} is on its way to {server} twice");
        let is_bad = self.events[event as usize].bad & 1 << server != 0;
        let answer = match state.mode {
            _ if is_bad => state.bad,
            Mode::Well => Answer::Ok,
            Mode::All(answer) => answer,
            Mode::Some(percent, answer) => {
                if self.random.u8(..100) < percent {
                    answer
                } else {
                    Answer::Ok
                }
            }
        };
        let delay = match answer {
            Answer::Silence => TIMEOUT,
            _ => state.delay,
        };
        let is_stale = std::mem::take(&mut state.stale) > 0;
        let ends_at = self.now + delay;
        self.uploads.insert(
            id,
            Upload {
                generation: state.generation,
                lane,
                server,
                event,
                in_ring: counter.is_none(),
                counter,
                has_body: true,
                answer,
                ends_at,
                is_stale,
            },
        );
        let held = self.core.lane(lane).unwrap();
        assert!(held.health.is_up() || held.limit.in_flight() == 1, "two probes at once");
        if is_stale {
            return self.later(delay / 2, Later::Again(id));
        }
        if !matches!(answer, Answer::Early(_)) {
            self.later(delay.min(Duration::from_millis(2)) / 2, Later::BodyGone(id));
        }
        self.later(delay, Later::End(id));
    }

    fn perform(&mut self, effects: Vec<Effect<Token>>) {
        for effect in effects {
            match effect {
                Effect::Release(token) => self.release(&token),
                Effect::Upload(lane, id, event) => {
                    let event = self.core.held(event).expect("it is held").number;
                    self.begin(lane, id, event, None);
                }
                Effect::UploadPicked(lane, id) => {
                    let upload = self.uploads.remove(&id).expect("it was picked");
                    self.begin(lane, id, upload.event, upload.counter);
                }
                Effect::Forget(id) => drop(self.uploads.remove(&id)),
                Effect::Abort(id) => {
                    if let Some(upload) = self.uploads.get_mut(&id) {
                        upload.answer = Answer::Reset;
                    }
                    self.later(Duration::ZERO, Later::End(id));
                }
                Effect::Body(id, may_go) => {
                    let Some(upload) = self.uploads.get_mut(&id) else { continue };
                    assert!(upload.is_stale, "a body for who does not wait");
                    upload.is_stale = false;
                    if may_go {
                        upload.has_body = true;
                        let delay = upload.ends_at.saturating_duration_since(self.now);
                        self.later(delay / 2, Later::BodyGone(id));
                        self.later(delay, Later::End(id));
                    } else {
                        upload.answer = Answer::Unreachable;
                        self.later(Duration::ZERO, Later::End(id));
                    }
                }
                Effect::Pick(lane, id, to, wanted) => self.call(Call::Pick(lane, id, to, wanted)),
                Effect::Spooled(_, to, counter, fate) => self.call(Call::Fate(to, counter, fate)),
                Effect::Write(jobs) => self.call(Call::Write(jobs)),
                Effect::Repair(needs) => self.call(Call::Repair(needs)),
                Effect::Settle => self.call(Call::Settle),
                Effect::Retire(_) | Effect::Removed(_) | Effect::Say(_) => {}
            }
        }
    }

    fn release(&mut self, token: &Token) {
        let event = &mut self.events[token.number as usize];
        assert!(!std::mem::replace(&mut event.is_released, true), "a ticket is released twice");
        let reads = self.uploads.values().any(|upload| upload.in_ring && upload.event == token.number);
        assert!(!reads, "the room of event {} is released while an upload reads there", token.number);
        while self.events.get(self.tail).is_some_and(|event| event.is_released) {
            self.tail += 1;
        }
        self.spilled = self.spilled.max(self.tail);
    }

    fn check(&self) {
        let totals = self.core.totals();
        let over =
            totals.acknowledged + totals.spooled + totals.refused + totals.lost + totals.evicted + totals.handed_over;
        assert_eq!(totals.entered, over + self.core.open_deliveries(), "the balance: {totals:?}");
        let open = self.events.iter().filter(|event| !event.is_released).count();
        assert_eq!(open, self.core.open_events(), "tickets");
        for lane in self.core.lanes.keys() {
            let bodies = self
                .uploads
                .values()
                .filter(|upload| upload.lane == *lane && upload.has_body && upload.counter.is_none_or(|_| true));
            assert!(bodies.count() <= 4, "more than four bodies");
        }
    }

    // --- the spool ---

    /// The spool's thread does one after the other.
    fn call(&mut self, call: Call) {
        self.busy_until = self.busy_until.max(self.now) + self.latency;
        self.later(self.busy_until - self.now, Later::Spool(call));
    }

    fn folder(&mut self, destination: Destination) -> &mut Folder {
        self.folders.entry(destination.0).or_default()
    }

    fn spool(&mut self, call: Call) {
        match call {
            Call::Configure(wanted) => self.reconfigure(&wanted),
            Call::Repair(Needs::Key) => self.input(Input::KeyChecked(self.usable)),
            Call::Repair(_) => {
                let problem = (!self.usable).then(|| "it is not there".to_owned());
                self.input(Input::Opened(problem));
            }
            Call::Settle => {
                let result = if self.usable { Ok(self.settle()) } else { Err(()) };
                self.input(Input::Settled(result));
            }
            Call::Fate(to, counter, fate) => {
                let folder = self.folder(to);
                folder.out.remove(&counter);
                let server = to.0[0] as usize;
                match fate {
                    Fate::PutBack => {}
                    Fate::Delivered => {
                        let event = folder.events.remove(&counter);
                        self.delivered.extend(event.map(|event| (server, event)));
                    }
                    Fate::Dead(_) | Fate::Skipped => {
                        let event = folder.events.remove(&counter);
                        self.dead.extend(event.map(|event| (server, event)));
                    }
                }
            }
            Call::Pick(lane, id, to, wanted) => {
                let picked = self.pick(lane, id, to, &wanted);
                self.input(Input::Picked(lane, id, picked));
            }
            Call::Write(jobs) => {
                let results = jobs.iter().map(|job| (job.event, self.store(job))).collect();
                self.input(Input::Written(results));
            }
        }
    }

    fn pick(&mut self, lane: LaneId, id: UploadId, to: Destination, wanted: &Wanted) -> Picked {
        if self.random.u8(..30) == 0 {
            return Picked::Later;
        }
        let folder = self.folder(to);
        let Folder { events, out, .. } = folder;
        let listed = |after: Option<u64>| {
            let from = after.map_or(0, |after| after + 1);
            events
                .range(from..)
                .map(|(counter, _)| *counter)
                .filter(|counter| !out.contains(counter))
                .collect::<Vec<_>>()
                .into_iter()
        };
        let Some(counter) = wanted.choose(listed) else { return Picked::Nothing };
        let event = events[&counter];
        out.insert(counter);
        let server = to.0[0] as usize;
        let (answer, ends_at) = (Answer::Ok, self.now);
        let upload = Upload {
            generation: 0,
            lane,
            server,
            event,
            in_ring: false,
            counter: Some(counter),
            has_body: false,
            answer,
            ends_at,
            is_stale: false,
        };
        let twice = self.uploads.values().any(|upload| upload.lane == lane && upload.event == event);
        assert!(!twice, "event {event} is taken out of the spool while it is on its way to {server}");
        self.uploads.insert(id, upload);
        Picked::Event(counter)
    }

    fn store(&mut self, job: &Job) -> Result<Stored, NotStored> {
        let number = self.core.held(job.event).expect("it is held while it is written").number;
        assert!(!self.events[number as usize].is_released);
        if !self.usable {
            let needs = [Needs::Nothing, Needs::Opening, Needs::Key][self.random.usize(..3)];
            return Err(NotStored::Later("the disk is full".into(), needs));
        }
        if self.events[number as usize].too_large {
            return Err(NotStored::Unfit);
        }
        let known =
            job.counter.filter(|counter| self.folders.values().any(|folder| folder.events.contains_key(counter)));
        let counter = known.unwrap_or(self.next_counter);
        self.next_counter = self.next_counter.max(counter + 1);
        self.files.insert(counter, number);
        for target in job.to.iter().chain(job.dead.iter().map(|(target, _)| target)) {
            let folder = self.folder(target.address.destination);
            if let (Some(heirs), false, true) = (&target.heirs, folder.is_configured, folder.heirs.is_none()) {
                folder.heirs = Some(heirs.clone());
            }
            folder.events.insert(counter, number);
        }
        for destination in &job.in_flight {
            self.folder(*destination).out.insert(counter);
        }
        for (target, _) in &job.dead {
            let event = self.folder(target.address.destination).events.remove(&counter);
            self.dead.extend(event.map(|event| (target.address.destination.0[0] as usize, event)));
        }
        let is_relocated = self.always_relocates || self.random.u8(..10) > 0;
        if is_relocated {
            for upload in self.uploads.values_mut().filter(|upload| upload.event == number) {
                upload.in_ring = false;
            }
        }
        Ok(Stored { counter, is_relocated })
    }

    fn reconfigure(&mut self, wanted: &[Destination]) {
        let is_old =
            |world: &World, one: &Destination| world.folders.get(&one.0).is_some_and(|folder| folder.is_configured);
        let added: Vec<Destination> = wanted.iter().copied().filter(|one| !is_old(self, one)).collect();
        for (name, folder) in &mut self.folders {
            if wanted.iter().any(|one| one.0 == *name) {
                continue;
            }
            let heirs = match (std::mem::take(&mut folder.is_configured), folder.heirs.take()) {
                (false, Some(heirs)) if !heirs.is_empty() && heirs.iter().all(|heir| wanted.contains(heir)) => heirs,
                (false, Some(heirs)) => {
                    heirs.into_iter().filter(|heir| wanted.contains(heir)).chain(added.iter().copied()).collect()
                }
                _ => added.clone(),
            };
            folder.heirs = Some(heirs);
        }
        for one in wanted {
            let folder = self.folder(*one);
            (folder.is_configured, folder.heirs) = (true, None);
        }
    }

    /// Moves what waits for removed destinations to their heirs.
    fn settle(&mut self) -> bool {
        let mut moved = false;
        for name in self.folders.keys().copied().collect::<Vec<_>>() {
            let folder = self.folders.get_mut(&name).unwrap();
            let Some(heirs) = folder.heirs.clone().filter(|heirs| !heirs.is_empty()) else { continue };
            let page: Vec<(u64, u64)> = folder
                .events
                .iter()
                .filter(|(counter, _)| !folder.out.contains(counter))
                .map(|(a, b)| (*a, *b))
                .collect();
            page.iter().for_each(|(counter, _)| {
                folder.events.remove(counter);
            });
            for heir in heirs {
                for (counter, event) in &page {
                    self.folder(heir).events.entry(*counter).or_insert(*event);
                    let server = &mut self.servers[heir.0[0] as usize];
                    server.given.insert(*event);
                    // Where two removed destinations lacked it, and one was just trying, the heir gets it twice.
                    server.acknowledged.remove(event);
                }
            }
            moved |= !page.is_empty();
        }
        moved
    }

    // --- for tests of fairness ---

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

    /// When a server acknowledged an event, since the beginning.
    pub fn acknowledged(&self, server: usize, event: u64) -> Option<Duration> {
        self.servers[server].acknowledged.get(&event).map(|(moment, _)| *moment - self.began)
    }

    pub fn lane_of(&self, server: usize) -> &Lane {
        self.core.lane(self.servers[server].lane.unwrap()).unwrap()
    }

    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
