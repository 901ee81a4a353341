//! The invariants that hold at every step, and at the end.

use std::time::Duration;

use super::servers::{Answer, Server};
use super::spool::Folder;
use super::{DESTINATIONS, World, destination};
use crate::deliver::core::EventNo;
use crate::deliver::core::lane::Lane;

/// The longest pause of a lane or of a failed event.
const PAUSE: Duration = Duration::from_secs(300);

impl World {
    /// When the process ends and the spool can be used, no delivery is only in memory.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        self.go_to(self.now + Duration::from_secs(3600));
        if self.usable && self.core.open_deliveries() > 0 && self.events.iter().all(|event| !event.too_large) {
            return Err(format!("{} deliveries are neither over nor stored", self.core.open_deliveries()));
        }
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        let configured = |server: &usize| self.servers[*server].lane.is_some();
        let is_left = |server: usize| {
            let folder = self.folders.get(&destination(server).0);
            folder.is_some_and(|folder| !folder.events.is_empty() && (configured(&server) || !self.is_parked(folder)))
        };
        let parked = self.core.lanes.values().filter(|lane| lane.is_closed()).count();
        self.core.open_deliveries() == 0
            && self.uploads.is_empty()
            && self.what.is_empty()
            && parked == 0
            && !(0..DESTINATIONS).any(is_left)
    }

    pub(super) fn is_parked(&self, folder: &Folder) -> bool {
        folder.heirs.as_ref().is_some_and(Vec::is_empty)
    }

    /// The time within which every good event is delivered, however many bad ones there are. A failed event waits for one pause.
    /// A lane waits for several: every second probe is the newest event, which is good. A run of bad events ahead of good ones
    /// needs some pauses more, and each time about a third more of the run is tried before the next pause. An event that is
    /// answered with 429 costs its lane the requested pause at each first try.
    pub(super) fn bound_of_good(&self) -> Duration {
        let bad = |at: usize| self.events.iter().filter(|event| event.bad & 1 << at != 0).count() as u32;
        let asks = |server: &Server| matches!(server.bad, Answer::Status(429, _));
        let asked: u32 = (0..DESTINATIONS).filter(|at| asks(&self.servers[*at])).map(bad).sum();
        let longest = (0..DESTINATIONS).map(bad).max().unwrap_or(0);
        (6 + 3 * (1 + longest).ilog2()) * PAUSE + asked * Duration::from_secs(40) + 2 * self.longest_rest()
    }

    /// The time within which bad events are given up as well: after a limited number of tries, each with a pause.
    pub(super) fn bound_of_all(&self) -> Duration {
        2 * PAUSE + Duration::from_secs(3600 * 4) + 2 * self.longest_rest()
    }

    /// Checks that the deliveries of the first `count` events are done, as far as `are_over` demands it. `are_over` gets whether
    /// an event is bad for its server, and the server's answer to bad events.
    pub(super) fn check_over(&self, count: u64, are_over: impl Fn(bool, Answer) -> bool) -> Result<(), String> {
        let mut stuck = Vec::new();
        let is_bad_for = |server: usize| self.events.iter().any(|event| event.bad & 1 << server != 0);
        // In strict order a bad event stops the good ones, and there may be many bad ones.
        let is_held_up = |server: usize| self.in_order[server].is_some() && is_bad_for(server);
        let told = self.servers.iter().enumerate().filter(|(_, state)| state.lane.is_some());
        for (server, state) in told.filter(|(server, _)| !is_held_up(*server)) {
            for event in state.given.range(..count) {
                let is_bad = self.events[*event as usize].bad & 1 << server != 0;
                if self.is_here(server, *event) && are_over(is_bad, state.bad) {
                    stuck.push((server, *event, is_bad, self.lane_of(server).standing.condition));
                }
            }
        }
        if stuck.is_empty() {
            return Ok(());
        }
        Err(format!("{} deliveries never come to their end: {:?}", stuck.len(), &stuck[..stuck.len().min(5)]))
    }

    /// Called before an event begins: in strict order every older event must be done, and no other may be in flight.
    pub(super) fn check_order(&self, server: usize, event: u64) {
        if self.in_order[server].is_none() || !self.keeps_order || self.events.iter().any(|event| event.too_large) {
            return;
        }
        let lane = self.servers[server].lane;
        let beside = self.uploads.values().any(|upload| Some(upload.lane) == lane && upload.event != event);
        assert!(!beside, "event {event} begins beside another one, at {server}");
        let older = self.servers[server].given.range(..event).find(|older| self.waits(server, **older));
        assert_eq!(older, None, "event {event} begins before an older one, at {server}");
    }

    /// Whether a delivery waits in the spool or in memory.
    fn waits(&self, server: usize, event: u64) -> bool {
        let folder = self.folders.get(&destination(server).0);
        let is_spooled =
            |folder: &Folder| folder.events.iter().any(|(counter, one)| *one == event && !folder.out.contains(counter));
        let lane = self.servers[server].lane.and_then(|lane| self.core.lane(lane));
        let number = self.number_of(event);
        let in_memory = |lane: &Lane| lane.deliveries.waits(number) || lane.deliveries.is_storing_open(number);
        folder.is_some_and(is_spooled) || lane.is_some_and(in_memory)
    }

    /// Whether a delivery is not done.
    fn is_here(&self, server: usize, event: u64) -> bool {
        let folder = self.folders.get(&destination(server).0);
        let lane = self.servers[server].lane.and_then(|lane| self.core.lane(lane));
        folder.is_some_and(|folder| folder.events.values().any(|one| *one == event))
            || lane.is_some_and(|lane| lane.deliveries.holds(self.number_of(event)))
    }

    /// Checks that every delivery that is done has a valid end.
    pub(super) fn check_nothing_lost(&self) -> Result<(), String> {
        let is_kept = |server: usize, event: u64| {
            self.is_here(server, event)
                || self.servers[server].acknowledged.contains_key(&event)
                || self.dead.contains(&(server, event))
                || self.lost.contains(&(server, event))
        };
        for (server, state) in self.servers.iter().enumerate() {
            for &event in &state.given {
                let is_handed_over =
                    || state.was_removed_after(event) && (0..DESTINATIONS).any(|heir| is_kept(heir, event));
                let is_given_up = self.given_up.contains(&event) || self.events[event as usize].too_large;
                if !is_kept(server, event) && !is_given_up && !is_handed_over() {
                    return Err(format!("event {event} is nowhere any more, and {server} does not have it"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn number_of(&self, event: u64) -> EventNo {
        self.core
            .events
            .numbers()
            .into_iter()
            .find(|no| self.core.held(*no).is_some_and(|held| held.number == event))
            .unwrap_or(EventNo(0))
    }

    pub(super) fn check(&self) {
        let totals = self.core.totals();
        let over =
            totals.acknowledged + totals.spooled + totals.refused + totals.lost + totals.evicted + totals.handed_over;
        assert_eq!(totals.entered, over + self.core.open_deliveries(), "the balance: {totals:?}");
        assert_eq!(self.open, self.core.open_events(), "tickets");
        for lane in self.core.lanes.keys() {
            let bodies = self.uploads.values().filter(|upload| upload.lane == *lane && upload.has_body);
            assert!(bodies.count() <= 4, "more than four bodies");
        }
    }

    /// Checks that an event that has to be stored, and could be, is in the spool when its window is over.
    pub(super) fn check_window(&mut self) {
        // The disk may be busy for up to one second. In addition there are earlier writes of a group each, with other calls
        // between them.
        let (busy, slack) = (Duration::from_secs(1), Duration::from_secs(2));
        let could_be = self.usable && self.latency < Duration::from_millis(5) && self.core.writer.trouble().is_none();
        let could_be = could_be && self.busy_until <= self.now + busy;
        let wants: Vec<&Lane> = self.core.lanes.values().filter(|lane| could_be && lane.wants_spool()).collect();
        let numbers = if wants.is_empty() { Vec::new() } else { self.core.events.numbers() };
        let is_wanted = |no: &EventNo| {
            let is_unfit = self.core.events.get(*no).is_none_or(|pending| pending.is_unfit);
            !is_unfit && wants.iter().any(|lane| lane.deliveries.waits(*no))
        };
        let now = self.now;
        let wanted: Vec<u64> = numbers.into_iter().filter(is_wanted).map(|no| no.0).collect();
        self.wanted.retain(|event, _| wanted.contains(event));
        wanted.into_iter().for_each(|event| _ = self.wanted.entry(event).or_insert(now));
        let late = self.wanted.iter().find(|(_, since)| **since + self.window + slack < now);
        assert_eq!(late, None, "it is {now:?}, and its window of {:?} is over", self.window);
    }
}
