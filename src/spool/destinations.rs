//! Destinations that come and go, and their folders.

use std::io;
use std::path::Path;

use super::disk::{Disk, Mapped};
use super::file::{Address, Destination, HEIRS_FILE, URL_FILE};
use super::index::{Entry, Mask, SLOTS, slots};
use super::swapped::Moved;
use super::volume::{DiskError, Home};
use super::{DestinationEntry, Hidden, Spool};
use crate::config::Report;
use crate::picture::PictureSource as _;

/// Events moved at once when a destination goes: what lies between two fsyncs, and what others wait for.
const PAGE: usize = 256;
/// Begins [`HEIRS_FILE`].
const HEIRS: &str = "the heirs of this destination's events:\n";
/// Begins its lines that name who inherits none of them.
const PEER: &str = "not ";

impl<D: Disk> Spool<D> {
    /// These are the destinations from now on. What waits for one that was removed is meant for those of the same report that are new:
    /// [`Spool::settle`] sees to that. With none it is parked: it stays where it is until its destination, or a new one, comes. What failed is returned,
    /// and matters only if the process dies before the events have moved: the next start may then take other heirs. A folder is made
    /// with the next event stored.
    pub fn configure(&mut self, addresses: &[Address]) -> Vec<DiskError> {
        let is_wanted = |one: &Destination| addresses.iter().any(|address| address.destination == *one);
        let old: Vec<_> =
            self.destinations.iter().flatten().filter(|one| one.configured).map(|one| one.destination).collect();
        let new: Vec<(Destination, Report)> = addresses.iter().map(|one| (one.destination, one.report())).collect();
        let added_to = |report: Report| {
            let new = new.iter().filter(move |(_, its)| *its == report).map(|(one, _)| *one);
            new.filter(|one| !old.contains(one))
        };
        for entry in self.destinations.iter_mut().flatten().filter(|entry| !is_wanted(&entry.destination)) {
            let report = entry.report();
            if std::mem::take(&mut entry.configured) {
                entry.peers = if added_to(report).next().is_none() { old.clone() } else { Vec::new() };
                entry.heirs = None;
            }
            let before = entry.heirs.take();
            let heirs = before.clone().unwrap_or_default();
            let is_settled = !heirs.is_empty() && heirs.iter().all(is_wanted);
            // An heir that was removed too has heirs of its own.
            let others = added_to(report).filter(|one| !is_settled && !entry.peers.contains(one));
            let heirs = Some(heirs.into_iter().filter(is_wanted).chain(others).collect());
            entry.noted &= heirs == before;
            entry.heirs = heirs;
        }
        let mut faults: Vec<_> = addresses.iter().filter_map(|address| self.add(address).err()).collect();
        faults.extend(self.note_removals().err());
        faults
    }

    /// Removed destinations that nobody inherits from, with the number of their events.
    pub fn parked(&self) -> impl Iterator<Item = (Destination, Option<&str>, u64)> {
        let destinations = self.destinations.iter().enumerate().filter_map(|(slot, one)| Some((slot, one.as_ref()?)));
        let parked = destinations.filter(|(_, one)| one.heirs.as_ref().is_some_and(Vec::is_empty));
        let counted = parked.map(|(slot, one)| (one.destination, one.url.as_deref(), self.kept(slot)));
        counted.filter(|(_, _, events)| *events > 0)
    }

    /// A destination is there from now on; nothing happens when it was already.
    ///
    /// # Errors
    /// When there are too many destinations.
    pub fn add(&mut self, address: &Address) -> Result<(), DiskError> {
        let slot = self.lodge(address.destination, Some(address.shown.clone()))?;
        let entry = self.destinations[slot].as_mut().expect("it was just lodged");
        let was_removed = entry.heirs.take().is_some();
        entry.peers.clear();
        entry.configured = true;
        entry.former = address.former;
        if was_removed {
            self.volume.unlink(&self.volume.folder(Home::To(address.destination)).join(HEIRS_FILE))?;
        }
        Ok(())
    }

    /// An event is to be stored for a destination that was removed: what waits for it is meant for `heirs`.
    ///
    /// # Errors
    /// When there are too many destinations.
    pub fn add_removed(&mut self, address: &Address, heirs: &[Destination]) -> Result<(), DiskError> {
        let slot = self.lodge(address.destination, Some(address.shown.clone()))?;
        let entry = self.destinations[slot].as_mut().expect("it was just lodged");
        if !entry.configured && entry.heirs.is_none() {
            entry.heirs = Some(heirs.to_vec());
        }
        Ok(())
    }

