//! The promise: a connection is kept for as long as it is good, and an answer on it is believed only as the answer to the event
//! that was sent before it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::sink::OK;
use crate::common::{Answer, Daemon, RingProducer, Sink, Watched, event, picture, publish, publish_many};
use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::deliver::core::limit::{IN_FLIGHT, MOST};
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
        crate::common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sent as u64);
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
        crate::common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sent as u64);
    }
    let connections: Vec<_> = sink.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1, 2, 3, 4, 5], "kept until an answer came twice");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (8, 0));
    assert_eq!(stopped.log.matches("sent an unsolicited response").count(), 1, "{}", stopped.log);
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
        crate::common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sent as u64);
        if sent == 2 {
            sink.say_to_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            daemon.wait_log("sent an unsolicited response");
        }
    }
    let connections: Vec<_> = sink.received().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 1, 2, 3, 4]);
    daemon.signal(Signal::SIGHUP); // somebody may have mended it
    daemon.wait_log("config read again");
    for sent in 7..=8 {
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(sent);
        crate::common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sent as u64);
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

const MANY: usize = 3 * IN_FLIGHT;
/// Far enough away for so many uploads at once.
const DISTANCE: Duration = Duration::from_millis(100);

/// A server that restarts: it closes every old connection under its request, and `then` answers what comes on new ones.
struct Restarting {
    sink: Sink,
    /// Requests on new connections that have begun and did not come whole, now and at most.
    here: &'static Watched<(usize, usize)>,
    home: Home,
    recognizer: RingProducer,
    daemon: Daemon,
    /// Events that went there before, and connections.
    before: usize,
    old: usize,
}

impl Restarting {
    /// After it was far enough away for [`MANY`] connections, each of which is idle now.
    fn start(then: Answer) -> Restarting {
        let old: &'static Watched<Option<usize>> = Box::leak(Box::default());
        let here: &'static Watched<(usize, usize)> = Box::leak(Box::default());
        let sink = Sink::with(move |request, _| {
            let (is_head, old) = (request.body.is_empty(), old.look(|old| *old));
            match old {
                None if !is_head => thread::sleep(DISTANCE),
                Some(old) if request.connection < old => {
                    if !is_head {
                        thread::sleep(2 * DISTANCE); // until all of them are here
                    }
                    return Answer::Close;
                }
                Some(_) if is_head => {
                    here.change(|(now, most)| (*now, *most) = (*now + 1, (*now + 1).max(*most)));
                    thread::sleep(Duration::from_millis(200)); // the body waits meanwhile
                }
                Some(_) => here.change(|(now, _)| *now -= 1),
                None => {}
            }
            if old.is_some() { then.clone() } else { OK }
        });
        let home = Home::new();
        let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        let mut before = 0;
        while sink.connections() < MANY {
            publish_many(&mut recognizer, MOST);
            before += MOST;
            sink.wait(before);
        }
        home.wait_done();
        let connections = sink.connections();
        old.change(|old| *old = Some(connections));
        Restarting { sink, here, home, recognizer, daemon, before, old: connections }
    }

    fn publish_large_events(&mut self) {
        let pic = picture(1 << 20, 1); // more than the sockets hold
        for _ in 0..MANY {
            publish(&mut self.recognizer, &event(b"", &pic));
        }
    }
}

#[test]
fn many_connections_closed_under_their_requests_do_not_make_more_bodies_at_once() {
    let mut server = Restarting::start(OK);
    server.publish_large_events();
    server.home.wait_done();
    assert!(server.sink.received().len() >= server.before + MANY + IN_FLIGHT, "some were tried on old connections");
    let stopped = server.daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), ((server.before + MANY) as u64, 0));
    // Twice as many as may go where the last bytes of some are not read yet when the next begin; without a bound it is all of
    // them.
    let (_, most) = server.here.look(|here| *here);
    assert!((IN_FLIGHT..MANY).contains(&most), "{most} at once");
}

#[test]
fn what_waits_to_be_sent_once_more_does_not_begin_in_the_pause_that_the_server_asks_for() {
    let busy = "HTTP/1.1 503 x\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
    let mut server = Restarting::start(Answer::AtHead(busy));
    server.publish_large_events();
    server.daemon.wait_log("503");
    server.home.wait_released(); // into the spool
    let stopped = server.daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.spooled), (server.before as u64, MANY as u64));
    let begun = server.sink.connections() - server.old;
    assert!((1..=IN_FLIGHT).contains(&begun), "{begun} began");
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

/// Answers every request with 200 and gives their heads.
fn heads(count: usize) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
            reader.read_exact(&mut vec![0; length]).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            tell.send(head).unwrap();
        }
    });
    (url, told)
}

#[test]
fn header_names_go_out_in_title_case_and_a_user_agent_of_the_config_replaces_ours() {
    let own = json!({ "headers": { "user-agent": "SophonGate/2.1", "x-site-key": "7", "ACCEPT": "*/*" } });
    for (config, agent, more) in
        [(json!({}), "sophon-uplink/", vec![]), (own, "SophonGate/2.1", vec!["X-Site-Key", "Accept"])]
    {
        let home = Home::new();
        let (url, heads) = heads(1);
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        let daemon = Daemon::start(&home, &[url], config);
        publish(&mut recognizer, &event(b"", b""));
        let head = heads.recv_timeout(crate::common::BOUND).unwrap();
        let lines: Vec<_> = head.lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
        let mut names: Vec<_> = lines.iter().map(|(name, _)| *name).collect();
        let mut expected =
            ["Host", "User-Agent", "Content-Type", "Content-Length", "X-Event-Id", "Idempotency-Key"].to_vec();
        expected.extend(more);
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected, "each of them once");
        assert!(lines.iter().any(|(name, value)| *name == "User-Agent" && value.starts_with(agent)), "{head}");
        daemon.terminate();
    }
}

#[test]
fn a_connection_is_used_no_longer_than_its_age_although_it_is_never_idle() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let config = json!({ "timeouts_ms": { "connection_age": 100 } });
    let daemon = Daemon::start(&home, &[sink.url()], config);
    let mut sent = 0;
    crate::common::wait_until("a third connection", || {
        publish(&mut recognizer, &event(b"", b""));
        sent += 1;
        sink.wait(sent);
        sink.connections() >= 3
    });
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (sent as u64, 0), "{}", stopped.log);
    assert!(sent > 3, "a connection serves more than one event");
}
