//! The promise: what waits in the spool goes out beside live events and never before them, each event once, to whom it is for;
//! and the ring is free for new events whatever the servers do.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::common::daemon::Home;
use crate::common::moody::{Mood, Moody};
use crate::common::{Answer, Daemon, Sink, Watched, event, picture, program, publish, publish_many, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

const RING: u64 = 1 << 20;

#[test]
fn the_backlog_takes_three_places_each_event_once_and_the_fourth_is_for_a_live_one() {
    let server = Moody::start();
    let (home, mut recognizer) = server.backlog(12);
    server.set(Mood::Silent);
    let daemon = Daemon::restart(&home);
    let seen: BTreeSet<_> = server.wait_seen(3).into_iter().collect();
    assert!(seen.len() == 3 && !seen.contains(&13), "{seen:?}");
    publish_many(&mut recognizer, 1);
    assert_eq!(server.wait_seen(4)[3], 13);
    server.set(Mood::Up);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, server.times()), (13, 13));
}

#[test]
fn a_spooled_event_that_fails_is_tried_again_and_one_that_is_refused_becomes_a_dead_letter() {
    let nobody = Moody::start();
    let (home, _recognizer) = nobody.backlog(3);
    let server = Sink::with(|request, before| match request.sequence() {
        _ if before < 2 => Answer::Status(503, ""),
        2 => Answer::Status(413, ""),
        _ => crate::common::sink::OK,
    });
    // The folder's name is that of the URL: the earlier run's destination is gone, and its events are the new one's.
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    wait_until("the end of the backlog", || home.is_drained());
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.dead, stopped.failed_tries), (2, 1, 2));
    assert_eq!(home.spooled_sequences().into_iter().collect::<Vec<_>>(), [2]);
}

#[test]
fn what_an_earlier_run_left_for_a_removed_destination_goes_to_the_added_one_and_else_is_parked() {
    let (old, new) = (Moody::start(), Moody::start());
    let (home, _recognizer) = old.backlog(5);
    let daemon = Daemon::start(&home, &[new.url()], json!({}));
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.recovered, stopped.acknowledged, new.times()), (5, 5, 5));

    let (home, _recognizer) = old.backlog(5);
    let daemon = Daemon::start(&home, &[], json!({}));
    daemon.wait_attached();
    let status = daemon.status();
    assert_eq!(status["spool"]["parked"][0]["events"], 5);
    assert!(status["health"]["notes"].to_string().contains("5 events are parked"), "{status}");
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.spooled, home.spooled_for(&old.url()).len()), (0, 5, 5));
    let told = || {
        let mut command = std::process::Command::new(program("sophon-uplink"));
        String::from_utf8(command.args(["spool", "--config"]).arg(home.config()).output().unwrap().stdout).unwrap()
    };
    assert!(told().contains("parked: not in the config"), "{}", told());
    home.configure(&[old.url()], json!({}));
    assert!(told().contains("5 events") && !told().contains("parked"), "{}", told());
    // And goes on when it is there again.
    let daemon = Daemon::start(&home, &[old.url()], json!({}));
    old.set(Mood::Up);
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 5);
}

#[test]
fn an_event_whose_file_somebody_removed_is_counted_and_said_and_keeps_no_other() {
    let server = Moody::start();
    let (home, _recognizer) = server.backlog(6);
    server.set(Mood::Silent);
    let daemon = Daemon::restart(&home);
    server.wait_seen(3);
    let last = home.spooled_files().into_iter().max().unwrap();
    std::fs::remove_file(home.spool().join(last)).unwrap();
    server.set(Mood::Up);
    daemon.wait_log("was removed by another program: the event is lost");
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, server.times()), (5, 5));
    assert!(stopped.log.contains("vanished=1"), "{}", stopped.log);
}

#[test]
fn what_is_acknowledged_after_its_destination_was_removed_goes_to_no_heir() {
    let (old, new) = (Moody::start(), Moody::start());
    let (home, _recognizer) = old.backlog(5);
    old.set(Mood::Silent);
    new.set(Mood::Failing);
    let daemon = Daemon::restart(&home);
    old.wait_seen(3);
    home.configure(&[new.url()], json!({}));
    daemon.signal(Signal::SIGHUP);
    wait_until("the heir's part", || home.spooled_for(&new.url()).len() == 2);
    old.set(Mood::Up);
    wait_until("the end of what was on its way", || home.spooled_for(&old.url()).is_empty());
    new.set(Mood::Up);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((old.times(), new.times(), stopped.acknowledged), (3, 2, 5));
}

#[test]
fn what_fails_after_its_destination_was_removed_goes_to_the_heir() {
    let (old, new) = (Moody::start(), Moody::start());
    let (home, _recognizer) = old.backlog(5);
    old.set(Mood::Silent);
    let daemon = Daemon::restart(&home);
    old.wait_seen(3);
    home.configure(&[new.url()], json!({}));
    daemon.signal(Signal::SIGHUP);
    new.wait_more_than(1);
    old.set(Mood::Closing);
    new.wait_more_than(4);
    home.wait_done();
    assert_eq!((daemon.terminate().acknowledged, new.times()), (5, 5));
}

