//! The promise: whatever is done to the spool's files between two runs, only the damaged events are set aside, and counted; every
//! other one is delivered, and no start fails. Whether they are sealed or not.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::books::Books;
use crate::common::daemon::Home;
use crate::common::moody::{Mood, Moody};
use crate::common::{Daemon, RingProducer, make_key, picture, wait_until};
use crate::model_disk::Bytes;
use serde_json::json;
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::spool::Destination;
use sophon_uplink::spool::group::{HEAD, Table};

/// Events of a round.
const EVENTS: usize = 12;

/// A box whose spool is damaged again and again.
struct Spoilt {
    home: Home,
    recognizer: RingProducer,
    books: Books,
    servers: [Moody; 2],
    random: fastrand::Rng,
    /// Events that were damaged, with the server that does not get them.
    damaged: BTreeSet<(usize, u64)>,
    /// Their files, in this round.
    spoilt_names: BTreeSet<OsString>,
    /// Of these, in earlier rounds.
    before: u64,
    /// What was put there that is none of ours, so far.
    foreign: u64,
}

impl Spoilt {
    fn new(seed: u64) -> Spoilt {
        let home = Home::new();
        let recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
        let servers = [Moody::start(), Moody::start()];
        make_key(&home.key());
        let random = fastrand::Rng::with_seed(seed);
        Spoilt {
            books: Books::of(&recognizer),
            home,
            recognizer,
            servers,
            random,
            damaged: BTreeSet::new(),
            spoilt_names: BTreeSet::new(),
            before: 0,
            foreign: 0,
        }
    }

    /// A run in which everything is spooled.
    fn fill(&mut self) {
        self.spoilt_names.clear(); // an empty spool counts from the beginning
        self.servers.iter().for_each(|server| server.set(Mood::Failing));
        for _ in 0..EVENTS {
            let pictures = [0, 0].map(|_| picture(self.random.usize(8..9000), self.random.u64(..)));
            assert!(self.books.publish(&mut self.recognizer, &pictures[0], &pictures[1]));
        }
        // Without the key in one round, with it in the next; all is there to be written together, and nothing more to wait for.
        let mut spool = json!({ "dir": self.home.spool(), "min_free_bytes": 0, "group_ms": 50 });
        if self.random.bool() {
            spool["key_file"] = json!(self.home.key());
        }
        self.home.configure(&self.servers.each_ref().map(Moody::url), json!({ "spool": spool }));
        let daemon = Daemon::restart(&self.home);
        daemon.wait_attached();
        self.home.wait_released();
        let stopped = daemon.terminate();
        assert_eq!((stopped.spooled, stopped.open), (2 * EVENTS as u64, 0));
    }

    /// Does something to a file, or puts one there.
    fn damage(&mut self) {
        match self.random.u8(..10) {
            0..=5 => self.damage_event(),
            _ => self.put_foreign(),
        }
    }

