//! The running uplink: a task for each ring that reads its events, the lanes, and the spool's thread.
//!
//! ```text
//!  ring file ─▶ attach ─▶ read: threshold, malformed? ─▶ Driver ─▶ lanes ─▶ servers
//!                 ▲                 │                      ▲  │
//!                 │                 │ the ring fills       │  └─▶ the spool's thread ─▶ disk
//!                 │                 └──── spill, give up ──┘
//!                 └── replaced: once the old one is empty
//! ```
//!
//! Runs everything on one thread except the spool worker and the ring watchers. A ring has a watcher only if its recognizer has
//! no FIFO; the watcher sleeps on the ring's futex and wakes the event loop.

mod reading;
mod relief;
mod ring_watch;
mod wake_up;

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use crate::body::encoder::Pool;
use crate::clock;
use crate::config::{Config, Url};
use crate::deliver::client::Client;
use crate::deliver::driver::Driver;
use crate::deliver::history::History;
use crate::deliver::setup::Setup;
use crate::monitor::{Reporter, Sender};
use crate::readiness;
use crate::spool::dead::{self, DeadLetter};
use crate::spool::worker::Worker;
use crate::spool::{self, Address, Bounds, Destination, Resent};
use crate::status::{self, Status};
use crate::trial;
use ring_watch::RingWatch;

/// How long a status waits for the spool's part: a disk that hangs must not delay the status.
const DISK_TIMEOUT: Duration = Duration::from_millis(300);
/// The interval between checks whether the spool's folder is still the one that was opened. It is a multiple of the interval for
/// idle rings.
const WATCH: Duration = Duration::from_secs(5);
/// How many spooled events are given up at once if there is no room to save a config.
const EVICTED_FOR_CONFIG: usize = 4;
/// The interval between checks whether everything is done.
const POLL: Duration = Duration::from_millis(5);

/// Counters of events, except those that lanes and spool count.
#[derive(Debug, Default)]
pub struct Counters {
    /// Read from a ring.
    pub read: Cell<u64>,
    /// Of these: with a score below the threshold.
    pub filtered: Cell<u64>,
    /// Of these: records that no correct recognizer writes.
    pub malformed: Cell<u64>,
    /// How often a ring was found corrupt.
    pub corrupt: Cell<u64>,
    /// Events of which a field was corrected, or which a receiver may refuse.
    pub mended: Cell<u64>,
}

/// How far rings are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Events that were published before the end began are still read.
    Ending,
    Over,
}

/// Settings that are applied only at the start.
#[derive(Debug, PartialEq, Eq)]
struct Fixed {
    rings: Vec<PathBuf>,
    spool_dir: PathBuf,
    seccomp: bool,
}

impl Fixed {
    fn of(config: &Config) -> Fixed {
        Fixed { rings: config.rings.clone(), spool_dir: config.spool.dir.clone(), seccomp: config.seccomp }
    }

