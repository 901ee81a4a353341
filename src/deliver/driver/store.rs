//! Stores events; runs in the spool's thread.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::deliver::core::{Job, Rejection, Target};
use crate::deliver::record::Record;
use crate::picture::PictureSource as _;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use crate::spool::batch::Order;
use crate::spool::mapped_file::MappedFile;
use crate::spool::worker::RealSpool;
use crate::spool::{DeadLetterReason, Destination, Evicted, SpooledEvent, StoreError, Stored};

/// A job for the spool, and the event that it is for.
pub struct Task {
    /// The job.
    pub job: Job,
    /// The ring that the event came through.
    pub ring: RingId,
    /// The memory or file that holds the event's record.
    pub record: Arc<dyn Record>,
    /// The record's place in `record`.
    pub frame: Frame,
}

/// The result of a [`Task`] that was done.
#[derive(Default)]
pub struct Done {
    /// The event's number in the spool.
    pub counter: u64,
    /// Events that were evicted to make room for it.
    pub evicted: Vec<Evicted>,
    /// The stored event, if uploads have to read it from now on.
    pub moved: Option<Arc<SpooledEvent<MappedFile>>>,
    /// Why a dead letter could not be moved out of the waiting events.
    pub fault: Option<String>,
}

/// Does `tasks` in their order. Tasks at the front that only store new events are written together.
pub fn do_all(spool: &mut RealSpool, tasks: &[Task]) -> Vec<Result<Done, StoreError>> {
    let plain = tasks.iter().take_while(|task| task.job.is_plain()).count();
    let (together, alone) = tasks.split_at(plain);
    let folders: Vec<_> = together.iter().map(|task| admit(spool, &task.job)).collect();
    let orders = together.iter().zip(&folders).map(|(task, folders)| {
        let Task { ring, record, frame, .. } = task;
        Order { ring: *ring, source: &**record, frame, to: folders }
    });
    let stored = spool.store_all(&orders.collect::<Vec<_>>());
    let done = together.iter().zip(stored).map(|(task, stored)| {
        let Stored { counter, evicted } = stored?;
        Ok(finish(spool, &task.job, Done { counter, evicted, ..Done::default() }))
    });
    let mut done: Vec<_> = done.collect();
    done.extend(alone.iter().map(|task| store(spool, task)));
    done
}

/// The rejection as the spool stores it, with the current time.
pub fn reason_of(rejection: &Rejection) -> DeadLetterReason {
    let Rejection { status, reason, tries } = rejection.clone();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DeadLetterReason { status, reason, tries, at }
}

/// Returns the destinations of a job. A destination that was removed meanwhile gets its folder again. If that fails, the store
/// that follows fails too.
fn admit(spool: &mut RealSpool, job: &Job) -> Vec<Destination> {
    let targets = || job.to.iter().chain(job.dead.iter().map(|(target, _)| target));
    for Target { address, heirs } in targets() {
        let _the_store_fails = match heirs {
            Some(heirs) => spool.add_removed(address, heirs),
            None => Ok(()),
        };
    }
    targets().map(|target| target.address.destination).collect()
}

/// Stores an event in one file for all destinations, or links them to a file that exists.
fn store(spool: &mut RealSpool, task: &Task) -> Result<Done, StoreError> {
    let to = admit(spool, &task.job);
    let shared = task.job.counter.filter(|counter| spool.share(*counter, &to).is_ok());
    let done = match shared {
        Some(counter) => Done { counter, ..Done::default() },
        None => {
            let Stored { counter, evicted } = spool.store(task.ring, &*task.record, &task.frame, &to)?;
            Done { counter, evicted, ..Done::default() }
        }
    };
    Ok(finish(spool, &task.job, done))
}

/// Finishes a job after its event was stored: leases the event for its uploads, and turns rejected deliveries into dead letters.
fn finish(spool: &mut RealSpool, job: &Job, done: Done) -> Done {
    let counter = done.counter;
    job.in_flight.iter().for_each(|destination| spool.lease(*destination, counter));
    let moved = job.in_flight.first().and_then(|destination| spool.read(*destination, counter).ok());
    let moved = moved.map(|event| {
        event.drop_clear(); // its body may be complete, and its answer take long
        Arc::new(event)
    });
    let mut evicted = done.evicted;
    let fault = job.dead.iter().filter_map(|(dead, rejection)| {
        let buried = spool.to_dead(dead.address.destination, counter, &reason_of(rejection), &mut evicted);
        buried.err().map(|fault| fault.to_string())
    });
    let fault = fault.last();
    Done { counter, evicted, moved, fault }
}
