//! A substitute for the recognizer: publishes events into a ring at a given rate, with real or generated pictures.
//!
//! Prints one JSON line per event: its id, its score, and the SHA-256 and length of each picture (null if there is none), so that
//! received events can be compared with published ones. If the ring is full, it waits for room, so that N events are published in
//! the end. A real recognizer would drop them.

#![deny(clippy::print_stdout, clippy::print_stderr)] // see `output`

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use sha2::{Digest, Sha256};
use sophon_uplink::event::{Place, is_name};
use sophon_uplink::output::{complain, not_printed, print};
use sophon_uplink::ring::layout::MAX_PICTURES;
use sophon_uplink::ring::producer::{NewEvent, NewPicture, Producer};
use sophon_uplink::signals::ignore_strays;

const PROGRAM: &str = "fake-recognizer";

const USAGE: &str = "\
fake-recognizer publishes events into a ring, as a recognizer does.

usage: fake-recognizer --ring PATH... [--pictures DIR [--marked]] [--rate N] [--count N] [--seed N]
                       [--capacity BYTES] [--named PLACE:NAME]... [--top-json OBJECT]

  --ring PATH       the ring's file; made where there is none. Given several times: the events go to the rings in turn
  --pictures DIR    take the .jpg files in DIR in turn; without it, pictures of 4 to 64 KB are made up
  --marked          each picture of DIR gets a JPEG comment with the event's number, so that no two are the same
  --rate N          events a second, of all rings together; without it as fast as the ring has room
  --count N         stop after N events; without it, go on until stopped
  --seed N          for everything random (default 1)
  --capacity BYTES  of a ring that is made: a power of two (default 16777216)
  --named PLACE:NAME  a further picture in each event; PLACE is top or ext_data; up to 16 times
  --top-json OBJECT   further members at the top level of each event";

struct Options {
    rings: Vec<PathBuf>,
    pictures: Option<PathBuf>,
    is_marked: bool,
    rate: Option<f64>,
    count: u64,
    seed: u64,
    capacity: u64,
    named: Vec<(Place, String)>,
    top_json: String,
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
    let mut options = Options {
        rings: Vec::new(),
        pictures: None,
        is_marked: false,
        rate: None,
        count: u64::MAX,
        seed: 1,
        capacity: 16 << 20,
        named: Vec::new(),
        top_json: String::new(),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("ring") => options.rings.push(parser.value()?.into()),
            Long("pictures") => options.pictures = Some(parser.value()?.into()),
            Long("marked") => options.is_marked = true,
            Long("rate") => options.rate = Some(parser.value()?.parse_with(positive)?),
            Long("count") => options.count = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("capacity") => options.capacity = parser.value()?.parse()?,
            Long("named") => options.named.push(parser.value()?.parse_with(named)?),
            Long("top-json") => options.top_json = parser.value()?.parse_with(object)?,
            other => return Err(other.unexpected()),
        }
    }
    let is_twice = (1..options.named.len()).any(|index| options.named[..index].contains(&options.named[index]));
    if is_twice || options.named.len() > MAX_PICTURES {
        return Err("--named: at most 16, each once".into());
    }
    if options.rings.is_empty() {
        return Err("--ring is missing".into());
    }
    Ok(Some(options))
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "a positive number is wanted".into())
}

fn named(text: &str) -> Result<(Place, String), String> {
    let (place, name) = text.split_once(':').unwrap_or_default();
    let place =
        Place::ALL.into_iter().find(|known| known.name() == place).filter(|place| is_name(name.as_bytes(), *place));
    let place = place.ok_or("top:NAME or ext_data:NAME is wanted, of letters, digits, _ - . and no documented key")?;
    Ok((place, name.to_owned()))
}

fn object(text: &str) -> Result<String, String> {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let pictures = options.pictures.as_deref().map(load_pictures).transpose()?;
    let open = |ring: &PathBuf| Producer::open(ring, options.capacity);
    let mut producers = options.rings.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let turns = producers.len() as u64;
    let mut out = io::stdout().lock();
    let began = Instant::now();
    for index in 0..options.count {
        if let Some(rate) = options.rate {
            sleep((began + Duration::from_secs_f64(index as f64 / rate)).saturating_duration_since(Instant::now()));
        }
        let [reg_pic, spot_pic] = match &pictures {
            Some(pictures) => [0, 1].map(|other| {
                let picture = &pictures[(2 * index as usize + other) % pictures.len()];
                if options.is_marked {
                    marked(picture, &format!("event {index}, picture {other}"))
                } else {
                    picture.clone()
                }
            }),
            None => [made_up(&mut random), made_up(&mut random)],
        };
        let named: Vec<_> = options.named.iter().map(|_| made_up(&mut random)).collect();
        let further: Vec<_> = options
            .named
            .iter()
            .zip(&named)
            .map(|((place, name), jpeg)| NewPicture { place: place.code(), name: name.as_bytes(), jpeg })
            .collect();
        let further = NewEvent {
            top_json: options.top_json.as_bytes(),
            pictures: &further,
            reg_pic: &reg_pic,
            spot_pic: &spot_pic,
            ..NewEvent::default()
        };
        let line = publish(&mut producers[(index % turns) as usize], &mut random, index, further)?;
        // If this fails, nobody can learn what is published from here on.
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

/// The JPEG with a comment at its beginning.
fn marked(jpeg: &[u8], comment: &str) -> Vec<u8> {
    const START_OF_IMAGE: usize = 2;
    let (start, rest) = jpeg.split_at(START_OF_IMAGE.min(jpeg.len()));
    let length = comment.len() as u16 + 2; // of the segment without its marker
    [start, &[0xFF, 0xFE], &length.to_be_bytes(), comment.as_bytes(), rest].concat()
}

/// Generates random bytes between the markers of a JPEG.
fn made_up(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut picture = vec![0; random.usize(4_000..64_000)];
    random.fill(&mut picture);
    picture[..4].copy_from_slice(&[0xFF, 0xD8, 0xFF, 0xE0]);
    picture.extend([0xFF, 0xD9]);
    picture
}

/// Publishes an event with these pictures and members. Returns the line to print.
fn publish(
    producer: &mut Producer<sophon_uplink::ring::file::RingFile>,
    random: &mut fastrand::Rng,
    index: u64,
    further: NewEvent<'_>,
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
        ..further
    };
    while !producer.has_room(&event) {
        sleep(Duration::from_millis(2));
    }
    let sequence = producer.publish(&event)?;
    let picture = |bytes: &[u8]| {
        (!bytes.is_empty()).then(|| json!({ "sha256": hex(&Sha256::digest(bytes)), "bytes": bytes.len() }))
    };
    let mut line = json!({
        "id": format!("{}-{sequence}", producer.id()),
        "score": event.score,
        "reg_pic": picture(event.reg_pic),
        "spot_pic": picture(event.spot_pic),
    });
    if !event.pictures.is_empty() {
        let named = event.pictures.iter();
        line["named"] = named.map(|named| (String::from_utf8_lossy(named.name), picture(named.jpeg))).collect();
    }
    Ok(line)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
