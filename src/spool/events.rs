//! The events in the destinations' folders: which are offered, which are hidden and why, and the next number.
//!
//! An event has a name in the folder of each destination that lacks it. A name that exists and is not offered is *hidden*.

use std::collections::{BTreeMap, VecDeque};

use super::index::{Entry, Index, slots};

/// Why an event is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// Delivered or evicted, but its name could not be deleted. The next store tries again.
    Done,
    /// It could not be read or moved, or is of another release. It is offered again after the next start.
    Stuck,
    /// It is sealed with another key than the one in use. It is offered again when the key changes.
    Locked,
    /// It is leased.
    Out,
}

/// See the module.
#[derive(Debug)]
pub struct Events {
    index: Index,
    /// By counter and slot.
    hidden: BTreeMap<(u64, usize), Hidden>,
    /// The next event's counter.
    next: u64,
}

impl Default for Events {
    fn default() -> Events {
        Events { index: Index::default(), hidden: BTreeMap::new(), next: 1 }
    }
}

/// Numbers.
impl Events {
    /// The next event's.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Reserves `count` consecutive numbers, and returns the first. None if not enough are left: the highest number is never
    /// used.
    pub fn take_numbers(&mut self, count: u64) -> Option<u64> {
        let first = self.next;
        self.next = first.checked_add(count)?;
        Some(first)
    }

    /// A file has this number: later events get higher ones.
    pub fn saw(&mut self, counter: Option<u64>) {
        self.next = self.next.max(counter.map_or(0, |counter| counter.saturating_add(1)));
    }
}

/// What is there.
impl Events {
    /// Replaces the index by a new listing. Stuck and locked events are offered again.
    pub fn recount(&mut self, index: Index) {
        self.index = index;
        let (index, is_for_good) = (&self.index, |why: &Hidden| matches!(why, Hidden::Done | Hidden::Out));
        self.hidden.retain(|(counter, slot), why| is_for_good(why) && is_in(index, *counter, *slot));
    }

    /// Removes all events, because they are in a former folder now. Calls `is_out` for each leased name. Names that are done are
    /// not in the masks.
    pub fn leave(&mut self, mut is_out: impl FnMut(u64, usize)) -> VecDeque<Entry> {
        let mut events: VecDeque<Entry> = std::mem::take(&mut self.index).iter().collect();
        for entry in &mut events {
            for slot in slots(entry.mask) {
                match self.hidden.remove(&(entry.counter, slot)) {
                    Some(Hidden::Done) => entry.mask &= !(1 << slot),
                    Some(Hidden::Out) => is_out(entry.counter, slot),
                    _ => {}
                }
            }
        }
        events
    }

    /// Adds an event's names in the folders of `entry`.
    pub fn add(&mut self, entry: Entry) {
        self.index.add(entry);
    }

    /// The events with these numbers are in one file of `blocks` blocks.
    pub fn join(&mut self, first: u64, last: u64, blocks: u32) {
        self.index.join(first, last, blocks, |_| true);
    }

    /// Removes an event's name in a folder. Returns why it was hidden, if it was.
    pub fn forget(&mut self, counter: u64, slot: usize) -> Option<Hidden> {
        self.index.remove(counter, slot);
        self.hidden.remove(&(counter, slot))
    }

    /// The event with this counter.
    pub fn get(&self, counter: u64) -> Option<Entry> {
        self.index.get(counter)
    }

    /// Whether an event has a name in a folder.
    pub fn is_in(&self, counter: u64, slot: usize) -> bool {
        is_in(&self.index, counter, slot)
    }

    /// Whether an event has a file of its own although its number lay between those of a group.
    pub fn is_alone(&self, counter: u64) -> bool {
        self.index.is_alone(counter)
    }

    /// Whether the file counts in which the event was, or is, together with others.
    pub fn counts_group_of(&self, counter: u64) -> bool {
        self.index.counts_group_of(counter)
    }

    /// The one at this place, from the oldest on.
    pub fn at(&self, place: usize) -> Option<Entry> {
        self.index.iter().nth(place)
    }

