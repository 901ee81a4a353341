//! The promise: kill -9 of the uplink at any moment loses nothing, and every event keeps its id.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::daemon::Home;
use common::{Daemon, Sink, event, picture, publish};
use serde_json::json;
use sha2::{Digest, Sha256};
use sophon_uplink::ring::producer::Producer;

/// `SOPHON_KILLS` raises the count for soak campaigns.
#[test]
fn kill_9_at_random_moments_loses_nothing_and_keeps_every_id() {
    let kills = common::count("SOPHON_KILLS", 100);
    let mut random = fastrand::Rng::with_seed(common::seed());
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let ring_id = recognizer.id();
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    // Publishes without a pause, at times into a full ring: what is refused there was never published.
    let publishing = thread::spawn(move || {
        let mut published = HashMap::new();
        let pictures: Vec<_> = (0..8).map(|seed| picture(500 << seed, seed)).collect();
        while !stop.load(Ordering::Relaxed) {
            let number = published.len();
            let (reg, spot) = (&pictures[number % 8], &pictures[number / 8 % 8]);
            if let Ok(sequence) = recognizer.publish(&event(reg, spot)) {
                published.insert(sequence, [reg, spot].map(Sha256::digest));
            } else {
                thread::sleep(Duration::from_micros(200));
            }
        }
        (recognizer, published)
    });
    let mut daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let mut got: HashMap<u64, u64> = HashMap::new();
    let mut bodies: HashMap<u64, [_; 2]> = HashMap::new();
    let mut slowest = Duration::ZERO;
    for kill in 0..kills {
        if random.bool() {
            sink.wait(random.usize(1..20));
        }
        thread::sleep(Duration::from_micros(random.u64(0..20_000))); // the moment is the point
        drop(daemon.kill());
        keep(&sink, &mut got, &mut bodies);
        let began = Instant::now();
        daemon = Daemon::restart(&home);
        sink.wait(1);
        slowest = slowest.max(began.elapsed());
        if kill % 20 == 19 {
            println!("{} of {kills} kills, {} events, slowest restart to delivery {slowest:?}", kill + 1, got.len());
        }
    }
    done.store(true, Ordering::Relaxed);
    let (mut recognizer, mut published) = publishing.join().unwrap();
    let last = picture(100, 9);
    published.insert(publish(&mut recognizer, &event(&last, b"")), [Sha256::digest(&last), Sha256::digest(b"")]);
    home.wait_done();
    keep(&sink, &mut got, &mut bodies);
    daemon.terminate();

    let lost = published.keys().filter(|sequence| !got.contains_key(sequence)).count();
    let duplicates: u64 = got.values().map(|times| times - 1).sum();
    println!(
        "{kills} kills, {} events published, {lost} lost, {duplicates} sent twice with the same id, ring {ring_id}",
        published.len()
    );
    println!("slowest restart to first delivery: {slowest:?} (budget 1 s)");
    assert_eq!(lost, 0);
    assert_eq!(got.len(), published.len(), "nothing came that was not published");
    assert!(bodies.iter().all(|(sequence, pictures)| published[sequence] == *pictures), "every id kept its pictures");
    assert!(slowest < Duration::from_secs(1));
}

type Hash = sha2::digest::Output<Sha256>;

/// Takes what the server has, so that memory does not grow with the campaign.
fn keep(sink: &Sink, got: &mut HashMap<u64, u64>, bodies: &mut HashMap<u64, [Hash; 2]>) {
    use base64::Engine as _;
    for request in sink.take() {
        let json = request.json();
        let hash = |text: &serde_json::Value| {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap_or_default());
            Sha256::digest(decoded.unwrap())
        };
        let pictures = [hash(&json["reg_pic"]), hash(&json["ext_data"]["spot_pic"])];
        *got.entry(request.sequence()).or_default() += 1;
        let known = bodies.entry(request.sequence()).or_insert(pictures);
        assert_eq!(*known, pictures, "the same id with other pictures");
    }
}
