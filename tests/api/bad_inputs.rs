//! The promise: whatever is sent to the API, it gets a clear error, nothing is changed, and uploads go on.
//!
//! Every case is sent as it stands over a connection of its own; after each of them the config in force and the file are the
//! same, to the byte. Some cases are generated: every prefix of good calls, random bytes (`SEED` repeats them).

mod bodies;
mod cases;
mod requests;

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use crate::common::daemon::Home;
use crate::common::http::{get, raw};
use crate::common::{Daemon, Sink, event, publish};
use cases::{Case, Cases, URL};
use serde_json::{Value, json};
use sophon_uplink::ring::producer::Producer;

/// In the config as a header's value, and never to be seen.
const CANARY: &str = "canary-4b1d";

/// What is wrong with the answer to a case.
fn fault(api: SocketAddr, case: &Case) -> Option<String> {
    let request = replaced(&case.request, b"HOST", api.to_string().as_bytes());
    let Some(reply) = raw(api, &request) else {
        return (!case.is_http).then(|| "no answer".into()); // HTTP that is none may be closed without a word
    };
    let error: Value = serde_json::from_str::<Value>(&reply.body).unwrap_or_default()["error"].clone();
    let is_clear = error["code"] == reply.status
        && error["status"].is_string()
        && error["message"].as_str().is_some_and(|text| (10..1000).contains(&text.len()));
    let wrong = if !case.allowed.contains(&reply.status) {
        "another status"
    } else if reply.body.contains(CANARY) {
        "a secret"
    } else if !is_clear && !case.is_http {
        "no clear error"
    } else {
        return None;
    };
    Some(format!("{wrong}: {} {}", reply.status, reply.body))
}

fn replaced(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    match bytes.windows(what.len()).position(|window| window == what) {
        Some(at) => [&bytes[..at], by, &replaced(&bytes[at + what.len()..], what, by)].concat(),
        None => bytes.to_vec(),
    }
}

#[test]
fn every_bad_input_gets_its_error_and_changes_nothing() {
    let mut cases = Cases::default();
    bodies::urls(&mut cases);
    bodies::values(&mut cases);
    bodies::shapes(&mut cases);
    bodies::multiparts(&mut cases);
    requests::sources(&mut cases);
    requests::protocol(&mut cases, &mut fastrand::Rng::with_seed(crate::common::seed()));
    assert!(cases.0.len() >= 500);

    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "headers": { "X-Key": CANARY } }));
    let api = daemon.api();
    crate::common::wait_until("the first last good one", || home.folder.path().join("uplink.json.bak").exists());
    crate::common::wait_until("the spool", || home.spool().exists());
    let (in_force, file) = (get(api, URL).json(), fs::read(home.config()).unwrap());
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(home.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let files = names();
    let (began, mut published, mut faults) = (Instant::now(), 0, Vec::new());
    for (number, case) in cases.0.iter().enumerate() {
        faults.extend(fault(api, case).map(|fault| format!("{}: {fault}", case.name)));
        assert_eq!(fs::read(home.config()).unwrap(), file, "{}: the file has changed", case.name);
        assert_eq!(get(api, URL).json(), in_force, "{}: another config is in force", case.name);
        if number % 10 == 0 {
            publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
            published += 1;
            sink.wait(published);
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(names(), files);
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (published as u64, 0), "{}", stopped.log);
    assert!(!stopped.log.contains(CANARY));
    println!("{} bad inputs in {:?}, {published} events delivered meanwhile", cases.0.len(), began.elapsed());
}
