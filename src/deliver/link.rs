//! Limits the bodies in transit to what the link to a destination can carry.
//!
//! Four bodies at once do not help on a link that takes seconds for one: each waits in the same queue, seems stuck, and is sent
//! again needlessly. So a destination begins with one body at a time until the peer's TCP has acknowledged one. It returns to one
//! at a time when a body took long because of bandwidth, not of distance. A small body proves little: a body more than `STEP`
//! times as large as the largest one so far is sent alone, too. A body that makes no progress delays others for `SILENT` at most.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::core::schedule::YIELD;
use super::deadline::Deadline;
use super::failure::Failure;

/// A link is narrow if a body takes longer than this, beyond what the round trips explain, ...
const LONG: Duration = Duration::from_secs(1);
/// ... at a rate below this many bytes a second.
const SLOW: u64 = 100 * 1024;
/// TCP sends about this many bytes before the first acknowledgement, then twice as many, and so on.
const FIRST_FLIGHT: u64 = 14_600;
/// On a narrow link TCP would fill the queue in front of it, and then every lost packet, of any connection, costs many seconds.
/// So the bytes in transit are limited to what the link carries in this time plus two round trips, ...
const QUEUE: Duration = Duration::from_secs(2);
/// ... but not to fewer bytes than this.
const LEAST_QUEUE: usize = 6 * 1024;
/// A body may be sent together with others if its pictures, before base64, have at most this many times the bytes that the largest
/// body so far had on the wire.
const STEP: u64 = 4;
/// A body delays no others once nothing moved for this long, or for this many round trips.
const SILENT: (Duration, u32) = (Duration::from_secs(3), 5);

/// The link to a destination.
#[derive(Debug)]
pub struct Link {
    /// The largest body that it carried, in bytes; 0 if it is narrow or nothing is known.
    borne: Cell<u64>,
    /// How many bytes in transit keep it busy, if it is narrow.
    queue: Cell<Option<usize>>,
    /// Bodies that have a turn and are not acknowledged yet.
    bodies: Cell<usize>,
    /// The round-trip time of the last connection that was used.
    rtt: Cell<Duration>,
    /// When something last began or moved, on any connection.
    moved_at: Cell<Instant>,
    /// When the destination last acknowledged bytes, on any connection.
    heard_at: Cell<Option<Instant>>,
    /// How many attempts failed, and the last failure.
    failures: Cell<u64>,
    failure: RefCell<Option<Failure>>,
    changed: Notify,
}

/// The turn of a body: it may be sent. Dropped when the peer's TCP has acknowledged the body, or it is not sent any more.
#[derive(Debug)]
pub struct Turn(Rc<Link>);

impl Default for Link {
    fn default() -> Link {
        Link {
            borne: Cell::new(0),
            queue: Cell::new(None),
            bodies: Cell::new(0),
            rtt: Cell::new(Duration::ZERO),
            moved_at: Cell::new(Instant::now()),
            heard_at: Cell::new(None),
            failures: Cell::new(0),
            failure: RefCell::default(),
            changed: Notify::new(),
        }
    }
}

impl Link {
    /// Waits until a body with `pictures` bytes of pictures may be sent. After a wait it lets other destinations' events go
    /// first: the body before may have been ended because the ring needed its room, and one of those events may be the cause.
    ///
    /// # Errors
    /// The failure of the attempt before: the body must not start then.
    pub async fn turn(self: &Rc<Self>, pictures: u64) -> Result<Turn, Failure> {
        let failures = self.failures.get();
        while !self.is_free(pictures) {
            let _is_silent = timeout_at(self.silent_at(), self.changed.notified()).await;
            sleep(YIELD).await;
            if self.failures.get() != failures {
                return Err(self.failure.borrow().clone().expect("set with the count"));
            }
        }
        self.bodies.set(self.bodies.get() + 1);
        self.moved_at.set(Instant::now());
        Ok(Turn(Rc::clone(self)))
    }

    fn is_free(&self, pictures: u64) -> bool {
        let bears = self.borne.get() > 0 && pictures <= self.borne.get() * STEP;
        bears || self.bodies.get() == 0 || self.silent_at() <= Instant::now()
    }

    fn silent_at(&self) -> Instant {
        self.moved_at.get() + SILENT.0.max(self.rtt.get() * SILENT.1)
    }

    /// A request begins on a connection that took `rtt` to be made.
    pub fn begins(&self, rtt: Duration, now: Instant) {
        self.rtt.set(rtt);
        self.moved_at.set(now.max(self.moved_at.get()));
    }

    /// When the link last moved bytes of any body, if bodies share a narrow link.
    pub fn shared_moved_at(&self) -> Option<Instant> {
        (self.borne.get() == 0).then(|| self.moved_at.get())
    }

    /// The destination acknowledged bytes.
    pub fn moved(&self, at: Instant) {
        self.moved_at.set(at.max(self.moved_at.get()));
        self.heard_at.set(Some(at).max(self.heard_at.get()));
    }

    /// Moves a connection's deadline while the destination acknowledges bytes on other connections. Never returns.
    pub async fn extend(&self, deadline: &Deadline) -> Infallible {
        loop {
            sleep(deadline.bound() / 4).await;
            if let Some(at) = self.heard_at.get() {
                deadline.heard(at);
            }
        }
    }

