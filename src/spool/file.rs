//! A spooled event's file, and how files and folders are named.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0x00 | u64 | [`MAGIC`] |
//! | 0x08 | u32 | [`VERSION`] |
//! | 0x0C | u32 | [`HEADER`]: where the record begins |
//! | 0x10 | u64 | bytes of the record: a multiple of 8 |
//! | 0x18 | 16 bytes | the ring's id |
//! | 0x28 | u64 | the sequence number, as in the record |
//! | 0x30 | u32 | CRC-32 of the record |
//! | 0x34 | 8 bytes | zero |
//! | 0x3C | u32 | CRC-32 of the 60 bytes before |
//! | 0x40 | | the record as it lay in the ring |
//!
//! Numbers are little-endian. The file ends with the record. The CRCs are there for flash that forgets and for files that are not
//! ours: a file that was only half written is never given its name.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::disk::Mapped;
use crate::event::EventId;
use crate::ring::Words;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use crate::ring::layout::{
    ALIGN, EVENT_HEADER, EVENT_HEADER_WORDS, MAX_CAPACITY, RecordHeader, RecordKind, high, low, pack,
};
use crate::ring::mapping::{Lost, PictureSource};

/// `SPOHEVNT`, read as a little-endian u64.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SPOHEVNT");
/// Of this layout.
pub const VERSION: u32 = 1;
/// Bytes before the record.
pub const HEADER: usize = 64;
/// The suffix of a spooled event's name.
pub const EVENT_SUFFIX: &str = ".event";
/// The suffix of what was set aside.
pub const BAD_SUFFIX: &str = ".bad";
/// In a destination's folder, the file that says for people which destination it is.
pub const URL_FILE: &str = "url";

const HEADER_CRC: usize = HEADER - 4;

/// A destination as the spool names it: the first 8 bytes of its URL's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Destination(pub [u8; 8]);

impl Destination {
    /// The destination at `url`.
    pub fn of(url: &str) -> Destination {
        let hash = Sha256::digest(url.as_bytes());
        Destination(std::array::from_fn(|index| hash[index]))
    }

    /// The destination whose folder has this name, if it is one's.
    pub fn from_name(name: &OsStr) -> Option<Destination> {
        let name = name.to_str().filter(|name| name.len() == 16)?;
        let is_ours = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(name, 16).ok().filter(|_| is_ours)?;
        Some(Destination(number.to_be_bytes()))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// The name of a file with this counter; names sort by age.
pub fn name(counter: u64, suffix: &str) -> String {
    format!("{counter:020}{suffix}")
}

/// The counter of the file with this name, if it is one of ours. The highest number is none: there must be a next one.
pub fn counter(name: &OsStr, suffix: &str) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(suffix)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|counter| is_number && *counter < u64::MAX)
}

/// What a file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The event's id.
    pub id: EventId,
    /// Bytes of its record.
    pub record_len: u64,
    /// CRC-32 of its record.
    pub record_crc: u32,
}

impl Header {
    /// As it stands in the file.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0x00..0x08].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[0x08..0x10].copy_from_slice(&pack(VERSION, HEADER as u32).to_le_bytes());
        bytes[0x10..0x18].copy_from_slice(&self.record_len.to_le_bytes());
        bytes[0x18..0x28].copy_from_slice(&self.id.ring.0);
        bytes[0x28..0x30].copy_from_slice(&self.id.sequence.to_le_bytes());
        bytes[0x30..0x34].copy_from_slice(&self.record_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER_CRC]);
        bytes[HEADER_CRC..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Checks the header of a file of `size` bytes.
    pub(super) fn parse(bytes: &[u8; HEADER], size: u64) -> Result<Header, String> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        if word(0x00) != MAGIC {
            return Err(format!("it begins with {:#018x}, not with {MAGIC:#018x} (SPOHEVNT)", word(0x00)));
        }
        if crc32fast::hash(&bytes[..HEADER_CRC]) != high(word(HEADER_CRC - 4)) {
            return Err("the checksum of its header is wrong".into());
        }
        if word(0x08) != pack(VERSION, HEADER as u32) {
            return Err(format!("its version is {}, this program knows {VERSION}", low(word(0x08))));
        }
        let record_len = word(0x10);
        let plausible = (EVENT_HEADER as u64..=MAX_CAPACITY).contains(&record_len);
        if !plausible || !record_len.is_multiple_of(ALIGN as u64) || size != HEADER as u64 + record_len {
            return Err(format!("it has {size} bytes, its header speaks of a record of {record_len}"));
        }
        let ring = RingId(std::array::from_fn(|index| bytes[0x18 + index]));
        Ok(Header { id: EventId { ring, sequence: word(0x28) }, record_len, record_crc: low(word(0x30)) })
    }
}

/// A spooled event, open and checked. It can be read until it is dropped, whatever becomes of its file's names.
#[derive(Debug)]
pub struct SpooledEvent<M> {
    mapped: M,
    /// Its id.
    pub id: EventId,
    /// Where its record lies, as for one in the ring: `Event::from_record` takes both.
    pub frame: Frame,
}

/// Why a file is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It will never be one.
    Damaged(String),
    /// The disk could not read it.
    Unreadable,
}

impl From<Lost> for Flaw {
    fn from(_: Lost) -> Flaw {
        Flaw::Unreadable
    }
}

impl<M: Mapped> SpooledEvent<M> {
    /// Checks everything: header, sizes, both CRCs, and that the record's own header agrees.
    ///
    /// # Errors
    /// [`Flaw`].
    pub fn check(mapped: M) -> Result<SpooledEvent<M>, Flaw> {
        let size = mapped.size();
        let mut bytes = [0; HEADER];
        if size < HEADER {
            return Err(Flaw::Damaged(format!("it has only {size} bytes")));
        }
        mapped.lend(0..HEADER, &mut |header| bytes.copy_from_slice(header))?;
        let header = Header::parse(&bytes, size as u64).map_err(Flaw::Damaged)?;
        let mut crc = 0;
        mapped.lend(HEADER..size, &mut |record| crc = crc32fast::hash(record))?;
        if crc != header.record_crc {
            return Err(Flaw::Damaged("the checksum of its record is wrong".into()));
        }
        let words: [u64; EVENT_HEADER_WORDS] = std::array::from_fn(|index| mapped.word(HEADER + index * ALIGN));
        mapped.lend(0..0, &mut |_| ())?; // what was just read was not zeros for want of a file
        let record = RecordHeader::from_words(words);
        let agrees = u64::from(record.length) == header.record_len
            && record.sequence == header.id.sequence
            && RecordKind::from_code(high(words[0])) == Some(RecordKind::Event);
        if !agrees {
            return Err(Flaw::Damaged("its header and its record contradict each other".into()));
        }
        Ok(SpooledEvent { mapped, id: header.id, frame: Frame { header: record, offset: HEADER, end: size as u64 } })
    }
}

impl<M: Mapped> Words for SpooledEvent<M> {
    fn word(&self, offset: usize) -> u64 {
        self.mapped.word(offset)
    }
}

impl<M: Mapped> PictureSource for SpooledEvent<M> {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        self.mapped.lend(range, encode)
    }
}
