//! Lanes that come and go, and the end of the process.

use std::time::{Duration, Instant};

use super::classify::Judge;
use super::lane::{Lane, Phase};
use super::{Core, Effect, EventNo, Held, LaneId, LaneSettings, Notice, Turn};
use crate::readiness::NotReady;
use crate::spool::Destination;

impl<T: Held> Core<T> {
    /// Another config. What waits for a removed lane goes to each of the same report that was added; with none added it is kept in the
    /// spool, until its destination or another one comes.
    pub(super) fn configured(&mut self, lanes: Vec<(Option<LaneId>, LaneSettings)>, turn: &mut Turn<'_, T>) {
        let (mut order, mut added) = (Vec::new(), Vec::new());
        for (known, settings) in lanes {
            match known.filter(|id| self.order.contains(id)) {
                Some(id) => {
                    let lane = self.lanes.get_mut(&id).expect("it is in force");
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

    /// Ends a lane: no upload starts any more, or once more, and what waits goes to `heirs`. An upload on its way comes to its end; if
    /// it fails, its event goes to the heirs too.
    fn close(&mut self, id: LaneId, heirs: Vec<LaneId>, turn: &mut Turn<'_, T>) {
        turn.effects.push(Effect::Say(Notice::Removed { lane: id, heirs: heirs.clone() }));
        // What has not begun to be sent goes to the heirs; what fails from now on says nothing of them.
        turn.effects.push(Effect::Retire(id));
        self.lanes.values_mut().for_each(|lane| lane.replace_heir(id, &heirs));
        let lane = self.lane_mut(id);
        lane.phase = Phase::Closed(heirs);
        lane.begin_anew(turn.now);
        turn.deny(lane.limit.deny());
        self.pass_on(id, turn);
    }

    /// What a removed lane kept for want of an heir goes to its destination, where that is among the added ones, or to all of these.
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

    /// Those of `lanes` that get the same events as a lane.
    fn of_the_same_report(&self, id: LaneId, lanes: &[LaneId]) -> Vec<LaneId> {
        lanes.iter().copied().filter(|other| self.lanes[other].report == self.lanes[&id].report).collect()
    }

    fn open_lane_to(&self, destination: Destination) -> Option<LaneId> {
        self.lanes().find(|lane| lane.destination() == destination).map(|lane| lane.id)
    }

    fn pass_on(&mut self, id: LaneId, turn: &mut Turn<'_, T>) {
        let queue = std::mem::take(&mut self.lane_mut(id).queue);
        queue.numbers().into_iter().for_each(|event| self.put(id, EventNo(event), None, turn));
        self.remove_if_over(id, turn);
    }

    /// A removed lane's event goes to those of `heirs` that never had it. False: it is to go the way of the spool, because the heirs
    /// may get the event from there too, after another removed lane, and nobody is to have it twice.
    pub(super) fn hand_over(&mut self, id: LaneId, event: EventNo, heirs: &[LaneId], turn: &mut Turn<'_, T>) -> bool {
        let is_stored = self.events.get(event).is_none_or(|pending| pending.counter.is_some());
        let is_storing = || self.lanes.values().any(|lane| lane.storing.contains_key(&event));
        let heirs: Vec<LaneId> = heirs.iter().copied().filter(|heir| self.lanes.contains_key(heir)).collect();
        let have_all_had_it = || heirs.iter().all(|heir| self.lanes[heir].has_had(event));
        if heirs.is_empty() || (is_stored || is_storing()) && !have_all_had_it() {
            return false;
        }
        for heir in heirs {
            let lane = self.lane_mut(heir);
            if !lane.has_had(event) {
                lane.taken_over.insert(event.0);
                self.events.hold(event);
                self.enter(heir, event, turn);
            }
        }
        self.lane_mut(id).counters.handed_over += 1;
        self.let_go(event, turn);
        self.hand_over_the_same(event, turn);
        true
    }

    /// Other removed lanes that wait to store an event have heirs to whom it was handed over just now: it is over for them, too.
    fn hand_over_the_same(&mut self, event: EventNo, turn: &mut Turn<'_, T>) {
        let has_had = |heir: &LaneId| self.lanes.get(heir).is_some_and(|lane| lane.has_had(event));
        let waits_in_vain = |lane: &&Lane| match &lane.phase {
            Phase::Closed(heirs) => lane.queue.contains(event.0) && !heirs.is_empty() && heirs.iter().all(has_had),
            _ => false,
        };
        for other in self.lanes.values().filter(waits_in_vain).map(|lane| lane.id).collect::<Vec<_>>() {
            let lane = self.lane_mut(other);
            lane.queue.remove(event.0);
            lane.counters.handed_over += 1;
            self.let_go(event, turn);
            self.remove_if_over(other, turn);
        }
    }

    /// Nobody needs to know any more what an heir had, where no removed destination may pass anything on, and nothing of that is left.
    pub(super) fn forget_delivered(&mut self) {
        if !self.writer.may_move() && !self.lanes.values().any(Lane::is_closed) {
            let done = self.lanes.values_mut().filter(|lane| lane.backlog.is_empty() && lane.open_deliveries() == 0);
            done.for_each(|lane| lane.delivered = None);
        }
    }

    /// A closed lane that has nothing left is forgotten.
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

    /// There may be more in the spool than was known.
    pub(super) fn look_into_spool_at(&mut self, now: Instant) {
        self.lanes.values_mut().for_each(|lane| lane.backlog.wake());
        self.order.clone().into_iter().for_each(|lane| self.touch(lane, now));
    }

    /// The process ends soon: nothing more is taken out of the spool, and what waits for its period, or for its group, goes there.
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

    /// The process ends: whatever is not sent by then goes to the spool.
    pub(super) fn suspend(&mut self, turn: &mut Turn<'_, T>) {
        self.is_ending = true;
        for lane in self.lanes.values_mut().filter(|lane| lane.is_open()) {
            lane.phase = Phase::Suspended;
        }
        self.events.numbers().into_iter().for_each(|event| self.will_write(event, turn.now));
        self.writer.hurry(turn.now);
        self.writer.try_now(turn.now);
    }

    /// The box was looked at: lanes that need what it lacks wait for it, or go on.
    pub(super) fn look_at_box(&mut self, lack: Option<NotReady>, turn: &mut Turn<'_, T>) {
        self.lack = lack;
        for id in self.order.clone() {
            let mut judge = Judge::new(turn.now, &mut self.random);
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let changed = lane.look_at_box(lack, &mut judge);
            turn.effects.extend(judge.notices.into_iter().map(Effect::Say));
            if changed {
                self.spool_queue(id, turn);
                self.touch(id, turn.now);
            }
        }
    }
}
