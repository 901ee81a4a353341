//! The start: what the folders say is what is there.
//!
//! Damaged content never fails a start: what is not a spool file's name is moved aside, and what is inside a file is looked at when
//! it is read. A disk that cannot be listed does: it is tried again later, rather than taken for an empty one.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::file::{BAD_SUFFIX, Destination, EVENT_SUFFIX, HEIRS_FILE, URL_FILE, counter};
use super::index::{BLOCK, Entry, Index, Mask, SLOTS, blocks};
use super::volume::{DiskError, Home};
use super::{Hidden, Shelf, Spool, State};

/// At most so many of each are told of one by one.
const TOLD: usize = 16;

/// What a start found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Events that wait, each counted once.
    pub events: u64,
    /// What everything in the spool takes.
    pub bytes: u64,
    /// Files in `new/` that were never finished.
    pub unfinished: u64,
    /// Configured destinations that have no folder: those that were not configured when the last event was stored.
    pub added: Vec<Destination>,
    /// Destinations with events that are not configured any more: [`Spool::settle`] sees to them.
    pub removed: Vec<Removed>,
    /// Events that were there before, and are not any more, once for each destination: somebody removed them.
    pub vanished: u64,
    /// Events of a folder that was at the spool's path before, which can be reached, and are to be moved here.
    pub left: u64,
    /// What was not ours and is in `bad/` now: how much, and the first of it with its new names.
    pub foreign: u64,
    /// From, to; without the latter it was too large to be kept.
    pub quarantine: Vec<(PathBuf, Option<PathBuf>)>,
    /// What failed and did not matter, the first of it.
    pub problems: Vec<DiskError>,
    /// Why the spool cannot be used.
    pub unavailable: Option<DiskError>,
}

/// A destination that is not configured any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its folder's name.
    pub destination: Destination,
    /// As its folder says.
    pub url: Option<String>,
    /// Events in its folder.
    pub events: u64,
}

impl Recovered {
    fn problem(&mut self, fault: DiskError) {
        if self.problems.len() < TOLD {
            self.problems.push(fault);
        }
    }
}

impl<D: Disk> Spool<D> {
    /// Lists the folders anew: at the start, and again while the spool is [`State::Unavailable`]. What could not be read so far
    /// is offered again.
    pub fn open_again(&mut self) -> Recovered {
        let mut report = Recovered::default();
        let before: Vec<u64> = (0..SLOTS).map(|slot| self.kept(slot)).collect();
        let vanished = self.tally.vanished;
        let recovered = self.recover(&mut report);
        for (slot, before) in before.into_iter().enumerate() {
            let now = self.kept(slot);
            self.count_many(slot, now.saturating_sub(before), |tally| &mut tally.recovered);
            self.count_many(slot, before.saturating_sub(now), |tally| &mut tally.vanished);
        }
        report.vanished = self.tally.vanished - vanished;
        match recovered {
            Ok(()) => self.state = State::Usable,
            Err(fault) => {
                self.state = State::Unavailable(fault.to_string());
                report.unavailable = Some(fault);
            }
        }
        report.left = (0..SLOTS).map(|slot| self.left_in(slot)).sum();
        (report.events, report.bytes) = (self.events.len() as u64, self.blocks() * BLOCK);
        report
    }

    fn recover(&mut self, report: &mut Recovered) -> Result<(), DiskError> {
        let (to, dead) = (self.volume.all_to(), self.volume.all_dead());
        let (new, bad) = (self.volume.folder(Home::New), self.volume.folder(Home::Bad));
        let root = self.volume.root().to_owned();
        self.volume.check_folder()?;
        self.volume.make_folder(&root)?;
        self.claim()?;
        for folder in [&new, &to, &dead, &bad] {
            self.volume.make_folder(folder)?;
        }
        self.scan_quarantine(&bad, report)?;
        self.wipe(&new, report)?;
        self.volume.probe_links();
        self.scan_dead(&dead, report)?;
        self.reasons.survey(&self.volume, |letter| self.dead.contains(letter));
        self.scan_to(&to, report)?;
        for folder in [&to, &dead] {
            self.volume.sync_folder(folder)?;
        }
        Ok(())
    }

    /// Every name in a folder, sorted into ours (as `parse` takes them) and others.
    fn names<T>(
        &self,
        folder: &Path,
        parse: impl Fn(&OsStr) -> Option<T>,
    ) -> Result<(Vec<T>, Vec<OsString>), DiskError> {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        self.volume.list(folder, &mut |name| match parse(name) {
            Some(parsed) => ours.push(parsed),
            None => others.push(name.to_owned()),
        })?;
        Ok((ours, others))
    }

