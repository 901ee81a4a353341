//! Queries: they change nothing.

use std::time::Instant;

use super::counters::Counters;
use super::lane::Lane;
use super::{Core, EventNo, Held, Input, LaneId, spooling};

impl<T: Held> Core<T> {
    /// The number that the next event gets.
    pub fn next_event(&self) -> EventNo {
        self.events.next()
    }

    /// The number that the next lane gets.
    pub fn next_lane(&self) -> LaneId {
        self.next_lane
    }

    /// What the owner keeps for a pending event.
    pub fn held(&self, event: EventNo) -> Option<&T> {
        self.events.get(event).map(|pending| &pending.held)
    }

    /// The same, mutable.
    pub fn held_mut(&mut self, event: EventNo) -> Option<&mut T> {
        self.events.get_mut(event).map(|pending| &mut pending.held)
    }

    /// The number of pending events.
    pub fn open_events(&self) -> usize {
        self.events.count()
    }

    /// The configured lanes, in the order of the config.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.order.iter().filter_map(|lane| self.lanes.get(lane))
    }

    /// A lane, including one that was removed and has something left.
    pub fn lane(&self, lane: LaneId) -> Option<&Lane> {
        self.lanes.get(&lane)
    }

    /// Uploads in flight of the configured lanes.
    pub fn in_flight(&self) -> usize {
        self.lanes().map(|lane| lane.limit.in_flight()).sum()
    }

    /// Deliveries that are neither done nor in the spool.
    pub fn open_deliveries(&self) -> u64 {
        self.lanes.values().map(|lane| lane.deliveries.open()).sum()
    }

    /// The counters of all lanes, including removed ones.
    pub fn totals(&self) -> Counters {
        self.lanes.values().fold(self.gone, |sum, lane| sum.plus(&lane.counters))
    }

    /// Why events cannot be written at present. A failed write is not reported once no event waits: the next write will show
    /// whether it still fails.
    pub fn trouble(&self) -> Option<&str> {
        let trouble = self.writer.trouble()?;
        (trouble.needs != spooling::Needs::Nothing || !self.writer.is_idle()).then_some(trouble.why.as_str())
    }

    /// Whether a write failed that began after the last [`Input::Suspend`].
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        self.writer.is_in_trouble(now)
    }

    /// Whether [`Input::Box`] has to come before this input: a lane uses TLS, or may do so after it.
    pub fn wants_box(&self, input: &Input<T>) -> bool {
        matches!(input, Input::Configured(_)) || self.lanes().any(|lane| lane.needs_box)
    }
}