#[test]
fn what_a_removed_destination_has_in_memory_is_parked() {
    let home = Home::new();
    let server = Moody::start();
    server.set(Mood::Silent);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    publish_many(&mut recognizer, 10);
    server.wait_seen(4);
    home.configure(&[], json!({}));
    daemon.signal(Signal::SIGHUP);
    wait_until("what was queued", || home.spooled_sequences().len() == 6);
    server.set(Mood::Closing);
    home.wait_released();
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.spooled, home.spooled_for(&server.url()).len()), (0, 10, 10));
}

#[test]
fn what_two_removed_destinations_have_in_memory_comes_to_their_heir_once() {
    let home = Home::new();
    let (one, other, heir) = (Moody::start(), Moody::start(), Moody::start());
    one.set(Mood::Silent);
    other.set(Mood::Silent);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[one.url(), other.url()], json!({}));
    publish_many(&mut recognizer, 10);
    one.wait_seen(4);
    other.wait_seen(4);
    home.configure(&[heir.url()], json!({}));
    daemon.signal(Signal::SIGHUP);
    heir.wait_more_than(5);
    one.set(Mood::Closing);
    other.set(Mood::Closing);
    home.wait_done();
    assert_eq!((daemon.terminate().acknowledged, heir.times()), (10, 10));
}

#[test]
fn a_ring_that_fills_up_is_relieved_though_every_upload_hangs() {
    let home = Home::new();
    let server = Moody::start();
    server.set(Mood::Silent);
    let mut recognizer = Producer::open(&home.ring(), 64 << 10).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    let picture = picture(6000, 1);
    for _ in 0..40 {
        publish(&mut recognizer, &event(&picture, b""));
    }
    server.set(Mood::Up);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, server.times(), stopped.failed_tries), (40, 40, 0));
    assert_eq!(RingState::of(&home.ring()).unwrap().dropped, 0);
}

#[test]
fn what_is_on_its_way_is_not_taken_out_of_the_spool_a_second_time() {
    let home = Home::new();
    let gate = Arc::new(Watched::<u64>::default()); // events up to this number are not answered yet
    gate.change(|gate| *gate = 4);
    let gated = Arc::clone(&gate);
    let server = Sink::with(move |request, _| {
        if !request.body.is_empty() {
            gated.wait("the gate", |gate| (request.sequence() > *gate).then_some(()));
        }
        crate::common::sink::OK
    });
    let mut recognizer = Producer::open(&home.ring(), 64 << 10).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    let picture = picture(6000, 1);
    for _ in 0..4 {
        publish(&mut recognizer, &event(&picture, b""));
    }
    server.wait_heads(4);
    for _ in 0..20 {
        publish(&mut recognizer, &event(&picture, b""));
    }
    wait_until("the spooling of the first two", || home.spooled_sequences().is_superset(&[1, 2].into()));
    gate.change(|gate| *gate = 2);
    server.wait(22);
    gate.change(|gate| *gate = 0);
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 24);
    let sequences: BTreeSet<_> = server.received().iter().map(crate::common::Request::sequence).collect();
    assert_eq!((server.received().len(), sequences.len()), (24, 24), "no event came twice");
}

#[test]
fn at_sigterm_everything_published_goes_to_the_spool_also_what_was_not_read_yet() {
    let home = Home::new();
    let server = Moody::start();
    server.set(Mood::Silent);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    publish_many(&mut recognizer, 600); // more than are read while nothing is released
    server.wait_seen(4);
    let stopped = daemon.terminate();
    assert_eq!((stopped.read, stopped.spooled, stopped.open), (600, 600, 0));
    assert_eq!(RingState::of(&home.ring()).unwrap().used, 0);
}

#[test]
fn what_a_second_destination_comes_to_lack_shares_the_file_of_the_first() {
    let home = Home::new();
    let (failing, silent) = (Moody::start(), Moody::start());
    failing.set(Mood::Failing);
    silent.set(Mood::Silent);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[failing.url(), silent.url()], json!({}));
    publish_many(&mut recognizer, 1);
    silent.wait_seen(1);
    wait_until("the file for the first", || home.spooled_for(&failing.url()) == [1]);
    silent.set(Mood::Failing);
    wait_until("the file for the second", || home.spooled_for(&silent.url()) == [1]);
    let inodes: BTreeSet<_> =
        home.spooled_files().iter().map(|path| home.spool().join(path).metadata().unwrap().ino()).collect();
    assert_eq!(inodes.len(), 1);
    let stopped = daemon.terminate();
    assert_eq!((stopped.spooled, stopped.open), (2, 0));
}
