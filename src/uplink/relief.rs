//! Handles a ring that fills: which events go to the spool, and which are given up if the spool cannot take them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Uplink;
use super::reading::Attached;
use crate::deliver::core::pressure::Need;
use crate::deliver::core::schedule::YIELD;
use crate::ring::{Memory, Word};

/// Events are spilled into the spool while more than half of the ring is used (capacity divided by this).
const HIGH_WATER: u64 = 2;
/// If the spool fails, waiting events are given up when less than an eighth of the ring is free, when a record as large as the
/// largest so far has no room, or when no further event can be read. Uploads in flight are given up only when less than a
/// sixteenth is free or an event was refused.
const FLOOD: (u64, u64) = (8, 16);
/// While no further event can be read because too many wait, this part of the ring's content is spilled.
const OLDEST: u64 = 16;
/// An event that has been in the ring for this long is spilled if it leaves no room for the largest possible record.
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

    /// Whether the producer's position is plausible.
    fn is_plausible(self) -> bool {
        self.used <= self.capacity
    }

    fn free(self) -> u64 {
        self.capacity.saturating_sub(self.used)
    }

    /// How many more bytes must be free for a record of `length` bytes, including the padding that keeps it in one piece.
    fn missing(self, length: u64) -> u64 {
        let to_end = self.capacity - (self.head & (self.capacity - 1));
        let padding = if to_end < length { to_end } else { 0 };
        (padding + length).saturating_sub(self.free())
    }
}

impl Attached {
    /// Whether the time has come to give up uploads that could wait until now.
    fn take_due_relief(&mut self) -> bool {
        self.relief_at.take_if(|moment| *moment <= Instant::now()).is_some()
    }
}

impl Uplink {
    /// Above the high-water mark, writes the oldest undelivered events to the spool, even while they are being uploaded, so that
    /// the recognizer does not wait for room. Does the same if a record as large as the largest so far would not fit, or if one
    /// was refused. Gives up what the spool cannot take, once the ring is nearly full.
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
        // The ledger's places may be used up long before the ring: by small events that wait in it.
        let oldest = if ring.ledger.has_room() { 0 } else { level.used / OLDEST };
        let excess = level.used.saturating_sub(half).max(largest).max(oldest);
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
                () if !ring.ledger.has_room() => Need::Unread,
                () => return,
            };
            let Some(oldest) = ring.ledger.oldest() else { return };
            // Closing connections at the moment when an event came would delay that event.
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