    /// An attempt failed.
    pub fn failed(&self, failure: &Failure) {
        self.failures.set(self.failures.get() + 1);
        self.failure.replace(Some(failure.clone()));
        self.changed.notify_waiters();
    }

    /// `bytes` of a body were acknowledged in `took`, with a round-trip time of `rtt`. `whole`: these were all bytes of it.
    pub fn judge(&self, bytes: u64, took: Duration, rtt: Duration, whole: bool) {
        let flights = (bytes.div_ceil(FIRST_FLIGHT) + 1).next_power_of_two().trailing_zeros();
        let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
        let is_narrow = took.saturating_sub(rtt * flights) > LONG && rate < SLOW as f64;
        if is_narrow || whole {
            let most = ((rate * (QUEUE + rtt * 2).as_secs_f64()) as usize).max(LEAST_QUEUE);
            self.borne.set(if is_narrow { 0 } else { self.borne.get().max(bytes) });
            self.queue.set(is_narrow.then_some(most));
            self.changed.notify_waiters();
        }
    }

    /// How many bytes in transit keep the link busy, if it is narrow.
    pub fn queue(&self) -> Option<usize> {
        self.queue.get()
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
    const KB: u64 = 1024;

    #[test]
    fn a_link_is_narrow_for_want_of_bandwidth_and_not_for_distance() {
        for (bytes, took_ms, rtt_ms, is_wide) in [
            (27_000, 13_500, 100, false),  // 2 KB/s
            (270_000, 5_400, 50, false),   // 50 KB/s
            (270_000, 2_000, 50, true),    // 135 KB/s
            (2_000, 900, 1, true),         // a short interruption
            (27_000, 4_800, 2_000, true),  // a satellite
            (32_000, 8_400, 2_000, false), // 5 KB/s, at the same distance
            (200, 2_100, 2_000, true),
            (11_000_000, 9_000, 20, true),
        ] {
            let link = Link::default();
            link.judge(bytes, Duration::from_millis(took_ms), Duration::from_millis(rtt_ms), true);
            assert_eq!(link.borne.get() > 0, is_wide, "{bytes} bytes in {took_ms} ms, {rtt_ms} ms away");
        }
    }

    #[test]
    fn what_is_on_its_way_is_bounded_while_the_link_is_narrow() {
        let link = Link::default();
        assert_eq!(link.queue(), None);
        link.judge(20_000, Duration::from_secs(4), NEAR, false); // 5 KB/s
        let most = link.queue().expect("it is narrow");
        assert!((10_000..=10_020).contains(&most), "what goes in two seconds and two round trips: {most}");
        link.judge(100, Duration::from_secs(4), NEAR, true);
        assert_eq!(link.queue(), Some(LEAST_QUEUE));
        link.judge(200_000, NEAR, NEAR, true);
        assert_eq!(link.queue(), None, "it is wide again");
    }

    #[tokio::test]
    async fn bodies_go_one_at_a_time_until_one_was_acknowledged_and_again_where_that_took_long() {
        let link = Rc::new(Link::default());
        let first = link.turn(KB).await.unwrap();
        assert!(!link.is_free(KB));
        link.judge(20_000, NEAR, NEAR, true);
        let more = (link.turn(KB).await.unwrap(), link.turn(KB).await.unwrap());
        link.judge(10_000, Duration::from_secs(5), NEAR, false);
        assert!(!link.is_free(KB), "half a body is enough to see that it is narrow");
        drop((first, more));
        assert!(link.is_free(KB));
    }

    #[tokio::test]
    async fn a_body_much_larger_than_those_that_the_link_bore_goes_alone() {
        let link = Rc::new(Link::default());
        link.judge(10 * KB, NEAR, NEAR, true);
        let _small = link.turn(KB).await.unwrap();
        assert!(link.is_free(40 * KB) && !link.is_free(41 * KB));
        link.judge(41 * KB, NEAR, NEAR, true);
        assert!(link.is_free(100 * KB));
        link.judge(KB, NEAR, NEAR, true);
        assert!(link.is_free(100 * KB), "a smaller one takes nothing back");
    }

    #[tokio::test]
    async fn who_had_to_wait_begins_a_little_later_than_it_could() {
        let link = Rc::new(Link::default());
        let first = link.turn(KB).await.unwrap();
        let (ended, began) = tokio::join!(
            async {
                tokio::task::yield_now().await; // let the other task begin to wait
                drop(first);
                Instant::now()
            },
            async {
                link.turn(KB).await.unwrap();
                Instant::now()
            },
        );
        assert!(began >= ended + YIELD);
    }

    #[tokio::test]
    async fn a_body_that_does_not_move_holds_up_no_other_and_one_that_fails_fails_those_that_wait() {
        let link = Rc::new(Link::default());
        let _stuck = link.turn(KB).await.unwrap();
        assert!(!link.is_free(KB));
        link.moved_at.set(Instant::now() - SILENT.0);
        let _next = link.turn(KB).await.unwrap();
        let failure = Failure::new(Code::Stalled, "stuck");
        let (third, ()) = tokio::join!(link.turn(KB), async { link.failed(&failure) });
        assert_eq!(third.unwrap_err(), failure);
    }
}
