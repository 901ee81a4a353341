//! A short run in which the daemon does everything that it does with a spool: three destinations, of which one is up, one fails
//! and one says nothing while the ring fills, so that events are spooled, also under their uploads; then all are up, and the
//! backlog drains; then it is stopped. It goes on with whatever comes when the daemon dies in between.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

use super::books::Books;
use super::daemon::{Daemon, Home, Stopped};
use super::moody::{Mood, Moody};
use super::{RingProducer, picture, wait_until};

/// The servers of many runs.
pub struct Servers {
    pub up: Moody,
    pub failing: Moody,
    pub silent: Moody,
}

impl Servers {
    pub fn start() -> Servers {
        let [up, failing, silent] = std::array::from_fn(|_| Moody::start());
        Servers { up, failing, silent }
    }

    pub fn all(&self) -> [&Moody; 3] {
        [&self.up, &self.failing, &self.silent]
    }

    pub fn urls(&self) -> Vec<String> {
        self.all().map(Moody::url).to_vec()
    }
}

pub struct ShortRun<'a> {
    pub home: Home,
    pub books: Books,
    pub servers: &'a Servers,
    recognizer: RingProducer,
    pictures: Vec<Vec<u8>>,
}

/// Published before the start; they take more than half of the ring, whose oldest part is then to be spooled.
const FIRST: usize = 4;
/// Published when all servers are up.
const THEN: usize = 2;
/// What the log says when nothing can be stored.
pub const TROUBLE: &str = "events stay in the ring, uploads go on";
/// What it says when an event is given up.
pub const EVICTION: &str = "the spool is full: the oldest were given up";

impl<'a> ShortRun<'a> {
    pub fn new(servers: &'a Servers) -> ShortRun<'a> {
        let home = Home::new();
        let recognizer = Producer::open(&home.ring(), 64 << 10).unwrap();
        // A server that is silent on purpose is not to be given up, and nothing more is to be waited for that may be written
        // together.
        let patient = json!({ "connect": 60_000, "progress": 60_000, "response": 60_000 });
        let spool = json!({ "dir": home.spool(), "min_free_bytes": 0, "group_ms": 50 });
        home.configure(&servers.urls(), json!({ "timeouts_ms": patient, "spool": spool }));
        servers.up.set(Mood::Up);
        servers.failing.set(Mood::Failing);
        servers.silent.set(Mood::Silent);
        let pictures = (0..3).map(|seed| picture(5000 + 500 * seed as usize, seed)).collect();
        let mut run = ShortRun { books: Books::of(&recognizer), home, servers, recognizer, pictures };
        (0..FIRST).for_each(|_| run.publish());
        run
    }

    /// Publishes, unless a dead daemon has left the ring full.
    fn publish(&mut self) {
        let number = self.books.len();
        let (reg, spot) = (&self.pictures[number % 3], &self.pictures[number / 3 % 3]);
        self.books.publish(&mut self.recognizer, reg, spot);
    }

    /// Lets the daemon go through its life, or up to its death.
    pub fn drive(&mut self, mut daemon: Daemon) -> End {
        let Servers { up, failing, silent } = self.servers;
        let (books, home) = (&self.books, &self.home);
        wait_until("the first events at the server that is up", || books.lacking(up).is_empty() || daemon.has_ended());
        wait_until("the spooling of the first events", || {
            let log = daemon.log();
            let is_stored = home.spooled_for(&failing.url()).len() == FIRST;
            is_stored || log.contains(TROUBLE) || log.contains(EVICTION) || daemon.has_ended()
        });
        failing.set(Mood::Up);
        silent.set(Mood::Up);
        (0..THEN).for_each(|_| self.publish());
        wait_until("the rest", || self.servers.all().into_iter().all(|one| self.is_settled(one)) || daemon.has_ended());
        End::of(daemon)
    }

    /// Whether each event is at `server`, or waits for it in the spool, or was given up.
    fn is_settled(&self, server: &Moody) -> bool {
        let mut lacking = self.books.lacking(server); // first of all: what is looked at next comes before an event's arrival
        let released = RingState::of(&self.home.ring()).unwrap().consumed;
        let spooled = self.home.spooled_for(&server.url());
        lacking.retain(|sequence| *sequence > released && !spooled.contains(sequence));
        lacking.is_empty()
    }

    /// Starts the daemon on what the last one left, and waits until every event has come to its end.
    pub fn finish(&mut self) -> Stopped {
        self.books.process_ended(&self.home, &self.servers.all());
        let daemon = Daemon::restart(&self.home);
        daemon.wait_attached(); // before that a signal may end it
        self.home.wait_done();
        daemon.terminate()
    }

    /// Whether anything is left for `server`.
    pub fn has_work(&self) -> bool {
        RingState::of(&self.home.ring()).unwrap().used > 0 || !self.home.is_drained()
    }
}

/// How a run ended.
pub enum End {
    /// By a signal that nobody can obey.
    Died,
    /// As it was asked to, in time.
    Stopped(Box<Stopped>),
}

impl End {
    fn of(mut daemon: Daemon) -> End {
        let naps = super::Naps::start();
        if !daemon.has_ended() {
            daemon.signal(Signal::SIGTERM);
        }
        let (status, log) = daemon.wait();
        let took = naps.passed();
        if status.signal() == Some(Signal::SIGKILL as i32) {
            return End::Died;
        }
        assert!(status.success(), "{status} after {took:?}\n{log}");
        assert!(took < Duration::from_secs(2), "SIGTERM to exit took {took:?}\n{log}");
        End::Stopped(Box::new(Stopped::read(log)))
    }
}
