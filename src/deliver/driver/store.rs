//! Storing events, in the spool's thread.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::deliver::core::{Job, Rejection, Target};
use crate::deliver::record::Record;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use crate::ring::mapping::MappedFile;
use crate::spool::batch::Order;
use crate::spool::worker::RealSpool;
use crate::spool::{DeadLetterReason, Destination, Evicted, SpooledEvent, StoreError, Stored};

/// What the spool is to do for an event, and the event.
pub struct Task {
    /// What is to be done.
    pub job: Job,
    /// The ring that the event came through.
    pub ring: RingId,
    /// The record.
    pub record: Arc<dyn Record>,
    /// Where it lies in `record`.
    pub frame: Frame,
}

/// What came of a [`Task`] that was done.
#[derive(Default)]
pub struct Done {
    /// The event's number in the spool.
    pub counter: u64,
    /// What had to go for it.
    pub evicted: Vec<Evicted>,
    /// The stored event, where an upload is to read on in it.
    pub moved: Option<Arc<SpooledEvent<MappedFile>>>,
    /// A dead letter that stays among what waits.
    pub fault: Option<String>,
}

/// Does `tasks` in their order: several events at once, where they are new to the spool and nothing else is to be done.
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

/// The same with the time, for people.
pub fn reason_of(rejection: &Rejection) -> DeadLetterReason {
    let Rejection { status, reason, tries } = rejection.clone();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DeadLetterReason { status, reason, tries, at }
}

/// Everyone in whose folder an event is to be; who was removed meanwhile gets one again. For whom there can be no folder, the store
/// fails.
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

/// One file for all destinations, shared where there is one already.
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

/// What is to be done once an event is stored: its uploads read on in the file, and those that nobody wants become dead letters.
fn finish(spool: &mut RealSpool, job: &Job, done: Done) -> Done {
    let counter = done.counter;
    job.in_flight.iter().for_each(|destination| spool.lease(*destination, counter));
    let moved = job.in_flight.first().and_then(|destination| spool.read(*destination, counter).ok().map(Arc::new));
    let mut evicted = done.evicted;
    let fault = job.dead.iter().filter_map(|(dead, rejection)| {
        let buried = spool.to_dead(dead.address.destination, counter, &reason_of(rejection), &mut evicted);
        buried.err().map(|fault| fault.to_string())
    });
    let fault = fault.last();
    Done { counter, evicted, moved, fault }
}
