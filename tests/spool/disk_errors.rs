//! The promise: a disk that fails costs no event that was promised, and stops no upload to a destination that is up.
//!
//! Every call by which the daemon touches its spool fails once, or from then on, with each of the errors that a disk makes. Soak
//! campaigns try all of them, `cargo test` a sample.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::common::daemon::Home;
use crate::common::moody::{Mood, Moody};
use crate::common::short_run::{End, Servers, ShortRun, TROUBLE};
use crate::common::traced::{self, Call, Trace};
use crate::common::{event, picture, publish};
use serde_json::json;
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::spool::Destination;

/// What calls fail with.
const ERRORS: [&str; 5] = ["ENOSPC", "EIO", "EROFS", "EMFILE", "EDQUOT"];
/// System calls without which no event is stored.
const NEEDED: [&str; 4] = ["pwrite64", "fsync", "linkat", "mkdir"];

struct Failure {
    call: Call,
    error: &'static str,
    /// This call and all later ones of its name.
    lasting: bool,
}

#[derive(Debug, Default)]
struct Total {
    runs: u64,
    /// The failure came to pass.
    hit: u64,
    /// Nothing could be stored for a while.
    in_trouble: u64,
    events: u64,
    evicted: u64,
    repeated: u64,
}

/// The calls of one run that touch the spool, but for those that do not fail on a disk.
fn disk_calls(servers: &Servers) -> Vec<Call> {
    let mut run = ShortRun::new(servers);
    let trace = Trace::of(&run.home).spool(&run.home, &servers.urls());
    let record = trace.record.clone();
    let daemon = trace.start(&run.home);
    assert!(matches!(run.drive(daemon), End::Stopped(_)));
    run.finish();
    let cannot_fail = ["close", "fcntl", "munmap"];
    traced::calls(&record).into_iter().filter(|call| !cannot_fail.contains(&call.name.as_str())).collect()
}

fn fail(servers: &Servers, failure: &Failure, total: &Mutex<Total>) {
    let Failure { call, error, lasting } = failure;
    let what = format!("{call:?} fails with {error}, lasting {lasting}");
    let _what = crate::common::Said(&what);
    let mut run = ShortRun::new(servers);
    let trace = Trace::of(&run.home).spool(&run.home, &servers.urls());
    let record = trace.record.clone();
    let trace = trace.inject(call, &format!("error={error}"), *lasting);
    let End::Stopped(stopped) = run.drive(trace.start(&run.home)) else { panic!("killed though {what}") };
    assert!(!stopped.log.contains("panicked"), "{what}\n{}", stopped.log);
    let hit = std::fs::read_to_string(record).unwrap().contains("(INJECTED)");
    let in_trouble = stopped.log.contains(TROUBLE);
    // One failure of a file may be mended with another file.
    if hit && *lasting && NEEDED.contains(&call.name.as_str()) && call.number == 1 {
        assert!(in_trouble, "nobody said that {what}\n{}", stopped.log);
    }
    let missing: usize = servers.all().map(|server| run.books.missing(&run.home, server).len()).iter().sum();
    assert!(missing as u64 <= stopped.evicted, "{missing} missing after {what}\n{}", stopped.log);
    assert_eq!((stopped.quarantined, stopped.dead, stopped.lost, stopped.refused), (0, 0, 0, 0), "{what}");
    let last = run.finish();
    assert_eq!((last.evicted, last.quarantined), (0, 0), "after {what}\n{}", last.log);
    let balance = run.books.balance(&servers.all());
    assert_eq!(balance.lacking, missing as u64, "after {what}\n{}\n{}", stopped.log, last.log);
    let mut total = total.lock().unwrap();
    (total.runs, total.hit) = (total.runs + 1, total.hit + u64::from(hit));
    total.in_trouble += u64::from(in_trouble);
    (total.events, total.evicted) = (total.events + balance.published, total.evicted + stopped.evicted);
    total.repeated += balance.repeated;
}

/// `SOPHON_DISK_ERRORS` says how many of the failures are tried.
#[test]
fn a_disk_call_that_fails_costs_nothing_that_was_promised_and_stops_no_upload() {
    if !traced::is_possible("a_disk_call_that_fails") {
        return;
    }
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let calls = disk_calls(&Servers::start());
    let mut failures = Vec::new();
    for call in &calls {
        for (error, lasting) in ERRORS.iter().flat_map(|error| [(error, false), (error, true)]) {
            failures.push(Failure { call: call.clone(), error, lasting });
        }
    }
    random.shuffle(&mut failures);
    let all = failures.len();
    failures.truncate(crate::common::count("SOPHON_DISK_ERRORS", 100) as usize);
    println!("{} of {all} failures of {} calls are tried", failures.len(), calls.len());
    let total = Mutex::default();
    traced::each(&failures, Servers::start, |servers, failure| fail(servers, failure, &total));
    let total = total.into_inner().unwrap();
    println!("{total:?}; 0 lost");
    assert!(total.hit * 2 > total.runs && total.in_trouble > 0, "{total:?}");
}

