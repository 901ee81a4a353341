//! The start: lists the folders, which say what is there.
//!
//! Damaged content never fails a start. A file whose name is not one of the spool's goes to quarantine, and the content of a file
//! is checked when it is read. A folder that cannot be listed fails the start: it is not taken for an empty one, and tried again
//! later.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use super::destinations::DestinationEntry;
use super::disk::Disk;
use super::file::{Destination, EVENT_SUFFIX, HEIRS_FILE, URL_FILE, counter};
use super::group::MOST;
use super::index::{BLOCK, Entry, Index, Mask, SLOTS, blocks};
use super::recovered::{Recovered, Removed};
use super::volume::{DiskError, Home};
use super::{Spool, State};

impl<D: Disk> Spool<D> {
    /// Lists the folders, at the start, and again while the spool is [`State::Unavailable`]. Events that could not be read so far
    /// are offered again.
    pub fn open_again(&mut self) -> Recovered {
        let mut report = Recovered::default();
        let before: Vec<u64> = (0..SLOTS).map(|slot| self.kept(slot)).collect();
        let vanished = self.destinations.tally().vanished;
        let recovered = self.recover(&mut report);
        for (slot, before) in before.into_iter().enumerate() {
            let now = self.kept(slot);
            self.destinations.count_many(slot, now.saturating_sub(before), |tally| &mut tally.recovered);
            self.destinations.count_many(slot, before.saturating_sub(now), |tally| &mut tally.vanished);
        }
        report.vanished = self.destinations.tally().vanished - vanished;
        match recovered {
            Ok(()) => self.state = State::Usable,
            Err(fault) => {
                self.state = State::Unavailable(fault.to_string());
                report.unavailable = Some(fault);
            }
        }
        report.left = (0..SLOTS).map(|slot| self.swapped.in_slot(slot)).sum();
        (report.events, report.bytes) = (self.events.len(), self.blocks() * BLOCK);
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
        self.quarantine.scan(&self.volume, |fault| report.problem(fault))?;
        self.wipe(&new, report)?;
        self.volume.probe_links();
        self.scan_dead(&dead, report)?;
        let read = self.letters.read_reasons(&self.volume);
        read.unwrap_or_else(|fault| report.problem(fault));
        self.scan_to(&to, report)?;
        for folder in [&to, &dead] {
            self.volume.sync_folder(folder)?;
        }
        Ok(())
    }

    fn set_foreign_aside(&mut self, from: &Path, report: &mut Recovered) {
        let size = self.volume.stat(from).map_or(1, |found| blocks(found.bytes));
        match self.quarantine.take(&self.volume, self.bounds, from, size) {
            Ok(to) => report.foreign(from, to),
            Err(fault) => report.problem(fault),
        }
    }

    fn wipe(&mut self, folder: &Path, report: &mut Recovered) -> Result<(), DiskError> {
        let (names, _) = self.volume.names(folder, |name| Some(name.to_owned()))?;
        for name in names {
            let path = folder.join(&name);
            self.events.saw(counter(&name, EVENT_SUFFIX));
            match self.volume.unlink(&path) {
                Ok(()) => report.unfinished += 1,
                Err(_) if self.volume.stat(&path).is_ok_and(|found| !found.regular) => {
                    self.set_foreign_aside(&path, report);
                }
                Err(fault) => return Err(fault),
            }
        }
        self.volume.is_swept();
        Ok(())
    }

    /// Lists the events in a destination's folder and makes the folder durable. Other files go to quarantine.
    fn scan_folder(&mut self, home: Home, report: &mut Recovered) -> Result<Vec<u64>, DiskError> {
        let folder = self.volume.folder(home);
        let (counters, others) = self.volume.names(&folder, |name| counter(name, EVENT_SUFFIX))?;
        for name in others.iter().filter(|name| *name != URL_FILE && *name != HEIRS_FILE) {
            self.set_foreign_aside(&folder.join(name), report);
        }
        self.volume.sync_folder(&folder)?;
        self.events.saw(counters.iter().copied().max());
        Ok(counters)
    }

