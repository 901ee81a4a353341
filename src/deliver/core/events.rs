//! The pending events, by number: those with a delivery that is not done. An event holds its room in the ring while a delivery
//! needs it.

use std::collections::BTreeMap;

use super::EventNo;

/// Events by number.
#[derive(Debug)]
pub struct Events<T> {
    open: BTreeMap<EventNo, PendingEvent<T>>,
    next: EventNo,
}

/// An event that at least one delivery still needs.
#[derive(Debug)]
pub struct PendingEvent<T> {
    /// What the owner keeps for it, such as its room in the ring.
    pub held: T,
    /// How many deliveries need it in the ring.
    holders: u32,
    /// Its number in the spool, once it was stored for some destination.
    pub counter: Option<u64>,
    /// Whether the ring needs its room.
    pub is_spilled: bool,
    /// Whether the spool can never store it.
    pub is_unfit: bool,
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Events { open: BTreeMap::new(), next: EventNo(1) }
    }
}

impl<T> Events<T> {
    /// The number that the next one gets.
    pub fn next(&self) -> EventNo {
        self.next
    }

    /// Adds an event that `holders` deliveries need.
    pub fn add(&mut self, held: T, holders: u32) -> EventNo {
        let number = self.next;
        self.next = EventNo(number.0 + 1);
        let event = PendingEvent { held, holders, counter: None, is_spilled: false, is_unfit: false };
        self.open.insert(number, event);
        number
    }

    /// The number of pending events.
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// An event.
    pub fn get(&self, event: EventNo) -> Option<&PendingEvent<T>> {
        self.open.get(&event)
    }

    /// The same, mutable.
    pub fn get_mut(&mut self, event: EventNo) -> Option<&mut PendingEvent<T>> {
        self.open.get_mut(&event)
    }

    /// The numbers of all pending events, in order.
    pub fn numbers(&self) -> Vec<EventNo> {
        self.open.keys().copied().collect()
    }

    /// One more delivery needs the event.
    pub fn hold(&mut self, event: EventNo) {
        if let Some(pending) = self.open.get_mut(&event) {
            pending.holders += 1;
        }
    }

    /// One delivery no longer needs the event. Returns the event if that was the last one.
    #[must_use]
    pub fn let_go(&mut self, event: EventNo) -> Option<T> {
        let pending = self.open.get_mut(&event)?;
        pending.holders = pending.holders.checked_sub(1).expect("released as often as held");
        if pending.holders > 0 {
            return None;
        }
        self.open.remove(&event).map(|pending| pending.held)
    }
}
