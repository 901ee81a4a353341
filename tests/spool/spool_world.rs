//! Random use of a spool on a model disk, with a ledger of what was promised.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sophon_uplink::config;
use sophon_uplink::event::{Event, EventId};
use sophon_uplink::picture::PictureSource;
use sophon_uplink::ring::Words;
use sophon_uplink::ring::consumer::{self, Frame};
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::mapping::Mapping;
use sophon_uplink::ring::producer::{NewEvent, Producer};
use sophon_uplink::spool::batch::Order;
use sophon_uplink::spool::disk::Mapped as _;
use sophon_uplink::spool::file::HEADER;
use sophon_uplink::spool::group::{GROUP, Part};
use sophon_uplink::spool::key::SALT;
use sophon_uplink::spool::{Address, Bounds, DeadLetterReason, Destination, Evicted, Recovered, Spool, State, Stored};

use crate::common::make_key;
use crate::model_disk::{Bytes, ModelDisk, State as DiskState};

pub const BLOCK: u64 = 4096;
/// Inodes that the spool leaves to others.
const MIN_FREE_FILES: u64 = 128;
pub const BOUNDS: Bounds = Bounds { max_bytes: 24 * BLOCK, max_files: 16, min_free_bytes: 0 };
const URLS: [&str; 4] = ["http://a/", "http://b/", "http://c/", "http://d/"];

pub fn root() -> PathBuf {
    PathBuf::from("/data/spool")
}

pub fn config(key_file: Option<PathBuf>) -> config::Spool {
    let Bounds { max_bytes, min_free_bytes, .. } = BOUNDS;
    config::Spool { dir: root(), max_bytes, min_free_bytes, group: Duration::ZERO, key_file }
}

/// A ring's memory with records of many sizes in it.
pub struct Records {
    pub memory: Arc<Mapping>,
    pub frames: Vec<Frame>,
    folder: tempfile::TempDir,
}

impl Records {
    pub fn new(sizes: &[usize]) -> Records {
        let memory = Arc::new(Mapping::on_heap(1 << 18));
        let mut producer = Producer::attach(Arc::clone(&memory));
        for (number, size) in sizes.iter().enumerate() {
            let mut picture = vec![0; *size];
            fastrand::Rng::with_seed(number as u64).fill(&mut picture); // no two parts are the same
            let event = NewEvent { identity_id: b"17", reg_pic: &picture, device_type: -1, ..NewEvent::default() };
            producer.publish(&event).unwrap();
        }
        let (mut reader, _, _) = consumer::attach(Arc::clone(&memory));
        let frames = std::iter::from_fn(|| reader.read().unwrap()).collect();
        let folder = tempfile::tempdir().unwrap();
        make_key(&folder.path().join("key"));
        Records { memory, frames, folder }
    }

    /// A key's file.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// Whether an event read from a spool is the one that was stored.
    pub fn assert_same(&self, id: EventId, spooled: &(impl Words + PictureSource), frame: &Frame) {
        let original = self.frames.iter().find(|frame| frame.header.sequence == id.sequence).expect("a known number");
        assert_eq!(frame.header, original.header);
        let ours = Event::from_record(spooled, frame, id.ring).unwrap();
        let theirs = Event::from_record(&self.memory, original, id.ring).unwrap();
        assert_eq!((ours.id, &ours.identity_id), (id, &theirs.identity_id));
        let (mut one, mut other) = (Vec::new(), Vec::new());
        spooled.lend(ours.reg_pic, &mut |bytes| one = bytes.to_vec()).unwrap();
        self.memory.lend(theirs.reg_pic, &mut |bytes| other = bytes.to_vec()).unwrap();
        assert!(one == other, "{id} has another picture");
    }
}

/// Where an event may lie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    To(Destination),
    Dead(Destination),
}

/// What must be there: an event in a place, or instead in all places of one of the alternatives.
pub type Promises = BTreeMap<(u64, Place), Vec<Vec<Place>>>;

