//! What the uplink calls: requests to the driver, and queries.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Destination, Driver, HeldEvent, hours};
use crate::config::Url;
use crate::deliver::client::Settings;
use crate::deliver::core::counters::Counters;
use crate::deliver::core::lane::Lane;
use crate::deliver::core::pressure::Need;
use crate::deliver::core::{EventNo, Input, LaneId, LaneSettings, Scope};
use crate::deliver::endpoints::Endpoints;
use crate::deliver::ledger::Ticket;
use crate::deliver::recent::Recent;
use crate::event::Event;
use crate::rate_limited::RateLimited;
use crate::spool::Address;

impl Driver {
    // --- requests ---

    /// Sends an event to every destination that gets it. `ticket` returns the event's ticket; it is released when each
    /// destination has the event or the spool has stored it.
    pub fn publish(&self, event: Event, scope: Scope, ticket: impl FnOnce(EventNo) -> Ticket) {
        let number = self.core.borrow().next_event();
        let weight = event.weight();
        let held = HeldEvent { number, ticket: ticket(number), texts: Some(Rc::new(event)), source: None };
        self.texts.borrow_mut().add(number, weight);
        self.handle(Input::Published(held, scope));
        self.drop_texts();
    }

    /// Applies another config: keeps the lanes of destinations that stay. `window`: how long an event to be stored waits for
    /// others.
    pub fn configure(&self, destinations: Vec<(Url, Settings)>, window: Duration) {
        self.handle(Input::Window(window));
        let old: Vec<LaneId> = self.core.borrow().lanes().map(|lane| lane.id).collect();
        let mut lanes = Vec::new();
        for (url, settings) in &destinations {
            let known =
                old.iter().find(|lane| self.destination(**lane).is_some_and(|one| one.endpoints.first().url() == url));
            if let Some(one) = known.and_then(|lane| self.destination(*lane)) {
                one.endpoints.configure(settings.clone());
            }
            let lane = LaneSettings {
                address: Address::from(url),
                needs_box: url.is_tls() || settings.sign.is_some(),
                response_timeout: settings.timeouts.response,
                in_order: settings.in_order(),
                is_off_hours: !hours::are_open(settings.bounds()),
                report: url.report(),
                period: settings.period,
            };
            lanes.push((known.copied(), lane));
        }
        // A lane's clients must exist before the lane starts uploads.
        let mut next = self.core.borrow().next_lane();
        for ((known, _), (url, settings)) in lanes.iter().zip(destinations) {
            if known.is_none() {
                let endpoints = Endpoints::new(url, settings);
                let (log_limiter, changes) = (RateLimited::new(3), RateLimited::new(20));
                self.destinations
                    .borrow_mut()
                    .insert(next, Rc::new(Destination { endpoints, recent: Recent::default(), log_limiter, changes }));
                next = LaneId(next.0 + 1);
            }
        }
        self.handle(Input::Configured(lanes));
        self.rearm.notify_one(); // backlogs may have other hours
    }

    /// The ring needs the room of these events.
    pub fn spill(&self, events: Vec<EventNo>) {
        if !events.is_empty() {
            self.handle(Input::Spill(events));
        }
    }

    /// The ring needs the room of an event: gives it up if the spool cannot take it and that is allowed. Returns whether the room
    /// is free.
    pub fn give_up(&self, event: EventNo, need: Need) -> bool {
        let mut effects = Vec::new();
        let is_free = self.core.borrow_mut().give_up(Instant::now(), event, need, &mut effects);
        effects.into_iter().for_each(|effect| self.perform(effect));
        is_free
    }

    /// The process ends soon: takes nothing more out of the spool.
    pub fn leave_backlog(&self) {
        self.handle(Input::LeaveBacklog);
    }

    /// The process ends: no upload starts any more, and what has not been sent goes to the spool.
    pub fn suspend(&self) {
        self.handle(Input::Suspend);
    }

    /// The spool may have more events than the lanes know of.
    pub fn look_into_spool(&self) {
        self.handle(Input::LookIntoSpool);
    }

    /// The spool may have events for a destination that was removed, or was added again.
    pub fn settle(&self) {
        self.handle(Input::Settle);
    }

    /// The spool's folder is no longer the one that was opened: opens it again.
    pub fn reopen(&self) {
        self.handle(Input::Reopen);
    }

    // --- queries ---

    /// Deliveries that are neither done nor in the spool.
    pub fn open_deliveries(&self) -> u64 {
        self.core.borrow().open_deliveries()
    }

    /// Uploads in flight of the configured destinations.
    pub fn in_flight(&self) -> usize {
        self.core.borrow().in_flight()
    }

    /// The counters of all deliveries.
    pub fn totals(&self) -> Counters {
        self.core.borrow().totals()
    }

    /// Why events cannot be stored at present.
    pub fn trouble(&self) -> Option<String> {
        self.core.borrow().trouble().map(str::to_owned)
    }

    /// Whether storing failed in an attempt that began after the last [`Driver::suspend`].
    pub fn is_in_trouble(&self) -> bool {
        self.core.borrow().is_in_trouble(Instant::now())
    }

    /// Calls `tell` for each configured destination, in the order of the config.
    pub fn each<R>(&self, tell: impl Fn(&Lane, &Endpoints, &Recent) -> R) -> Vec<R> {
        let (core, destinations) = (self.core.borrow(), self.destinations.borrow());
        let known = core.lanes().filter_map(|lane| Some((lane, destinations.get(&lane.id)?)));
        known.map(|(lane, one)| tell(lane, &one.endpoints, &one.recent)).collect()
    }
}
