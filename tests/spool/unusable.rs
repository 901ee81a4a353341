//! The promise: a spool that cannot be used stops no upload and loses no event, says so, and is used again as soon as it can be.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::meter::Meter;
use crate::common::moody::{Mood, Moody};
use crate::common::short_run::TROUBLE;
use crate::common::{Answer, Daemon, RingProducer, Sink, event, picture, program, publish, publish_many, wait_until};
use serde_json::json;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

const RING: u64 = 1 << 20;

/// As a newcomer starts it: in the config's folder, by the file's name alone.
#[test]
fn a_config_named_without_its_folder_has_its_spool_beside_it() {
    let (home, failing) = (Home::new(), Moody::start());
    failing.set(Mood::Failing);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    home.configure(&[failing.url()], json!({ "rings": ["events"], "spool": { "dir": "spool", "min_free_bytes": 0 } }));
    let mut command = Command::new(program("sophon-uplink"));
    let daemon = Daemon::spawn(command.current_dir(home.folder.path()).args(["run", "--config", "uplink.json"]));
    daemon.wait_attached();
    publish_many(&mut recognizer, 3);
    home.wait_released();
    assert_eq!(home.spooled_sequences().len(), 3);
    assert_eq!(daemon.terminate().spooled, 3);
}

#[test]
fn a_spool_that_cannot_be_used_stops_no_upload_and_is_used_as_soon_as_it_can_be() {
    let box_of = |make: fn(&Home) -> PathBuf| {
        let home = Home::new();
        let dir = make(&home);
        (home, dir)
    };
    let missing = box_of(|home| home.folder.path().join("missing/spool"));
    let in_the_way = box_of(|home| {
        let dir = home.folder.path().join("file");
        fs::write(&dir, "").unwrap();
        dir
    });
    let read_only = box_of(|_| "/sys/sophon-spool".into());
    let mend_missing: fn(&std::path::Path) = |dir| fs::create_dir(dir.parent().unwrap()).unwrap();
    let mend_file: fn(&std::path::Path) = |dir| fs::remove_file(dir).unwrap();
    let cases = [(missing, Some(mend_missing)), (in_the_way, Some(mend_file)), (read_only, None)];
    for ((home, dir), mend) in cases {
        let (up, failing) = (Moody::start(), Moody::start());
        failing.set(Mood::Failing);
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        let urls = [up.url(), failing.url()];
        let daemon = Daemon::start(&home, &urls, json!({ "spool": { "dir": dir, "min_free_bytes": 0 } }));
        daemon.wait_log("the spool is unavailable");
        daemon.wait_log(TROUBLE);
        publish_many(&mut recognizer, 20);
        wait_until("every event at the server that is up", || up.count() == 20);
        assert_eq!(RingState::of(&home.ring()).unwrap().consumed, 0, "what is not delivered stays in the ring");
        let Some(mend) = mend else {
            let stopped = daemon.terminate();
            assert_eq!((stopped.acknowledged, stopped.open), (20, 20));
            continue;
        };
        mend(&dir);
        home.wait_released();
        daemon.wait_log("the spool works again");
        let stopped = daemon.terminate();
        assert_eq!((stopped.acknowledged, stopped.spooled, stopped.open), (20, 20, 0));
    }
}

#[test]
fn an_upload_whose_event_could_not_be_stored_is_made_again_when_it_fails() {
    let home = Home::new();
    let server = Moody::start();
    server.set(Mood::Silent);
    let mut recognizer = Producer::open(&home.ring(), 64 << 10).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    wait_until("the spool", || home.spool().join("dead").exists());
    fs::rename(home.spool(), home.folder.path().join("aside")).unwrap();
    fs::write(home.spool(), "in the way").unwrap();
    for _ in 0..4 {
        publish(&mut recognizer, &event(&picture(12_000, 1), b"")); // more than half of the ring: the oldest are to be stored
    }
    server.wait_seen(4);
    daemon.wait_log(TROUBLE);
    server.set(Mood::Closing);
    daemon.wait_log("not delivered");
    assert_eq!(RingState::of(&home.ring()).unwrap().consumed, 0, "nobody has any of them");
    server.set(Mood::Up);
    home.wait_released();
    assert_eq!((daemon.terminate().acknowledged, server.count()), (4, 4));
}

#[test]
fn what_is_spooled_and_what_cannot_be_spooled_any_more_are_both_accounted_for() {
    let home = Home::new();
    let server = Moody::start();
    server.set(Mood::Failing);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    publish_many(&mut recognizer, 3);
    home.wait_released();
    let aside = home.folder.path().join("aside");
    fs::rename(home.spool(), &aside).unwrap();
    fs::write(home.spool(), "").unwrap();
    publish_many(&mut recognizer, 4);
    daemon.wait_log(TROUBLE);
    let stopped = daemon.terminate();
    assert_eq!((stopped.spooled, stopped.open), (3, 4));
    fs::remove_file(home.spool()).unwrap();
    fs::rename(&aside, home.spool()).unwrap();
    server.set(Mood::Up);
    let daemon = Daemon::restart(&home);
    home.wait_done();
    assert_eq!((daemon.terminate().acknowledged, server.count()), (7, 7));
}

