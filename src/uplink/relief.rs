//! A ring that fills: what goes to the spool, and what is given up where that cannot take it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Uplink;
use super::reading::Attached;
use crate::deliver::core::pressure::Need;
use crate::deliver::core::schedule::YIELD;
use crate::ring::{Memory, Word};

/// Events are spilled into the spool while more than this part of the ring is used: half.
const HIGH_WATER: u64 = 2;
/// What the spool cannot take is given up when so little of the ring is free: an eighth; and even under its upload a sixteenth.
const FLOOD: (u64, u64) = (8, 16);
/// An event that has been in the ring for this long is spilled where it keeps the largest possible record out.
const OLD: Duration = Duration::from_secs(2);

/// How full a ring is.
#[derive(Clone, Copy, Debug)]
struct Level {
    capacity: u64,
    used: u64,
    head: u64,
}

impl Level {
    fn of(ring: &Attached) -> Level {
        let head = ring.file.load(Word::Head, Ordering::Relaxed);
        Level { capacity: ring.file.capacity(), used: head.wrapping_sub(ring.ledger.tail()), head }
    }

    /// Whether the producer's word can be believed.
    fn is_plausible(self) -> bool {
        self.used <= self.capacity
    }

    fn free(self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }

    /// Bytes that would have to be free for a record of `length` bytes, with the padding before it where it would be cut in two.
    fn missing(self, length: u64) -> u64 {
        let to_end = self.capacity - (self.head & (self.capacity - 1));
        let padding = if to_end < length { to_end } else { 0 };
        (padding + length).saturating_sub(self.free())
    }
}

impl Attached {
    /// Whether uploads are to be given up that could wait until now.
    fn take_due_relief(&mut self) -> bool {
        self.relief_at.take_if(|moment| *moment <= Instant::now()).is_some()
    }
}

impl Uplink {
    /// Past the mark, the oldest events that are not delivered go to the spool, even while their uploads go on: the recognizer does
    /// not wait for room. The same where a record as large as the largest so far would not fit, or one was refused. What the spool
    /// cannot take is given up once the ring is nearly full.
    pub(super) fn relieve(&self, ring: &mut Attached) {
        let is_due = ring.take_due_relief();
        let level = Level::of(ring);
        let dropped = ring.file.load(Word::Dropped, Ordering::Relaxed);
        let refused = std::mem::replace(&mut ring.dropped, dropped) != dropped;
        if !level.is_plausible() {
            return;
        }
        let half = level.capacity / HIGH_WATER;
        let is_urgent = refused || ring.ledger.has_older_than(OLD);
        let largest = level.missing(if is_urgent { half } else { ring.largest });
        let excess = level.used.saturating_sub(half).max(largest);
        if excess > 0 {
            self.driver.spill(ring.ledger.to_spill(excess));
        }
        let mut refused = refused;
        loop {
            let level = Level::of(ring);
            let need = match () {
                () if refused => Need::Refused,
                () if level.free() < level.capacity / FLOOD.1 => Need::Now,
                () if level.free() < level.capacity / FLOOD.0 || level.missing(ring.largest) > 0 => Need::Soon,
                () => return,
            };
            let Some(oldest) = ring.ledger.oldest() else { return };
            // Closing connections just when an event came would delay that one.
            if need == Need::Now && !is_due && level.missing(2 * ring.largest) == 0 {
                ring.relief_at.get_or_insert_with(|| Instant::now() + YIELD);
                return;
            }
            if !self.driver.give_up(oldest, need) {
                return;
            }
            refused &= Level::of(ring).missing(ring.largest) > 0;
        }
    }
}
