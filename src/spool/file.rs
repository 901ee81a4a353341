//! The format of a spooled event's file, and the names of files and folders.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0x00 | u64 | [`MAGIC`] |
//! | 0x08 | u32 | the version: 1 in clear, 2 sealed; 3 is a [`group`](super::group) of such events |
//! | 0x0C | u32 | where the record begins: 0x40, or 0x60 |
//! | 0x10 | u64 | bytes of the record (in clear): a multiple of 8 |
//! | 0x18 | 16 bytes | the ring's id |
//! | 0x28 | u64 | the sequence number, as in the record |
//! | 0x30 | u32 | in clear: CRC-32 of the record. Sealed: zero, because it would reveal something of the record |
//! | 0x34 | 8 bytes | in clear: zero. Sealed: the [`KeyId`] of the key |
//! | 0x3C | u32 | CRC-32 of the 60 bytes before |
//! | 0x40 | 32 bytes | only sealed: the salt of the file's own key |
//! | 0x40, 0x60 | | the record as it lay in the ring; or its chunks, sealed as [`seal`](super::seal) says |
//!
//! Every version has this magic, a version number, and this CRC. So a file of a newer release is recognized, and left alone.
//!
//! Numbers are little-endian. The file ends with the record. The CRCs detect damaged flash and files of other programs; a file
//! that is only half written never gets its name. The event's id is in clear in both versions: it comes from a random number and
//! reveals nothing of a person, and people sort dead letters by it without the key.

use std::ffi::OsStr;
use std::fmt;

use sha2::{Digest, Sha256};

use super::disk::Mapped;
use super::group::GROUP;
use super::key::{Key, KeyId, SALT};
use super::opened::FileError;
use super::seal::sealed_len;
use crate::config::Report;
use crate::config::Url;
use crate::event::EventId;
use crate::ring::file::RingId;
use crate::ring::layout::{ALIGN, EVENT_HEADER, MAX_CAPACITY, high, low, pack};

/// `SPOHEVNT`, read as a little-endian u64.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SPOHEVNT");
/// The size of the header without the salt, in bytes.
pub const HEADER: usize = 64;
/// Versions: a record in clear, a sealed one.
const CLEAR: u32 = 1;
const SEALED: u32 = 2;
/// The suffix of a spooled event's name.
pub const EVENT_SUFFIX: &str = ".event";
/// The suffix of a file in quarantine.
pub const BAD_SUFFIX: &str = ".bad";
/// The file in a destination's folder with its URL. The URL also tells the destination's report, and so who may inherit its events.
pub const URL_FILE: &str = "url";
/// The file in a removed destination's folder that names its heirs.
pub const HEIRS_FILE: &str = "heirs";

const HEADER_CRC: usize = HEADER - 4;

/// The spool's name of a destination: the first 8 bytes of the SHA-256 of its URL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Destination(pub [u8; 8]);

/// A destination, with its URL for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Its name in the spool.
    pub destination: Destination,
    /// Its name in an earlier release, if that was different ([`Url::former_identity`]).
    pub former: Option<Destination>,
    /// Its URL, without secrets.
    pub shown: String,
}

impl From<&Url> for Address {
    fn from(url: &Url) -> Address {
        let former = url.former_identity().map(Destination::of);
        Address { destination: Destination::of(&url.identity()), former, shown: url.to_string() }
    }
}

impl Address {
    /// The report that its destination gets.
    pub fn report(&self) -> Report {
        Report::of_shown(&self.shown)
    }
}

impl From<&str> for Address {
    /// A URL without secrets, in canonical form.
    fn from(url: &str) -> Address {
        Address { destination: Destination::of(url), former: None, shown: url.to_owned() }
    }
}

impl Destination {
    /// The destination with this identity ([`Url::identity`]).
    pub fn of(identity: &str) -> Destination {
        let hash = Sha256::digest(identity.as_bytes());
        Destination(std::array::from_fn(|index| hash[index]))
    }

    /// The destination whose folder has this name, if the name is valid.
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

/// The name of a file with this number. Names sort by age.
pub fn name(counter: u64, suffix: &str) -> String {
    format!("{counter:020}{suffix}")
}

/// The number of the file with this name, if the name is valid. The highest number is not valid: there must be a next one.
pub fn counter(name: &OsStr, suffix: &str) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(suffix)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|counter| is_number && *counter < u64::MAX)
}

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The event's id.
    pub id: EventId,
    /// The size of its record, in bytes.
    pub record_len: u64,
    /// Whether it is in clear or sealed.
    pub form: Form,
}

