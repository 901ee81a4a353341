//! Rules that depend on the time of the day: when backlogs are sent, and which events are too old.
//!
//! While the box's clock is not set, backlogs are sent at any hour, and no event is too old.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Destination, Driver};
use crate::clock;
use crate::config::sending::Bounds;
use crate::deliver::core::{Input, LaneId};
use crate::event::Event;

/// The hours are checked again after this time at the latest, because the clock may be set.
const LOOK: Duration = Duration::from_secs(60);

/// Whether backlogs may be sent now, and for how long that stays so.
fn at_this_time(bounds: Bounds) -> Option<(bool, Duration)> {
    let hours = bounds.backlog_hours?;
    if !clock::is_set() {
        return Some((true, LOOK));
    }
    let (are_open, seconds) = hours.at(clock::now());
    Some((are_open, Duration::from_secs(seconds).min(LOOK)))
}

/// Whether backlogs may be sent now.
pub(super) fn are_open(bounds: Bounds) -> bool {
    at_this_time(bounds).is_none_or(|(are_open, _)| are_open)
}

impl Driver {
    /// Tells lanes whose hours begin or end. Returns when to check again, if ever.
    pub(super) fn look_at_hours(&self) -> Option<Instant> {
        let of = |(lane, one): (&LaneId, &Rc<Destination>)| {
            at_this_time(one.endpoints.first().bounds()).map(|(open, time)| (*lane, open, time))
        };
        let looks: Vec<(LaneId, bool, Duration)> = self.destinations.borrow().iter().filter_map(of).collect();
        for (lane, are_open, _) in &looks {
            let is_news = self.core.borrow().lane(*lane).is_some_and(|lane| lane.is_off_hours == *are_open);
            if is_news {
                self.handle(Input::BacklogHours(*lane, *are_open));
            }
        }
        looks.iter().map(|(_, _, time)| Instant::now() + *time).min()
    }

    /// Whether an event is older than its destination's bounds allow.
    pub(super) fn is_too_old(&self, lane: LaneId, event: &Event) -> bool {
        let most = self.destination(lane).and_then(|one| one.endpoints.first().bounds().max_age);
        most.is_some_and(|most| clock::age(event.timestamp_ms / 1000).is_some_and(|age| age > most))
    }
}