/// What is where, in the order in which the spool says it.
pub fn view(spool: &Spool<ModelDisk>) -> BTreeMap<Place, Vec<u64>> {
    let mut view = BTreeMap::<Place, Vec<u64>>::new();
    for status in spool.status().destinations {
        let listed = spool.list(status.destination, None).map(|waiting| waiting.counter).collect();
        view.insert(Place::To(status.destination), listed);
    }
    for (destination, letter) in spool.dead_letters() {
        view.entry(Place::Dead(destination)).or_default().push(letter.counter);
    }
    view.retain(|_, counters| !counters.is_empty());
    view
}

pub fn is_there(view: &BTreeMap<Place, Vec<u64>>, counter: u64, place: Place) -> bool {
    view.get(&place).is_some_and(|counters| counters.contains(&counter))
}

/// A destination that was taken out of the config.
#[derive(Clone)]
pub struct Removal {
    removed: Destination,
    /// With none it is parked.
    heirs: Vec<Destination>,
    /// They had its events themselves, and inherit none.
    peers: Vec<Destination>,
    /// Its folder says who the heirs are.
    noted: bool,
}

/// Why an event with this number is a dead letter.
pub fn why(number: u64) -> DeadLetterReason {
    let status = Some(400 + (number % 100) as u16);
    DeadLetterReason { status, reason: format!("{number} was refused"), tries: number as u32, at: number << 20 }
}

pub fn addresses(urls: &[String]) -> Vec<Address> {
    urls.iter().map(|url| Address::from(url.as_str())).collect()
}

pub struct World<'a> {
    pub records: &'a Records,
    pub disk: ModelDisk,
    pub spool: Spool<ModelDisk>,
    pub promises: Promises,
    /// Every event that a store was tried for.
    pub tried: HashSet<EventId>,
    /// What each counter stands for, as far as we were told.
    pub counters: BTreeMap<u64, EventId>,
    pub urls: Vec<String>,
    /// Whether events are sealed when they are stored.
    sealing: bool,
    /// From the next start of this history on.
    seals_later: bool,
    /// Of every file that was sealed.
    salts: HashSet<Vec<u8>>,
    /// What waits for them may not all have moved yet, or is parked.
    removals: Vec<Removal>,
    /// A call of the disk may fail, or the power went while a reason was written: the reason of a dead letter may be lost, and a file
    /// may not be deletable for a while.
    pub disk_may_fail: bool,
    random: fastrand::Rng,
    rings: u8,
    /// Dead letters given up, when last looked at.
    dead_evicted: u64,
    /// A start could not make durable what it found: names that were taken away may come back, and their numbers be given anew.
    numbers_may_return: bool,
}

