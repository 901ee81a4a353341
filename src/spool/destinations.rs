//! Destinations that come and go, and their folders.

use std::io;
use std::path::Path;

use super::disk::Disk;
use super::file::{Destination, URL_FILE};
use super::index::{Entry, Mask, SLOTS, slots};
use super::volume::{Fault, Home};
use super::{Hidden, Lodging, Spool};

/// Events moved at once when a destination goes: what lies between two fsyncs.
const PAGE: usize = 256;

/// What became of a removed destination's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reassigned {
    /// They wait for the added destinations now.
    pub moved: u64,
    /// They are dead letters now.
    pub dead: u64,
}

impl<D: Disk> Spool<D> {
    /// A destination is there from now on; nothing happens when it was already. Its folder is made with the next event stored.
    ///
    /// # Errors
    /// When there are too many destinations.
    pub fn add(&mut self, url: &str) -> Result<Destination, Fault> {
        let destination = self.add_removed(url)?;
        if let Some(lodging) = self.lodgings.iter_mut().flatten().find(|lodging| lodging.destination == destination) {
            lodging.configured = true;
        }
        Ok(destination)
    }

    /// A destination that is not in the config any more, or is: there may be dead letters to make of what still waits for it.
    ///
    /// # Errors
    /// When there are too many destinations.
    pub fn add_removed(&mut self, url: &str) -> Result<Destination, Fault> {
        let destination = Destination::of(url);
        self.lodge(destination, Some(url.to_owned())).map(|_slot| destination)
    }

    /// The slot of a destination, a free one for a new destination.
    pub(super) fn lodge(&mut self, destination: Destination, url: Option<String>) -> Result<usize, Fault> {
        if let Some(slot) = self.slot(destination) {
            return Ok(slot);
        }
        let is_deserted = |slot: &usize| {
            let is_removed = self.lodgings[*slot].as_ref().is_some_and(|lodging| !lodging.configured);
            is_removed && self.events.in_slot(*slot, None).next().is_none()
        };
        let free = self.lodgings.iter().position(Option::is_none).or_else(|| (0..SLOTS).find(is_deserted));
        let slot = free.ok_or_else(|| Fault {
            operation: "keep",
            path: self.volume.folder(Home::To(destination)),
            source: io::Error::other("there are too many destinations with spooled events"),
        })?;
        self.lodgings[slot] = Some(Lodging::new(destination, url));
        Ok(slot)
    }

    /// The slot of a destination that must be there.
    pub(super) fn known(&self, destination: Destination) -> Result<usize, Fault> {
        self.slot(destination).ok_or_else(|| self.is_not_configured(destination))
    }

    pub(super) fn is_not_configured(&self, destination: Destination) -> Fault {
        Fault {
            operation: "put events into",
            path: self.volume.folder(Home::To(destination)),
            source: io::Error::other("its destination is not in the config"),
        }
    }

    /// Makes the folders of all other destinations too, as far as that goes: a start tells by them which ones were configured when
    /// the last event was stored, and which are new and inherit.
    pub(super) fn make_all_folders(&mut self) {
        for slot in 0..self.lodgings.len() {
            let _an_event_will_tell = self.make_folders(1 << slot);
        }
    }

    /// Makes the folders that are not there yet.
    pub(super) fn make_folders(&mut self, mask: Mask) -> Result<(), Fault> {
        for slot in slots(mask) {
            let Some(lodging) = self.lodgings[slot].as_ref().filter(|lodging| !lodging.made) else {
                continue;
            };
            let folder = self.volume.folder(Home::To(lodging.destination));
            let url = lodging.url.clone();
            self.volume.make_folder(&folder)?;
            let told = url.map_or(Ok(()), |url| self.write_url(&folder.join(URL_FILE), &url));
            drop(told); // for people only: no reason to refuse an event
            if let Some(lodging) = &mut self.lodgings[slot] {
                lodging.made = true;
            }
        }
        Ok(())
    }

    pub(super) fn write_url(&mut self, path: &Path, url: &str) -> Result<(), Fault> {
        if self.volume.stat(path).is_ok() {
            return Ok(());
        }
        let fresh = self.volume.folder(Home::New).join(URL_FILE);
        let mut file = self.volume.create(&fresh)?;
        let written = self.volume.write(&mut file, &fresh, format!("{url}\n").as_bytes(), 0);
        let written = written.and_then(|()| self.volume.sync(&mut file, &fresh));
        let written = written.and_then(|()| self.volume.rename(&fresh, path));
        written.inspect_err(|_| drop(self.volume.unlink(&fresh)))
    }

    /// A destination was removed: what waits for it waits for each of `added` from now on; with none added it becomes dead
    /// letters. Then its folder goes.
    ///
    /// # Errors
    /// What failed. Nothing is lost: what was not moved still waits for the removed destination, and the call can be repeated.
    pub fn reassign(&mut self, removed: Destination, added: &[Destination]) -> Result<Reassigned, Fault> {
        self.available()?;
        let mut done = Reassigned::default();
        let Some(slot) = self.slot(removed) else {
            return Ok(done);
        };
        let mut mask: Mask = 0;
        for destination in added.iter().filter(|destination| **destination != removed) {
            mask |= 1 << self.known(*destination)?;
        }
        self.make_folders(mask)?;
        loop {
            let page: Vec<u64> = self.events.in_slot(slot, None).map(|entry| entry.counter).take(PAGE).collect();
            if page.is_empty() {
                break;
            }
            // What is done with is only in the way.
            let (over, page): (Vec<u64>, Vec<u64>) =
                page.into_iter().partition(|counter| self.hidden.get(&(*counter, slot)) == Some(&Hidden::Done));
            over.into_iter().try_for_each(|counter| self.unlink(counter, slot).map(drop))?;
            if mask == 0 {
                self.bury(slot, &page)?;
                done.dead += page.len() as u64;
            } else {
                self.hand_over(slot, &page, mask)?;
                done.moved += page.len() as u64;
            }
        }
        self.remove_folder(Home::To(removed));
        self.lodgings[slot] = None;
        Ok(done)
    }

    /// Gives events of a folder a name in the folders of all heirs: first they are durable there, then they are not here any more.
    fn hand_over(&mut self, slot: usize, counters: &[u64], mask: Mask) -> Result<(), Fault> {
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
    ) -> Result<(), Fault> {
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
        let removed = self.volume.unlink(&folder.join(URL_FILE)).and_then(|()| self.volume.remove_folder(&folder));
        drop(removed);
    }
}
