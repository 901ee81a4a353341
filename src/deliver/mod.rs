//! From one event to every destination, and back to the ring when all have it.
//!
//! ```text
//!                   ┌─▶ Lane ─▶ Client ─▶ server 1 ─┐
//!  Delivery ────────┼─▶ Lane ─▶ Client ─▶ server 2 ─┼──▶ done ──▶ Ledger ──▶ the ring's tail
//!  (event)         └─▶ Lane ─▶ …                  ─┘   (the last one)  (in order)
//! ```
//!
//! This version has no spool: an event waits in the ring until every destination has acknowledged or refused it.

pub mod backoff;
pub mod client;
pub mod lane;
pub mod ledger;
pub mod outcome;
pub mod tls;
pub mod transport;
pub mod unacknowledged;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use client::Upload;
use lane::Lane;
use ledger::Ticket;

/// An event that some destinations do not have yet.
pub struct Delivery {
    /// What is sent.
    pub upload: Upload,
    /// Over all rings, the order in which events were read.
    pub order: u64,
    waiting: Cell<usize>,
    ticket: RefCell<Option<Ticket>>,
}

impl Delivery {
    /// One destination needs it no more; the last one releases it.
    fn done(&self) {
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() == 0
            && let Some(ticket) = self.ticket.take()
        {
            ticket.release();
        }
    }
}

/// All lanes.
#[derive(Default)]
pub struct FanOut {
    lanes: RefCell<Vec<Rc<Lane>>>,
    order: Cell<u64>,
}

impl FanOut {
    /// Sends `upload` to every destination; `ticket` is released when all have it. Without destinations that is at once.
    pub fn send(&self, upload: Upload, ticket: Ticket) {
        let lanes = self.lanes.borrow();
        if lanes.is_empty() {
            ticket.release();
            return;
        }
        self.order.set(self.order.get() + 1);
        let delivery = Rc::new(Delivery {
            upload,
            order: self.order.get(),
            waiting: Cell::new(lanes.len()),
            ticket: RefCell::new(Some(ticket)),
        });
        lanes.iter().for_each(|lane| lane.push(Rc::clone(&delivery)));
    }

    /// The lanes, in the order of the config.
    pub fn lanes(&self) -> Vec<Rc<Lane>> {
        self.lanes.borrow().clone()
    }

    /// Makes `lanes` the lanes. What waits for the first removed one goes to the first added one, and so on; where fewer were added
    /// than removed, the last one added gets the rest.
    pub fn replace(&self, lanes: Vec<Rc<Lane>>) {
        let old = self.lanes.replace(lanes.clone());
        let is_in = |lane: &Rc<Lane>, list: &[Rc<Lane>]| list.iter().any(|other| Rc::ptr_eq(lane, other));
        let mut added = lanes.iter().filter(|lane| !is_in(lane, &old));
        let mut heir = None;
        for removed in old.iter().filter(|lane| !is_in(lane, &lanes)) {
            heir = added.next().or(heir);
            removed.close(heir.cloned());
        }
    }
}
