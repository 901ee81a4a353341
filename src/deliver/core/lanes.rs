//! Adds and removes lanes, and handles the end of the process.

use std::time::{Duration, Instant};

use super::lane::{Lane, Phase};
use super::standing::Judge;
use super::{Core, Effect, EventNo, Held, LaneId, LaneSettings, Notice, Turn};
use crate::readiness::NotReady;
use crate::spool::Destination;

impl<T: Held> Core<T> {
    /// Applies another config. Events that wait for a removed lane go to each added lane of the same report. With none added they
    /// stay in the spool, until the same or another destination is added.
    pub(super) fn configured(&mut self, lanes: Vec<(Option<LaneId>, LaneSettings)>, turn: &mut Turn<'_, T>) {
        let (mut order, mut added) = (Vec::new(), Vec::new());
        for (known, settings) in lanes {
            match known.filter(|id| self.order.contains(id)) {
                Some(id) => {
                    let lane = self.lanes.get_mut(&id).expect("configured");
                    lane.configure(settings, &mut self.random, turn.now);
                    order.push(id);
                }
                None => {
                    let id = self.next_lane;
                    self.next_lane = LaneId(id.0 + 1);
                    let lane = Lane::new(id, settings, self.events.next(), &mut self.random, turn.now);
                    self.lanes.insert(id, lane);
                    order.push(id);
                    added.push(id);
                }
            }
        }
        let old = std::mem::replace(&mut self.order, order);
        old.iter().filter(|id| !self.order.contains(id)).copied().collect::<Vec<_>>().into_iter().for_each(|removed| {
            self.close(removed, self.of_the_same_report(removed, &added), turn);
        });
        self.wake_parked(&added, turn);
        self.look_at_box(self.lack, turn);
        self.order.clone().into_iter().for_each(|lane| self.touch(lane, turn.now));
    }

    /// Closes a lane: no upload starts any more, or sends its body again, and waiting events go to `heirs`. An upload in flight
    /// goes on to its end; if it fails, its event goes to the heirs too.
    fn close(&mut self, id: LaneId, heirs: Vec<LaneId>, turn: &mut Turn<'_, T>) {
        turn.effects.push(Effect::Say(Notice::Removed { lane: id, heirs: heirs.clone() }));
        // Deliveries that have not begun go to the heirs; later failures of this lane say nothing about the heirs.
        turn.effects.push(Effect::Retire(id));
        self.lanes.values_mut().for_each(|lane| lane.replace_heir(id, &heirs));
        let lane = self.lane_mut(id);
        lane.phase = Phase::Closed(heirs);
        lane.standing.begin_anew(turn.now);
        turn.deny(lane.limit.deny());
        self.pass_on(id, turn);
    }

    /// Waiting events of removed lanes without an heir go to their own destination, if it is among the added lanes, else to all
    /// of these.
    fn wake_parked(&mut self, added: &[LaneId], turn: &mut Turn<'_, T>) {
        if added.is_empty() {
            return;
        }
        let is_parked = |lane: &&Lane| matches!(&lane.phase, Phase::Closed(heirs) if heirs.is_empty());
        for id in self.lanes.values().filter(is_parked).map(|lane| lane.id).collect::<Vec<_>>() {
            let destination = self.lane_mut(id).destination();
            let same = self.open_lane_to(destination).filter(|lane| added.contains(lane));
            let heirs = same.map_or_else(|| self.of_the_same_report(id, added), |lane| vec![lane]);
            if heirs.is_empty() {
                continue;
            }
            self.lane_mut(id).phase = Phase::Closed(heirs);
            self.pass_on(id, turn);
        }
    }

    /// Those of `lanes` that have the same report as lane `id`.
    fn of_the_same_report(&self, id: LaneId, lanes: &[LaneId]) -> Vec<LaneId> {
        lanes.iter().copied().filter(|other| self.lanes[other].report == self.lanes[&id].report).collect()
    }

    fn open_lane_to(&self, destination: Destination) -> Option<LaneId> {
        self.lanes().find(|lane| lane.destination() == destination).map(|lane| lane.id)
    }

    fn pass_on(&mut self, id: LaneId, turn: &mut Turn<'_, T>) {
        let waiting = self.lane_mut(id).deliveries.take_waiting();
        waiting.into_iter().for_each(|event| self.put(id, event, None, turn));
        self.remove_if_over(id, turn);
    }

