//! Tells whether the event or the destination caused a failure.
//!
//! - An event is at fault if it fails although others were acknowledged since it began, or since it last failed.
//! - Otherwise the destination may be at fault. It counts as failing once a row of different events has failed with none
//!   acknowledged. The length of that row depends on the destination's success rate while it worked: two if it takes nearly every
//!   event. If it takes only one event in ten, a row of forty is chance.
//! - A destination that never acknowledged an event has no rate. It gets `UNKNOWN` tries before the first pause, one at a time
//!   and each with another event, half of that before the second pause, and so on. If one event in ten is good, these include a
//!   good one in 998 of 1000 cases.

/// Tries before the first pause of a destination that never acknowledged an event.
const UNKNOWN: u32 = 32;
/// The fewest and the most tries before the first pause of one that has.
const FEWEST: u32 = 2;
const MOST: u32 = 64;
/// A row of failures is blamed on the destination if chance makes it less likely than this.
const DOUBT: f64 = 0.01;
/// The number of first tries that the moving success rate covers. With fewer tries it is their mean, and [`Evidence::patience`]
/// limits its effect.
const MEMORY: u32 = 32;
/// An event is given up if its row of failures is less likely than this by chance.
const CERTAIN: f64 = 1e-4;
/// Tries before an event is given up, at least and at most.
const TRIES: (u32, u32) = (6, 100);

/// What is known about a destination's success rate.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Events acknowledged.
    pub acknowledged: u64,
    /// The part of first tries that succeed while the destination works; none before the first success.
    rate: Option<f64>,
    /// How many first tries the rate covers, [`MEMORY`] at most.
    known: u32,
    /// Different events that failed since the last acknowledgement.
    failures: u32,
    /// How many of these failed since the last pause.
    since_pause: u32,
    /// Pauses since the last acknowledgement.
    pauses: u32,
    /// The number of the current row of failures: counts the acknowledgements that ended a row.
    row: u64,
}

impl Evidence {
    /// Forgets the rate, because the cause of failures may have been fixed.
    pub fn begin_anew(&mut self) {
        *self = Evidence { acknowledged: self.acknowledged, row: self.row + 1, ..Evidence::default() };
    }

    /// The number of the current row of failures.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// Whether it ever acknowledged an event.
    pub fn is_known(&self) -> bool {
        self.rate.is_some()
    }

    /// An event was acknowledged, at its first try or a later one.
    pub fn succeeded(&mut self, at_first_try: bool) {
        self.acknowledged += 1;
        if at_first_try {
            for _ in 0..self.failures.min(self.patience()) {
                self.learn(0.0);
            }
            self.learn(1.0);
        }
        if self.failures > 0 {
            self.row += 1;
        }
        (self.failures, self.since_pause, self.pauses) = (0, 0, 0);
    }

    /// One more event failed, and the cause is unknown.
    pub fn failed(&mut self) {
        self.failures += 1;
        self.since_pause += 1;
    }

    /// An event failed by its own fault; `at_first_try`: at its first try.
    pub fn failed_alone(&mut self, at_first_try: bool) {
        if at_first_try {
            self.learn(0.0);
        }
    }

    /// Adds one first try to the rate: 1 if it succeeded, 0 if it failed.
    fn learn(&mut self, acknowledged: f64) {
        self.known = (self.known + 1).min(MEMORY);
        let rate = self.rate.unwrap_or_default();
        self.rate = Some(rate + (acknowledged - rate) / f64::from(self.known));
    }

    /// Whether so many events failed that the destination must be at fault.
    pub fn is_conclusive(&self) -> bool {
        self.since_pause >= (self.patience() >> self.pauses.min(31)).max(1)
    }

    /// Whether the failures so far are within the destination's usual rate.
    pub fn is_usual(&self) -> bool {
        self.is_known() && self.pauses == 0 && self.failures < self.patience()
    }

    /// Whether to try a newer event: after every second pause.
    pub fn has_failed_for_long(&self) -> bool {
        self.pauses >= 2 && self.pauses.is_multiple_of(2)
    }

    /// A pause begins.
    pub fn pauses(&mut self) {
        (self.pauses, self.since_pause) = (self.pauses + 1, 0);
    }

    /// How many different events may fail in a row before the destination must be at fault. A rate from a few tries says little:
    /// at least the tries that are missing from `UNKNOWN` are allowed.
    pub fn patience(&self) -> u32 {
        let fewest = UNKNOWN.saturating_sub(self.known).max(FEWEST);
        self.rate.map_or(UNKNOWN, |rate| row(rate, DOUBT).clamp(fewest, MOST))
    }

    /// How many tries an event gets that fails while others succeed.
    pub fn tries(&self) -> u32 {
        self.rate.map_or(TRIES.1, |rate| row(rate, CERTAIN).clamp(TRIES.0, TRIES.1))
    }
}

/// The length of a row of failures whose probability is `chance`.
fn row(rate: f64, chance: f64) -> u32 {
    (chance.ln() / (1.0 - rate.clamp(0.001, 0.999)).ln()).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The evidence of a destination that acknowledged `acknowledged` of every 10 of its last 200 events.
    fn of(acknowledged: u32) -> Evidence {
        let mut evidence = Evidence::default();
        for number in 0..200 {
            if number % 10 < acknowledged { evidence.succeeded(true) } else { evidence.failed() }
        }
        evidence
    }

    #[test]
    fn the_fewer_events_a_destination_takes_the_longer_a_row_of_failures_says_nothing() {
        let patience: Vec<u32> = [10, 9, 5, 1].iter().map(|acknowledged| of(*acknowledged).patience()).collect();
        assert!(patience[0] == FEWEST && patience.is_sorted() && patience[3] > 30, "{patience:?}");
        assert_eq!(Evidence::default().patience(), UNKNOWN);
        assert_eq!(of(10).tries(), TRIES.0);
        assert!(of(1).tries() > 40, "{}", of(1).tries());
    }

    #[test]
    fn a_destination_that_fails_altogether_is_left_alone_after_fewer_and_fewer_tries() {
        let mut evidence = Evidence::default();
        let mut rounds = Vec::new();
        for _ in 0..8 {
            let mut tries = 0;
            while tries == 0 || !evidence.is_conclusive() {
                evidence.failed();
                tries += 1;
            }
            evidence.pauses();
            rounds.push(tries);
        }
        assert_eq!(rounds, [32, 16, 8, 4, 2, 1, 1, 1]);
    }

    #[test]
    fn one_success_proves_nothing_about_the_next_events() {
        let mut evidence = Evidence::default();
        for good in 1..=40 {
            evidence.succeeded(true);
            for bad in 1..10 {
                evidence.failed();
                assert!(!evidence.is_conclusive(), "after {good} good events and {bad} bad ones in a row");
            }
        }
    }

    #[test]
    fn an_outage_does_not_change_what_is_known_of_a_destination() {
        let mut evidence = of(10);
        for _ in 0..10_000 {
            evidence.failed();
        }
        evidence.succeeded(true);
        assert!(evidence.patience() <= 3, "{}", evidence.patience());
    }
}
