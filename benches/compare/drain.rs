//! How fast a backlog drains, and how it delays live events.
//!
//! A round fills a spool for a server that refuses connections, starts the server, and restarts the uplink. Its rate, from the
//! arrival of the first event to that of the last, is compared with the rate of the limit, which writes the same bytes from
//! memory. A second drain in each round has live events in parallel. Their latency is compared with that of the same process
//! without a backlog. The spool is on tmpfs: these figures do not include the flash of a box.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::Options;
use super::compare::RING;
use super::contender::{Contender, Ground, UPLINK, start_uplink};
use super::measure::{self, Cores, Figures};
use super::report::ratio;
use super::sink::{Arrival, ReservedPort, Sink};
use super::source::Pictures;

/// Number of events that wait.
const BACKLOG: usize = 10_000;
/// Size of their pictures, in bytes.
const SIZE: usize = 200_000;
/// Size of a live event's pictures, in bytes: the sink recognizes live events by the length of their bodies.
const LIVE_SIZE: usize = 210_000;
/// Time between live events: 200 per second, so that a drain has some hundred of them.
const LIVE_PACE_US: u64 = 5_000;
/// Number of live events measured without a backlog.
const LIVE_ALONE: usize = 1_000;
const ROUNDS: usize = 5;
/// Size of the ring that fills the spool, in bytes. It is large: events stay in it while the spool collects a group.
const FILLING_RING: u64 = 256 << 20;
/// Minimum ratio of the backlog's rate to the limit's.
const BUDGET: f64 = 0.8;

/// The drains of one contender, round by round.
#[derive(Default)]
struct Sample {
    name: String,
    /// Rates in MB of encoded pictures per second.
    rates: Figures,
    /// Rates divided by the limit's rate of the same round.
    ratios: Figures,
    /// 99th percentile of the latency of live events, in microseconds: without a backlog, and while one drains.
    alone_us: Figures,
    beside_us: Figures,
    /// Number of live events during a drain, in all rounds.
    live_events: usize,
}

/// The results.
pub struct Drains {
    limits: Figures,
    samples: Vec<Sample>,
}

/// The settings for measuring one build.
struct Field<'a> {
    cores: &'a Cores,
    certificates: &'a Path,
    pictures: Pictures,
    live: Pictures,
}

impl Drains {
    /// Measures the limit, this build, and the build for comparison, if there is one.
    pub fn measure(options: &Options, cores: &Cores, certificates: &Path) -> Drains {
        let field = Field { cores, certificates, pictures: Pictures::new(SIZE), live: Pictures::new(LIVE_SIZE) };
        let mut builds = vec![(UPLINK, options.uplink.as_path())];
        builds.extend(options.against.iter().map(|program| ("the build to compare with", program.as_path())));
        let mut limits = Figures::default();
        let mut samples: Vec<Sample> =
            builds.iter().map(|(name, _)| Sample { name: (*name).into(), ..Sample::default() }).collect();
        for round in 1..=ROUNDS {
            println!("  round {round} of {ROUNDS}");
            let limit = field.limit();
            limits.0.push(limit);
            for ((_, program), sample) in builds.iter().zip(&mut samples) {
                field.round(program, limit, sample);
            }
        }
        Drains { limits, samples }
    }

    /// The table in Markdown.
    pub fn table(&self) -> String {
        let mut text = format!(
            "A backlog of {BACKLOG} events of {} KB over HTTP, {ROUNDS} rounds in turn; beside it {} live events a second. The limit writes \
             {:.0} MB/s:\n\n\
             | who | rate ÷ limit | MB/s | p99 of live events: beside the backlog ÷ alone | alone, µs | beside it, µs | live events beside it |\n\
             | --- | --- | ---: | --- | ---: | ---: | ---: |\n",
            SIZE / 1000,
            1_000_000 / LIVE_PACE_US,
            self.limits.median(),
        );
        for sample in &self.samples {
            let _ = writeln!(
                text,
                "| {} | {} | {:.0} | {} | {:.0} | {:.0} | {} |",
                sample.name,
                ratio(&sample.ratios),
                sample.rates.median(),
                ratio(&sample.beside_us.over(&sample.alone_us)),
                sample.alone_us.median(),
                sample.beside_us.median(),
                sample.live_events,
            );
        }
        text
    }

