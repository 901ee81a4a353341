//! Limits how many uploads a destination gets at once.
//!
//! Bodies in transit take memory, so there are at most [`IN_FLIGHT`] of them. An upload to a distant server mostly waits for its
//! answer, which takes little memory. So where more places would help and answers take longer than `FAR`, each answer adds one
//! place, up to [`MOST`]. A server that is near but slow would only get a longer queue of its own. Its answers take a large part
//! of the response timeout: such answers add no place, and still slower ones remove places again.
//!
//! An upload that waits far longer for its answer than usual, or that several later ones overtook, most likely has an event that
//! the server cannot handle. It takes no place from the others, up to [`MOST`] uploads in all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::UploadId;

/// The most bodies in transit at once to a destination that is up, and the most uploads unless it is distant: enough to fill a
/// connection, few enough for the memory budget.
pub const IN_FLIGHT: usize = 4;
/// The most uploads to a distant destination, including those that wait for an answer: 16 a second if an answer takes a second.
/// Each further connection takes about 36 KiB.
pub const MOST: usize = 16;
/// Answers that take no longer than this need no more than [`IN_FLIGHT`] places.
const FAR: Duration = Duration::from_millis(50);
/// An answer that takes more than this fraction of the response timeout adds no place; one that takes more than twice this
/// fraction removes one.
const SLOW: u32 = 8;
/// An answer is overdue after this many times the usual duration, and after this duration at the least.
const OVERDUE: (u32, Duration) = (8, Duration::from_millis(500));

/// An upload counts as hanging once this many later ones were acknowledged.
const OVERTAKEN: usize = IN_FLIGHT;

/// A destination's uploads in flight, and how many there may be.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    limit: usize,
    uploads: Vec<Upload>,
    /// Uploads that wait to send their bodies again, in order.
    waiting: VecDeque<UploadId>,
    /// Whether the limit kept an upload from starting since the last answer.
    is_cramped: bool,
    /// Since when there has always been an upload in flight.
    busy_since: Option<Instant>,
    /// How often the destination failed.
    failures: u64,
    /// The usual duration of an acknowledgement (a moving average); none before the first one.
    usual: Option<Duration>,
}

/// An upload in flight.
#[derive(Debug)]
struct Upload {
    id: UploadId,
    began: Instant,
    /// Whether its body is in transit.
    body: bool,
    /// How many later uploads were acknowledged.
    overtaken: usize,
}

impl Default for ConcurrencyLimit {
    fn default() -> Self {
        ConcurrencyLimit {
            limit: IN_FLIGHT,
            uploads: Vec::new(),
            waiting: VecDeque::new(),
            is_cramped: false,
            busy_since: None,
            failures: 0,
            usual: None,
        }
    }
}