    fn damage_event(&mut self) {
        let mut files = self.home.spooled_files();
        files.retain(|path| waits(path));
        let (file, damage) = (self.random.choice(&files).unwrap().clone(), self.random.u8(..4));
        let before = fs::read(self.home.spool().join(&file)).unwrap();
        if self.spoilt_names.contains(file.file_name().unwrap()) {
            return; // its number cannot be told any more
        }
        let mut bytes = before.clone();
        match damage {
            0 => {
                let at = self.random.usize(..bytes.len());
                bytes[at] ^= 1 << self.random.u8(..8);
            }
            1 => bytes.truncate(self.random.usize(..bytes.len())),
            2 => bytes.clear(),
            _ => {
                let at = self.random.usize(..bytes.len());
                let rest = self.random.usize(1..=bytes.len() - at);
                bytes[at..at + rest].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        fs::write(self.home.spool().join(&file), &bytes).unwrap();
        // It is one file for all events that were stored together, and for all destinations that lack one.
        let number = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        for (number, place) in events_in(&before, number) {
            let name = format!("{number:020}.event");
            let sequence = u64::from_le_bytes(before[place.start + 0x28..][..8].try_into().unwrap());
            let is_lost = is_damaged(&before, &bytes, &place);
            for (index, server) in self.servers.iter().enumerate() {
                let folder = Path::new("to").join(Destination::of(&server.url()).to_string());
                if is_lost && self.home.spool().join(folder).join(&name).exists() {
                    self.damaged.insert((index, sequence));
                }
            }
            self.spoilt_names.insert(name.into());
        }
    }

    fn put_foreign(&mut self) {
        let [to, dead] = ["to", "dead"].map(|kind| format!("{kind}/{}", Destination::of(&self.servers[0].url())));
        fs::create_dir_all(self.home.spool().join(&dead)).unwrap();
        let folders = ["", "new", "to", &to, "dead", &dead, "bad"];
        let folder = self.home.spool().join(self.random.choice(folders).unwrap());
        self.foreign += 1;
        let name = match self.random.u8(..4) {
            0 => format!("stranger-{}", self.foreign),
            1 => format!("{:016x}", self.random.u64(..)), // as a destination's folder is named
            2 if folder.ends_with(&dead) => format!("{:020}.event", self.foreign), // a dead letter by its name
            2 => format!("{:020}.event.tmp", self.foreign),
            _ => format!("{:020}.bad", 1_000_000 * self.foreign),
        };
        let path = folder.join(name);
        match self.random.u8(..4) {
            0 => fs::write(path, b"").unwrap(),
            1 => fs::write(path, picture(self.random.usize(8..5000), 1)).unwrap(),
            2 => fs::create_dir(path).unwrap(),
            _ => symlink("/etc/passwd", path).unwrap(),
        }
    }

    /// A run in which everything comes to its end.
    fn drain(&mut self) {
        self.servers.iter().for_each(|server| server.set(Mood::Up));
        self.home.configure_sealed(&self.servers.each_ref().map(Moody::url));
        let daemon = Daemon::restart(&self.home);
        let servers = &self.servers;
        let is_settled = |index: usize| {
            let lacking = self.books.lacking(&servers[index]);
            lacking.iter().all(|sequence| self.damaged.contains(&(index, *sequence)))
        };
        wait_until("every event that was not damaged", || (0..2).all(is_settled));
        wait_until("the end of the backlog", || !self.home.spooled_files().iter().any(|path| waits(path)));
        let stopped = daemon.terminate();
        let damaged = self.damaged.len() as u64;
        assert_eq!(stopped.quarantined, damaged - std::mem::replace(&mut self.before, damaged), "{}", stopped.log);
        assert_eq!((stopped.dead, stopped.evicted, stopped.lost, stopped.spooled), (0, 0, 0, 0), "{}", stopped.log);
        assert!(!stopped.log.contains("panicked"), "{}", stopped.log);
    }
}

fn waits(path: &Path) -> bool {
    path.starts_with("to") && path.extension().is_some_and(|extension| extension == "event")
}

/// The events of a file, and where each lies; `number` is that of one.
fn events_in(file: &[u8], number: u64) -> Vec<(u64, Range<usize>)> {
    let table = Table::read(&Bytes::of(file.to_vec())).unwrap();
    let Some(table) = table else { return vec![(number, 0..file.len())] };
    let place = |number| table.place(number).map(|place| (number, place.start as usize..place.end as usize));
    (table.first..).map_while(place).collect()
}

/// Whether the event there is lost: it was changed or cut off itself, or what says where it lies was, at both ends.
fn is_damaged(before: &[u8], after: &[u8], place: &Range<usize>) -> bool {
    let differs = |range: &Range<usize>| after.get(range.clone()) != Some(&before[range.clone()]);
    let ends = [0..HEAD, before.len().saturating_sub(HEAD)..before.len()];
    differs(place) || (place.start > 0 && ends.iter().all(differs))
}

/// `SOPHON_DAMAGES` raises the number of rounds for soak campaigns.
#[test]
fn of_a_damaged_spool_only_the_damaged_events_are_set_aside() {
    let rounds = crate::common::count("SOPHON_DAMAGES", 100);
    let mut here = Spoilt::new(crate::common::seed());
    for round in 1..=rounds {
        here.fill();
        for _ in 0..here.random.usize(1..8) {
            here.damage();
        }
        here.drain();
        if round % 50 == 0 {
            let Spoilt { damaged, foreign, books, .. } = &here;
            let events = books.len();
            println!(
                "{round} of {rounds} rounds, {events} events, {} set aside, {foreign} foreign files",
                damaged.len()
            );
        }
    }
    let lacking = here.books.balance(&here.servers.each_ref()).lacking;
    assert_eq!(lacking, here.damaged.len() as u64);
}
