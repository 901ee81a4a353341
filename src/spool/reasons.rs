//! The reasons of dead letters: `spool/reasons`, one file for all letters.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0x00 | u32 | CRC-32 of the 252 bytes after it |
//! | 0x04 | u32 | tries |
//! | 0x08 | u64 | the letter's number |
//! | 0x10 | 8 bytes | its destination |
//! | 0x18 | u64 | a serial number: of two records for one letter, the higher one counts |
//! | 0x20 | u64 | when, in Unix seconds |
//! | 0x28 | u16 | the status of the answer; 0: there was none |
//! | 0x2A | u16 | bytes of the text |
//! | 0x2C | 212 bytes | the text, UTF-8 |
//!
//! Numbers are little-endian. The reason is not in the event's file, because the event may also wait for other destinations, and
//! its file is not written again. One file needs one inode, however many letters there are. A record is written in place, and
//! made durable before its letter. The place of a deleted letter is used again. If a record is torn or missing, the letter is
//! kept without a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::disk::{Disk, Mapped};
use super::file::Destination;
use super::index::blocks;
use super::volume::{DiskError, Volume};
use crate::clock;
use crate::picture::PictureSource as _;

/// The name of the file in the spool's folder.
pub const REASONS_FILE: &str = "reasons";
/// The size of a record, in bytes.
pub const RECORD: usize = 256;
/// The offset of the text in a record.
const TEXT: usize = 0x2C;

/// A dead letter: its number, and the destination that refused it.
pub type Letter = (u64, Destination);

/// Why an event is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetterReason {
    /// The status of the server's last answer; none if there was no answer.
    pub status: Option<u16>,
    /// The reason in plain words, at most 212 bytes; a longer text is cut.
    pub reason: String,
    /// How often it was sent.
    pub tries: u32,
    /// When it became a dead letter, in Unix seconds of the box's clock.
    #[serde(rename = "time")]
    pub at: u64,
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map_or(String::new(), |status| format!("status {status}, "));
        write!(f, "{status}{} tries, {}: {}", self.tries, clock::date(self.at), self.reason)
    }
}

impl DeadLetterReason {
    /// A record's bytes.
    fn to_bytes(&self, (counter, destination): Letter, serial: u64) -> [u8; RECORD] {
        let fits = |end: &usize| self.reason.is_char_boundary(*end);
        let end = (0..=self.reason.len().min(RECORD - TEXT)).rev().find(fits).unwrap_or(0);
        let text = &self.reason[..end];
        let mut bytes = [0; RECORD];
        bytes[0x04..0x08].copy_from_slice(&self.tries.to_le_bytes());
        bytes[0x08..0x10].copy_from_slice(&counter.to_le_bytes());
        bytes[0x10..0x18].copy_from_slice(&destination.0);
        bytes[0x18..0x20].copy_from_slice(&serial.to_le_bytes());
        bytes[0x20..0x28].copy_from_slice(&self.at.to_le_bytes());
        bytes[0x28..0x2A].copy_from_slice(&self.status.unwrap_or(0).to_le_bytes());
        bytes[0x2A..0x2C].copy_from_slice(&(text.len() as u16).to_le_bytes());
        bytes[TEXT..TEXT + text.len()].copy_from_slice(text.as_bytes());
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Parses a record: the letter, its serial number, and the reason. None if it is torn or no record.
    fn parse(bytes: &[u8]) -> Option<(Letter, u64, DeadLetterReason)> {
        let number = |range: Range<usize>| bytes[range].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        if bytes.len() != RECORD || number(0..4) != u64::from(crc32fast::hash(&bytes[4..])) {
            return None;
        }
        let text = bytes[TEXT..].get(..number(0x2A..0x2C) as usize)?;
        let letter = (number(0x08..0x10), Destination(bytes[0x10..0x18].try_into().ok()?));
        let reason = DeadLetterReason {
            status: Some(number(0x28..0x2A) as u16).filter(|status| *status != 0),
            reason: String::from_utf8(text.to_vec()).ok()?,
            tries: number(0x04..0x08) as u32,
            at: number(0x20..0x28),
        };
        Some((letter, number(0x18..0x20), reason))
    }

    /// Parses the file: every reason by letter, with its place and serial number.
    pub fn all(bytes: &[u8]) -> BTreeMap<Letter, (u32, u64, DeadLetterReason)> {
        let mut found = BTreeMap::new();
        for (place, record) in bytes.chunks(RECORD).enumerate() {
            let Some((letter, serial, reason)) = DeadLetterReason::parse(record) else { continue };
            let known = found.entry(letter).or_insert((place as u32, serial, reason.clone()));
            if serial > known.1 {
                *known = (place as u32, serial, reason);
            }
        }
        found
    }
}

/// The places of the records in the file.
#[derive(Debug)]
pub struct Reasons<F> {
    path: PathBuf,
    file: Option<F>,
    /// Whether its content is known. If not, records are only added behind it, so that none is replaced.
    is_known: bool,
    /// Whether its name is durable.
    is_named: bool,
    places: BTreeMap<Letter, u32>,
    /// Free places before `end`.
    free: BTreeSet<u32>,
    /// How many places the file has.
    end: u32,
    serial: u64,
}

impl<F> Reasons<F> {
    /// For the spool at `root`, without records yet.
    pub fn new(root: &Path) -> Reasons<F> {
        let path = root.join(REASONS_FILE);
        let (places, free) = (BTreeMap::new(), BTreeSet::new());
        Reasons { path, file: None, is_known: false, is_named: false, places, free, end: 0, serial: 0 }
    }

