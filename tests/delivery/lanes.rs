//! The promise: no event, no server and no setting holds a lane up for ever, and no picture goes out under another event's id.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::meter::Meter;
use crate::common::moody::{Mood, Moody};
use crate::common::sink::OK;
use crate::common::{Answer, Daemon, Sink, Watched, event, picture, publish, publish_many, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::deliver::core::limit::{IN_FLIGHT, MOST};
use sophon_uplink::ring::producer::Producer;

const RING: u64 = 1 << 20;

#[test]
fn mending_the_content_type_mends_what_waits_already() {
    let home = Home::new();
    let sink = Sink::with(|request, _| {
        let is_form = request.headers["content-type"].starts_with("multipart/");
        Answer::Status(if is_form { 200 } else { 415 }, "")
    });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish_many(&mut recognizer, 10);
    daemon.wait_log("nothing more is given up");
    home.configure(&[sink.url()], json!({ "content-type": "form-data" }));
    daemon.signal(Signal::SIGHUP);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.acknowledged), (4, 6));
}

#[test]
fn one_event_that_the_server_cannot_bear_does_not_hold_up_the_others() {
    for poison in [
        Answer::Status(500, ""),
        Answer::Status(503, ""),
        Answer::Status(403, ""),
        Answer::Status(404, ""),
        Answer::Status(409, ""),
        Answer::Close,
    ] {
        let home = Home::new();
        let sink = Sink::with(
            move |request, _| if request.sequence() == 1 { poison.clone() } else { crate::common::sink::OK },
        );
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        publish_many(&mut recognizer, 1);
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        daemon.wait_log("not delivered");
        publish_many(&mut recognizer, 40);
        let others = |requests: &[crate::common::Request]| {
            (2..=41).all(|sequence| requests.iter().any(|request| request.sequence() == sequence))
        };
        sink.wait_for("every other event", others);
        let stopped = daemon.terminate();
        assert_eq!((stopped.acknowledged, stopped.spooled), (40, 1));
    }
}

#[test]
fn bad_events_in_a_row_are_given_up_once_another_one_shows_that_the_server_is_well() {
    let home = Home::new();
    let sink = Sink::with(|request, _| Answer::Status(if request.sequence() <= 5 { 413 } else { 200 }, ""));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    publish_many(&mut recognizer, 5);
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_log("nothing more is given up");
    publish_many(&mut recognizer, 20);
    daemon.signal(Signal::SIGHUP); // instead of waiting for half a minute
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.acknowledged), (5, 20));
}

