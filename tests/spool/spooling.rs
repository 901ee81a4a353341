//! The promise: while events wait on the disk, whatever the disk, the server or a stop does, each comes to its end, and costs the
//! others nothing.

use std::thread;
use std::time::Duration;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::sink::OK;
use crate::common::{Answer, Daemon, Request, Sink, event, picture, publish, publish_many, wait_until};
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

const RING: u64 = 1 << 20;

#[test]
fn a_spool_that_becomes_available_later_is_emptied_without_a_new_event() {
    let home = Home::new();
    let port = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[port.url()], json!({}));
    publish_many(&mut recognizer, 5);
    home.wait_released();
    daemon.terminate();
    let away = home.folder.path().join("away");
    std::fs::rename(home.spool(), &away).unwrap();
    std::fs::write(home.spool(), b"not mounted yet").unwrap();
    let sink = Sink::on(port.open(), |_, _| OK);
    let daemon = Daemon::restart(&home);
    daemon.wait_log("the spool is unavailable");
    thread::sleep(Duration::from_millis(1500)); // the second look, after 1 s, fails too
    std::fs::remove_file(home.spool()).unwrap();
    std::fs::rename(&away, home.spool()).unwrap();
    sink.wait(5);
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 5);
}

#[test]
fn sigterm_tries_a_spool_that_was_unavailable_once_more() {
    let home = Home::new();
    std::fs::write(home.spool(), b"").unwrap();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let port = ClosedPort::new();
    let daemon = Daemon::start(&home, &[port.url()], json!({}));
    daemon.wait_log("the spool is unavailable");
    publish_many(&mut recognizer, 3);
    thread::sleep(Duration::from_millis(3500)); // looks at 1 s and 3 s; the next one at 7 s
    std::fs::remove_file(home.spool()).unwrap();
    let stopped = daemon.terminate();
    assert_eq!((stopped.open, stopped.spooled), (0, 3), "{}", stopped.log);
}

#[test]
fn a_clean_stop_waits_a_moment_for_uploads_out_of_the_spool() {
    let home = Home::new();
    let port = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[port.url()], json!({}));
    publish_many(&mut recognizer, 1);
    home.wait_released();
    daemon.terminate();
    let sink = Sink::on(port.open(), |_, _| {
        thread::sleep(Duration::from_millis(150)); // asked for at the head and for the whole: 300 ms
        OK
    });
    let daemon = Daemon::restart(&home);
    sink.wait_heads(1);
    daemon.terminate();
    let daemon = Daemon::restart(&home);
    daemon.wait_attached();
    wait_until("the end", || home.is_drained());
    daemon.terminate();
    assert_eq!(sink.received().len(), 1, "sent twice without a crash");
}

#[test]
fn some_events_that_the_server_cannot_bear_do_not_hold_up_the_others() {
    const BAD: u64 = 5; // more than fail together
    let home = Home::new();
    let sink = Sink::with(|request, _| if request.sequence() <= BAD { Answer::Status(500, "") } else { OK });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    publish_many(&mut recognizer, BAD as usize);
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_log("not delivered");
    home.wait_released();
    publish_many(&mut recognizer, 40);
    let good = |requests: &[Request]| requests.iter().filter(|request| request.sequence() > BAD).count();
    sink.wait_for("every good event", |requests| good(requests) >= 40);
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.spooled), (40, BAD));
}

#[test]
fn a_refused_event_waits_for_the_spool_to_be_kept_as_a_dead_letter() {
    let home = Home::new();
    std::fs::write(home.spool(), b"").unwrap();
    let sink = Sink::with(|_, _| Answer::Status(413, ""));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish_many(&mut recognizer, 2);
    sink.wait(2);
    std::fs::remove_file(home.spool()).unwrap();
    home.wait_released();
    let stopped = daemon.terminate();
    assert_eq!((stopped.refused, stopped.dead), (0, 2), "{}", stopped.log);
}

#[test]
fn an_event_larger_than_the_spool_does_not_cost_the_other_destinations_anything() {
    let home = Home::new();
    let up = Sink::start();
    let down = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), 4 << 20).unwrap();
    let more = json!({ "spool": { "dir": home.spool(), "min_free_bytes": 0, "max_bytes": 1 << 20 } });
    let daemon = Daemon::start(&home, &[up.url(), down.url()], more);
    let (large, small) = (picture(1_200_000, 1), picture(100_000, 2));
    publish(&mut recognizer, &event(b"", &large));
    for published in 2..=61 {
        publish(&mut recognizer, &event(b"", &small)); // there is always room again
        up.wait(published);
    }
    let stopped = daemon.terminate();
    assert!(stopped.evicted > 0 && stopped.log.contains("more than the spool may hold"), "{}", stopped.log);
}
