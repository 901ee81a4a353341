//! What holds at every step, and at the end.

use std::time::Duration;

use super::spool::Folder;
use super::{DESTINATIONS, World, destination};
use crate::deliver::core::EventNo;

impl World {
    /// At the end of the process nothing is only in memory, where the spool can be used.
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

    pub(super) fn check_end(&self) -> Result<(), String> {
        // Events that a destination never takes, and that are not given up, may wait for ever; everything else is over.
        let mut stuck = Vec::new();
        for (server, state) in self.servers.iter().enumerate().filter(|(_, state)| state.lane.is_some()) {
            for event in &state.given {
                let is_bad = self.events[*event as usize].bad & 1 << server != 0;
                let waits = self
                    .folders
                    .get(&destination(server).0)
                    .is_some_and(|folder| folder.events.values().any(|one| one == event));
                let lane = &self.core.lanes[&state.lane.unwrap()];
                let is_here = waits || lane.holds(self.number_of(*event));
                if is_here && (!is_bad || state.bad.is_final()) {
                    stuck.push((server, *event, is_bad, lane.health.condition));
                }
            }
        }
        if stuck.is_empty() {
            return Ok(());
        }
        Err(format!("{} deliveries never come to their end: {:?}", stuck.len(), &stuck[..stuck.len().min(5)]))
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
        let open = self.events.iter().filter(|event| !event.is_released).count();
        assert_eq!(open, self.core.open_events(), "tickets");
        for lane in self.core.lanes.keys() {
            let bodies = self
                .uploads
                .values()
                .filter(|upload| upload.lane == *lane && upload.has_body && upload.counter.is_none_or(|_| true));
            assert!(bodies.count() <= 4, "more than four bodies");
        }
    }
}