    /// Gives a removed lane's event to those of `heirs` that never had it. Returns false if the event has to go through the
    /// spool: the heirs may also get it from there, after another removed lane, and no heir may get it twice.
    pub(super) fn hand_over(&mut self, id: LaneId, event: EventNo, heirs: &[LaneId], turn: &mut Turn<'_, T>) -> bool {
        let is_stored = self.events.get(event).is_none_or(|pending| pending.counter.is_some());
        let is_storing = || self.lanes.values().any(|lane| lane.deliveries.is_storing(event));
        let heirs: Vec<LaneId> = heirs.iter().copied().filter(|heir| self.lanes.contains_key(heir)).collect();
        let have_all_had_it = || heirs.iter().all(|heir| self.lanes[heir].had.contains(event));
        if heirs.is_empty() || (is_stored || is_storing()) && !have_all_had_it() {
            return false;
        }
        for heir in heirs {
            let lane = self.lane_mut(heir);
            if !lane.had.contains(event) {
                lane.had.take_over(event);
                self.events.hold(event);
                self.enter(heir, event, turn);
            }
        }
        self.lane_mut(id).counters.handed_over += 1;
        self.let_go(event, turn);
        self.hand_over_the_same(event, turn);
        true
    }

    /// Other removed lanes that wait to store the event may have only heirs that have it now: the event is done for these lanes,
    /// too.
    fn hand_over_the_same(&mut self, event: EventNo, turn: &mut Turn<'_, T>) {
        let has_had = |heir: &LaneId| self.lanes.get(heir).is_some_and(|lane| lane.had.contains(event));
        let waits_in_vain = |lane: &&Lane| match &lane.phase {
            Phase::Closed(heirs) => lane.deliveries.waits(event) && !heirs.is_empty() && heirs.iter().all(has_had),
            _ => false,
        };
        for other in self.lanes.values().filter(waits_in_vain).map(|lane| lane.id).collect::<Vec<_>>() {
            let lane = self.lane_mut(other);
            lane.deliveries.take(event);
            lane.counters.handed_over += 1;
            self.let_go(event, turn);
            self.remove_if_over(other, turn);
        }
    }

    /// Drops the lists of acknowledged events of lanes that can inherit nothing any more: no removed destination has anything
    /// left to pass on.
    pub(super) fn forget_delivered(&mut self) {
        if !self.writer.may_move() && !self.lanes.values().any(Lane::is_closed) {
            let done = self.lanes.values_mut().filter(|lane| lane.backlog.is_empty());
            done.for_each(|lane| lane.had.forget_delivered());
        }
    }

    /// Removes a closed lane that has nothing left.
    pub(super) fn remove_if_over(&mut self, id: LaneId, turn: &mut Turn<'_, T>) {
        if self.lanes.get(&id).is_some_and(Lane::is_over)
            && let Some(lane) = self.lanes.remove(&id)
        {
            self.gone = self.gone.plus(&lane.counters);
            self.due.remove(&id);
            turn.effects.push(Effect::Removed(id));
            self.forget_delivered();
        }
    }

    /// The spool may have more events than the lanes know of.
    pub(super) fn look_into_spool_at(&mut self, now: Instant) {
        self.lanes.values_mut().for_each(|lane| lane.backlog.wake());
        self.order.clone().into_iter().for_each(|lane| self.touch(lane, now));
    }

    /// The process ends soon: takes nothing more out of the spool, and writes what waits for its period or its group to the
    /// spool.
    pub(super) fn leave_backlog(&mut self, turn: &mut Turn<'_, T>) {
        self.lanes.values_mut().for_each(|lane| lane.leaves_backlog = true);
        for id in self.order.clone() {
            if self.lanes[&id].rounds.is_some() {
                self.spool_queue(id, turn);
                self.touch(id, turn.now);
            }
        }
        self.writer.set_window(Duration::ZERO, turn.now);
        self.writer.hurry(turn.now);
    }

    /// The process ends: what has not been sent goes to the spool.
    pub(super) fn suspend(&mut self, turn: &mut Turn<'_, T>) {
        self.is_ending = true;
        for lane in self.lanes.values_mut().filter(|lane| lane.is_open()) {
            lane.phase = Phase::Suspended;
        }
        self.events.numbers().into_iter().for_each(|event| self.will_write(event, turn.now));
        self.writer.hurry(turn.now);
        self.writer.try_now(turn.now);
    }

    /// The box was checked: lanes that need what it lacks wait for it; the others go on.
    pub(super) fn look_at_box(&mut self, lack: Option<NotReady>, turn: &mut Turn<'_, T>) {
        self.lack = lack;
        for id in self.order.clone() {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let mut judge = Judge::new(lane, turn.now, &mut self.random);
            let changed = lane.standing.look_at_box(lack, &mut judge);
            turn.effects.extend(judge.notices.into_iter().map(Effect::Say));
            if changed {
                self.spool_queue(id, turn);
                self.touch(id, turn.now);
            }
        }
    }
}
