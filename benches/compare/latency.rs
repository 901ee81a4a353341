//! Latency from publish to the last byte at the server, for events at a slow pace. [`super::compare`] has too few events for
//! this.
//!
//! A 99th percentile depends on one event in a hundred. On a shared machine, one burst of other work can cause all of these. So
//! this measures thousands of events, in rounds in turn. As everywhere here, ratios are computed within a round, and their median
//! counts. A bootstrap (resampled rounds) shows the uncertainty of that median.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::Options;
use super::compare::{PACE_US, RING};
use super::contender::{Contender, Ground, LIMIT, UPLINK};
use super::measure::{Cores, Figures};
use super::report::ratio;
use super::sink::Sink;
use super::source::Pictures;

/// Size of an event's pictures, in bytes: the size of the budgets.
const SIZE: usize = 200_000;
/// Number of rounds, and of events in each: 6 s per round at 50 events per second.
const ROUNDS: (usize, usize) = (21, 300);
/// Number of resamplings.
const DRAWS: usize = 2000;
/// The columns of the table.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// The budgets for the latency from publish to the last byte at the server: how much the median may exceed the limit's, in
/// microseconds, and the maximum ratio of the 99th percentile to the limit's.
const P50_BUDGET_US: f64 = 150.0;
const P99_BUDGET: f64 = 1.5;

/// The latencies of one contender in microseconds, round by round.
struct Sample {
    name: String,
    rounds: Vec<Figures>,
}

impl Sample {
    fn of_all(&self) -> Figures {
        Figures(self.rounds.iter().flat_map(|round| round.0.iter().copied()).collect())
    }

    fn of_each(&self, part: f64) -> Figures {
        Figures(self.rounds.iter().map(|round| round.quantile(part)).collect())
    }
}

/// The results of all contenders.
pub struct Latency {
    samples: Vec<Sample>,
}

/// Measures the limit, this build, and the build for comparison, if there is one.
pub fn measure(options: &Options, cores: &Cores, certificates: &Path) -> Latency {
    let mut sink = Sink::start(certificates, Duration::ZERO);
    let pictures = Pictures::new(SIZE);
    let mut ground = Ground { watches_memory: false, ..Ground::new(cores, &mut sink, &pictures, certificates) };
    let mut contenders: Vec<Contender> = vec![ground.limit(), ground.uplink(UPLINK, &options.uplink, RING, json!({}))];
    if let Some(other) = &options.against {
        contenders.push(ground.uplink("the build to compare with", other, RING, json!({})));
    }
    let sample = |contender: &Contender| Sample { name: contender.name.clone(), rounds: Vec::new() };
    let mut samples: Vec<Sample> = contenders.iter().map(sample).collect();
    for contender in &mut contenders {
        ground.round(contender, ROUNDS.1, PACE_US);
    }
    for _ in 0..ROUNDS.0 {
        for (contender, sample) in contenders.iter_mut().zip(&mut samples) {
            sample.rounds.push(ground.round(contender, ROUNDS.1, PACE_US).latencies_us);
        }
    }
    contenders.into_iter().for_each(Contender::end);
    Latency { samples }
}

impl Latency {
    /// The table in Markdown.
    pub fn table(&self) -> String {
        let (rounds, events) = ROUNDS;
        let mut text = format!(
            "From publish to the last byte, {} events each of {} KB over HTTP, 50 a second, in {rounds} rounds in turn:\n\n\
             | who | p50 over the limit's, µs | p99 ÷ the limit's | p50, µs | p90, µs | p99, µs | p99.9, µs |\n\
             | --- | --- | --- | ---: | ---: | ---: | ---: |\n",
            rounds * events,
            SIZE / 1000,
        );
        for sample in &self.samples {
            let (all, more, times) = (sample.of_all(), self.more(sample), self.times(sample));
            let _ = writeln!(
                text,
                "| {} | **{:+.0}** ({:+.0} to {:+.0}) | {} | {} |",
                sample.name,
                more.median(),
                more.quantile(0.25),
                more.quantile(0.75),
                ratio(&times),
                QUANTILES.map(|part| format!("{:.0}", all.quantile(part))).join(" | "),
            );
        }
        text
    }

    /// p50 minus the limit's p50, for each round.
    fn more(&self, sample: &Sample) -> Figures {
        let limits = self.samples[0].of_each(0.5);
        Figures(sample.of_each(0.5).0.iter().zip(limits.0).map(|(ours, limit)| ours - limit).collect())
    }

    /// p99 divided by the limit's p99, for each round.
    fn times(&self, sample: &Sample) -> Figures {
        sample.of_each(0.99).over(&self.samples[0].of_each(0.99))
    }

    /// Reports whether the budgets are met. The second value is false only for a certain failure.
    pub fn judge(&self) -> (String, bool) {
        let uplink = self.samples.iter().find(|sample| sample.name == UPLINK).expect("it takes part");
        let (more, times) = (self.more(uplink), self.times(uplink));
        let verdicts = [verdict(&more, P50_BUDGET_US), verdict(&times, P99_BUDGET)];
        let text = format!(
            "From publish to the last byte of 200 KB over HTTP, over the {LIMIT}'s: p50 {:+.0} µs, budget +{P50_BUDGET_US}: {}; \
             p99 {:.2} times, budget {P99_BUDGET}: {}",
            more.median(),
            verdicts[0],
            times.median(),
            verdicts[1],
        );
        (text, !verdicts.contains(&NOT_HELD))
    }
}

const NOT_HELD: &str = "NOT HELD";

/// A median above the budget is no certain failure if at least one in forty resampled medians is within it: the machine may be
/// busy.
fn verdict(figures: &Figures, budget: f64) -> &'static str {
    let mut random = fastrand::Rng::with_seed(1);
    let draw = |_| Figures(figures.0.iter().map(|_| figures.0[random.usize(..figures.0.len())]).collect()).median();
    let medians = Figures((0..DRAWS).map(draw).collect());
    match figures.median() {
        median if median <= budget => "held",
        _ if medians.quantile(0.025) <= budget => "not decided: run it again with nothing else running",
        _ => NOT_HELD,
    }
}
