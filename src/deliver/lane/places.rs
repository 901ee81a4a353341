//! How many uploads a destination gets at once.
//!
//! Memory is for bodies on their way, so no more than [`IN_FLIGHT`] of them are. A server that is far away lets uploads wait for answers,
//! which takes little memory: where places are all that is missing and answers take longer than [`FAR`], each answer makes one place
//! more, up to [`MOST`]. A server that is not far but slow, whose own queue the uploads would only lengthen, is told by answers that
//! take a good part of the time they may take: no places more, and then fewer again.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Bodies at once on their way to a destination that is up, and uploads in all unless it is far away: enough to fill a connection,
/// few enough for the memory budget.
pub const IN_FLIGHT: usize = 4;
/// Uploads to a destination that is far away, with those that wait for an answer: 16 a second where an answer takes one. Each further
/// connection takes about 36 KiB.
pub const MOST: usize = 16;
/// What takes no longer than this needs no more than [`IN_FLIGHT`] places.
const FAR: Duration = Duration::from_millis(50);
/// An upload that takes more than this part of the time that an answer may take makes no place more; twice that, one less.
const SLOW: u32 = 8;

/// A destination's uploads on their way.
#[derive(Debug)]
pub struct Places {
    limit: Cell<usize>,
    in_flight: Cell<usize>,
    /// Since when there is always at least one of them.
    busy_since: Cell<Option<Instant>>,
    /// One for each body that may be on its way.
    bodies: Arc<Semaphore>,
    /// Tries that failed.
    failures: Cell<u64>,
    /// The limit was what was missing since the last answer.
    is_cramped: Cell<bool>,
    /// Whoever decides what to send next waits for this.
    changed: Rc<Notify>,
}

/// An upload's body is on its way; dropped when its last byte has gone.
#[derive(Debug)]
pub struct Sending {
    places: Rc<Places>,
    _body: OwnedSemaphorePermit,
}

impl Sending {
    /// Whose place it has.
    pub fn places(&self) -> Rc<Places> {
        Rc::clone(&self.places)
    }
}

impl Places {
    /// All of them free. `changed` is notified when a body has gone for which something may wait.
    pub fn new(changed: Rc<Notify>) -> Rc<Places> {
        Rc::new(Places {
            limit: Cell::new(IN_FLIGHT),
            in_flight: Cell::new(0),
            busy_since: Cell::new(None),
            bodies: Arc::new(Semaphore::new(IN_FLIGHT)),
            failures: Cell::new(0),
            is_cramped: Cell::new(false),
            changed,
        })
    }

    /// Uploads that are on their way, or wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Since when there is always an upload on its way; none where there is none.
    pub fn busy_since(&self) -> Option<Instant> {
        self.busy_since.get()
    }

    /// Most uploads at once, as things are.
    pub fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Whether another upload may begin: while the destination is not up, one at a time probes it.
    pub fn is_free(&self, is_up: bool) -> bool {
        let limit = if is_up { self.limit.get() } else { 1 };
        self.in_flight.get() < limit && self.bodies.available_permits() > 0
    }

    /// Whether another body out of the spool may go: one is left for a live event.
    pub fn is_free_for_backlog(&self) -> bool {
        self.bodies.available_permits() > 1
    }

    /// None was free for an upload; where it is bodies that are too many, more places are of no use.
    pub fn miss(&self) {
        if self.bodies.available_permits() > 0 {
            self.is_cramped.set(true);
        }
    }

    /// An upload begins.
    ///
    /// # Panics
    /// When none may, see [`Places::is_free`].
    pub fn take(self: &Rc<Self>) -> Sending {
        self.busy_since.set(self.busy_since.get().or_else(|| Some(Instant::now())));
        self.in_flight.set(self.in_flight.get() + 1);
        let body = Arc::clone(&self.bodies).try_acquire_owned().expect("whoever takes it has asked");
        Sending { places: Rc::clone(self), _body: body }
    }

