//! Chooses what a lane sends next: live events before the backlog, and the oldest first. Events that failed come after those that
//! never did. While the destination is not up, one probe at a time, with another event each time.

use std::time::{Duration, Instant};

use super::EventNo;
use super::backlog::Pick;
use super::lane::Lane;
use super::retry::RetryState;

/// While there are live events, the backlog gets this part of the places and rests after each upload, so that live events do not
/// wait for its bytes. Otherwise the backlog gets all places but one, which stays free for a live event.
const BACKLOG_PART: usize = 4;
/// Live events count as present for this long after the last one.
const LIVE: Duration = Duration::from_secs(1);
/// A destination that failed recently or is slow starts each event this much later than the others, so that it does not delay
/// them.
pub const YIELD: Duration = Duration::from_millis(5);
/// A destination is slow if its answers take this long: [`YIELD`] adds hardly anything to that.
const SLOW_ANSWER: Duration = Duration::from_millis(200);
/// The interval between checks whether the box has what it lacked.
const BOX_LOOK: Duration = Duration::from_secs(1);
/// While there are live events, the backlog rests after an upload for this many times the duration of that upload, up to this
/// limit. Thus a live event rarely meets an upload of the backlog.
const REST: (u32, Duration) = (8, Duration::from_millis(50));

/// The next action of a lane.
#[derive(Debug)]
pub enum Next {
    /// Send this event from the ring.
    Live(EventNo, Option<RetryState>),
    /// Take an event out of the spool, and send it.
    Backlog(Pick),
    /// Do nothing before this moment, or before something changes.
    Wait(Option<Instant>),
}

impl Lane {
    /// The next action; an event to be sent is taken out of the queue.
    pub fn next(&mut self, now: Instant) -> Next {
        if !self.is_open() {
            return Next::Wait(None);
        }
        if self.standing.waits().is_some() {
            return Next::Wait(Some(now + BOX_LOOK));
        }
        if let Some(until) = self.standing.paused_until(now) {
            return Next::Wait(Some(until));
        }
        let has_something = self.rounds.is_some() && self.has_something();
        if let Some(Err(moment)) = self.rounds.as_mut().map(|rounds| rounds.look(has_something, now)) {
            return Next::Wait(moment);
        }
        if let Some(until) = self.yields_until.filter(|until| *until > now) {
            return Next::Wait(Some(until));
        }
        if self.in_order.is_some() {
            return self.next_in_order(now);
        }
        let is_up = self.standing.is_up();
        if !self.limit.is_free(is_up, now) {
            if is_up && self.has_more(now) {
                self.limit.miss();
            }
            return Next::Wait(self.limit.next_exempt(now));
        }
        // A run of events that the destination cannot handle may be long: every second probe is the newest event instead of the
        // oldest.
        let newest = !is_up && self.standing.has_failed_for_long();
        let backlog = self.next_fresh_of_backlog(now);
        let is_in_backlog = newest && backlog.is_ok() && self.backlog.knows_newest();
        let live = if is_in_backlog { None } else { self.deliveries.take_fresh(newest) };
        if let Some(event) = live {
            return Next::Live(event, None);
        }
        if let Ok(()) = backlog {
            return Next::Backlog(self.backlog.pick_fresh(newest));
        }
        let retry = self.next_retry(now);
        match retry {
            Ok(retry) => retry,
            Err(retry) => Next::Wait(backlog.err().flatten().into_iter().chain(retry).min()),
        }
    }

    /// The oldest event, the backlog's before the ring's; nothing while an event is in flight or being stored.
    fn next_in_order(&mut self, now: Instant) -> Next {
        if !self.deliveries.is_at_rest() {
            return Next::Wait(None);
        }
        if !self.backlog.is_empty() {
            return match self.backlog.pick_oldest(now) {
                _ if self.rests_backlog() => Next::Wait(None),
                Ok(pick) => Next::Backlog(pick),
                Err(moment) => Next::Wait(Some(moment)),
            };
        }
        let Some((event, retry_at)) = self.deliveries.oldest() else { return Next::Wait(None) };
        match retry_at.filter(|moment| *moment > now) {
            Some(moment) => Next::Wait(Some(moment)),
            None => Next::Live(event, self.deliveries.take(event).flatten()),
        }
    }

    /// Whether nothing may be taken out of the spool now.
    fn rests_backlog(&self) -> bool {
        self.leaves_backlog || self.is_off_hours
    }