    fn scan_dead(&mut self, folder: &Path, report: &mut Recovered) -> Result<(), DiskError> {
        let (destinations, others) = self.volume.names(folder, Destination::from_name)?;
        others.iter().for_each(|name| self.set_foreign_aside(&folder.join(name), report));
        self.letters.clear();
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
                    self.letters.add((counter, destination), blocks);
                }
            }
        }
        Ok(())
    }

    /// The blocks of an event's file, and its inode. None if it is no regular file, which then goes to quarantine.
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
        let (found, others) = self.volume.names(folder, Destination::from_name)?;
        others.iter().for_each(|name| self.set_foreign_aside(&folder.join(name), report));
        let (names, mut found) = (found, BTreeSet::new());
        found.extend(names); // one by one: few, and no sorting of a list besides
        let mut links = Vec::new();
        let is_undecided = !self.destinations.without_heirs().is_empty();
        self.destinations.forget_folders();
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
            |one: &&DestinationEntry| one.is_configured() && !one.has_folder() && !is_found(one.former());
        let all = self.destinations.iter().map(|(_, one)| one);
        report.added.extend(all.filter(has_no_folder).map(DestinationEntry::destination));
        self.destinations.set_added(&report.added, is_undecided);
        self.find_heirs().unwrap_or_else(|fault| report.problem(fault));
        Ok(())
    }

    /// Adds a folder's events to `links`. Reports a destination that is not configured.
    fn admit(&mut self, destination: Destination, counters: &[u64], links: &mut Vec<Entry>, report: &mut Recovered) {
        let known = self.destinations.slot(destination);
        if known.is_none() && counters.is_empty() {
            return self.remove_folder(Home::To(destination));
        }
        let url = self.read_url(&self.volume.folder(Home::To(destination))).unwrap_or_else(|fault| {
            report.problem(fault);
            None
        });
        let is_told = url.is_some();
        let slot = match self.lodge(destination, url.clone()) {
            Ok(slot) => slot,
            Err(fault) => return report.problem(fault),
        };
        self.destinations.has_folder(slot, is_told);
        if self.destinations.get(slot).is_some_and(DestinationEntry::is_configured) {
            drop(self.volume.unlink(&self.volume.folder(Home::To(destination)).join(HEIRS_FILE))); // configured again
        }
        if known.is_none() {
            report.removed.push(Removed { destination, url, events: counters.len() as u64 });
        }
        links.extend(counters.iter().map(|counter| Entry { counter: *counter, blocks: 0, mask: 1 << slot }));
    }

    /// Makes the index of all links. Looks at each file once.
    fn count_events(&mut self, links: Vec<Entry>, report: &mut Recovered) {
        let mut events = Index::merge(links);
        let mut groups = Runs::default();
        events.retain_mut(|entry| {
            let mut mask: Mask = 0;
            for slot in super::index::slots(entry.mask) {
                if entry.blocks > 0 {
                    mask |= 1 << slot; // another name of a file that was looked at
                } else if let Some((blocks, file)) =
                    self.size(Home::To(self.destinations.at(slot)), entry.counter, report)
                {
                    (entry.blocks, mask) = (blocks.max(1), mask | 1 << slot);
                    groups.add(file, *entry);
                }
            }
            entry.mask = mask;
            mask != 0
        });
        let groups = groups.done();
        groups.iter().for_each(|run| run.divide(&mut events));
        let mut index = Index::of(events);
        groups.iter().for_each(|run| index.join(run.first, run.last, run.blocks, |counter| run.has(counter)));
        self.events.recount(index);
    }
}

/// The events of one file.
struct Run {
    file: u64,
    first: u64,
    last: u64,
    /// A bit for each of them, from the first one on: a group's numbers were consecutive when it was written.
    members: u32,
    /// The file's.
    blocks: u32,
}

const _: () = assert!(MOST as u32 <= u32::BITS);

impl Run {
    /// Whether an event is in the file.
    fn has(&self, counter: u64) -> bool {
        counter.checked_sub(self.first).is_some_and(|place| place < MOST as u64 && self.members & 1 << place != 0)
    }

    /// Divides the file's blocks among its events. So far each has all of them.
    fn divide(&self, events: &mut [Entry]) {
        let from = events.partition_point(|entry| entry.counter < self.first);
        let near = events[from..].iter_mut().take_while(|entry| entry.counter <= self.last);
        let members = near.filter(|entry| self.has(entry.counter));
        members.for_each(|entry| entry.blocks = entry.blocks.div_ceil(self.members.count_ones()));
    }
}

/// Finds the files that hold several events. Between the events of such a file there may be others, each in a file of its own: dead
/// letters that wait again.
#[derive(Default)]
struct Runs {
    groups: Vec<Run>,
    /// Those that may get further events.
    recent: VecDeque<Run>,
}

impl Runs {
    /// Adds the next event, which is in `file`; 0: nobody knows where.
    fn add(&mut self, file: u64, Entry { counter, blocks, .. }: Entry) {
        while self.recent.front().is_some_and(|run| counter - run.first >= MOST as u64) {
            self.groups.extend(self.recent.pop_front().filter(|run| run.members.count_ones() > 1));
        }
        match self.recent.iter_mut().find(|run| file != 0 && run.file == file) {
            Some(run) => (run.last, run.members) = (counter, run.members | 1 << (counter - run.first)),
            None => self.recent.push_back(Run { file, first: counter, last: counter, members: 1, blocks }),
        }
    }

    /// The groups, in the order of their numbers.
    fn done(mut self) -> Vec<Run> {
        self.groups.extend(self.recent.into_iter().filter(|run| run.members.count_ones() > 1));
        self.groups
    }
}

fn is_no_folder(fault: &DiskError) -> bool {
    fault.source.kind() == std::io::ErrorKind::NotADirectory
}