    /// Whether the file was read.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Reads the file, and keeps the records of existing letters.
    ///
    /// # Errors
    /// If there is a file that cannot be read.
    pub fn scan<D: Disk<File = F>>(
        &mut self,
        volume: &Volume<D>,
        is_there: impl Fn(Letter) -> bool,
    ) -> Result<(), DiskError> {
        let bytes = volume.read_small(&self.path, usize::MAX)?.unwrap_or_default();
        *self = Reasons { path: std::mem::take(&mut self.path), serial: self.serial, ..Reasons::new(Path::new("")) };
        self.end = bytes.len().div_ceil(RECORD) as u32;
        self.free = (0..self.end).collect();
        for (letter, (place, serial, _)) in DeadLetterReason::all(&bytes) {
            self.serial = self.serial.max(serial);
            if is_there(letter) {
                self.free.remove(&place);
                self.places.insert(letter, place);
            }
        }
        self.is_known = true;
        Ok(())
    }

    /// Writes further records behind those that are there, because these cannot be read.
    ///
    /// # Errors
    /// If the file cannot be looked at.
    pub fn append_only<D: Disk<File = F>>(&mut self, volume: &Volume<D>) -> Result<(), DiskError> {
        let bytes = match volume.stat(&self.path) {
            Err(fault) if fault.source.kind() == io::ErrorKind::NotFound => 0,
            found => found?.bytes,
        };
        self.end = self.end.max(u32::try_from(bytes.div_ceil(RECORD as u64)).unwrap_or(u32::MAX - 1));
        Ok(())
    }

    /// Closes the file, because another file will be at its path.
    pub fn close(&mut self) {
        *self = Reasons { path: std::mem::take(&mut self.path), serial: self.serial, ..Reasons::new(Path::new("")) };
    }

