//! The destinations that the spool knows, each in a slot: those of the config, and removed ones that still have events. It also
//! counts what became of their events.

use super::file::{Address, Destination};
use super::index::{Mask, SLOTS, slots};
use super::status::Tally;
use crate::config::Report;

/// Begins [`HEIRS_FILE`](super::file::HEIRS_FILE).
const HEIRS: &str = "the heirs of this destination's events:\n";
/// Begins its lines that name who inherits none of them.
const PEER: &str = "not ";

/// See the module.
#[derive(Debug)]
pub struct Destinations {
    slots: [Option<DestinationEntry>; SLOTS],
    /// Destinations that were added since the process before: they had no folder at the start, or came by a reload while the heirs
    /// of some destination were unknown.
    added: Vec<Destination>,
    /// For all destinations, including removed ones.
    tally: Tally,
}

/// A note that could not be read so often counts as none. The uplink tries twice a minute.
const UNREAD: u8 = 20;

/// A destination's place.
#[derive(Debug)]
pub struct DestinationEntry {
    destination: Destination,
    /// Its name in an earlier release: it gets the events under that name.
    former: Option<Destination>,
    /// None if its folder was found and the `url` in it cannot be read.
    url: Option<String>,
    /// Whether it is in the config.
    configured: bool,
    /// The destinations that get its events, if it was removed from the config. None of them: it is parked.
    heirs: Option<Vec<Destination>>,
    /// If it has no heirs: the destinations that were configured when it was removed. They were sent the same events, and
    /// inherit none.
    peers: Vec<Destination>,
    /// Whether its folder says all this.
    noted: bool,
    /// Whether its folder exists and is durable.
    made: bool,
    /// Whether its folder tells its report, or need not.
    told: bool,
    /// How often the note in its folder could not be read.
    unread: u8,
    tally: Tally,
}

impl Default for Destinations {
    fn default() -> Destinations {
        Destinations { slots: [const { None }; SLOTS], added: Vec::new(), tally: Tally::default() }
    }
}

/// Slots.
impl Destinations {
    /// The slot of a destination.
    pub fn slot(&self, destination: Destination) -> Option<usize> {
        self.slots.iter().position(|entry| entry.as_ref().is_some_and(|entry| entry.destination == destination))
    }

    /// The destination in a slot that is taken.
    ///
    /// # Panics
    /// If it is free.
    pub fn at(&self, slot: usize) -> Destination {
        self.slots[slot].as_ref().expect("an event's slot is taken").destination
    }

    /// What is in a slot.
    pub fn get(&self, slot: usize) -> Option<&DestinationEntry> {
        self.slots[slot].as_ref()
    }

    /// All destinations, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &DestinationEntry)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    /// The slot of a destination. A new one gets a free slot, or the slot of a removed destination that `is_deserted`. None if
    /// there is no such slot.
    pub fn lodge(
        &mut self,
        destination: Destination,
        url: Option<String>,
        is_deserted: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if let Some(slot) = self.slot(destination) {
            return Some(slot);
        }
        let is_left =
            |slot: &usize| self.slots[*slot].as_ref().is_some_and(|entry| !entry.configured) && is_deserted(*slot);
        let slot = self.slots.iter().position(Option::is_none).or_else(|| (0..SLOTS).find(is_left))?;
        self.slots[slot] = Some(DestinationEntry::new(destination, url));
        Some(slot)
    }

    /// Frees a slot.
    pub fn vacate(&mut self, slot: usize) {
        self.slots[slot] = None;
    }
}

