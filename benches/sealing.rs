//! The cost of sealing: `cargo bench --bench sealing`.
//!
//! Measures this process's CPU time for an event with 200 KB of pictures in a spool on tmpfs: storing it, opening it with every
//! check, and encoding its pictures as for a request's body. Unsealed and sealed alternate in one run; the medians are printed.
#![allow(missing_docs)]

use std::hint::black_box;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::{GeneralPurposeConfig, Simd};
use sophon_uplink::config;
use sophon_uplink::event::Event;
use sophon_uplink::picture::PictureSource;
use sophon_uplink::ring::consumer::{self, Frame};
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::mapping::Mapping;
use sophon_uplink::ring::producer::{NewEvent, Producer};
use sophon_uplink::spool::{Address, Destination, RealDisk, Spool, SpooledEvent};

const ROUNDS: usize = 15;
const EVENTS: usize = 200;
/// Sizes of the two pictures in bytes: 200 KB together.
const PICTURES: [usize; 2] = [60_000, 140_000];
/// How much the uplink's encoder takes at once, in bytes.
const PIECE: usize = 48 * 1024;
const STEPS: [&str; 3] = ["stored", "opened", "encoded"];

fn main() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, std::array::from_fn::<u8, 32, _>(|index| index as u8)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let memory = Arc::new(Mapping::on_heap(1 << 20));
    let pictures = PICTURES.map(|length| std::iter::repeat_with(|| fastrand::u8(..)).take(length).collect::<Vec<u8>>());
    let event = NewEvent { device_type: -1, reg_pic: &pictures[0], spot_pic: &pictures[1], ..NewEvent::default() };
    Producer::attach(Arc::clone(&memory)).publish(&event).unwrap();
    let (mut reader, _, _) = consumer::attach(Arc::clone(&memory));
    let frame = reader.read().unwrap().unwrap();
    let mut spools =
        [("clear", None), ("sealed", Some(key.as_path()))].map(|(name, key)| open(folder.path(), name, key));
    let mut figures = [[(); 3]; 2].map(|steps| steps.map(|()| Vec::new()));
    for _ in 0..ROUNDS {
        for (spool, figures) in spools.iter_mut().zip(&mut figures) {
            let round = round(spool, &memory, &frame);
            figures.iter_mut().zip(round).for_each(|(figures, figure)| figures.push(figure));
        }
    }
    let medians = figures.map(|steps| steps.map(median));
    for (step, (clear, sealed)) in STEPS.iter().zip(medians[0].iter().zip(medians[1])) {
        println!("CPU an event of 200 KB, {step}: in clear {clear:.0} µs, sealed {sealed:.0} µs");
    }
    let [clear, sealed] = medians.map(|steps| steps.iter().sum::<f64>());
    println!(
        "CPU an event of 200 KB, together: in clear {clear:.0} µs, sealed {sealed:.0} µs, ratio {:.2}",
        sealed / clear
    );
}

fn destination() -> Address {
    Address::from("http://a/")
}

fn open(folder: &Path, name: &str, key_file: Option<&Path>) -> Spool<RealDisk> {
    let key_file = key_file.map(Path::to_owned);
    let (dir, group) = (folder.join(name), std::time::Duration::ZERO);
    let config = config::Spool { dir, max_bytes: 1 << 30, min_free_bytes: 0, group, key_file };
    Spool::open(RealDisk::default(), &config, &[destination()]).0
}

/// Microseconds per event for each step.
fn round(spool: &mut Spool<RealDisk>, memory: &Mapping, frame: &Frame) -> [f64; 3] {
    let to: Destination = destination().destination;
    let began = cpu_nanoseconds();
    let stored: Vec<_> =
        (0..EVENTS).map(|_| spool.store(RingId([1; 16]), memory, frame, &[to]).unwrap().counter).collect();
    let was_stored = cpu_nanoseconds();
    let opened: Vec<_> = stored.iter().map(|counter| spool.read(to, *counter).unwrap()).collect();
    let was_opened = cpu_nanoseconds();
    opened.iter().for_each(encode);
    let was_encoded = cpu_nanoseconds();
    drop(opened);
    stored.iter().for_each(|counter| assert!(spool.delivered(to, *counter).unwrap()));
    [was_stored - began, was_opened - was_stored, was_encoded - was_opened]
        .map(|nanoseconds| nanoseconds as f64 / EVENTS as f64 / 1000.0)
}

fn encode<M: sophon_uplink::spool::disk::Mapped>(spooled: &SpooledEvent<M>) {
    let engine = Simd::standard(GeneralPurposeConfig::new());
    let mut buffer = vec![0; 64 * 1024];
    let event = Event::from_record(spooled, &spooled.frame, spooled.id.ring).unwrap();
    for picture in [event.reg_pic, event.spot_pic] {
        for start in picture.clone().step_by(PIECE) {
            let piece = start..picture.end.min(start + PIECE);
            spooled.lend(piece, &mut |bytes| assert!(engine.encode_slice(bytes, &mut buffer).is_ok())).unwrap();
            black_box(&buffer);
        }
    }
}

/// CPU time of this process.
fn cpu_nanoseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
