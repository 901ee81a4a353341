//! Whose fault a failure is: the event's, or the destination's.
//!
//! - An event that fails although others were acknowledged since it was begun, or since it failed before, is at fault itself.
//! - Else it may be the destination. How many different events may fail one after another, with none acknowledged, before the
//!   destination is taken for one that fails, depends on how it fared while it worked: of one that takes nearly everything two are
//!   enough; where nine of ten events are such as it cannot bear, a row of forty is chance.
//! - Of a destination that never acknowledged anything nothing is known: it is given `UNKNOWN` tries, one at a time and each
//!   with another event, before the first pause, half of that before the second, and so on. If one event in ten is good, a good one
//!   is found among these in 998 of 1000 cases.

/// Tries before the first pause of a destination that has not acknowledged anything.
const UNKNOWN: u32 = 32;
/// Bounds of the tries before the first pause of one that has.
const FEWEST: u32 = 2;
const MOST: u32 = 64;
/// A row of failures that is less likely than this, if events are at fault, is the destination's.
const DOUBT: f64 = 0.01;
/// How many first tries the success rate is about. Before there were so many, it is their mean, and not believed further than
/// [`Evidence::patience`] says.
const MEMORY: u32 = 32;
/// An event's failures are its own fault for good where chance is less likely than this.
const CERTAIN: f64 = 1e-4;
/// Tries before an event is given up, at least and at most.
const TRIES: (u32, u32) = (6, 100);

/// What is known of a destination's ways.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Events acknowledged.
    pub acknowledged: u64,
    /// The part of events that are acknowledged at their first try while the destination works; none before the first one.
    rate: Option<f64>,
    /// First tries that the rate is about, [`MEMORY`] at most.
    known: u32,
    /// Different events that failed since the last acknowledgement.
    failures: u32,
    /// Of these, since the last pause.
    since_pause: u32,
    /// Pauses since the last acknowledgement.
    pauses: u32,
    /// Counts acknowledgements that ended a row of failures: names the row.
    row: u64,
}

impl Evidence {
    /// Forgets what it was like: somebody may have set right what was wrong.
    pub fn begin_anew(&mut self) {
        *self = Evidence { acknowledged: self.acknowledged, row: self.row + 1, ..Evidence::default() };
    }

    /// The name of the present row of failures.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// Whether it ever acknowledged anything.
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

    /// Another event failed, and nobody knows whose fault it is.
    pub fn failed(&mut self) {
        self.failures += 1;
        self.since_pause += 1;
    }

    /// An event failed and is at fault itself; whether that was its first try.
    pub fn failed_alone(&mut self, at_first_try: bool) {
        if at_first_try {
            self.learn(0.0);
        }
    }

    /// One more first try, which was acknowledged or not.
    fn learn(&mut self, acknowledged: f64) {
        self.known = (self.known + 1).min(MEMORY);
        let rate = self.rate.unwrap_or_default();
        self.rate = Some(rate + (acknowledged - rate) / f64::from(self.known));
    }

    /// Whether so many failed that it must be the destination.
    pub fn is_conclusive(&self) -> bool {
        self.since_pause >= (self.patience() >> self.pauses.min(31)).max(1)
    }

    /// Whether the failures so far are what its events are known for.
    pub fn is_usual(&self) -> bool {
        self.is_known() && self.pauses == 0 && self.failures < self.patience()
    }

    /// Whether it is time to look whether newer events fare better: after every second pause.
    pub fn has_failed_for_long(&self) -> bool {
        self.pauses >= 2 && self.pauses.is_multiple_of(2)
    }

    /// A pause begins.
    pub fn pauses(&mut self) {
        (self.pauses, self.since_pause) = (self.pauses + 1, 0);
    }

    /// Failures of different events in a row before it must be the destination. A few tries say little: what is lacking of `UNKNOWN` is
    /// allowed whatever they were.
    pub fn patience(&self) -> u32 {
        let fewest = UNKNOWN.saturating_sub(self.known).max(FEWEST);
        self.rate.map_or(UNKNOWN, |rate| row(rate, DOUBT).clamp(fewest, MOST))
    }

    /// Tries after which an event that fails while others pass is given up.
    pub fn tries(&self) -> u32 {
        self.rate.map_or(TRIES.1, |rate| row(rate, CERTAIN).clamp(TRIES.0, TRIES.1))
    }
}

/// The length of a row of failures that is as unlikely as `chance`.
fn row(rate: f64, chance: f64) -> u32 {
    (chance.ln() / (1.0 - rate.clamp(0.001, 0.999)).ln()).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a destination that has acknowledged `acknowledged` of its last 200 events in 10.
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
