//! Writes events to the spool: chooses what is written, and handles the results.

use std::time::Instant;

use super::counters::End;
use super::in_flight::{InFlight, Meanwhile, Source};
use super::lane::Lane;
use super::spooling::{BATCH, GROUP_BYTES, Needs};
use super::standing::Verdict;
use super::{Core, Effect, EventNo, Fate, Held, Job, LaneId, NotStored, Notice, Stored, Target, Turn};

impl<T: Held> Core<T> {
    /// Starts the next write, with the oldest events first; starts a repair of the spool first if one is needed.
    pub(super) fn write(&mut self, turn: &mut Turn<'_, T>) {
        if let Some(needs) = self.writer.repair(turn.now) {
            self.writer.is_repairing = true;
            turn.effects.push(Effect::Repair(needs));
        }
        if self.writer.is_due(turn.now) {
            self.join_in_order(turn.now);
            let (mut jobs, mut bytes) = (Vec::<Job>::new(), 0);
            while jobs.len() < BATCH && bytes < GROUP_BYTES && jobs.iter().all(Job::is_plain) {
                let length = |event| self.events.get(EventNo(event)).map_or(0, |pending| pending.held.length());
                let Some(event) = self.writer.take(length).map(EventNo) else { break };
                let Some(job) = self.job(event, turn) else { continue };
                bytes += self.events.get(event).map_or(0, |pending| u64::from(pending.held.length()));
                jobs.push(job);
            }
            if jobs.is_empty() {
                self.writer.forget_trouble();
            } else {
                self.writer.is_writing = true;
                turn.effects.push(Effect::Write(jobs));
            }
        }
        // First all events of removed destinations must be in their folders. Otherwise an heir could deliver an event and then
        // get it again.
        if !self.blocks_settling() && self.writer.begin_to_settle(turn.now) {
            turn.effects.push(Effect::Settle);
        }
    }

    /// Lanes in strict order store every event that they hold, up to the last one that is written for any lane; also events in
    /// flight. So the numbers of their events in the spool are in the order of the events.
    fn join_in_order(&mut self, now: Instant) {
        let Some(last) = self.writer.last() else { return };
        for lane in self.lanes.values().filter(|lane| lane.in_order.is_some() && lane.is_open()) {
            let in_flight = lane.deliveries.uploads().filter_map(InFlight::ring_event);
            let held = in_flight.chain(lane.deliveries.waiting()).filter(|event| event.0 <= last);
            for event in held {
                let length = self.events.get(event).map_or(0, |pending| pending.held.length());
                self.writer.add(event.0, length, now);
            }
        }
    }

    /// Whether a removed destination has events in memory that have to be written.
    pub(super) fn blocks_settling(&self) -> bool {
        self.lanes.values().any(|lane| lane.is_closed() && !lane.deliveries.has_only_uploads())
    }

    /// What the spool has to do for an event now, if anything; its deliveries then wait for [`Core::written`].
    fn job(&mut self, event: EventNo, turn: &mut Turn<'_, T>) -> Option<Job> {
        let pending = self.events.get(event)?;
        let (is_unfit, is_spilled) = (pending.is_unfit, pending.is_spilled);
        let must = is_spilled || self.is_ending;
        let mut job = Job { event, counter: pending.counter, to: Vec::new(), dead: Vec::new(), in_flight: Vec::new() };
        for id in self.lanes.keys().copied().collect::<Vec<_>>() {
            let lane = self.lane_mut(id);
            if let Some(reason) = lane.deliveries.take_rejected(event) {
                lane.deliveries.begin_to_store(event, Meanwhile::Ended(End::Rejected(reason.clone())));
                job.dead.push((self.target(id), reason));
            } else if lane.deliveries.waits(event) {
                let is_wanted =
                    must || lane.in_order.is_some() || lane.wants_spool() || lane.deliveries.waits_after_failure(event);
                if is_unfit && is_spilled && !self.is_ending && self.lanes[&id].wants_spool() {
                    self.lane_mut(id).deliveries.take(event);
                    self.over(id, event, &End::Evicted, turn);
                } else if !is_unfit && is_wanted {
                    let lane = self.lane_mut(id);
                    let retry = lane.deliveries.take(event).flatten();
                    lane.deliveries.begin_to_store(event, Meanwhile::Waits(retry));
                    job.to.push(self.target(id));
                }
            } else if !is_unfit
                && (must || lane.in_order.is_some())
                && !lane.deliveries.is_storing(event)
                && lane.deliveries.upload_of(event).is_some()
            {
                lane.deliveries.begin_to_store(event, Meanwhile::InFlight);
                job.in_flight.push(lane.destination());
                job.to.push(self.target(id));
            }
        }
        (!job.to.is_empty() || !job.dead.is_empty()).then_some(job)
    }

    fn target(&self, id: LaneId) -> Target {
        let destination = |heir: LaneId| self.lanes.get(&heir).map(Lane::destination);
        self.lanes[&id].target(destination)
    }

