//! The content of the destinations' folders, in memory: 16 bytes for each event.
//!
//! The index is a copy of the folders' listing. It is made at the start and kept up to date, so the oldest event of a destination
//! is found without reading a folder. Listing 100,000 names again and again would cost the disk more than the index costs memory
//! (1.6 MB, at most twice that while the queue grows). Numbers only grow, so a queue sorted by number is enough: an event is
//! added at the back, and mostly removed at the front. An event that is removed elsewhere stays as an empty entry, until half of
//! the queue is empty entries.
//!
//! The events of one file ([`group`](super::group)) have consecutive numbers. The file's room is free when the last of them is
//! removed; until then all of it counts. A dead letter that waits again has a file of its own, though its number lies between
//! those of a group.

use std::collections::VecDeque;

/// How many folders the index can tell apart.
pub const SLOTS: usize = 32;

/// A set of destinations, by the numbers of their slots.
pub type Mask = u32;

/// The size of a block, in bytes. Everything is counted in blocks, because a small file takes a whole one.
pub const BLOCK: u64 = 4096;

/// The blocks of a file of `bytes` bytes.
pub fn blocks(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX)
}

/// The slots in a mask.
pub fn slots(mask: Mask) -> impl Iterator<Item = usize> {
    (0..SLOTS).filter(move |slot| mask & 1 << slot != 0)
}

/// An event and the folders that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub counter: u64,
    /// Its file's size; of an event in a group, its part of the file.
    pub blocks: u32,
    /// The folders.
    pub mask: Mask,
}

impl Entry {
    /// How many folders it is in.
    pub fn names(&self) -> u64 {
        self.mask.count_ones().into()
    }
}

/// The events of one file.
#[derive(Debug)]
struct Group {
    /// The numbers of the first and the last event.
    first: u64,
    last: u64,
    /// How many events are still there.
    events: u64,
    /// The file's blocks.
    blocks: u64,
}

/// All events.
#[derive(Debug, Default)]
pub struct Index {
    /// Sorted by number. An entry with a mask of 0 is empty.
    entries: VecDeque<Entry>,
    /// How many entries are empty.
    empty: usize,
    blocks: u64,
    /// Files of several events, in the order of their numbers.
    groups: VecDeque<Group>,
    /// How many events share their file with an earlier one.
    shared: u64,
    /// Events with a file of their own whose number lay between those of a group when they were added; sorted.
    alone: Vec<u64>,
    /// How many names there are, and how many blocks they would take if each were a file.
    names: u64,
    name_blocks: u64,
}

impl Index {
    /// Sorts names by number, and merges those with the same number into one entry.
    pub fn merge(mut links: Vec<Entry>) -> Vec<Entry> {
        links.sort_unstable_by_key(|entry| entry.counter);
        links.dedup_by(|next, kept| {
            let same = next.counter == kept.counter;
            if same {
                kept.mask |= next.mask;
            }
            same
        });
        links
    }

    /// The index of merged entries.
    pub fn of(mut entries: Vec<Entry>) -> Index {
        entries.shrink_to_fit();
        let blocks = entries.iter().map(|entry| u64::from(entry.blocks)).sum();
        let names = entries.iter().map(|entry| entry.names()).sum();
        let name_blocks = entries.iter().map(|entry| entry.names() * u64::from(entry.blocks)).sum();
        Index { entries: entries.into(), blocks, names, name_blocks, ..Index::default() }
    }

    /// Records that the events with the numbers from `first` to `last`, as far as `is_member`, are in one file of `blocks` blocks.
    /// Must be called in the order of numbers.
    pub fn join(&mut self, first: u64, last: u64, blocks: u32, is_member: impl Fn(u64) -> bool) {
        let from = self.entries.partition_point(|entry| entry.counter < first);
        let (mut events, mut counted, mut others) = (0, 0, Vec::new());
        for entry in (from..self.entries.len()).map(|place| self.entries[place]) {
            if entry.counter > last {
                break;
            }
            if entry.mask == 0 {
                continue;
            }
            if is_member(entry.counter) {
                (events, counted) = (events + 1, counted + u64::from(entry.blocks));
            } else {
                others.push(entry.counter);
            }
        }
        if events > 1 {
            let blocks = u64::from(blocks);
            self.shared += events - 1;
            self.alone.extend(others);
            self.blocks = self.blocks - counted + blocks;
            debug_assert!(self.groups.back().is_none_or(|before| before.last < first));
            self.groups.push_back(Group { first, last, events, blocks });
        }
    }

