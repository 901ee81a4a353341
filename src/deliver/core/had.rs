//! Which events a lane has had, so that it is not given one twice: by a removed lane whose heir it is, or out of the spool.

use std::collections::BTreeMap;

use super::EventNo;
use super::queue::RunSet;
use crate::event::EventId;

/// See the module.
#[derive(Debug)]
pub struct Had {
    /// The first event that was published when the lane was there.
    born: EventNo,
    /// Of those before: taken over from lanes that were removed.
    taken_over: RunSet,
    /// What was acknowledged, by ring and sequence, while the lane may inherit the same from a removed destination: that is not
    /// sent again. None once there is nothing left to inherit.
    delivered: Option<BTreeMap<[u8; 16], RunSet>>,
}

impl Had {
    /// Of a lane that gets what is published from `born` on.
    pub fn new(born: EventNo) -> Had {
        Had { born, taken_over: RunSet::default(), delivered: Some(BTreeMap::new()) }
    }

    /// Whether the lane needs no copy of an event from another lane: it was given the event, or was there when the event was
    /// published.
    pub fn contains(&self, event: EventNo) -> bool {
        event >= self.born || self.taken_over.contains(event.0)
    }

    /// The lane takes over an event of a lane that was removed.
    pub fn take_over(&mut self, event: EventNo) {
        self.taken_over.insert(event.0);
    }

    /// No lane needs the event any more.
    pub fn forget(&mut self, event: EventNo) {
        self.taken_over.remove(event.0);
    }

    /// The destination has the event.
    pub fn acknowledged(&mut self, event: EventId) {
        if let Some(delivered) = &mut self.delivered {
            delivered.entry(event.ring.0).or_default().insert(event.sequence);
        }
    }

    /// Whether the destination has an event that comes out of the spool.
    pub fn is_delivered(&self, event: EventId) -> bool {
        let known = self.delivered.as_ref().and_then(|delivered| delivered.get(&event.ring.0));
        known.is_some_and(|sequences| sequences.contains(event.sequence))
    }

    /// Whether acknowledged events are still remembered.
    #[cfg(test)]
    pub fn remembers(&self) -> bool {
        self.delivered.is_some()
    }

    /// There is nothing left to inherit.
    pub fn forget_delivered(&mut self) {
        self.delivered = None;
    }
}
