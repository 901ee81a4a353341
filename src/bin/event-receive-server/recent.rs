//! The two bounded memories of the journal: the recent events and the known ids.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::record::Record;

/// Maximum memory for recent events, in bytes.
const MOST_BYTES: usize = 128 << 20;

/// The recent events, the oldest first. Their number and their bytes are bounded.
pub struct Recent {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    most: usize,
}

impl Recent {
    /// An empty list for at most `most` events.
    pub fn new(most: usize) -> Recent {
        Recent { records: VecDeque::new(), bytes: 0, most }
    }

    /// Adds the newest event and drops the oldest ones. The newest stays even if it alone is too large.
    pub fn push(&mut self, record: Arc<Record>) {
        self.bytes += record.size();
        self.records.push_back(record);
        while self.records.len() > self.most || (self.bytes > MOST_BYTES && self.records.len() > 1) {
            self.bytes -= self.records.pop_front().map_or(0, |record| record.size());
        }
    }

    /// The events, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.iter().rev()
    }
}

/// The ids of the latest events, as hashes of equal size: long ids take no more memory than short ones.
pub struct Seen {
    known: HashSet<[u8; 16]>,
    in_order: VecDeque<[u8; 16]>,
    most: usize,
}

impl Seen {
    /// An empty set with room for `most` ids.
    pub fn new(most: usize) -> Seen {
        Seen { known: HashSet::new(), in_order: VecDeque::new(), most }
    }

    /// Whether the id was inserted and not forgotten since.
    pub fn contains(&self, id: &str) -> bool {
        self.known.contains(&hash(id))
    }

    /// Remembers the id. If the set is full, forgets the oldest id.
    pub fn insert(&mut self, id: &str) {
        if self.known.insert(hash(id)) {
            self.in_order.push_back(hash(id));
        }
        if self.in_order.len() > self.most
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

fn hash(id: &str) -> [u8; 16] {
    Sha256::digest(id)[..16].try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: usize, bytes: usize) -> Arc<Record> {
        let pictures = vec![(crate::event::Which::Reg, vec![0; bytes].into())];
        Arc::new(Record::new(id.to_string(), Default::default(), pictures))
    }

    fn ids(recent: &Recent) -> Vec<&str> {
        recent.newest().map(|record| record.id.as_str()).collect()
    }

    #[test]
    fn the_list_is_bounded_in_events_and_the_newest_stay() {
        let mut recent = Recent::new(3);
        (0..5).for_each(|id| recent.push(record(id, 1)));
        assert_eq!(ids(&recent), ["4", "3", "2"]);
    }

    #[test]
    fn the_list_is_bounded_in_bytes_but_never_empty() {
        let mut recent = Recent::new(200);
        (0..5).for_each(|id| recent.push(record(id, MOST_BYTES / 3)));
        assert_eq!(ids(&recent), ["4", "3"]);
        assert!(recent.bytes <= MOST_BYTES);
        recent.push(record(5, MOST_BYTES + 1));
        assert_eq!(ids(&recent), ["5"]);
    }

    #[test]
    fn the_known_ids_are_bounded_and_the_oldest_go() {
        let mut seen = Seen::new(2);
        for id in ["a", "b", "b", "c"] {
            seen.insert(id);
        }
        assert_eq!(["a", "b", "c"].map(|id| seen.contains(id)), [false, true, true]);
        assert_eq!(seen.known.len(), 2);
    }
}