/// How a record is stored in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In clear.
    Clear {
        /// CRC-32 of the record.
        crc: u32,
    },
    /// Sealed.
    Sealed {
        /// The id of the key.
        key: KeyId,
    },
}

/// Where a record begins in its file.
pub const fn record_start(is_sealed: bool) -> usize {
    if is_sealed { HEADER + SALT } else { HEADER }
}

/// The size of the file of a record of `length` bytes.
pub const fn file_len(length: u64, is_sealed: bool) -> u64 {
    record_start(is_sealed) as u64 + if is_sealed { sealed_len(length) } else { length }
}

impl Header {
    /// Its bytes in the file.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let (version, crc, key) = match self.form {
            Form::Clear { crc } => (CLEAR, crc, [0; 8]),
            Form::Sealed { key } => (SEALED, 0, key.0),
        };
        let mut bytes = [0; HEADER];
        bytes[0x00..0x08].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[0x08..0x10].copy_from_slice(&pack(version, record_start(version == SEALED) as u32).to_le_bytes());
        bytes[0x10..0x18].copy_from_slice(&self.record_len.to_le_bytes());
        bytes[0x18..0x28].copy_from_slice(&self.id.ring.0);
        bytes[0x28..0x30].copy_from_slice(&self.id.sequence.to_le_bytes());
        bytes[0x30..0x34].copy_from_slice(&crc.to_le_bytes());
        bytes[0x34..0x3C].copy_from_slice(&key);
        let crc = crc32fast::hash(&bytes[..HEADER_CRC]);
        bytes[HEADER_CRC..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Checks the header of a file of `size` bytes.
    pub(super) fn parse(bytes: &[u8; HEADER], size: u64) -> Result<Header, FileError> {
        let damaged = |why: String| Err(FileError::Damaged(why));
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        if word(0x00) != MAGIC {
            return damaged(format!("it begins with {:#018x}, not with {MAGIC:#018x} (SPOHEVNT)", word(0x00)));
        }
        if crc32fast::hash(&bytes[..HEADER_CRC]) != high(word(HEADER_CRC - 4)) {
            return damaged("the checksum of its header is wrong".into());
        }
        let key = KeyId(std::array::from_fn(|index| bytes[0x34 + index]));
        let form = match low(word(0x08)) {
            CLEAR => Form::Clear { crc: low(word(0x30)) },
            SEALED => Form::Sealed { key },
            GROUP => return damaged("it is a group, and what says where its events lie is damaged".into()),
            other => return Err(FileError::Foreign(other)),
        };
        let is_sealed = matches!(form, Form::Sealed { .. });
        let record_len = word(0x10);
        let plausible = (EVENT_HEADER as u64..=MAX_CAPACITY).contains(&record_len);
        if !plausible || !record_len.is_multiple_of(ALIGN as u64) || size != file_len(record_len, is_sealed) {
            return damaged(format!("it has {size} bytes, its header speaks of a record of {record_len}"));
        }
        let ring = RingId(std::array::from_fn(|index| bytes[0x18 + index]));
        let header = Header { id: EventId { ring, sequence: word(0x28) }, record_len, form };
        if header.to_bytes() != *bytes {
            return damaged("a fixed field of its header has a wrong value".into());
        }
        Ok(header)
    }

    /// Reads and checks the header of a file.
    pub(super) fn read(mapped: &impl Mapped) -> Result<(Header, [u8; HEADER]), FileError> {
        let (size, mut bytes) = (mapped.size(), [0; HEADER]);
        if size < HEADER {
            return Err(FileError::Damaged(format!("it has only {size} bytes")));
        }
        mapped.lend(0..HEADER, &mut |header| bytes.copy_from_slice(header))?;
        Ok((Header::parse(&bytes, size as u64)?, bytes))
    }

    /// Whether the file is sealed with another key than this one.
    pub(super) fn is_locked(&self, key: Option<&Key>) -> bool {
        matches!(self.form, Form::Sealed { key: of_file } if key.map(|key| key.id) != Some(of_file))
    }
}
