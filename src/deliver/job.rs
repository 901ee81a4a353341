//! What a delivery asks of the spool, and how the spool's thread does it.

use std::sync::Arc;

use super::record::Record;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use crate::ring::mapping::MappedFile;
use crate::spool::batch::Order;
use crate::spool::worker::RealSpool;
use crate::spool::{Address, DeadLetterReason, Destination, Evicted, SpooledEvent, StoreError, Stored};

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
    pub to: Vec<Target>,
    /// Whose dead letter it is to be, and why.
    pub dead: Vec<(Target, DeadLetterReason)>,
    /// Of `to`: whose upload is reading the record. The room in the ring is free only when that reads on in the file.
    pub flying: Vec<Destination>,
}

/// A destination that an event is stored for.
#[derive(Clone)]
pub struct Target {
    /// Which.
    pub address: Address,
    /// It was removed, and these get what waits for it.
    pub heirs: Option<Vec<Destination>>,
}

impl Job {
    /// Whether the event is only to be stored, and new to the spool.
    pub fn is_plain(&self) -> bool {
        self.counter.is_none() && self.dead.is_empty()
    }
}

/// What came of a [`Job`] that was done.
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

/// Does `jobs` in their order: several events at once, where they are new to the spool and nothing else is to be done.
pub fn do_all(spool: &mut RealSpool, jobs: &[Job]) -> Vec<Result<Done, StoreError>> {
    let plain = jobs.iter().take_while(|job| job.is_plain()).count();
    let (together, alone) = jobs.split_at(plain);
    let folders: Vec<_> = together.iter().map(|job| admit(spool, job)).collect();
    let orders = together.iter().zip(&folders).map(|(job, folders)| {
        let Job { ring, record, frame, .. } = job;
        Order { ring: *ring, source: &**record, frame, to: folders }
    });
    let stored = spool.store_all(&orders.collect::<Vec<_>>());
    let done = together.iter().zip(stored).map(|(job, stored)| {
        let Stored { counter, evicted } = stored?;
        Ok(finish(spool, job, Done { counter, evicted, ..Done::default() }))
    });
    let mut done: Vec<_> = done.collect();
    done.extend(alone.iter().map(|job| store(spool, job)));
    done
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
fn store(spool: &mut RealSpool, job: &Job) -> Result<Done, StoreError> {
    let to = admit(spool, job);
    let shared = job.counter.filter(|counter| spool.share(*counter, &to).is_ok());
    let done = match shared {
        Some(counter) => Done { counter, ..Done::default() },
        None => {
            let Stored { counter, evicted } = spool.store(job.ring, &*job.record, &job.frame, &to)?;
            Done { counter, evicted, ..Done::default() }
        }
    };
    Ok(finish(spool, job, done))
}

/// What is to be done once an event is stored: its uploads read on in the file, and those that nobody wants become dead letters.
fn finish(spool: &mut RealSpool, job: &Job, done: Done) -> Done {
    let counter = done.counter;
    job.flying.iter().for_each(|destination| spool.hand_out(*destination, counter));
    let moved = job.flying.first().and_then(|destination| spool.read(*destination, counter).ok().map(Arc::new));
    let bury = |(dead, reason): &(Target, DeadLetterReason)| {
        let buried = spool.to_dead(dead.address.destination, counter, reason);
        buried.err().map(|fault| fault.to_string())
    };
    let fault = job.dead.iter().filter_map(bury).last();
    Done { moved, fault, ..done }
}
