//! The promise: destinations that are dead, slow or poisoned cost the others nothing, not even time.
//!
//! Two uplinks, one with a good destination alone and one with the same and seven bad ones, are measured in turn, so that what else
//! the machine does disturbs both. What it does only adds to a latency: so the quiet rounds of both are compared.

mod common;
#[path = "isolation/poison.rs"]
mod poison;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::closed_port::ClosedPort;
use common::daemon::Home;
use common::meter::{Meter, is_held, p99, publish_paced, quartile, times_decide};
use common::{Daemon, RingProducer, event, picture};
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

/// How much longer 99 of 100 events may take to the good server because of the bad ones.
const BOUND: f64 = 1.2;
/// No verdict before so many rounds (`SOPHON_LEAST_ROUNDS`; of 100 events each), and then they go on until the bound holds, up to
/// `SOPHON_ROUNDS`: an uplink that lets one destination wait for another never gets there. Where times do not decide, one round is enough.
const ROUNDS: u64 = 5;
const EVENTS: u64 = 100;
/// 50 events a second: a busy gate.
const PACE: Duration = Duration::from_millis(20);

/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Listens, and gives every connection to `serve` in a thread of its own.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    serve_on(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
}

fn serve_on(listener: TcpListener, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    url
}

fn refuses_connections() -> String {
    Box::leak(Box::new(ClosedPort::new())).url()
}

fn says_nothing() -> String {
    server(|stream| {
        thread::park();
        drop(stream);
    })
}

fn resets() -> String {
    server(|stream| socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap())
}

/// So do the last four connections: an upload that was given up leaves what the kernel had taken of it, and a thread that reads it
/// for minutes would soon be one of thousands, which take the processor from what is measured.
fn reads_a_byte_at_a_time() -> String {
    let count = Arc::new(AtomicU64::new(0));
    server(move |mut stream| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        while count.load(Ordering::Relaxed) <= number + 4 && stream.read(&mut [0]).is_ok_and(|read| read > 0) {
            thread::sleep(Duration::from_millis(10));
        }
    })
}

/// Answers the first bytes of a request, reads what comes and closes.
fn answers(answer: &'static str) -> String {
    server(answering(answer))
}

/// The same, and has not got a small event by then either.
fn answers_early(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    serve_on(listener, answering(answer))
}

fn answering(answer: &'static str) -> impl Fn(TcpStream) + Clone + Send + 'static {
    move |mut stream| {
        let mut buffer = [0; 65536];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    }
}

/// Takes each event whole, and takes its time: it is up, and cannot keep up.
fn is_slow() -> String {
    Box::leak(Box::new(Meter::answering_after(Duration::from_millis(400)))).url()
}

/// What the spool can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Usable,
    /// Less of it is free than is to stay free: nothing can be stored.
    Full,
}

/// An uplink and its recognizer.
struct Rig {
    home: Home,
    recognizer: RingProducer,
    good: Meter,
    daemon: Daemon,
    /// Of an event, in bytes.
    pictures: [usize; 2],
}

impl Rig {
    fn new(bad: &[String], disk: Disk, pictures: [usize; 2]) -> Rig {
        let (home, good) = (Home::new(), Meter::start());
        let recognizer = Producer::open(&home.ring(), 16 << 20).unwrap();
        let urls = [&[good.url()], bad].concat();
        let kept_free = if disk == Disk::Full { 1 << 40 } else { 0u64 };
        let spool = json!({ "dir": home.spool(), "min_free_bytes": kept_free, "max_bytes": 16 << 20 });
        let daemon = Daemon::start(&home, &urls, json!({ "spool": spool }));
        daemon.wait_attached();
        Rig { home, recognizer, good, daemon, pictures }
    }

    /// The p99 of one round, in milliseconds.
    fn round(&mut self) -> f64 {
        let (reg, spot) = (picture(self.pictures[0], 1), picture(self.pictures[1], 2));
        let published = publish_paced(&mut self.recognizer, &event(&reg, &spot), EVENTS, PACE);
        p99(&self.good.latencies(&published)).as_secs_f64() * 1e3
    }
}

