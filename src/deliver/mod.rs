//! From one event to every destination, and back to the ring when all have it or the spool has it for them.
//!
//! ```text
//!                   ┌─▶ Lane ─▶ Client ─▶ server 1 ─┐
//!  Delivery ────────┼─▶ Lane ─▶ Client ─▶ server 2 ─┼──▶ a share over ──▶ Ledger ──▶ the ring's tail
//!  (event)          └─▶ Lane ─▶ …                  ─┤   (the last one)  (in order)
//!                         ▲                         │
//!                         └── backlog ── spool ◀── Spooler: failure, pressure, shutdown
//! ```
//!
//! | file | what it is |
//! | --- | --- |
//! | [`delivery`] | one event and what each destination's share of it is doing |
//! | [`lane`], [`health`], [`backlog`] | one destination: what is sent when; how it fares; its events in the spool |
//! | [`spooler`], [`job`], [`record`] | from memory to the spool, also under an upload that is reading |
//! | [`client`], [`connect`], [`transport`], [`tls`], [`tls_error`] | one try, and the connection for it |
//! | [`answer`], [`head`], [`progress`], [`link`], [`unacknowledged`] | what comes back, and how long it is waited for |
//! | [`outcome`], [`failure`], [`backoff`], [`recent`] | what an answer means, why a try failed, how long to wait, what became of the last hour's events |
//! | [`ledger`] | what of a ring can be given back |

pub mod answer;
pub mod backlog;
pub mod backoff;
pub mod client;
pub mod connect;
pub mod delivery;
pub mod failure;
pub mod head;
pub mod health;
pub mod history;
pub mod job;
pub mod lane;
pub mod ledger;
pub mod link;
pub mod outcome;
pub mod progress;
pub mod recent;
pub mod record;
pub mod spooler;
pub mod tls;
pub mod tls_error;
pub mod transport;
pub mod unacknowledged;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::event::Event;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use delivery::Delivery;
use lane::Lane;
use ledger::Ticket;
use record::Record;
use spooler::Spooler;

/// All lanes, and what is on its way to them.
pub struct FanOut {
    lanes: RefCell<Vec<Rc<Lane>>>,
    spooler: Rc<Spooler>,
    order: Cell<u64>,
    /// By order. Those that are over are dropped whenever there are many.
    open: RefCell<VecDeque<Weak<Delivery>>>,
    /// Deliveries in `open` at which it is looked through.
    look_through_at: Cell<usize>,
}

/// The least of [`FanOut::look_through_at`].
const FEW: usize = 64;

impl FanOut {
    /// No lanes yet.
    pub fn new(spooler: Rc<Spooler>) -> FanOut {
        FanOut {
            lanes: RefCell::default(),
            spooler,
            order: Cell::new(0),
            open: RefCell::default(),
            look_through_at: Cell::new(FEW),
        }
    }

    /// Sends an event, whose record lies at `frame` of `record`, to every destination; `ticket` is released when all have it, or the
    /// spool for them. Without destinations that is at once.
    pub fn send(&self, event: Event, record: Arc<dyn Record>, frame: Frame, ticket: Ticket) {
        self.order.set(self.order.get() + 1);
        let delivery = Delivery::new(event, record, frame, self.order.get(), ticket);
        self.remember(&delivery);
        delivery.begin(&self.lanes());
    }

    fn remember(&self, delivery: &Rc<Delivery>) {
        let mut open = self.open.borrow_mut();
        if open.len() >= self.look_through_at.get() {
            open.retain(|delivery| delivery.strong_count() > 0);
            self.look_through_at.set((2 * open.len()).max(FEW));
        }
        open.push_back(Rc::downgrade(delivery));
    }

    /// The ring needs the room of what `is_meant`, by its ring and the position of its record: it goes to the spool.
    pub fn press(&self, is_meant: impl Fn(RingId, u64) -> bool) {
        self.to_spool(|delivery| {
            let (ring, position) = delivery.position();
            is_meant(ring, position) && delivery.press()
        });
    }

    /// The process ends: whatever is not sent by then goes to the spool.
    pub fn keep_all(&self) {
        self.to_spool(|delivery| {
            delivery.keep();
            true
        });
    }

    fn to_spool(&self, is_meant: impl Fn(&Delivery) -> bool) {
        for delivery in self.open.borrow().iter().filter_map(Weak::upgrade).filter(|delivery| is_meant(delivery)) {
            self.spooler.add(delivery);
            self.spooler.hurry();
        }
    }

    /// Shares that are neither over nor in the spool.
    pub fn open_shares(&self) -> u64 {
        self.open.borrow().iter().filter_map(Weak::upgrade).map(|delivery| delivery.open_shares()).sum()
    }

    /// The lanes, in the order of the config.
    pub fn lanes(&self) -> Vec<Rc<Lane>> {
        self.lanes.borrow().clone()
    }

    /// Makes `lanes` the lanes. What waits for a removed one goes to each that was added; with none added it is parked in the spool.
    pub fn replace(&self, lanes: Vec<Rc<Lane>>) {
        let old = self.lanes.replace(lanes.clone());
        let is_in = |lane: &Rc<Lane>, list: &[Rc<Lane>]| list.iter().any(|other| Rc::ptr_eq(lane, other));
        let added: Vec<_> = lanes.iter().filter(|lane| !is_in(lane, &old)).cloned().collect();
        old.iter().filter(|lane| !is_in(lane, &lanes)).for_each(|removed| removed.close(added.clone()));
    }
}