    /// Says in the folders of removed destinations who gets their events, before any of those has a folder: a start that found the
    /// heirs' folders would take them for destinations that were there before. And makes the folders of those that are to get none.
    fn note_removals(&mut self) -> Result<(), DiskError> {
        let slots = || 0..SLOTS;
        let is_parked = |entry: &DestinationEntry| entry.heirs.as_ref().is_some_and(Vec::is_empty);
        let heirs = slots().filter(|slot| self.destinations[*slot].as_ref().is_some_and(|entry| !is_parked(entry)));
        heirs.collect::<Vec<_>>().into_iter().try_for_each(|slot| self.write_heirs(slot))?;
        if self.parked().next().is_some() {
            let configured = slots().filter(|slot| self.destinations[*slot].as_ref().is_some_and(|one| one.configured));
            self.make_folders(configured.fold(0, |mask, slot| mask | 1 << slot))?;
        }
        slots().try_for_each(|slot| self.write_heirs(slot))
    }

    fn write_heirs(&mut self, slot: usize) -> Result<(), DiskError> {
        let Some(entry @ DestinationEntry { heirs: Some(_), made: true, noted: false, .. }) = &self.destinations[slot]
        else {
            return Ok(());
        };
        let (folder, note) = (self.volume.folder(Home::To(entry.destination)), entry.note());
        self.write_note(&folder.join(HEIRS_FILE), &note)?;
        self.volume.sync_folder(&folder)?;
        if let Some(entry) = &mut self.destinations[slot] {
            entry.noted = true;
        }
        Ok(())
    }

    /// Who gets what waits for destinations that are not configured any more: those that their folders name, else those that are new.
    pub(super) fn find_heirs(&mut self, added: &[Destination]) {
        let configured: Vec<_> =
            self.destinations.iter().flatten().filter(|one| one.configured).map(|one| one.destination).collect();
        for slot in 0..self.destinations.len() {
            let removed = self.destinations[slot].as_ref().filter(|one| !one.configured && one.heirs.is_none());
            let Some(destination) = removed.map(|one| one.destination) else { continue };
            let note = self.read_note(&self.volume.folder(Home::To(destination)).join(HEIRS_FILE));
            let (heirs, peers) = match note.as_deref().and_then(|text| text.strip_prefix(HEIRS)) {
                Some(names) => named_in(names),
                None => (Vec::new(), configured.iter().copied().filter(|one| !added.contains(one)).collect()),
            };
            let itself = self.configured_as(destination).map(|one| vec![one]);
            let heirs = heirs.into_iter().filter_map(|heir| self.configured_as(heir));
            let mut heirs: Vec<_> = itself.unwrap_or_else(|| heirs.collect());
            if heirs.is_empty() {
                let report = self.destinations[slot].as_ref().map(DestinationEntry::report);
                let same = |one: &&Destination| self.entry(**one).map(DestinationEntry::report) == report;
                heirs.extend(added.iter().filter(|one| !peers.contains(one)).filter(same));
            }
            if let Some(entry) = &mut self.destinations[slot] {
                (entry.heirs, entry.peers) = (Some(heirs), peers);
                entry.noted = note == Some(entry.note());
            }
        }
    }

    fn entry(&self, destination: Destination) -> Option<&DestinationEntry> {
        self.destinations.iter().flatten().find(|one| one.destination == destination)
    }

    /// The destination in the config that has this name, or had it in an earlier release.
    pub(super) fn configured_as(&self, name: Destination) -> Option<Destination> {
        let configured = || self.destinations.iter().flatten().filter(|one| one.configured);
        let found = configured().find(|one| one.destination == name);
        found.or_else(|| configured().find(|one| one.former == Some(name))).map(|one| one.destination)
    }

    /// The slot of a destination, a free one for a new destination.
    pub(super) fn lodge(&mut self, destination: Destination, url: Option<String>) -> Result<usize, DiskError> {
        if let Some(slot) = self.slot(destination) {
            return Ok(slot);
        }
        let is_deserted = |slot: &usize| {
            let is_removed = self.destinations[*slot].as_ref().is_some_and(|entry| !entry.configured);
            is_removed && self.events.in_slot(*slot, None).next().is_none() && self.kept(*slot) == 0
        };
        let free = self.destinations.iter().position(Option::is_none).or_else(|| (0..SLOTS).find(is_deserted));
        let slot = free.ok_or_else(|| DiskError {
            operation: "keep",
            path: self.volume.folder(Home::To(destination)),
            source: io::Error::other("there are too many destinations with spooled events"),
        })?;
        self.destinations[slot] = Some(DestinationEntry::new(destination, url));
        Ok(slot)
    }