#[test]
fn while_a_destination_is_down_one_upload_at_a_time_probes_it() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    publish_many(&mut recognizer, 20);
    let daemon = Daemon::start(&home, &[format!("http://{address}/")], json!({}));
    // The first burst fails; from then on a second connection comes only after the first one was answered.
    let mut burst: Vec<_> = (0..4).map(|_| listener.accept().unwrap().0).collect();
    burst.iter_mut().for_each(|stream| drop(stream.write_all(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")));
    drop(burst);
    daemon.wait_log("not delivered");
    for _ in 0..3 {
        let (mut probe, _) = listener.accept().unwrap();
        listener.set_nonblocking(true).unwrap();
        thread::sleep(Duration::from_millis(50)); // time for a second one, were there any
        assert!(listener.accept().is_err(), "two probes at once");
        listener.set_nonblocking(false).unwrap();
        probe.read_exact(&mut [0; 100]).unwrap();
        probe.write_all(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
    assert_eq!(daemon.terminate().acknowledged, 0);
}

#[test]
fn a_destination_that_comes_back_gets_its_events_oldest_first() {
    let home = Home::new();
    let port = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    publish_many(&mut recognizer, 50);
    let daemon = Daemon::start(&home, &[port.url()], json!({}));
    daemon.wait_log("Connection refused");
    // An event that is just being stored is in neither of the two rows.
    wait_until("all of them are in the spool", || daemon.status()["destinations"][0]["backlog"]["events"] == 50);
    let sink = Sink::on(port.open(), |_, _| crate::common::sink::OK);
    let order: Vec<_> = sink.wait(50).iter().map(crate::common::Request::sequence).collect();
    assert_eq!(order[0], 1);
    // Four go at once: when one arrives, at most three older ones are still on their way.
    let mut youngest = 0;
    for (count, sequence) in (1..).zip(&order) {
        youngest = youngest.max(*sequence);
        assert!(youngest - count <= 3, "{order:?}");
    }
    daemon.terminate();
}

#[test]
fn what_waits_for_removed_destinations_goes_to_all_that_were_added_once_and_else_is_parked() {
    let home = Home::new();
    let down = || Sink::with(|_, _| Answer::Status(503, "Retry-After: 60\r\n"));
    let (old_1, old_2, new_1, new_2) = (down(), down(), Sink::start(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[old_1.url(), old_2.url()], json!({}));
    publish_many(&mut recognizer, 10);
    old_1.wait(1);
    old_2.wait(1);
    home.configure(&[new_1.url(), new_2.url()], json!({}));
    daemon.signal(Signal::SIGHUP);
    new_1.wait(10);
    new_2.wait(10);
    home.wait_done();
    assert_eq!((new_1.received().len(), new_2.received().len()), (10, 10));

    let third = down();
    home.configure(&[third.url()], json!({}));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log(&format!("its waiting events go to {}", third.url()));
    publish_many(&mut recognizer, 10);
    home.wait_released();
    home.configure(&[], json!({}));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("removed, and no destination was added");
    let parked = || daemon.status()["spool"]["parked"].clone();
    crate::common::wait_until("that it is parked", || parked()[0]["events"] == 10);
    assert_eq!((parked()[0]["url"].as_str(), home.spooled_for(&third.url()).len()), (Some(&*third.url()), 10));
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.dead, stopped.spooled), (20, 0, 10));
}

/// A server that answers `early` to the head of its first request, and reads on only later; the others are answered 200.
/// Returns its address, what lets it read on, and what it read then.
fn early(answer: &'static str) -> (String, std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let (go, gone) = channel::<()>();
    let (tell, told) = channel();
    thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let mut all = vec![0; 2000];
        first.read_exact(&mut all).unwrap();
        first.write_all(answer.as_bytes()).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let (mut tail, mut buffer) = (Vec::new(), vec![0; 65536]);
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        tail.extend_from_slice(&buffer[count.saturating_sub(2)..count]);
                        if tail.ends_with(b"}}") {
                            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                        }
                        tail.drain(..tail.len() - 1);
                    }
                });
            }
        });
        gone.recv().unwrap();
        let _ = first.read_to_end(&mut all);
        tell.send(all).unwrap();
    });
    (address, go, told)
}

#[test]
fn a_request_that_was_answered_early_never_goes_on_with_another_events_picture() {
    for answer in ["HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"] {
        let home = Home::new();
        let (url, go, told) = early(answer);
        let mut recognizer = Producer::open(&home.ring(), 32 << 20).unwrap();
        let daemon = Daemon::start(&home, &[url], json!({}));
        publish(&mut recognizer, &event(&vec![b'A'; 12 << 20], b""));
        home.wait_done();
        // Somebody else's picture takes the room, again and again.
        let other = vec![b'B'; 12 << 20];
        for _ in 0..5 {
            publish(&mut recognizer, &event(&other, b""));
        }
        home.wait_done();
        go.send(()).unwrap();
        let rest = String::from_utf8(told.recv().unwrap()).unwrap();
        let leaked = rest.matches(&STANDARD.encode(&other[..300])).count();
        assert_eq!(leaked, 0, "{} bytes went out", rest.len());
        daemon.terminate();
    }
}

#[test]
fn an_early_refusal_is_heard_although_the_connection_is_reset_under_the_body() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 2000]);
            let _ = stream.write_all(b"HTTP/1.1 413 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            // closed with the body unread: the kernel resets the connection
        }
    });
    let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
    let daemon = Daemon::start(&home, &[url], json!({}));
    publish(&mut recognizer, &event(&picture(12 << 20, 1), b""));
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.failed_tries), (1, 0));
}

#[test]
fn a_slow_link_is_progress() {
    let home = Home::new();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(16).unwrap();
    let listener: TcpListener = socket.into();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // 40 KB/s, without a pause longer than 50 ms
                let mut buffer = [0; 2000];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if buffer[..count].ends_with(b"}}") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    }
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let short = json!({ "timeouts_ms": { "connect": 1000, "progress": 1000, "response": 1000 } });
    let daemon = Daemon::start(&home, &[url], short);
    publish(&mut recognizer, &event(&picture(120_000, 1), b"")); // 160 KB of body: 4 s
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (1, 0));
}

