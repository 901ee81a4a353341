//! The promise: a connection is kept for as long as it is good, and an answer on it is believed only as the answer to the event
//! that was sent before it.

mod common;

use std::thread;
use std::time::Duration;

use common::daemon::Home;
use common::sink::OK;
use common::{Answer, Daemon, Sink, Watched, event, picture, publish, publish_many};
use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::deliver::lane::places::{IN_FLIGHT, MOST};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

const RING: u64 = 1 << 20;

#[test]
fn a_connection_is_kept_for_the_next_event() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    for sent in 1..=30 {
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(sent);
        common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sent as u64);
    }
    assert_eq!(sink.connections(), 1);
    daemon.terminate();
}

#[test]
fn a_server_that_was_heard_to_answer_what_nobody_asked_gets_a_connection_for_each_event() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const TWICE: &str =
        concat!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let home = Home::new();
    let sink = Sink::with(|_, before| Answer::Raw(if before >= 2 { TWICE } else { ANSWER }));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    for sent in 1..=8 {
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(sent);
        common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sent as u64);
    }
    let connections: Vec<_> = sink.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1, 2, 3, 4, 5], "kept until an answer came twice");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (8, 0));
    assert_eq!(stopped.log.matches("answers what nobody asked").count(), 1, "{}", stopped.log);
}

#[test]
fn a_server_that_speaks_on_an_idle_connection_gets_a_connection_for_each_event() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    for sent in 1..=6 {
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(sent);
        common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sent as u64);
        if sent == 2 {
            sink.say_to_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            daemon.wait_log("answers what nobody asked");
        }
    }
    let connections: Vec<_> = sink.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 1, 2, 3, 4]);
    daemon.signal(Signal::SIGHUP); // somebody may have mended it
    daemon.wait_log("config read again");
    for sent in 7..=8 {
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(sent);
        common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sent as u64);
    }
    let connections: Vec<_> = sink.received()[6..].iter().map(|request| request.connection).collect();
    assert_eq!(connections, [5, 5]);
    assert_eq!(daemon.terminate().acknowledged, 8);
}

#[test]
fn an_idle_connection_closed_under_the_request_costs_one_retry_and_no_pause() {
    let home = Home::new();
    // Reads the request on a reused connection, and closes without a byte: what a server's idle timeout looks like.
    let sink = Sink::with(|request, before| if before == 1 && request.connection == 0 { Answer::Close } else { OK });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let pic = picture(200_000, 1);
    publish(&mut recognizer, &event(&pic, b""));
    sink.wait(1);
    home.wait_done();
    publish(&mut recognizer, &event(&pic, b""));
    let requests = sink.wait(3);
    assert_eq!((requests[1].connection, requests[2].connection), (0, 1));
    assert_eq!((requests[1].id(), &requests[1].body), (requests[2].id(), &requests[2].body));
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (2, 0));
}

/// A server that restarts closes every connection under its request. Each of these requests is sent once more, but no more bodies
/// are on their way than at any other time.
#[test]
fn many_connections_closed_under_their_requests_do_not_make_more_bodies_at_once() {
    const MANY: usize = 3 * IN_FLIGHT;
    let home = Home::new();
    let old: &'static Watched<Option<usize>> = Box::leak(Box::default());
    let here: &'static Watched<(usize, usize)> = Box::leak(Box::default());
    let sink = Sink::with(move |request, _| {
        let (is_head, old) = (request.body.is_empty(), old.look(|old| *old));
        match old {
            None if !is_head => thread::sleep(Duration::from_millis(100)), // far enough away for many uploads at once
            Some(old) if request.connection < old => return Answer::Close,
            Some(_) if is_head => {
                here.change(|(now, most)| (*now, *most) = (*now + 1, (*now + 1).max(*most)));
                thread::sleep(Duration::from_millis(200)); // the body waits meanwhile
            }
            Some(_) => here.change(|(now, _)| *now -= 1),
            None => {}
        }
        OK
    });
    let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let mut published = 0;
    while sink.connections() < MANY {
        publish_many(&mut recognizer, MOST);
        published += MOST;
        sink.wait(published);
    }
    home.wait_done();
    old.change(|old| *old = Some(sink.connections()));
    let pic = picture(1 << 20, 1); // more than the sockets hold
    for _ in 0..MANY {
        publish(&mut recognizer, &event(b"", &pic));
    }
    home.wait_done();
    let requests = sink.received();
    let closed = requests[published..].iter().filter(|request| Some(request.connection) < old.look(|old| *old));
    assert!(closed.count() >= IN_FLIGHT, "tried on old connections");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), ((published + MANY) as u64, 0));
    // Twice as many as may go where the last bytes of some are not read yet when the next begin; without a bound it is all of them.
    let most = here.look(|(_, most)| *most);
    assert!((IN_FLIGHT..MANY).contains(&most), "{most} at once");
}

#[test]
fn an_answer_before_the_whole_event_is_no_acknowledgement_but_a_refusal_is_a_refusal() {
    let home = Home::new();
    let early = Sink::with(|_, _| Answer::AtHead("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
    let daemon = Daemon::start(&home, &[early.url()], json!({}));
    let big = picture(12 << 20, 1); // more than the sockets can hold
    publish(&mut recognizer, &event(&big, b""));
    daemon.wait_log("before it had the whole event");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.spooled), (0, 1));

    let refusing = Sink::with(|_, _| Answer::AtHead("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"));
    let daemon = Daemon::start(&home, &[refusing.url()], json!({}));
    home.wait_done();
    assert_eq!(daemon.terminate().dead, 1);
}

#[test]
fn a_server_that_says_nothing_or_reads_nothing_is_given_up_by_progress() {
    let quick = json!({ "timeouts_ms": { "connect": 300, "progress": 300, "response": 300 } });
    let home = Home::new();
    let silent = Sink::with(|_, before| if before == 0 { Answer::Hang } else { OK });
    let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
    let daemon = Daemon::start(&home, &[silent.url()], quick.clone());
    publish(&mut recognizer, &event(b"", b""));
    daemon.wait_log("no answer within 300 ms");
    silent.wait(2);
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);

    let deaf = Sink::with(|_, _| Answer::AtHead("")); // reads the head and no more
    let daemon = Daemon::start(&home, &[deaf.url()], quick);
    let big = picture(12 << 20, 1);
    publish(&mut recognizer, &event(&big, b""));
    daemon.wait_log("no byte of the request moved for 300 ms");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.spooled), (0, 1));
}
