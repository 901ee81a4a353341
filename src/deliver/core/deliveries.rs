//! A lane's deliveries in memory, and where each of them is.
//!
//! | place | how a delivery leaves it |
//! | --- | --- |
//! | waiting | its upload begins: in flight; or it goes to the spool: storing |
//! | in flight | acknowledged: over; failed: waiting; refused: rejected |
//! | rejected | it is to become a dead letter: storing |
//! | storing | stored: it is in the spool, and over here; not stored: waiting, or rejected |
//!
//! A delivery is in one of these places. Only one that is being stored may be in flight as well: its upload goes on meanwhile.

use std::collections::BTreeMap;
use std::time::Instant;

use super::in_flight::{InFlight, Meanwhile, Source};
use super::queue::Queue;
use super::retry::RetryState;
use super::{EventNo, Rejection, UploadId};

/// See the module.
#[derive(Debug, Default)]
pub struct Deliveries {
    queue: Queue,
    rejected: BTreeMap<EventNo, Rejection>,
    storing: BTreeMap<EventNo, Meanwhile>,
    in_flight: BTreeMap<UploadId, InFlight>,
}

/// All of them.
impl Deliveries {
    /// Deliveries that are not done; those of events in the spool do not count.
    pub fn open(&self) -> u64 {
        let uploads = self.in_flight.values().filter_map(InFlight::ring_event);
        let uploads = uploads.filter(|event| !self.storing.contains_key(event));
        self.queue.len() + self.rejected.len() as u64 + self.storing.len() as u64 + uploads.count() as u64
    }

    /// Whether there is none, and no upload.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.has_only_uploads()
    }

    /// Whether none waits, is rejected or is being stored.
    pub fn has_only_uploads(&self) -> bool {
        self.queue.is_empty() && self.storing.is_empty() && self.rejected.is_empty()
    }

    /// Whether one needs the event's room in the ring.
    pub fn holds(&self, event: EventNo) -> bool {
        let reads = |begun: &InFlight| begun.ring_event() == Some(event) || begun.holds_room_of_stored(event);
        self.waits(event)
            || self.rejected.contains_key(&event)
            || self.is_storing(event)
            || self.in_flight.values().any(reads)
    }
}

/// Waiting.
impl Deliveries {
    /// Adds an event that waits, with the state of its failed attempts.
    pub fn wait(&mut self, event: EventNo, retry: Option<RetryState>) {
        self.queue.insert(event.0, retry);
    }

    /// Whether an event waits.
    pub fn waits(&self, event: EventNo) -> bool {
        self.queue.contains(event.0)
    }

    /// Whether an event waits after a failed attempt.
    pub fn waits_after_failure(&self, event: EventNo) -> bool {
        self.queue.failed.contains(event.0)
    }

    /// How many events wait.
    pub fn count_waiting(&self) -> u64 {
        self.queue.len()
    }

    /// The waiting events, the oldest first.
    pub fn waiting(&self) -> Vec<EventNo> {
        self.queue.numbers().into_iter().map(EventNo).collect()
    }

    /// Takes all waiting events, the oldest first.
    pub fn take_waiting(&mut self) -> Vec<EventNo> {
        std::mem::take(&mut self.queue).numbers().into_iter().map(EventNo).collect()
    }

    /// Takes an event that waits, with its state. None if it does not wait.
    pub fn take(&mut self, event: EventNo) -> Option<Option<RetryState>> {
        self.queue.remove(event.0)
    }

    /// The oldest waiting event, and when it may be tried; none: at once.
    pub fn oldest(&self) -> Option<(EventNo, Option<Instant>)> {
        let event = self.queue.first()?;
        Some((EventNo(event), self.queue.failed.get(event).map(|retry| retry.retry_at)))
    }

    /// Whether an event waits for its first attempt.
    pub fn has_fresh(&self) -> bool {
        !self.queue.fresh.is_empty()
    }