    /// The slot of a destination that must be there.
    pub(super) fn known(&self, destination: Destination) -> Result<usize, DiskError> {
        self.slot(destination).ok_or_else(|| self.is_not_configured(destination))
    }

    pub(super) fn is_not_configured(&self, destination: Destination) -> DiskError {
        DiskError {
            operation: "put events into",
            path: self.volume.folder(Home::To(destination)),
            source: io::Error::other("its destination is not in the config"),
        }
    }

    /// Makes the folders of all other destinations too, as far as that goes: a start tells by them which ones were configured when
    /// the last event was stored, and which are new and inherit.
    pub(super) fn make_all_folders(&mut self) {
        for slot in 0..self.destinations.len() {
            let _an_event_will_tell = self.make_folders(1 << slot);
        }
    }

    /// Makes the folders that are not there yet.
    pub(super) fn make_folders(&mut self, mask: Mask) -> Result<(), DiskError> {
        for slot in slots(mask) {
            let Some(entry) = self.destinations[slot].as_ref().filter(|entry| !entry.made) else {
                continue;
            };
            let folder = self.volume.folder(Home::To(entry.destination));
            let url = entry.url.clone();
            self.volume.make_folder(&folder)?;
            let told = url.map_or(Ok(()), |url| self.write_once(&folder.join(URL_FILE), &format!("{url}\n")));
            drop(told); // for people only: no reason to refuse an event
            if let Some(entry) = &mut self.destinations[slot] {
                entry.made = true;
            }
        }
        Ok(())
    }

    pub(super) fn write_once(&mut self, path: &Path, text: &str) -> Result<(), DiskError> {
        if self.volume.stat(path).is_ok() { Ok(()) } else { self.write_note(path, text) }
    }

    /// Writes a small file: the one before or this one is there, whatever happens.
    fn write_note(&mut self, path: &Path, text: &str) -> Result<(), DiskError> {
        let fresh = self.volume.folder(Home::New).join(URL_FILE);
        self.volume.unlink(&fresh)?;
        let mut file = self.volume.create(&fresh)?;
        let written = self.volume.write(&mut file, &fresh, text.as_bytes(), 0);
        let written = written.and_then(|()| self.volume.sync(&mut file, &fresh));
        let written = written.and_then(|()| self.volume.rename(&fresh, path));
        written.inspect_err(|_| drop(self.volume.unlink(&fresh)))
    }

    pub(super) fn read_note(&self, path: &Path) -> Option<String> {
        let mapped = self.volume.map(path).ok()?;
        let mut text = Vec::new();
        mapped.lend(0..mapped.size().min(4096), &mut |bytes| text.extend_from_slice(bytes)).ok()?;
        String::from_utf8(text).ok()
    }

    /// Moves some of what waits for removed destinations to their heirs, or lies in a former folder; none when there is nothing to move
    /// now. What is on its way stays until that is over.
    ///
    /// # Errors
    /// What failed. Nothing is lost: what was not moved still waits for the removed destination, and the call can be repeated.
    pub fn settle(&mut self) -> Result<Option<Moved>, DiskError> {
        self.available()?;
        if let Some(moved) = self.move_some()? {
            return Ok(Some(moved));
        }
        self.note_removals()?;
        let is_removed = |slot: &usize| self.destinations[*slot].as_ref().is_some_and(|entry| entry.heirs.is_some());
        for slot in (0..self.destinations.len()).filter(is_removed).collect::<Vec<_>>() {
            if let Some(to_heirs) = self.settle_page(slot)? {
                return Ok(Some(Moved { to_heirs, ..Moved::default() }));
            }
        }
        Ok(None)
    }

