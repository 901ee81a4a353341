//! Takes records out of a ring whose producer is not trusted.
//!
//! The [`Reader`] has a position of its own. It loads `head` once (acquire), checks it, copies a record's header once, checks the
//! copy against what is published and against the ring, and only then says where the record lies. Nothing that fails a check is
//! taken for an end of data: it is a [`Corrupt`] ring, counted in the header, and reading goes on at the producer's position.
//!
//! The [`Releaser`] gives room back, in the order of the records. `tail` in the header is a copy of its private position.
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

/// A record that passed the checks of its frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// The private copy of its fixed part.
    pub header: RecordHeader,
    /// Where it begins in the data area, in bytes.
    pub offset: usize,
    /// The position after it: what to release.
    pub end: u64,
}

/// The ring broke its protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is corrupt at position {position}: {reason}; reading goes on at {resume}")]
pub struct Corrupt {
    /// Where it was noticed.
    pub position: u64,
    /// What is wrong.
    pub reason: String,
    /// Where reading goes on: release up to here.
    pub resume: u64,
}

/// Reads records, each once.
#[derive(Debug)]
pub struct Reader<M> {
    memory: M,
    capacity: u64,
    position: u64,
    /// A `head` that made no sense and was reported, and the count of publications then.
    suspect: Option<(u64, u32)>,
    resyncs: u64,
}

/// Gives room back to the producer.
#[derive(Debug)]
pub struct Releaser<M> {
    memory: M,
    tail: u64,
    consumed: u64,
}

/// Attaches to a ring at the place up to which it was released. A `tail` that contradicts `head` is a corrupt ring: reading
/// begins at `head` then, and the third value says so.
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

/// The frame of a record that was read before and is not released, with its header read and checked once more: `end` is the position
/// after it, `length` what it takes. None where the header says something else by now.
pub fn frame_again(memory: &impl Memory, end: u64, length: u32) -> Option<Frame> {
    let offset = (end.wrapping_sub(u64::from(length)) & (memory.capacity() - 1)) as usize;
    let words = std::array::from_fn(|index| memory.word(offset + index * ALIGN));
    let header = RecordHeader::from_words(words);
    let is_the_same = RecordKind::from_code(high(words[0])) == Some(RecordKind::Event) && header.length == length;
    is_the_same.then_some(Frame { header, offset, end })
}

impl<M: Memory> Reader<M> {
    /// The next event's frame; none when everything published has been read.
    ///
    /// # Errors
    /// [`Corrupt`]; the next call goes on after it.
    pub fn read(&mut self) -> Result<Option<Frame>, Corrupt> {
        loop {
            // Acquire: what was written before this head was published is seen.
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

    /// Whether everything before `position` was read.
    pub fn is_past(&self, position: u64) -> bool {
        position.wrapping_sub(self.position).wrapping_sub(1) >= self.capacity
    }

    /// How much is published and not read, in bytes; none for nothing.
    ///
    /// A `head` that makes no sense is reported once and waited out: with its next event the producer writes it anew, and what
    /// lies before it may be whole. If it still makes no sense then, the producer really is elsewhere, and we go there.
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

    /// Checks the record at the position, of which at most `available` bytes are published.
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
    /// Gives back everything before `end`, in which there were `events` events.
    pub fn release(&mut self, end: u64, events: u64) {
        self.tail = end;
        self.consumed = self.consumed.wrapping_add(events);
        self.refresh();
    }

    /// Everything before this position was given back.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Writes the words again: should something have overwritten them, the producer finds the ring full until then.
    pub fn refresh(&self) {
        self.memory.store(Word::Consumed, self.consumed, Ordering::Relaxed);
        // Release: our reads of the room are over before the producer sees it free.
        self.memory.store(Word::Tail, self.tail, Ordering::Release);
    }
}

fn align_down(position: u64) -> u64 {
    position & !(ALIGN as u64 - 1)
}