fn measure(name: &str, bad: [String; 7], disk: Disk, pictures: [usize; 2]) {
    let _alone = times_decide().then(|| ALONE.lock());
    let (mut alone, mut with) = (Rig::new(&[], disk, pictures), Rig::new(&bad, disk, pictures));
    for rig in [&mut alone, &mut with] {
        rig.round(); // warm
    }
    let (mut figures, mut rounds) = ((Vec::new(), Vec::new()), 0);
    let (alone_p99, with_p99) = loop {
        figures.0.push(alone.round());
        figures.1.push(with.round());
        rounds += 1;
        let quiet = (quartile(&figures.0), quartile(&figures.1));
        let least = if times_decide() { ROUNDS } else { 1 };
        if is_held(quiet.1 / quiet.0, BOUND) && rounds >= common::count("SOPHON_LEAST_ROUNDS", least)
            || rounds >= common::count("SOPHON_ROUNDS", 20)
        {
            break quiet;
        }
    };
    let ratio = with_p99 / alone_p99;
    println!(
        "publish to whole body, {pictures:?} bytes, disk {disk:?}, p99: {alone_p99:.2} ms alone, {with_p99:.2} ms beside {name}: {ratio:.2} times, {rounds} rounds"
    );
    assert!(is_held(ratio, BOUND), "{figures:?}");
    let stopped = with.daemon.terminate();
    let events = (rounds + 1) * EVENTS;
    assert_eq!(stopped.read, events, "{}", stopped.log);
    if disk == Disk::Usable {
        assert_eq!(stopped.open, 0, "{}", stopped.log);
    }
    assert_eq!(with.good.arrivals().len() as u64, events, "each once");
    drop(with.home);
}

/// What was seen on boxes: an event of two pictures, and a small one.
const LARGE: [usize; 2] = [40_000, 80_000];
const SMALL: [usize; 2] = [0, 20_000];

fn dead_and_slow() -> [String; 7] {
    [
        refuses_connections(),
        refuses_connections(),
        says_nothing(),
        says_nothing(),
        resets(),
        resets(),
        reads_a_byte_at_a_time(),
    ]
}

/// Of large events the last one has some by the time that it answers, and is up; a small one it would have, and take like a good one.
fn poisoned(pictures: [usize; 2]) -> [String; 7] {
    let without_end = if pictures == SMALL { answers_early } else { answers };
    [
        answers("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"),
        answers("HTTP/1.1 503 x\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"),
        answers("HTTP/1.1 400 x\r\nContent-Length: 0\r\n\r\n"),
        answers("HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"),
        answers("garbage\r\n\r\n"),
        answers("HTTP/1.1 200"),
        without_end("HTTP/1.1 200 x\r\nContent-Length: 9999999\r\n\r\n"),
    ]
}

/// One of each, those among them that are up and cannot keep up.
fn mixed() -> [String; 7] {
    [
        refuses_connections(),
        says_nothing(),
        is_slow(),
        is_slow(),
        reads_a_byte_at_a_time(),
        answers("HTTP/1.1 400 x\r\nContent-Length: 0\r\n\r\n"),
        answers("HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"),
    ]
}

#[test]
fn dead_and_slow_destinations_cost_the_good_one_no_time() {
    measure("dead and slow ones", dead_and_slow(), Disk::Usable, LARGE);
}

#[test]
fn poisoned_destinations_cost_the_good_one_no_time() {
    measure("poisoned ones", poisoned(LARGE), Disk::Usable, LARGE);
}

#[test]
#[ignore = "a minute alone on the machine: scripts/soak isolation"]
fn without_a_usable_spool_bad_destinations_cost_the_good_one_no_time() {
    measure("one of each kind", mixed(), Disk::Full, SMALL);
}

#[test]
#[ignore = "ten minutes: scripts/soak isolation"]
fn any_bad_destinations_cost_the_good_one_no_time_whatever_the_disk_and_the_size() {
    for disk in [Disk::Usable, Disk::Full] {
        for pictures in [SMALL, LARGE] {
            measure("dead and slow ones", dead_and_slow(), disk, pictures);
            measure("poisoned ones", poisoned(pictures), disk, pictures);
            measure("one of each kind", mixed(), disk, pictures);
        }
    }
}
