//! A list of files with their blocks, the oldest first: for dead letters, and for quarantine.

use std::collections::BTreeMap;

use super::Bounds;
use super::index::BLOCK;

/// A shelf's share of the bounds is one part in this many.
const SMALL_PART: u64 = 8;

/// See the module.
#[derive(Debug)]
pub struct Shelf<K> {
    files: BTreeMap<K, u32>,
    blocks: u64,
}

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Shelf { files: BTreeMap::new(), blocks: 0 }
    }
}

impl<K: Ord + Copy> Shelf<K> {
    /// Adds a file.
    pub fn add(&mut self, key: K, blocks: u32) {
        let before = self.files.insert(key, blocks).unwrap_or(0);
        self.blocks = self.blocks - u64::from(before) + u64::from(blocks);
    }

    /// Removes a file. Returns its blocks.
    pub fn remove(&mut self, key: K) -> Option<u32> {
        let blocks = self.files.remove(&key)?;
        self.blocks -= u64::from(blocks);
        Some(blocks)
    }

    /// Whether a file is in the list.
    pub fn contains(&self, key: K) -> bool {
        self.files.contains_key(&key)
    }

    /// A file's blocks.
    pub fn get(&self, key: K) -> Option<u32> {
        self.files.get(&key).copied()
    }

    /// All of them, the lowest key first.
    pub fn iter(&self) -> impl Iterator<Item = (K, u32)> {
        self.files.iter().map(|(key, blocks)| (*key, *blocks))
    }

    /// The keys from this one on.
    pub fn from(&self, key: K) -> impl Iterator<Item = K> {
        self.files.range(key..).map(|(key, _)| *key)
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.files.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The blocks that they take.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether one more file of so many blocks fits a shelf's share of the bounds.
    pub fn has_room(&self, bounds: Bounds, blocks: u32) -> bool {
        (self.blocks + u64::from(blocks)) * BLOCK <= bounds.max_bytes / SMALL_PART && self.len() < most_files(bounds)
    }

    /// Whether it takes more than its share of the bounds.
    pub fn has_too_much(&self, bounds: Bounds) -> bool {
        self.blocks * BLOCK > bounds.max_bytes / SMALL_PART || self.len() > most_files(bounds)
    }
}

fn most_files(bounds: Bounds) -> u64 {
    (bounds.max_files / SMALL_PART).max(1)
}
