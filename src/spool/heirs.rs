//! Adds and removes destinations: makes their folders, and gives the events of removed destinations to their heirs.

use std::io;
use std::path::Path;

use super::Spool;
use super::destinations::DestinationEntry;
use super::disk::Disk;
use super::events::Hidden;
use super::file::{Address, Destination, HEIRS_FILE, URL_FILE};
use super::index::{Entry, Mask, SLOTS, slots};
use super::swapped::Moved;
use super::volume::{DiskError, Home};
use crate::config::Report;

/// How many events one call moves: so many share an fsync, and other calls wait for so many.
const PAGE: usize = 256;

/// No note is longer, in bytes.
const MOST_OF_NOTE: usize = 4096;

impl<D: Disk> Spool<D> {
    /// Sets the destinations. The heirs of a removed destination are the new ones of the same report; [`Spool::settle`] moves the
    /// events. Without heirs the destination is parked: its events stay until it, or a new destination, is added. Returns what
    /// failed; that matters only if the process dies before the events have moved, because the next start may then choose other
    /// heirs. Folders are made with the next event that is stored, or at once if something is parked.
    pub fn configure(&mut self, addresses: &[Address]) -> Vec<DiskError> {
        self.destinations.keep_only(addresses);
        let mut faults: Vec<_> = addresses.iter().filter_map(|address| self.add(address).err()).collect();
        faults.extend(self.note_removals().err());
        faults
    }

    /// The parked destinations that have events, with the number of these.
    pub fn parked(&self) -> impl Iterator<Item = (Destination, Option<&str>, u64)> {
        let parked = self.destinations.iter().filter(|(_, one)| one.is_parked());
        let counted = parked.map(|(slot, one)| (one.destination(), one.url(), self.kept(slot)));
        counted.filter(|(_, _, events)| *events > 0)
    }

    /// Adds a destination, if it is new. Register destinations before their first event is stored.
    ///
    /// # Errors
    /// If there are too many destinations.
    pub fn add(&mut self, address: &Address) -> Result<(), DiskError> {
        let slot = self.lodge(address.destination, Some(address.shown.clone()))?;
        if self.destinations.configure(slot, address.former) {
            self.volume.unlink(&self.volume.folder(Home::To(address.destination)).join(HEIRS_FILE))?;
        }
        Ok(())
    }

    /// Adds a removed destination whose events go to `heirs`, because an event of its own is still to be stored.
    ///
    /// # Errors
    /// If there are too many destinations.
    pub fn add_removed(&mut self, address: &Address, heirs: &[Destination]) -> Result<(), DiskError> {
        let slot = self.lodge(address.destination, Some(address.shown.clone()))?;
        self.destinations.bequeath(slot, heirs);
        Ok(())
    }

