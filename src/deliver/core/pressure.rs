//! Handles a ring that fills: writes the oldest events to the spool. Events that the spool cannot take are given up, for the
//! destinations that hold up the others.

use std::time::Instant;

use super::counters::End;
use super::lane::Lane;
use super::{Core, Effect, EventNo, Held, LaneId, Turn};

/// How urgently the ring needs an event's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The ring will need it soon.
    Soon,
    /// So many events wait that no further one is read.
    Unread,
    /// Now: the next event may be refused.
    Now,
    /// An event was refused because there was no room.
    Refused,
}

impl<T: Held> Core<T> {
    /// The ring needs the room of these events: they are written to the spool, even while their uploads go on.
    pub(super) fn spill(&mut self, events: &[EventNo], turn: &mut Turn<'_, T>) {
        for event in events {
            if let Some(pending) = self.events.get_mut(*event) {
                pending.is_spilled = true;
                self.writer.add(event.0, pending.held.length(), turn.now);
                self.writer.hurry(turn.now);
            }
        }
    }

    /// The ring needs the room of an event that the spool cannot take. Gives the event up for the destinations that do not have
    /// it yet. Does so only if another destination has it and would lose new events, or if no destination takes events. Returns
    /// whether the room is free.
    pub fn give_up(&mut self, now: Instant, event: EventNo, need: Need, effects: &mut Vec<Effect<T>>) -> bool {
        let mut turn = Turn { now, effects };
        let Some(pending) = self.events.get(event) else { return true };
        let is_unfit = pending.is_unfit;
        if matches!(need, Need::Unread | Need::Refused) {
            self.abort_stored(event, &mut turn);
        }
        if self.writer.trouble().is_none() && !is_unfit {
            return false;
        }
        let holders: Vec<LaneId> =
            self.lanes.values().filter(|lane| lane.deliveries.holds(event)).map(|lane| lane.id).collect();
        let is_ahead = |lane: &Lane| lane.is_open() && lane.had.contains(event) && !lane.deliveries.holds(event);
        let nobody_works = || holders.iter().all(|holder| self.lanes[holder].wants_spool());
        if !(self.lanes().any(is_ahead) || (need == Need::Refused && nobody_works())) {
            return false;
        }
        for holder in holders {
            let lane = self.lane_mut(holder);
            if lane.deliveries.take(event).is_some() {
                self.over(holder, event, &End::Evicted, &mut turn);
            } else if let Some(reason) = lane.deliveries.take_rejected(event) {
                self.over(holder, event, &End::Rejected(reason), &mut turn);
            } else if need >= Need::Now
                && let Some((upload, begun)) = lane.deliveries.upload_of(event)
                && !begun.is_aborted
            {
                begun.is_aborted = true;
                turn.effects.push(Effect::Abort(upload));
            }
            self.remove_if_over(holder, &mut turn);
        }
        self.events.get(event).is_none()
    }
}

impl<T: Held> Core<T> {
    /// Ends uploads that read a stored event in the ring: they start again from the spool.
    fn abort_stored(&mut self, event: EventNo, turn: &mut Turn<'_, T>) {
        let uploads = self.lanes.values_mut().flat_map(|lane| lane.deliveries.uploads_mut());
        for (upload, begun) in uploads.filter(|(_, begun)| begun.holds_room_of_stored(event) && !begun.is_aborted) {
            begun.is_aborted = true;
            turn.effects.push(Effect::Abort(upload));
        }
    }
}
