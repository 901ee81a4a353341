//! Calls of the spool's thread for deliveries, and log messages about their results.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::store::{self, Done, Task};
use super::{Driver, HeldEvent, Running};
use crate::deliver::client::Upload;
use crate::deliver::core::backlog::Wanted;
use crate::deliver::core::spooling::Needs;
use crate::deliver::core::{EventNo, Fate, Input, Job, LaneId, NotStored, Picked, Stored, UploadId};
use crate::deliver::record::Relocatable;
use crate::event::Event;
use crate::picture::PictureSource as _;
use crate::spool::mapped_file::MappedFile;
use crate::spool::store::Reason;
use crate::spool::worker::RealSpool;
use crate::spool::{Destination, Evicted, Moved, ReadError, Recovered, SpooledEvent, State, StoreError};

/// The pause between two checks for a missing key.
const KEY_PAUSE: Duration = Duration::from_secs(2);

/// An event that was read from the spool, or why not.
type Opened = (u64, Result<SpooledEvent<MappedFile>, ReadError>);

impl Driver {
    /// Logs what the opening of the spool found, and starts to move the events of removed destinations.
    pub(super) fn was_opened(&self, found: &Recovered) {
        if found.unavailable.is_none() {
            let Recovered { events, bytes, .. } = found;
            if *events > 0 {
                info!(events, bytes, "the spool has events of an earlier run");
            }
            if found.left > 0 {
                warn!(
                    events = found.left,
                    "another folder is at the spool's path now: the events of the former folder that can be reached are moved into it"
                );
            }
            if found.vanished > 0 {
                warn!(events = found.vanished, "spooled events are missing: somebody removed them");
            }
            for (from, to) in &found.quarantine {
                let to = to.as_ref().map_or("removed, it was too large".into(), |to| format!("now {}", to.display()));
                warn!("{} is not a file of the spool: it was {to}", from.display());
            }
            found.problems.iter().for_each(|fault| warn!("{fault}"));
            for removed in &found.removed {
                let url = removed.url.as_deref().unwrap_or("unknown");
                info!(url, events = removed.events, "a destination with spooled events is not in the config any more");
            }
        }
        self.handle(Input::Opened(found.unavailable.as_ref().map(ToString::to_string)));
    }

    /// Opens the spool, or looks for its key.
    pub(super) fn repair(&self, needs: Needs) {
        self.in_background(async move |driver| match needs {
            Needs::Key => {
                let is_there = driver.worker.call(|spool| spool.check_key().is_ok()).await;
                driver.handle(Input::KeyChecked(is_there));
            }
            Needs::Opening | Needs::Nothing => match driver.worker.call(make_available).await {
                Some(found) => driver.was_opened(&found),
                None => driver.handle(Input::Opened(None)),
            },
        });
    }

    /// Sealed events need a key that is missing: checks until it is there, or nothing is sealed any more. Writes check for the
    /// key as well, but there may be no writes.
    fn look_for_key(&self) {
        if self.looks_for_key.replace(true) {
            return;
        }
        self.in_background(async move |driver| {
            while driver.worker.call(|spool| spool.check_key().is_err()).await {
                tokio::time::sleep(KEY_PAUSE).await;
            }
            driver.looks_for_key.set(false);
            driver.look_into_spool();
        });
    }

    /// Reads an event from the spool, and leases it.
    pub(super) fn pick(&self, lane: LaneId, upload: UploadId, destination: Destination, wanted: Wanted) {
        self.in_background(async move |driver| {
            let opened = driver.worker.call(move |spool| open(spool, destination, &wanted)).await;
            let picked = driver.look_at(lane, upload, destination, opened).await;
            driver.handle(Input::Picked(lane, upload, picked));
        });
    }

