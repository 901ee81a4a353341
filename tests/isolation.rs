//! The promise: destinations that are dead, slow or poisoned cost the others nothing, not even time.
//!
//! Two uplinks, one with a good destination alone and one with the same and seven bad ones, are measured in turn, so that what else
//! the machine does disturbs both. What it does only adds to a latency: so the quiet rounds of both are compared.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use common::closed_port::ClosedPort;
use common::daemon::Home;
use common::meter::{Meter, p99, publish_paced, quartile};
use common::{Daemon, RingProducer, event, picture};
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

/// How much longer 99 of 100 events may take to the good server because of the bad ones.
const BOUND: f64 = 1.2;
/// No verdict before so many rounds; then they go on until the bound holds, up to the second number. A busy machine needs more of
/// them; an uplink that lets one destination wait for another never gets there.
const ROUNDS: (u64, u64) = (5, 20);
const EVENTS: u64 = 100;
/// 50 events a second: a busy gate.
const PACE: Duration = Duration::from_millis(20);

/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Listens, and gives every connection to `serve` in a thread of its own.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
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

fn reads_a_byte_at_a_time() -> String {
    server(|mut stream| {
        while stream.read(&mut [0]).is_ok_and(|read| read > 0) {
            thread::sleep(Duration::from_millis(10));
        }
    })
}

/// Answers the first bytes of a request, reads what comes and closes.
fn answers(answer: &'static str) -> String {
    server(move |mut stream| {
        let mut buffer = [0; 65536];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    })
}

/// An uplink and its recognizer.
struct Rig {
    home: Home,
    recognizer: RingProducer,
    good: Meter,
    daemon: Daemon,
}

impl Rig {
    fn new(bad: &[String]) -> Rig {
        let (home, good) = (Home::new(), Meter::start());
        let recognizer = Producer::open(&home.ring(), 16 << 20).unwrap();
        let urls = [&[good.url()], bad].concat();
        let spool = json!({ "dir": home.spool(), "min_free_bytes": 0, "max_bytes": 16 << 20 });
        let daemon = Daemon::start(&home, &urls, json!({ "spool": spool }));
        daemon.wait_attached();
        Rig { home, recognizer, good, daemon }
    }

    /// The p99 of one round, in milliseconds.
    fn round(&mut self) -> f64 {
        let (reg, spot) = (picture(40_000, 1), picture(80_000, 2));
        let published = publish_paced(&mut self.recognizer, &event(&reg, &spot), EVENTS, PACE);
        p99(&self.good.latencies(&published)).as_secs_f64() * 1e3
    }
}

fn measure(name: &str, bad: [String; 7]) {
    let _alone = ALONE.lock();
    let (mut alone, mut with) = (Rig::new(&[]), Rig::new(&bad));
    for rig in [&mut alone, &mut with] {
        rig.round(); // warm
    }
    let (mut figures, mut rounds) = ((Vec::new(), Vec::new()), 0);
    let (alone_p99, with_p99) = loop {
        figures.0.push(alone.round());
        figures.1.push(with.round());
        rounds += 1;
        let quiet = (quartile(&figures.0), quartile(&figures.1));
        let is_held = rounds >= ROUNDS.0 && quiet.1 <= quiet.0 * BOUND;
        if is_held || rounds >= common::count("SOPHON_ROUNDS", ROUNDS.1) {
            break quiet;
        }
    };
    let ratio = with_p99 / alone_p99;
    println!(
        "publish to whole body, p99: {alone_p99:.2} ms alone, {with_p99:.2} ms beside {name}: {ratio:.2} times, {rounds} rounds"
    );
    assert!(ratio <= BOUND, "{figures:?}");
    let stopped = with.daemon.terminate();
    let events = (rounds + 1) * EVENTS;
    assert_eq!((stopped.read, stopped.open), (events, 0), "{}", stopped.log);
    assert_eq!(with.good.arrivals().len() as u64, events, "each once");
    drop(with.home);
}

#[test]
fn dead_and_slow_destinations_cost_the_good_one_no_time() {
    let bad = [
        refuses_connections(),
        refuses_connections(),
        says_nothing(),
        says_nothing(),
        resets(),
        resets(),
        reads_a_byte_at_a_time(),
    ];
    measure("dead and slow ones", bad);
}

#[test]
fn poisoned_destinations_cost_the_good_one_no_time() {
    let bad = [
        answers("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"),
        answers("HTTP/1.1 503 x\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"),
        answers("HTTP/1.1 400 x\r\nContent-Length: 0\r\n\r\n"),
        answers("HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"),
        answers("garbage\r\n\r\n"),
        answers("HTTP/1.1 200"),
        answers("HTTP/1.1 200 x\r\nContent-Length: 9999999\r\n\r\n"),
    ];
    measure("poisoned ones", bad);
}
