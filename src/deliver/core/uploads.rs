//! The life of a delivery: into the queue, into an upload, and to its outcome.

use std::time::{Duration, Instant};

use super::counters::End;
use super::in_flight::{InFlight, Meanwhile, Source};
use super::lane::{Lane, Phase};
use super::retry::RetryState;
use super::schedule::Next;
use super::standing::{Judge, Verdict};
use super::{Core, Effect, EventNo, Fate, Held, LaneId, Notice, Picked, Scope, Turn, UploadId};
use crate::deliver::outcome::AttemptOutcome;
use crate::event::EventId;
use crate::spool::Destination;

/// The pause after the spool could not open an event because a resource was short.
const SHORTAGE: Duration = Duration::from_secs(1);

impl<T: Held> Core<T> {
    /// Puts an event into the queue of each lane that gets it; with no such lane the event is released.
    pub(super) fn published(&mut self, held: T, scope: Scope, turn: &mut Turn<'_, T>) {
        let gets_it = |core: &Self, lane: &LaneId| scope.is_for(core.lanes[lane].report);
        let lanes = self.order.iter().filter(|lane| gets_it(self, lane)).count();
        if lanes == 0 {
            return turn.effects.push(Effect::Release(held));
        }
        let event = self.events.add(held, lanes as u32);
        for place in 0..self.order.len() {
            let lane = self.order[place];
            if gets_it(self, &lane) {
                self.enter(lane, event, turn);
            }
        }
    }

    /// A lane gets a new event.
    pub(super) fn enter(&mut self, id: LaneId, event: EventNo, turn: &mut Turn<'_, T>) {
        let lane = self.lane_mut(id);
        lane.counters.entered += 1;
        lane.live_at = Some(turn.now);
        lane.yield_to_others(turn.now);
        self.put(id, event, None, turn);
    }

    /// Puts an event into a lane's queue, or hands it over if the lane is closed.
    pub(super) fn put(&mut self, id: LaneId, event: EventNo, retry: Option<RetryState>, turn: &mut Turn<'_, T>) {
        if let Phase::Closed(heirs) = &self.lane_mut(id).phase {
            let heirs = heirs.clone();
            if self.hand_over(id, event, &heirs, turn) {
                return;
            }
        }
        let lane = self.lane_mut(id);
        let retry = lane.still_known(retry);
        lane.deliveries.wait(event, retry);
        if lane.wants_spool() || retry.is_some() {
            self.will_write(event, turn.now);
        }
        self.touch(id, turn.now);
    }

    /// Starts all uploads that the lane may start. Returns when to call this again.
    pub(super) fn run(&mut self, id: LaneId, turn: &mut Turn<'_, T>) -> Option<Instant> {
        loop {
            let upload = self.next_upload;
            let lane = self.lanes.get_mut(&id)?;
            let (source, retry) = match lane.next(turn.now) {
                Next::Wait(moment) => return moment,
                Next::Live(event, retry) => {
                    turn.effects.push(Effect::Upload(id, upload, event));
                    (Source::Ring(event), retry)
                }
                Next::Backlog(pick) => {
                    turn.effects.push(Effect::Pick(id, upload, lane.destination(), pick.wanted.clone()));
                    let retry = pick.wanted.state();
                    (Source::Picking(pick), retry)
                }
            };
            lane.limit.begin(upload, turn.now);
            lane.deliveries.begin(upload, lane.upload(source, retry, turn.now));
            self.next_upload = UploadId(upload.0 + 1);
        }
    }

    /// A pick ended.
    pub(super) fn picked(&mut self, id: LaneId, upload: UploadId, picked: Picked, turn: &mut Turn<'_, T>) {
        let lane = self.lane_mut(id);
        let Some(InFlight { source: Source::Picking(pick), retry, began, .. }) = lane.deliveries.end(upload) else {
            return;
        };
        let mut retry = lane.still_known(retry);
        match picked {
            Picked::Event(counter, event) => {
                lane.backlog.found(&pick, counter);
                retry = retry.or_else(|| lane.backlog.take_state(counter));
                let has_it = lane.had.is_delivered(event);
                if !has_it && lane.may_begin_picked(turn.now) {
                    let begun = InFlight { began, ..lane.upload(Source::Spool(counter), retry, turn.now) };
                    lane.deliveries.begin(upload, begun);
                    turn.effects.push(Effect::UploadPicked(id, upload));
                    return self.touch(id, turn.now);
                }
                let (destination, fate) = (lane.destination(), if has_it { Fate::Had } else { Fate::PutBack });
                turn.effects.push(Effect::Forget(upload));
                turn.effects.push(Effect::Spooled(id, destination, counter, fate));
                if !has_it {
                    self.is_spooled(id, counter, retry, turn);
                }
            }
            Picked::Unusable(counter) => lane.backlog.found(&pick, counter),
            Picked::Nothing => {
                lane.backlog.found_nothing(&pick, lane.in_order.is_some());
                self.forget_delivered();
            }
            Picked::Later => {
                if let super::backlog::Wanted::This(counter, state) = pick.wanted {
                    lane.backlog.put_back(counter, Some(state), lane.in_order.is_some());
                }
                lane.backlog.rest_until(turn.now + SHORTAGE);
            }
        }
        self.end_of(id, upload, turn);
    }

