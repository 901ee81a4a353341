//! A destination's queue in memory: event numbers only. Events that never failed are kept as runs, so a queue of thousands of
//! consecutive events takes as little memory as one event. Each event that failed has a state of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::retry::RetryState;

/// A set of numbers, kept as runs.
#[derive(Debug, Default)]
pub struct RunSet {
    /// Each run's first number, and the one after its last.
    runs: BTreeMap<u64, u64>,
    len: u64,
}

impl RunSet {
    /// How many numbers there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a number is there.
    pub fn contains(&self, number: u64) -> bool {
        self.run_of(number).is_some()
    }

    /// The lowest one.
    pub fn first(&self) -> Option<u64> {
        self.runs.keys().next().copied()
    }

    /// The highest one.
    pub fn last(&self) -> Option<u64> {
        self.runs.values().next_back().map(|end| end - 1)
    }

    /// Adds a number; false if it was there already.
    pub fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        self.len += 1;
        let end = self.runs.remove(&(number + 1)).unwrap_or(number + 1);
        match self.runs.range_mut(..number).next_back().filter(|(_, before)| **before == number) {
            Some((_, before)) => *before = end,
            None => drop(self.runs.insert(number, end)),
        }
        true
    }

    /// Removes a number; false if it was not there.
    pub fn remove(&mut self, number: u64) -> bool {
        let Some((start, end)) = self.run_of(number) else { return false };
        self.len -= 1;
        if start == number {
            self.runs.remove(&start);
        } else {
            self.runs.insert(start, number);
        }
        if number + 1 < end {
            self.runs.insert(number + 1, end);
        }
        true
    }

    /// Removes and returns the lowest number.
    pub fn pop_first(&mut self) -> Option<u64> {
        let first = self.first()?;
        self.remove(first);
        Some(first)
    }

    /// Removes and returns the highest number.
    pub fn pop_last(&mut self) -> Option<u64> {
        let last = self.runs.values().next_back()? - 1;
        self.remove(last);
        Some(last)
    }

    /// All numbers, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().flat_map(|(start, end)| *start..*end)
    }

    fn run_of(&self, number: u64) -> Option<(u64, u64)> {
        let (start, end) = self.runs.range(..=number).next_back()?;
        (number < *end).then_some((*start, *end))
    }
}

/// Events that failed and wait for another attempt, by number and by the earliest time of that attempt.
#[derive(Debug, Default)]
pub struct Failed {
    states: BTreeMap<u64, RetryState>,
    by_time: BTreeSet<(Instant, u64)>,
}

impl Failed {
    /// The number of events.
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// Whether an event is among them.
    pub fn contains(&self, number: u64) -> bool {
        self.states.contains_key(&number)
    }

    /// Adds an event.
    pub fn insert(&mut self, number: u64, state: RetryState) {
        self.remove(number);
        self.states.insert(number, state);
        self.by_time.insert((state.retry_at, number));
    }

    /// Removes an event.
    pub fn remove(&mut self, number: u64) -> Option<RetryState> {
        let state = self.states.remove(&number)?;
        self.by_time.remove(&(state.retry_at, number));
        Some(state)
    }

    /// The state of an event.
    pub fn get(&self, number: u64) -> Option<RetryState> {
        self.states.get(&number).copied()
    }

    /// The state of the event with the lowest number.
    pub fn lowest(&self) -> Option<RetryState> {
        self.states.values().next().copied()
    }

    /// The event that may be tried first, and from when on.
    pub fn first(&self) -> Option<(Instant, u64)> {
        self.by_time.first().copied()
    }

    /// The event numbers above `after`.
    pub fn above(&self, after: u64) -> impl Iterator<Item = u64> {
        self.states.range(after.saturating_add(1)..).map(|(number, _)| *number)
    }

    /// All event numbers, the lowest first.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.states.keys().copied()
    }

    /// Removes all events.
    pub fn clear(&mut self) {
        self.states.clear();
        self.by_time.clear();
    }
}

/// A lane's waiting events in memory.
#[derive(Debug, Default)]
pub struct Queue {
    /// Never tried, or the state of their attempts is out of date.
    pub fresh: RunSet,
    /// Tried and failed.
    pub failed: Failed,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> u64 {
        self.fresh.len() + self.failed.count() as u64
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an event waits.
    pub fn contains(&self, number: u64) -> bool {
        self.fresh.contains(number) || self.failed.contains(number)
    }

    /// The lowest event number.
    pub fn first(&self) -> Option<u64> {
        self.fresh.first().into_iter().chain(self.failed.numbers().next()).min()
    }

    /// Adds an event, with the state of its failed attempts.
    pub fn insert(&mut self, number: u64, state: Option<RetryState>) {
        match state {
            Some(state) => self.failed.insert(number, state),
            None => {
                self.fresh.insert(number);
            }
        }
    }

    /// Removes an event and returns its state; none if it does not wait here.
    pub fn remove(&mut self, number: u64) -> Option<Option<RetryState>> {
        if self.fresh.remove(number) {
            return Some(None);
        }
        self.failed.remove(number).map(Some)
    }

    /// Forgets all failures.
    pub fn forgive(&mut self) {
        for number in self.failed.numbers() {
            self.fresh.insert(number);
        }
        self.failed.clear();
    }

    /// All event numbers, the lowest first.
    pub fn numbers(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.fresh.iter().chain(self.failed.numbers()).collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_agree_with_a_plain_set_whatever_is_done_to_them() {
        let seed = fastrand::u64(..);
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut runs, mut plain) = (RunSet::default(), BTreeSet::new());
        for _ in 0..20_000 {
            let number = random.u64(..200);
            match random.u8(..5) {
                0 | 1 => assert_eq!(runs.insert(number), plain.insert(number)),
                2 => assert_eq!(runs.remove(number), plain.remove(&number)),
                3 => assert_eq!(runs.contains(number), plain.contains(&number)),
                _ if random.u8(..8) == 0 => assert_eq!(runs.pop_first(), plain.pop_first()),
                _ => assert_eq!(runs.first(), plain.first().copied()),
            }
            assert_eq!((runs.len(), runs.is_empty()), (plain.len() as u64, plain.is_empty()));
        }
        assert!(runs.iter().eq(plain.iter().copied()));
        assert!(runs.runs.iter().zip(runs.runs.iter().skip(1)).all(|(one, next)| one.1 < next.0), "runs are merged");
    }
}