fn first_call(name: &str) -> Call {
    Call { name: name.into(), number: 1 }
}

#[test]
fn a_disk_that_stays_full_costs_one_file_and_not_the_backlog() {
    if !traced::is_possible("a_disk_that_stays_full") {
        return;
    }
    let server = Moody::start();
    let (home, mut recognizer) = server.backlog(10);
    // Events that were stored together go together: else there is no room.
    let files: Vec<_> = home.spooled_files().into_iter().filter(|path| path.starts_with("to")).collect();
    let file = |path: &PathBuf| home.spool().join(path).metadata().unwrap().ino();
    let oldest = files.iter().filter(|path| file(path) == file(files.iter().min().unwrap())).count() as u64;
    let trace = Trace::of(&home).spool(&home, &[server.url()]);
    let daemon = trace.inject(&first_call("pwrite64"), "error=ENOSPC", true).start(&home);
    for _ in 0..5 {
        publish(&mut recognizer, &event(b"", b""));
    }
    daemon.wait_log(TROUBLE);
    let stopped = daemon.terminate();
    assert_eq!((stopped.evicted, stopped.spooled, stopped.open), (oldest, 10 - oldest, 5));
}

#[test]
fn a_shortage_of_descriptors_delays_a_spooled_event_and_does_not_hide_it_until_the_next_start() {
    if !traced::is_possible("a_shortage_of_descriptors") {
        return;
    }
    let server = Moody::start();
    let (home, _recognizer) = server.backlog(1);
    server.set(Mood::Up);
    let folder = home.spool().join("to").join(Destination::of(&server.url()).to_string());
    let trace = Trace::of(&home).path(&folder.join(format!("{:020}.event", 1)));
    let daemon = trace.inject(&first_call("openat"), "error=EMFILE", false).start(&home);
    daemon.wait_log("the spool is read later");
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

/// A disk that lies costs the event it lied about, and that is said.
#[test]
fn a_write_that_did_not_happen_though_the_disk_said_so_costs_that_event_alone() {
    if !traced::is_possible("a_write_that_did_not_happen") {
        return;
    }
    let server = Moody::start();
    server.set(Mood::Failing);
    let home = Home::new();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    home.configure(&[server.url()], json!({}));
    // Before it come the name of the destination, the first event's record and header, and a table: it is the second event's
    // record.
    let trace = Trace::of(&home).spool(&home, &[server.url()]);
    let daemon = trace.inject(&Call { name: "pwrite64".into(), number: 5 }, "retval=100", false).start(&home);
    for _ in 0..5 {
        publish(&mut recognizer, &event(&picture(50, 1), b""));
    }
    home.wait_released();
    server.set(Mood::Up);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.quarantined), (4, 1), "{}", stopped.log);
}

#[test]
fn without_hard_links_events_are_spooled_all_the_same_and_that_is_said() {
    if !traced::is_possible("without_hard_links") {
        return;
    }
    let (home, servers) = (Home::new(), [Moody::start(), Moody::start()]);
    servers.iter().for_each(|server| server.set(Mood::Failing));
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    home.configure(&servers.each_ref().map(Moody::url), json!({}));
    let links = Call { name: "linkat".into(), number: 1 };
    let daemon = Trace::of(&home).inject(&links, "error=EPERM", true).start(&home);
    // Found out when the spool is opened, and not in the first outage.
    crate::common::wait_until("that it is said", || daemon.status()["spool"]["has_hard_links"] == false);
    let spot = picture(20_000, 1);
    for _ in 0..10 {
        publish(&mut recognizer, &event(b"", &spot));
    }
    home.wait_released();
    assert_eq!(home.spooled_files().len(), 20, "a file for each destination");
    let status = daemon.status();
    assert_eq!((&status["spool"]["has_hard_links"], &status["spool"]["problem"]), (&json!(false), &json!(null)));
    assert!(status["health"]["notes"].to_string().contains("no hard links"), "{status}");
    let written = status["spool"]["bytes_written"].as_u64().unwrap();
    assert!((400_000..440_000).contains(&written), "{written} bytes: each event once for each destination");
    servers.iter().for_each(|server| server.set(Mood::Up));
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.lost, stopped.spooled), (20, 0, 0), "{}", stopped.log);
}