    /// A live event came: a destination that failed recently or is slow waits, so that the others start first. However many
    /// events come, the waits take half of the time at most.
    pub fn yield_to_others(&mut self, now: Instant) {
        let is_slow = self.limit.usual().is_some_and(|usual| usual >= SLOW_ANSWER);
        if (is_slow || self.standing.failed_lately(now)) && self.yields_until.is_none_or(|until| until + YIELD <= now) {
            self.yields_until = Some(now + YIELD);
        }
    }

    /// Whether to take an event that never failed out of the spool. An error: when to look again, if ever.
    fn next_fresh_of_backlog(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        if self.rests_backlog() || self.deliveries.is_picking() {
            return Err(None);
        }
        self.backlog.has_fresh(now)?;
        if !self.limit.is_free_for_later() {
            return Err(None); // the lane runs again when a body has been sent
        }
        if self.deliveries.of_backlog() >= self.backlog_limit(now) {
            if !self.is_live(now) {
                self.limit.miss();
            }
            return Err(self.live_until(now));
        }
        Ok(())
    }

    /// The failed event that may be tried again first. An error: when there is one.
    fn next_retry(&mut self, now: Instant) -> Result<Next, Option<Instant>> {
        let live = self.deliveries.first_retry();
        let backlog = self.backlog.first_retry(now).filter(|_| !self.rests_backlog() && !self.deliveries.is_picking());
        let Some(first) = live.into_iter().chain(backlog).min() else { return Err(None) };
        let first = first.max(self.standing.retries_at(now).unwrap_or(first));
        if first > now {
            return Err(Some(first));
        }
        if self.deliveries.of_failed() >= self.retry_limit(now)
            || (self.is_live(now) && !self.limit.is_free_for_later())
        {
            return Err(self.live_until(now));
        }
        if live.is_some_and(|live| backlog.is_none_or(|backlog| live <= backlog)) {
            let (event, retry) = self.deliveries.take_first_retry().expect("checked above");
            return Ok(Next::Live(event, Some(retry)));
        }
        Ok(Next::Backlog(self.backlog.pick_retry().expect("checked above")))
    }

    /// Whether the picked event may still be sent: the state may have changed while the disk was read.
    pub fn may_begin_picked(&self, now: Instant) -> bool {
        let is_paused = self.standing.paused_until(now).is_some() || self.standing.waits().is_some();
        self.is_open() && !is_paused && !self.is_off_hours && (self.standing.is_up() || self.limit.in_flight() == 1)
    }

    /// Whether another upload would begin if there were a place for it.
    fn has_more(&self, now: Instant) -> bool {
        let is_backlog_ready =
            || self.deliveries.of_backlog() < self.backlog_limit(now) && self.backlog.has_fresh(now).is_ok();
        self.deliveries.has_fresh() || is_backlog_ready()
    }

    fn backlog_limit(&self, now: Instant) -> usize {
        let places = self.limit.limit();
        if self.is_live(now) { places / BACKLOG_PART } else { places - 1 }
    }

    /// Failed events get one place while there are live events, and otherwise half of the places.
    fn retry_limit(&self, now: Instant) -> usize {
        if self.is_live(now) { 1 } else { self.limit.limit() / 2 }
    }

    fn is_live(&self, now: Instant) -> bool {
        self.live_until(now).is_some()
    }

    fn live_until(&self, now: Instant) -> Option<Instant> {
        self.live_at.map(|moment| moment + LIVE).filter(|moment| *moment > now)
    }

