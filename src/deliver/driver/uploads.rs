//! Uploads as tasks, and the texts of events in memory.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Driver, HeldEvent, Running, TEXTS, Texts};
use crate::deliver::client::{IDLE_LIMIT, Upload};
use crate::deliver::core::{EventNo, Input, LaneId, UploadId};
use crate::deliver::failure::{Code, Failure};
use crate::deliver::outcome::AttemptOutcome;
use crate::deliver::permit::{Bodies, BodyPermit};
use crate::deliver::record::Relocatable;
use crate::event::{Event, EventId};

/// Connects one upload's body permit with the core.
struct Port {
    driver: Weak<Driver>,
    lane: LaneId,
    upload: UploadId,
}

impl Bodies for Port {
    fn gone(&self) {
        if let Some(driver) = self.driver.upgrade() {
            driver.handle(Input::BodyGone(self.lane, self.upload));
        }
    }

    fn wanted(&self) -> oneshot::Receiver<bool> {
        let (tell, told) = oneshot::channel();
        if let Some(driver) = self.driver.upgrade() {
            if let Some(running) = driver.uploads.borrow_mut().get_mut(&self.upload) {
                running.body = Some(tell);
            }
            driver.handle(Input::BodyWanted(self.lane, self.upload));
        }
        told
    }

    fn failures(&self) -> u64 {
        let driver = self.driver.upgrade();
        driver.map_or(0, |driver| driver.core.borrow().lane(self.lane).map_or(0, |lane| lane.limit.failures()))
    }
}

impl Driver {
    /// Sends an event from the ring.
    pub(super) fn upload(&self, lane: LaneId, upload: UploadId, event: EventNo) {
        let loaded = {
            let mut core = self.core.borrow_mut();
            let held = core.held_mut(event).expect("held while it is sent");
            held.load().map(|texts| Upload { event: texts, source: held.source() as _ })
        };
        match loaded {
            Some(loaded) => {
                self.texts.borrow_mut().add(event, loaded.event.weight());
                self.send(lane, upload, loaded);
                self.drop_texts();
            }
            None => {
                // A faulty recognizer overwrote the event, or the ring's file was truncated.
                let id = self.core.borrow().held(event).map(|held| held.id()).expect("held");
                self.ended(lane, upload, id, AttemptOutcome::SourceLost, Duration::ZERO);
            }
        }
    }

    /// Sends the event that was picked.
    pub(super) fn upload_picked(&self, lane: LaneId, upload: UploadId) {
        let picked = self.uploads.borrow_mut().remove(&upload).and_then(|running| running.picked);
        self.send(lane, upload, picked.expect("picked"));
    }

    fn send(&self, lane: LaneId, upload: UploadId, loaded: Upload) {
        let destination = self.destination(lane).expect("a lane has a client");
        let (abort, aborted) = oneshot::channel();
        self.uploads.borrow_mut().insert(upload, Running { abort: Some(abort), ..Running::default() });
        let permit = BodyPermit::new(Rc::new(Port { driver: Weak::clone(&self.me), lane, upload }));
        let driver = Weak::clone(&self.me);
        // Boxed, because the runtime copies a task of several kilobytes five times in its life
        // (findings/tokio-copies-of-tasks.sh).
        tokio::task::spawn_local(Box::pin(async move {
            let id = loaded.event.id;
            let (outcome, took) = {
                let sending = destination.endpoints.send(&loaded, permit);
                tokio::select! {
                    biased;
                    sent = sending => sent,
                    // This drops the connection, so nothing reads the event any more.
                    Ok(()) = aborted => (AttemptOutcome::down(Failure::new(Code::Interrupted, "given up because the ring needed its room")), Duration::ZERO),
                }
            };
            drop(loaded);
            if let Some(driver) = driver.upgrade() {
                driver.ended(lane, upload, id, outcome, took);
            }
        }));
    }

    fn ended(&self, lane: LaneId, upload: UploadId, id: EventId, outcome: AttemptOutcome, took: Duration) {
        self.uploads.borrow_mut().remove(&upload);
        if outcome == AttemptOutcome::Acknowledged
            && let Some(one) = self.destination(lane)
        {
            one.recent.acknowledged();
        }
        self.handle(Input::Ended { lane, upload, id, outcome, took });
        // The upload's connection may be idle now.
        if self.armed.get().is_none_or(|armed| armed > Instant::now() + IDLE_LIMIT) {
            self.rearm.notify_one();
        }
    }

    /// Drops the texts of the oldest events while there are too many.
    pub(super) fn drop_texts(&self) {
        while let Some(event) = self.texts.borrow_mut().too_many() {
            if let Some(held) = self.core.borrow_mut().held_mut(event) {
                held.texts = None;
            }
        }
    }
}

impl Texts {
    /// Records that an event's texts are in memory.
    pub(super) fn add(&mut self, event: EventNo, bytes: usize) {
        self.forget(event);
        self.events.insert(event, bytes);
        self.bytes += bytes;
    }

    /// Records that an event's texts are no longer in memory.
    pub(super) fn forget(&mut self, event: EventNo) {
        self.bytes -= self.events.remove(&event).unwrap_or(0);
    }

    /// Forgets and returns the oldest event if there are too many.
    fn too_many(&mut self) -> Option<EventNo> {
        let is_too_much = self.events.len() > TEXTS.0 || self.bytes > TEXTS.1;
        let first = self.events.keys().next().copied().filter(|_| is_too_much)?;
        self.forget(first);
        Some(first)
    }
}

impl HeldEvent {
    /// Its texts, read again if they are not in memory.
    pub(super) fn load(&mut self) -> Option<Rc<Event>> {
        if self.texts.is_none() {
            self.texts = self.ticket.event().map(Rc::new);
        }
        self.texts.clone()
    }

    /// The source of its pictures.
    pub(super) fn source(&mut self) -> Arc<Relocatable> {
        let file = || Arc::new(Relocatable::new(self.ticket.file()));
        Arc::clone(self.source.get_or_insert_with(file))
    }

    pub(super) fn id(&self) -> EventId {
        self.ticket.id()
    }
}
