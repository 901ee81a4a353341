//! Histories: sequences of steps, generated from a random seed, and shrunk if one fails.

use std::time::Duration;

use super::world::World;
use super::{Answer, Mode};

/// A step of a history.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// These destinations get their events in strict order. Comes first.
    InOrder(u8),
    /// These destinations get all events, once a period. Comes first.
    Periodic(u8),
    /// Events to be stored wait this long for others, in milliseconds. Comes first.
    Window(u64),
    /// Events of this length are published; each is bad for the destinations in the mask, and may be too large for the spool.
    Publish { count: u32, length: u32, bad: u8, too_large: bool },
    /// The mode of a destination changes.
    Become(usize, Mode),
    /// Sets the answer of a destination to events that are bad for it.
    Bad(usize, Answer),
    /// Sets how long a destination takes to answer, in milliseconds.
    Delay(usize, u64),
    /// Sets whether the spool can be used, and how long an operation takes.
    Spool { usable: bool, latency_ms: u64 },
    /// Configures exactly these destinations.
    Configure(u8),
    /// Applies the same config again.
    Reload,
    /// Closes the connections of the next requests while they are in flight.
    Stale(usize, u32),
    /// The box's clock is set, or is lost.
    Clock(bool),
    /// Opens or closes the hours of a destination's backlog.
    Hours(usize, bool),
    /// The spool's folder is replaced by another one.
    Reopen,
    /// The process ends.
    Stop,
}

/// A history: its steps, each with the pause before it in milliseconds.
#[derive(Clone, Debug)]
pub struct History {
    pub seed: u64,
    pub steps: Vec<(u64, Step)>,
}

/// The number of destinations.
pub const DESTINATIONS: usize = 4;

impl History {
    pub fn random(seed: u64) -> History {
        let mut random = fastrand::Rng::with_seed(seed);
        let in_order = if random.bool() { 0 } else { random.u8(..16) };
        let configured = 1 + random.u8(..15);
        let periodic = if random.u8(..3) > 0 { 0 } else { random.u8(..16) };
        let window = Step::Window(random_window(&mut random));
        let first = [Step::InOrder(in_order), Step::Periodic(periodic), window, Step::Configure(configured)];
        let mut steps: Vec<(u64, Step)> = first.into_iter().map(|step| (0, step)).collect();
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

    /// A history in which destination 0 stays configured and takes every event, whatever else happens.
    pub fn beside(seed: u64) -> History {
        let mut random = fastrand::Rng::with_seed(seed);
        let window = Step::Window(random_window(&mut random));
        let mut steps = vec![(0, window), (0, Step::Configure(1 | random.u8(..16)))];
        for _ in 0..random.usize(5..60) {
            let step = match Step::random(&mut random) {
                Step::Publish { count, bad, .. } => {
                    Step::Publish { count: 1 + count % 4, length: random.u32(1..12), bad: bad & !1, too_large: false }
                }
                Step::Configure(mask) => Step::Configure(mask | 1),
                Step::Become(0, _) | Step::Bad(0, _) | Step::Delay(0, _) | Step::Stale(0, _) | Step::Hours(0, _) => {
                    continue;
                }
                // An operation of a disk that hangs cannot be taken back and holds its events' room, so the latency is limited.
                Step::Spool { usable, latency_ms } => Step::Spool { usable, latency_ms: latency_ms.min(30) },
                step => step,
            };
            let longest = [30, 3000][random.usize(..2)];
            steps.push((random.u64(5..longest), step));
        }
        History { seed, steps }
    }

    /// Runs the history. An error: destination 0 did not acknowledge an event at once, or the ring was full.
    pub fn keeps_pace(&self) -> Result<(), String> {
        let mut world = World::new(self.seed);
        let mut count = 0;
        for (pause, step) in self.steps.iter().chain([&(5, Step::Reload)]) {
            world.go_to(world.now() + Duration::from_millis(*pause));
            if let Some(event) = (0..count).rev().take(8).find(|event| world.acknowledged(0, *event).is_none()) {
                return Err(format!("event {event} is still not acknowledged after {pause} ms, before {step:?}"));
            }
            world.step(step);
            if let Step::Publish { count: more, .. } = step {
                count += u64::from(*more);
            }
            if world.dropped() > 0 {
                return Err(format!("the ring was full at {step:?}"));
            }
        }
        Ok(())
    }

    /// Runs the history. An error: what was wrong.
    pub fn run(&self) -> Result<(), String> {
        let run = || World::new(self.seed).run(&self.steps);
        let hook = std::panic::AssertUnwindSafe(run);
        std::panic::catch_unwind(hook).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        })
    }

    /// Removes steps from a failing history while it still fails.
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

fn random_window(random: &mut fastrand::Rng) -> u64 {
    [0, 300, 2000, 20_000][random.usize(..4)]
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
            18 => match random.u8(..4) {
                0 => Step::Reopen,
                2 => Step::Hours(destination, random.bool()),
                clock => Step::Clock(clock != 1),
            },
            _ => Step::Stale(destination, random.u32(1..8)),
        }
    }
}
