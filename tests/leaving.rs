//! The promise: what was published is read to its end before a ring is left, and nobody's room is kept for nothing.

mod common;

use std::thread;
use std::time::Duration;

use common::daemon::Home;
use common::moody::{Mood, Moody};
use common::{Daemon, event, publish};
use serde_json::json;
use sophon_uplink::ring::producer::{NewEvent, Producer};

const RING: u64 = 1 << 20;

#[test]
fn a_ring_that_was_replaced_is_read_to_its_end_however_long_that_takes() {
    let (home, server) = (Home::new(), Moody::start());
    server.set(Mood::Silent);
    let mut old = Producer::open(&home.ring(), RING).unwrap();
    for _ in 0..600 {
        publish(&mut old, &event(b"", b"")); // more than are read while nothing is released
    }
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    server.wait_seen(4);
    drop(old);
    let new_path = home.folder.path().join("new");
    let mut new = Producer::open(&new_path, RING).unwrap();
    publish(&mut new, &event(b"", b""));
    std::fs::rename(&new_path, home.ring()).unwrap();
    thread::sleep(Duration::from_millis(500)); // time to leave it early, were that done
    server.set(Mood::Up);
    daemon.wait_log("replaced by a new ring");
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.read, stopped.acknowledged, server.count()), (601, 601, 601));
}

#[test]
fn a_malformed_event_that_is_the_last_one_gives_its_room_back() {
    let (home, server) = (Home::new(), Moody::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    publish(&mut recognizer, &event(b"", b""));
    publish(&mut recognizer, &NewEvent { score: f32::NAN, ..event(b"", b"") });
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.malformed), (1, 1));
}
