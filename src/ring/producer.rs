//! Publishes events: the Rust counterpart of `include/sophon_ring.h`, for fake-recognizer and the tests.
//!
//! If the ring's name is removed, the producer goes on in a new ring: `RingFile::renewed`.
//!
//! The producer keeps its position, sequence number and counters privately. The words in the header are copies, which are read
//! back only when a ring is taken over. A record is complete before the single store of `head` that publishes it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::file::{OpenError, RingFile, RingId};
use super::layout::{
    ABI_VERSION, ALIGN, EVENT_HEADER, RecordHeader, RecordKind, SECTION_HEADER, Word, aligned, pack,
    positions_are_plausible, section,
};
use super::{Memory, create, wake};

/// The interval between checks of the ring's name, and the interval after a new ring could not be created.
const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// An event as the recognizer reports it: `sophon_event` of the C header. Texts are bytes, because they are not checked yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewEvent<'a> {
    /// The person's id.
    pub identity_id: &'a [u8],
    /// The person's name.
    pub identity_name: &'a [u8],
    /// Empty: the group's id is reported.
    pub group_name: &'a [u8],
    /// The group's id.
    pub group_id: &'a [u8],
    /// Empty: not reported.
    pub device_ip: &'a [u8],
    /// Empty: none; otherwise a JSON object to merge into `ext_data`.
    pub ext_json: &'a [u8],
    /// Unix epoch, UTC, in milliseconds.
    pub timestamp_ms: i64,
    /// Finite.
    pub score: f32,
    /// 1..=5; 0: not reported.
    pub person_type: i32,
    /// 0..=4; -1: not reported.
    pub device_type: i32,
    /// JPEG; empty: none.
    pub reg_pic: &'a [u8],
    /// JPEG; empty: none.
    pub spot_pic: &'a [u8],
    /// Empty: none; otherwise a JSON object with members for the top level.
    pub top_json: &'a [u8],
    /// At most [`MAX_PICTURES`](super::layout::MAX_PICTURES) named pictures.
    pub pictures: &'a [NewPicture<'a>],
}

/// A named picture: `sophon_picture` of the C header. It is not checked yet.
#[derive(Clone, Copy, Debug)]
pub struct NewPicture<'a> {
    /// Where it goes: the code of a [`Place`](crate::event::Place).
    pub place: u8,
    /// Its name there; at most 255 bytes.
    pub name: &'a [u8],
    /// JPEG; empty: left out.
    pub jpeg: &'a [u8],
}

impl<'a> NewEvent<'a> {
    fn needs_newest(&self) -> bool {
        !self.top_json.is_empty() || !self.pictures.is_empty()
    }

    /// The section with the names of its pictures; empty if it has none.
    fn names(&self) -> Vec<u8> {
        let entry = |picture: &NewPicture<'a>| [&[picture.place, picture.name.len() as u8], picture.name].concat();
        self.pictures.iter().flat_map(entry).collect()
    }

    /// Its sections that are not empty, in order.
    fn sections<'b>(&'b self, names: &'b [u8]) -> impl Iterator<Item = (u32, &'b [u8])> {
        let before = [
            (section::IDENTITY_ID, self.identity_id),
            (section::IDENTITY_NAME, self.identity_name),
            (section::GROUP_NAME, self.group_name),
            (section::GROUP_ID, self.group_id),
            (section::DEVICE_IP, self.device_ip),
            (section::EXT_JSON, self.ext_json),
            (section::TOP_JSON, self.top_json),
            (section::NAMES, names),
            (section::REG_PIC, self.reg_pic),
            (section::SPOT_PIC, self.spot_pic),
        ];
        let named = (section::NAMED_PIC..).zip(self.pictures.iter().map(|picture| picture.jpeg));
        before.into_iter().chain(named).filter(|(_, bytes)| !bytes.is_empty())
    }

    /// The length of its record, in bytes.
    pub fn record_len(&self) -> usize {
        let lengths = |(_, bytes): (u32, &[u8])| SECTION_HEADER + aligned(bytes.len());
        EVENT_HEADER + self.sections(&self.names()).map(lengths).sum::<usize>()
    }
}

