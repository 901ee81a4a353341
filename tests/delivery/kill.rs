//! The promise: kill -9 of the uplink at any moment loses nothing, every event keeps its id and its bytes, and nothing is sent
//! again but what was still in the ring or in the spool.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::common::books::Books;
use crate::common::daemon::Home;
use crate::common::moody::{Mood, Moody};
use crate::common::{Daemon, RingProducer, make_key, picture};
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

/// A recognizer that publishes without a pause, at times into a full ring: what is refused there was never published.
struct Publishing {
    state: Mutex<(RingProducer, Books)>,
    stop: AtomicBool,
}

impl Publishing {
    /// More than this many events that some server lacks would make campaigns slow and prove nothing.
    const BEHIND: usize = 300;

    fn run(&self, servers: &[Moody]) {
        let pictures: Vec<_> = (0..8).map(|seed| picture(500 << seed, seed)).collect();
        while !self.stop.load(Ordering::Relaxed) {
            let published = {
                let (recognizer, books) = &mut *self.state();
                let number = books.len();
                let least = servers.iter().map(Moody::count).min().unwrap();
                number < least + Self::BEHIND
                    && books.publish(recognizer, &pictures[number % 8], &pictures[number / 8 % 8])
            };
            if !published {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, (RingProducer, Books)> {
        self.state.lock().unwrap()
    }
}

/// Ends the recognizer, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills again and again, the spool of several servers sealed, with a mood of `moods` for each server at each kill. One in two
/// restarts finds the first one up.
fn campaign(name: &str, kills: u64, servers: &[Moody], moods: &[Mood]) {
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let home = Home::new();
    let recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let books = Books::of(&recognizer);
    let publishing = Publishing { state: Mutex::new((recognizer, books)), stop: AtomicBool::new(false) };
    let all: Vec<_> = servers.iter().collect();
    let urls: Vec<_> = servers.iter().map(Moody::url).collect();
    make_key(&home.key());
    let key_file = (servers.len() > 1).then(|| home.key());
    let short = json!({
        "timeouts_ms": { "connect": 1000, "progress": 1000, "response": 1000 },
        "spool": { "dir": home.spool(), "min_free_bytes": 0, "key_file": key_file },
    });
    let (mut slowest, mut spooled) = (Duration::ZERO, 0);
    thread::scope(|scope| {
        let _stop = Stop(&publishing.stop);
        scope.spawn(|| publishing.run(servers));
        let mut daemon = Daemon::start(&home, &urls, short);
        for kill in 1..=kills {
            servers.iter().for_each(|server| server.set(*random.choice(moods).unwrap()));
            let longest = if random.bool() { 20_000 } else { 100_000 };
            thread::sleep(Duration::from_micros(random.u64(0..longest))); // the moment is the point
            // The recognizer rests while the ring is looked at.
            let mut state = publishing.state();
            drop(daemon.kill());
            state.1.process_ended(&home, &all);
            let is_behind = servers[0].count() < state.1.len();
            drop(state);
            spooled += home.spooled_files().len();
            let is_up = moods.len() == 1 || random.bool();
            if is_up {
                servers[0].set(Mood::Up);
            }
            let (before, naps) = (servers[0].times(), crate::common::Naps::start());
            daemon = Daemon::restart(&home);
            if is_up && is_behind {
                servers[0].wait_more_than(before);
                slowest = slowest.max(naps.passed());
            }
            if kill % 20 == 0 {
                let events = publishing.state().1.len();
                println!("{kill} of {kills} kills, {events} events, slowest restart to delivery {slowest:?}");
            }
        }
        publishing.stop.store(true, Ordering::Relaxed);
        servers.iter().for_each(|server| server.set(Mood::Up));
        home.wait_done();
        let stopped = daemon.terminate();
        assert_eq!((stopped.evicted, stopped.dead, stopped.quarantined), (0, 0, 0));
    });
    let balance = publishing.state().1.balance(&all);
    println!(
        "{name}: {kills} kills reached, {spooled} files in the spool at them; for {} servers {balance:?}",
        servers.len()
    );
    println!("slowest restart to first delivery: {slowest:?} (budget 1 s)");
    assert_eq!(balance.lacking, 0);
    assert!(balance.repeated > 0 || kills < 20, "no upload was ever cut off");
    assert!(slowest < Duration::from_secs(1));
}

/// `SOPHON_KILLS` raises the count for soak campaigns.
#[test]
fn kill_9_at_random_moments_loses_nothing_and_keeps_every_id() {
    campaign("server up", crate::common::count("SOPHON_KILLS", 100), &[Moody::start()], &[Mood::Up]);
}

#[test]
fn kill_9_while_servers_come_and_go_loses_nothing_and_repeats_only_what_was_still_here() {
    let moods = [Mood::Up, Mood::Up, Mood::Failing, Mood::Closing, Mood::Hanging];
    let servers = [Moody::start(), Moody::start()];
    campaign("servers up and down", crate::common::count("SOPHON_KILLS", 100), &servers, &moods);
}
