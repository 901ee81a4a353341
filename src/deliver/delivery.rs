//! One event's way to every destination: a share for each, until it has the event, or the spool has it for it.
//!
//! ```text
//!            ┌──────────────── failed ───────────────┐
//!            ▼                                       │
//!  (new) ─▶ Queued ──the lane sends it──▶ Flying ────┴─ acknowledged ──▶ Over
//!            │                               │
//!            │ destination down,             │ the ring needs the room: spooled under the upload,
//!            │ or the ring needs the room    │ which reads on in the file
//!            ▼                               ▼
//!          Storing ──durable──▶ Over       Storing ──durable──▶ Spooled(number), until the upload has landed
//! ```
//!
//! The event's room in the ring is given back when no share needs it any more. A share is counted where its way in memory ends; what
//! becomes of it in the spool, the spool counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::client::Upload;
use super::lane::{Hold, Lane};
use super::ledger::Ticket;
use super::record::{Record, Relocatable};
use crate::event::Event;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use crate::spool::Destination;

/// An event that some destinations do not have yet.
pub struct Delivery {
    /// What is sent.
    pub upload: Upload,
    /// Over all rings, the order in which events were read.
    pub order: u64,
    /// Where its record lay in the ring.
    frame: Frame,
    record: Arc<Relocatable>,
    shares: RefCell<Vec<Share>>,
    /// The ring needs its room, or the process ends.
    pressed: Cell<bool>,
    /// Its number in the spool, once it was stored for some destination.
    counter: Cell<Option<u64>>,
    /// It cannot be stored, whatever becomes of the spool.
    unfit: Cell<bool>,
    ticket: RefCell<Option<Ticket>>,
}

struct Share {
    lane: Rc<Lane>,
    stage: Stage,
}

enum Stage {
    /// In the lane's queue.
    Queued,
    /// On its way.
    Flying,
    /// Not wanted, or nobody to send it to: to be kept as a dead letter. The end is how it counts if that cannot be.
    Condemned(End),
    /// Its lane was removed, and the heirs may get the event out of the spool as well: to be given to them there.
    Inherited,
    /// It is being written. What became of the upload meanwhile, if there was one.
    Storing(Meanwhile),
    /// On its way, and in the spool.
    Spooled(u64),
    /// Nothing is to be done for it in memory.
    Over,
}

/// What a share that is being stored does meanwhile.
enum Meanwhile {
    /// Nothing: it was taken out of the queue, where this was known of it.
    Waits(Hold),
    /// It was on its way, and failed.
    Failed(Hold),
    /// It is on its way.
    Flies,
    /// Its way is over.
    Ended(End),
    /// It is the heirs' then.
    Inherits,
}

/// How a share's way in memory can end but for the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// 2xx.
    Acknowledged,
    /// The server did not want it.
    Refused,
    /// Its pictures went away.
    Lost,
    /// Its destination was removed.
    Abandoned,
}

/// Where a share was when its upload had landed.
pub enum Landed {
    /// In memory.
    Here,
    /// Being stored: the spooler goes on with it.
    Storing,
    /// In the spool under this number: what has become of it is to be done there.
    Spooled(u64),
}

/// What the spool is to do for a delivery.
pub struct Job {
    /// The ring that the event came through.
    pub ring: RingId,
    /// The record.
    pub record: Arc<dyn Record>,
    /// Where it lies in `record`.
    pub frame: Frame,
    /// Its number, if it was stored before.
    pub counter: Option<u64>,
    /// Who is to get it.
    pub to: Vec<Destination>,
    /// Whose dead letter it is to be: URLs, for such a destination may have been removed.
    pub dead: Vec<String>,
    /// Of `to`: whose upload is reading the record. The room in the ring is free only when that reads on in the file.
    pub flying: Vec<Destination>,
}

impl Job {
    /// Whether the event is only to be stored, and new to the spool.
    pub fn is_plain(&self) -> bool {
        self.counter.is_none() && self.dead.is_empty()
    }
}

impl Delivery {
    /// An event just read: its record lies at `frame` of `record`. Nothing happens before [`Delivery::begin`].
    pub fn new(event: Event, record: Arc<dyn Record>, frame: Frame, order: u64, ticket: Ticket) -> Rc<Delivery> {
        let record = Arc::new(Relocatable::new(record));
        Rc::new(Delivery {
            upload: Upload { event, source: Arc::clone(&record) as _ },
            order,
            frame,
            record,
            shares: RefCell::default(),
            pressed: Cell::new(false),
            counter: Cell::new(None),
            unfit: Cell::new(false),
            ticket: RefCell::new(Some(ticket)),
        })
    }