    fn set_foreign_aside(&mut self, from: &Path, report: &mut Recovered) {
        let size = self.volume.stat(from).map_or(1, |found| blocks(found.bytes));
        match self.move_to_bad(from, size) {
            Ok(to) => {
                report.foreign += 1;
                if report.quarantine.len() < TOLD {
                    report.quarantine.push((from.to_owned(), to));
                }
            }
            Err(fault) => report.problem(fault),
        }
    }

    /// What somebody else put into `bad/` is left alone and not counted.
    fn scan_quarantine(&mut self, folder: &Path, report: &mut Recovered) -> Result<(), DiskError> {
        let (counters, _) = self.names(folder, |name| counter(name, BAD_SUFFIX))?;
        self.bad = Shelf::default();
        for counter in counters {
            match self.volume.stat(&self.volume.file(Home::Bad, counter)) {
                Ok(found) => self.bad.add(counter, blocks(found.bytes)),
                Err(fault) => report.problem(fault),
            }
            self.next_bad = self.next_bad.max(counter + 1);
        }
        Ok(())
    }

    fn wipe(&mut self, folder: &Path, report: &mut Recovered) -> Result<(), DiskError> {
        let (names, _) = self.names(folder, |name| Some(name.to_owned()))?;
        for name in names {
            let path = folder.join(&name);
            self.saw(counter(&name, EVENT_SUFFIX));
            match self.volume.unlink(&path) {
                Ok(()) => report.unfinished += 1,
                Err(_) if self.volume.stat(&path).is_ok_and(|found| !found.regular) => {
                    self.set_foreign_aside(&path, report);
                }
                Err(fault) => return Err(fault),
            }
        }
        self.undeleted.clear();
        Ok(())
    }

    fn saw(&mut self, counter: Option<u64>) {
        self.next = self.next.max(counter.map_or(0, |counter| counter + 1));
    }

    /// The events in a destination's folder, which is durable then; what else is there is moved aside.
    fn scan_folder(&mut self, home: Home, report: &mut Recovered) -> Result<Vec<u64>, DiskError> {
        let folder = self.volume.folder(home);
        let (counters, others) = self.names(&folder, |name| counter(name, EVENT_SUFFIX))?;
        for name in others.iter().filter(|name| *name != URL_FILE && *name != HEIRS_FILE) {
            self.set_foreign_aside(&folder.join(name), report);
        }
        self.volume.sync_folder(&folder)?;
        self.saw(counters.iter().copied().max());
        Ok(counters)
    }

    fn scan_dead(&mut self, folder: &Path, report: &mut Recovered) -> Result<(), DiskError> {
        let (destinations, others) = self.names(folder, Destination::from_name)?;
        others.iter().for_each(|name| self.set_foreign_aside(&folder.join(name), report));
        self.dead = Shelf::default();
        for destination in destinations {
            let counters = match self.scan_folder(Home::Dead(destination), report) {
                Err(fault) if is_no_folder(&fault) => {
                    self.set_foreign_aside(&self.volume.folder(Home::Dead(destination)), report);
                    continue;
                }
                counters => counters?,
            };
            if counters.is_empty() {
                self.remove_folder(Home::Dead(destination));
            }
            for counter in counters {
                if let Some((blocks, _)) = self.size(Home::Dead(destination), counter, report) {
                    self.dead.add((counter, destination), blocks);
                }
            }
        }
        Ok(())
    }

    /// Blocks of what should be an event's file, and which file it is; none when it is none, and was moved aside.
    fn size(&mut self, home: Home, counter: u64, report: &mut Recovered) -> Option<(u32, u64)> {
        let path = self.volume.file(home, counter);
        match self.volume.stat(&path) {
            Ok(found) if found.regular => Some((blocks(found.bytes), found.file)),
            Ok(_) => {
                self.set_foreign_aside(&path, report);
                None
            }
            Err(fault) => {
                report.problem(fault); // whoever reads it will see
                Some((1, 0))
            }
        }
    }

