//! The promise: SIGTERM at any moment ends the uplink within 2 s, with exit code 0, and nothing is left only in its memory.
//! `Daemon::terminate` asserts time and code, and that the counters balance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::daemon::{Home, Stopped};
use crate::common::hanging::Hanging;
use crate::common::meter::Meter;
use crate::common::{Answer, Daemon, Request, RingProducer, Sink, Watched, event, picture, publish, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::deliver::core::limit::MOST;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

/// How a server fares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mode {
    #[default]
    Up,
    /// Closes every connection.
    Down,
    /// Reads, and never answers.
    Hung,
}

/// A server whose mode changes, and how often it acknowledged each event.
struct Server {
    sink: Sink,
    mode: Arc<Watched<Mode>>,
    acknowledged: Arc<Watched<BTreeMap<String, u64>>>,
}

impl Server {
    fn start() -> Server {
        let (mode, acknowledged) = (Arc::<Watched<Mode>>::default(), Arc::<Watched<BTreeMap<_, _>>>::default());
        let (asked, kept) = (Arc::clone(&mode), Arc::clone(&acknowledged));
        let policy = move |request: &Request, _| match asked.look(|mode| *mode) {
            _ if request.body.is_empty() => crate::common::sink::OK, // only its head is here
            Mode::Up => {
                kept.change(|events: &mut BTreeMap<String, u64>| *events.entry(request.id().into()).or_default() += 1);
                crate::common::sink::OK
            }
            Mode::Down => Answer::Close,
            Mode::Hung => Answer::Hang,
        };
        Server { sink: Sink::with(policy), mode, acknowledged }
    }

    fn set(&self, mode: Mode) {
        self.mode.change(|now| *now = mode);
    }

    fn has(&self) -> BTreeSet<u64> {
        let sequence = |id: &String| id.rsplit('-').next().unwrap().parse().unwrap();
        self.acknowledged.look(|events| events.keys().map(sequence).collect())
    }
}

/// Publishes without a pause, at times into a full ring, until told to stop.
struct Load {
    published: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<RingProducer>,
}

impl Load {
    fn start(mut recognizer: RingProducer) -> Load {
        let (published, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (told, is_over) = (Arc::clone(&published), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let pictures: Vec<_> = (0..6).map(|seed| picture(300 << seed, seed)).collect();
            while !is_over.load(Ordering::Relaxed) {
                let (reg, spot) = (&pictures[fastrand::usize(..6)], &pictures[fastrand::usize(..6)]);
                if let Ok(sequence) = recognizer.publish(&event(reg, spot)) {
                    told.store(sequence, Ordering::SeqCst);
                }
                thread::sleep(Duration::from_micros(300)); // the load
            }
            recognizer
        });
        Load { published, stop, thread }
    }