#[test]
fn a_second_process_keeps_out_of_the_spool_and_uploads_without_it() {
    let server = Moody::start();
    let (home, _recognizer) = server.backlog(5);
    let first = Daemon::restart(&home);
    first.wait_log("the spool has events of an earlier run");
    let (other, up) = (Home::new(), Moody::start());
    let mut recognizer = Producer::open(&other.ring(), RING).unwrap();
    publish_many(&mut recognizer, 5);
    let second = Daemon::start(&other, &[up.url()], json!({ "spool": { "dir": home.spool(), "min_free_bytes": 0 } }));
    second.wait_log("another process uses it");
    other.wait_released();
    let stopped = second.terminate();
    assert_eq!((stopped.recovered, stopped.acknowledged), (0, 5));
    server.set(Mood::Up);
    home.wait_done();
    assert_eq!((first.terminate().acknowledged, server.times()), (5, 5));
}

/// An uplink that has spooled 20 events.
fn spool_twenty(home: &Home, server: &Moody) -> (Daemon, RingProducer) {
    server.set(Mood::Failing);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(home, &[server.url()], json!({}));
    publish_many(&mut recognizer, 20);
    home.wait_released();
    (daemon, recognizer)
}

#[test]
fn a_spool_that_is_moved_away_under_the_uplink_keeps_its_events() {
    let (home, server) = (Home::new(), Moody::start());
    let (daemon, mut recognizer) = spool_twenty(&home, &server);
    // As a card that is mounted over it: what the uplink has is reached by nobody else any more.
    fs::rename(home.spool(), home.folder.path().join("away")).unwrap();
    daemon.wait_log("another folder is at the spool's path now");
    wait_until("what was moved over", || home.spooled_for(&server.url()).len() == 20);
    publish_many(&mut recognizer, 5);
    home.wait_released();
    server.set(Mood::Up);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.spooled, stopped.open), (25, 0, 0), "{}", stopped.log);
    assert!(stopped.log.contains("were brought from the former folder moved=20"), "{}", stopped.log);
}

#[test]
fn events_of_a_spool_that_was_removed_are_counted_and_said() {
    let (home, server) = (Home::new(), Moody::start());
    let (daemon, mut recognizer) = spool_twenty(&home, &server);
    fs::remove_dir_all(home.spool()).unwrap();
    wait_until("that they are counted", || daemon.status()["shares"]["vanished"] == 20);
    let health = daemon.status()["health"].to_string();
    assert!(health.contains("20 removed by somebody else"), "{health}");
    publish_many(&mut recognizer, 1);
    home.wait_released();
    let stopped = daemon.terminate();
    assert_eq!((stopped.spooled, stopped.open), (1, 0), "{}", stopped.log);
    assert!(
        stopped.log.contains("cannot be reached: they are lost if it does not come back events=20"),
        "{}",
        stopped.log
    );
    assert!(!stopped.log.contains("moved="), "{}", stopped.log);
}

/// Spools that take nothing: too little room beside them, no key, something in the way.
fn useless_spools(home: &Home) -> [serde_json::Value; 3] {
    let file = home.folder.path().join("file");
    fs::write(&file, "").unwrap();
    [
        json!({ "dir": home.spool(), "min_free_bytes": 1u64 << 40 }),
        json!({ "dir": home.spool(), "min_free_bytes": 0, "key_file": home.folder.path().join("no-key") }),
        json!({ "dir": file.join("spool"), "min_free_bytes": 0 }),
    ]
}

#[test]
fn a_spool_that_takes_nothing_keeps_no_event_from_a_server_that_works() {
    const EVENTS: u64 = 1000;
    // 2 MB of events go through a ring that holds all of them, and through one that holds a third.
    for (ring, spools) in [(16 << 20, 0..3), (1 << 20, 0..1)] {
        for spool in spools {
            let home = Home::new();
            let (good, dead) = (Meter::start(), ClosedPort::new());
            let mut recognizer = Producer::open(&home.ring(), ring).unwrap();
            let more = json!({ "spool": useless_spools(&home)[spool] });
            let daemon = Daemon::start(&home, &[good.url(), dead.url()], more);
            daemon.wait_attached();
            let picture = picture(2000, 1);
            for number in 0..EVENTS {
                // A server that works has them at once: what is in the ring is there for the other one.
                good.wait("the events before", |arrivals| arrivals.len() as u64 + 50 > number);
                publish(&mut recognizer, &event(&picture, b""));
            }
            good.wait("every event", |arrivals| arrivals.len() as u64 >= EVENTS);
            let dropped = RingState::of(&home.ring()).unwrap().dropped;
            let stopped = daemon.terminate();
            assert_eq!((stopped.acknowledged, dropped), (EVENTS, 0), "{}", stopped.log);
            assert_eq!(stopped.open + stopped.evicted, EVENTS, "{}", stopped.log);
            assert_eq!(stopped.evicted > 0, ring == 1 << 20, "{}", stopped.log);
        }
    }
}

#[test]
fn refused_events_that_cannot_be_kept_as_dead_letters_hold_up_no_others() {
    const EVENTS: u64 = 900;
    let home = Home::new();
    let sink = Sink::with(|request, _| Answer::Status(if request.sequence() % 3 == 0 { 400 } else { 200 }, ""));
    let mut recognizer = Producer::open(&home.ring(), 16 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "spool": useless_spools(&home)[0] }));
    publish_many(&mut recognizer, EVENTS as usize);
    let has_all = |requests: &[crate::common::Request]| {
        let seen: std::collections::BTreeSet<_> = requests.iter().map(crate::common::Request::sequence).collect();
        seen.len() as u64 == EVENTS
    };
    sink.wait_for("every event", has_all);
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.open), (EVENTS * 2 / 3, EVENTS / 3), "{}", stopped.log);
}
