//! Tracks the events of a ring that were read and not released yet: a ticket for each event. Tickets are returned in any order;
//! the ring is released in its own order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::core::EventNo;
use crate::event::{Event, EventId};
use crate::ring::Memory as _;
use crate::ring::consumer::{self, Frame, Releaser};
use crate::ring::file::{RingFile, RingId};

/// The most events that are read and not released; each takes 40 bytes here. Only a ring of tiny events reaches it.
const MOST: usize = 1 << 16;

/// One ring's ledger.
#[derive(Debug)]
pub struct Ledger {
    file: Arc<RingFile>,
    releaser: RefCell<Releaser<Arc<RingFile>>>,
    entries: RefCell<VecDeque<Entry>>,
    /// The number of the first entry.
    first: Cell<u64>,
    /// The number of the first entry that was not spilled.
    spilled: Cell<u64>,
    /// The first entry at the last check, and since when it has been the first.
    seen: Cell<(u64, Instant)>,
    /// Signals that an entry was released.
    released: Notify,
}

#[derive(Debug)]
struct Entry {
    /// The ring position after the entry.
    end: u64,
    /// The event's number over all rings.
    event: EventNo,
    /// The event's sequence number in the ring.
    sequence: u64,
    /// The event's length, in bytes.
    length: u32,
    events: u32,
    done: bool,
}

/// The right to release one event's room in the ring. Only [`Ticket::release`] releases it: an event whose ticket is dropped, as
/// at the end of the process, stays in the ring.
#[derive(Debug)]
#[must_use = "the event stays in the ring until its ticket is released"]
pub struct Ticket {
    ledger: Rc<Ledger>,
    number: u64,
}

impl Ledger {
    /// An empty ledger of `file`.
    pub fn new(file: Arc<RingFile>, releaser: Releaser<Arc<RingFile>>) -> Rc<Ledger> {
        Rc::new(Ledger {
            file,
            releaser: RefCell::new(releaser),
            entries: RefCell::default(),
            first: Cell::new(0),
            spilled: Cell::new(0),
            seen: Cell::new((0, Instant::now())),
            released: Notify::new(),
        })
    }

    /// Adds an event that was read at `frame`.
    pub fn enter(self: &Rc<Self>, frame: &Frame, event: EventNo) -> Ticket {
        let number = self.first.get() + self.entries.borrow().len() as u64;
        let (end, length, sequence) = (frame.end, frame.header.length, frame.header.sequence);
        self.entries.borrow_mut().push_back(Entry { end, event, sequence, length, events: 1, done: false });
        Ticket { ledger: Rc::clone(self), number }
    }

    /// Marks everything before `end` as done, with `events` events in it; it is released after all entries before it.
    pub fn skip(&self, end: u64, events: u32) {
        {
            let mut entries = self.entries.borrow_mut();
            match entries.back_mut().filter(|last| last.done && last.events < u32::MAX - events) {
                // Merged with the entry before, because a hostile producer can cause any number of them.
                Some(last) => (last.end, last.events) = (end, last.events + events),
                None => {
                    let event = EventNo(0);
                    entries.push_back(Entry { end, event, sequence: 0, length: 0, events, done: true });
                }
            }
        }
        self.release();
    }

    /// Whether another event may be read.
    pub fn has_room(&self) -> bool {
        self.entries.borrow().len() < MOST
    }

    /// The ring position up to which everything is released.
    pub fn tail(&self) -> u64 {
        self.releaser.borrow().tail()
    }

    /// The events that are not done and whose room (with the padding before it) begins less than `bytes` after the tail. Events
    /// that an earlier call returned are left out.
    pub fn to_spill(&self, bytes: u64) -> Vec<EventNo> {
        let (tail, entries) = (self.tail(), self.entries.borrow());
        let from = self.spilled.get().saturating_sub(self.first.get()) as usize;
        let starts = std::iter::once(tail).chain(entries.iter().map(|entry| entry.end));
        let is_near = |(_, start): &(&Entry, u64)| start.wrapping_sub(tail) < bytes;
        let new: Vec<&Entry> =
            entries.iter().zip(starts).skip(from).take_while(is_near).map(|(entry, _)| entry).collect();
        self.spilled.set(self.first.get() + (from + new.len()) as u64);
        new.into_iter().filter(|entry| !entry.done).map(|entry| entry.event).collect()
    }

    /// The oldest event that is not done.
    pub fn oldest(&self) -> Option<EventNo> {
        self.entries.borrow().front().filter(|entry| !entry.done).map(|entry| entry.event)
    }

    /// Whether the oldest event that is not done has been the oldest for at least `age`, counted from the first call that saw it
    /// as the oldest. Has to be called regularly.
    pub fn has_older_than(&self, age: Duration) -> bool {
        if self.entries.borrow().is_empty() {
            return false;
        }
        let now = Instant::now();
        let (oldest, since) = self.seen.get();
        if oldest != self.first.get() {
            self.seen.set((self.first.get(), now));
            return false;
        }
        now.saturating_duration_since(since) >= age
    }

    /// Writes the ring's consumer words again; has to be called once in a while.
    pub fn refresh(&self) {
        self.releaser.borrow().refresh();
    }

    /// Waits until an entry is released.
    pub async fn released(&self) {
        self.released.notified().await;
    }

    fn finish(&self, number: u64) {
        let index = (number - self.first.get()) as usize;
        self.entries.borrow_mut()[index].done = true;
        self.release();
    }

    /// Releases the done entries at the front.
    fn release(&self) {
        let mut entries = self.entries.borrow_mut();
        let mut last = None;
        let mut events = 0;
        while entries.front().is_some_and(|entry| entry.done)
            && let Some(entry) = entries.pop_front()
        {
            (last, events) = (Some(entry.end), events + u64::from(entry.events));
            self.first.set(self.first.get() + 1);
        }
        if entries.capacity() > 4 * entries.len() + 1024 {
            let most = 2 * entries.len();
            entries.shrink_to(most);
        }
        if let Some(end) = last {
            self.releaser.borrow_mut().release(end, events);
        }
        self.released.notify_one();
    }
}

impl Ticket {
    /// Releases the event: no delivery needs it any more.
    pub fn release(self) {
        self.ledger.finish(self.number);
    }

    /// The ring file that has the event.
    pub fn file(&self) -> Arc<RingFile> {
        Arc::clone(&self.ledger.file)
    }

    /// The ring that it came through.
    pub fn ring(&self) -> RingId {
        self.ledger.file.id
    }

    /// Its id.
    pub fn id(&self) -> EventId {
        EventId { ring: self.ring(), sequence: self.entry(|entry| entry.sequence) }
    }

    /// Its length in the ring, in bytes.
    pub fn length(&self) -> u32 {
        self.entry(|entry| entry.length)
    }

    /// Its frame, checked again; none if a faulty recognizer has overwritten it.
    pub fn frame(&self) -> Option<Frame> {
        let (end, length, sequence) = self.entry(|entry| (entry.end, entry.length, entry.sequence));
        consumer::frame_again(&self.ledger.file, end, length).filter(|frame| frame.header.sequence == sequence)
    }

    /// Its texts, read again.
    pub fn event(&self) -> Option<Event> {
        let event = Event::from_record(&self.ledger.file, &self.frame()?, self.ring()).ok()?;
        (!self.ledger.file.lost()).then_some(event) // if the file was truncated, what was read may be zeros
    }

    fn entry<R>(&self, look: impl FnOnce(&Entry) -> R) -> R {
        look(&self.ledger.entries.borrow()[(self.number - self.ledger.first.get()) as usize])
    }
}
