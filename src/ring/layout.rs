//! The ring's layout as constants. docs/ring-abi.md is the specification, `include/sophon_ring.h` the other implementation.
//!
//! Nothing here accesses memory. The consumer uses [`RecordHeader`] to decode the words of a record, the producer to encode them.
//! The spool keeps the same record bytes.

use std::mem::{offset_of, size_of};

/// `SPOHRING`, read as a little-endian u64: the first eight bytes of every ring.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SPOHRING");
/// The newest layout version that this program reads and writes; newer ones are refused.
pub const ABI_VERSION: u32 = 2;
/// The version of every new ring, and the oldest that is read.
pub const OLDEST_ABI: u32 = 1;
/// The most named pictures of an event.
pub const MAX_PICTURES: usize = 16;
/// The longest name of a picture, in bytes.
pub const MAX_NAME: usize = 64;
/// The size of the header: one page, so that the data area can be mapped read-only.
pub const HEADER_SIZE: usize = 4096;
/// The smallest data area, in bytes.
pub const MIN_CAPACITY: u64 = 64 * 1024;
/// The largest data area, in bytes.
pub const MAX_CAPACITY: u64 = 1 << 30;
/// Records, sections and positions are aligned to this, in bytes.
pub const ALIGN: usize = 8;
/// The size of an event record before its sections, in bytes.
pub const EVENT_HEADER: usize = 40;
/// The size of a padding record's header, in bytes.
pub const PADDING_HEADER: usize = 8;
/// The size of a section before its content, in bytes.
pub const SECTION_HEADER: usize = 8;
/// The byte of the file that the producer keeps locked while it lives.
pub const PRODUCER_LOCK: u64 = 0x080;
/// The byte of the file that the consumer keeps locked while it lives.
pub const CONSUMER_LOCK: u64 = 0x100;

const _: () = assert!(cfg!(target_endian = "little") && cfg!(target_pointer_width = "64"));

/// The header of the file, for its offsets only: a shared ring's header is never read or written as a whole.
#[repr(C)]
pub struct FileHeader {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`OLDEST_ABI`], or the version that the producer has changed it to.
    pub abi_version: u32,
    /// [`HEADER_SIZE`].
    pub header_size: u32,
    /// The size of the data area in bytes: a power of two.
    pub capacity: u64,
    /// Random, generated with the ring.
    pub id: [u8; 16],
    reserved_maker: [u8; 0x080 - 0x028],
    /// The position after the last published record.
    pub head: u64,
    /// The last sequence number that was assigned.
    pub sequence: u64,
    /// The number of events refused because the ring was full.
    pub dropped: u64,
    /// The producer's pid; 0 once it has closed the ring. Also tells whether `fifo_pid` is its own.
    pub producer_pid: u32,
    /// Equal to `producer_pid` if that producer writes to the FIFO; otherwise the FIFO is that of an earlier producer.
    pub fifo_pid: u32,
    /// The futex word.
    pub publications: u32,
    reserved_publications: u32,
    /// The inode of the FIFO.
    pub fifo_inode: u64,
    reserved_producer_tail: [u8; 0x100 - 0x0B0],
    /// The position up to which everything is released.
    pub tail: u64,
    /// The number of events released.
    pub consumed: u64,
    /// Not 0 while the consumer may be waiting: on the futex (1) or on the FIFO (2).
    pub waiting: u32,
    /// The consumer's pid. Also tells whether `consumer_abi` is its own.
    pub consumer_pid: u32,
    /// How often the consumer found the ring corrupt.
    pub resyncs: u64,
    /// The newest version that the consumer reads.
    pub consumer_abi: u32,
    /// Equal to `consumer_pid` if that consumer wrote `consumer_abi`; otherwise an earlier one did.
    pub consumer_abi_pid: u32,
    reserved_consumer: [u8; HEADER_SIZE - 0x128],
}