/// The config, and heirs.
impl Destinations {
    /// Removes the destinations that are not in `addresses`. Their heirs are the new ones of the same report.
    pub fn keep_only(&mut self, addresses: &[Address]) {
        let is_wanted = |one: &Destination| addresses.iter().any(|address| address.destination == *one);
        let old: Vec<_> = self.configured().map(|one| one.destination).collect();
        let new: Vec<(Destination, Report)> = addresses.iter().map(|one| (one.destination, one.report())).collect();
        let added_to = |report: Option<Report>| {
            let new = new.iter().filter(move |(_, its)| Some(*its) == report).map(|(one, _)| *one);
            new.filter(|one| !old.contains(one))
        };
        for entry in self.slots.iter_mut().flatten().filter(|entry| !is_wanted(&entry.destination)) {
            let report = entry.report();
            if !entry.configured && entry.heirs.is_none() {
                continue; // the note in its folder will tell, when it can be read
            }
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
        if !self.without_heirs().is_empty() {
            self.added.extend(new.iter().map(|(one, _)| *one).filter(|one| !old.contains(one)));
        }
    }

    /// Marks the destination in a slot as configured. Returns whether it was a removed one.
    pub fn configure(&mut self, slot: usize, former: Option<Destination>) -> bool {
        let Some(entry) = &mut self.slots[slot] else { return false };
        entry.peers.clear();
        let was_removed = entry.heirs.take().is_some() || !entry.configured && entry.made;
        (entry.configured, entry.former) = (true, former);
        was_removed
    }

    /// Sets the heirs of the destination in a slot, unless it is configured or has heirs already.
    pub fn bequeath(&mut self, slot: usize, heirs: &[Destination]) {
        if let Some(entry) = self.slots[slot].as_mut().filter(|entry| !entry.configured && entry.heirs.is_none()) {
            entry.heirs = Some(heirs.to_vec());
        }
    }

    /// Those that are not configured and whose heirs are not known yet.
    pub fn without_heirs(&self) -> Vec<(usize, Destination)> {
        let found = self.iter().filter(|(_, entry)| !entry.configured && entry.heirs.is_none());
        found.map(|(slot, entry)| (slot, entry.destination)).collect()
    }

    /// Sets the URL of the destination in a slot, if one was found.
    pub fn set_url(&mut self, slot: usize, url: Option<String>) {
        if let (Some(entry), Some(url)) = (&mut self.slots[slot], url) {
            entry.url = Some(url);
        }
    }

    /// Sets the configured destinations that were added since the process before. `is_more`: the earlier ones count, too, because
    /// the heirs of some destination are still unknown.
    pub fn set_added(&mut self, added: &[Destination], is_more: bool) {
        if !is_more {
            self.added.clear();
        }
        self.added.extend(added);
    }

    /// The note in a slot's folder could not be read. Returns whether to go on without it.
    pub fn could_not_read(&mut self, slot: usize) -> bool {
        let Some(entry) = &mut self.slots[slot] else { return false };
        entry.unread = entry.unread.saturating_add(1);
        entry.unread >= UNREAD
    }

    /// Finds the heirs of the destination in a slot: those that the note in its folder names, or else those that were added since
    /// the process before.
    pub fn find_heirs(&mut self, slot: usize, note: Option<&str>) {
        let Some(entry) = self.get(slot) else { return };
        let added: Vec<_> = self.added.iter().copied().filter(|one| self.configured_as(*one).is_some()).collect();
        let (heirs, peers) = match note.and_then(|text| text.strip_prefix(HEIRS)) {
            Some(names) => named_in(names),
            None => {
                (Vec::new(), self.configured().map(|one| one.destination).filter(|one| !added.contains(one)).collect())
            }
        };
        let itself = self.configured_as(entry.destination).map(|one| vec![one]);
        let heirs = heirs.into_iter().filter_map(|heir| self.configured_as(heir));
        let mut heirs: Vec<_> = itself.unwrap_or_else(|| heirs.collect());
        if heirs.is_empty() {
            let known = |one: Destination| self.iter().find(|(_, entry)| entry.destination == one);
            let same = |one: &&Destination| known(**one).is_some_and(|(_, other)| other.report() == entry.report());
            heirs.extend(added.iter().filter(|one| !peers.contains(one)).filter(same));
        }
        if let Some(entry) = &mut self.slots[slot] {
            (entry.heirs, entry.peers) = (Some(heirs), peers);
            entry.noted = note == Some(&entry.note());
        }
    }

    /// The configured destination with this name, or with this name in an earlier release.
    pub fn configured_as(&self, name: Destination) -> Option<Destination> {
        let found = self.configured().find(|one| one.destination == name);
        found.or_else(|| self.configured().find(|one| one.former == Some(name))).map(|one| one.destination)
    }

    fn configured(&self) -> impl Iterator<Item = &DestinationEntry> {
        self.slots.iter().flatten().filter(|one| one.configured)
    }
}

/// Folders.
impl Destinations {
    /// Forgets which folders exist.
    pub fn forget_folders(&mut self) {
        self.slots.iter_mut().flatten().for_each(|entry| (entry.made, entry.told) = (false, false));
    }