    /// A page of one removed destination; with the last event goes its folder.
    fn settle_page(&mut self, slot: usize) -> Result<Option<u64>, DiskError> {
        if self.kept(slot) == 0 && self.events.in_slot(slot, None).next().is_none() {
            self.remove_folder(Home::To(self.destination(slot)));
            self.destinations[slot] = None;
            return Ok(None);
        }
        let heirs = self.destinations[slot].as_ref().and_then(|entry| entry.heirs.clone()).unwrap_or_default();
        let mut mask: Mask = 0;
        for heir in heirs {
            mask |= 1 << self.known(heir)?;
        }
        let is_out = |counter: &u64| self.hidden.get(&(*counter, slot)) == Some(&Hidden::Out);
        let page = self.events.in_slot(slot, None).map(|entry| entry.counter).filter(|counter| !is_out(counter));
        let page: Vec<u64> = page.take(PAGE).collect();
        if mask == 0 || page.is_empty() {
            return Ok(None);
        }
        // What is done with is only in the way.
        let (over, page): (Vec<u64>, Vec<u64>) =
            page.into_iter().partition(|counter| self.hidden.get(&(*counter, slot)) == Some(&Hidden::Done));
        over.into_iter().try_for_each(|counter| self.unlink(counter, slot).map(drop))?;
        self.make_folders(mask)?;
        self.hand_over(slot, &page, mask)?;
        Ok(Some(page.len() as u64))
    }

    /// Gives events of a folder a name in the folders of all heirs: first they are durable there, then they are not here any more.
    fn hand_over(&mut self, slot: usize, counters: &[u64], mask: Mask) -> Result<(), DiskError> {
        for (counter, heir) in counters.iter().flat_map(|counter| slots(mask).map(move |heir| (*counter, heir))) {
            self.unlink_if_done(counter, heir)?;
        }
        let mut made = Vec::new();
        if let Err(fault) = self.link_to_heirs(slot, counters, mask, &mut made) {
            // Left there, they would be taken for durable the next time.
            for (counter, heir) in made {
                if self.unlink(counter, heir).is_err() {
                    self.hidden.insert((counter, heir), Hidden::Done);
                }
            }
            return Err(fault);
        }
        made.iter().for_each(|(_, heir)| self.count(*heir, |tally| &mut tally.inherited));
        for counter in counters {
            if self.unlink(*counter, slot)? {
                self.count(slot, |tally| &mut tally.handed_over);
            }
        }
        Ok(())
    }

    fn link_to_heirs(
        &mut self,
        slot: usize,
        counters: &[u64],
        mask: Mask,
        made: &mut Vec<(u64, usize)>,
    ) -> Result<(), DiskError> {
        for entry in counters.iter().filter_map(|counter| self.events.get(*counter)).collect::<Vec<_>>() {
            let from = self.volume.file(Home::To(self.destination(slot)), entry.counter);
            for heir in slots(mask & !entry.mask) {
                self.events.add(Entry { mask: 1 << heir, ..entry });
                made.push((entry.counter, heir));
                self.volume.link(&from, &self.volume.file(Home::To(self.destination(heir)), entry.counter))?;
            }
        }
        slots(mask).try_for_each(|heir| self.volume.sync_folder(&self.volume.folder(Home::To(self.destination(heir)))))
    }

    /// Removes an empty folder of a destination; that it stays there would do no harm.
    pub(super) fn remove_folder(&self, home: Home) {
        let folder = self.volume.folder(home);
        let notes = [HEIRS_FILE, URL_FILE].into_iter().try_for_each(|note| self.volume.unlink(&folder.join(note)));
        drop(notes.and_then(|()| self.volume.remove_folder(&folder)));
    }
}

impl DestinationEntry {
    /// Which events its destination gets; those of the realtime report, where its URL cannot be read.
    fn report(&self) -> Report {
        self.url.as_deref().map_or(Report::RealTime, Report::of_shown)
    }

    /// What [`HEIRS_FILE`] says of it.
    fn note(&self) -> String {
        let heirs = self.heirs.iter().flatten().map(|heir| format!("{heir}\n"));
        let peers = self.peers.iter().filter(|peer| **peer != self.destination).map(|peer| format!("{PEER}{peer}\n"));
        std::iter::once(HEIRS.to_owned()).chain(heirs).chain(peers).collect()
    }
}

/// The heirs and the peers that a note names.
fn named_in(names: &str) -> (Vec<Destination>, Vec<Destination>) {
    let named = |name: &str| Destination::from_name(name.as_ref());
    let heirs = names.lines().filter_map(named).collect();
    (heirs, names.lines().filter_map(|line| named(line.strip_prefix(PEER)?)).collect())
}