    fn scan_to(&mut self, folder: &Path, report: &mut Recovered) -> Result<(), DiskError> {
        let (found, others) = self.names(folder, Destination::from_name)?;
        others.iter().for_each(|name| self.set_foreign_aside(&folder.join(name), report));
        let (names, mut found) = (found, BTreeSet::new());
        found.extend(names); // one by one: few, and no sorting of a list besides
        let mut links = Vec::new();
        self.destinations.iter_mut().flatten().for_each(|entry| entry.made = false);
        for &destination in &found {
            let counters = match self.scan_folder(Home::To(destination), report) {
                Err(fault) if is_no_folder(&fault) => {
                    self.set_foreign_aside(&self.volume.folder(Home::To(destination)), report);
                    continue;
                }
                counters => counters?,
            };
            self.admit(destination, &counters, &mut links, report);
        }
        self.count_events(links, report);
        let is_found = |former: Option<Destination>| former.is_some_and(|former| found.contains(&former));
        let has_no_folder =
            |entry: &&super::DestinationEntry| entry.configured && !entry.made && !is_found(entry.former);
        report.added.extend(self.destinations.iter().flatten().filter(has_no_folder).map(|entry| entry.destination));
        self.find_heirs(&report.added);
        Ok(())
    }

    /// Takes a folder's events in, and says so where nobody configured its destination.
    fn admit(&mut self, destination: Destination, counters: &[u64], links: &mut Vec<Entry>, report: &mut Recovered) {
        let known = self.slot(destination);
        if known.is_none() && counters.is_empty() {
            return self.remove_folder(Home::To(destination));
        }
        let url = self.read_note(&self.volume.folder(Home::To(destination)).join(URL_FILE));
        let url = url.map(|url| url.trim_end().to_owned()).filter(|url| !url.is_empty());
        let slot = match self.lodge(destination, url.clone()) {
            Ok(slot) => slot,
            Err(fault) => return report.problem(fault),
        };
        if let Some(entry) = &mut self.destinations[slot] {
            entry.made = true;
            if entry.configured {
                drop(self.volume.unlink(&self.volume.folder(Home::To(destination)).join(HEIRS_FILE))); // configured again
            }
        }
        if known.is_none() {
            report.removed.push(Removed { destination, url, events: counters.len() as u64 });
        }
        links.extend(counters.iter().map(|counter| Entry { counter: *counter, blocks: 0, mask: 1 << slot }));
    }

    /// Makes the index of all links, looking at each file once.
    fn count_events(&mut self, links: Vec<Entry>, report: &mut Recovered) {
        let mut events = Index::merge(links);
        let mut groups = Vec::new();
        events.retain_mut(|entry| {
            let mut mask: Mask = 0;
            for slot in super::index::slots(entry.mask) {
                if entry.blocks > 0 {
                    mask |= 1 << slot; // another name of a file that was looked at
                } else if let Some((blocks, file)) = self.size(Home::To(self.destination(slot)), entry.counter, report)
                {
                    (entry.blocks, mask) = (blocks.max(1), mask | 1 << slot);
                    Run::add(&mut groups, file, entry.counter);
                }
            }
            entry.mask = mask;
            mask != 0
        });
        groups.retain(|run| run.events > 1);
        groups.iter().for_each(|run| run.divide(&mut events));
        self.events = Index::of(events);
        groups.iter().for_each(|run| self.events.join(run.first, run.last));
        let events = &self.events;
        let is_there = |counter, slot: usize| events.get(counter).is_some_and(|entry| entry.mask & 1 << slot != 0);
        let is_for_good = |why: &Hidden| matches!(why, Hidden::Done | Hidden::Out);
        self.hidden.retain(|(counter, slot), why| is_for_good(why) && is_there(*counter, *slot));
    }
}

/// Events one after the other that lie in one file.
struct Run {
    file: u64,
    first: u64,
    last: u64,
    events: u32,
}

impl Run {
    /// The next event lies in this file.
    fn add(runs: &mut Vec<Run>, file: u64, counter: u64) {
        match runs.last_mut().filter(|run| run.file == file) {
            Some(run) => (run.last, run.events) = (counter, run.events + 1),
            None => {
                runs.pop_if(|run| run.events == 1); // a file of its own is no group
                runs.push(Run { file, first: counter, last: counter, events: 1 });
            }
        }
    }

    /// Each has had the whole file's blocks so far: now a part of them each.
    fn divide(&self, events: &mut [Entry]) {
        let from = events.partition_point(|entry| entry.counter < self.first);
        let members = events[from..].iter_mut().take_while(|entry| entry.counter <= self.last);
        members.for_each(|entry| entry.blocks = entry.blocks.div_ceil(self.events));
    }
}

fn is_no_folder(fault: &DiskError) -> bool {
    fault.source.kind() == std::io::ErrorKind::NotADirectory
}
