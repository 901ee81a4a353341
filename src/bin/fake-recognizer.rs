//! A stand-in for the recognizer: publishes events into a ring, at a rate, with real pictures or made-up ones.
//!
//! Prints one JSON line an event: its id, score, and SHA-256 and length of each picture (null where there is none), so that
//! whoever receives the events can be compared with what was sent. Where the ring is full it waits for room, so that N events
//! are published in the end; a real recognizer would drop them.

#![deny(clippy::print_stdout, clippy::print_stderr)] // see `output`

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use sha2::{Digest, Sha256};
use sophon_uplink::output::{complain, not_printed, print};
use sophon_uplink::ring::producer::{NewEvent, Producer};
use sophon_uplink::signals::ignore_strays;

const PROGRAM: &str = "fake-recognizer";

const USAGE: &str = "\
fake-recognizer publishes events into a ring, as a recognizer does.

usage: fake-recognizer --ring PATH [--pictures DIR] [--rate N] [--count N] [--seed N] [--capacity BYTES]

  --ring PATH       the ring's file; made where there is none
  --pictures DIR    take the .jpg files in DIR in turn; without it, pictures of 4 to 64 KB are made up
  --rate N          events a second; without it as fast as the ring has room
  --count N         stop after N events; without it, go on until stopped
  --seed N          for everything random (default 1)
  --capacity BYTES  of a ring that is made: a power of two (default 16777216)";

struct Options {
    ring: PathBuf,
    pictures: Option<PathBuf>,
    rate: Option<f64>,
    count: u64,
    seed: u64,
    capacity: u64,
}

fn main() -> ExitCode {
    ignore_strays();
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return print(PROGRAM, USAGE),
        Err(error) => {
            complain(PROGRAM, format_args!("{error}; see {PROGRAM} --help"));
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            complain(PROGRAM, error);
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let mut ring = None;
    let mut options =
        Options { ring: PathBuf::new(), pictures: None, rate: None, count: u64::MAX, seed: 1, capacity: 16 << 20 };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("ring") => ring = Some(PathBuf::from(parser.value()?)),
            Long("pictures") => options.pictures = Some(parser.value()?.into()),
            Long("rate") => options.rate = Some(parser.value()?.parse_with(positive)?),
            Long("count") => options.count = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("capacity") => options.capacity = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    options.ring = ring.ok_or("--ring is missing")?;
    Ok(Some(options))
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "a positive number is wanted".into())
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let pictures = options.pictures.as_deref().map(load_pictures).transpose()?;
    let mut producer = Producer::open(&options.ring, options.capacity)?;
    let mut out = io::stdout().lock();
    let began = Instant::now();
    for index in 0..options.count {
        if let Some(rate) = options.rate {
            sleep((began + Duration::from_secs_f64(index as f64 / rate)).saturating_duration_since(Instant::now()));
        }
        let [reg_pic, spot_pic] = match &pictures {
            Some(pictures) => [0, 1].map(|other| pictures[(2 * index as usize + other) % pictures.len()].clone()),
            None => [made_up(&mut random), made_up(&mut random)],
        };
        let line = publish(&mut producer, &mut random, index, &reg_pic, &spot_pic)?;
        // Nobody can be told of what is published from here on.
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            return Ok(not_printed(PROGRAM, &error));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load_pictures(folder: &Path) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg" || extension == "jpeg"));
    paths.sort();
    if paths.is_empty() {
        return Err(format!("there is no .jpg file in {}", folder.display()).into());
    }
    Ok(paths.iter().map(std::fs::read).collect::<io::Result<_>>()?)
}

/// Random bytes between the markers of a JPEG.
fn made_up(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut picture = vec![0; random.usize(4_000..64_000)];
    random.fill(&mut picture);
    picture[..4].copy_from_slice(&[0xFF, 0xD8, 0xFF, 0xE0]);
    picture.extend([0xFF, 0xD9]);
    picture
}

/// Publishes an event; the line to print about it.
fn publish(
    producer: &mut Producer<sophon_uplink::ring::file::RingFile>,
    random: &mut fastrand::Rng,
    index: u64,
    reg_pic: &[u8],
    spot_pic: &[u8],
) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    const PEOPLE: [(&str, &str); 6] = [
        ("张伟", "研发部"),
        ("Ada Lovelace", "Engineering"),
        ("王芳", "市场部"),
        ("Grace Hopper", "Navy"),
        ("José Ñandú", "Visitantes"),
        ("Łukasz <b>Żak</b>", "R&D \"west\""),
    ];
    let (name, group) = PEOPLE[index as usize % PEOPLE.len()];
    let identity_id = format!("{:06}", 100_000 + index % 900_000);
    let ext_json = json!({ "fake": true, "index": index }).to_string();
    let timestamp_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
    let event = NewEvent {
        identity_id: identity_id.as_bytes(),
        identity_name: name.as_bytes(),
        group_name: group.as_bytes(),
        group_id: b"7",
        device_ip: b"192.168.1.64",
        ext_json: ext_json.as_bytes(),
        timestamp_ms,
        score: random.f32().mul_add(0.4, 0.6),
        person_type: random.i32(1..=5),
        device_type: random.i32(0..=4),
        reg_pic,
        spot_pic,
    };
    while !producer.has_room(&event) {
        sleep(Duration::from_millis(2));
    }
    let sequence = producer.publish(&event)?;
    let picture = |bytes: &[u8]| {
        (!bytes.is_empty()).then(|| json!({ "sha256": hex(&Sha256::digest(bytes)), "bytes": bytes.len() }))
    };
    Ok(json!({
        "id": format!("{}-{sequence}", producer.id()),
        "score": event.score,
        "reg_pic": picture(reg_pic),
        "spot_pic": picture(spot_pic),
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