    /// Puts it into the queue of each lane; without lanes it is over.
    pub fn begin(self: &Rc<Self>, lanes: &[Rc<Lane>]) {
        let share = |lane: &Rc<Lane>| Share { lane: Rc::clone(lane), stage: Stage::Queued };
        *self.shares.borrow_mut() = lanes.iter().map(share).collect();
        for lane in lanes {
            lane.enter(Rc::clone(self));
        }
        self.release_if_over();
    }

    /// The ring that it came through, and the position of its record.
    pub fn position(&self) -> (RingId, u64) {
        (self.upload.event.id.ring, self.frame.end.wrapping_sub(u64::from(self.frame.header.length)))
    }

    /// The ring needs its room; false when that was said before.
    pub fn press(&self) -> bool {
        !self.pressed.replace(true)
    }

    /// Shares whose way in memory is not over.
    pub fn open_shares(&self) -> u64 {
        self.shares.borrow().iter().filter(|share| share.is_open()).count() as u64
    }

    /// Its lane sends it.
    pub fn take_off(&self, lane: &Lane) {
        self.set(lane, Stage::Flying);
    }

    /// The upload is over; `end` says how, if it is over for good, else `hold` what is known now. The caller goes on with a share
    /// that is still here.
    pub fn land(&self, lane: &Lane, end: Option<End>, hold: Hold) -> Landed {
        let landed = self.with(lane, |share| match (&share.stage, end) {
            (Stage::Spooled(counter), _) => {
                let counter = *counter;
                share.stage = Stage::Over;
                Landed::Spooled(counter)
            }
            (Stage::Storing(_), end) => {
                share.stage = Stage::Storing(end.map_or(Meanwhile::Failed(hold), Meanwhile::Ended));
                Landed::Storing
            }
            _ => Landed::Here,
        });
        self.release_if_over();
        landed
    }

    /// It is back in its lane's queue.
    pub fn queue(&self, lane: &Lane) {
        self.set(lane, Stage::Queued);
    }

    /// A share's way is over, for good.
    pub fn end(&self, lane: &Lane, end: End) {
        lane.count_end(end);
        self.finish(lane);
    }

    /// A share is to be kept as a dead letter; the spooler must be told.
    pub fn condemn(&self, lane: &Lane, end: End) {
        self.set(lane, Stage::Condemned(end));
    }

    /// A removed lane's share goes to those of `heirs` that never had one. Where they may get the event out of the spool too, after
    /// another removed lane, it goes there: nobody has it twice. Then the spooler must be told, and this returns true.
    pub fn hand_over(self: &Rc<Self>, lane: &Lane, heirs: &[Rc<Lane>]) -> bool {
        let is_storing = |share: &Share| matches!(share.stage, Stage::Storing(_));
        if self.counter.get().is_some() || self.shares.borrow().iter().any(is_storing) {
            self.set(lane, Stage::Inherited);
            return true;
        }
        self.hand_over_here(lane, heirs);
        false
    }

    fn hand_over_here(self: &Rc<Self>, lane: &Lane, heirs: &[Rc<Lane>]) {
        for heir in heirs {
            let is_known = self.shares.borrow().iter().any(|share| Rc::ptr_eq(&share.lane, heir));
            if !is_known {
                self.shares.borrow_mut().push(Share { lane: Rc::clone(heir), stage: Stage::Queued });
                heir.enter(Rc::clone(self));
            }
        }
        lane.count_handed_over(0);
        self.finish(lane);
    }

    /// Whether heirs are to be given it in the spool.
    pub fn is_inherited(&self) -> bool {
        self.shares.borrow().iter().any(|share| matches!(share.stage, Stage::Inherited))
    }

