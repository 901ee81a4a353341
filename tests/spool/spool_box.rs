//! A spool on a real disk for two destinations, and what its tests ask of it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sophon_uplink::config;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::spool::{
    Address, Bounds, DeadLetterReason, Destination, Moved, RealDisk, Recovered, Spool, StoreError, Stored,
};

use crate::model_disk::ModelDisk;
use crate::spool_world::{BLOCK, Records, addresses, root};

pub const RING: RingId = RingId([7; 16]);
pub const URLS: [&str; 2] = ["http://one/RealTimeEvent", "https://two/"];

pub struct Box {
    pub folder: tempfile::TempDir,
    pub records: Records,
    pub spool: Spool<RealDisk>,
    pub found: Recovered,
    pub is_sealed: bool,
}

pub fn config(dir: &Path, key_file: Option<PathBuf>) -> config::Spool {
    config::Spool { dir: dir.to_owned(), max_bytes: 1 << 20, min_free_bytes: 0, group: Duration::ZERO, key_file }
}

pub fn urls() -> Vec<String> {
    URLS.iter().map(|url| (*url).to_owned()).collect()
}

/// Why a server did not want an event.
pub fn refused() -> DeadLetterReason {
    let reason = "the server answered 413 Payload Too Large".into();
    DeadLetterReason { status: Some(413), reason, tries: 3, at: 1_764_000_000 }
}

pub fn one() -> Destination {
    Destination::of(URLS[0])
}

pub fn two() -> Destination {
    Destination::of(URLS[1])
}

impl Box {
    pub fn new() -> Box {
        Box::of(false)
    }

    /// One whose events are sealed, or not.
    pub fn of(is_sealed: bool) -> Box {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(&[100, 1_000, 3_900, 20_000]);
        let config = config(&folder.path().join("spool"), is_sealed.then(|| records.key_file()));
        let (spool, found) = Spool::open(RealDisk::default(), &config, &addresses(&urls()));
        Box { folder, records, spool, found, is_sealed }
    }

    pub fn restart(&mut self) {
        self.restart_for(&urls());
    }

    pub fn restart_for(&mut self, urls: &[String]) {
        // The folder is one spool's: this one must be gone first.
        self.spool = Spool::open(RealDisk::default(), &config(&self.path("nowhere/at/all"), None), &[]).0;
        let config = config(&self.path(""), self.is_sealed.then(|| self.records.key_file()));
        (self.spool, self.found) = Spool::open(RealDisk::default(), &config, &addresses(urls));
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join("spool").join(inside)
    }

    pub fn file(&self, place: &str, destination: Destination, counter: u64) -> PathBuf {
        self.path(&format!("{place}/{destination}/{counter:020}.event"))
    }

    pub fn try_store(&mut self, record: usize, to: &[Destination]) -> Result<Stored, StoreError> {
        self.spool.store(RING, &*self.records.memory, &self.records.frames[record], to)
    }

    pub fn store(&mut self, record: usize, to: &[Destination]) -> u64 {
        self.try_store(record, to).unwrap().counter
    }

    pub fn waiting(&self, destination: Destination) -> Vec<u64> {
        self.spool.list(destination, None).map(|waiting| waiting.counter).collect()
    }

    #[track_caller]
    pub fn assert_read(&mut self, destination: Destination, counter: u64, record: usize) {
        let event = self.spool.read(destination, counter).unwrap();
        assert_eq!(event.frame.header.sequence, record as u64 + 1);
        self.records.assert_same(event.id, &event, &event.frame);
    }

    pub fn bound(&mut self, max_bytes: u64, max_files: u64) {
        self.spool.set_bounds(Bounds { max_bytes, max_files, min_free_bytes: 0 });
    }

    /// Bytes and files under `spool/`, but for those that say which destination a folder is.
    pub fn on_disk(&self) -> (u64, u64) {
        let mut inodes = std::collections::BTreeMap::new();
        let mut folders = vec![self.path("")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.metadata().unwrap() {
                    found if found.is_dir() => folders.push(entry.path()),
                    found if !["url", "heirs", "reasons"].iter().any(|note| entry.file_name() == *note) => {
                        inodes.insert(found.ino(), found.len());
                    }
                    _ => {}
                }
            }
        }
        (inodes.values().map(|size| size.next_multiple_of(BLOCK)).sum(), inodes.len() as u64)
    }
}

/// Destinations that come and go.
impl Box {
    pub fn configure(&mut self, urls: &[&str]) {
        let addresses: Vec<_> = urls.iter().map(|url| Address::from(*url)).collect();
        assert!(self.spool.configure(&addresses).is_empty());
    }

    /// Moves everything that waits for removed destinations.
    pub fn settle(&mut self) -> u64 {
        std::iter::from_fn(|| self.spool.settle().unwrap()).map(Moved::events).sum()
    }

    /// What is parked, by URL.
    pub fn parked(&self) -> Vec<(&str, u64)> {
        self.spool.parked().map(|(_, url, events)| (url.unwrap(), events)).collect()
    }
}

/// A spool on a model disk for one destination, with as many events as fit.
pub fn full() -> (Records, ModelDisk, Spool<ModelDisk>, Destination) {
    let (records, disk) = (Records::new(&[100, 1_000, 3_900, 20_000]), ModelDisk::new(1));
    let a = Address::from("http://a/");
    let mut spool = Spool::open(disk.clone(), &config(&root(), None), std::slice::from_ref(&a)).0;
    spool.store(RING, &*records.memory, &records.frames[3], &[a.destination]).unwrap();
    let max_bytes = 4 * spool.status().bytes + BLOCK; // and what says which destination it is
    spool.set_bounds(Bounds { max_bytes, max_files: 1000, min_free_bytes: 0 });
    for _ in 0..3 {
        spool.store(RING, &*records.memory, &records.frames[3], &[a.destination]).unwrap();
    }
    assert_eq!(spool.status().tally.evicted, 0);
    (records, disk, spool, a.destination)
}
