//! The promise: whatever a process with access to the ring writes into it, the uplink neither crashes nor hangs nor reads outside
//! the mapping, and goes on with the next good event. `scripts/test asan` runs this under AddressSanitizer.

mod common;

use std::fs::OpenOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::daemon::Home;
use common::{Daemon, Sink, event, picture};
use serde_json::json;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::layout::Word;
use sophon_uplink::ring::mapping::{Access, Mapping};
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::ring::{Memory, Words};

const RING: u64 = 1 << 18;

/// One write somewhere: header words most of all, records' and sections' first words, anything.
fn mutate(ring: &Mapping, random: &mut fastrand::Rng) {
    match random.u8(0..10) {
        0 => {
            let word = Word::ALL[random.usize(..Word::ALL.len())];
            let near =
                ring.load(Word::Head, Ordering::Relaxed).wrapping_add(random.u64(0..RING)).wrapping_sub(RING / 2);
            let value = [near, near & !7, random.u64(..), 0][random.usize(0..4)];
            ring.store(word, value, Ordering::Release);
        }
        1 => ring.set_header_word(random.usize(0..512) * 8, random.u64(..)),
        2..=5 => {
            // plausible lengths and kinds
            let length = if random.bool() { random.u32(0..RING as u32 * 2) & !7 } else { random.u32(..) };
            let word = u64::from(length) | u64::from(random.u32(0..10)) << 32;
            let word = if random.bool() { word } else { word.rotate_left(32) };
            ring.set_word(random.usize(0..RING as usize / 8) * 8, word);
        }
        _ => {
            let at = random.usize(0..RING as usize / 8) * 8;
            ring.set_word(at, ring.word(at) ^ 1 << random.u8(0..64));
        }
    }
}

#[test]
fn random_writes_over_header_and_records_never_stop_the_uplink() {
    let mutations = common::count("SOPHON_MUTATIONS", 300_000);
    let mut random = fastrand::Rng::with_seed(common::seed());
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_attached();
    let file = OpenOptions::new().read(true).write(true).open(home.ring()).unwrap();
    let hostile = Mapping::of_file(&file, RING, Access::Producer).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let mut attacker_random = random.fork();
    let attacker = thread::spawn(move || {
        for number in 0..mutations {
            if number > 0 && number % 10_000_000 == 0 {
                println!("{number} of {mutations} mutations");
            }
            mutate(&hostile, &mut attacker_random);
            if number % 64 == 0 {
                thread::sleep(Duration::from_micros(attacker_random.u64(0..200))); // let it be noticed at many moments
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let pictures: Vec<_> = (0..16).map(|seed| picture(random.usize(10..30_000), seed)).collect();
    while !done.load(Ordering::Relaxed) {
        let _ = recognizer.publish(&event(random.choice(&pictures).unwrap(), random.choice(&pictures).unwrap()));
        if sink.received().len() > 2000 {
            sink.take();
        }
    }
    attacker.join().unwrap();
    // The storm is over: what is published now arrives, as it was published.
    let last = picture(20_000, 99);
    common::wait_until("a good event after the storm", || {
        let _ = recognizer.publish(&event(&last, b""));
        let requests = sink.received();
        let text = STANDARD.encode(&last);
        requests.iter().any(|request| String::from_utf8_lossy(&request.body).contains(&text))
    });
    common::wait_until("the ring empty", || RingState::of(&home.ring()).map_or(true, |state| state.used == 0));
    let stopped = daemon.terminate();
    println!("{mutations} mutations: corrupt {} times, malformed {}", stopped.corrupt, stopped.malformed);
    assert!(stopped.corrupt > 0);
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
        common::publish(&mut recognizer, &event(&pic, b""));
        common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == number);
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
        common::publish(&mut recognizer, &event(&picture(1000, round), b""));
        sink.wait(before + 1);
        let size = [0, 100, 4096, 8192][round as usize % 4];
        OpenOptions::new().write(true).open(home.ring()).unwrap().set_len(size).unwrap();
        drop(recognizer);
    }
    let stopped = daemon.terminate();
    assert_eq!(stopped.acknowledged, 10);
}
