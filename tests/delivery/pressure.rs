//! The promise: a server that hangs fills no ring. The oldest events go to the spool, even under their uploads, which go on.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::meter::publish_paced;
use crate::common::sink::OK;
use crate::common::{Daemon, Request, Sink, Watched, event, picture, publish, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

/// The server hangs for as long as the test likes.
fn patient() -> Value {
    json!({ "timeouts_ms": { "connect": 5000, "progress": 60_000, "response": 60_000 } })
}

#[test]
fn under_a_server_that_hangs_the_oldest_go_to_the_spool_and_what_it_answers_late_counts_once() {
    const EVENTS: u64 = 600;
    let home = Home::new();
    let open = Arc::new(Watched::<bool>::default());
    let gate = Arc::clone(&open);
    let server = Sink::with(move |request, _| {
        if !request.body.is_empty() {
            gate.wait("the end of the hang", |open| open.then_some(()));
        }
        OK
    });
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], patient());
    daemon.wait_attached();
    // 5 MB through a ring of 1 MiB, at a steady rate: `publish_paced` asserts that there is room each time.
    let (reg, spot) = (picture(3000, 1), picture(5000, 2));
    publish_paced(&mut recognizer, &event(&reg, &spot), EVENTS, Duration::from_millis(2));
    let is_relieved = || RingState::of(&home.ring()).is_ok_and(|ring| ring.used <= ring.capacity / 2);
    wait_until("a ring that is half empty", is_relieved);
    let state = RingState::of(&home.ring()).unwrap();
    assert!(state.used > 0 && state.dropped == 0, "{state}");
    let spooled = home.spooled_sequences();
    let oldest: BTreeSet<u64> = (1..=spooled.len() as u64).collect();
    assert_eq!(spooled, oldest, "the oldest, and among them those on their way");
    assert!(spooled.len() as u64 > EVENTS / 2 && server.received().is_empty());

    open.change(|open| *open = true);
    server.wait(EVENTS as usize);
    home.wait_done();
    let mut got: Vec<_> = server.received().iter().map(Request::sequence).collect();
    got.sort_unstable();
    assert_eq!(got, (1..=EVENTS).collect::<Vec<_>>(), "each once");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries, stopped.spooled), (EVENTS, 0, 0));
}

/// A server that reads the first connection's request to the end only when it is told to, and answers the others at once. Gives
/// the body that it read slowly.
fn slow_at_first() -> (String, Receiver<()>, Sender<()>, Receiver<Vec<u8>>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(16).unwrap();
    let listener: TcpListener = socket.into();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let ((began, has_begun), (go, may_go), (tell, body)) = (channel(), channel(), channel());
    thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        thread::spawn(move || {
            exchange(first, || {
                began.send(()).unwrap();
                may_go.recv().unwrap();
            })
            .map(|body| tell.send(body))
        });
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = Some(stream);
                while let Some(next) = stream.take() {
                    stream = next.try_clone().ok().filter(|_| exchange(next, || ()).is_some());
                }
            });
        }
    });
    (url, has_begun, go, body)
}

/// One request and its answer; `in_between` comes after the first bytes of the body.
fn exchange(stream: TcpStream, in_between: impl FnOnce()) -> Option<Vec<u8>> {
    let mut input = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while input.read_line(&mut line).ok()? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    let (head, rest) = body.split_at_mut(length.min(1000));
    input.read_exact(head).ok()?;
    in_between();
    input.read_exact(rest).ok()?;
    input.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    Some(body)
}

#[test]
fn a_large_picture_whose_room_is_taken_under_its_upload_arrives_byte_for_byte() {
    const SIZE: usize = 12 << 20; // as base64 more than the sockets can hold
    let home = Home::new();
    let (url, has_begun, go, body) = slow_at_first();
    let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
    let daemon = Daemon::start(&home, &[url], patient());
    let wanted = picture(SIZE, 1);
    publish(&mut recognizer, &event(&wanted, b""));
    has_begun.recv_timeout(crate::common::BOUND).unwrap();
    // Six others of its size: the last ones lie where it lay.
    let other = vec![b'B'; SIZE];
    for _ in 0..6 {
        publish(&mut recognizer, &event(&other, b""));
    }
    home.wait_released();
    assert!(home.spooled_sequences().contains(&1), "{:?}", home.spooled_files());
    assert!(body.try_recv().is_err());
    go.send(()).unwrap();
    let body: Value = serde_json::from_slice(&body.recv_timeout(crate::common::BOUND).unwrap()).unwrap();
    let got = STANDARD.decode(body["reg_pic"].as_str().unwrap()).unwrap();
    let differs = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
    assert!(got == wanted, "{} bytes, the first wrong one is {differs:?}", got.len());
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (7, 0));
}

#[test]
fn uploads_that_hang_keep_out_no_other_event_though_half_of_the_ring_is_free_or_padding() {
    let home = Home::new();
    let open = Arc::new(Watched::<bool>::default());
    let gate = Arc::clone(&open);
    let server = Sink::with(move |request, number| {
        if number > 0 && !request.body.is_empty() {
            gate.wait("the end of the hang", |open| open.then_some(()));
        }
        OK
    });
    let mut recognizer = Producer::open(&home.ring(), 1 << 16).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], patient());
    daemon.wait_attached();
    // Of 64 KiB: 20 that are delivered, 24 that hang, and then 24 that do not fit before the end, so that there are 20 of
    // padding.
    let halves = |kib: usize| (picture(kib * 512 - 100, 1), picture(kib * 512 - 100, 2));
    let (small, large) = (halves(20), halves(24));
    publish(&mut recognizer, &event(&small.0, &small.1));
    server.wait(1);
    home.wait_done();
    for number in 2..6 {
        wait_until(&format!("room for event {number}"), || recognizer.publish(&event(&large.0, &large.1)).is_ok());
    }
    open.change(|open| *open = true);
    server.wait(5);
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 5);
}

#[test]
fn events_that_wait_for_a_slow_link_do_not_take_all_places_of_the_ring() {
    const EVENTS: usize = 68_000; // more than the uplink holds at once
    let home = Home::new();
    let (fast, slow) = (Sink::start(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
    let config = json!({ "destinations": { slow.url(): { "bounds": { "bytes_per_second": 1000 } } } });
    let _daemon = Daemon::start(&home, &[fast.url(), slow.url()], config);
    for _ in 0..EVENTS {
        publish(&mut recognizer, &event(b"", b""));
    }
    for part in 1..=4 {
        fast.wait_for("the next quarter", |requests| requests.len() >= part * EVENTS / 4);
    }
    let ring = RingState::of(&home.ring()).unwrap();
    assert!(ring.used < ring.capacity / 2 && slow.received().len() < EVENTS / 2, "{ring:?}");
}
