//! The spool and its thread: folders of event numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::servers::Answer;
use super::{DESTINATIONS, Later, Upload, World, id_of};
use crate::config::Report;
use crate::deliver::core::backlog::Wanted;
use crate::deliver::core::spooling::Needs;
use crate::deliver::core::{Fate, Input, Job, LaneId, NotStored, Picked, Stored, UploadId};
use crate::spool::Destination;

/// A call to the spool's thread.
#[derive(Debug)]
pub enum Call {
    Pick(LaneId, UploadId, Destination, Wanted),
    Fate(Destination, u64, Fate),
    Write(Vec<Job>),
    Repair(Needs),
    Settle,
    Configure(Vec<Destination>),
}

#[derive(Default)]
pub struct Folder {
    pub events: BTreeMap<u64, u64>,
    pub out: BTreeSet<u64>,
    pub is_configured: bool,
    pub heirs: Option<Vec<Destination>>,
}

impl World {
    /// Queues a call: the spool's thread handles one call after the other.
    pub(super) fn call(&mut self, call: Call) {
        self.busy_until = self.busy_until.max(self.now) + self.latency;
        self.later(self.busy_until - self.now, Later::Spool(call));
    }

    pub(super) fn folder(&mut self, destination: Destination) -> &mut Folder {
        self.folders.entry(destination.0).or_default()
    }

    pub(super) fn spool(&mut self, call: Call) {
        match call {
            Call::Configure(wanted) => self.reconfigure(&wanted),
            Call::Repair(Needs::Key) => self.input(Input::KeyChecked(self.usable)),
            Call::Repair(_) => {
                let problem = (!self.usable).then(|| "it is not there".to_owned());
                self.input(Input::Opened(problem));
            }
            Call::Settle => {
                let result = if self.usable { Ok(self.settle()) } else { Err(()) };
                self.input(Input::Settled(result));
            }
            Call::Fate(to, counter, fate) => {
                let folder = self.folder(to);
                folder.out.remove(&counter);
                let server = to.0[0] as usize;
                match fate {
                    Fate::PutBack => {}
                    Fate::Delivered => {
                        let event = folder.events.remove(&counter);
                        self.delivered.extend(event.map(|event| (server, event)));
                    }
                    Fate::Had => {
                        let event = folder.events.remove(&counter).expect("it was taken out");
                        let has_it = self.servers[server].acknowledged.contains_key(&event);
                        assert!(has_it, "event {event} is not sent to {server}, which does not have it");
                    }
                    Fate::Dead(_) => {
                        let event = folder.events.remove(&counter);
                        self.dead.extend(event.map(|event| (server, event)));
                    }
                    Fate::Skipped => {
                        let event = folder.events.remove(&counter);
                        assert!(event.is_none_or(|event| self.lost.contains(&(server, event))), "{event:?} is skipped");
                    }
                }
            }
            Call::Pick(lane, id, to, wanted) => {
                let picked = self.pick(lane, id, to, &wanted);
                self.input(Input::Picked(lane, id, picked));
            }
            Call::Write(jobs) => {
                self.rounds += 1;
                let results = jobs.iter().map(|job| (job.event, self.store(job))).collect();
                self.input(Input::Written(results));
            }
        }
    }

    pub(super) fn pick(&mut self, lane: LaneId, id: UploadId, to: Destination, wanted: &Wanted) -> Picked {
        if self.random.u8(..30) == 0 {
            return Picked::Later;
        }
        let folder = self.folder(to);
        let Folder { events, out, .. } = folder;
        let listed = |after: Option<u64>| {
            let from = after.map_or(0, |after| after + 1);
            events
                .range(from..)
                .map(|(counter, _)| *counter)
                .filter(|counter| !out.contains(counter))
                .collect::<Vec<_>>()
                .into_iter()
        };
        let Some(counter) = wanted.choose(listed) else { return Picked::Nothing };
        let event = events[&counter];
        out.insert(counter);
        let server = to.0[0] as usize;
        let (answer, ends_at) = (Answer::Ok, self.now);
        let upload = Upload {
            generation: 0,
            lane,
            server,
            event,
            in_ring: false,
            counter: Some(counter),
            has_body: false,
            answer,
            ends_at,
            is_stale: false,
        };
        let twice = self.uploads.values().any(|upload| upload.lane == lane && upload.event == event);
        assert!(!twice, "event {event} is taken out of the spool while it is on its way to {server}");
        self.uploads.insert(id, upload);
        Picked::Event(counter, id_of(event))
    }

