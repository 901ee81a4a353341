//! Reads records from a ring whose producer is not trusted.
//!
//! The [`Reader`] has a private position. It loads `head` once (acquire) and checks it. It copies a record's header once, and
//! checks the copy against the published range and the ring. Only then it returns where the record is. A failed check is never
//! treated as the end of the data: it is reported as a [`Corrupt`] ring and counted in the header, and reading goes on at the
//! producer's position.
//!
//! The [`Releaser`] releases room in the order of the records. `tail` in the header is a copy of its private position.
//!
//! ```text
//!      tail (shared copy)          position (Reader)           head (producer)
//!        ▼                           ▼                           ▼
//!  ──────┬───────────────────────────┬───────────────────────────┬──────
//!  free  │ read, not released yet    │ published, not read yet   │ free
//! ```

use std::sync::atomic::Ordering;

use super::layout::{
    ALIGN, EVENT_HEADER, EVENT_HEADER_WORDS, PADDING_HEADER, RecordHeader, RecordKind, high, low,
    positions_are_plausible,
};
use super::wake::publications;
use super::{Memory, Word};

/// A record whose frame passed all checks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// A private copy of its header.
    pub header: RecordHeader,
    /// Its offset in the data area, in bytes.
    pub offset: usize,
    /// The position after it, for its release.
    pub end: u64,
}

/// The ring violates the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is corrupt at position {position}: {reason}; reading goes on at {resume}")]
pub struct Corrupt {
    /// Where the violation was found.
    pub position: u64,
    /// What is wrong.
    pub reason: String,
    /// Where reading goes on; release everything before it.
    pub resume: u64,
}

/// Reads each record once.
#[derive(Debug)]
pub struct Reader<M> {
    memory: M,
    capacity: u64,
    position: u64,
    /// An implausible `head` that was reported, and the count of publications then.
    suspect: Option<(u64, u32)>,
    resyncs: u64,
}

/// Releases room for the producer.
#[derive(Debug)]
pub struct Releaser<M> {
    memory: M,
    tail: u64,
    consumed: u64,
}

/// Attaches to a ring at its `tail`. If `tail` and `head` contradict each other, the ring is corrupt: reading begins at `head`,
/// and the third value reports that.
pub fn attach<M: Memory + Clone>(memory: M) -> (Reader<M>, Releaser<M>, Option<Corrupt>) {
    let capacity = memory.capacity();
    let head = memory.load(Word::Head, Ordering::Acquire);
    let tail = memory.load(Word::Tail, Ordering::Relaxed);
    let consumed = memory.load(Word::Consumed, Ordering::Relaxed);
    let resyncs = memory.load(Word::Resyncs, Ordering::Relaxed);
    let mut reader = Reader { memory: memory.clone(), capacity, position: tail, suspect: None, resyncs };
    let corrupt = (!positions_are_plausible(head, tail, capacity)).then(|| {
        reader.position = align_down(head);
        reader.corrupt(tail, format!("its tail {tail} contradicts its head {head}"))
    });
    let releaser = Releaser { memory, tail: reader.position, consumed };
    (reader, releaser, corrupt)
}

/// Reads and checks the header of a record again that was read before and is not released. `end` is the position after the
/// record, `length` its length. None if the header has changed.
pub fn frame_again(memory: &impl Memory, end: u64, length: u32) -> Option<Frame> {
    let offset = (end.wrapping_sub(u64::from(length)) & (memory.capacity() - 1)) as usize;
    let words = std::array::from_fn(|index| memory.word(offset + index * ALIGN));
    let header = RecordHeader::from_words(words);
    let is_the_same = RecordKind::from_code(high(words[0])) == Some(RecordKind::Event) && header.length == length;
    is_the_same.then_some(Frame { header, offset, end })
}

