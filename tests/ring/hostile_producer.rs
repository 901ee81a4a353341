//! The promise: whatever a process with access to the ring does to it, the uplink neither crashes nor hangs nor reads outside the
//! mapping, and goes on with the next good event. The attacker is a process of its own; `scripts/test asan` gives it an uplink
//! that was built with AddressSanitizer, `scripts/soak mutations` the time for 100,000,000 writes.

mod attacker;

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::daemon::{Home, Stopped};
use crate::common::{Daemon, RingProducer, Sink, event, own_test, picture};
use attacker::{Attack, Attacker};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sophon_uplink::ring::Memory as _;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::mapping::{Access, Mapping};
use sophon_uplink::ring::producer::{NewEvent, Producer};

const RING: u64 = 1 << 18;
/// Events after an attack, each of which must arrive.
const GOOD: u64 = 200;

/// The other process of the tests below; alone it does nothing.
#[test]
fn the_attacker() {
    if attacker::be_one_if_told() {
        std::process::exit(attacker::DONE);
    }
}

/// A recognizer as it is: it holds one ring, and opens it again where that one is gone.
struct Recognizer {
    path: PathBuf,
    /// With number and size of its file.
    ring: Option<(RingProducer, (u64, u64))>,
}

impl Recognizer {
    fn at(path: PathBuf) -> Recognizer {
        Recognizer { path, ring: None }
    }

    fn ring(&mut self) -> Option<&mut RingProducer> {
        let now = self.found();
        self.ring.take_if(|(ring, then)| *then != now || ring.memory().lost());
        if self.ring.is_none() {
            self.ring = Producer::open(&self.path, RING).ok().map(|ring| (ring, self.found()));
        }
        self.ring.as_mut().map(|(ring, _)| ring)
    }

    /// Number and size of the file that is there.
    fn found(&self) -> (u64, u64) {
        std::fs::symlink_metadata(&self.path).map_or((0, 0), |found| (found.ino(), found.len()))
    }

    /// The event's number, if it was published.
    fn publish(&mut self, event: &NewEvent<'_>) -> Option<u64> {
        self.ring()?.publish(event).ok()
    }
}

/// Runs an attack while events flow; then the two sides find each other again, and every event that is published from then on
/// arrives as it is, at the same process.
fn attack_and_recover(attack: Attack, count: u64) -> Stopped {
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Recognizer::at(home.ring());
    recognizer.ring().unwrap();
    let mut daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_attached();
    let mut attacker =
        Attacker::start(own_test(module_path!(), "the_attacker"), attack, &home.ring(), RING, count, random.u64(..));
    let pictures: Vec<_> = (0..16).map(|seed| picture(random.usize(10..30_000), seed)).collect();
    let mut published = 0;
    let ended = loop {
        let event = event(random.choice(&pictures).unwrap(), random.choice(&pictures).unwrap());
        published += u64::from(recognizer.publish(&event).is_some());
        sink.take();
        if let Some(status) = attacker.ended() {
            break status;
        }
        thread::sleep(Duration::from_micros(random.u64(0..300)));
    };
    assert_eq!(ended.code(), Some(attacker::DONE), "the attacker: {ended}");
    if matches!(attack, Attack::File) {
        recognizer.ring = None; // it starts again: only who opens a ring sees that its constants were overwritten
    }
    let mut since = HashSet::new();
    crate::common::wait_until("a good event after the attack", || {
        since.extend(recognizer.publish(&event(&pictures[0], b"")));
        sink.take().iter().any(|request| since.contains(&request.sequence()))
    });
    good_events_arrive(&sink, recognizer.ring().unwrap(), &mut random);
    assert!(!daemon.has_ended());
    let stopped = daemon.terminate();
    println!(
        "{published} events published meanwhile, {} read, corrupt {} times, malformed {}",
        stopped.read, stopped.corrupt, stopped.malformed
    );
    stopped
}

fn good_events_arrive(sink: &Sink, recognizer: &mut RingProducer, random: &mut fastrand::Rng) {
    let name = |number: u64| format!("good {number}");
    let pictures: Vec<_> = (0..GOOD).map(|number| picture(random.usize(10..20_000), number)).collect();
    for (number, picture) in pictures.iter().enumerate() {
        let name = name(number as u64);
        crate::common::publish(recognizer, &NewEvent { identity_id: name.as_bytes(), ..event(picture, b"") });
    }
    let mut came = HashMap::new();
    crate::common::wait_until("every good event", || {
        for request in sink.take() {
            let body = request.json();
            came.insert(body["identity_id"].as_str().unwrap().to_owned(), body["reg_pic"].as_str().unwrap().to_owned());
        }
        (0..GOOD).all(|number| came.contains_key(&name(number)))
    });
    for (number, picture) in pictures.iter().enumerate() {
        assert_eq!(came[&name(number as u64)], STANDARD.encode(picture), "event {number}");
    }
}

#[test]
fn a_process_that_rewrites_the_ring_as_fast_as_it_can_costs_no_event_that_comes_after_it() {
    let stopped = attack_and_recover(Attack::Memory, crate::common::count("SOPHON_MUTATIONS", 2_000_000));
    assert!(stopped.corrupt > 0);
}

#[test]
fn a_process_that_truncates_replaces_and_removes_the_file_costs_no_event_that_comes_after_it() {
    attack_and_recover(Attack::File, crate::common::count("SOPHON_MUTATIONS", 2_000_000).isqrt() / 20);
}

#[test]
fn pictures_that_change_while_they_are_sent_are_still_base64_of_the_announced_length() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 8 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_attached();
    let file = OpenOptions::new().read(true).write(true).open(home.ring()).unwrap();
    let hostile = Mapping::of_file(&file, 8 << 20, Access::Producer).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let attacker = thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(3);
        while !stop.load(Ordering::Relaxed) {
            // 1000 bytes into the record and on: picture, nothing else
            hostile.set_word(1000 / 8 * 8 + random.usize(0..400_000) * 8, random.u64(..));
        }
    });
    let pic = picture(3_999_999, 1);
    for number in 1..=10 {
        crate::common::publish(&mut recognizer, &event(&pic, b""));
        crate::common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == number);
        if number == 1 {
            // the next records begin elsewhere: go back to the place that is being rewritten
            assert_eq!(RingState::of(&home.ring()).unwrap().used, 0);
        }
    }
    done.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    for request in sink.received() {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(&request.body) else { panic!("no JSON") };
        let text = json["reg_pic"].as_str().unwrap();
        assert_eq!(text.len(), 3_999_999usize.div_ceil(3) * 4);
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    }
    daemon.terminate();
}

#[test]
fn truncation_again_and_again_is_survived() {
    let home = Home::new();
    let sink = Sink::start();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    for round in 0..10 {
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        let before = sink.received().len();
        crate::common::publish(&mut recognizer, &event(&picture(1000, round), b""));
        sink.wait(before + 1);
        let size = [0, 100, 4096, 8192][round as usize % 4];
        OpenOptions::new().write(true).open(home.ring()).unwrap().set_len(size).unwrap();
        drop(recognizer);
    }
    let stopped = daemon.terminate();
    assert_eq!(stopped.acknowledged, 10);
}