    /// The place of an event's group in `groups`.
    fn group_of(&self, counter: u64) -> Option<usize> {
        let place = self.groups.partition_point(|group| group.last < counter);
        self.groups.get(place).is_some_and(|group| group.first <= counter).then_some(place)
    }

    /// Whether an event has a file of its own although its number lay between those of a group.
    pub fn is_alone(&self, counter: u64) -> bool {
        self.alone.binary_search(&counter).is_ok()
    }

    /// Whether the file counts in which the event was, or is, together with others.
    pub fn counts_group_of(&self, counter: u64) -> bool {
        self.group_of(counter).is_some()
    }

    /// How many files there are.
    pub fn files(&self) -> u64 {
        self.len() as u64 - self.shared
    }

    /// Counts an event that was added.
    fn came(&mut self, counter: u64, blocks: u32) {
        self.blocks += u64::from(blocks);
        if self.group_of(counter).is_some() {
            let place = self.alone.partition_point(|one| *one < counter);
            self.alone.insert(place, counter);
        }
    }

    /// Counts an event that was removed.
    fn went(&mut self, counter: u64, blocks: u32) {
        let alone = self.alone.binary_search(&counter).map(|place| self.alone.remove(place));
        let Some(place) = self.group_of(counter).filter(|_| alone.is_err()) else {
            self.blocks -= u64::from(blocks);
            return;
        };
        let group = &mut self.groups[place];
        if group.events > 1 {
            group.events -= 1;
            self.shared -= 1;
        } else {
            self.blocks -= group.blocks;
            self.groups.remove(place);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.empty
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks that they take. Each counts once, however many folders it is in.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many names they have in all folders.
    pub fn names(&self) -> u64 {
        self.names
    }

    /// The blocks that they take if each name is a file.
    pub fn name_blocks(&self) -> u64 {
        self.name_blocks
    }

    /// The event with this counter.
    pub fn get(&self, counter: u64) -> Option<Entry> {
        let place = self.entries.binary_search_by_key(&counter, |entry| entry.counter).ok()?;
        Some(self.entries[place]).filter(|entry| entry.mask != 0)
    }

    /// The events in a folder, oldest first, after the number `after`.
    pub fn in_slot(&self, slot: usize, after: Option<u64>) -> impl Iterator<Item = Entry> {
        let from = after.map_or(0, |after| self.entries.partition_point(|entry| entry.counter <= after));
        self.entries.range(from..).copied().filter(move |entry| entry.mask & 1 << slot != 0)
    }

    /// All events, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().copied().filter(|entry| entry.mask != 0)
    }

    /// Adds an event to the folders of `entry`.
    pub fn add(&mut self, entry: Entry) {
        let place = match self.entries.back() {
            Some(last) if last.counter >= entry.counter => {
                self.entries.binary_search_by_key(&entry.counter, |entry| entry.counter)
            }
            _ => Err(self.entries.len()),
        };
        match place {
            Ok(place) => {
                if self.entries[place].mask == 0 {
                    (self.entries[place].blocks, self.empty) = (entry.blocks, self.empty - 1);
                    self.came(entry.counter, entry.blocks);
                }
                let known = &mut self.entries[place];
                let new = (entry.mask & !known.mask).count_ones();
                known.mask |= entry.mask;
                self.names += u64::from(new);
                self.name_blocks += u64::from(new) * u64::from(known.blocks);
            }
            Err(place) => {
                self.names += entry.names();
                self.name_blocks += entry.names() * u64::from(entry.blocks);
                self.entries.insert(place, entry);
                self.came(entry.counter, entry.blocks);
            }
        }
    }

    /// Removes an event from a folder. Returns whether it was there.
    pub fn remove(&mut self, counter: u64, slot: usize) -> bool {
        let Ok(place) = self.entries.binary_search_by_key(&counter, |entry| entry.counter) else {
            return false;
        };
        let entry = &mut self.entries[place];
        if entry.mask & 1 << slot == 0 {
            return false;
        }
        entry.mask &= !(1 << slot);
        self.names -= 1;
        self.name_blocks -= u64::from(entry.blocks);
        if entry.mask == 0 {
            let blocks = entry.blocks;
            self.went(counter, blocks);
            self.empty += 1;
            self.tidy();
        }
        true
    }

    fn tidy(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.mask == 0) {
            self.entries.pop_front();
            self.empty -= 1;
        }
        if self.empty > 64 && self.empty > self.entries.len() / 2 {
            self.entries.retain(|entry| entry.mask != 0);
            self.empty = 0;
        }
        if self.entries.capacity() > 4 * self.entries.len() + 64 {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_agrees_with_a_map_whatever_is_done_to_it() {
        let seed = fastrand::u64(..);
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut index, mut map) = (Index::default(), BTreeMap::<u64, (u32, Mask)>::new());
        for step in 0..6_000u64 {
            let growing = step % 2_000 < 1_000;
            let (slot, any) = (random.usize(..SLOTS), random.u64(..step + 1));
            if random.u8(..10) < if growing { 7 } else { 2 } {
                let counter = if random.u8(..20) == 0 { any } else { step };
                let blocks = map.get(&counter).map_or(random.u32(1..9), |known| known.0);
                index.add(Entry { counter, blocks, mask: 1 << slot });
                map.entry(counter).or_insert((blocks, 0)).1 |= 1 << slot;
            } else {
                let near =
                    if random.bool() { map.keys().next().copied() } else { map.range(any..).next().map(|e| *e.0) };
                let counter = near.unwrap_or(any);
                let slot = map.get(&counter).map_or(slot, |known| slots(known.1).last().unwrap_or(slot));
                let known = map.get_mut(&counter).filter(|known| known.1 & 1 << slot != 0);
                assert_eq!(index.remove(counter, slot), known.is_some());
                if let Some(known) = known {
                    known.1 &= !(1 << slot);
                }
                map.retain(|other, known| *other != counter || known.1 != 0);
            }
            assert_eq!((index.len(), index.is_empty()), (map.len(), map.is_empty()));
            assert_eq!(index.blocks(), map.values().map(|known| u64::from(known.0)).sum::<u64>());
            let names = |known: &(u32, Mask)| u64::from(known.1.count_ones());
            assert_eq!(index.names(), map.values().map(names).sum::<u64>());
            assert_eq!(index.name_blocks(), map.values().map(|known| names(known) * u64::from(known.0)).sum::<u64>());
            assert_eq!(index.iter().next().map(|entry| entry.counter), map.keys().next().copied());
            let after = random.bool().then_some(any);
            let next = index.in_slot(slot, after).next().map(|entry| entry.counter);
            let expected = map
                .iter()
                .find(|(counter, known)| known.1 & 1 << slot != 0 && after.is_none_or(|after| **counter > after));
            assert_eq!(next, expected.map(|(counter, _)| *counter));
            assert!(index.entries.capacity() <= 4 * index.entries.len() + 128);
        }
        assert!(index.iter().map(|entry| entry.counter).eq(map.keys().copied()));
    }

    #[test]
    fn an_event_with_a_file_of_its_own_counts_beside_the_group_that_it_left() {
        let mut index = Index::default();
        (10..13).for_each(|counter| index.add(Entry { counter, blocks: 2, mask: 1 }));
        index.join(10, 12, 5, |_| true);
        assert_eq!((index.blocks(), index.files()), (5, 1));
        index.remove(11, 0); // it is a dead letter now
        assert_eq!((index.blocks(), index.files()), (5, 1));
        index.add(Entry { counter: 11, blocks: 2, mask: 1 }); // and waits again
        assert_eq!((index.blocks(), index.files()), (7, 2));
        index.remove(10, 0);
        assert_eq!((index.blocks(), index.files()), (7, 2));
        index.remove(12, 0);
        assert_eq!((index.blocks(), index.files()), (2, 1), "the group's file is gone");
        index.remove(11, 0);
        assert_eq!((index.blocks(), index.files()), (0, 0));
        assert!(index.is_empty() && index.alone.is_empty() && index.groups.is_empty());
    }

    #[test]
    fn an_event_costs_16_bytes() {
        assert_eq!(size_of::<Entry>(), 16);
    }
}
