//! The promise: a server that is away costs no event and no memory, and when it is back, what waited comes in the order of its age
//! while live events go first.

mod common;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::daemon::Home;
use common::meter::{Meter, Moment, is_held, p99, publish_paced, quartile, times_decide};
use common::{Daemon, RingProducer, event, picture, publish};
use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::deliver::core::limit::MOST;
use sophon_uplink::ring::producer::Producer;

const RING: u64 = 1 << 20;
/// RssAnon may grow by so much from before the outage to its worst moment.
const GROWTH_KIB: u64 = 1024;
/// How much longer 99 of 100 live events may take while the backlog drains.
const BOUND: f64 = 2.0;
/// No verdict before so many rounds, and then they go on until the bound holds, up to `SOPHON_ROUNDS`: an uplink whose live events wait for
/// the backlog never gets there. Where times do not decide, one round is enough.
const ROUNDS: u64 = 4;

/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What was published up to here comes once each, in the order of its age: when one has come whole, no more older ones may be
/// missing than can be on their way beside it.
#[track_caller]
fn assert_in_order_of_age(arrivals: &[Moment], first: u64, last: u64) {
    let order: Vec<u64> =
        arrivals.iter().map(|(sequence, _)| *sequence).filter(|it| (first..=last).contains(it)).collect();
    assert_eq!(order.len() as u64, last + 1 - first, "each once");
    let mut youngest = 0;
    for (count, sequence) in (first..).zip(&order) {
        youngest = youngest.max(*sequence);
        assert!(youngest - count < MOST as u64, "{youngest} came when only those before {count} could: {order:?}");
    }
    assert_eq!(youngest, last);
}

/// `SOPHON_OUTAGE_RINGS` raises how many times the ring's size is published.
#[test]
fn ten_times_the_ring_survive_an_outage_without_memory_and_come_in_the_order_of_their_age() {
    let _alone = times_decide().then(|| ALONE.lock());
    let (home, server) = (Home::new(), Meter::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    let (reg, spot) = (picture(3000, 1), picture(6000, 2));
    let event = event(&reg, &spot);
    let warm = 300;
    for _ in 0..warm {
        publish(&mut recognizer, &event);
    }
    home.wait_done();
    let before = daemon.rss_anon_kib();

    server.close();
    let wanted = common::count("SOPHON_OUTAGE_RINGS", 10) * RING;
    let (mut last, mut most) = (warm, before);
    while (last - warm) * (event.record_len() as u64) < wanted {
        last = publish(&mut recognizer, &event);
        most = most.max(daemon.rss_anon_kib());
    }
    home.wait_released();
    assert_eq!(home.spooled_files().len() as u64, last - warm, "all of it waits on the disk");

    server.open();
    let is_all = |arrivals: &[Moment]| {
        most = most.max(daemon.rss_anon_kib());
        arrivals.len() as u64 >= last
    };
    let arrivals = server.wait("the whole backlog", is_all);
    home.wait_done();
    println!(
        "RssAnon before an outage {before} KiB, at most {most} KiB while {} events ({} times the ring) waited and came",
        last - warm,
        wanted / RING
    );
    assert!(most <= before + GROWTH_KIB, "{before} KiB became {most} KiB");
    assert_in_order_of_age(&arrivals, warm + 1, last);
    let stopped = daemon.terminate();
    assert_eq!((stopped.read, stopped.acknowledged, stopped.evicted), (last, last, 0));
}

const PACE: Duration = Duration::from_millis(10);
const BACKLOG: u64 = 400;

/// The p99 of live events in milliseconds: idle, and while a backlog drains.
fn round(home: &Home, recognizer: &mut RingProducer, server: &Meter, daemon: &Daemon) -> (f64, f64) {
    let (reg, spot) = (picture(15_000, 1), picture(30_000, 2));
    let event = event(&reg, &spot);
    let milliseconds = |events: &[Moment]| p99(&server.latencies(events)).as_secs_f64() * 1e3;
    let idle = milliseconds(&publish_paced(recognizer, &event, 150, PACE));

    home.wait_done();
    server.close();
    let first = publish(recognizer, &event);
    let last = (1..BACKLOG).map(|_| publish(recognizer, &event)).last().unwrap();
    home.wait_released();
    server.open();
    daemon.signal(Signal::SIGHUP); // instead of waiting for the end of the pause
    let came = || server.arrivals().iter().filter(|(sequence, _)| (first..=last).contains(sequence)).count() as u64;
    common::wait_until("the first of the backlog", || came() > 0);
    let mut live = Vec::new();
    while came() < BACKLOG {
        live.extend(publish_paced(recognizer, &event, 10, PACE));
    }
    assert!(live.len() >= 30 || !times_decide(), "too few live events while the backlog drained: {}", live.len());
    let draining = milliseconds(&live);
    home.wait_done();
    assert_in_order_of_age(&server.arrivals(), first, last);
    (idle, draining)
}

#[test]
fn live_events_hardly_wait_for_a_backlog_that_drains() {
    let _alone = times_decide().then(|| ALONE.lock());
    let (home, server) = (Home::new(), Meter::start());
    let mut recognizer = Producer::open(&home.ring(), 8 * RING).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    daemon.wait_attached();
    let began = Instant::now();
    let (mut idle, mut draining) = (Vec::new(), Vec::new());
    let ratio = loop {
        let (alone, with) = round(&home, &mut recognizer, &server, &daemon);
        idle.push(alone);
        draining.push(with);
        let (rounds, ratio) = (idle.len() as u64, quartile(&draining) / quartile(&idle));
        let least = if times_decide() { ROUNDS } else { 1 };
        if is_held(ratio, BOUND) && rounds >= least || rounds >= common::count("SOPHON_ROUNDS", 15) {
            break ratio;
        }
    };
    println!(
        "publish to whole body, p99: {:.2} ms idle, {:.2} ms while a backlog drains: {ratio:.2} times, {} rounds in {:.0?}",
        quartile(&idle),
        quartile(&draining),
        idle.len(),
        began.elapsed()
    );
    assert!(is_held(ratio, BOUND), "idle {idle:?}, draining {draining:?}");
    assert_eq!(daemon.terminate().evicted, 0);
}