    fn stop(self) -> RingProducer {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// `SOPHON_STOPS` raises the count for soak campaigns.
#[test]
fn sigterm_at_random_moments_under_load_leaves_every_event_with_its_server_or_in_the_spool() {
    let stops = crate::common::count("SOPHON_STOPS", 12);
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let (home, servers) = (Home::new(), [Server::start(), Server::start()]);
    let urls: Vec<_> = servers.iter().map(|server| server.sink.url()).collect();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let mut slowest = Duration::ZERO;
    for stop in 0..stops {
        let modes = [0; 2].map(|_| [Mode::Up, Mode::Down, Mode::Hung][random.usize(..3)]);
        servers.iter().zip(modes).for_each(|(server, mode)| server.set(mode));
        let daemon = Daemon::start(&home, &urls, json!({}));
        daemon.wait_attached();
        let load = Load::start(recognizer);
        thread::sleep(Duration::from_millis(random.u64(0..300))); // the moment is the point
        // Half of the times the recognizer goes on: what it publishes after the signal may stay in the ring.
        let (mut load, mut stopped_before) = (Some(load), None);
        let last = match random.bool() {
            true => {
                stopped_before = load.take().map(Load::stop);
                RingState::of(&home.ring()).unwrap().published
            }
            false => load.as_ref().unwrap().published.load(Ordering::SeqCst),
        };
        let began = std::time::Instant::now();
        let stopped = daemon.terminate();
        slowest = slowest.max(began.elapsed());
        let state = RingState::of(&home.ring()).unwrap();
        assert!(state.consumed >= last, "{modes:?}: {last} were published before the signal\n{state}\n{}", stopped.log);
        assert!(stopped_before.is_none() || state.used == 0, "{modes:?}\n{state}\n{}", stopped.log);
        assert_kept(&home, &servers, state.consumed, &stopped);
        recognizer = load.map(Load::stop).or(stopped_before).unwrap();
        servers.iter().for_each(|server| drop(server.sink.take())); // or memory grows with the campaign
        if stop % 10 == 9 {
            println!("{} of {stops} stops, {} events, slowest {slowest:?}", stop + 1, state.published);
        }
    }
    println!("{stops} times SIGTERM to exit: at most {} ms (budget 2000)", slowest.as_millis());

    // All of it is delivered, under the same ids, and again only what was just being acknowledged.
    servers.iter().for_each(|server| server.set(Mode::Up));
    let daemon = Daemon::restart(&home);
    home.wait_done();
    assert_eq!(daemon.terminate().spooled, 0);
    let (last, ring) = (RingState::of(&home.ring()).unwrap().published, recognizer.id());
    for server in &servers {
        server.acknowledged.look(|events| {
            assert!((1..=last).all(|sequence| events.contains_key(&format!("{ring}-{sequence}"))));
            let twice: u64 = events.values().map(|times| times - 1).sum();
            println!("{} events, {twice} of them twice", events.len());
            assert_eq!(events.len() as u64, last, "nothing but what was published");
            assert!(twice <= stops * MOST as u64);
        });
    }
}

/// Each event up to `last` is with each server or in the spool for it.
fn assert_kept(home: &Home, servers: &[Server], last: u64, stopped: &Stopped) {
    for server in servers {
        let kept: BTreeSet<u64> = &server.has() | &home.spooled_for(&server.sink.url()).into_iter().collect();
        let lost: Vec<_> = (1..=last).filter(|sequence| !kept.contains(sequence)).collect();
        assert!(lost.is_empty(), "{lost:?} of {last} are nowhere\n{}", stopped.log);
    }
}

/// The disk hangs when `before` events are spooled; with none, already when the spool is opened.
fn stops_though_the_disk_hangs(before: u64) {
    const AFTER: u64 = 400; // more than are written or sent at once, whatever that is
    let (home, good, bad) = (Home::new(), Meter::start(), Meter::start());
    let Some(system) = Hanging::build(&home) else {
        println!("SKIPPED: a_disk_that_hangs_holds_up_nobody: there is no C compiler");
        return;
    };
    bad.close();
    home.configure(&[good.url(), bad.url()], json!({}));
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let pic = picture(1000, 1);
    let mut publish_many = |count| (0..count).for_each(|_| assert!(publish(&mut recognizer, &event(&pic, b"")) > 0));
    publish_many(before);
    if before == 0 {
        system.begin("fsync");
    }
    let daemon = Daemon::spawn(&mut system.uplink(&home));
    daemon.wait_attached();
    home.wait_released();
    system.begin("fsync");
    publish_many(AFTER);
    good.wait("every event at the server that is up", |arrivals| arrivals.len() as u64 == before + AFTER);
    let stopped = daemon.terminate();
    let state = RingState::of(&home.ring()).unwrap();
    // The spool's thread hangs too: what it had spooled before may still be told as open.
    let kept = (stopped.acknowledged, stopped.spooled + stopped.open, state.consumed);
    assert_eq!(kept, (before + AFTER, before + AFTER, before), "{state}\n{}", stopped.log);
    assert!(stopped.log.contains("the disk did not take everything in time"), "{}", stopped.log);

    bad.open();
    system.end("fsync");
    let daemon = Daemon::restart(&home);
    home.wait_done();
    daemon.terminate();
    let got: BTreeSet<u64> = bad.arrivals().iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!((got, bad.arrivals().len() as u64), ((1..=before + AFTER).collect(), before + AFTER), "each once");
}

#[test]
fn a_disk_that_hangs_holds_up_nobody_and_what_it_did_not_take_stays_in_the_ring() {
    stops_though_the_disk_hangs(0);
    stops_though_the_disk_hangs(5);
}

/// `call` hangs once events are on their way to `host`; the exit code of the uplink that is told to stop then, and its log.
fn stop_while_hanging(call: &str, host: &str) -> Option<(Option<i32>, String)> {
    let (home, server) = (Home::new(), Meter::start());
    let system = Hanging::build(&home)?;
    let url = server.url().replace("127.0.0.1", host);
    home.configure(&[url], json!({}));
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let mut daemon = Daemon::spawn(&mut system.uplink(&home));
    daemon.wait_attached();
    system.begin(call);
    publish(&mut recognizer, &event(&picture(5000, 1), b""));
    system.wait(call);
    daemon.signal(Signal::SIGTERM);
    wait_until("its end", || daemon.has_ended());
    let (status, log) = daemon.wait();
    let state = RingState::of(&home.ring()).unwrap();
    let is_kept = state.consumed == 0 || home.spooled_files().len() == 1;
    assert!(is_kept, "the event is neither in the ring nor in the spool\n{state}\n{log}");
    Some((status.code(), log))
}

#[test]
fn sigterm_ends_an_uplink_whatever_call_hangs() {
    let Some((code, log)) = stop_while_hanging("writev", "127.0.0.1") else {
        println!("SKIPPED: sigterm_ends_an_uplink_whatever_call_hangs: there is no C compiler");
        return;
    };
    assert!(code == Some(1) && log.ends_with("stay in the ring\n"), "the event loop hangs: {code:?}\n{log}");
    let (code, log) = stop_while_hanging("getaddrinfo", "localhost").unwrap();
    assert!(code == Some(0) && log.contains("stopped: "), "only a thread beside it hangs: {code:?}\n{log}");
}
