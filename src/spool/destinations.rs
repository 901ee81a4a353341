//! The destinations that the spool knows, each in a slot: those of the config, and removed ones that still have events. And what became
//! of their events.

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
    /// Of all together, removed ones too.
    tally: Tally,
}

/// A destination's place.
#[derive(Debug)]
pub struct DestinationEntry {
    destination: Destination,
    /// What an earlier release called it: whatever waits under that name is meant for it.
    former: Option<Destination>,
    /// None where a folder was found whose `url` cannot be read.
    url: Option<String>,
    /// It is in the config.
    configured: bool,
    /// It was removed from there: who gets what waits for it. Nobody: it is parked.
    heirs: Option<Vec<Destination>>,
    /// They were configured with it when it was removed: they had its events themselves, and inherit none.
    peers: Vec<Destination>,
    /// Its folder says all that.
    noted: bool,
    /// The folder is there and durable.
    made: bool,
    tally: Tally,
}

impl Default for Destinations {
    fn default() -> Destinations {
        Destinations { slots: [const { None }; SLOTS], tally: Tally::default() }
    }
}

/// Slots.
impl Destinations {
    /// Where a destination is kept.
    pub fn slot(&self, destination: Destination) -> Option<usize> {
        self.slots.iter().position(|entry| entry.as_ref().is_some_and(|entry| entry.destination == destination))
    }

    /// The destination in a slot that is taken.
    ///
    /// # Panics
    /// When it is free.
    pub fn at(&self, slot: usize) -> Destination {
        self.slots[slot].as_ref().expect("an event's slot is taken").destination
    }

    /// What is in a slot.
    pub fn get(&self, slot: usize) -> Option<&DestinationEntry> {
        self.slots[slot].as_ref()
    }

    /// All of them, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &DestinationEntry)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    /// The slot of a destination. A new one gets a free one, or that of a removed destination that `is_deserted`; none where there is no
    /// such slot.
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
    /// Of the destinations so far these stay. Those that are new inherit from the others of their report.
    pub fn keep_only(&mut self, addresses: &[Address]) {
        let is_wanted = |one: &Destination| addresses.iter().any(|address| address.destination == *one);
        let old: Vec<_> = self.configured().map(|one| one.destination).collect();
        let new: Vec<(Destination, Report)> = addresses.iter().map(|one| (one.destination, one.report())).collect();
        let added_to = |report: Report| {
            let new = new.iter().filter(move |(_, its)| *its == report).map(|(one, _)| *one);
            new.filter(|one| !old.contains(one))
        };
        for entry in self.slots.iter_mut().flatten().filter(|entry| !is_wanted(&entry.destination)) {
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
    }

    /// The destination in a slot is in the config from now on. Whether it was a removed one.
    pub fn configure(&mut self, slot: usize, former: Option<Destination>) -> bool {
        let Some(entry) = &mut self.slots[slot] else { return false };
        entry.peers.clear();
        (entry.configured, entry.former) = (true, former);
        entry.heirs.take().is_some()
    }

    /// The destination in a slot is a removed one with these heirs, where it is not in the config, nor has heirs yet.
    pub fn bequeath(&mut self, slot: usize, heirs: &[Destination]) {
        if let Some(entry) = self.slots[slot].as_mut().filter(|entry| !entry.configured && entry.heirs.is_none()) {
            entry.heirs = Some(heirs.to_vec());
        }
    }

    /// Those that are not in the config, and of which it is not known who inherits.
    pub fn without_heirs(&self) -> Vec<(usize, Destination)> {
        let found = self.iter().filter(|(_, entry)| !entry.configured && entry.heirs.is_none());
        found.map(|(slot, entry)| (slot, entry.destination)).collect()
    }

    /// Decides who gets what waits for the destination in a slot: those that the note in its folder names, else those that are `added`.
    pub fn find_heirs(&mut self, slot: usize, note: Option<&str>, added: &[Destination]) {
        let Some(entry) = self.get(slot) else { return };
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

    /// The destination in the config that has this name, or had it in an earlier release.
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
    /// Nothing is known of any folder.
    pub fn forget_folders(&mut self) {
        self.slots.iter_mut().flatten().for_each(|entry| entry.made = false);
    }

    /// The folder of a slot is there and durable.
    pub fn has_folder(&mut self, slot: usize) {
        self.slots[slot].iter_mut().for_each(|entry| entry.made = true);
    }

    /// Of these slots, those whose folders are not there yet.
    pub fn without_folder(&self, mask: Mask) -> Vec<usize> {
        slots(mask).filter(|slot| self.get(*slot).is_some_and(|entry| !entry.made)).collect()
    }

    /// The slots whose folders are there.
    pub fn made(&self) -> Mask {
        self.iter().filter(|(_, entry)| entry.made).fold(0, |mask, (slot, _)| mask | 1 << slot)
    }

    /// What the folder of a removed destination is to say and does not yet.
    pub fn note_to_write(&self, slot: usize) -> Option<String> {
        self.get(slot).filter(|entry| entry.heirs.is_some() && entry.made && !entry.noted).map(DestinationEntry::note)
    }

    /// The folder says it.
    pub fn is_noted(&mut self, slot: usize) {
        self.slots[slot].iter_mut().for_each(|entry| entry.noted = true);
    }
}

/// Counts.
impl Destinations {
    /// Counts something so many times, for the destination in a slot and in all.
    pub fn count_many(&mut self, slot: usize, times: u64, what: impl Fn(&mut Tally) -> &mut u64) {
        *what(&mut self.tally) += times;
        if let Some(entry) = &mut self.slots[slot] {
            *what(&mut entry.tally) += times;
        }
    }

    /// Counts a dead letter that was given up. Its destination may not be known any more.
    pub fn count_dead_evicted(&mut self) {
        self.tally.dead_evicted += 1;
    }

    /// Of all together.
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
            tally: Tally::default(),
        }
    }

    /// Whose place it is.
    pub fn destination(&self) -> Destination {
        self.destination
    }

    /// Its URL; none where its folder does not say.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// What an earlier release called it.
    pub fn former(&self) -> Option<Destination> {
        self.former
    }

    /// Whether it is in the config.
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// Whether its folder is there.
    pub fn has_folder(&self) -> bool {
        self.made
    }

    /// Who gets what waits for it; none where it was not removed.
    pub fn heirs(&self) -> Option<&[Destination]> {
        self.heirs.as_deref()
    }

    /// Whether it was removed and nobody inherits.
    pub fn is_parked(&self) -> bool {
        self.heirs.as_ref().is_some_and(Vec::is_empty)
    }

    /// What became of its events.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Which events its destination gets; those of the realtime report, where its URL cannot be read.
    fn report(&self) -> Report {
        self.url.as_deref().map_or(Report::RealTime, Report::of_shown)
    }

    /// What the file with its heirs says of it.
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
