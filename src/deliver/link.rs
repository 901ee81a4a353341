//! What the way to a destination bears.
//!
//! Four bodies at once are no use to a link that takes seconds for one: each waits for the others' bytes in the same queue, looks stuck, and
//! is sent again for nothing. So a destination begins with one body at a time until its peer's TCP has acknowledged one, and goes on with one
//! at a time where that took long for want of bandwidth, not for distance. A body that does not move holds up no other for longer than
//! [`SILENT`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::core::schedule::YIELD;
use super::failure::Failure;

/// A link that takes this long for a body, beyond what its distance explains, ...
const LONG: Duration = Duration::from_secs(1);
/// ... and moves fewer bytes a second than this, gets one at a time.
const SLOW: u64 = 100 * 1024;
/// TCP sends about so many bytes before the first of them is acknowledged, then twice as many, ...
const FIRST_FLIGHT: u64 = 14_600;
/// A body of which nothing moved for this long, or for this many round trips, holds up no other.
const SILENT: (Duration, u32) = (Duration::from_secs(3), 5);

/// The way to a destination.
#[derive(Debug)]
pub struct Link {
    /// It bears several bodies at once.
    is_wide: Cell<bool>,
    /// Bodies that are on their way, or began in one's turn and are not acknowledged.
    bodies: Cell<usize>,
    /// The round trip of the last connection that was used.
    rtt: Cell<Duration>,
    /// When the destination last acknowledged bytes, on any connection.
    moved_at: Cell<Instant>,
    /// Tries that failed, and the last one's failure.
    failures: Cell<u64>,
    failure: RefCell<Option<Failure>>,
    changed: Notify,
}

/// A body may go out. Dropped when the peer's TCP has acknowledged it, or it is not sent any more.
#[derive(Debug)]
pub struct Turn(Rc<Link>);

impl Default for Link {
    fn default() -> Link {
        Link {
            is_wide: Cell::new(false),
            bodies: Cell::new(0),
            rtt: Cell::new(Duration::ZERO),
            moved_at: Cell::new(Instant::now()),
            failures: Cell::new(0),
            failure: RefCell::default(),
            changed: Notify::new(),
        }
    }
}

impl Link {
    /// Waits until a body may go out; who had to wait lets other destinations' events go first, for one of those may have ended the body
    /// before, whose room the ring needed.
    ///
    /// # Errors
    /// The failure of the try before it: it is no time to begin.
    pub async fn turn(self: &Rc<Self>) -> Result<Turn, Failure> {
        let failures = self.failures.get();
        while !self.is_free() {
            let _is_silent = timeout_at(self.silent_at(), self.changed.notified()).await;
            sleep(YIELD).await;
            if self.failures.get() != failures {
                return Err(self.failure.borrow().clone().expect("it was noted with the count"));
            }
        }
        self.bodies.set(self.bodies.get() + 1);
        self.moved_at.set(Instant::now());
        Ok(Turn(Rc::clone(self)))
    }

    fn is_free(&self) -> bool {
        self.is_wide.get() || self.bodies.get() == 0 || self.silent_at() <= Instant::now()
    }

    fn silent_at(&self) -> Instant {
        self.moved_at.get() + SILENT.0.max(self.rtt.get() * SILENT.1)
    }

    /// A request begins on a connection that took `rtt` to make.
    pub fn begins(&self, rtt: Duration, now: Instant) {
        self.rtt.set(rtt);
        self.moved(now);
    }

    /// Where bodies share a narrow link, when it last moved bytes of any of them.
    pub fn shared_moved_at(&self) -> Option<Instant> {
        (!self.is_wide.get()).then(|| self.moved_at.get())
    }

    /// Bytes moved.
    pub fn moved(&self, at: Instant) {
        self.moved_at.set(at.max(self.moved_at.get()));
    }

    /// A try failed.
    pub fn failed(&self, failure: &Failure) {
        self.failures.set(self.failures.get() + 1);
        self.failure.replace(Some(failure.clone()));
        self.changed.notify_waiters();
    }

    /// `bytes` of a body were acknowledged in `took`, over a way whose round trip takes `rtt`. `whole`: that was all of it.
    pub fn judge(&self, bytes: u64, took: Duration, rtt: Duration, whole: bool) {
        let flights = u64::BITS - (bytes / FIRST_FLIGHT).leading_zeros() + 2;
        let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
        let is_narrow = took.saturating_sub(rtt * flights) > LONG && rate < SLOW as f64;
        if is_narrow || whole {
            self.is_wide.set(!is_narrow);
            self.changed.notify_waiters();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.bodies.set(self.0.bodies.get() - 1);
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::Code;
    use super::*;

    const NEAR: Duration = Duration::from_millis(1);

    #[test]
    fn a_link_is_narrow_for_want_of_bandwidth_and_not_for_distance() {
        for (bytes, took_ms, rtt_ms, is_wide) in [
            (27_000, 13_500, 100, false), // 2 KB/s
            (270_000, 5_400, 50, false),  // 50 KB/s
            (270_000, 2_000, 50, true),   // 135 KB/s
            (2_000, 900, 1, true),        // a hiccup
            (27_000, 6_000, 2_000, true), // a satellite
            (200, 2_100, 2_000, true),
            (11_000_000, 9_000, 20, true),
        ] {
            let link = Link::default();
            link.judge(bytes, Duration::from_millis(took_ms), Duration::from_millis(rtt_ms), true);
            assert_eq!(link.is_wide.get(), is_wide, "{bytes} bytes in {took_ms} ms, {rtt_ms} ms away");
        }
    }

    #[tokio::test]
    async fn bodies_go_one_at_a_time_until_one_was_acknowledged_and_again_where_that_took_long() {
        let link = Rc::new(Link::default());
        let first = link.turn().await.unwrap();
        assert!(!link.is_free());
        link.judge(20_000, NEAR, NEAR, true);
        let more = (link.turn().await.unwrap(), link.turn().await.unwrap());
        link.judge(10_000, Duration::from_secs(5), NEAR, false);
        assert!(!link.is_free(), "half a body is enough to see that it is narrow");
        drop((first, more));
        assert!(link.is_free());
    }

    #[tokio::test]
    async fn who_had_to_wait_begins_a_little_later_than_it_could() {
        let link = Rc::new(Link::default());
        let first = link.turn().await.unwrap();
        let (ended, began) = tokio::join!(
            async {
                tokio::task::yield_now().await; // the other one waits by then
                drop(first);
                Instant::now()
            },
            async {
                link.turn().await.unwrap();
                Instant::now()
            },
        );
        assert!(began >= ended + YIELD);
    }

    #[tokio::test]
    async fn a_body_that_does_not_move_holds_up_no_other_and_one_that_fails_fails_those_that_wait() {
        let link = Rc::new(Link::default());
        let _stuck = link.turn().await.unwrap();
        assert!(!link.is_free());
        link.moved_at.set(Instant::now() - SILENT.0);
        let _next = link.turn().await.unwrap();
        let failure = Failure::new(Code::Stalled, "stuck");
        let (third, ()) = tokio::join!(link.turn(), async { link.failed(&failure) });
        assert_eq!(third.unwrap_err(), failure);
    }
}