impl<'a> World<'a> {
    /// A third of all histories is sealed, and another third is from some start on.
    pub fn new(records: &'a Records, seed: u64, failure: Option<crate::model_disk::Failure>) -> World<'a> {
        let (disk, disk_may_fail) = (ModelDisk::new(seed), failure.is_some());
        disk.limit(!seed.is_multiple_of(5), if seed % 4 == 3 { MIN_FREE_FILES + 9 } else { u64::MAX });
        disk.fail(failure);
        let urls: Vec<String> = URLS[..2].iter().map(|url| (*url).to_owned()).collect();
        let sealing = seed % 3 == 1;
        let (mut spool, _) = Spool::open(disk.clone(), &config(sealing.then(|| records.key_file())), &addresses(&urls));
        spool.set_bounds(BOUNDS);
        World {
            records,
            disk,
            spool,
            promises: Promises::new(),
            tried: HashSet::new(),
            counters: BTreeMap::new(),
            urls,
            sealing,
            seals_later: seed % 3 == 2,
            salts: HashSet::new(),
            removals: Vec::new(),
            disk_may_fail,
            random: fastrand::Rng::with_seed(seed ^ 1),
            rings: 0,
            dead_evicted: 0,
            numbers_may_return: false,
        }
    }

    /// The same history with another disk under it, opened anew.
    pub fn elsewhere(&self, disk: DiskState, promises: Promises, seed: u64) -> (World<'a>, Recovered) {
        let disk = ModelDisk::of(disk);
        let (spool, recovered) = Spool::open(disk.clone(), &self.config(), &addresses(&self.urls));
        let mut world = World {
            records: self.records,
            disk,
            spool,
            promises,
            tried: self.tried.clone(),
            counters: self.counters.clone(),
            urls: self.urls.clone(),
            sealing: self.sealing,
            seals_later: self.seals_later,
            salts: self.salts.clone(),
            removals: Vec::new(),
            disk_may_fail: self.disk_may_fail,
            random: fastrand::Rng::with_seed(seed),
            rings: self.rings,
            dead_evicted: 0,
            numbers_may_return: false,
        };
        world.spool.set_bounds(BOUNDS);
        world.settle();
        (world, recovered)
    }

    /// Opens the spool anew: what was not durable is still there (the process died, not the machine).
    pub fn restart(&mut self) -> Recovered {
        self.sealing |= self.seals_later;
        let (spool, recovered) = Spool::open(self.disk.clone(), &self.config(), &addresses(&self.urls));
        self.spool = spool;
        self.spool.set_bounds(BOUNDS);
        self.note(&recovered);
        self.settle();
        recovered
    }

    fn config(&self) -> config::Spool {
        config(self.sealing.then(|| self.records.key_file()))
    }

    fn note(&mut self, recovered: &Recovered) {
        self.numbers_may_return |= recovered.unavailable.as_ref().is_some_and(|fault| fault.operation == "sync");
    }

    /// Tries an unavailable spool once more.
    pub fn open_again(&mut self) -> Recovered {
        let recovered = self.spool.open_again();
        self.note(&recovered);
        self.settle();
        recovered
    }

    /// The power goes, and a new process opens the spool.
    pub fn power_cut(&mut self) -> Recovered {
        let mut random = self.random.fork();
        let after = self.disk.state().cut(&mut random);
        self.disk.replace(after);
        let recovered = self.restart();
        // Of a destination that was removed some names may be back: they go their way now, not in the middle of a later step.
        while let Ok(Some(_)) = self.spool.settle() {}
        self.forget_dead_letters();
        recovered
    }

    /// A start said what is there.
    fn settle(&mut self) {
        if matches!(self.spool.state(), State::Unavailable(_)) {
            return;
        }
        let view = view(&self.spool);
        // What is gone for good may give its number to another one.
        self.counters.retain(|counter, _| view.values().any(|counters| counters.contains(counter)));
        self.dead_evicted = self.spool.status().tally.dead_evicted;
        self.resolve();
    }

    /// Where alternatives came true, they are what is promised from now on.
    fn resolve(&mut self) {
        let state = self.disk.state();
        let is_there = |counter: u64, place: &Place| {
            let (kind, destination) = match place {
                Place::To(destination) => ("to", destination),
                Place::Dead(destination) => ("dead", destination),
            };
            state.has(&root().join(format!("{kind}/{destination}/{counter:020}.event")))
        };
        for ((counter, place), alternatives) in std::mem::take(&mut self.promises) {
            let found = alternatives.iter().find(|places| places.iter().all(|place| is_there(counter, place)));
            match found {
                Some(places) if !is_there(counter, &place) => {
                    places.iter().for_each(|place| drop(self.promises.insert((counter, *place), Vec::new())));
                }
                _ => drop(self.promises.insert((counter, place), alternatives)),
            }
        }
    }

    /// Does something at random. What must be there at every moment of it is the result; what must be there afterwards is in
    /// `promises`.
    pub fn step(&mut self) -> Promises {
        let before = self.promises.clone();
        let waiting: Vec<_> =
            view(&self.spool).into_iter().flat_map(|(place, all)| all.into_iter().map(move |c| (c, place))).collect();
        let moved = match (self.random.u8(..16), self.random.choice(&waiting).copied()) {
            _ if matches!(self.spool.state(), State::Unavailable(_)) && self.random.bool() => {
                self.open_again();
                vec![]
            }
            (0..=6, _) | (_, None) => {
                let count = [1, 1, 2, 3, 5][self.random.usize(..5)];
                self.store_many(count);
                vec![]
            }
            (7..=9, Some((counter, Place::To(destination)))) => {
                let _ = self.spool.delivered(destination, counter);
                self.no_more(counter, Place::To(destination));
                vec![]
            }
            (10, Some((counter, Place::To(_)))) => {
                self.share(counter);
                vec![]
            }
            (11..=12, Some((counter, Place::To(destination)))) => self.bury(destination, counter),
            (_, Some((counter, Place::Dead(destination)))) => self.resend(destination, counter),
            // A limit: a link that could neither be made durable nor be taken away is taken for durable by the next process,
            // because its fsync of the folder succeeds. So the process does not die with one.
            (13, _) if self.spool.leftovers() == 0 && self.removals.iter().all(|removal| removal.noted) => {
                self.restart();
                vec![]
            }
            (14, _) => self.reassign(),
            _ => {
                self.read_all();
                vec![]
            }
        };
        self.forget_dead_letters();
        let during = before.into_iter().filter_map(|(key, mut alternatives)| {
            let moves = moved.iter().filter(|(from, _)| *from == key).map(|(_, to)| to.clone());
            alternatives.extend(moves);
            // What is there already is linked anew from where it comes from.
            let back = moved.iter().filter(|(from, to)| from.0 == key.0 && to.contains(&key.1));
            alternatives.extend(back.map(|(from, _)| vec![from.1]));
            let arrived = alternatives.iter().any(|to| to.iter().all(|to| self.promises.contains_key(&(key.0, *to))));
            (self.promises.contains_key(&key) || arrived).then_some((key, alternatives))
        });
        let during = during.collect();
        self.resolve();
        during
    }

    fn share(&mut self, counter: u64) {
        let others: Vec<_> = self.urls.iter().map(|url| Destination::of(url)).collect();
        let before = view(&self.spool);
        if self.spool.share(counter, &others).is_ok() {
            // Where it was already it may be left over from a store that failed, and not be durable.
            for other in others.into_iter().filter(|other| !is_there(&before, counter, Place::To(*other))) {
                self.promises.entry((counter, Place::To(other))).or_default();
            }
        }
    }

    pub fn store(&mut self) -> Option<u64> {
        self.store_many(1).pop().flatten()
    }

    /// Stores several events in one call.
    pub fn store_many(&mut self, count: usize) -> Vec<Option<u64>> {
        let records = self.records;
        let wanted: Vec<_> = (0..count).map(|_| self.wanted()).collect();
        let before = view(&self.spool);
        let source = &*records.memory;
        let orders: Vec<_> = wanted
            .iter()
            .map(|(ring, frame, to)| Order { ring: *ring, source, frame: &records.frames[*frame], to })
            .collect();
        let done = match &orders[..] {
            [one] => vec![self.spool.store(one.ring, one.source, one.frame, one.to)],
            several => self.spool.store_all(several),
        };
        let (mut stored, mut evicted, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for ((ring, frame, to), done) in wanted.into_iter().zip(done) {
            let (counter, gone) = match done {
                Ok(Stored { counter, evicted }) => {
                    let id = EventId { ring, sequence: records.frames[frame].header.sequence };
                    assert!(self.counters.insert(counter, id).is_none(), "{counter} stands for two events");
                    to.iter().for_each(|to| drop(self.promises.insert((counter, Place::To(*to)), Vec::new())));
                    self.check_form(to[0], counter);
                    new.extend(to.into_iter().map(|to| (counter, to)));
                    (Some(counter), evicted)
                }
                Err(error) => (None, error.evicted),
            };
            stored.push(counter);
            evicted.extend(gone);
        }
        self.check_listing(&before, &evicted, &new);
        self.gave_up(&evicted);
        stored
    }

    fn gave_up(&mut self, evicted: &[Evicted]) {
        for one in evicted {
            let place = if one.was_dead { Place::Dead } else { Place::To };
            one.destinations.iter().for_each(|to| self.no_more(one.counter, place(*to)));
        }
    }

    /// What was written is sealed or in clear, as it is to be, and no salt comes twice, whatever a power cut made us forget.
    fn check_form(&mut self, to: Destination, counter: u64) {
        let file = self.disk.state().read(&root().join(format!("to/{to}/{counter:020}.event")));
        let Some(file) = file.map(|file| event_in(file, counter)) else { return }; // given up for the next one of its batch
        assert_eq!(file[8], 1 + u8::from(self.sealing), "the file's version");
        if self.sealing {
            assert!(self.salts.insert(file[HEADER..HEADER + SALT].to_vec()), "a salt came twice");
        }
    }

    /// An event to store, of a ring of its own, and for whom.
    fn wanted(&mut self) -> (RingId, usize, Vec<Destination>) {
        let frame = self.random.usize(..self.records.frames.len());
        self.rings = self.rings.wrapping_add(1);
        let ring = RingId([self.rings; 16]);
        let mut to: Vec<_> = self.urls.iter().map(|url| Destination::of(url)).collect();
        if to.len() > 1 && self.random.bool() {
            to.truncate(self.random.usize(1..to.len()));
        }
        self.tried.insert(EventId { ring, sequence: self.records.frames[frame].header.sequence });
        (ring, frame, to)
    }

    /// The event is not needed there any more; what was moved there by a call that failed half-way may have been moved.
    fn no_more(&mut self, counter: u64, place: Place) {
        self.promises.retain(|key, alternatives| {
            *key != (counter, place) && (key.0 != counter || !alternatives.iter().flatten().any(|to| *to == place))
        });
    }

    /// What is listed after a store is what was listed before it, with what is new, and without the oldest that were given up.
    fn check_listing(&self, before: &BTreeMap<Place, Vec<u64>>, evicted: &[Evicted], new: &[(u64, Destination)]) {
        let mut expected = before.clone();
        new.iter().for_each(|(counter, to)| expected.entry(Place::To(*to)).or_default().push(*counter));
        expected.values_mut().for_each(|counters| counters.sort_unstable());
        let events = evicted.iter().filter(|one| !one.was_dead);
        for (gone, destination) in events.flat_map(|one| one.destinations.iter().map(|to| (one.counter, *to))) {
            let Some(listed) = expected.get_mut(&Place::To(destination)) else { continue };
            listed.retain(|other| *other != gone);
            let older = listed.iter().any(|other| *other < gone);
            // What cannot be deleted is left for later.
            assert!(!older || self.disk_may_fail, "{gone} was given up for an event, and an older one was not");
        }
        expected.retain(|place, counters| matches!(place, Place::To(_)) && !counters.is_empty());
        let mut found = view(&self.spool);
        found.retain(|place, _| matches!(place, Place::To(_)));
        assert_eq!(found, expected, "after a store that gave up {evicted:?}");
    }

    fn bury(&mut self, destination: Destination, counter: u64) -> Vec<((u64, Place), Vec<Place>)> {
        let (from, to) = ((counter, Place::To(destination)), Place::Dead(destination));
        let mut evicted = Vec::new();
        let buried = self.spool.to_dead(destination, counter, &why(counter), &mut evicted);
        self.gave_up(&evicted);
        if matches!(buried, Ok(false)) {
            self.no_more(from.0, from.1); // it was given up for the letter's own file
            return Vec::new();
        }
        self.moved(from, vec![to], buried.is_ok())
    }

    fn resend(&mut self, from: Destination, counter: u64) -> Vec<((u64, Place), Vec<Place>)> {
        let to = Destination::of(&self.urls[self.random.usize(..self.urls.len())]);
        let sent = self.spool.resend(from, counter, to);
        self.moved((counter, Place::Dead(from)), vec![Place::To(to)], sent.is_ok())
    }

    fn moved(&mut self, from: (u64, Place), to: Vec<Place>, done: bool) -> Vec<((u64, Place), Vec<Place>)> {
        if self.promises.contains_key(&from) {
            if done {
                self.promises.remove(&from);
                to.iter().for_each(|to| drop(self.promises.insert((from.0, *to), Vec::new())));
            } else if let Some(alternatives) = self.promises.get_mut(&from) {
                alternatives.push(to.clone());
            }
        } else {
            self.no_more(from.0, from.1); // it was there only because a call failed half-way
        }
        if !done {
            // What was at the other place already may be only here now: it is linked anew from here.
            for place in &to {
                if let Some(alternatives) = self.promises.get_mut(&(from.0, *place)) {
                    alternatives.push(vec![from.1]);
                }
            }
        }
        vec![(from, to)]
    }

    fn reassign(&mut self) -> Vec<((u64, Place), Vec<Place>)> {
        if self.removals.iter().all(|removal| removal.heirs.is_empty()) {
            self.remove();
        }
        self.settle_removals()
    }

    /// Moves what waits for removed destinations; what is parked stays where it is.
    fn settle_removals(&mut self) -> Vec<((u64, Place), Vec<Place>)> {
        let mut found = view(&self.spool);
        let mut keys = BTreeMap::<Destination, BTreeSet<u64>>::new();
        for Removal { removed, heirs, .. } in self.removals.iter().filter(|removal| !removal.heirs.is_empty()) {
            let concerned =
                |place: &Place| *place == Place::To(*removed) || heirs.iter().any(|heir| *place == Place::To(*heir));
            let promised = self.promises.keys().filter(|(_, place)| concerned(place)).map(|(counter, _)| *counter);
            let mut all: BTreeSet<u64> = promised.collect(); // some may not be listed, because they could not be moved
            all.extend(found.remove(&Place::To(*removed)).unwrap_or_default());
            keys.insert(*removed, all);
        }
        let done = loop {
            match self.spool.settle() {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let mut moved = Vec::new();
        for Removal { removed, heirs, .. } in self.removals.clone() {
            let places: Vec<_> = heirs.iter().map(|heir| Place::To(*heir)).collect();
            for counter in keys.remove(&removed).into_iter().flatten() {
                moved.extend(self.moved((counter, Place::To(removed)), places.clone(), done));
            }
        }
        if done {
            self.removals.retain(|removal| removal.heirs.is_empty());
            self.removals.iter_mut().for_each(|removal| removal.noted = true);
        }
        moved
    }

    /// Ends a removal that is pending, as the uplink does once the disk is well.
    pub fn end_removal(&mut self) {
        if !self.removals.is_empty() {
            self.settle_removals();
            self.forget_dead_letters();
            self.resolve();
        }
    }

    /// Takes a destination out of the config, and puts others in.
    fn remove(&mut self) {
        if self.urls.len() < 2 {
            return;
        }
        let old: Vec<_> = self.urls.iter().map(|url| Destination::of(url)).collect();
        let removed = self.urls.remove(self.random.usize(..self.urls.len()));
        let others: Vec<&str> =
            URLS.into_iter().filter(|url| *url != removed && !self.urls.iter().any(|old| old == url)).collect();
        let added: Vec<&str> = others.into_iter().take(self.random.usize(..3)).collect();
        self.urls.extend(added.iter().map(|url| (*url).to_owned()));
        let noted = self.spool.configure(&addresses(&self.urls)).is_empty();
        let heirs: Vec<_> = added.iter().map(|url| Destination::of(url)).collect();
        self.removals.retain(|parked| !heirs.contains(&parked.removed));
        for parked in &mut self.removals {
            parked.heirs = heirs.iter().copied().filter(|heir| !parked.peers.contains(heir)).collect();
            parked.noted &= noted;
        }
        let peers = if heirs.is_empty() { old } else { Vec::new() };
        self.removals.push(Removal { removed: Destination::of(&removed), heirs, peers, noted });
    }

    /// Dead letters are bounded, and may go when the spool says that some went; so may an event on its way there.
    fn forget_dead_letters(&mut self) {
        let dead_evicted = self.spool.status().tally.dead_evicted;
        if dead_evicted != self.dead_evicted {
            self.dead_evicted = dead_evicted;
            let view = view(&self.spool);
            self.promises.retain(|(counter, place), alternatives| {
                let may_go = matches!(place, Place::Dead(_))
                    || alternatives.iter().flatten().any(|place| matches!(place, Place::Dead(_)));
                !may_go || is_there(&view, *counter, *place)
            });
        }
    }

    /// Reads everything: whatever is there is whole, and is what it was.
    pub fn read_all(&mut self) {
        for (place, counters) in view(&self.spool) {
            let Place::To(destination) = place else { continue };
            for counter in counters {
                let Ok(event) = self.spool.read(destination, counter) else {
                    assert!(self.spool.status().tally.quarantined == 0, "{counter} is damaged");
                    continue;
                };
                assert!(self.tried.contains(&event.id), "nobody stored {}", event.id);
                let known = self.counters.get(&counter).filter(|_| !self.numbers_may_return);
                assert!(known.is_none_or(|id| *id == event.id), "{counter} is {} now", event.id);
                self.records.assert_same(event.id, &event, &event.frame);
            }
        }
    }

    pub fn assert_kept(&self, promises: &Promises) {
        let view = view(&self.spool);
        for letter in self.spool.letters(None, usize::MAX).1 {
            let must_be_known =
                !self.disk_may_fail && promises.contains_key(&(letter.number, Place::Dead(letter.destination)));
            match letter.reason {
                Some(reason) => assert_eq!(reason, why(letter.number), "why {} is a dead letter", letter.number),
                None => assert!(!must_be_known, "why {} is a dead letter is not known", letter.number),
            }
        }
        for ((counter, place), alternatives) in promises {
            let kept = is_there(&view, *counter, *place)
                || alternatives.iter().any(|places| places.iter().all(|place| is_there(&view, *counter, *place)));
            assert!(kept, "{counter} is not in {place:?} nor in any of {alternatives:?}, but {view:?}");
        }
    }

    /// Right after a store others can make files, as many as they are left, where no file had two entries in the books before it.
    pub fn assert_room_for_others(&self) {
        let (state, status) = (self.disk.state(), self.spool.status());
        if state.max_files < u64::MAX {
            let files = state.files_below(Path::new("/")).len() as u64;
            assert!(files + MIN_FREE_FILES <= state.max_files, "{files} of {}: {status:?}", state.max_files);
        }
    }

    /// Whether events share a file: each counts as one, and its blocks are a whole number.
    fn has_groups(&self) -> bool {
        let state = self.disk.state();
        let is_group = |place: &Place, counter: u64| {
            let Place::To(to) = place else { return false };
            let file = state.read(&root().join(format!("to/{to}/{counter:020}.event")));
            file.is_some_and(|file| file.len() > 8 && u32::from(file[8]) == GROUP)
        };
        view(&self.spool).iter().any(|(place, counters)| counters.iter().any(|counter| is_group(place, *counter)))
    }

    /// What the spool says of itself is what lies on the disk, and that is within the bounds.
    pub fn assert_counted(&self) {
        let (status, state) = (self.spool.status(), self.disk.state());
        let files = state.files_below(&root());
        let bytes: u64 = files.values().map(|size| size.next_multiple_of(BLOCK)).sum();
        let files_of_events = if state.has_links { status.events } else { status.files - status.dead - status.bad };
        assert_eq!(files_of_events + status.dead + status.bad, status.files);
        assert!(
            status.bytes >= bytes && status.files >= files.len() as u64,
            "{bytes} in {} files {files:?} {:?}, {status:?}",
            files.len(),
            view(&self.spool)
        );
        let kept: u64 = status.destinations.iter().map(|one| one.waiting + one.stuck).sum();
        assert_eq!(status.tally.remaining(), kept, "the counters balance: {status:?}");
        for one in &status.destinations {
            assert_eq!(one.tally.remaining(), one.waiting + one.stuck, "the counters balance: {one:?}");
        }
        if status.dead == 0 && !self.has_groups() {
            assert_eq!((status.bytes, status.files), (bytes, files.len() as u64), "{status:?}");
        }
    }
}

/// What a file has of the event with this number.
pub fn event_in(file: Vec<u8>, counter: u64) -> Vec<u8> {
    let part = Part::of(Bytes::of(file), counter).unwrap();
    let mut event = Vec::new();
    part.lend(0..part.size(), &mut |bytes| event.extend_from_slice(bytes)).unwrap();
    event
}

/// What lies on a disk is within the bounds.
pub fn assert_bounded(state: &DiskState) {
    let files = state.files_below(&root());
    if !state.has_links {
        return; // a copy lies beside what it is one of, for a while: the next event makes room
    }
    let bytes: u64 = files.values().map(|size| size.next_multiple_of(BLOCK)).sum();
    assert!(bytes <= BOUNDS.max_bytes && files.len() as u64 <= BOUNDS.max_files, "{bytes} in {} files", files.len());
}

pub fn is_new_empty(state: &DiskState) -> bool {
    state.files_below(&root().join(Path::new("new"))).is_empty()
}
