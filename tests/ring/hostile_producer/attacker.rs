//! A hostile process: a test program started again, which gets nothing but the path of a ring and does its worst with it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use sophon_uplink::ring::layout::{HEADER_SIZE, Word};
use sophon_uplink::ring::mapping::{Access, Mapping};
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::ring::{Memory as _, Words as _};

/// The exit code after an attack: a process that did not attack has another one.
pub const DONE: i32 = 3;
/// Between two lines that say how far it is.
const PROGRESS: u64 = 10_000_000;
/// The most writes in one go.
const BURST: u64 = 8192;

/// What the process does.
#[derive(Clone, Copy, Debug)]
pub enum Attack {
    /// Writes into the ring's memory, as fast as it can.
    Memory,
    /// Truncates, extends, replaces and removes the ring's file.
    File,
}

/// A running attacker.
pub struct Attacker(Child);

impl Attacker {
    /// `program` runs a test that calls [`be_one_if_told`].
    pub fn start(mut program: Command, attack: Attack, ring: &Path, capacity: u64, count: u64, seed: u64) -> Attacker {
        program.env("SOPHON_ATTACK", format!("{attack:?} {capacity} {count} {seed} {}", ring.display()));
        Attacker(program.spawn().unwrap())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Attacks, in the process that was started for it; whether this is that process.
pub fn be_one_if_told() -> bool {
    let Ok(order) = std::env::var("SOPHON_ATTACK") else { return false };
    let mut words = order.splitn(5, ' ');
    let attack = words.next().unwrap();
    let [capacity, count, seed] = [(); 3].map(|()| u64::from_str(words.next().unwrap()).unwrap());
    let path = PathBuf::from(words.next().unwrap());
    let random = &mut fastrand::Rng::with_seed(seed);
    match attack {
        "Memory" => rewrite(&path, capacity, count, random),
        _ => (0..count).for_each(|_| break_file(&path, capacity, random)),
    }
    true
}

fn rewrite(path: &Path, capacity: u64, count: u64, random: &mut fastrand::Rng) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let ring = Mapping::of_file(&file, capacity, Access::Producer).unwrap();
    let mut pause_at = 0;
    for number in 1..=count {
        write_somewhere(&ring, random);
        if number >= pause_at {
            // Short bursts and long ones: it is to be noticed at many moments, and events must get a chance to flow.
            pause_at = number + (BURST >> random.u8(0..13));
            thread::sleep(Duration::from_micros(random.u64(0..100)));
        }
        if number % PROGRESS == 0 || number == count {
            println!("{number} of {count} mutations");
        }
    }
}

/// One write: header words most of all, records' and sections' first words, anything.
fn write_somewhere(ring: &Mapping, random: &mut fastrand::Rng) {
    let capacity = ring.capacity();
    let somewhere = |random: &mut fastrand::Rng| random.usize(0..capacity as usize / 8) * 8;
    match random.u8(0..10) {
        0 => {
            let word = Word::ALL[random.usize(..Word::ALL.len())];
            let head = ring.load(Word::Head, Ordering::Relaxed);
            let near = head.wrapping_add(random.u64(0..capacity)).wrapping_sub(capacity / 2);
            let value = [near, near & !7, random.u64(..), 0][random.usize(0..4)];
            ring.store(word, value, Ordering::Release);
        }
        1 => ring.set_header_word(random.usize(0..HEADER_SIZE / 8) * 8, random.u64(..)),
        2..=5 => {
            // plausible lengths and kinds
            let length = if random.bool() { random.u32(0..capacity as u32 * 2) & !7 } else { random.u32(..) };
            let word = u64::from(length) | u64::from(random.u32(0..10)) << 32;
            let word = if random.bool() { word } else { word.rotate_left(32) };
            ring.set_word(somewhere(random), word);
        }
        _ => {
            let at = somewhere(random);
            ring.set_word(at, ring.word(at) ^ 1 << random.u8(0..64));
        }
    }
}

/// One thing that the owner of the folder can do; nothing is left that keeps a recognizer from making a new ring.
fn break_file(path: &Path, capacity: u64, random: &mut fastrand::Rng) {
    let nap = |random: &mut fastrand::Rng| thread::sleep(Duration::from_millis(random.u64(0..30)));
    let whole = HEADER_SIZE as u64 + capacity;
    let aside = path.with_extension("attacker");
    let swap = |length: u64, random: &mut fastrand::Rng| {
        let mut bytes = vec![0; length as usize];
        random.fill(&mut bytes);
        fs::write(&aside, bytes).unwrap();
        let _ = fs::rename(&aside, path);
    };
    let file = OpenOptions::new().write(true).open(path);
    match (random.u8(0..9), file) {
        (0..=2, Ok(file)) => {
            let length = [0, 100, HEADER_SIZE as u64, (whole / 2) & !7, whole - 1][random.usize(0..5)];
            file.set_len(length).unwrap();
            nap(random);
            if random.bool() {
                file.set_len(whole).unwrap(); // zeros where there was a ring
            }
        }
        (3, Ok(file)) => file.set_len(whole + random.u64(1..1 << 20)).unwrap(),
        (4, _) => drop(fs::remove_file(path)),
        (5, _) => swap(random.u64(0..2 * whole), random),
        (6, _) => swap(whole, random),
        (7, _) => {
            // A ring of its own, with its own live producer.
            let _ = fs::remove_file(path);
            if let Ok(mut own) = Producer::open(path, capacity) {
                let _ = own.publish(&crate::common::event(b"", b""));
                nap(random);
            }
        }
        (_, file) => {
            // Overwritten in place.
            let mut noise = [0; HEADER_SIZE];
            random.fill(&mut noise);
            let _ = file.and_then(|mut file| file.write_all(&noise));
        }
    }
    nap(random);
}