    /// The config keys in which `other` differs.
    fn differences(&self, other: &Fixed) -> Vec<&'static str> {
        let keys = [
            ("rings", self.rings != other.rings),
            ("spool.dir", self.spool_dir != other.spool_dir),
            ("privileges.seccomp", self.seccomp != other.seccomp),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

/// The running uplink.
pub struct Uplink {
    /// The config in force, with what its files hold.
    setup: RefCell<Arc<Setup>>,
    /// The settings that were applied at the start.
    fixed: Fixed,
    driver: Rc<Driver>,
    pool: Arc<Pool>,
    history: Rc<History>,
    counters: Counters,
    started: Instant,
    phase: Cell<Phase>,
    /// How many tasks still read a ring.
    reading: Cell<usize>,
    stop: Notify,
    /// The latest status of the spool.
    spool_status: RefCell<spool::Status>,
    /// How many events the spool had lost by the latest status, and when that number grew.
    spool_losses: Cell<(u64, Option<Instant>)>,
    /// The rings, in the order in which they were added.
    rings: RefCell<Vec<Rc<RingWatch>>>,
    /// Sends the state report.
    reporter: Reporter,
    me: Weak<Uplink>,
}

/// The uplink cannot start: the system refuses it a thread.
#[derive(Debug, thiserror::Error)]
#[error("the spool's thread cannot be started: {0}")]
pub struct StartError(#[from] std::io::Error);

impl Uplink {
    /// Starts the lanes and the spool; has to be called inside a `LocalRuntime`.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(setup: Arc<Setup>) -> Result<Rc<Uplink>, StartError> {
        let config = setup.config();
        let (worker, found) = Worker::start(config.spool.clone(), addresses(config))?;
        let uplink = Rc::new_cyclic(|me| Uplink {
            setup: RefCell::new(Arc::clone(&setup)),
            fixed: Fixed::of(config),
            driver: Driver::start(worker, found),
            pool: Arc::default(),
            history: Rc::default(),
            counters: Counters::default(),
            started: Instant::now(),
            phase: Cell::new(Phase::Running),
            reading: Cell::new(0),
            stop: Notify::new(),
            spool_status: RefCell::new(spool::Status::of_nothing("it is being opened")),
            spool_losses: Cell::default(),
            rings: RefCell::default(),
            reporter: Reporter::default(),
            me: me.clone(),
        });
        uplink.apply(setup);
        let watching = Rc::downgrade(&uplink);
        tokio::task::spawn_local(async move {
            loop {
                let Some(next) = watching.upgrade().map(|uplink| uplink.next_look(WATCH)) else { return };
                sleep_until(next).await;
                let Some(uplink) = watching.upgrade() else { return };
                if uplink.driver.worker.call(|spool| spool.notice().then(|| spool.state().clone())).await.is_some() {
                    uplink.driver.reopen();
                }
            }
        });
        Ok(uplink)
    }

    /// Applies another config: keeps, adds and removes lanes, without losing events. Rings and the spool's folder are opened, and
    /// privileges dropped, only at the start of the program; changes of these settings are logged.
    pub fn apply(&self, setup: Arc<Setup>) {
        let config = setup.config();
        let settings = |url: &Url| setup.of(url, &self.pool, &self.history);
        let destinations = config.destinations().map(|url| (url.clone(), settings(url))).collect();
        self.configure_spool(config);
        self.driver.configure(destinations, config.spool.group);
        let sender = Sender { this_box: config.this_box.clone(), spool: self.fixed.spool_dir.clone() };
        let monitor = config.monitor.clone().map(|monitor| (monitor.clone(), setup.of_monitor(&monitor)));
        let me = self.me.clone();
        let ask = move || {
            let me = me.clone();
            let asked: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { Some(me.upgrade()?.status().await) });
            asked
        };
        self.reporter.configure(monitor, sender, Rc::new(ask));
        let fixed = Fixed::of(config);
        let old = self.setup.replace(setup);
        let pending = self.fixed.differences(&fixed).join(", ");
        if !pending.is_empty() && fixed != Fixed::of(old.config()) {
            warn!("{pending}: read at the start only; restart to put the change into force");
        }
    }

    /// Test clients: a client of its own for each configured destination, which affects no statistics.
    pub fn test_clients(&self) -> Vec<Client> {
        let setup = self.setup.borrow().for_tests();
        let client = |url: &Url| trial::client(url.clone(), setup.of(url, &self.pool, &Rc::default()));
        setup.config().destinations().map(client).collect()
    }

    /// The statistics of deliveries.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Register destinations before their first event is stored, and heirs before their folders exist.
    fn configure_spool(&self, config: &Config) {
        let bounds = Bounds::from(&config.spool);
        let addresses = addresses(config);
        let key_file = config.spool.key_file.clone();
        drop(self.driver.worker.call(move |spool| {
            let before = spool.set_bounds(bounds);
            let evicted = spool.honour_bounds(before).len();
            if evicted > 0 {
                warn!(evicted, "the spool has more than its bounds allow: the oldest events were given up");
            }
            if let Err(why) = spool.use_key_file(key_file.as_deref()) {
                warn!("{why}: without it nothing is kept on flash, and what was sealed stays there; uploads go on");
            }
            spool.configure(&addresses).iter().for_each(|fault| warn!("{fault}"));
            for (destination, url, events) in spool.parked() {
                let url = url.map_or_else(|| destination.to_string(), str::to_owned);
                info!(
                    url,
                    events,
                    "parked: this destination is not in the config; its events wait for it or a new destination"
                );
            }
        }));
        self.driver.settle();
    }

    /// Stops within `patience`. Reads the events that were published so far, gives uploads `grace` to finish, and then spools
    /// what is left. Events that cannot be spooled stay in the rings.
    pub async fn stop(&self, grace: Duration, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.phase.set(Phase::Ending);
        self.stop.notify_waiters();
        let is_over = || self.reading.get() == 0 && self.driver.open_deliveries() == 0;
        let has_ended = || self.driver.in_flight() == 0;
        self.driver.leave_backlog();
        let _out_of_grace = timeout(grace, until(|| is_over() && has_ended())).await;
        self.driver.suspend();
        let is_hopeless = || self.driver.is_in_trouble() && has_ended();
        let _out_of_time = timeout_at(deadline, until(|| is_over() || is_hopeless())).await;
        self.phase.set(Phase::Over);
        self.stop.notify_waiters();
        let flushed = self.driver.worker.call(|_| ());
        if timeout_at(deadline, flushed).await.is_err() {
            warn!("the disk did not take everything in time");
        }
        let left = self.driver.open_deliveries();
        if left > 0 || self.reading.get() > 0 {
            warn!(deliveries = left, "events that were neither delivered nor spooled stay in the ring");
        }
    }

    /// The destination with this URL, if it is configured.
    pub fn destination(&self, url: &str) -> Option<Destination> {
        let url = Url::of_destination(url).ok()?;
        self.setup.borrow().config().destinations().any(|known| *known == url).then(|| Address::from(&url).destination)
    }

    /// The number of dead letters, up to `limit` of them with a number above `after`, and the last one's number if there are
    /// more.
    pub async fn letters(&self, after: Option<u64>, limit: usize) -> (u64, Vec<DeadLetter>, Option<u64>) {
        self.driver.worker.call(move |spool| spool.letters(after, limit)).await
    }

    /// Sends a batch of the wanted dead letters again, the first ones first.
    ///
    /// # Errors
    /// What failed; letters that were not sent stay dead letters.
    pub async fn resend(&self, wanted: dead::Wanted) -> Result<Resent, spool::DiskError> {
        let resent = self.driver.worker.call(move |spool| spool.resend_some(&wanted)).await;
        self.driver.look_into_spool();
        resent
    }

    /// There is no room to save a config in `folder`: the spool gives up its oldest events, if it is on the same file system.
    /// Returns whether it did.
    pub async fn give_way(&self, folder: &Path) -> bool {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|found| found.dev());
        if device(folder).is_none_or(|folder| device(&self.fixed.spool_dir) != Some(folder)) {
            return false;
        }
        let evicted = self.driver.worker.call(|spool| spool.give_way(EVICTED_FOR_CONFIG)).await.len();
        if evicted > 0 {
            warn!(evicted, "the config has no room to be saved: the oldest spooled events were given up");
        }
        evicted > 0
    }

