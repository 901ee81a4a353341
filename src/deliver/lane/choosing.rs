//! What a lane sends next: live events before the backlog, the oldest first; while the destination is not up one probe, and each time
//! another event's.

use std::time::Duration;

use tokio::time::Instant;

use super::places::Sending;
use super::{Lane, Waiting};

/// While there are live events, the backlog has this part of the places, and after each upload a pause: they are not to wait for each
/// other's bytes. Else it has all but one, which is always free for a live event.
const BACKLOG_SHARE: usize = 4;
/// The last live event counts for this long.
const LIVE: Duration = Duration::from_secs(1);
/// Between looks at whether the box has what it lacked.
const BOX_LOOK: Duration = Duration::from_secs(1);

/// What to do next.
pub(super) enum Next {
    Live(Waiting, Sending),
    Backlog(Sending),
    /// Nothing before this moment, or before something changes.
    Wait(Option<Instant>),
}

impl Lane {
    /// What to send next; its place among the uploads is taken.
    pub(super) fn next(&self) -> Next {
        if self.waits_for_box() {
            return Next::Wait(Some(Instant::now() + BOX_LOOK));
        }
        let (is_up, paused_until) = {
            let health = self.health.borrow();
            (health.is_up(), health.paused_until())
        };
        if paused_until.is_some() {
            return Next::Wait(paused_until);
        }
        if !self.places.is_free(is_up) {
            if is_up && self.has_more() {
                self.places.miss();
            }
            return self.wait(self.backlog.borrow().is_ready(!is_up).err().flatten());
        }
        let queued = if is_up { self.first_ready() } else { self.next_probe() };
        if let Some(index) = queued {
            return self.take_live(index);
        }
        let wait = match self.backlog.borrow().is_ready(!is_up) {
            _ if self.leaves_backlog.get() || self.is_picking.get() => None,
            Ok(()) if !self.places.is_free_for_backlog() => None, // told when a body has gone
            Ok(()) if self.backlog_in_flight.get() >= self.backlog_limit() => {
                if !self.is_live() {
                    self.places.miss();
                }
                self.live_at.get().map(|moment| moment + LIVE)
            }
            Ok(()) => {
                self.is_picking.set(true);
                self.backlog_in_flight.set(self.backlog_in_flight.get() + 1);
                return Next::Backlog(self.places.take());
            }
            Err(moment) => moment,
        };
        self.wait(wait)
    }

    /// To look again at `backlog`, or when an event of the queue has waited for long enough.
    fn wait(&self, backlog: Option<Instant>) -> Next {
        let now = Instant::now();
        let queue = self.queue.borrow();
        let holds = queue.iter().filter_map(|waiting| waiting.hold.not_before);
        Next::Wait(holds.chain(backlog).filter(|moment| *moment > now).min())
    }

    /// Whether another upload would begin if there was a place for it.
    fn has_more(&self) -> bool {
        let is_backlog_ready =
            || self.backlog_in_flight.get() < self.backlog_limit() && self.backlog.borrow().is_ready(false).is_ok();
        self.first_ready().is_some() || is_backlog_ready()
    }

    /// The place of the oldest event in the queue that is not to wait.
    fn first_ready(&self) -> Option<usize> {
        self.queue.borrow().iter().position(Waiting::is_ready)
    }

    /// The place of the next event after the last probe, so that some that the server cannot bear do not hold up all others; one that
    /// is to wait is better than none.
    fn next_probe(&self) -> Option<usize> {
        let queue = self.queue.borrow();
        let after = queue.partition_point(|waiting| waiting.delivery.order <= self.probed.get());
        let in_turn = || (after..queue.len()).chain(0..after);
        let place = in_turn().find(|place| queue[*place].is_ready()).or_else(|| in_turn().next())?;
        self.probed.set(queue[place].delivery.order);
        Some(place)
    }

    fn take_live(&self, place: usize) -> Next {
        let waiting = self.queue.borrow_mut().remove(place).expect("it was found");
        waiting.delivery.take_off(self);
        Next::Live(waiting, self.places.take())
    }

    fn backlog_limit(&self) -> usize {
        let places = self.places.limit();
        if self.is_live() { places / BACKLOG_SHARE } else { places - 1 }
    }

    pub(super) fn is_live(&self) -> bool {
        self.live_at.get().is_some_and(|moment| moment.elapsed() < LIVE)
    }
}