    /// An upload from the spool that began at `began` has ended: the backlog rests.
    pub fn rest(&mut self, began: Instant, now: Instant) {
        if self.is_live(now) {
            let rest = (now.saturating_duration_since(began) * REST.0).min(REST.1);
            self.backlog.rest_until(now + rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Report;
    use crate::deliver::core::in_flight::{InFlight, Source};
    use crate::deliver::core::{LaneId, LaneSettings, UploadId};
    use crate::deliver::failure::{Code, Failure};
    use crate::spool::{Address, Destination};

    fn lane(now: Instant) -> Lane {
        let address = Address { destination: Destination([0; 8]), former: None, shown: "http://a/".into() };
        let settings = LaneSettings {
            address,
            needs_box: false,
            response_timeout: Duration::from_secs(10),
            in_order: None,
            is_off_hours: false,
            report: Report::RealTime,
            period: None,
        };
        let mut lane = Lane::new(LaneId(1), settings, EventNo(1), &mut fastrand::Rng::with_seed(1), now);
        (1..20).for_each(|counter| lane.backlog.add(counter, None, false));
        lane
    }

    /// Starts all uploads that the lane wants to start; returns how many of them are live, and how many come from the spool.
    fn begin(lane: &mut Lane, now: Instant) -> (usize, usize) {
        let (mut live, mut backlog) = (0, 0);
        loop {
            let source = match lane.next(now) {
                Next::Live(event, _) => Source::Ring(event),
                Next::Backlog(_) => Source::Spool(backlog + 1),
                Next::Wait(_) => return (live, backlog as usize),
            };
            match source {
                Source::Ring(_) => live += 1,
                _ => backlog += 1,
            }
            let id = UploadId(lane.deliveries.uploads().count() as u64);
            let (retry, is_aborted) = (None, false);
            let upload = InFlight { source, began: now, acknowledged: 0, generation: 0, retry, is_aborted };
            lane.limit.begin(id, now);
            let _nobody_waits = lane.limit.body_gone(id);
            lane.deliveries.begin(id, upload);
        }
    }

    #[test]
    fn live_events_go_before_the_backlog() {
        let now = Instant::now();
        let mut lane = lane(now);
        (1..=9).for_each(|event| lane.deliveries.wait(EventNo(event), None));
        assert_eq!(begin(&mut lane, now), (4, 0));
    }

    #[test]
    fn the_backlog_leaves_a_place_for_a_live_event_and_has_only_one_while_there_are_any() {
        let now = Instant::now();
        assert_eq!(begin(&mut lane(now), now), (0, 3));
        let mut busy = lane(now);
        busy.live_at = Some(now);
        assert_eq!(begin(&mut busy, now), (0, 1));
    }

    #[test]
    fn a_destination_that_failed_lately_or_is_slow_begins_after_the_others_and_has_its_turn_however_many_events_there_are()
     {
        let began = Instant::now();
        let failing =
            |lane: &mut Lane| lane.standing.parts().0.note(Failure::new(Code::EarlyAnswer, "too early"), began);
        let ending_for_the_ring = |lane: &mut Lane| lane.standing.gave_up(began);
        let taking = |took_ms| {
            move |lane: &mut Lane| {
                lane.limit.acknowledged(UploadId(0), Duration::from_millis(took_ms), lane.response_timeout)
            }
        };
        let (at_once, later): (Vec<u64>, Vec<u64>) = ((0..20).collect(), (5..10).chain(15..20).collect());
        // What happens, when events begin, and whether the last one begins at once.
        type Case<'a> = (&'a dyn Fn(&mut Lane), &'a [u64], bool);
        let cases: [Case<'_>; 4] = [
            (&taking(199), &at_once, true),
            (&taking(200), &later, false),
            (&failing, &later, true),
            (&ending_for_the_ring, &later, true),
        ];
        for (number, (happens, expected, is_over)) in cases.into_iter().enumerate() {
            let mut lane = lane(began);
            lane.backlog = Default::default();
            happens(&mut lane);
            let mut turns = Vec::new();
            for event in 0..20 {
                let now = began + Duration::from_millis(event);
                lane.deliveries.wait(EventNo(event), None);
                lane.yield_to_others(now);
                match lane.next(now) {
                    Next::Live(..) => turns.push(event),
                    next => assert!(matches!(next, Next::Wait(Some(until)) if until > now), "{next:?}"),
                }
            }
            assert_eq!(turns, expected, "{number}");
            let later = began + Duration::from_secs(11);
            lane.deliveries.wait(EventNo(99), None);
            lane.yield_to_others(later);
            assert_eq!(
                matches!(lane.next(later), Next::Live(..)),
                is_over,
                "{number}: a failure is long ago, being slow is not"
            );
        }
    }

    #[test]
    fn of_a_long_row_of_failures_every_second_probe_is_the_newest_event() {
        let now = Instant::now();
        let mut lane = lane(now);
        lane.backlog = Default::default();
        (1..=9).for_each(|event| lane.deliveries.wait(EventNo(event), None));
        lane.standing.parts().0.condition = super::super::health::Condition::Down;
        let mut probes = Vec::new();
        for _ in 0..6 {
            let Next::Live(event, _) = lane.next(now) else { panic!("nothing begins") };
            probes.push(event.0);
            lane.standing.parts().1.failed();
            lane.standing.parts().1.pauses();
        }
        assert_eq!(probes, [1, 2, 9, 3, 8, 4]);
    }
}
