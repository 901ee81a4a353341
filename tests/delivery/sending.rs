//! The promise: what the config says of order, of servers that stand in and of a link's bounds is kept, and costs no event.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::sink::OK;
use crate::common::tls_server::whole_request;
use crate::common::{Answer, Daemon, Sink, Watched, event, picture, publish, publish_many, wait_until};
use crate::dead_letters::command;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::ring::producer::{NewEvent, Producer};

const RING: u64 = 1 << 20;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn destination(daemon: &Daemon) -> Value {
    daemon.status()["destinations"][0].clone()
}

#[test]
fn in_strict_order_events_come_one_after_the_other_over_an_outage_and_a_restart() {
    let home = Home::new();
    let port = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[port.url()], json!({ "order": "strict" }));
    publish_many(&mut recognizer, 30);
    wait_until("the outage fills the spool", || home.spooled_files().len() == 30);
    daemon.terminate();
    publish_many(&mut recognizer, 30);
    let daemon = Daemon::restart(&home);
    wait_until("and goes on", || home.spooled_files().len() == 60);
    // The third one fails twice, and every answer takes a while: whoever does not wait for it comes first.
    let sink = Sink::on(port.open(), |request, number| {
        std::thread::sleep(Duration::from_millis(2));
        if request.sequence() == 3 && number < 4 { Answer::Status(500, "") } else { OK }
    });
    daemon.signal(Signal::SIGHUP);
    for _ in 0..40 {
        publish_many(&mut recognizer, 1);
    }
    let requests = sink.wait_for("everything", |requests| requests.last().is_some_and(|last| last.sequence() == 100));
    let sequences: Vec<u64> = requests.iter().map(crate::common::Request::sequence).collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    let mut once = sequences.clone();
    once.dedup();
    assert_eq!(once, (1..=100).collect::<Vec<_>>());
    assert_eq!(destination(&daemon)["in_order"], true);
    home.wait_done();
}

#[test]
fn a_server_stands_in_while_the_first_one_does_not_answer_and_gives_way_again() {
    let home = Home::new();
    let (port, second) = (ClosedPort::new(), Sink::start());
    let unused = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let options = json!({ "standby": [unused.url(), second.url()] });
    let daemon = Daemon::start(&home, &[port.url()], json!({ "destinations": { port.url(): options } }));
    publish_many(&mut recognizer, 20);
    second.wait(20);
    wait_until("the status says so", || destination(&daemon)["standing_in"] == second.url());
    assert_eq!(destination(&daemon)["failed_tries"], 0, "no event waited for a next try");
    let first = Sink::on(port.open(), |_, _| OK);
    wait_until("the first one is used again", || {
        publish_many(&mut recognizer, 1);
        !first.received().is_empty()
    });
    wait_until("the status says so", || destination(&daemon)["standing_in"].is_null());
    home.wait_done();
    let before = second.received().len();
    publish_many(&mut recognizer, 20);
    home.wait_done();
    assert_eq!(second.received().len(), before);
    let stopped = daemon.terminate();
    assert_eq!(stopped.acknowledged, (first.received().len() + before) as u64);
}

#[test]
fn with_no_server_left_an_event_waits_as_without_standby() {
    let home = Home::new();
    let (port, other) = (ClosedPort::new(), ClosedPort::new());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let options = json!({ "standby": [other.url()] });
    let daemon = Daemon::start(&home, &[port.url()], json!({ "destinations": { port.url(): options } }));
    publish_many(&mut recognizer, 10);
    wait_until("the spool has them", || home.spooled_files().len() == 10);
    assert_eq!(destination(&daemon)["state"], "down");
    let sink = Sink::on(other.open(), |_, _| OK);
    sink.wait(10);
    home.wait_done();
}

#[test]
fn a_standby_server_that_was_removed_gets_nothing_more_although_an_attempt_was_on_its_way_to_it() {
    let home = Home::new();
    let (second, gate) = (Sink::start(), Arc::new(Watched::<bool>::default()));
    let waits = Arc::clone(&gate);
    let first = Sink::with(move |_, _| {
        waits.wait("the reload", |open| open.then_some(()));
        Answer::Close
    });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let config = |standby: &[String]| {
        let options = json!({ "standby": standby });
        json!({ "destinations": { first.url(): options }, "timeouts_ms": { "response": 60_000 } })
    };
    let daemon = Daemon::start(&home, &[first.url()], config(&[second.url()]));
    publish_many(&mut recognizer, 1);
    first.wait_heads(1);
    home.configure(&[first.url()], config(&[]));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("config read again");
    gate.change(|open| *open = true);
    first.wait(2); // the next attempt
    assert!(second.received().is_empty());
}