    /// Marks the folder of a slot as existing and durable; `is_told`: it has the URL. Without it a folder tells the realtime
    /// report.
    pub fn has_folder(&mut self, slot: usize, is_told: bool) {
        if let Some(entry) = &mut self.slots[slot] {
            (entry.made, entry.told) = (true, is_told || entry.report() != Some(Report::History));
        }
    }

    /// The slots among these whose folders do not exist yet, or do not tell their report.
    pub fn without_folder(&self, mask: Mask) -> Vec<usize> {
        slots(mask).filter(|slot| self.get(*slot).is_some_and(|entry| !entry.made || !entry.told)).collect()
    }

    /// The slots whose folders exist.
    pub fn made(&self) -> Mask {
        self.iter().filter(|(_, entry)| entry.made).fold(0, |mask, (slot, _)| mask | 1 << slot)
    }

    /// The note that still has to be written into the folder of a removed destination.
    pub fn note_to_write(&self, slot: usize) -> Option<String> {
        self.get(slot).filter(|entry| entry.heirs.is_some() && entry.made && !entry.noted).map(DestinationEntry::note)
    }

    /// Marks the note as written.
    pub fn is_noted(&mut self, slot: usize) {
        self.slots[slot].iter_mut().for_each(|entry| entry.noted = true);
    }
}

/// Counts.
impl Destinations {
    /// Adds to a count, for the destination in a slot and for all.
    pub fn count_many(&mut self, slot: usize, times: u64, what: impl Fn(&mut Tally) -> &mut u64) {
        *what(&mut self.tally) += times;
        if let Some(entry) = &mut self.slots[slot] {
            *what(&mut entry.tally) += times;
        }
    }

    /// Counts an evicted dead letter. Its destination may be unknown by now.
    pub fn count_dead_evicted(&mut self) {
        self.tally.dead_evicted += 1;
    }

    /// The counts for all destinations.
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

impl DestinationEntry {
    fn new(destination: Destination, url: Option<String>) -> DestinationEntry {
        DestinationEntry {
            destination,
            former: None,
            url,
            configured: false,
            heirs: None,
            peers: Vec::new(),
            noted: false,
            made: false,
            told: false,
            unread: 0,
            tally: Tally::default(),
        }
    }

    /// The destination.
    pub fn destination(&self) -> Destination {
        self.destination
    }

    /// Its URL; none if its folder does not say.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Its name in an earlier release.
    pub fn former(&self) -> Option<Destination> {
        self.former
    }

    /// Whether it is in the config.
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// Whether its folder exists.
    pub fn has_folder(&self) -> bool {
        self.made
    }

    /// The destinations that get its events; none if it was not removed.
    pub fn heirs(&self) -> Option<&[Destination]> {
        self.heirs.as_deref()
    }

    /// Whether it was removed and has no heirs.
    pub fn has_no_heirs(&self) -> bool {
        self.heirs.as_ref().is_some_and(Vec::is_empty)
    }

    /// The same, or its heirs are not known yet.
    pub fn is_parked(&self) -> bool {
        !self.configured && self.heirs.as_ref().is_none_or(Vec::is_empty)
    }

    /// What became of its events.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The report that its destination gets; none if its URL is unknown.
    fn report(&self) -> Option<Report> {
        self.url.as_deref().map(Report::of_shown)
    }

    /// The content of the file with its heirs.
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