/// Why an event was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no room; counted as dropped.
    #[error("the ring is full")]
    Full,
    /// The event can never fit.
    #[error("the event is larger than half the ring")]
    TooLarge,
    /// The event needs ABI 2, and the consumer would not read its new parts.
    #[error("the uplink that reads this ring knows ABI 1 only, and this event needs ABI 2: update the uplink")]
    NotUnderstood,
}

/// The producer's side of a ring.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    head: u64,
    sequence: u64,
    dropped: u64,
    publications: u32,
    /// The name of the ring, if it has one.
    name: Option<Name<M>>,
}

/// The name of a ring, and what to do when it is removed.
#[derive(Debug)]
struct Name<M> {
    path: PathBuf,
    /// The folder of the ring, as device and inode number.
    folder: (u64, u64),
    look_at: Instant,
    /// Returns the ring to go on with; none: the old one.
    renew: Renew<M>,
    /// Changes the ring to the newest version; false if that is not possible.
    become_newest: fn(&M) -> bool,
}

/// Creates a ring to replace one whose name was removed from a folder, which is given by device and inode number.
type Renew<M> = fn(&M, &Path, (u64, u64)) -> Result<Option<M>, OpenError>;

impl Producer<RingFile> {
    /// Creates the ring at `path`, or takes over the one there.
    ///
    /// # Errors
    /// Any [`OpenError`] except `Missing`.
    pub fn open(path: &Path, capacity: u64) -> Result<Self, OpenError> {
        let mut producer = Producer::attach(RingFile::open_producer(path, capacity)?);
        producer.name = create::folder_of(path).map(|folder| Name {
            path: path.to_owned(),
            folder,
            look_at: Instant::now() + LOOK.0,
            renew: RingFile::renewed,
            become_newest: RingFile::become_newest,
        });
        Ok(producer)
    }

    /// The ring's id.
    pub fn id(&self) -> RingId {
        self.memory.id
    }
}

impl<M: Memory> Producer<M> {
    /// Continues from the words in the header.
    pub fn attach(memory: M) -> Producer<M> {
        let word = |word| memory.load(word, Ordering::Relaxed);
        let (head, sequence, dropped) = (word(Word::Head), word(Word::Sequence), word(Word::Dropped));
        let publications = word(Word::Publications) as u32;
        Producer { memory, head, sequence, dropped, publications, name: None }
    }

    /// Checks at intervals whether the ring still has its name, and goes on in a new ring if not.
    fn look_at_name(&mut self) {
        let now = Instant::now();
        let Some(name) = self.name.as_mut().filter(|name| name.look_at <= now) else { return };
        name.look_at = now + LOOK.0;
        match (name.renew)(&self.memory, &name.path, name.folder) {
            Ok(None) => {}
            Ok(Some(made)) => *self = Producer { name: self.name.take(), ..Producer::attach(made) },
            Err(_) => name.look_at = now + LOOK.1,
        }
    }

    /// The ring's memory, for tests that corrupt it and benchmarks that observe it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Publishes `event` and returns its sequence number.
    ///
    /// # Errors
    /// [`PublishError`]; the event is not in the ring. The ring may have been upgraded to ABI 2 or replaced, and its
    /// count of dropped events and its `head` may have been written.
    pub fn publish(&mut self, event: &NewEvent<'_>) -> Result<u64, PublishError> {
        self.look_at_name();
        let length = event.record_len();
        if event.needs_newest() && length as u64 <= self.memory.capacity() / 2 && !self.become_newest() {
            return Err(PublishError::NotUnderstood);
        }
        let Some((padding, offset)) = self.place(length)? else {
            self.refuse();
            return Err(PublishError::Full);
        };
        if padding > 0 {
            let at = offset_of(self.head, self.memory.capacity());
            self.memory.set_word(at, pack(padding as u32, RecordKind::Padding.code()));
        }
        self.sequence += 1;
        self.write(offset, length, event);
        self.memory.store(Word::Sequence, self.sequence, Ordering::Relaxed);
        self.head = self.head.wrapping_add((padding + length) as u64);
        // Release: a consumer that sees this head sees the complete record.
        self.memory.store(Word::Head, self.head, Ordering::Release);
        wake::announce(&self.memory, &mut self.publications);
        Ok(self.sequence)
    }