#[test]
fn no_more_bytes_go_out_in_a_second_than_are_allowed() {
    const RATE: u64 = 200_000;
    let home = Home::new();
    let sinks = [Sink::start(), Sink::start()];
    let pictures = [picture(60_000, 1), picture(60_000, 2)];
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let urls = sinks.each_ref().map(Sink::url);
    let daemon = Daemon::start(&home, &urls, json!({ "bounds": { "bytes_per_second": RATE } }));
    assert_eq!(destination(&daemon)["bytes_per_second"], RATE);
    let began = Instant::now();
    for _ in 0..3 {
        publish(&mut recognizer, &event(&pictures[0], &pictures[1]));
    }
    let bytes: u64 = sinks.iter().flat_map(|sink| sink.wait(3)).map(|request| request.body.len() as u64).sum();
    // At least so long, however fast the machine is: two destinations share the bound.
    let least = Duration::from_millis(1000 * bytes / RATE) - Duration::from_millis(300);
    assert!(began.elapsed() >= least, "{bytes} bytes in {:?}", began.elapsed());
    assert_eq!(destination(&daemon)["failed_tries"], 0);
}

#[test]
fn a_rate_that_holds_bytes_back_for_longer_than_a_server_may_is_no_failure() {
    let home = Home::new();
    let sinks = [Sink::start(), Sink::start(), Sink::start()];
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let config = json!({ "bounds": { "bytes_per_second": 4000 }, "timeouts_ms": { "progress": 100 } });
    let daemon = Daemon::start(&home, &sinks.each_ref().map(Sink::url), config);
    publish(&mut recognizer, &event(&picture(1500, 1), &picture(1500, 2)));
    sinks.iter().for_each(|sink| drop(sink.wait(1)));
    home.wait_done();
    let destinations = daemon.status()["destinations"].clone();
    let failed: Vec<_> = destinations.as_array().unwrap().iter().map(|one| one["failed_tries"].clone()).collect();
    assert_eq!(failed, [0, 0, 0]);
}

