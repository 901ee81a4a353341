//! The promise: what was published is read to its end before a ring is left, and nobody's room is kept for nothing.

use std::thread;
use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::moody::{Mood, Moody};
use crate::common::traced::{self, Call, Trace};
use crate::common::{Daemon, event, http, publish};
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

#[test]
fn what_is_published_right_before_a_replaced_ring_is_left_is_read() {
    if !traced::is_possible("what_is_published_right_before_a_replaced_ring_is_left_is_read") {
        return;
    }
    let (home, server) = (Home::new(), Moody::start());
    let mut old = Producer::open(&home.ring(), RING).unwrap();
    home.configure(&[server.url()], json!({}));
    // The look at the recognizer's lock takes so long that all the rest falls into one of them.
    let call = Call { name: "fcntl".into(), number: 1 };
    let daemon = Trace::of(&home).inject(&call, "delay_enter=700000", true).start(&home);
    publish(&mut old, &event(b"", b""));
    server.wait_seen(1);
    for number in 2..4 {
        daemon.wait_log(&format!("id={}", old.id())); // attached
        std::fs::remove_file(home.ring()).unwrap();
        let new = Producer::open(&home.ring(), RING).unwrap();
        thread::sleep(Duration::from_millis(300)); // it was noticed, and the old one read to its end
        publish(&mut old, &event(b"", b""));
        drop(std::mem::replace(&mut old, new));
        server.wait_seen(number);
    }
    publish(&mut old, &event(b"", b""));
    server.wait_seen(4);
    home.wait_done();
    daemon.kill();
}

#[test]
fn a_ring_whose_name_is_removed_under_both_is_made_again_and_nothing_is_lost() {
    let (home, server) = (Home::new(), Moody::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    publish(&mut recognizer, &event(b"", b""));
    server.wait_seen(1);
    let first = recognizer.id();
    std::fs::remove_file(home.ring()).unwrap();
    daemon.wait_log("was removed while both sides still use it");
    let said = |daemon: &Daemon| daemon.status()["rings"][0].clone();
    let ring = said(&daemon);
    assert_eq!((&ring["is_removed"], &ring["recognizer"]), (&json!(true), &json!("alive")), "{ring}");
    let health = http::get(daemon.api(), "/healthz");
    assert!(health.status == 503 && health.body.contains("was removed"), "{}", health.body);
    // The next event notices: the uplink reads the old ring to its end and goes on in the new one.
    crate::common::wait_until("a new ring", || {
        publish(&mut recognizer, &event(b"", b""));
        recognizer.id() != first
    });
    daemon.wait_log("replaced by a new ring");
    let sequence = publish(&mut recognizer, &event(b"", b""));
    crate::common::wait_until("the uplink in the new ring", || said(&daemon)["state"]["consumed"] == sequence);
    assert_eq!(said(&daemon)["is_removed"], false);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!(stopped.read, stopped.acknowledged);
    assert!(!stopped.log.contains("has died"), "{}", stopped.log);
}

#[test]
fn what_was_published_into_a_ring_that_nobody_finds_any_more_arrives_under_its_ids() {
    let (home, server) = (Home::new(), Moody::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let id = recognizer.id();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    publish(&mut recognizer, &event(b"", b""));
    server.wait_seen(1);
    home.wait_done();
    daemon.terminate();
    publish(&mut recognizer, &event(b"", b""));
    std::fs::remove_file(home.ring()).unwrap();
    let mut published = publish(&mut recognizer, &event(b"", b""));
    let daemon = Daemon::restart(&home);
    crate::common::wait_until("the ring again", || {
        published = publish(&mut recognizer, &event(b"", b""));
        home.ring().exists()
    });
    server.wait_seen(published as usize);
    assert_eq!(recognizer.id(), id);
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, published - 1);
    assert_eq!(server.count() as u64, published, "each once, with the one of before");
}
