//! Histories: what happens, made at random from a seed, and shrunk where one fails.

use super::world::World;
use super::{Answer, Mode};

/// Something that happens in a history.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Events of this length come, each bad for the destinations of the mask, and too large for the spool or not.
    Publish { count: u32, length: u32, bad: u8, too_large: bool },
    /// A destination changes.
    Become(usize, Mode),
    /// What a destination answers to an event that is bad for it.
    Bad(usize, Answer),
    /// Answers of a destination take this long.
    Delay(usize, u64),
    /// The spool can be used, or not; an operation takes this long.
    Spool { usable: bool, latency_ms: u64 },
    /// These destinations are in the config.
    Configure(u8),
    /// The config is read again.
    Reload,
    /// Some connections are closed under the next requests.
    Stale(usize, u32),
    /// The process ends.
    Stop,
}

/// A history: pauses in milliseconds, and what happens after each.
#[derive(Clone, Debug)]
pub struct History {
    pub seed: u64,
    pub steps: Vec<(u64, Step)>,
}

/// In all worlds.
pub const DESTINATIONS: usize = 4;

impl History {
    pub fn random(seed: u64) -> History {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut steps = vec![(0, Step::Configure(1 + random.u8(..15)))];
        for _ in 0..random.usize(3..25) {
            let pause = match random.u8(..6) {
                0 => random.u64(..20_000),
                1 | 2 => random.u64(..1000),
                _ => random.u64(..30),
            };
            steps.push((pause, Step::random(&mut random)));
        }
        if random.u8(..4) == 0 {
            steps.push((random.u64(..2000), Step::Stop));
        }
        History { seed, steps }
    }

    /// Runs it; what was wrong, if anything.
    pub fn run(&self) -> Result<(), String> {
        let run = || World::new(self.seed).run(&self.steps);
        let hook = std::panic::AssertUnwindSafe(run);
        std::panic::catch_unwind(hook).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        })
    }

    /// As few steps as possible of one that fails.
    pub fn shrunk(mut self) -> History {
        loop {
            let without = |at: usize| {
                let mut shorter = self.clone();
                let (pause, _) = shorter.steps.remove(at);
                if let Some(next) = shorter.steps.get_mut(at) {
                    next.0 += pause;
                }
                shorter
            };
            let smaller = (1..self.steps.len()).map(without);
            let fewer = self.steps.iter().enumerate().filter_map(|(at, (pause, step))| match step {
                Step::Publish { count, length, bad, too_large } if *count > 1 => {
                    let mut shorter = self.clone();
                    let step = Step::Publish { count: count / 2, length: *length, bad: *bad, too_large: *too_large };
                    shorter.steps[at] = (*pause, step);
                    Some(shorter)
                }
                _ => None,
            });
            let Some(next) = smaller.chain(fewer.collect::<Vec<_>>()).find(|shorter| shorter.run().is_err()) else {
                return self;
            };
            self = next;
        }
    }
}

impl Step {
    fn random(random: &mut fastrand::Rng) -> Step {
        let destination = random.usize(..DESTINATIONS);
        match random.u8(..20) {
            0..=6 => Step::Publish {
                count: if random.u8(..4) == 0 { random.u32(1..120) } else { random.u32(1..6) },
                length: random.u32(1..20),
                bad: if random.bool() { 0 } else { random.u8(..16) },
                too_large: random.u8(..12) == 0,
            },
            7..=9 => Step::Become(destination, Mode::random(random)),
            10 => Step::Bad(destination, Answer::of_event(random)),
            11 | 12 => Step::Delay(destination, [0, 1, 20, 120, 1500, 9000][random.usize(..6)]),
            13 | 14 => Step::Spool { usable: random.u8(..3) > 0, latency_ms: [0, 1, 30, 3000][random.usize(..4)] },
            15 | 16 => Step::Configure(random.u8(..16)),
            17 => Step::Reload,
            _ => Step::Stale(destination, random.u32(1..8)),
        }
    }
}
