//! The files that are being read. A file whose names are all deleted takes its room until its last reader is gone.

use std::sync::Arc;

/// A reader holds this while it reads.
pub type Reading = Arc<()>;

/// See the module.
#[derive(Debug, Default)]
pub struct Readers(Vec<OpenFile>);

/// What tells an open file from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The number of its first event.
    pub first: u64,
    /// The slot, where each destination has a file of its own.
    pub slot: usize,
    /// Whether several events share it.
    pub is_group: bool,
}

/// A file that was opened, with all its readers.
#[derive(Debug)]
pub struct OpenFile {
    file: FileId,
    /// The number of the event that was opened first.
    event: u64,
    /// The file's size.
    blocks: u32,
    /// Its readers have the others.
    reading: Reading,
}

impl Readers {
    /// Adds a reader of an event in this file, which takes `blocks` blocks.
    pub fn add(&mut self, event: u64, file: FileId, blocks: u32) -> Reading {
        self.0.retain(OpenFile::is_read);
        if let Some(open) = self.0.iter().find(|open| open.file == file) {
            return Arc::clone(&open.reading);
        }
        let reading = Reading::default();
        self.0.push(OpenFile { file, event, blocks, reading: Arc::clone(&reading) });
        reading
    }

    /// The blocks of the files that are being read, except of those that `is_counted` says are counted elsewhere.
    pub fn blocks(&self, is_counted: impl Fn(&OpenFile) -> bool) -> u64 {
        let uncounted = self.0.iter().filter(|open| open.is_read() && !is_counted(open));
        uncounted.map(|open| u64::from(open.blocks)).sum()
    }
}

impl OpenFile {
    /// The number of the event that was opened first.
    pub fn event(&self) -> u64 {
        self.event
    }

    /// Whether several events share it.
    pub fn is_group(&self) -> bool {
        self.file.is_group
    }

    fn is_read(&self) -> bool {
        Arc::strong_count(&self.reading) > 1
    }
}