    /// Decides whether an event that was read from the spool can be sent.
    async fn look_at(&self, lane: LaneId, upload: UploadId, to: Destination, opened: Option<Opened>) -> Picked {
        let Some((counter, opened)) = opened else { return Picked::Nothing };
        let problem = match opened {
            Ok(record) => match Event::from_record(&record, &record.frame, record.id.ring) {
                // If the file has gone, what was read may be zeros.
                _ if record.lend(0..0, &mut |_| ()).is_err() => {
                    self.worker.call(move |spool| spool.skip(to, counter)).await;
                    format!("the spooled event {} cannot be read any more", record.id)
                }
                Ok(event) if self.is_too_old(lane, &event) => {
                    let done = self.worker.call(move |spool| spool.expired(to, counter)).await;
                    done.err().map_or_else(
                        || format!("{}: given up: it is older than bounds.max_age_s", event.id),
                        |fault| fault.to_string(),
                    )
                }
                Ok(event) => {
                    let id = event.id;
                    let source = Arc::new(Relocatable::new(Arc::new(record)));
                    let picked = Some(Upload { event: Rc::new(event), source });
                    self.uploads.borrow_mut().insert(upload, Running { picked, ..Running::default() });
                    return Picked::Event(counter, id);
                }
                Err(malformed) => {
                    let event = record.id;
                    let moved = self.worker.call(move |spool| spool.quarantine(to, counter)).await;
                    let fault = moved.err().map_or(String::new(), |error| format!(" ({error})"));
                    format!("the spooled event {event} is malformed and was moved to quarantine: {malformed}{fault}")
                }
            },
            Err(ReadError::Shortage(fault)) => {
                self.log_problem(lane, &format!("{fault}: the spool is read later"));
                return Picked::Later;
            }
            Err(ReadError::Gone) => return Picked::Unusable(counter),
            Err(error) => {
                if matches!(error, ReadError::Locked { in_use: None, .. }) {
                    self.look_for_key();
                }
                error.to_string()
            }
        };
        self.log_problem(lane, &problem);
        Picked::Unusable(counter)
    }

    /// Tells the spool what becomes of an event.
    pub(super) fn settle_spooled(&self, lane: LaneId, destination: Destination, counter: u64, fate: Fate) {
        let done = self.worker.call(move |spool| {
            let mut evicted = Vec::new();
            let done = match fate {
                Fate::Delivered => spool.delivered(destination, counter).map(drop),
                Fate::Had => spool.had(destination, counter).map(drop),
                Fate::Dead(rejection) => {
                    spool.to_dead(destination, counter, &store::reason_of(&rejection), &mut evicted).map(drop)
                }
                Fate::Skipped => {
                    spool.skip(destination, counter);
                    Ok(())
                }
                Fate::PutBack => {
                    spool.return_lease(destination, counter);
                    Ok(())
                }
            };
            (done, evicted)
        });
        self.in_background(async move |driver| {
            let (done, evicted) = done.await;
            driver.log_evicted(&evicted);
            if let Err(fault) = done {
                driver.log_problem(lane, &fault.to_string());
            }
        });
    }

    /// Stores events in the spool.
    pub(super) fn write(&self, jobs: Vec<Job>) {
        let events: Vec<EventNo> = jobs.iter().map(|job| job.event).collect();
        let (mut tasks, mut is_task) = (Vec::new(), Vec::new());
        for job in jobs {
            let task = self.core.borrow_mut().held_mut(job.event).and_then(|held| held.task(job));
            is_task.push(task.is_some());
            tasks.extend(task);
        }
        self.in_background(async move |driver| {
            let work = move |spool: &mut RealSpool| {
                let done = store::do_all(spool, &tasks);
                (done, matches!(spool.state(), State::Unavailable(_)))
            };
            let (done, is_unavailable) = driver.worker.call(work).await;
            let mut done = done.into_iter();
            let results = events.into_iter().zip(is_task).map(|(event, is_task)| {
                let done = is_task.then(|| done.next()).flatten();
                let result = done.map_or(Err(NotStored::Lost), |done| driver.was_written(event, done, is_unavailable));
                (event, result)
            });
            let results = results.collect();
            driver.handle(Input::Written(results));
        });
    }