impl<M: Memory> Reader<M> {
    /// The next event's frame; none if all published events were read.
    ///
    /// # Errors
    /// [`Corrupt`]; the next call goes on at [`Corrupt::resume`].
    pub fn read(&mut self) -> Result<Option<Frame>, Corrupt> {
        loop {
            // Acquire: everything that was written before this head was published is visible.
            let head = self.memory.load(Word::Head, Ordering::Acquire);
            let Some(available) = self.available(head)? else {
                return Ok(None);
            };
            match self.frame(available) {
                Ok((RecordKind::Padding, frame)) => self.position = frame.end,
                Ok((RecordKind::Event, frame)) => {
                    self.position = frame.end;
                    return Ok(Some(frame));
                }
                Err(reason) => {
                    let position = self.position;
                    self.position = head;
                    return Err(self.corrupt(position, reason));
                }
            }
        }
    }

    /// Whether everything before `position` has been read.
    pub fn is_past(&self, position: u64) -> bool {
        position.wrapping_sub(self.position).wrapping_sub(1) >= self.capacity
    }

    /// How many bytes are published and unread; none instead of zero.
    ///
    /// An implausible `head` is reported once. Then the reader waits for the next publication: the producer then writes `head`
    /// again, and the records before it may be intact. If `head` is still implausible then, the producer really is elsewhere, and
    /// the reader goes there.
    fn available(&mut self, head: u64) -> Result<Option<u64>, Corrupt> {
        if positions_are_plausible(head, self.position, self.capacity) {
            self.suspect = None;
            let available = head.wrapping_sub(self.position);
            return Ok((available > 0).then_some(available));
        }
        let (position, publications) = (self.position, publications(&self.memory));
        match self.suspect {
            Some((_, then)) if then == publications => return Ok(None),
            Some((suspect, _)) => {
                let went_on = positions_are_plausible(head, suspect, self.capacity);
                (self.position, self.suspect) = (if went_on { suspect } else { align_down(head) }, None);
            }
            None => self.suspect = Some((head, publications)),
        }
        Err(self.corrupt(position, format!("its head is {head}")))
    }

    /// Checks the record at the current position; at most `available` bytes of it are published.
    fn frame(&self, available: u64) -> Result<(RecordKind, Frame), String> {
        let offset = (self.position & (self.capacity - 1)) as usize;
        let to_end = self.capacity - offset as u64;
        let first = self.memory.word(offset);
        let length = u64::from(low(first));
        let kind = RecordKind::from_code(high(first)).ok_or_else(|| format!("a record of kind {}", high(first)))?;
        let fits = match kind {
            RecordKind::Padding => length == to_end && length >= PADDING_HEADER as u64,
            RecordKind::Event => length >= EVENT_HEADER as u64 && length <= to_end && length <= self.capacity / 2,
        };
        if !fits || length > available || !length.is_multiple_of(ALIGN as u64) {
            return Err(format!("a record of kind {kind:?} and {length} bytes where {available} are published"));
        }
        let mut words = [0; EVENT_HEADER_WORDS];
        if kind == RecordKind::Event {
            words[0] = first; // the checked copy: the word in the ring may have changed since
            for (index, word) in words.iter_mut().enumerate().skip(1) {
                *word = self.memory.word(offset + index * ALIGN);
            }
        }
        let header = RecordHeader::from_words(words);
        Ok((kind, Frame { header, offset, end: self.position.wrapping_add(length) }))
    }

    fn corrupt(&mut self, position: u64, reason: String) -> Corrupt {
        self.resyncs = self.resyncs.wrapping_add(1);
        self.memory.store(Word::Resyncs, self.resyncs, Ordering::Relaxed);
        Corrupt { position, reason, resume: self.position }
    }
}

impl<M: Memory> Releaser<M> {
    /// Releases everything before `end`, with `events` events in it.
    pub fn release(&mut self, end: u64, events: u64) {
        self.tail = end;
        self.consumed = self.consumed.wrapping_add(events);
        self.refresh();
    }

    /// The position up to which everything is released.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Writes the words again. If something has overwritten them, the producer sees a full ring until then.
    pub fn refresh(&self) {
        self.memory.store(Word::Consumed, self.consumed, Ordering::Relaxed);
        // Release: our reads of the room are done before the producer sees it as free.
        self.memory.store(Word::Tail, self.tail, Ordering::Release);
    }
}

fn align_down(position: u64) -> u64 {
    position & !(ALIGN as u64 - 1)
}
