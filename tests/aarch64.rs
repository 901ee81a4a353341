//! The promise: the box's own binary, static aarch64 under qemu-user, takes events from a native C producer through one shared
//! file (futex included) and delivers them byte for byte, whatever the bytes are.
//!
//! Ignored without the binaries: `scripts/test aarch64` builds them and sets `SOPHON_AARCH64_DIR`.

mod common;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::daemon::Home;
use common::{Daemon, Sink, event, publish};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::{NewEvent, Producer};

fn aarch64(program: &str) -> PathBuf {
    let folder =
        std::env::var("SOPHON_AARCH64_DIR").expect("SOPHON_AARCH64_DIR names the folder of the aarch64 binaries");
    PathBuf::from(folder).join(program)
}

fn emulated(program: &str) -> Command {
    let mut command = Command::new("qemu-aarch64");
    command.arg(aarch64(program));
    command
}

#[test]
#[ignore = "needs the aarch64 binaries: scripts/test aarch64"]
fn the_binary_is_static_and_has_no_interpreter() {
    for program in ["sophon-uplink", "event-receive-server", "fake-recognizer"] {
        let output = Command::new("file").arg("-b").arg(aarch64(program)).output().unwrap();
        let kind = String::from_utf8(output.stdout).unwrap();
        assert!(kind.contains("ARM aarch64") && kind.contains("static") && !kind.contains("interpreter"), "{kind}");
    }
}

#[test]
#[ignore = "needs the aarch64 binaries: scripts/test aarch64"]
fn events_of_a_native_c_producer_pass_the_aarch64_uplink_byte_for_byte() {
    let home = Home::new();
    let producer = home.folder.path().join("producer");
    let compiled = Command::new("gcc")
        .args(["-std=c99", "-O2", "-o"])
        .arg(&producer)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c/producer.c"))
        .status();
    assert!(compiled.unwrap().success());
    let sink = Sink::start();
    home.configure(&[sink.url()], json!({}));
    let daemon = Daemon::spawn(emulated("sophon-uplink").arg("run").arg("--config").arg(home.config()));
    daemon.wait_log("waiting: there is no ring");
    let commands = format!("open {} 1048576\nmany 60 100001\nclose\n", home.ring().display());
    std::fs::write(home.folder.path().join("commands"), commands).unwrap();
    let input = std::fs::File::open(home.folder.path().join("commands")).unwrap();
    let began = Instant::now();
    let output = Command::new(&producer).stdin(input).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok 60 60 "), "{output:?}");
    let requests = sink.wait(60);
    println!("60 events of 200 KB through the emulated uplink: {:?}", began.elapsed());
    common::wait_until("the release", || RingState::of(&home.ring()).unwrap().used == 0);
    for request in &requests {
        let (event, number) = (request.json(), request.sequence());
        for (text, more) in [(&event["reg_pic"], 0), (&event["ext_data"]["spot_pic"], 1)] {
            let bytes: Vec<u8> =
                (0..100_001).map(|j: u64| ((131 * number + 7 * j + j / 256 + more) % 256) as u8).collect();
            assert!(*text == STANDARD.encode(&bytes), "event {number}");
        }
    }
    assert_eq!(daemon.terminate().acknowledged, 60);
}

/// Its encoder is not the one that the other tests see on another processor.
#[test]
#[ignore = "needs the aarch64 binaries: scripts/test aarch64"]
fn pictures_of_every_length_and_with_every_three_bytes_are_what_the_base64_crate_makes_of_them() {
    let home = Home::new();
    let sink = Sink::start();
    home.configure(&[sink.url()], json!({}));
    let mut recognizer = Producer::open(&home.ring(), 16 << 20).unwrap();
    let daemon = Daemon::spawn(emulated("sophon-uplink").arg("run").arg("--config").arg(home.config()));
    // Lengths around a block, a buffer and a padding, at changing places in the body; three bytes are four characters whatever
    // is beside them, so 2^24 triples are every input there is.
    let triples = |first: u8| (0..=u16::MAX).flat_map(move |rest| [first, (rest >> 8) as u8, rest as u8]);
    let short = (0..=300).map(|length| [picture_of(length, 1), picture_of(300 - length, 2)]);
    let long = (0..=100).map(|length| [picture_of(49_100 + length, 3), picture_of(98_250 + length, 4)]);
    let every = (0..8).map(|part| [(32 * part..=32 * part + 31).flat_map(triples).collect(), Vec::new()]);
    let mut count = 0;
    for (index, [reg, spot]) in short.chain(long).chain(every).enumerate() {
        let name = "n".repeat(index % 17);
        publish(&mut recognizer, &NewEvent { identity_name: name.as_bytes(), ..event(&reg, &spot) });
        count += 1;
        sink.wait(1);
        let sent = sink.take().pop().unwrap().json();
        assert!(sent["reg_pic"] == STANDARD.encode(&reg), "{} bytes, event {index}", reg.len());
        let spotted = sent["ext_data"]["spot_pic"].as_str().unwrap_or_default();
        assert!(spotted == STANDARD.encode(&spot), "{} bytes, event {index}", spot.len());
    }
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, count);
}

fn picture_of(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// All three of the box's programs, and the real receiver's checks.
#[test]
#[ignore = "needs the aarch64 binaries: scripts/test aarch64"]
fn recognizer_uplink_and_receiver_of_the_box_work_together() {
    let home = Home::new();
    let store = home.folder.path().join("store");
    let mut receiver = emulated("event-receive-server")
        .args(["--listen", "127.0.0.1:0", "--store"])
        .arg(&store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(receiver.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    home.configure(&[format!("{address}/RealTimeEvent")], json!({ "content-type": "form-data" }));
    let daemon = Daemon::spawn(emulated("sophon-uplink").arg("run").arg("--config").arg(home.config()));
    let published = emulated("fake-recognizer")
        .args(["--count", "12", "--pictures", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"), "--ring"])
        .arg(home.ring())
        .output()
        .unwrap();
    assert!(published.status.success(), "{published:?}");
    common::wait_until("the release", || RingState::of(&home.ring()).unwrap().used == 0);
    assert_eq!(daemon.terminate().acknowledged, 12);
    receiver.kill().unwrap();
    receiver.wait().unwrap();

    let lines = std::fs::read_to_string(store.join("events.jsonl")).unwrap();
    let stored: HashMap<String, Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|event| (event["id"].as_str().unwrap().to_owned(), event))
        .collect();
    let mut count = 0;
    for line in String::from_utf8(published.stdout).unwrap().lines() {
        let sent: Value = serde_json::from_str(line).unwrap();
        let got = &stored[sent["id"].as_str().unwrap()];
        for (sent, got) in [(&sent["reg_pic"], &got["reg_pic"]), (&sent["spot_pic"], &got["ext_data"]["spot_pic"])] {
            assert_eq!(sent["sha256"], got["sha256"]);
            let file = std::fs::read(store.join(got["file"].as_str().unwrap())).unwrap();
            let hash: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, sent["sha256"].as_str().unwrap());
        }
        count += 1;
    }
    assert_eq!((count, stored.len()), (12, 12));
}
