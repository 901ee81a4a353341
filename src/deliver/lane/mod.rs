//! One destination's lane: its queue, its uploads, its state. Nothing here knows of another lane, so a slow, dead or poisoned
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
//! Events go out oldest first, live ones before those in the spool. Where the server took the connection and then failed, the fault
//! may be the event's: the next probe is another one, so that no event can hold up all others, and this one waits a while of its own.
//!
//! This file has the queue; [`choosing`] decides what to send next, [`places`] how many uploads at once; [`sending`] has the uploads,
//! [`judging`] says what a try means, [`telling`] has the counters and the status.

mod choosing;
mod judging;
pub mod places;
mod sending;
mod telling;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::backlog::Backlog;
use super::client::{Client, IDLE_LIMIT, Settings};
use super::delivery::{Delivery, End};
use super::health::Health;
use super::job::Target;
use super::recent::Recent;
use super::spooler::Spooler;
use crate::config::Url;
use crate::rate_limited::RateLimited;
use crate::spool::{Address, Destination};
use choosing::Next;
use places::Places;

/// What became of a lane's shares, as far as memory knows: `entered` is the sum of the rest, failures aside, and of what is open.
#[derive(Debug, Default)]
pub struct LaneCounters {
    /// Given to the lane.
    pub entered: Cell<u64>,
    /// 2xx.
    pub acknowledged: Cell<u64>,
    /// Written into the spool; it counts on from there.
    pub spooled: Cell<u64>,
    /// The server did not want the event, and it could not be kept as a dead letter.
    pub refused: Cell<u64>,
    /// The event's pictures went away (the ring's file was truncated).
    pub lost: Cell<u64>,
    /// The ring needed the event's room, and it does not fit into the spool.
    pub evicted: Cell<u64>,
    /// The destination was removed from the config: those that were added have it.
    pub handed_over: Cell<u64>,
    /// Tries that came to nothing; not the end of an event.
    pub failures: Cell<u64>,
}

/// What is known of an event that failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    /// Tries that failed and may have been the event's fault.
    pub failures: u32,
    /// Others go first until then.
    pub not_before: Option<Instant>,
    /// The configuration under which it failed: of another one it says nothing.
    pub generation: u64,
}

/// A destination and what waits for it.
pub struct Lane {
    client: Client,
    address: Address,
    spooler: Rc<Spooler>,
    /// Oldest first.
    queue: RefCell<VecDeque<Waiting>>,
    backlog: RefCell<Backlog>,
    health: RefCell<Health>,
    places: Rc<Places>,
    /// Uploads on their way out of the spool.
    backlog_in_flight: Cell<usize>,
    /// An event is being taken out of the spool.
    is_picking: Cell<bool>,
    /// No more is.
    leaves_backlog: Cell<bool>,
    /// The last event of the queue that was tried as a probe, by its order: the next probe is one after it.
    probed: Cell<u64>,
    /// When the last live event came.
    live_at: Cell<Option<Instant>>,
    /// Something of the above changed.
    changed: Rc<Notify>,
    phase: RefCell<Phase>,
    random: RefCell<fastrand::Rng>,
    /// What became of its events in the last hour.
    recent: Recent,
    /// Messages about single events.
    complaints: RateLimited,
    /// What became of its events.
    pub counters: LaneCounters,
    /// The same over all lanes, removed ones too.
    totals: Rc<LaneCounters>,
}

/// An event in the queue.
struct Waiting {
    delivery: Rc<Delivery>,
    hold: Hold,
}

impl Waiting {
    fn is_ready(&self) -> bool {
        self.hold.not_before.is_none_or(|moment| moment <= Instant::now())
    }
}

/// Where an event goes that comes to the lane, new or back from a failed try.
enum Phase {
    /// Into the queue.
    Open,
    /// The destination was removed: to the lanes that inherit; with none it becomes a dead letter.
    Closed(Vec<Rc<Lane>>),
    /// The process ends: into the spool, or it stays in the ring.
    Suspended,
}

/// What a try means for its event.
enum Verdict {
    Over(End),
    Again(Hold),
}

impl Lane {
    /// A lane for `url`; [`Lane::run`] works it.
    pub fn new(url: Url, settings: Settings, spooler: Rc<Spooler>, totals: Rc<LaneCounters>) -> Rc<Lane> {
        let changed: Rc<Notify> = Rc::default();
        Rc::new(Lane {
            address: Address::from(&url),
            client: Client::new(url, settings),
            spooler,
            queue: RefCell::default(),
            backlog: RefCell::default(),
            health: RefCell::default(),
            places: Places::new(Rc::clone(&changed)),
            backlog_in_flight: Cell::new(0),
            is_picking: Cell::new(false),
            leaves_backlog: Cell::new(false),
            probed: Cell::new(0),
            live_at: Cell::new(None),
            changed,
            phase: RefCell::new(Phase::Open),
            random: RefCell::new(fastrand::Rng::new()),
            recent: Recent::default(),
            complaints: RateLimited::new(3),
            counters: LaneCounters::default(),
            totals,
        })
    }

    /// Its destination.
    pub fn url(&self) -> &Url {
        self.client.url()
    }

    /// Its destination, as the spool names it.
    pub fn destination(&self) -> Destination {
        self.address.destination
    }

