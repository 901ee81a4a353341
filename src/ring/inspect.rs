//! The state of a ring, read without disturbing it: `sophon-uplink ring PATH`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::file::{OpenError, RingFile, Side};
use super::{Memory, Word};

/// The state of a ring. The words are not read at the same instant, so they may be inconsistent by what happened in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingState {
    /// The file.
    pub path: PathBuf,
    /// The id as 32 hex digits.
    pub id: String,
    /// The version of its layout: 2 from the first event on that needs it, 1 before.
    pub abi_version: u64,
    /// The size of the data area, in bytes.
    pub capacity: u64,
    /// Bytes that are published and not released.
    pub used: u64,
    /// The last sequence number that was assigned.
    pub published: u64,
    /// The number of events released.
    pub consumed: u64,
    /// The number of events refused because the ring was full.
    pub dropped: u64,
    /// How often the consumer found the ring corrupt.
    pub resyncs: u64,
    /// The pid of the producer, if it is alive.
    pub producer: Option<u32>,
    /// The pid of the consumer, if it is alive.
    pub consumer: Option<u32>,
    /// The user id of the file's owner.
    pub owner: u32,
}

impl RingState {
    /// The state of the ring at `path`.
    ///
    /// # Errors
    /// Any [`OpenError`] except `Busy`.
    pub fn of(path: &Path) -> Result<RingState, OpenError> {
        Ok(RingFile::open_inspect(path)?.state(path))
    }
}

impl RingFile {
    /// The current state of the ring at `path`.
    pub fn state(&self, path: &Path) -> RingState {
        let word = |word| self.load(word, Ordering::Acquire);
        RingState {
            path: path.to_owned(),
            id: self.id.to_string(),
            abi_version: word(Word::AbiVersion),
            capacity: self.capacity(),
            used: word(Word::Head).wrapping_sub(word(Word::Tail)),
            published: word(Word::Sequence),
            consumed: word(Word::Consumed),
            dropped: word(Word::Dropped),
            resyncs: word(Word::Resyncs),
            producer: self.holder(Side::Producer),
            consumer: self.holder(Side::Consumer),
            owner: self.owner(),
        }
    }
}

impl fmt::Display for RingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holder = |pid: Option<u32>| pid.map_or("none".into(), |pid| format!("process {pid}"));
        let percent = self.used as f64 * 100.0 / self.capacity as f64;
        writeln!(f, "ring       {}", self.path.display())?;
        writeln!(f, "id         {}", self.id)?;
        writeln!(f, "ABI        version {}", self.abi_version)?;
        writeln!(f, "capacity   {} bytes", self.capacity)?;
        writeln!(f, "used       {} bytes ({percent:.1} %)", self.used)?;
        writeln!(f, "published  {}", self.published)?;
        writeln!(f, "consumed   {}", self.consumed)?;
        writeln!(f, "dropped    {}", self.dropped)?;
        writeln!(f, "resyncs    {}", self.resyncs)?;
        writeln!(f, "producer   {}", holder(self.producer))?;
        writeln!(f, "consumer   {}", holder(self.consumer))?;
        write!(f, "owner      user {}", self.owner)?;
        if self.producer.is_none() {
            let owner = self.owner;
            write!(f, ": a recognizer of another user gets EACCES until user {owner} or root removes the file")?;
        }
        Ok(())
    }
}