    /// An upload ended.
    pub(super) fn ended(
        &mut self,
        id: LaneId,
        upload: UploadId,
        event: EventId,
        outcome: AttemptOutcome,
        took: Duration,
        turn: &mut Turn<'_, T>,
    ) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(begun) = lane.deliveries.end(upload) else { return };
        if outcome == AttemptOutcome::Acknowledged {
            lane.had.acknowledged(event);
            lane.limit.acknowledged(upload, took, lane.response_timeout);
        }
        let was_up = lane.standing.is_up();
        let mut judge = Judge::new(lane, turn.now, &mut self.random);
        let is_given_up = begun.is_aborted && outcome != AttemptOutcome::Acknowledged;
        if is_given_up {
            lane.standing.gave_up(turn.now);
            lane.yield_to_others(turn.now);
        }
        let verdict = match begun.source {
            Source::Ring(_) if is_given_up => Verdict::Over(End::Evicted),
            _ if is_given_up => Verdict::Again(begun.retry),
            _ => lane.standing.classify(&mut judge, &begun, event, outcome),
        };
        let Judge { notices, failures, is_doubted, .. } = judge;
        turn.effects.extend(notices.into_iter().map(Effect::Say));
        lane.counters.failures += failures;
        if is_doubted {
            turn.deny(lane.limit.failed());
        }
        if was_up && !lane.standing.is_up() {
            self.spool_queue(id, turn);
        }
        self.follow(id, &begun, verdict, turn);
        if begun.is_backlog() {
            self.lane_mut(id).rest(begun.began, turn.now);
        }
        self.end_of(id, upload, turn);
    }

    /// Applies the verdict to the upload's event.
    fn follow(&mut self, id: LaneId, begun: &InFlight, verdict: Verdict, turn: &mut Turn<'_, T>) {
        match begun.source {
            Source::Picking(_) => {}
            Source::Spool(counter) => self.settle_spooled(id, counter, verdict, turn),
            Source::Stored { event, counter, holds_room } => {
                if holds_room {
                    self.let_go(event, turn);
                }
                let verdict = match verdict {
                    Verdict::Over(End::Lost) => Verdict::Again(begun.retry), // from the ring; its file in the spool is whole
                    verdict => verdict,
                };
                self.settle_spooled(id, counter, verdict, turn);
            }
            Source::Ring(event) => {
                if let Some(meanwhile) = self.lane_mut(id).deliveries.meanwhile(event) {
                    *meanwhile = match verdict {
                        Verdict::Again(retry) => Meanwhile::Failed(retry),
                        // The write that is under way may still succeed.
                        Verdict::Over(End::Evicted | End::Lost) => Meanwhile::Failed(begun.retry),
                        Verdict::Over(end) => Meanwhile::Ended(end),
                    };
                    return;
                }
                match verdict {
                    Verdict::Again(retry) => self.put(id, event, retry, turn),
                    Verdict::Over(End::Rejected(reason)) => {
                        self.lane_mut(id).deliveries.reject(event, reason);
                        self.will_write(event, turn.now);
                    }
                    Verdict::Over(end) => self.over(id, event, &end, turn),
                }
            }
        }
    }

    /// A delivery of a stored event ended, or has to be tried again: tells the spool.
    pub(super) fn settle_spooled(&mut self, id: LaneId, counter: u64, verdict: Verdict, turn: &mut Turn<'_, T>) {
        let destination = self.lane_mut(id).destination();
        let fate = match verdict {
            // A removed lane and a new lane to the same destination can share an event: the lane that is sending it decides.
            Verdict::Again(_) if self.is_on_its_way(destination, counter) => return,
            Verdict::Again(retry) => {
                turn.effects.push(Effect::Spooled(id, destination, counter, Fate::PutBack));
                return self.is_spooled(id, counter, retry, turn);
            }
            Verdict::Over(End::Acknowledged) => Fate::Delivered,
            Verdict::Over(End::Rejected(reason)) => Fate::Dead(reason),
            Verdict::Over(End::Lost | End::Evicted) => Fate::Skipped,
        };
        turn.effects.push(Effect::Spooled(id, destination, counter, fate));
    }

    fn is_on_its_way(&self, destination: Destination, counter: u64) -> bool {
        let lanes = self.lanes.values().filter(|lane| lane.destination() == destination);
        lanes.into_iter().any(|lane| lane.deliveries.uploads().any(|upload| upload.counter() == Some(counter)))
    }

    /// An event that is not in flight is in the spool now.
    pub(super) fn is_spooled(&mut self, id: LaneId, counter: u64, retry: Option<RetryState>, turn: &mut Turn<'_, T>) {
        let lane = self.lane_mut(id);
        if lane.is_closed() {
            // It is for the heirs, or for a new lane to the same destination.
            self.writer.settle(turn.now);
            return self.look_into_spool_at(turn.now);
        }
        let retry = lane.still_known(retry);
        lane.backlog.add(counter, retry, lane.in_order.is_some());
        self.touch(id, turn.now);
    }

    /// A delivery ended in memory.
    pub(super) fn over(&mut self, id: LaneId, event: EventNo, end: &End, turn: &mut Turn<'_, T>) {
        let lane = self.lane_mut(id);
        match end {
            End::Acknowledged => lane.counters.acknowledged += 1,
            End::Lost => lane.counters.lost += 1,
            End::Rejected(_) => {
                lane.counters.refused += 1;
                turn.effects.push(Effect::Say(Notice::GaveUp { lane: id, is_rejected: true }));
            }
            End::Evicted => {
                lane.counters.evicted += 1;
                turn.effects.push(Effect::Say(Notice::GaveUp { lane: id, is_rejected: false }));
            }
        }
        self.let_go(event, turn);
    }

    /// A delivery no longer needs its event's room.
    pub(super) fn let_go(&mut self, event: EventNo, turn: &mut Turn<'_, T>) {
        if let Some(held) = self.events.let_go(event) {
            self.writer.forget(event.0, held.length());
            for lane in self.lanes.values_mut() {
                lane.had.forget(event);
            }
            turn.effects.push(Effect::Release(held));
        }
    }

    pub(super) fn body_gone(&mut self, id: LaneId, upload: UploadId, turn: &mut Turn<'_, T>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Some(next) = lane.limit.body_gone(upload) {
            turn.effects.push(Effect::Body(next, true));
        }
        self.touch(id, turn.now);
    }

    pub(super) fn body_wanted(&mut self, id: LaneId, upload: UploadId, turn: &mut Turn<'_, T>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.is_closed() || lane.standing.paused_until(turn.now).is_some() {
            turn.effects.push(Effect::Body(upload, false));
        } else if lane.limit.begin_again(upload, turn.now) {
            turn.effects.push(Effect::Body(upload, true));
        }
    }

    /// Whether a lane's backlog may be sent at this time of the day.
    pub(super) fn backlog_hours(&mut self, id: LaneId, is_open: bool, turn: &mut Turn<'_, T>) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.is_off_hours = !is_open;
            self.touch(id, turn.now);
        }
    }

    /// An upload is over: another one may start, and a closed lane may have nothing left.
    fn end_of(&mut self, id: LaneId, upload: UploadId, turn: &mut Turn<'_, T>) {
        if let Some(next) = self.lane_mut(id).limit.end(upload) {
            turn.effects.push(Effect::Body(next, true));
        }
        self.touch(id, turn.now);
        self.remove_if_over(id, turn);
    }

    /// Writes a lane's queue to the spool.
    pub(super) fn spool_queue(&mut self, id: LaneId, turn: &Turn<'_, T>) {
        let waiting = self.lane_mut(id).deliveries.waiting();
        waiting.into_iter().for_each(|event| self.will_write(event, turn.now));
    }

    /// The event may have to be written.
    pub(super) fn will_write(&mut self, event: EventNo, now: Instant) {
        if let Some(pending) = self.events.get(event) {
            self.writer.add(event.0, pending.held.length(), now);
        }
    }

    pub(super) fn lane_mut(&mut self, id: LaneId) -> &mut Lane {
        self.lanes.get_mut(&id).expect("a lane exists while it has events")
    }
}