const _: () = {
    assert!(size_of::<FileHeader>() == HEADER_SIZE);
    assert!(offset_of!(FileHeader, abi_version) == 0x008);
    assert!(offset_of!(FileHeader, header_size) == 0x00C);
    assert!(offset_of!(FileHeader, capacity) == 0x010);
    assert!(offset_of!(FileHeader, id) == 0x018);
    assert!(offset_of!(FileHeader, head) == 0x080);
    assert!(offset_of!(FileHeader, sequence) == 0x088);
    assert!(offset_of!(FileHeader, dropped) == 0x090);
    assert!(offset_of!(FileHeader, producer_pid) == 0x098);
    assert!(offset_of!(FileHeader, fifo_pid) == 0x09C);
    assert!(offset_of!(FileHeader, publications) == 0x0A0);
    assert!(offset_of!(FileHeader, fifo_inode) == 0x0A8);
    assert!(offset_of!(FileHeader, tail) == 0x100);
    assert!(offset_of!(FileHeader, consumed) == 0x108);
    assert!(offset_of!(FileHeader, waiting) == 0x110);
    assert!(offset_of!(FileHeader, consumer_pid) == 0x114);
    assert!(offset_of!(FileHeader, resyncs) == 0x118);
    assert!(offset_of!(FileHeader, consumer_abi) == 0x120);
    assert!(offset_of!(FileHeader, consumer_abi_pid) == 0x124);
};

/// A word of the header that changes while the ring is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// u32, written by the producer.
    AbiVersion,
    /// u64, written by the producer.
    Head,
    /// u64, written by the producer.
    Sequence,
    /// u64, written by the producer.
    Dropped,
    /// u32, written by the producer.
    ProducerPid,
    /// u32, written by the producer.
    FifoPid,
    /// u32, written by the producer: the futex word.
    Publications,
    /// u64, written by the producer.
    FifoInode,
    /// u64, written by the consumer.
    Tail,
    /// u64, written by the consumer.
    Consumed,
    /// u32, written by the consumer.
    Waiting,
    /// u32, written by the consumer.
    ConsumerPid,
    /// u64, written by the consumer.
    Resyncs,
    /// u32, written by the consumer.
    ConsumerAbi,
    /// u32, written by the consumer.
    ConsumerAbiPid,
}

impl Word {
    /// Every word, for memories that do not consist of bytes.
    pub const ALL: [Word; 15] = [
        Word::AbiVersion,
        Word::Head,
        Word::Sequence,
        Word::Dropped,
        Word::ProducerPid,
        Word::FifoPid,
        Word::Publications,
        Word::FifoInode,
        Word::Tail,
        Word::Consumed,
        Word::Waiting,
        Word::ConsumerPid,
        Word::Resyncs,
        Word::ConsumerAbi,
        Word::ConsumerAbiPid,
    ];

    /// The word's offset in the file.
    pub const fn offset(self) -> usize {
        match self {
            Word::AbiVersion => offset_of!(FileHeader, abi_version),
            Word::Head => offset_of!(FileHeader, head),
            Word::Sequence => offset_of!(FileHeader, sequence),
            Word::Dropped => offset_of!(FileHeader, dropped),
            Word::ProducerPid => offset_of!(FileHeader, producer_pid),
            Word::FifoPid => offset_of!(FileHeader, fifo_pid),
            Word::Publications => offset_of!(FileHeader, publications),
            Word::FifoInode => offset_of!(FileHeader, fifo_inode),
            Word::Tail => offset_of!(FileHeader, tail),
            Word::Consumed => offset_of!(FileHeader, consumed),
            Word::Waiting => offset_of!(FileHeader, waiting),
            Word::ConsumerPid => offset_of!(FileHeader, consumer_pid),
            Word::Resyncs => offset_of!(FileHeader, resyncs),
            Word::ConsumerAbi => offset_of!(FileHeader, consumer_abi),
            Word::ConsumerAbiPid => offset_of!(FileHeader, consumer_abi_pid),
        }
    }

    /// Whether the word is a u32 (the others are u64).
    pub const fn is_u32(self) -> bool {
        match self {
            Word::AbiVersion | Word::ProducerPid | Word::FifoPid | Word::Publications => true,
            Word::Waiting | Word::ConsumerPid | Word::ConsumerAbi | Word::ConsumerAbiPid => true,
            Word::Head | Word::Sequence | Word::Dropped | Word::FifoInode => false,
            Word::Tail | Word::Consumed | Word::Resyncs => false,
        }
    }
}

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An event with its sections.
    Event,
    /// Unused room at the end of the data area, where the next event did not fit.
    Padding,
}