    /// An upload begins once more: its body waits until it may go, before those of new uploads, live ones too. None where a try failed
    /// meanwhile: then it is no time to begin.
    pub async fn take_again(self: Rc<Self>) -> Option<Sending> {
        let failures = self.failures.get();
        let body = Arc::clone(&self.bodies).acquire_owned().await.expect("it is never closed");
        (failures == self.failures.get()).then(|| Sending { places: self, _body: body })
    }

    /// An upload came to its end.
    pub fn give_back(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 {
            self.busy_since.set(None);
        }
    }

    /// An event was acknowledged after `took`; an answer may take `patience`.
    pub fn acknowledged(&self, took: Duration, patience: Duration) {
        let limit = self.limit.get();
        let slow = patience / SLOW;
        if self.is_cramped.take() && took > FAR && took <= slow {
            self.limit.set((limit + 1).min(MOST));
        } else if took > 2 * slow {
            self.limit.set((limit - 1).max(IN_FLIGHT));
        }
    }

    /// A try failed: nothing is known of the destination any more.
    pub fn failed(&self) {
        self.failures.set(self.failures.get() + 1);
        self.limit.set(IN_FLIGHT);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Nobody waits for this one where there were two.
        if self.places.bodies.available_permits() < 2 {
            self.places.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Begins what may begin, has all of it acknowledged after `took`, and says how much it was.
    fn turn(places: &Rc<Places>, took: Duration) -> usize {
        let mut count = 0;
        while places.is_free(true) {
            drop(places.take());
            count += 1;
        }
        for _ in 0..count {
            places.miss();
            places.acknowledged(took, PATIENCE);
            places.give_back();
        }
        count
    }

    fn places() -> Rc<Places> {
        Places::new(Rc::default())
    }

    #[test]
    fn a_server_that_is_far_away_gets_more_uploads_and_one_that_is_near_or_slow_does_not() {
        for (took_ms, most) in
            [(1, IN_FLIGHT), (50, IN_FLIGHT), (51, MOST), (1000, MOST), (1251, IN_FLIGHT), (9000, IN_FLIGHT)]
        {
            let places = places();
            (0..100).for_each(|_| assert!(turn(&places, Duration::from_millis(took_ms)) > 0));
            assert_eq!(turn(&places, Duration::ZERO), most, "{took_ms} ms");
        }
    }

    #[test]
    fn no_more_bodies_are_on_their_way_and_what_waits_for_one_is_told() {
        let places = places();
        (0..100).for_each(|_| assert!(turn(&places, Duration::from_millis(100)) > 0));
        assert_eq!(places.limit(), MOST);
        let mut bodies = Vec::new();
        while places.is_free_for_backlog() {
            bodies.push(places.take());
        }
        assert!(bodies.len() == IN_FLIGHT - 1 && places.is_free(true), "one is left for a live event");
        bodies.push(places.take());
        assert!(!places.is_free(true));
        for may_begin in [|places: &Places| places.is_free(true), Places::is_free_for_backlog] {
            let told = places.changed.notified();
            tokio::pin!(told);
            assert!(!told.as_mut().enable() && !may_begin(&places));
            bodies.pop();
            assert!(told.as_mut().enable() && may_begin(&places));
        }
    }

    #[test]
    fn a_server_that_becomes_slow_gets_fewer_again_and_one_that_fails_begins_anew() {
        let places = places();
        (0..100).for_each(|_| assert!(turn(&places, Duration::from_millis(100)) > 0));
        (0..40).for_each(|_| places.acknowledged(Duration::from_secs(3), PATIENCE));
        assert_eq!(places.limit(), IN_FLIGHT);
        (0..100).for_each(|_| assert!(turn(&places, Duration::from_millis(100)) > 0));
        places.failed();
        assert_eq!(places.limit(), IN_FLIGHT);
        assert!(places.is_free(false));
        drop(places.take());
        assert!(!places.is_free(false), "one probe at a time");
    }
}