impl ConcurrencyLimit {
    /// Uploads in flight, including those that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.uploads.len()
    }

    /// Since when there has always been an upload in flight; none if there is none.
    pub fn busy_since(&self) -> Option<Instant> {
        self.busy_since
    }

    /// The most uploads at once, at present.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The usual duration of an acknowledgement.
    pub fn usual(&self) -> Option<Duration> {
        self.usual
    }

    /// Bodies in transit.
    pub fn bodies(&self) -> usize {
        self.uploads.iter().filter(|upload| upload.body).count()
    }

    /// Whether another body may be sent.
    fn has_body(&self) -> bool {
        self.bodies() < IN_FLIGHT && self.waiting.is_empty()
    }

    /// Whether another upload may begin. While the destination is not up, only one at a time may, as a probe.
    pub fn is_free(&self, is_up: bool, now: Instant) -> bool {
        if !is_up {
            return self.uploads.is_empty();
        }
        let counted = self.uploads.iter().filter(|upload| !self.is_exempt(upload, now)).count();
        counted < self.limit && self.uploads.len() < MOST && self.has_body()
    }

    /// Whether an upload takes no place, because the missing answer is most likely its event's fault.
    fn is_exempt(&self, upload: &Upload, now: Instant) -> bool {
        !upload.body && (upload.overtaken >= OVERTAKEN || self.overdue_at(upload).is_some_and(|moment| moment <= now))
    }

    fn overdue_at(&self, upload: &Upload) -> Option<Instant> {
        self.usual.map(|usual| upload.began + (usual * OVERDUE.0).max(OVERDUE.1))
    }

    /// When the next upload stops taking a place.
    pub fn next_exempt(&self, now: Instant) -> Option<Instant> {
        let waiting = self.uploads.iter().filter(|upload| !upload.body && !self.is_exempt(upload, now));
        waiting.filter_map(|upload| self.overdue_at(upload)).min()
    }

    /// Whether another body may be sent of an event that can wait: one place is left for a live event.
    pub fn is_free_for_later(&self) -> bool {
        self.bodies() + 1 < IN_FLIGHT && self.waiting.is_empty()
    }

    /// No place was free for an upload. Records that, unless the bodies are the limit: more places would not help then.
    pub fn miss(&mut self) {
        self.is_cramped |= self.has_body();
    }

    /// An upload begins with its body; the caller has checked that it may.
    pub fn begin(&mut self, id: UploadId, now: Instant) {
        self.busy_since.get_or_insert(now);
        self.uploads.push(Upload { id, began: now, body: true, overtaken: 0 });
    }

    /// An upload's last byte has been sent, or it has no body to send. Returns the upload that may send its body next.
    #[must_use]
    pub fn body_gone(&mut self, id: UploadId) -> Option<UploadId> {
        self.upload(id)?.body = false;
        self.admit()
    }

    /// An upload has to send its body again: it waits for a place, before new uploads. Returns true if it may send at once.
    pub fn begin_again(&mut self, id: UploadId, now: Instant) -> bool {
        let Some(upload) = self.upload(id) else { return false };
        (upload.began, upload.body) = (now, false);
        self.waiting.push_back(id);
        self.admit().is_some()
    }

    fn admit(&mut self) -> Option<UploadId> {
        if self.bodies() >= IN_FLIGHT {
            return None;
        }
        let id = self.waiting.pop_front()?;
        self.upload(id)?.body = true;
        Some(id)
    }

    /// An upload ended. Returns the upload that may send its body next.
    #[must_use]
    pub fn end(&mut self, id: UploadId) -> Option<UploadId> {
        self.uploads.retain(|upload| upload.id != id);
        self.waiting.retain(|waiting| *waiting != id);
        self.busy_since = self.busy_since.filter(|_| !self.uploads.is_empty());
        self.admit()
    }

    /// Upload `id` was acknowledged after `took`; the response timeout is `timeout`.
    pub fn acknowledged(&mut self, id: UploadId, took: Duration, timeout: Duration) {
        self.usual = Some(self.usual.map_or(took, |usual| (usual * 7 + took) / 8));
        let began = self.uploads.iter().find(|upload| upload.id == id).map(|upload| upload.began);
        for upload in self.uploads.iter_mut().filter(|upload| began.is_some_and(|began| upload.began < began)) {
            upload.overtaken += 1;
        }
        let slow = timeout / SLOW;
        if std::mem::take(&mut self.is_cramped) && took > FAR && took <= slow {
            self.limit = (self.limit + 1).min(MOST);
        } else if took > 2 * slow {
            self.limit = (self.limit - 1).max(IN_FLIGHT);
        }
    }

    /// The destination failed: resets the limit, and refuses the uploads that wait to send their bodies again. Returns those.
    #[must_use]
    pub fn failed(&mut self) -> VecDeque<UploadId> {
        (self.limit, self.failures) = (IN_FLIGHT, self.failures + 1);
        self.deny()
    }

    /// Refuses all uploads that wait to send their bodies again, and returns them.
    #[must_use]
    pub fn deny(&mut self) -> VecDeque<UploadId> {
        std::mem::take(&mut self.waiting)
    }

    /// How often the destination failed.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    fn upload(&mut self, id: UploadId) -> Option<&mut Upload> {
        self.uploads.iter_mut().find(|upload| upload.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Begins as many uploads as possible, acknowledges each after `took`, and returns their number.
    fn turn(limit: &mut ConcurrencyLimit, took: Duration) -> usize {
        let (now, mut count) = (Instant::now(), 0);
        while limit.is_free(true, now) {
            limit.begin(UploadId(count), now);
            let _nobody_waits = limit.body_gone(UploadId(count));
            count += 1;
        }
        for id in 0..count {
            limit.miss();
            limit.acknowledged(UploadId(id), took, TIMEOUT);
            let _nobody_waits = limit.end(UploadId(id));
        }
        count as usize
    }

    #[test]
    fn a_server_that_is_far_away_gets_more_uploads_and_one_that_is_near_or_slow_does_not() {
        for (took_ms, most) in
            [(1, IN_FLIGHT), (50, IN_FLIGHT), (51, MOST), (1000, MOST), (1251, IN_FLIGHT), (9000, IN_FLIGHT)]
        {
            let mut limit = ConcurrencyLimit::default();
            (0..100).for_each(|_| assert!(turn(&mut limit, Duration::from_millis(took_ms)) > 0));
            assert_eq!(turn(&mut limit, Duration::ZERO), most, "{took_ms} ms");
        }
    }

    #[test]
    fn no_more_bodies_are_on_their_way_and_what_begins_once_more_waits_for_one() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        (0..100).for_each(|_| assert!(turn(&mut limit, Duration::from_millis(100)) > 0));
        assert_eq!(limit.limit(), MOST);
        limit.begin(UploadId(9), now);
        assert_eq!(limit.body_gone(UploadId(9)), None);
        let mut id = 10;
        while limit.is_free_for_later() {
            limit.begin(UploadId(id), now);
            id += 1;
        }
        assert!(id == 10 + IN_FLIGHT as u64 - 1 && limit.is_free(true, now), "one is left for a live event");
        limit.begin(UploadId(id), now);
        assert!(!limit.is_free(true, now) && !limit.begin_again(UploadId(9), now));
        assert_eq!(limit.body_gone(UploadId(id)), Some(UploadId(9)), "it goes first");
        assert!(!limit.is_free(true, now));
        assert_eq!(limit.body_gone(UploadId(9)), None);
        assert!(limit.is_free(true, now) && !limit.is_free_for_later());
    }

    #[test]
    fn who_waits_to_be_sent_once_more_is_told_when_the_destination_fails() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        limit.begin(UploadId(9), now);
        assert_eq!(limit.body_gone(UploadId(9)), None);
        (0..IN_FLIGHT as u64).for_each(|id| limit.begin(UploadId(id), now));
        assert!(!limit.begin_again(UploadId(9), now));
        assert_eq!(limit.failed(), [UploadId(9)]);
        assert_eq!(limit.body_gone(UploadId(0)), None, "nobody waits any more");
    }

    #[test]
    fn a_server_that_becomes_slow_gets_fewer_again_and_one_that_fails_begins_anew() {
        let mut limit = ConcurrencyLimit::default();
        (0..100).for_each(|_| assert!(turn(&mut limit, Duration::from_millis(100)) > 0));
        (0..40).for_each(|_| limit.acknowledged(UploadId(0), Duration::from_secs(3), TIMEOUT));
        assert_eq!(limit.limit(), IN_FLIGHT);
        (0..100).for_each(|_| assert!(turn(&mut limit, Duration::from_millis(100)) > 0));
        assert!(limit.failed().is_empty());
        assert_eq!(limit.limit(), IN_FLIGHT);
        let now = Instant::now();
        assert!(limit.is_free(false, now));
        limit.begin(UploadId(1), now);
        assert!(!limit.is_free(false, now), "one probe at a time");
    }

    #[test]
    fn events_that_are_not_answered_take_no_place_from_others_once_that_is_evident() {
        let (mut limit, now) = (ConcurrencyLimit::default(), Instant::now());
        turn(&mut limit, Duration::from_millis(1));
        for id in 0..4 {
            limit.begin(UploadId(id), now);
            let _nobody_waits = limit.body_gone(UploadId(id));
        }
        assert!(!limit.is_free(true, now));
        assert_eq!(limit.next_exempt(now), Some(now + OVERDUE.1));
        assert!(limit.is_free(true, now + OVERDUE.1), "overdue");
        let later = now + Duration::from_millis(1);
        for id in 4..4 + OVERTAKEN as u64 {
            assert!(!limit.is_free(true, later), "one more place after {id}");
            let _nobody_waits = limit.end(UploadId(id - 1));
            limit.begin(UploadId(id), later);
            let _nobody_waits = limit.body_gone(UploadId(id));
            limit.acknowledged(UploadId(id), Duration::from_millis(1), TIMEOUT);
        }
        assert!(limit.is_free(true, later), "overtaken");
        for id in 10..10 + MOST as u64 - 4 {
            limit.begin(UploadId(id), later);
            let _nobody_waits = limit.body_gone(UploadId(id));
        }
        assert!(!limit.is_free(true, now + Duration::from_secs(60)), "no more than {MOST}");
    }
}