    /// Takes the newest or the oldest event that waits for its first attempt.
    pub fn take_fresh(&mut self, newest: bool) -> Option<EventNo> {
        let fresh = &mut self.queue.fresh;
        if newest { fresh.pop_last() } else { fresh.pop_first() }.map(EventNo)
    }

    /// When the first failed event may be tried again.
    pub fn first_retry(&self) -> Option<Instant> {
        self.queue.failed.first().map(|(moment, _)| moment)
    }

    /// Takes the failed event that may be tried again first.
    pub fn take_first_retry(&mut self) -> Option<(EventNo, RetryState)> {
        let (_, event) = self.queue.failed.first()?;
        Some((EventNo(event), self.queue.failed.remove(event)?))
    }

    /// Forgets all failures.
    pub fn forgive(&mut self) {
        self.queue.forgive();
    }
}

/// Rejected, and being stored.
impl Deliveries {
    /// The server refused the event: it is to become a dead letter.
    pub fn reject(&mut self, event: EventNo, reason: Rejection) {
        self.rejected.insert(event, reason);
    }

    /// Takes a rejected event.
    pub fn take_rejected(&mut self, event: EventNo) -> Option<Rejection> {
        self.rejected.remove(&event)
    }

    /// The event is being stored.
    pub fn begin_to_store(&mut self, event: EventNo, meanwhile: Meanwhile) {
        self.storing.insert(event, meanwhile);
    }

    /// Whether the event is being stored.
    pub fn is_storing(&self, event: EventNo) -> bool {
        self.storing.contains_key(&event)
    }

    /// What happened to the event since it is being stored.
    pub fn meanwhile(&mut self, event: EventNo) -> Option<&mut Meanwhile> {
        self.storing.get_mut(&event)
    }

    /// Whether the event is being stored, and its delivery is not over.
    pub fn is_storing_open(&self, event: EventNo) -> bool {
        self.storing.get(&event).is_some_and(|meanwhile| !matches!(meanwhile, Meanwhile::Ended(_)))
    }

    /// The event is not being stored any more. Returns what happened since it was.
    pub fn end_storing(&mut self, event: EventNo) -> Option<Meanwhile> {
        self.storing.remove(&event)
    }

    /// Whether no event is being stored, and none is in flight.
    pub fn is_at_rest(&self) -> bool {
        self.in_flight.is_empty() && self.storing.is_empty()
    }
}

/// In flight.
impl Deliveries {
    /// An upload begins.
    pub fn begin(&mut self, upload: UploadId, begun: InFlight) {
        self.in_flight.insert(upload, begun);
    }

    /// An upload ended.
    pub fn end(&mut self, upload: UploadId) -> Option<InFlight> {
        self.in_flight.remove(&upload)
    }

    /// The uploads.
    pub fn uploads(&self) -> impl Iterator<Item = &InFlight> {
        self.in_flight.values()
    }

    /// The uploads with their numbers.
    pub fn uploads_mut(&mut self) -> impl Iterator<Item = (UploadId, &mut InFlight)> {
        self.in_flight.iter_mut().map(|(id, upload)| (*id, upload))
    }

    /// The upload of an event that is only in the ring.
    pub fn upload_of(&mut self, event: EventNo) -> Option<(UploadId, &mut InFlight)> {
        self.uploads_mut().find(|(_, upload)| upload.ring_event() == Some(event))
    }

    /// Whether an event is being taken out of the spool.
    pub fn is_picking(&self) -> bool {
        self.uploads().any(|upload| matches!(upload.source, Source::Picking(_)))
    }

    /// Uploads of events in the spool.
    pub fn of_backlog(&self) -> usize {
        self.uploads().filter(|upload| upload.is_backlog()).count()
    }

    /// Uploads of events that failed before.
    pub fn of_failed(&self) -> usize {
        self.uploads().filter(|upload| upload.retry.is_some()).count()
    }
}
