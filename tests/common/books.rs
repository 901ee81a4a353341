//! The books of a test: every event that was published, and how often it may arrive.
//!
//! An event arrives at each server. It arrives once more at the most for each place at which it was still here when a process
//! ended, in the ring or in the server's folder of the spool: what was neither is never sent again. It is in both where it was
//! spooled while an older event held the ring.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sophon_uplink::ring::consumer;
use sophon_uplink::ring::file::RingFile;

use super::daemon::Home;
use super::moody::{Moody, Pictures};
use super::{RingProducer, event, shm};

/// What was published into one ring.
pub struct Books {
    ring: String,
    published: HashMap<u64, Pictures>,
    /// Times that an event was still here for a server when a process ended.
    left: HashMap<(String, u64), u64>,
}

/// What the books say at the end.
#[derive(Debug, Default)]
pub struct Balance {
    pub published: u64,
    /// Events that a server lacks, summed up.
    pub lacking: u64,
    /// Events that a server accepted again, summed up.
    pub repeated: u64,
    /// As many might have been.
    pub repeatable: u64,
}

impl Books {
    pub fn of(recognizer: &RingProducer) -> Books {
        Books { ring: recognizer.id().to_string(), published: HashMap::new(), left: HashMap::new() }
    }

    /// Publishes an event, unless the ring is full; whether it is in it.
    pub fn publish(&mut self, recognizer: &mut RingProducer, reg_pic: &[u8], spot_pic: &[u8]) -> bool {
        let Ok(sequence) = recognizer.publish(&event(reg_pic, spot_pic)) else { return false };
        self.published.insert(sequence, [reg_pic, spot_pic].map(Sha256::digest));
        true
    }

    pub fn len(&self) -> usize {
        self.published.len()
    }

    pub fn id(&self, sequence: u64) -> String {
        format!("{}-{sequence}", self.ring)
    }

    /// The events that `server` lacks.
    pub fn lacking(&self, server: &Moody) -> BTreeSet<u64> {
        self.published.keys().copied().filter(|sequence| !server.has(&self.id(*sequence))).collect()
    }

    /// A process ended. What is still here may have been accepted, and is sent once more.
    pub fn process_ended(&mut self, home: &Home, servers: &[&Moody]) {
        let ring = in_ring(home);
        for server in servers {
            let url = server.url();
            for sequence in ring.iter().copied().chain(home.spooled_for(&url)) {
                *self.left.entry((url.clone(), sequence)).or_default() += 1;
            }
        }
    }

    /// The events that `server` lacks and that are not here either: evicted, or lost.
    pub fn missing(&self, home: &Home, server: &Moody) -> BTreeSet<u64> {
        let here: BTreeSet<_> = in_ring(home).into_iter().chain(home.spooled_for(&server.url())).collect();
        self.lacking(server).difference(&here).copied().collect()
    }

    /// Every event arrived as it was published, and no more often than it may.
    #[track_caller]
    pub fn balance(&self, servers: &[&Moody]) -> Balance {
        let mut balance = Balance { published: self.published.len() as u64, ..Balance::default() };
        for server in servers {
            let account = server.account();
            for (sequence, pictures) in &self.published {
                let left = self.left.get(&(server.url(), *sequence)).copied().unwrap_or(0);
                let Some(accepted) = account.get(&self.id(*sequence)) else {
                    balance.lacking += 1;
                    continue;
                };
                let is_the_same = accepted.pictures == *pictures && !accepted.contradicts_itself;
                assert!(is_the_same, "event {sequence} came with other pictures");
                assert!(
                    accepted.times <= 1 + left,
                    "event {sequence} was accepted {} times; it was here {left} times when a process ended",
                    accepted.times
                );
                balance.repeated += accepted.times - 1;
                balance.repeatable += left;
            }
            let ours = account.keys().filter(|id| id.starts_with(&self.ring)).count() as u64;
            assert!(ours <= balance.published, "something came that was not published");
        }
        balance
    }
}

/// The sequence numbers of what was not released; neither a process nor a recognizer may be at work.
fn in_ring(home: &Home) -> BTreeSet<u64> {
    let folder = shm();
    let copy = folder.path().join("copy");
    std::fs::copy(home.ring(), &copy).unwrap();
    let (mut reader, _releaser, corrupt) = consumer::attach(Arc::new(RingFile::open_consumer(&copy).unwrap()));
    assert!(corrupt.is_none(), "{corrupt:?}");
    std::iter::from_fn(|| reader.read().unwrap()).map(|frame| frame.header.sequence).collect()
}
