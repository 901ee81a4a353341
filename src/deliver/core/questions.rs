//! What can be asked: it changes nothing.

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

    /// What was given with an event that is not over.
    pub fn held(&self, event: EventNo) -> Option<&T> {
        self.events.get(event).map(|pending| &pending.held)
    }

    /// The same, to be changed.
    pub fn held_mut(&mut self, event: EventNo) -> Option<&mut T> {
        self.events.get_mut(event).map(|pending| &mut pending.held)
    }

    /// Events that are not over.
    pub fn open_events(&self) -> usize {
        self.events.count()
    }

    /// The lanes in force, in the order of the config.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.order.iter().filter_map(|lane| self.lanes.get(lane))
    }

    /// A lane, also one that was removed and has something left.
    pub fn lane(&self, lane: LaneId) -> Option<&Lane> {
        self.lanes.get(&lane)
    }

    /// Uploads on their way, of the lanes in force.
    pub fn in_flight(&self) -> usize {
        self.lanes().map(|lane| lane.limit.in_flight()).sum()
    }

    /// Deliveries that are neither over nor in the spool.
    pub fn open_deliveries(&self) -> u64 {
        self.lanes.values().map(Lane::open_deliveries).sum()
    }

    /// What became of all deliveries so far, those of removed lanes too.
    pub fn totals(&self) -> Counters {
        self.lanes.values().fold(self.gone, |sum, lane| sum.plus(&lane.counters))
    }

    /// Why nothing can be written just now. A write that failed is no trouble any more once nothing waits: the next one will show
    /// whether it still would be.
    pub fn trouble(&self) -> Option<&str> {
        let trouble = self.writer.trouble()?;
        (trouble.needs != spooling::Needs::Nothing || !self.writer.is_idle()).then_some(trouble.why.as_str())
    }

    /// Whether a try to write failed that began after the last [`Input::Suspend`].
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        self.writer.is_in_trouble(now)
    }

    /// Whether [`Input::Box`] is to come before this input: a lane speaks TLS, or may from then on.
    pub fn wants_box(&self, input: &Input<T>) -> bool {
        matches!(input, Input::Configured(_)) || self.lanes().any(|lane| lane.needs_box)
    }
}