#[test]
fn an_idle_connection_is_closed_by_us_before_servers_close_theirs() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[url], json!({}));
    publish(&mut recognizer, &event(b"", b""));
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 300]).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    let answered = crate::common::Naps::start();
    let mut rest = Vec::new();
    stream.set_read_timeout(Some(crate::common::BOUND)).unwrap();
    stream.read_to_end(&mut rest).unwrap(); // to the end that the uplink makes
    assert!(answered.passed() < Duration::from_secs(5), "{:?}", answered.passed());
    assert_eq!(daemon.terminate().acknowledged, 1);
}

#[test]
fn what_fails_that_began_under_an_old_config_says_nothing_about_the_new_one() {
    let home = Home::new();
    let server = Moody::start();
    server.set(Mood::Hanging);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    publish_many(&mut recognizer, 4);
    server.wait_seen(4);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("config read again");
    server.set(Mood::Up); // what hung is closed
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (4, 4));
    assert!(!stopped.log.contains("not delivered"), "{}", stopped.log);
}

/// A server that answers after 100 ms, and how many uploads are there now and were there at most.
fn distant() -> (Sink, &'static Watched<(usize, usize)>) {
    let here: &'static Watched<(usize, usize)> = Box::leak(Box::default());
    let sink = Sink::with(move |request, _| {
        if !request.body.is_empty() {
            here.change(|(now, most)| (*now, *most) = (*now + 1, (*now + 1).max(*most)));
            thread::sleep(Duration::from_millis(100)); // the server's distance is the point
            here.change(|(now, _)| *now -= 1);
        }
        OK
    });
    (sink, here)
}

/// Uploads that were at such a server at once while so many events went there.
fn most_at_once(count: usize, response_timeout_ms: u64) -> usize {
    let home = Home::new();
    let (sink, here) = distant();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "timeouts_ms": { "response": response_timeout_ms } }));
    publish_many(&mut recognizer, count);
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, count as u64);
    here.look(|(_, most)| *most)
}

#[test]
fn a_server_that_is_far_away_gets_more_events_at_once_but_not_where_its_answers_come_late_for_the_timeout() {
    let most = most_at_once(200, 10_000);
    assert!((2 * IN_FLIGHT..=MOST).contains(&most), "{most} at once");
    // An eighth of it is less than the answers take, and the rest of it is for a machine that stands still now and then: what
    // is given up and tried again would be at the server twice.
    assert_eq!(most_at_once(30, 790), IN_FLIGHT);
}

#[test]
fn a_backlog_alone_makes_places_at_a_server_that_is_far_away() {
    let (home, _recognizer) = Moody::start().backlog(60);
    let (sink, here) = distant();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 60);
    let most = here.look(|(_, most)| *most);
    assert!((2 * IN_FLIGHT..MOST).contains(&most), "{most} at once");
}

#[test]
fn a_server_whose_neighbour_hangs_gets_every_event_although_nothing_can_be_spooled() {
    const EVENTS: u64 = 600;
    let home = Home::new();
    let (good, hanging) = (Meter::start(), Sink::with(|_, _| Answer::Hang));
    let mut recognizer = Producer::open(&home.ring(), 4 << 20).unwrap();
    let more = json!({
        "spool": { "dir": home.spool(), "min_free_bytes": 1u64 << 40 },
        "timeouts_ms": { "progress": 60_000, "response": 60_000 },
    });
    let daemon = Daemon::start(&home, &[good.url(), hanging.url()], more);
    daemon.wait_attached();
    for number in 0..EVENTS {
        good.wait("the events before", |arrivals| arrivals.len() as u64 + 50 > number);
        publish(&mut recognizer, &event(&picture(2000, 1), b""));
    }
    good.wait("every event", |arrivals| arrivals.len() as u64 >= EVENTS);
    let status = daemon.status();
    assert_eq!(status["destinations"][1]["state"], "up", "it has not failed yet: {status:#}");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.open), (EVENTS, EVENTS), "{}", stopped.log);
}
