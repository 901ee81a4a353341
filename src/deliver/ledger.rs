//! What of a ring was read and is not released: a ticket for each event, given back in any order, released in the ring's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::ring::consumer::Releaser;
use crate::ring::file::RingFile;

/// Events read and not released, at most. More would only fill memory with what the ring holds anyway.
pub const WINDOW: usize = 256;

/// Bytes of texts of such events, about: no more is read once it is reached.
const WEIGHT: usize = 1 << 20;

/// One ring's ledger.
#[derive(Debug)]
pub struct Ledger {
    releaser: RefCell<Releaser<Arc<RingFile>>>,
    entries: RefCell<VecDeque<Entry>>,
    /// The number of the first entry.
    first: Cell<u64>,
    /// Events among the entries that are not done.
    open: Cell<usize>,
    /// Their memory, in bytes.
    weight: Cell<usize>,
    /// An entry was released.
    released: Notify,
}

#[derive(Debug)]
struct Entry {
    /// The position after it.
    end: u64,
    events: u64,
    weight: usize,
    done: bool,
}

/// An event's hold on its room in the ring. Only [`Ticket::release`] ends it: an event that is merely forgotten, as at the end
/// of the process, stays in the ring.
#[derive(Debug)]
#[must_use = "the event stays in the ring until its ticket is released"]
pub struct Ticket {
    ledger: Rc<Ledger>,
    number: u64,
}

impl Ledger {
    /// A ledger with nothing in it.
    pub fn new(releaser: Releaser<Arc<RingFile>>) -> Rc<Ledger> {
        Rc::new(Ledger {
            releaser: RefCell::new(releaser),
            entries: RefCell::default(),
            first: Cell::new(0),
            open: Cell::new(0),
            weight: Cell::new(0),
            released: Notify::new(),
        })
    }

    /// An event was read; its record ends at `end`, and it takes `weight` bytes of memory.
    pub fn enter(self: &Rc<Self>, end: u64, weight: usize) -> Ticket {
        let number = self.first.get() + self.entries.borrow().len() as u64;
        self.entries.borrow_mut().push_back(Entry { end, events: 1, weight, done: false });
        self.open.set(self.open.get() + 1);
        self.weight.set(self.weight.get() + weight);
        Ticket { ledger: Rc::clone(self), number }
    }

    /// Nobody needs what lies before `end`, in which there were `events` events: it is released with what comes before it.
    pub fn skip(&self, end: u64, events: u64) {
        {
            let mut entries = self.entries.borrow_mut();
            match entries.back_mut().filter(|last| last.done) {
                // One entry for all in a row: a hostile producer can cause as many as it likes.
                Some(last) => (last.end, last.events) = (end, last.events + events),
                None => entries.push_back(Entry { end, events, weight: 0, done: true }),
            }
        }
        self.release();
    }

    /// Whether another event may be read.
    pub fn has_room(&self) -> bool {
        self.open.get() < WINDOW && self.weight.get() < WEIGHT
    }

    /// The position up to which everything is released.
    pub fn tail(&self) -> u64 {
        self.releaser.borrow().tail()
    }

    /// Writes the ring's words again; to be called once in a while.
    pub fn refresh(&self) {
        self.releaser.borrow().refresh();
    }

    /// Waits until something was released.
    pub async fn released(&self) {
        self.released.notified().await;
    }

    fn finish(&self, number: u64) {
        let index = (number - self.first.get()) as usize;
        let weight = {
            let entry = &mut self.entries.borrow_mut()[index];
            entry.done = true;
            entry.weight
        };
        self.open.set(self.open.get() - 1);
        self.weight.set(self.weight.get() - weight);
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
            (last, events) = (Some(entry.end), events + entry.events);
            self.first.set(self.first.get() + 1);
        }
        if let Some(end) = last {
            self.releaser.borrow_mut().release(end, events);
        }
        self.released.notify_one();
    }
}

impl Ticket {
    /// Nobody needs the event any more.
    pub fn release(self) {
        self.ledger.finish(self.number);
    }
}