    /// All names in a folder, hidden ones too; the oldest first, from the first one after `after` on.
    pub fn in_slot(&self, slot: usize, after: Option<u64>) -> impl Iterator<Item = Entry> {
        self.index.in_slot(slot, after)
    }

    /// Whether a folder has no name.
    pub fn is_empty_in(&self, slot: usize) -> bool {
        self.in_slot(slot, None).next().is_none()
    }

    /// How many there are, each counted once.
    pub fn len(&self) -> u64 {
        self.index.len() as u64
    }

    /// The blocks that they take.
    pub fn blocks(&self, has_links: bool) -> u64 {
        if has_links { self.index.blocks() } else { self.index.name_blocks() }
    }

    /// How many there are. Without hard links each name counts.
    pub fn files(&self, has_links: bool) -> u64 {
        if has_links { self.len() } else { self.index.names() }
    }

    /// The same as the file system counts: events in one file count once.
    pub fn inodes(&self, has_links: bool) -> u64 {
        if has_links { self.index.files() } else { self.index.names() }
    }
}

/// What is offered.
impl Events {
    /// The names in a folder that are offered.
    pub fn offered(&self, slot: usize, after: Option<u64>) -> impl Iterator<Item = Entry> {
        self.in_slot(slot, after).filter(move |entry| self.why_hidden(entry.counter, slot).is_none())
    }

    /// Why a name is hidden; none if it is offered or does not exist.
    pub fn why_hidden(&self, counter: u64, slot: usize) -> Option<Hidden> {
        self.hidden.get(&(counter, slot)).copied()
    }

    /// Hides a name. Does nothing if it does not exist: an event can be evicted in the same call that fails for it afterwards.
    pub fn hide(&mut self, counter: u64, slot: usize, why: Hidden) {
        if self.is_in(counter, slot) {
            self.hidden.insert((counter, slot), why);
        }
    }

    /// Leases an event. A hidden one keeps its reason.
    pub fn lease(&mut self, counter: u64, slot: usize) {
        self.hidden.entry((counter, slot)).or_insert(Hidden::Out);
    }

    /// Ends a lease.
    pub fn return_lease(&mut self, counter: u64, slot: usize) {
        if self.why_hidden(counter, slot) == Some(Hidden::Out) {
            self.hidden.remove(&(counter, slot));
        }
    }

    /// The key changed: offers the locked names again.
    pub fn unlock(&mut self) {
        self.hidden.retain(|_, why| *why != Hidden::Locked);
    }

    /// The names that are hidden for this reason.
    pub fn hidden_for(&self, why: Hidden) -> impl Iterator<Item = (u64, usize)> {
        self.hidden.iter().filter(move |(_, its)| **its == why).map(|(key, _)| *key)
    }

    /// How many names in a folder are done, and how many are stuck or locked.
    pub fn hidden_in(&self, slot: usize) -> (u64, u64) {
        let here = self.hidden.iter().filter(|((_, hidden_in), _)| *hidden_in == slot);
        here.fold((0, 0), |(done, stuck), (_, why)| match why {
            Hidden::Done => (done + 1, stuck),
            Hidden::Stuck | Hidden::Locked => (done, stuck + 1),
            Hidden::Out => (done, stuck),
        })
    }
}

fn is_in(index: &Index, counter: u64, slot: usize) -> bool {
    index.get(counter).is_some_and(|entry| entry.mask & 1 << slot != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_exist_are_hidden() {
        let mut events = Events::default();
        events.add(Entry { counter: 7, blocks: 1, mask: 0b101 });
        events.hide(7, 0, Hidden::Stuck);
        events.hide(7, 1, Hidden::Stuck);
        events.hide(8, 0, Hidden::Done);
        assert_eq!([0, 1, 2].map(|slot| events.hidden_in(slot)), [(0, 1), (0, 0), (0, 0)]);
        events.forget(7, 0);
        events.hide(7, 0, Hidden::Stuck);
        assert_eq!(events.hidden_in(0), (0, 0), "what a status takes from the number of names");
    }
}
