//! The recognizer's part: provides events, each newly written by another core. The uplink's events are in its ring. A peer gets
//! its pictures in files on tmpfs, and their names in a line, like a script on a box.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use sophon_uplink::ring::file::RingFile;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::{NewEvent, Producer};
use sophon_uplink::ring::{Memory, Word, Words};

use super::measure;

/// Memory for events, in bytes, before it is reused from the start.
pub const TURN: usize = 16 << 20;

/// The two pictures of an event.
pub struct Pictures([Vec<u8>; 2]);

impl Pictures {
    /// Two pictures of `size` bytes together.
    pub fn new(size: usize) -> Pictures {
        let mut random = fastrand::Rng::with_seed(1);
        Pictures([size * 3 / 10, size - size * 3 / 10].map(|length| {
            let mut bytes = vec![0; length];
            random.fill(&mut bytes);
            bytes
        }))
    }

    /// Their size in base64.
    pub fn encoded(&self) -> usize {
        self.0.iter().map(|picture| picture.len().div_ceil(3) * 4).sum()
    }

    fn size(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    fn event(&self) -> NewEvent<'_> {
        NewEvent {
            identity_id: b"100001",
            identity_name: b"Ada Lovelace",
            group_name: b"staff",
            device_ip: b"192.168.1.30",
            timestamp_ms: 1_700_000_000_000,
            person_type: 1,
            device_type: 1,
            score: 0.9,
            reg_pic: &self.0[0],
            spot_pic: &self.0[1],
            ..NewEvent::default()
        }
    }
}

/// How a contender gets its events.
pub enum Source {
    Ring(Ring),
    /// Only lines: the limit has its bytes already.
    Lines,
    Files(Files),
}

impl Source {
    /// Publishes an event as soon as there is room for it, and returns the time. `lines` is the contender's standard input.
    pub fn publish(&mut self, lines: &mut ChildStdin, pictures: &Pictures) -> u64 {
        match self {
            Source::Ring(ring) => ring.publish(pictures),
            Source::Lines => tell(lines, "go"),
            Source::Files(files) => {
                let line = files.write(pictures);
                tell(lines, &line)
            }
        }
    }

    /// Waits until the contender has finished all published events; all of them must have arrived.
    pub fn settle(&self) {
        match self {
            Source::Ring(ring) => ring.wait_until_empty(),
            _ => thread::sleep(Duration::from_millis(2)), // time to read the last answer
        }
    }
}

fn tell(lines: &mut ChildStdin, line: &str) -> u64 {
    let now = measure::now();
    lines.write_all(format!("{line}\n").as_bytes()).expect("it reads on");
    now
}

/// A ring that records when its last event was published: when its record is complete and `head` is stored. Before that, the
/// recognizer writes the pictures, as it writes files for the peers.
struct Dated {
    ring: RingFile,
    published: Cell<u64>,
}

impl Words for Dated {
    fn word(&self, offset: usize) -> u64 {
        self.ring.word(offset)
    }
}

impl Memory for Dated {
    fn capacity(&self) -> u64 {
        self.ring.capacity()
    }
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.ring.load(word, order)
    }
    fn store(&self, word: Word, value: u64, order: Ordering) {
        if word == Word::Head {
            self.published.set(measure::now());
        }
        self.ring.store(word, value, order);
    }
    fn fence(&self) {
        self.ring.fence();
    }
    fn set_word(&self, offset: usize, value: u64) {
        self.ring.set_word(offset, value);
    }
    fn futex_wait(&self, expected: u32, timeout: Duration) {
        self.ring.futex_wait(expected, timeout);
    }
    fn futex_wake(&self) {
        self.ring.futex_wake();
    }
}

/// The uplink's ring.
pub struct Ring {
    path: PathBuf,
    producer: Producer<Dated>,
    /// Maximum use: when half of the ring is used, events go to the spool.
    limit: u64,
}

impl Ring {
    pub fn new(path: PathBuf, capacity: u64) -> Ring {
        let ring = RingFile::open_producer(&path, capacity).expect("a ring of our own");
        let producer = Producer::attach(Dated { ring, published: Cell::default() });
        Ring { path, producer, limit: capacity / 2 }
    }

    fn publish(&mut self, pictures: &Pictures) -> u64 {
        let needed = pictures.size() as u64 + 4096;
        while self.used() + needed > self.limit {
            thread::sleep(Duration::from_micros(200));
        }
        self.producer.publish(&pictures.event()).expect("there is room");
        self.producer.memory().published.get()
    }

    pub fn used(&self) -> u64 {
        RingState::of(&self.path).expect("our ring").used
    }

    pub fn wait_until_empty(&self) {
        while self.used() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Files on tmpfs, used in turn.
pub struct Files {
    files: Vec<[(PathBuf, File); 2]>,
    next: usize,
}

impl Files {
    pub fn new(folder: &Path, pictures: &Pictures) -> Files {
        let file = |name: String| {
            let path = folder.join(name);
            let file = File::create(&path).expect("a temporary folder");
            (path, file)
        };
        let count = (TURN / pictures.size()).clamp(4, 1024);
        let files = (0..count).map(|number| ["reg", "spot"].map(|kind| file(format!("{kind}-{number}.jpg")))).collect();
        Files { files, next: 0 }
    }

    /// Writes the files and returns the line with their names.
    fn write(&mut self, pictures: &Pictures) -> String {
        let [reg, spot] = &self.files[self.next % self.files.len()];
        self.next += 1;
        for ((_, file), picture) in [reg, spot].into_iter().zip(&pictures.0) {
            file.write_all_at(picture, 0).expect("room on tmpfs");
        }
        format!("{} {}", reg.0.display(), spot.0.display())
    }
}
