//! The files that are being read. A file whose names are all deleted takes its room until its last reader is gone.

use std::sync::Arc;

/// A reader holds this while it reads.
pub type Reading = Arc<()>;

/// See the module.
#[derive(Debug, Default)]
pub struct Readers(Vec<Reader>);

#[derive(Debug)]
struct Reader {
    /// The event's number.
    event: u64,
    /// The number of the first event in its file, and the slot where each destination has a file of its own.
    file: (u64, usize),
    /// The file's size.
    blocks: u32,
    /// Its reader has the other one.
    reading: Reading,
}

impl Readers {
    /// Adds a reader of an event. `file` tells its file from others: the number of its first event, and a slot. It takes `blocks`
    /// blocks.
    pub fn add(&mut self, event: u64, file: (u64, usize), blocks: u32) -> Reading {
        self.0.retain(Reader::is_there);
        let reading = Reading::default();
        self.0.push(Reader { event, file, blocks, reading: Arc::clone(&reading) });
        reading
    }

    /// The blocks of the files that are being read, except of those with an event that `is_counted` elsewhere.
    pub fn blocks(&self, is_counted: impl Fn(u64) -> bool) -> u64 {
        let is_new =
            |at: usize, file: (u64, usize)| !self.0[..at].iter().any(|other| other.file == file && other.is_there());
        let uncounted = self
            .0
            .iter()
            .enumerate()
            .filter(|(at, one)| one.is_there() && is_new(*at, one.file) && !is_counted(one.event));
        uncounted.map(|(_, one)| u64::from(one.blocks)).sum()
    }
}

impl Reader {
    fn is_there(&self) -> bool {
        Arc::strong_count(&self.reading) > 1
    }
}