    /// The status of everything.
    pub async fn status(&self) -> Status {
        let asked = self.driver.worker.call(|spool| {
            spool.notice();
            spool.status()
        });
        if let Ok(answer) = timeout(DISK_TIMEOUT, asked).await {
            self.spool_status.replace(answer);
        }
        let (setup, spool) = (Arc::clone(&self.setup.borrow()), self.spool_status.borrow());
        let config = setup.config();
        let lost = spool.tally.evicted + spool.tally.dead_evicted + spool.tally.vanished;
        if lost != self.spool_losses.get().0 {
            self.spool_losses.set((lost, Some(Instant::now())));
        }
        let last_loss = self.spool_losses.get().1.map(|moment| moment.elapsed().as_secs_f64());
        let counters = &self.counters;
        let [read, filtered, malformed] = [&counters.read, &counters.filtered, &counters.malformed].map(Cell::get);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            clock_is_set: clock::is_set(),
            randomness_is_ready: readiness::randomness(),
            max_silence_seconds: config.max_silence.as_secs(),
            events: status::Events { read, filtered, malformed, sent: read - filtered - malformed },
            shares: status::Shares::of(&self.driver.totals(), &spool.tally, self.driver.open_deliveries()),
            pending_restart: self.fixed.differences(&Fixed::of(config)),
            rings: self.rings.borrow().iter().map(|watch| watch.status()).collect(),
            rings_corrupt: counters.corrupt.get(),
            spool: status::Spool::of(&spool, &self.fixed.spool_dir, &config.spool, self.driver.trouble(), last_loss),
            events_mended: counters.mended.get(),
            destinations: self
                .driver
                .each(|lane, endpoints, recent| status::Destination::of(lane, endpoints, recent, &spool)),
            monitor: self.reporter.status(),
        }
    }
}

/// The destinations of `config`, as addresses for the spool.
pub fn addresses(config: &Config) -> Vec<Address> {
    config.destinations().map(Address::from).collect()
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(POLL).await;
    }
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
