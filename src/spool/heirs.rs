//! Destinations that come and go: their folders, and their events that go to heirs.

use std::io;
use std::path::Path;

use super::Spool;
use super::destinations::DestinationEntry;
use super::disk::{Disk, Mapped};
use super::events::Hidden;
use super::file::{Address, Destination, HEIRS_FILE, URL_FILE};
use super::index::{Entry, Mask, SLOTS, slots};
use super::swapped::Moved;
use super::volume::{DiskError, Home};
use crate::picture::PictureSource as _;

/// Events moved at once when a destination goes: what lies between two fsyncs, and what others wait for.
const PAGE: usize = 256;

impl<D: Disk> Spool<D> {
    /// These are the destinations from now on. What waits for one that was removed is meant for those of the same report that are new:
    /// [`Spool::settle`] sees to that. With none it is parked: it stays where it is until its destination, or a new one, comes. What failed is returned,
    /// and matters only if the process dies before the events have moved: the next start may then take other heirs. A folder is made
    /// with the next event stored.
    pub fn configure(&mut self, addresses: &[Address]) -> Vec<DiskError> {
        self.destinations.keep_only(addresses);
        let mut faults: Vec<_> = addresses.iter().filter_map(|address| self.add(address).err()).collect();
        faults.extend(self.note_removals().err());
        faults
    }

    /// Removed destinations that nobody inherits from, with the number of their events.
    pub fn parked(&self) -> impl Iterator<Item = (Destination, Option<&str>, u64)> {
        let parked = self.destinations.iter().filter(|(_, one)| one.is_parked());
        let counted = parked.map(|(slot, one)| (one.destination(), one.url(), self.kept(slot)));
        counted.filter(|(_, _, events)| *events > 0)
    }