    /// Changes the ring to the newest version; false if that is not possible.
    fn become_newest(&self) -> bool {
        match &self.name {
            Some(name) => (name.become_newest)(&self.memory),
            None => {
                self.memory.store(Word::AbiVersion, u64::from(ABI_VERSION), Ordering::Relaxed);
                true
            }
        }
    }

    /// Whether `event` could be published now. True for an event that can never fit: `publish` refuses that one.
    pub fn has_room(&mut self, event: &NewEvent<'_>) -> bool {
        self.look_at_name();
        !matches!(self.place(event.record_len()), Ok(None))
    }

    /// How many events were refused because the ring was full, since it was created.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts an event that found no room. If the consumer may not have seen `head`, publishes `head` again: that is so if `tail`
    /// is implausible, or if something has overwritten `head` and the consumer waits for events that were published already.
    fn refuse(&mut self) {
        self.dropped += 1;
        self.memory.store(Word::Dropped, self.dropped, Ordering::Relaxed);
        let [head, tail] = [Word::Head, Word::Tail].map(|word| self.memory.load(word, Ordering::Relaxed));
        if head != self.head || !positions_are_plausible(self.head, tail, self.memory.capacity()) {
            self.memory.store(Word::Head, self.head, Ordering::Release);
            wake::announce(&self.memory, &mut self.publications);
        }
    }

    /// The padding before a record of `length` bytes, and the record's offset; none while the ring is too full.
    fn place(&self, length: usize) -> Result<Option<(usize, usize)>, PublishError> {
        let capacity = self.memory.capacity();
        if length as u64 > capacity / 2 {
            return Err(PublishError::TooLarge);
        }
        let offset = offset_of(self.head, capacity);
        let to_end = capacity as usize - offset;
        let (padding, offset) = if length > to_end { (to_end, 0) } else { (0, offset) };
        // Acquire: the consumer's reads of the room are done.
        let tail = self.memory.load(Word::Tail, Ordering::Acquire);
        let plausible = positions_are_plausible(self.head, tail, capacity);
        let room = if plausible { capacity - self.head.wrapping_sub(tail) } else { 0 };
        Ok(((padding + length) as u64 <= room).then_some((padding, offset)))
    }

    fn write(&self, offset: usize, length: usize, event: &NewEvent<'_>) {
        let header = RecordHeader {
            length: length as u32,
            sequence: self.sequence,
            timestamp_ms: event.timestamp_ms,
            score: event.score,
            person_type: event.person_type,
            device_type: event.device_type,
        };
        let mut at = offset;
        for word in header.to_words() {
            self.memory.set_word(at, word);
            at += ALIGN;
        }
        for (kind, bytes) in event.sections(&event.names()) {
            self.memory.set_word(at, pack(kind, bytes.len() as u32));
            at += SECTION_HEADER;
            let (words, rest) = bytes.as_chunks::<ALIGN>();
            for word in words {
                self.memory.set_word(at, u64::from_le_bytes(*word));
                at += ALIGN;
            }
            if !rest.is_empty() {
                let mut word = [0; ALIGN];
                word[..rest.len()].copy_from_slice(rest);
                self.memory.set_word(at, u64::from_le_bytes(word));
                at += ALIGN;
            }
        }
        debug_assert_eq!(at, offset + length);
    }
}

fn offset_of(position: u64, capacity: u64) -> usize {
    (position & (capacity - 1)) as usize
}
