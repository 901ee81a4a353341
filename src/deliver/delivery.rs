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
use super::job::Job;
use super::lane::{Hold, Lane};
use super::ledger::Ticket;
use super::record::{Record, Relocatable};
use crate::event::Event;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;

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
    /// The ring needs its room.
    pressed: Cell<bool>,
    /// The process ends.
    ending: Cell<bool>,
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
    /// Not wanted by the server: to be kept as a dead letter.
    Condemned,
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
    /// The ring needs its room, and it does not fit into the spool.
    Evicted,
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

/// Why a job was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The spool cannot do it now.
    Later,
    /// This event will never be stored.
    Unfit,
    /// The ring's file went away.
    Lost,
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
            ending: Cell::new(false),
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

    /// The process ends: it goes to the spool, or stays in the ring.
    pub fn keep(&self) {
        self.ending.set(true);
    }

    /// Whether it is, or may soon be, in the spool for some destination.
    fn is_known_to_spool(&self) -> bool {
        let is_storing = |share: &Share| matches!(share.stage, Stage::Storing(_));
        self.counter.get().is_some() || self.shares.borrow().iter().any(is_storing)
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
    pub fn condemn(&self, lane: &Lane) {
        self.set(lane, Stage::Condemned);
    }

    /// A removed lane's share goes to those of `heirs` that never had one. False: it is to go the way of the spool, because the heirs
    /// may get the event from there too, after another removed lane, and nobody is to have it twice.
    pub fn hand_over(self: &Rc<Self>, lane: &Lane, heirs: &[Rc<Lane>]) -> bool {
        if heirs.is_empty() || self.is_known_to_spool() {
            return false;
        }
        for heir in heirs {
            let is_known = self.shares.borrow().iter().any(|share| Rc::ptr_eq(&share.lane, heir));
            if !is_known {
                self.shares.borrow_mut().push(Share { lane: Rc::clone(heir), stage: Stage::Queued });
                heir.enter(Rc::clone(self));
            }
        }
        lane.count_handed_over();
        self.finish(lane);
        true
    }

    /// Whether a removed lane's share is still here.
    pub fn waits_for_removed(&self) -> bool {
        self.shares.borrow().iter().any(|share| share.is_open() && share.lane.is_closed())
    }

    /// What the spool is to do for it now, if anything; the shares concerned wait for [`Delivery::stored`].
    pub fn job(&self) -> Option<Job> {
        let (record, frame) = self.record.place_of(self.frame);
        let ring = self.upload.event.id.ring;
        let (to, dead, flying) = Default::default();
        let mut job = Job { ring, record, frame, counter: self.counter.get(), to, dead, flying };
        let (pressed, ending, unfit) = (self.pressed.get(), self.ending.get(), self.unfit.get());
        for share in self.shares.borrow_mut().iter_mut() {
            let lane = &share.lane;
            share.stage = match std::mem::replace(&mut share.stage, Stage::Over) {
                Stage::Queued if unfit && pressed && !ending && lane.wants_spool() => {
                    lane.withdraw(self);
                    lane.count_end(End::Evicted);
                    Stage::Over
                }
                Stage::Queued if !unfit && (pressed || ending || lane.wants_spool()) => {
                    job.to.push(lane.target());
                    Stage::Storing(Meanwhile::Waits(lane.withdraw(self)))
                }
                Stage::Flying if !unfit && (pressed || ending) => {
                    job.to.push(lane.target());
                    job.flying.push(lane.destination());
                    Stage::Storing(Meanwhile::Flies)
                }
                Stage::Condemned => {
                    job.dead.push((lane.target(), lane.refusal(1)));
                    Stage::Storing(Meanwhile::Ended(End::Refused))
                }
                other => other,
            };
        }
        self.release_if_over();
        (!job.to.is_empty() || !job.dead.is_empty()).then_some(job)
    }

    /// The job was done: the event is durable under this number.
    pub fn stored(self: &Rc<Self>, counter: u64) {
        self.counter.set(Some(counter));
        self.each_storing(|lane, meanwhile| {
            lane.count_spooled();
            match meanwhile {
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

    /// The job could not be done: everything is as before. Only what cannot wait is given up: a dead letter whose room the ring needs.
    pub fn not_stored(self: &Rc<Self>, why: NotStored) {
        self.unfit.set(why == NotStored::Unfit || self.unfit.get());
        let gives_up = self.unfit.get() || (self.pressed.get() && !self.ending.get());
        let mut back = Vec::new();
        self.each_storing(|lane, meanwhile| match meanwhile {
            Meanwhile::Flies => Stage::Flying,
            Meanwhile::Ended(End::Refused) if !gives_up && why != NotStored::Lost => Stage::Condemned,
            Meanwhile::Ended(end) => {
                lane.count_end(end);
                Stage::Over
            }
            Meanwhile::Waits(_) | Meanwhile::Failed(_) if why == NotStored::Lost => {
                lane.count_end(End::Lost);
                Stage::Over
            }
            Meanwhile::Waits(hold) | Meanwhile::Failed(hold) => {
                back.push((Rc::clone(lane), hold));
                Stage::Queued
            }
        });
        for (lane, hold) in back {
            lane.put(Rc::clone(self), hold);
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
            Stage::Spooled(_) => !self.record.is_relocated(),
            _ => true,
        });
        if !needed && let Some(ticket) = self.ticket.take() {
            ticket.release();
        }
    }
}

impl Share {
    fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Over | Stage::Spooled(_))
    }
}