    /// A destination is there from now on; nothing happens when it was already.
    ///
    /// # Errors
    /// When there are too many destinations.
    pub fn add(&mut self, address: &Address) -> Result<(), DiskError> {
        let slot = self.lodge(address.destination, Some(address.shown.clone()))?;
        if self.destinations.configure(slot, address.former) {
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
        self.destinations.bequeath(slot, heirs);
        Ok(())
    }

    /// Says in the folders of removed destinations who gets their events, before any of those has a folder: a start that found the
    /// heirs' folders would take them for destinations that were there before. And makes the folders of those that are to get none.
    fn note_removals(&mut self) -> Result<(), DiskError> {
        let of = |is_such: fn(&DestinationEntry) -> bool| {
            self.destinations.iter().filter(|(_, one)| is_such(one)).fold(0, |mask: Mask, (slot, _)| mask | 1 << slot)
        };
        let (with_heirs, configured) = (of(|one| !one.is_parked()), of(DestinationEntry::is_configured));
        slots(with_heirs).try_for_each(|slot| self.write_heirs(slot))?;
        if self.parked().next().is_some() {
            self.make_folders(configured)?;
        }
        (0..SLOTS).try_for_each(|slot| self.write_heirs(slot))
    }

    fn write_heirs(&mut self, slot: usize) -> Result<(), DiskError> {
        let Some(note) = self.destinations.note_to_write(slot) else { return Ok(()) };
        let folder = self.volume.folder(Home::To(self.destinations.at(slot)));
        self.write_note(&folder.join(HEIRS_FILE), &note)?;
        self.volume.sync_folder(&folder)?;
        self.destinations.is_noted(slot);
        Ok(())
    }

    /// Who gets what waits for destinations that are not configured any more: those that their folders name, else those that are new.
    pub(super) fn find_heirs(&mut self, added: &[Destination]) {
        for (slot, destination) in self.destinations.without_heirs() {
            let note = self.read_note(&self.volume.folder(Home::To(destination)).join(HEIRS_FILE));
            self.destinations.find_heirs(slot, note.as_deref(), added);
        }
    }

    /// The slot of a destination, a free one for a new destination.
    pub(super) fn lodge(&mut self, destination: Destination, url: Option<String>) -> Result<usize, DiskError> {
        let (events, swapped) = (&self.events, &self.swapped);
        let is_deserted = |slot| events.is_empty_in(slot) && swapped.in_slot(slot) == 0;
        self.destinations.lodge(destination, url, is_deserted).ok_or_else(|| DiskError {
            operation: "keep",
            path: self.volume.folder(Home::To(destination)),
            source: io::Error::other("there are too many destinations with spooled events"),
        })
    }

    /// The slot of a destination that must be there.
    pub(super) fn known(&self, destination: Destination) -> Result<usize, DiskError> {
        self.destinations.slot(destination).ok_or_else(|| self.is_not_configured(destination))
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
        for slot in 0..SLOTS {
            let _an_event_will_tell = self.make_folders(1 << slot);
        }
    }

    /// Makes the folders that are not there yet.
    pub(super) fn make_folders(&mut self, mask: Mask) -> Result<(), DiskError> {
        for slot in self.destinations.without_folder(mask) {
            let folder = self.volume.folder(Home::To(self.destinations.at(slot)));
            let url = self.url_in(slot);
            self.volume.make_folder(&folder)?;
            let told = url.map_or(Ok(()), |url| self.write_once(&folder.join(URL_FILE), &format!("{url}\n")));
            drop(told); // for people only: no reason to refuse an event
            self.destinations.has_folder(slot);
        }
        Ok(())
    }

    pub(super) fn url_in(&self, slot: usize) -> Option<String> {
        self.destinations.get(slot)?.url().map(str::to_owned)
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
        let removed = self.destinations.iter().filter(|(_, one)| one.heirs().is_some()).map(|(slot, _)| slot);
        for slot in removed.collect::<Vec<_>>() {
            if let Some(to_heirs) = self.settle_page(slot)? {
                return Ok(Some(Moved { to_heirs, ..Moved::default() }));
            }
        }
        Ok(None)
    }

    /// A page of one removed destination; with the last event goes its folder.
    fn settle_page(&mut self, slot: usize) -> Result<Option<u64>, DiskError> {
        if self.kept(slot) == 0 && self.events.is_empty_in(slot) {
            self.remove_folder(Home::To(self.destinations.at(slot)));
            self.destinations.vacate(slot);
            return Ok(None);
        }
        let heirs = self.destinations.get(slot).and_then(DestinationEntry::heirs).unwrap_or_default().to_vec();
        let mut mask: Mask = 0;
        for heir in heirs {
            mask |= 1 << self.known(heir)?;
        }
        let is_out = |counter: &u64| self.events.why_hidden(*counter, slot) == Some(Hidden::Out);
        let page = self.events.in_slot(slot, None).map(|entry| entry.counter).filter(|counter| !is_out(counter));
        let page: Vec<u64> = page.take(PAGE).collect();
        if mask == 0 || page.is_empty() {
            return Ok(None);
        }
        // What is done with is only in the way.
        let (over, page): (Vec<u64>, Vec<u64>) =
            page.into_iter().partition(|counter| self.events.why_hidden(*counter, slot) == Some(Hidden::Done));
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
                    self.events.hide(counter, heir, Hidden::Done);
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
            let from = self.volume.file(Home::To(self.destinations.at(slot)), entry.counter);
            for heir in slots(mask & !entry.mask) {
                self.events.add(Entry { mask: 1 << heir, ..entry });
                made.push((entry.counter, heir));
                self.volume.link(&from, &self.volume.file(Home::To(self.destinations.at(heir)), entry.counter))?;
            }
        }
        slots(mask)
            .try_for_each(|heir| self.volume.sync_folder(&self.volume.folder(Home::To(self.destinations.at(heir)))))
    }

    /// Removes an empty folder of a destination; that it stays there would do no harm.
    pub(super) fn remove_folder(&self, home: Home) {
        let folder = self.volume.folder(home);
        let notes = [HEIRS_FILE, URL_FILE].into_iter().try_for_each(|note| self.volume.unlink(&folder.join(note)));
        drop(notes.and_then(|()| self.volume.remove_folder(&folder)));
    }
}