    /// Translates the result of a task. If the event was relocated, its uploads read the file from now on.
    fn was_written(
        &self,
        event: EventNo,
        done: Result<Done, StoreError>,
        is_unavailable: bool,
    ) -> Result<Stored, NotStored> {
        match done {
            Ok(done) => {
                self.log_evicted(&done.evicted);
                if let Some(fault) = &done.fault {
                    self.log_limiter.say(|more| warn!("{fault}{more}"));
                }
                let is_relocated = done.moved.is_some();
                if let Some(moved) = done.moved
                    && let Some(held) = self.core.borrow().held(event)
                {
                    held.relocate(moved);
                }
                Ok(Stored { counter: done.counter, is_relocated })
            }
            Err(error) => {
                self.log_evicted(&error.evicted);
                let why = match error.reason {
                    Reason::TooLarge(_) | Reason::NoSuchDestination => NotStored::Unfit,
                    Reason::Lost => NotStored::Lost,
                    Reason::NoKey(_) => return Err(NotStored::Later(error.to_string(), Needs::Key)),
                    _ if is_unavailable => return Err(NotStored::Later(error.to_string(), Needs::Opening)),
                    _ => return Err(NotStored::Later(error.to_string(), Needs::Nothing)),
                };
                let event = self.core.borrow().held(event).map(HeldEvent::id);
                let event = event.map_or(String::new(), |id| id.to_string());
                self.log_limiter.say(|more| warn!(%event, "{error}{more}"));
                Err(why)
            }
        }
    }

    /// Moves some events of removed destinations to their heirs.
    pub(super) fn settle_some(&self) {
        self.in_background(async move |driver| {
            let settled = match driver.worker.call(|spool| spool.settle()).await {
                Ok(Some(moved)) => {
                    driver.moved.set(driver.moved.get().plus(moved));
                    Ok(true)
                }
                Ok(None) => {
                    driver.log_moved();
                    Ok(false)
                }
                Err(fault) => {
                    let problem = format!("{fault}: what waits for a removed destination stays there");
                    driver.log_limiter.say(|more| warn!("{problem}{more}"));
                    Err(())
                }
            };
            driver.handle(Input::Settled(settled));
        });
    }

    fn log_moved(&self) {
        let Moved { to_heirs, brought, vanished } = self.moved.take();
        if to_heirs > 0 {
            info!(moved = to_heirs, "spooled events of a removed destination wait for the new destinations now");
        }
        if brought > 0 {
            info!(moved = brought, "spooled events were brought from the former folder");
        }
        if vanished > 0 {
            warn!(
                events = vanished,
                "spooled events of the former folder cannot be reached: they are lost if it does not come back"
            );
        }
    }

    fn log_evicted(&self, evicted: &[Evicted]) {
        if evicted.is_empty() {
            return;
        }
        let letters = evicted.iter().filter(|one| one.was_dead).count();
        let (events, dead_letters) = self.given_up.get();
        self.given_up.set((events + evicted.len() - letters, dead_letters + letters));
        self.evictions.say(|_| {
            let (events, dead_letters) = self.given_up.take();
            warn!(events, dead_letters, "the spool is full: the oldest were given up; this is said once a minute");
        });
    }

    /// Runs `work` as a task of its own.
    fn in_background<F: Future<Output = ()> + 'static>(&self, work: impl FnOnce(Rc<Driver>) -> F + 'static) {
        if let Some(driver) = self.me.upgrade() {
            tokio::task::spawn_local(work(driver));
        }
    }
}

impl HeldEvent {
    /// The task that the spool needs for `job`; none if the record cannot be read any more.
    fn task(&mut self, job: Job) -> Option<Task> {
        let (ring, frame) = (self.ticket.ring(), self.ticket.frame()?);
        let (record, frame) = self.source().place_of(frame);
        Some(Task { job, ring, record, frame })
    }

    /// Lets its uploads read `record` from now on.
    fn relocate(&self, record: Arc<SpooledEvent<MappedFile>>) {
        if let (Some(source), Some(frame)) = (&self.source, self.ticket.frame()) {
            let shift = record.frame.offset.wrapping_sub(frame.offset);
            source.relocate(record, shift);
        }
    }
}

/// Chooses the wanted event, reads it, and leases it.
fn open(spool: &mut RealSpool, destination: Destination, wanted: &Wanted) -> Option<Opened> {
    let counter = wanted.choose(|after| spool.list(destination, after).map(|waiting| waiting.counter))?;
    let opened = spool.read(destination, counter);
    if opened.is_ok() {
        spool.lease(destination, counter);
    }
    Some((counter, opened))
}

/// Opens a spool that could not be used so far.
fn make_available(spool: &mut RealSpool) -> Option<Recovered> {
    matches!(spool.state(), State::Unavailable(_)).then(|| spool.open_again())
}