impl RecordKind {
    /// The code in the record.
    pub const fn code(self) -> u32 {
        match self {
            RecordKind::Event => 1,
            RecordKind::Padding => 2,
        }
    }

    /// The kind with this code, if there is one.
    pub const fn from_code(code: u32) -> Option<RecordKind> {
        match code {
            1 => Some(RecordKind::Event),
            2 => Some(RecordKind::Padding),
            _ => None,
        }
    }
}

/// The kinds of sections that this version writes or reads.
pub mod section {
    /// Ignored by readers.
    pub const FILLER: u32 = 0;
    /// UTF-8.
    pub const IDENTITY_ID: u32 = 1;
    /// UTF-8.
    pub const IDENTITY_NAME: u32 = 2;
    /// UTF-8.
    pub const GROUP_NAME: u32 = 3;
    /// UTF-8.
    pub const GROUP_ID: u32 = 4;
    /// UTF-8.
    pub const DEVICE_IP: u32 = 5;
    /// UTF-8, a JSON object.
    pub const EXT_JSON: u32 = 6;
    /// JPEG.
    pub const REG_PIC: u32 = 7;
    /// JPEG.
    pub const SPOT_PIC: u32 = 8;
    /// UTF-8, a JSON object.
    pub const TOP_JSON: u32 = 9;
    /// The place and name of each named picture.
    pub const NAMES: u32 = 10;
    /// JPEG: the picture of the first name. The kinds after it are for the next names.
    pub const NAMED_PIC: u32 = 16;
    /// One more than the highest known kind.
    pub const KNOWN: u32 = NAMED_PIC + super::MAX_PICTURES as u32;
}

/// A private copy of an event record's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecordHeader {
    /// The length of the whole record, in bytes: a multiple of 8.
    pub length: u32,
    /// Grows by at least 1 from event to event.
    pub sequence: u64,
    /// Unix epoch, UTC, in milliseconds.
    pub timestamp_ms: i64,
    /// Not checked yet: any value is possible, including NaN.
    pub score: f32,
    /// 1..=5, 0 for not reported; not checked yet.
    pub person_type: i32,
    /// 0..=4, -1 for not reported; not checked yet.
    pub device_type: i32,
}

/// The number of words of an event record before its sections.
pub const EVENT_HEADER_WORDS: usize = EVENT_HEADER / ALIGN;

impl RecordHeader {
    /// The header as words, as they are in the ring.
    pub fn to_words(self) -> [u64; EVENT_HEADER_WORDS] {
        [
            pack(self.length, RecordKind::Event.code()),
            self.sequence,
            self.timestamp_ms as u64,
            pack(self.score.to_bits(), self.person_type as u32),
            pack(self.device_type as u32, 0),
        ]
    }

    /// The header from its words; the caller has checked the kind.
    pub fn from_words(words: [u64; EVENT_HEADER_WORDS]) -> RecordHeader {
        RecordHeader {
            length: low(words[0]),
            sequence: words[1],
            timestamp_ms: words[2] as i64,
            score: f32::from_bits(low(words[3])),
            person_type: high(words[3]) as i32,
            device_type: low(words[4]) as i32,
        }
    }
}

/// Combines two u32 into a u64, the first one at its lower address.
pub const fn pack(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

/// The u32 at the lower address of a u64.
pub const fn low(word: u64) -> u32 {
    word as u32
}

/// The u32 at the higher address of a u64.
pub const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// `length` rounded up to a multiple of [`ALIGN`]; `length` is at most 2 GiB.
pub const fn aligned(length: usize) -> usize {
    (length + ALIGN - 1) & !(ALIGN - 1)
}

/// Whether this program reads rings of this version.
pub const fn is_known_version(version: u32) -> bool {
    version >= OLDEST_ABI && version <= ABI_VERSION
}

/// Whether this is a valid capacity, in bytes.
pub const fn is_capacity(capacity: u64) -> bool {
    capacity.is_power_of_two() && capacity >= MIN_CAPACITY && capacity <= MAX_CAPACITY
}

/// Whether these positions are possible in a ring of `capacity`.
pub fn positions_are_plausible(head: u64, tail: u64, capacity: u64) -> bool {
    head.wrapping_sub(tail) <= capacity && head.is_multiple_of(8) && tail.is_multiple_of(8)
}