    /// Writes the heirs into the folders of removed destinations. Register heirs before their folders exist: a start that finds
    /// the folders without this note takes their destinations for old ones. Also makes the folders of those that must inherit
    /// nothing.
    fn note_removals(&mut self) -> Result<(), DiskError> {
        let of = |is_such: fn(&DestinationEntry) -> bool| {
            self.destinations.iter().filter(|(_, one)| is_such(one)).fold(0, |mask: Mask, (slot, _)| mask | 1 << slot)
        };
        let (with_heirs, configured) = (of(|one| !one.has_no_heirs()), of(DestinationEntry::is_configured));
        slots(with_heirs).try_for_each(|slot| self.write_heirs(slot))?;
        if self.destinations.iter().any(|(slot, one)| one.has_no_heirs() && self.kept(slot) > 0) {
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

    /// Finds the heirs of destinations that are no longer configured: those that the note in the folder names, or else those that
    /// the last start found to be new.
    ///
    /// # Errors
    /// A note that cannot be read. Its destination has no heirs so far, and keeps its events; the next call tries again.
    pub(super) fn find_heirs(&mut self) -> Result<(), DiskError> {
        let mut found = Ok(());
        for (slot, destination) in self.destinations.without_heirs() {
            let folder = self.volume.folder(Home::To(destination));
            let url = if self.url_in(slot).is_none() { self.read_url(&folder) } else { Ok(None) };
            match url.and_then(|url| Ok((url, self.read_note(&folder.join(HEIRS_FILE))?))) {
                Ok((url, note)) => {
                    self.destinations.set_url(slot, url);
                    self.destinations.find_heirs(slot, note.as_deref());
                }
                Err(_) if self.destinations.could_not_read(slot) => {
                    self.destinations.find_heirs(slot, None);
                    self.destinations.is_noted(slot); // whatever the note says, it stays
                }
                Err(fault) => found = Err(fault),
            }
        }
        found
    }

    /// The slot of a destination. A new destination gets a free slot.
    pub(super) fn lodge(&mut self, destination: Destination, url: Option<String>) -> Result<usize, DiskError> {
        let (events, swapped) = (&self.events, &self.swapped);
        let is_deserted = |slot| events.is_empty_in(slot) && swapped.in_slot(slot) == 0;
        self.destinations.lodge(destination, url, is_deserted).ok_or_else(|| DiskError {
            operation: "keep",
            path: self.volume.folder(Home::To(destination)),
            source: io::Error::other("there are too many destinations with spooled events"),
        })
    }

    /// The slot of a destination that must be known.
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

    /// Makes the folders of all other destinations, too, if possible. A start uses them to tell the destinations that were
    /// configured when the last event was stored from the new ones, which inherit.
    pub(super) fn make_all_folders(&mut self) {
        for slot in 0..SLOTS {
            let _an_event_will_tell = self.make_folders(1 << slot);
        }
    }

    /// Makes the folders that do not exist yet.
    pub(super) fn make_folders(&mut self, mask: Mask) -> Result<(), DiskError> {
        for slot in self.destinations.without_folder(mask) {
            let folder = self.volume.folder(Home::To(self.destinations.at(slot)));
            let url = self.url_in(slot);
            self.volume.make_folder(&folder)?;
            let told = url.as_ref().map_or(Ok(()), |url| self.write_once(&folder.join(URL_FILE), &format!("{url}\n")));
            // Without this file a start takes the destination for one of the realtime report. If it is one, only people need it.
            let is_needed = url.is_some_and(|url| Report::of_shown(&url) != Report::RealTime);
            told.or_else(|fault| if is_needed { Err(fault) } else { Ok(()) })?;
            self.destinations.has_folder(slot, true);
        }
        Ok(())
    }

    pub(super) fn url_in(&self, slot: usize) -> Option<String> {
        self.destinations.get(slot)?.url().map(str::to_owned)
    }

    pub(super) fn write_once(&mut self, path: &Path, text: &str) -> Result<(), DiskError> {
        if self.volume.stat(path).is_ok() { Ok(()) } else { self.write_note(path, text) }
    }

    /// Replaces a small file atomically.
    fn write_note(&mut self, path: &Path, text: &str) -> Result<(), DiskError> {
        let fresh = self.volume.folder(Home::New).join(URL_FILE);
        self.volume.unlink(&fresh)?;
        let mut file = self.volume.create(&fresh)?;
        let written = self.volume.write(&mut file, &fresh, text.as_bytes(), 0);
        let written = written.and_then(|()| self.volume.sync(&mut file, &fresh));
        let written = written.and_then(|()| self.volume.rename(&fresh, path));
        written.inspect_err(|_| drop(self.volume.unlink(&fresh)))
    }

    /// The URL in a destination's folder; none if the folder does not tell.
    ///
    /// # Errors
    /// As [`Spool::read_note`].
    pub(super) fn read_url(&self, folder: &Path) -> Result<Option<String>, DiskError> {
        let url = self.read_note(&folder.join(URL_FILE))?;
        Ok(url.map(|url| url.trim_end().to_owned()).filter(|url| !url.is_empty()))
    }

    /// The content of a small file. None if there is none, or if it is damaged.
    ///
    /// # Errors
    /// If it cannot be read, so that nothing is known.
    pub(super) fn read_note(&self, path: &Path) -> Result<Option<String>, DiskError> {
        Ok(self.volume.read_small(path, MOST_OF_NOTE)?.and_then(|text| String::from_utf8(text).ok()))
    }

    /// Moves some events of removed destinations to their heirs, or some events of a former folder here. None if there is nothing
    /// to move now. Leased events stay until their lease ends.
    ///
    /// # Errors
    /// The operation that failed. Nothing is lost: events that were not moved stay where they are, and the call can be repeated.
    pub fn settle(&mut self) -> Result<Option<Moved>, DiskError> {
        self.available()?;
        if let Some(moved) = self.move_some()? {
            return Ok(Some(moved));
        }
        let found = self.find_heirs();
        self.note_removals()?;
        let removed = self.destinations.iter().filter(|(_, one)| one.heirs().is_some()).map(|(slot, _)| slot);
        for slot in removed.collect::<Vec<_>>() {
            if let Some(to_heirs) = self.settle_page(slot)? {
                return Ok(Some(Moved { to_heirs, ..Moved::default() }));
            }
        }
        found.map(|()| None)
    }

    /// Moves a page of one removed destination. Deletes its folder after the last event.
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
        // Without hard links each heir gets a copy: one event at a time, and only if there is room or no heir has an event.
        let has_links = self.volume.has_links();
        let page: Vec<u64> = page.take(if has_links { PAGE } else { 1 }).collect();
        if mask == 0 || page.is_empty() {
            return Ok(None);
        }
        // Names that could not be deleted before are deleted first.
        let (over, page): (Vec<u64>, Vec<u64>) =
            page.into_iter().partition(|counter| self.events.why_hidden(*counter, slot) == Some(Hidden::Done));
        over.into_iter().try_for_each(|counter| self.unlink(counter, slot).map(drop))?;
        self.make_folders(mask)?;
        let has_some = slots(mask).any(|heir| !self.events.is_empty_in(heir));
        if let Some(entry) =
            page.first().and_then(|counter| self.events.get(*counter)).filter(|_| !has_links && has_some)
        {
            let copies = u64::from((mask & !entry.mask).count_ones());
            self.make_room(copies * u64::from(entry.blocks), copies, None).map_err(|reason| self.no_room(reason))?;
        }
        self.hand_over(slot, &page, mask)?;
        Ok(Some(page.len() as u64))
    }

    /// Gives events of a folder names in the folders of all heirs. Makes them durable there, then deletes them here.
    fn hand_over(&mut self, slot: usize, counters: &[u64], mask: Mask) -> Result<(), DiskError> {
        for (counter, heir) in counters.iter().flat_map(|counter| slots(mask).map(move |heir| (*counter, heir))) {
            self.unlink_if_done(counter, heir)?;
        }
        let mut made = Vec::new();
        if let Err(fault) = self.link_to_heirs(slot, counters, mask, &mut made) {
            // The next call would take these names for durable.
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

    /// Deletes an empty folder of a destination. A failure does no harm.
    pub(super) fn remove_folder(&self, home: Home) {
        let folder = self.volume.folder(home);
        let notes = [HEIRS_FILE, URL_FILE].into_iter().try_for_each(|note| self.volume.unlink(&folder.join(note)));
        drop(notes.and_then(|()| self.volume.remove_folder(&folder)));
    }
}
