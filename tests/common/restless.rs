//! A ring's memory that somebody else writes while it is read: before reads that are chosen, words that are chosen change. What
//! is read twice and believed to be the same, or used before it is checked, shows itself here each time and not by luck.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use sophon_uplink::picture::{Lost, PictureSource};
use sophon_uplink::ring::mapping::Mapping;
use sophon_uplink::ring::{Memory, Word, Words};

/// Where a write goes.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Header(Word),
    /// An offset in the data area, a multiple of 8; what goes beyond the end begins again at the front.
    Data(usize),
}

/// A write of the other process.
#[derive(Clone, Debug)]
pub struct Write {
    /// Reads that it lets pass after the write before it.
    pub after: u8,
    pub place: Place,
    pub words: Vec<u64>,
}

pub struct Restless {
    memory: Mapping,
    coming: Mutex<VecDeque<Write>>,
}

impl Restless {
    /// A ring's memory on the heap, at rest.
    pub fn new(capacity: usize) -> Restless {
        Restless { memory: Mapping::on_heap(capacity), coming: Mutex::default() }
    }

    /// From now on these writes happen.
    pub fn disturb(&self, writes: Vec<Write>) {
        *self.coming() = writes.into();
    }

    /// Whether every write has happened.
    pub fn is_at_rest(&self) -> bool {
        self.coming().is_empty()
    }

    /// A read is about to happen, or a moment passes.
    pub fn moment(&self) {
        let mut coming = self.coming();
        while let Some(next) = coming.front_mut() {
            if next.after > 0 {
                next.after -= 1;
                return;
            }
            let write = coming.pop_front().expect("it is the front one");
            self.write(&write);
        }
    }

    fn coming(&self) -> MutexGuard<'_, VecDeque<Write>> {
        self.coming.lock().expect("nothing panics with it")
    }

    fn write(&self, write: &Write) {
        let capacity = self.memory.capacity() as usize;
        for (index, word) in write.words.iter().enumerate() {
            match write.place {
                Place::Header(header) => self.memory.store(header, *word, Ordering::Relaxed),
                Place::Data(offset) => self.memory.set_word((offset + 8 * index) % capacity, *word),
            }
        }
    }
}

impl Words for Restless {
    fn word(&self, offset: usize) -> u64 {
        self.moment();
        self.memory.word(offset)
    }
}

impl Memory for Restless {
    fn capacity(&self) -> u64 {
        self.memory.capacity()
    }
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.moment();
        self.memory.load(word, order)
    }
    fn store(&self, word: Word, value: u64, order: Ordering) {
        self.memory.store(word, value, order);
    }
    fn fence(&self) {
        self.memory.fence();
    }
    fn set_word(&self, offset: usize, value: u64) {
        self.memory.set_word(offset, value);
    }
    fn futex_wait(&self, _: u32, _: Duration) {}
    fn futex_wake(&self) {}
}

impl PictureSource for Restless {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        self.moment();
        self.memory.lend(range, encode)
    }
}