    /// What the spool is to do for it now, if anything; the shares concerned wait for [`Delivery::stored`].
    pub fn job(&self) -> Option<Job> {
        let mut job = Job {
            ring: self.upload.event.id.ring,
            record: self.record.record(),
            frame: self.frame,
            counter: self.counter.get(),
            to: Vec::new(),
            dead: Vec::new(),
            flying: Vec::new(),
        };
        let mut shares = self.shares.borrow_mut();
        // One at a time, for how many of the heirs lacked it is to be counted.
        if let Some(share) = shares.iter_mut().find(|share| matches!(share.stage, Stage::Inherited)) {
            share.stage = Stage::Storing(Meanwhile::Inherits);
            job.to = share.lane.heirs().iter().map(|heir| heir.destination()).collect();
            return Some(job);
        }
        let pressed = self.pressed.get();
        for share in shares.iter_mut() {
            share.stage = match std::mem::replace(&mut share.stage, Stage::Over) {
                Stage::Queued if !self.unfit.get() && (pressed || share.lane.wants_spool()) => {
                    job.to.push(share.lane.destination());
                    Stage::Storing(Meanwhile::Waits(share.lane.withdraw(self)))
                }
                Stage::Flying if !self.unfit.get() && pressed => {
                    job.to.push(share.lane.destination());
                    job.flying.push(share.lane.destination());
                    Stage::Storing(Meanwhile::Flies)
                }
                Stage::Condemned(end) => {
                    job.dead.push(share.lane.url().to_string());
                    Stage::Storing(Meanwhile::Ended(end))
                }
                other => other,
            };
        }
        (!job.to.is_empty() || !job.dead.is_empty()).then_some(job)
    }

    /// The job was done: the event is durable under this number, and was `linked` for so many destinations.
    pub fn stored(self: &Rc<Self>, counter: u64, linked: u64) {
        self.counter.set(Some(counter));
        self.each_storing(|lane, meanwhile| {
            if !matches!(meanwhile, Meanwhile::Inherits) {
                lane.count_spooled();
            }
            match meanwhile {
                Meanwhile::Inherits => {
                    lane.count_handed_over(linked);
                    lane.heirs().iter().for_each(|heir| heir.look_into_spool());
                }
                Meanwhile::Flies => return Stage::Spooled(counter),
                Meanwhile::Waits(hold) => lane.is_spooled(counter, hold),
                Meanwhile::Failed(hold) => lane.is_back_in_spool(counter, hold),
                Meanwhile::Ended(end) => lane.end_spooled(counter, end),
            }
            Stage::Over
        });
        self.release_if_over();
    }

    /// The uploads on their way read on in the spooled file.
    pub fn relocate(&self, record: Arc<dyn Record>, frame: Frame) {
        self.record.relocate(record, frame.offset.wrapping_sub(self.frame.offset));
        self.release_if_over();
    }

    /// The job could not be done: everything is as before, but that what was condemned is given up. With `unfit` it will never be.
    pub fn not_stored(self: &Rc<Self>, unfit: bool) {
        self.unfit.set(unfit || self.unfit.get());
        let (mut back, mut inherited) = (Vec::new(), Vec::new());
        self.each_storing(|lane, meanwhile| match meanwhile {
            Meanwhile::Flies => Stage::Flying,
            Meanwhile::Waits(hold) | Meanwhile::Failed(hold) => {
                back.push((Rc::clone(lane), hold));
                Stage::Queued
            }
            Meanwhile::Ended(end) => {
                lane.count_end(end);
                Stage::Over
            }
            Meanwhile::Inherits => {
                inherited.push(Rc::clone(lane));
                Stage::Queued
            }
        });
        for (lane, hold) in back {
            lane.put(Rc::clone(self), hold);
        }
        for lane in inherited {
            self.hand_over_here(&lane, &lane.heirs());
        }
        self.release_if_over();
    }

    fn each_storing(&self, mut next: impl FnMut(&Rc<Lane>, Meanwhile) -> Stage) {
        for share in self.shares.borrow_mut().iter_mut() {
            share.stage = match std::mem::replace(&mut share.stage, Stage::Over) {
                Stage::Storing(meanwhile) => next(&share.lane, meanwhile),
                other => other,
            };
        }
    }

    fn set(&self, lane: &Lane, stage: Stage) {
        self.with(lane, |share| share.stage = stage);
    }

    fn finish(&self, lane: &Lane) {
        self.set(lane, Stage::Over);
        self.release_if_over();
    }

    fn with<R>(&self, lane: &Lane, act: impl FnOnce(&mut Share) -> R) -> R {
        let mut shares = self.shares.borrow_mut();
        let share = shares.iter_mut().find(|share| std::ptr::eq(&*share.lane, lane));
        act(share.expect("a lane has only what it was given"))
    }

    /// Gives the room in the ring back when no share needs it.
    fn release_if_over(&self) {
        let needed = self.shares.borrow().iter().any(|share| match share.stage {
            Stage::Over => false,
            Stage::Spooled(_) => !self.is_relocated(),
            _ => true,
        });
        if !needed && let Some(ticket) = self.ticket.take() {
            ticket.release();
        }
    }

    fn is_relocated(&self) -> bool {
        self.record.is_relocated()
    }
}

impl Share {
    fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Over | Stage::Spooled(_))
    }
}