#[test]
fn a_tls_handshake_does_not_wait_for_the_bytes_of_others_that_share_its_bound() {
    let home = Home::new();
    let (others, over_tls) = ([(); 10].map(|()| Sink::start()), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut urls = others.each_ref().map(Sink::url).to_vec();
    urls.push(format!("https://{}/", over_tls.local_addr().unwrap()));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    // A turn of all is four seconds.
    let config = json!({ "bounds": { "bytes_per_second": 4000 }, "timeouts_ms": { "connect": 1000 } });
    let _daemon = Daemon::start(&home, &urls, config);
    publish(&mut recognizer, &event(&picture(15_000, 1), &picture(15_000, 2)));
    let first = over_tls.accept().unwrap(); // this one may have been faster than the others' bytes
    others.iter().for_each(|other| other.wait_heads(1));
    drop(first);
    let says_hello = || {
        let (mut connection, mut hello) = (over_tls.accept().unwrap().0, [0; 6]);
        connection.read_exact(&mut hello).is_ok_and(|()| (hello[0], hello[5]) == (22, 1))
    };
    assert!((0..5).any(|_| says_hello()), "no ClientHello came in time");
}

#[test]
fn connections_that_share_a_bound_take_turns() {
    let home = Home::new();
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let urls = listeners.each_ref().map(|listener| format!("http://{}/", listener.local_addr().unwrap()));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let _daemon = Daemon::start(&home, &urls, json!({ "bounds": { "bytes_per_second": 100_000 } }));
    let bytes = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let (tell, told) = channel();
    for (index, listener) in listeners.into_iter().enumerate() {
        let (mine, other, tell) = (Arc::clone(&bytes[index]), Arc::clone(&bytes[1 - index]), tell.clone());
        std::thread::spawn(move || {
            let (mut connection, mut text, mut buffer) = (listener.accept().unwrap().0, Vec::new(), [0; 1000]);
            while whole_request(&text).is_none() {
                let count = connection.read(&mut buffer).unwrap();
                text.extend_from_slice(&buffer[..count]);
                mine.store(text.len(), Ordering::Relaxed);
            }
            tell.send((text.len(), other.load(Ordering::Relaxed))).unwrap();
            let _the_test_may_be_over = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        });
    }
    publish(&mut recognizer, &event(&picture(45_000, 1), &picture(45_000, 2)));
    let (whole, other) = told.recv().unwrap();
    assert!(other > whole / 2, "when one had its {whole} bytes, the other had {other}");
}

#[test]
fn what_waited_longer_than_allowed_is_let_go_and_counted() {
    let home = Home::new();
    let port = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let config = json!({ "bounds": { "max_age_s": 3600 } });
    let daemon = Daemon::start(&home, &[port.url()], config);
    let at = |ago: u64| (now() - Duration::from_secs(ago)).as_millis() as i64;
    // The clock of the last one's box was not set: nobody knows how old it is.
    for timestamp_ms in [at(7200), at(10), at(4000), 1_000] {
        publish(&mut recognizer, &NewEvent { timestamp_ms, ..event(b"reg", b"spot") });
    }
    wait_until("they are in the spool", || home.spooled_files().len() == 4);
    let sink = Sink::on(port.open(), |_, _| OK);
    daemon.signal(Signal::SIGHUP);
    home.wait_done();
    wait_until("the rest is let go", || home.spooled_files().is_empty());
    let mut came: Vec<u64> = sink.received().iter().map(crate::common::Request::sequence).collect();
    came.sort_unstable();
    assert_eq!(came, [2, 4]);
    let status = daemon.status();
    assert_eq!((&status["shares"]["expired"], &status["destinations"][0]["expired"]), (&json!(2), &json!(2)));
    let told = command(&home, Some(&daemon), &["status"]).unwrap();
    assert!(told.contains("2 acknowledged, 0 waiting (0 of them in the spool), 0 dead letters, 2 given up"), "{told}");
    let log = daemon.terminate().log;
    assert!(log.contains("older than bounds.max_age_s"), "{log}");
}

#[test]
fn outside_its_hours_the_backlog_waits_and_live_events_do_not() {
    let home = Home::new();
    let port = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[port.url()], json!({}));
    publish_many(&mut recognizer, 10);
    wait_until("the spool has them", || home.spooled_files().len() == 10);
    let hour = |ahead: u64| (now().as_secs() / 3600 + ahead) % 24;
    let hours = format!("{:02}:00-{:02}:00Z", hour(5), hour(6));
    let sink = Sink::on(port.open(), |_, _| OK);
    home.configure(&[port.url()], json!({ "bounds": { "backlog_hours": hours } }));
    daemon.signal(Signal::SIGHUP);
    wait_until("the status says so", || destination(&daemon)["off_hours"] == true);
    publish_many(&mut recognizer, 5);
    let came = sink.wait_for("what is live", |requests| requests.iter().filter(|one| one.sequence() > 10).count() == 5);
    let early = came.iter().filter(|one| one.sequence() <= 10).count();
    assert!(early <= 1, "one may have been on its way when the hours came into force: {early}");
    home.configure(&[port.url()], json!({}));
    daemon.signal(Signal::SIGHUP);
    home.wait_done();
    wait_until("everything has come", || sink.received().len() == 15);
}

#[test]
fn what_is_written_wrongly_is_named() {
    let home = Home::new();
    let bad = json!({
        "order": "random",
        "order_gives_up_s": -1,
        "standby": ["http://b/"],
        "bounds": { "max_age_s": 1, "bytes_per_second": 10, "backlog_hours": "22-6", "x": 1 },
        "destinations": { "http://a/": { "standby": ["ftp://b"], "bounds": 7 } },
    });
    home.configure(&["http://a/".into()], bad);
    let (code, said) = home.check_config();
    assert_eq!(code, Some(78), "{said}");
    for key in [
        "order: \"random\" is not allowed: \"any\" or \"strict\"",
        "order_gives_up_s: -1",
        "standby: this key is not known",
        "bounds.max_age_s: 1",
        "bounds.bytes_per_second: 10",
        "bounds.backlog_hours: \"22-6\"",
        "bounds.x: this key is not known",
        "destinations.\"http://a/\".standby[0]: ",
        "destinations.\"http://a/\".bounds: 7 is not allowed: a JSON object",
    ] {
        assert!(said.contains(key), "{key}: {said}");
    }
}