    /// Records the reason of a letter. It is durable when this returns.
    ///
    /// # Errors
    /// The operation that failed. A new letter then has no reason; a letter that is there keeps its earlier one.
    pub fn note<D: Disk<File = F>>(
        &mut self,
        volume: &mut Volume<D>,
        letter: Letter,
        reason: &DeadLetterReason,
    ) -> Result<(), DiskError> {
        self.serial += 1;
        let record = reason.to_bytes(letter, self.serial);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => volume.open_or_create(&self.path)?,
        };
        let place = self.free.pop_first().unwrap_or(self.end);
        self.end = self.end.max(place + 1);
        let written = volume.write(&mut file, &self.path, &record, u64::from(place) * RECORD as u64);
        let written = written.and_then(|()| volume.sync(&mut file, &self.path));
        let written = written.and_then(|()| if self.is_named { Ok(()) } else { volume.sync_folder(volume.root()) });
        match written {
            Ok(()) => {
                self.is_named = true;
                self.file = Some(file);
                self.free.extend(self.places.insert(letter, place));
            }
            Err(_) => drop(self.free.insert(place)),
        }
        written
    }

    /// Frees the place of a letter.
    pub fn forget(&mut self, letter: Letter) {
        self.free.extend(self.places.remove(&letter));
    }

    /// The reasons of these letters, as far as they are known. Reads the file once.
    pub fn of<D: Disk<File = F>>(&self, volume: &Volume<D>, letters: &[Letter]) -> Vec<Option<DeadLetterReason>> {
        if !self.is_known {
            let bytes = volume.read_small(&self.path, usize::MAX).ok().flatten().unwrap_or_default();
            let all = DeadLetterReason::all(&bytes);
            return letters.iter().map(|letter| Some(all.get(letter)?.2.clone())).collect();
        }
        let mapped = volume.map(&self.path).ok();
        let read = |letter: &Letter| {
            let start = *self.places.get(letter)? as usize * RECORD;
            let mapped = mapped.as_ref().filter(|mapped| mapped.size() >= start + RECORD)?;
            let mut bytes = Vec::new();
            mapped.lend(start..start + RECORD, &mut |read| bytes.extend_from_slice(read)).ok()?;
            DeadLetterReason::parse(&bytes).filter(|(of, _, _)| of == letter).map(|(_, _, reason)| reason)
        };
        letters.iter().map(read).collect()
    }

    /// The blocks of the file, with room for one more reason.
    pub fn blocks(&self) -> u64 {
        if self.end == 0 { 0 } else { blocks((u64::from(self.end) + 1) * RECORD as u64).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> DeadLetterReason {
        DeadLetterReason { status: Some(413), reason: text.into(), tries: 3, at: 1_764_000_000 }
    }

    #[test]
    fn a_reason_is_read_as_it_was_written_and_a_torn_one_not_at_all() {
        let letter = (17, Destination([7; 8]));
        for text in ["", "the server answered 413 Content Too Large", &"太".repeat(200)] {
            let bytes = reason(text).to_bytes(letter, 5);
            let (of, serial, read) = DeadLetterReason::parse(&bytes).unwrap();
            assert_eq!((of, serial), (letter, 5));
            assert!(text.starts_with(&read.reason) && read.reason.len() >= text.len().min(210));
            assert_eq!(DeadLetterReason { reason: text.into(), ..read }, reason(text));
            for place in 0..RECORD {
                let mut torn = bytes;
                torn[place] ^= 0x40;
                assert_eq!(DeadLetterReason::parse(&torn), None, "byte {place} is another one");
            }
            assert_eq!(DeadLetterReason::parse(&bytes[..RECORD - 1]), None);
        }
        assert_eq!(DeadLetterReason::parse(&[0; RECORD]), None, "a hole in the file");
    }

    #[test]
    fn of_two_reasons_for_a_letter_the_later_one_counts_wherever_it_lies() {
        let letter = (17, Destination([7; 8]));
        let (old, new) = (reason("old").to_bytes(letter, 1), reason("new").to_bytes(letter, 2));
        for bytes in [[old, new].concat(), [new, old].concat()] {
            assert_eq!(DeadLetterReason::all(&bytes)[&letter].2, reason("new"));
        }
    }
}