    pub(super) fn store(&mut self, job: &Job) -> Result<Stored, NotStored> {
        let number = self.core.held(job.event).expect("it is held while it is written").number;
        assert!(!self.events[number as usize].is_released);
        if !self.usable {
            // A dead letter whose room the ring needs is given up in this case.
            self.given_up.extend(((number as usize) < self.spilled).then_some(number));
            let needs = [Needs::Nothing, Needs::Opening, Needs::Key][self.random.usize(..3)];
            return Err(NotStored::Later("the disk is full".into(), needs));
        }
        if self.events[number as usize].too_large {
            return Err(NotStored::Unfit);
        }
        let is_listed = |counter: &u64| self.folders.values().any(|folder| folder.events.contains_key(counter));
        let known = job.counter.filter(is_listed);
        let earlier = self.counters.get(&number).filter(|counter| is_listed(counter));
        assert!(known.is_some() || earlier.is_none(), "event {number} gets a second file");
        let counter = known.unwrap_or(self.next_counter);
        self.next_counter = self.next_counter.max(counter + 1);
        self.counters.insert(number, counter);
        for target in job.to.iter().chain(job.dead.iter().map(|(target, _)| target)) {
            let folder = self.folder(target.address.destination);
            if let (Some(heirs), false, true) = (&target.heirs, folder.is_configured, folder.heirs.is_none()) {
                folder.heirs = Some(heirs.clone());
            }
            folder.events.insert(counter, number);
        }
        for destination in &job.in_flight {
            self.folder(*destination).out.insert(counter);
        }
        for (target, _) in &job.dead {
            let event = self.folder(target.address.destination).events.remove(&counter);
            self.dead.extend(event.map(|event| (target.address.destination.0[0] as usize, event)));
        }
        let is_relocated = self.always_relocates || self.random.u8(..10) > 0;
        if is_relocated {
            for upload in self.uploads.values_mut().filter(|upload| upload.event == number) {
                upload.in_ring = false;
            }
        }
        Ok(Stored { counter, is_relocated })
    }

    pub(super) fn reconfigure(&mut self, wanted: &[Destination]) {
        let is_old =
            |world: &World, one: &Destination| world.folders.get(&one.0).is_some_and(|folder| folder.is_configured);
        let added: Vec<Destination> = wanted.iter().copied().filter(|one| !is_old(self, one)).collect();
        let reports: [Report; DESTINATIONS] = std::array::from_fn(|server| self.report_of(server));
        for (name, folder) in &mut self.folders {
            let same = |one: &Destination| reports[usize::from(one.0[0])] == reports[usize::from(name[0])];
            let added: Vec<Destination> = added.iter().copied().filter(same).collect();
            if wanted.iter().any(|one| one.0 == *name) {
                continue;
            }
            let heirs = match (std::mem::take(&mut folder.is_configured), folder.heirs.take()) {
                (false, Some(heirs)) if !heirs.is_empty() && heirs.iter().all(|heir| wanted.contains(heir)) => heirs,
                (false, Some(heirs)) => {
                    heirs.into_iter().filter(|heir| wanted.contains(heir)).chain(added.iter().copied()).collect()
                }
                _ => added.clone(),
            };
            folder.heirs = Some(heirs);
        }
        for one in wanted {
            let folder = self.folder(*one);
            (folder.is_configured, folder.heirs) = (true, None);
        }
    }

    /// Moves events of removed destinations to their heirs.
    pub(super) fn settle(&mut self) -> bool {
        let mut moved = false;
        for name in self.folders.keys().copied().collect::<Vec<_>>() {
            let folder = self.folders.get_mut(&name).unwrap();
            let Some(heirs) = folder.heirs.clone().filter(|heirs| !heirs.is_empty()) else { continue };
            let page: Vec<(u64, u64)> = folder
                .events
                .iter()
                .filter(|(counter, _)| !folder.out.contains(counter))
                .map(|(a, b)| (*a, *b))
                .collect();
            page.iter().for_each(|(counter, _)| {
                folder.events.remove(counter);
            });
            for heir in heirs {
                for (counter, event) in &page {
                    self.folder(heir).events.entry(*counter).or_insert(*event);
                    let server = &mut self.servers[heir.0[0] as usize];
                    server.given.insert(*event);
                }
            }
            moved |= !page.is_empty();
        }
        moved
    }
}
