//! The ring: its capacity, and what happens when it fills.

use super::{DESTINATIONS, Event, Token, World};
use crate::deliver::core::pressure::Need;
use crate::deliver::core::{Input, Scope};

impl World {
    /// Publishes an event; false if the ring is full.
    pub fn publish(&mut self, length: u32, bad: u8, too_large: bool) -> bool {
        if self.used + u64::from(length) > self.capacity {
            self.dropped += 1;
            self.relieve(true);
            return false;
        }
        let number = self.events.len() as u64;
        self.events.push(Event { length, bad, too_large, is_released: false });
        (self.used, self.open) = (self.used + u64::from(length), self.open + 1);
        // Some events have a score below the threshold.
        let is_low = self.periodic.contains(&true) && number % 3 == 2;
        let scope = if is_low { Scope::History } else { Scope::All };
        for server in 0..DESTINATIONS {
            let gets_it = scope.is_for(self.report_of(server));
            if let Some(server) = Some(&mut self.servers[server]).filter(|server| server.lane.is_some() && gets_it) {
                server.given.insert(number);
            }
        }
        self.input(Input::Published(Token { number, length }, scope));
        self.relieve(false);
        true
    }

    /// A simpler form of `Uplink::relieve`: without the rules for the largest record, for old events and for a full ledger.
    pub(super) fn relieve(&mut self, dropped: bool) {
        let excess = self.used.saturating_sub(self.capacity / 2).max(if dropped { self.capacity / 2 } else { 0 });
        let (mut before, mut spill) = (0, Vec::new());
        for at in self.tail..self.events.len() {
            if before >= excess {
                break;
            }
            before += u64::from(self.events[at].length);
            if at >= self.spilled {
                self.spilled = at + 1;
                spill.extend(
                    self.core.events.numbers().into_iter().find(|no| self.core.held(*no).unwrap().number == at as u64),
                );
            }
        }
        if !spill.is_empty() {
            self.input(Input::Spill(spill));
        }
        let mut dropped = dropped;
        loop {
            let free = self.capacity - self.used;
            let need = match () {
                () if dropped => Need::Refused,
                () if free < self.capacity / 16 => Need::Now,
                () if free < self.capacity / 8 => Need::Soon,
                () => return,
            };
            if self.tail >= self.events.len() {
                return;
            }
            self.given_up.insert(self.tail as u64);
            let oldest = self.number_of(self.tail as u64);
            let mut effects = Vec::new();
            let is_free = self.core.give_up(self.now, oldest, need, &mut effects);
            self.perform(effects);
            self.check();
            if !is_free {
                return;
            }
            dropped = false;
        }
    }

    pub(super) fn release(&mut self, token: &Token) {
        let event = &mut self.events[token.number as usize];
        assert!(!std::mem::replace(&mut event.is_released, true), "a ticket is released twice");
        let reads = self.uploads.values().any(|upload| upload.in_ring && upload.event == token.number);
        assert!(!reads, "the room of event {} is released while an upload reads there", token.number);
        self.open -= 1;
        while let Some(event) = self.events.get(self.tail).filter(|event| event.is_released) {
            (self.used, self.tail) = (self.used - u64::from(event.length), self.tail + 1);
        }
        self.spilled = self.spilled.max(self.tail);
    }
}
