//! From publish to the last byte at the server, of events that come slowly: the part that [`super::compare`] has too few events for.
//!
//! A 99th percentile is made of one event in a hundred, and on a machine that other work shares one burst of it can make all of
//! them. So these are thousands of events, in rounds in turn; as everywhere here ratios are made within a round, and the median of
//! them counts. How sure that median is, is told by rounds drawn anew (a bootstrap).

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

/// Of an event's pictures, in bytes: what the budgets are about.
const SIZE: usize = 200_000;
/// Rounds and events of them: 6 s each at 50 events a second.
const ROUNDS: (usize, usize) = (21, 300);
/// Redrawn that many times.
const DRAWS: usize = 2000;
/// In the table.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// From publish to the last byte at the server: the most that the median may be over the limit's, in microseconds, and what the 99th
/// percentile may be times the limit's.
const P50_BUDGET_US: f64 = 150.0;
const P99_BUDGET: f64 = 1.5;

/// Somebody's latencies in microseconds, round by round.
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

/// What was measured of everybody.
pub struct Latency {
    samples: Vec<Sample>,
}

/// Measures the limit, this build, and the one it is held against, if there is one.
pub fn measure(options: &Options, cores: &Cores, certificates: &Path) -> Latency {
    let mut sink = Sink::start(certificates, Duration::ZERO);
    let pictures = Pictures::new(SIZE);
    let mut ground = Ground { watches_memory: false, ..Ground::new(cores, &mut sink, &pictures, certificates) };
    let mut contenders: Vec<Contender> = vec![ground.limit(), ground.uplink(UPLINK, &options.uplink, RING, json!({}))];
    if let Some(other) = &options.against {
        contenders.push(ground.uplink("the build it is held against", other, RING, json!({})));
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
    /// The table, in Markdown.
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

    /// p50 over the limit's, of each round.
    fn more(&self, sample: &Sample) -> Figures {
        let limits = self.samples[0].of_each(0.5);
        Figures(sample.of_each(0.5).0.iter().zip(limits.0).map(|(ours, limit)| ours - limit).collect())
    }

    /// p99 over the limit's, of each round.
    fn times(&self, sample: &Sample) -> Figures {
        sample.of_each(0.99).over(&self.samples[0].of_each(0.99))
    }

    /// Says whether the budgets hold, and whether that is no sure failure.
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

/// A median over the budget that redrawn rounds have below it in one case of forty or more is no failure, but a matter of a busy machine.
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