    /// The jobs of a write ended, each with or without success.
    pub(super) fn written(&mut self, results: Vec<(EventNo, Result<Stored, NotStored>)>, turn: &mut Turn<'_, T>) {
        self.writer.is_writing = false;
        for (event, result) in results {
            match result {
                Ok(stored) => {
                    self.works(turn);
                    self.stored(event, stored, turn);
                }
                Err(why) => {
                    if let NotStored::Later(why, needs) = &why {
                        self.fails(why, *needs, turn);
                    }
                    self.not_stored(event, &why, turn);
                }
            }
            if self.events.get(event).is_some() {
                self.will_write(event, turn.now); // other deliveries may need it stored
            }
        }
        self.writer.rest(turn.now);
        self.lanes.keys().copied().collect::<Vec<_>>().into_iter().for_each(|lane| self.remove_if_over(lane, turn));
    }

    /// An event is durable.
    fn stored(&mut self, event: EventNo, Stored { counter, is_relocated }: Stored, turn: &mut Turn<'_, T>) {
        if let Some(pending) = self.events.get_mut(event) {
            pending.counter = Some(counter);
        }
        for (id, meanwhile) in self.take_storing(event) {
            let lane = self.lane_mut(id);
            lane.counters.spooled += 1;
            match meanwhile {
                Meanwhile::InFlight => {
                    if let Some((_, upload)) = lane.deliveries.upload_of(event) {
                        upload.source = Source::Stored { event, counter, holds_room: !is_relocated };
                    }
                    if !is_relocated {
                        continue;
                    }
                }
                Meanwhile::Waits(retry) => self.is_spooled(id, counter, retry, turn),
                Meanwhile::Failed(retry) => {
                    let destination = lane.destination();
                    turn.effects.push(Effect::Spooled(id, destination, counter, Fate::PutBack));
                    self.is_spooled(id, counter, retry, turn);
                }
                Meanwhile::Ended(end) => self.settle_spooled(id, counter, Verdict::Over(end), turn),
            }
            self.let_go(event, turn);
        }
    }

    /// An event could not be stored: it waits as before. What cannot wait is given up: a dead letter whose room the ring needs.
    fn not_stored(&mut self, event: EventNo, why: &NotStored, turn: &mut Turn<'_, T>) {
        let Some(pending) = self.events.get_mut(event) else { return };
        pending.is_unfit |= *why == NotStored::Unfit;
        let gives_up = pending.is_unfit || (pending.is_spilled && !self.is_ending);
        let is_lost = *why == NotStored::Lost;
        for (id, meanwhile) in self.take_storing(event) {
            match meanwhile {
                Meanwhile::InFlight => {}
                Meanwhile::Ended(End::Rejected(reason)) if !gives_up && !is_lost => {
                    self.lane_mut(id).deliveries.reject(event, reason);
                }
                Meanwhile::Ended(end) => self.over(id, event, &end, turn),
                Meanwhile::Waits(_) | Meanwhile::Failed(_) if is_lost => self.over(id, event, &End::Lost, turn),
                Meanwhile::Waits(retry) | Meanwhile::Failed(retry) => self.put(id, event, retry, turn),
            }
        }
    }

    fn take_storing(&mut self, event: EventNo) -> Vec<(LaneId, Meanwhile)> {
        let lanes = self.lanes.iter_mut();
        lanes.filter_map(|(id, lane)| Some((*id, lane.deliveries.end_storing(event)?))).collect()
    }

    /// The attempt to open the spool ended.
    pub(super) fn opened(&mut self, problem: Option<String>, turn: &mut Turn<'_, T>) {
        self.writer.is_repairing = false;
        match problem {
            Some(fault) => self.fails(&format!("the spool is unavailable: {fault}"), Needs::Opening, turn),
            None => {
                self.works(turn);
                self.look_into_spool_at(turn.now);
                self.writer.settle(turn.now);
            }
        }
    }

    /// The search for the key ended.
    pub(super) fn key_checked(&mut self, is_there: bool, turn: &mut Turn<'_, T>) {
        self.writer.is_repairing = false;
        if is_there {
            return self.works(turn);
        }
        if let Some(trouble) = self.writer.trouble() {
            self.fails(&trouble.why.clone(), Needs::Key, turn);
        }
    }

    /// The spool's folder is no longer the one that was opened.
    pub(super) fn reopen(&mut self, turn: &mut Turn<'_, T>) {
        if !self.writer.needs_opening() {
            let why = "the spool's folder was replaced: it is opened again";
            self.fails(why, Needs::Opening, turn);
        }
    }

    fn works(&mut self, turn: &mut Turn<'_, T>) {
        if let Some(was) = self.writer.works() {
            turn.effects.push(Effect::Say(Notice::SpoolWorks(was)));
            self.look_into_spool_at(turn.now); // events that could not be read without the key
        }
    }

    fn fails(&mut self, why: &str, needs: Needs, turn: &mut Turn<'_, T>) {
        if self.writer.fails(why, needs, turn.now) {
            turn.effects.push(Effect::Say(Notice::SpoolFails(why.to_owned())));
        }
    }

    /// An attempt to move events of removed destinations ended.
    pub(super) fn settled(&mut self, result: Result<bool, ()>, turn: &mut Turn<'_, T>) {
        self.writer.settled();
        match result {
            Ok(true) => {
                self.writer.settle(turn.now);
                self.look_into_spool_at(turn.now);
            }
            Ok(false) => self.forget_delivered(),
            Err(()) => self.writer.settle_later(turn.now),
        }
    }
}