    /// The same for an event to be stored.
    pub fn target(&self) -> Target {
        let heirs = match &*self.phase.borrow() {
            Phase::Closed(heirs) => Some(heirs.iter().map(|heir| heir.destination()).collect()),
            _ => None,
        };
        Target { address: self.address.clone(), heirs }
    }

    /// Whether the destination was removed.
    pub fn is_closed(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Closed(_))
    }

    /// Events that are on their way now.
    pub fn in_flight(&self) -> usize {
        self.places.in_flight()
    }

    /// Whether what is queued is better off in the spool.
    pub fn wants_spool(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Open) || !self.health.borrow().is_up()
    }

    // --- events come and go ---

    /// Takes a new event.
    pub fn enter(self: &Rc<Self>, delivery: Rc<Delivery>) {
        self.count(|counters| &counters.entered);
        self.live_at.set(Some(Instant::now()));
        self.put(delivery, Hold::default());
    }

    /// Puts an event into the queue in its order, or passes it on where the lane is closed.
    pub fn put(self: &Rc<Self>, delivery: Rc<Delivery>, hold: Hold) {
        let hold = self.still_held(hold);
        if let Phase::Closed(heirs) = &*self.phase.borrow()
            && delivery.hand_over(self, heirs)
        {
            return;
        }
        {
            let mut queue = self.queue.borrow_mut();
            let place = queue.partition_point(|other| other.delivery.order < delivery.order);
            queue.insert(place, Waiting { delivery: Rc::clone(&delivery), hold });
        }
        self.changed.notify_one();
        if self.wants_spool() {
            self.spooler.add(delivery);
        }
    }

    /// Takes an event out of the queue, for the spool.
    pub fn withdraw(&self, delivery: &Delivery) -> Hold {
        let mut queue = self.queue.borrow_mut();
        let place = queue.partition_point(|other| other.delivery.order < delivery.order);
        queue.remove(place).map_or(Hold::default(), |waiting| waiting.hold)
    }

    /// An event that is not on its way is in the spool now.
    pub fn is_spooled(&self, counter: u64, hold: Hold) {
        if self.is_closed() {
            return self.spooler.settle(); // for the heirs, or for a lane to the same destination that was added since
        }
        self.backlog.borrow_mut().add(counter, self.still_held(hold));
        self.changed.notify_one();
    }

    fn still_held(&self, hold: Hold) -> Hold {
        if hold.generation == self.health.borrow().generation { hold } else { Hold::default() }
    }

    /// It was on its way when the spool began to write it.
    pub fn is_back_in_spool(&self, counter: u64, hold: Hold) {
        let destination = self.destination();
        drop(self.spooler.worker.call(move |spool| spool.put_back(destination, counter)));
        self.is_spooled(counter, hold);
    }

    /// For the end of the process: nothing more is taken out of the spool.
    pub fn leave_backlog(&self) {
        self.leaves_backlog.set(true);
    }

    /// An event's way is over, and it was spooled meanwhile.
    pub fn end_spooled(self: &Rc<Self>, counter: u64, end: End) {
        self.settle_spooled(counter, &Verdict::Over(end));
    }

    /// There may be more in the spool than was known.
    pub fn look_into_spool(&self) {
        self.backlog.borrow_mut().wake();
        self.changed.notify_one();
    }

    // --- the lane's life ---

    /// Uses other settings, and begins anew: somebody may have set right what was wrong.
    pub fn configure(&self, settings: Settings) {
        self.client.configure(settings);
        self.health.borrow_mut().begin_anew();
        self.queue.borrow_mut().iter_mut().for_each(|waiting| waiting.hold = Hold::default());
        self.backlog.borrow_mut().forgive();
        self.changed.notify_one();
    }

    /// Ends the lane: no upload starts any more, and what waits goes to `heirs`. An upload on its way comes to its end; if it
    /// fails, its event goes to the heirs too.
    pub fn close(self: &Rc<Self>, heirs: Vec<Rc<Lane>>) {
        let waiting = self.queue.take();
        let urls: Vec<_> = heirs.iter().map(|heir| heir.url().to_string()).collect();
        match urls.join(", ") {
            urls if urls.is_empty() => {
                warn!(url = %self.url(), "removed, and no destination was added: what waits is parked in the spool until one is");
            }
            urls => info!(url = %self.url(), "removed: what waits goes to {urls}"),
        }
        self.phase.replace(Phase::Closed(heirs));
        // What has not begun to be sent goes to the heirs; what fails from now on says nothing of them.
        self.client.retire();
        self.health.borrow_mut().begin_anew();
        waiting.into_iter().for_each(|waiting| self.put(waiting.delivery, waiting.hold));
        self.changed.notify_one();
    }

    /// For the end of the process: no upload starts any more.
    pub fn suspend(&self) {
        self.phase.replace(Phase::Suspended);
        self.changed.notify_one();
    }

    /// Works the lane until it is closed.
    pub async fn run(self: Rc<Self>) {
        while matches!(*self.phase.borrow(), Phase::Open) {
            let next = match self.next() {
                Next::Live(waiting, sending) => {
                    tokio::task::spawn_local(Rc::clone(&self).send_live(waiting, sending));
                    continue;
                }
                Next::Backlog(sending) => {
                    tokio::task::spawn_local(Rc::clone(&self).send_backlog(sending));
                    continue;
                }
                Next::Wait(next) => next,
            };
            let idle = self.client.drop_idle().then(|| Instant::now() + IDLE_LIMIT);
            let timer = next.into_iter().chain(idle).min();
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }
}