    /// Reports whether the budget is met.
    pub fn judge(&self) -> (String, bool) {
        let ratios = &self.samples[0].ratios;
        let is_held = ratios.median() >= BUDGET;
        let verdict = if is_held { "held" } else { "NOT HELD" };
        (
            format!(
                "A backlog's rate over the limit's: {}, budget {BUDGET}: {verdict}",
                ratio(ratios).replace('*', "")
            ),
            is_held,
        )
    }
}

impl Field<'_> {
    /// The limit's rate, in MB per second.
    fn limit(&self) -> f64 {
        let mut sink = Sink::start(self.certificates, Duration::ZERO);
        let mut ground = Ground::new(self.cores, &mut sink, &self.pictures, self.certificates);
        let mut limit = ground.limit();
        ground.round(&mut limit, BACKLOG / 10, 0);
        let round = ground.round(&mut limit, BACKLOG, 0);
        limit.end();
        self.pictures.encoded() as f64 / round.wall_us
    }

    fn round(&self, program: &Path, limit: f64, sample: &mut Sample) {
        let (mut sink, uplink, _spool) = self.backlog(program);
        let rate = self.rate(&sink.wait(BACKLOG));
        uplink.end();
        sample.rates.0.push(rate);
        sample.ratios.0.push(rate / limit);

        let (mut sink, mut uplink, _spool) = self.backlog(program);
        let beside = self.live_until(&mut sink, &mut uplink, |count, sink_has| count > 0 && sink_has >= BACKLOG);
        sample.live_events += beside.0.len();
        let alone = self.live_until(&mut sink, &mut uplink, |count, _| count >= LIVE_ALONE);
        uplink.end();
        sample.beside_us.0.push(beside.quantile(0.99));
        sample.alone_us.0.push(alone.quantile(0.99));
    }

    /// An uplink with a backlog, its folder, and a server that has just come back.
    fn backlog(&self, program: &Path) -> (Sink, Contender, TempDir) {
        let port = ReservedPort::new();
        let spool = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there");
        let config = json!({
            "event_server_url": [port.url()],
            "spool": { "dir": spool.path(), "max_bytes": 1_u64 << 33, "min_free_bytes": 0 },
        });
        let mut filling = start_uplink(self.cores, &[], UPLINK, program, FILLING_RING, config.clone());
        for _ in 0..BACKLOG {
            filling.publish(&self.pictures);
        }
        filling.settle();
        filling.end();
        let sink = Sink::start_at(port, self.certificates, Duration::ZERO);
        (sink, start_uplink(self.cores, &[], UPLINK, program, RING, config), spool)
    }

    /// The rate of a backlog's arrivals, in MB of encoded pictures per second.
    fn rate(&self, arrivals: &[Arrival]) -> f64 {
        let times = || arrivals.iter().map(|arrival| arrival.at);
        let (first, last) = (times().min().expect("a backlog"), times().max().expect("a backlog"));
        (self.pictures.encoded() * (arrivals.len() - 1)) as f64 * 1000.0 / (last - first) as f64
    }

    /// Publishes live events until `is_over` returns true. It gets the number of published events and of backlog events that
    /// arrived. Returns the latencies of the live events in microseconds.
    fn live_until(&self, sink: &mut Sink, uplink: &mut Contender, is_over: impl Fn(usize, usize) -> bool) -> Figures {
        let (mut published, mut live, mut backlog) = (Vec::new(), Vec::new(), 0);
        let mut sort = |arrivals: Vec<Arrival>, live: &mut Vec<u64>| {
            let (new, old): (Vec<_>, Vec<_>) =
                arrivals.into_iter().partition(|arrival| arrival.length >= self.live.encoded() as u64);
            live.extend(new.iter().map(|arrival| arrival.at));
            backlog += old.len();
            backlog
        };
        let began = measure::now();
        while !is_over(published.len(), sort(sink.arrived(), &mut live)) {
            published.push(uplink.publish(&self.live));
            measure::sleep_until(began + published.len() as u64 * LIVE_PACE_US * 1000);
        }
        while live.len() < published.len() {
            sort(sink.wait(1), &mut live);
        }
        live.sort_unstable();
        Figures(live.iter().zip(&published).map(|(came, went)| came.saturating_sub(*went) as f64 / 1000.0).collect())
    }
}
