//! The comparison: all contenders in turn, round by round, and the table of results.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::Options;
use super::contender::{Contender, Ground, LIMIT, Round, UPLINK, peer_program};
use super::measure::{Cores, Figures};
use super::sink::Sink;
use super::source::Pictures;

/// Sizes of an event's pictures, in KB.
pub const SIZES: [usize; 3] = [20, 200, 2000];
/// In the order of the table.
const PEERS: [&str; 4] = ["libcurl", "nethttp", "reqwest", "requests"];
/// Size of a ring, in bytes. Events go to the spool when half of it is used; the other contenders use as much memory for their
/// events.
pub const RING: u64 = 32 << 20;
/// Time between paced events: 50 per second.
pub const PACE_US: u64 = 20_000;
/// Number of rounds, and of events in each.
const PACED: (usize, usize) = (2, 150);
/// KB of pictures in a round, about. A round is then long enough for the scheduler's clock.
const ROUND_KB: usize = 60_000;

/// A row of the table.
pub struct Row {
    pub size: usize,
    pub is_tls: bool,
    pub name: String,
    pub figures: Result<RowFigures, String>,
}

/// The figures of a contender.
#[derive(Default)]
pub struct RowFigures {
    fast: Vec<Round>,
    paced: Vec<Round>,
    /// CPU time at saturation, divided by that of the limit in the same round.
    pub cpu_ratio: Figures,
    /// The same for the wall time.
    pub wall_ratio: Figures,
    /// Allocations per event: their number and bytes.
    pub allocations: Option<(f64, f64)>,
}

impl RowFigures {
    pub fn cpu_us(&self) -> f64 {
        Figures(self.fast.iter().map(|round| round.cpu_us).collect()).median()
    }

    pub fn wall_us(&self) -> f64 {
        Figures(self.fast.iter().map(|round| round.wall_us).collect()).median()
    }

    pub fn paced_cpu_us(&self) -> f64 {
        Figures(self.paced.iter().map(|round| round.cpu_us).collect()).median()
    }

    /// Latency from publish to the last byte, over all paced rounds.
    pub fn latency_us(&self, part: f64) -> f64 {
        Figures(self.paced.iter().flat_map(|round| round.latencies_us.0.iter().copied()).collect()).quantile(part)
    }

    pub fn rss_kib(&self) -> u64 {
        self.fast.iter().map(|round| round.rss_kib).max().unwrap_or_default()
    }
}

/// Compares all contenders at one size and scheme.
pub fn compare(options: &Options, cores: &Cores, certificates: &Path, size: usize, is_tls: bool) -> Vec<Row> {
    let mut sink = Sink::start(certificates, Duration::ZERO);
    let pictures = Pictures::new(size * 1000);
    let mut ground = Ground { is_tls, ..Ground::new(cores, &mut sink, &pictures, certificates) };
    let starters = starters(options);
    let mut contenders: Vec<(Contender, RowFigures)> = Vec::new();
    for (_, start) in starters.iter().filter_map(|(name, start)| Some((name, start.as_ref().ok()?))) {
        contenders.push((start(&ground), RowFigures::default()));
    }
    let count = (ROUND_KB / size).clamp(20, 1000) / if options.is_quick { 4 } else { 1 };
    for (contender, _) in &mut contenders {
        ground.round(contender, count.min(100), 0); // to warm up connections, caches and buffers
    }
    for _ in 0..options.rounds {
        for (contender, figures) in &mut contenders {
            figures.fast.push(ground.round(contender, count, 0));
        }
    }
    for _ in 0..if options.is_quick { 0 } else { PACED.0 } {
        for (contender, figures) in &mut contenders {
            figures.paced.push(ground.round(contender, PACED.1, PACE_US));
        }
    }
    let mut measured: Vec<(String, RowFigures)> = Vec::new();
    for (contender, figures) in contenders {
        measured.push((contender.name.clone(), figures));
        contender.end();
    }
    relate(&mut measured);
    let mut rows = Vec::new();
    for (name, start) in &starters {
        let figures = match start {
            Ok(start) => {
                let position = measured.iter().position(|(measured, _)| measured == name).expect("it was started");
                let mut figures = measured.swap_remove(position).1;
                figures.allocations = allocations(options, &mut ground, start);
                Ok(figures)
            }
            Err(why) => Err(why.clone()),
        };
        rows.push(Row { size, is_tls, name: name.clone(), figures });
    }
    rows
}

type Start<'a> = Box<dyn Fn(&Ground<'_>) -> Contender + 'a>;

/// All contenders: how to start each, or why it cannot be started.
fn starters(options: &Options) -> Vec<(String, Result<Start<'_>, String>)> {
    let mut starters: Vec<(String, Result<Start<'_>, String>)> = vec![
        (LIMIT.into(), Ok(Box::new(|ground| ground.limit()))),
        (UPLINK.into(), Ok(Box::new(|ground| ground.uplink(UPLINK, &options.uplink, RING, json!({}))))),
    ];
    if !options.is_quick {
        let name = "sophon-uplink, form-data";
        let more = json!({ "content-type": "form-data" });
        starters
            .push((name.into(), Ok(Box::new(move |ground| ground.uplink(name, &options.uplink, RING, more.clone())))));
    }
    if let Some(other) = &options.against {
        let name = "the build to compare with, JSON";
        starters.push((name.into(), Ok(Box::new(move |ground| ground.uplink(name, other, RING, json!({}))))));
    }
    if let Some(peers) = &options.peers {
        for peer in PEERS {
            let start = peer_program(peers, peer);
            let name = start.as_ref().map_or(peer.to_owned(), |(name, _)| name.clone());
            let title = name.clone();
            let start =
                start.map(|(_, program)| -> Start<'_> { Box::new(move |ground| ground.peer(&title, &program)) });
            starters.push((name, start));
        }
    }
    starters
}

/// Computes the ratios, round by round.
fn relate(measured: &mut [(String, RowFigures)]) {
    let of = |rounds: &[Round], what: fn(&Round) -> f64| Figures(rounds.iter().map(what).collect());
    let limit = measured.iter().find(|(name, _)| name == LIMIT).expect("it takes part").1.fast.clone();
    for (_, figures) in measured {
        figures.cpu_ratio = of(&figures.fast, |round| round.cpu_us).over(&of(&limit, |round| round.cpu_us));
        figures.wall_ratio = of(&figures.fast, |round| round.wall_us).over(&of(&limit, |round| round.wall_us));
    }
}

/// Allocations per event, and their bytes: the difference of two runs of different length, which is the steady state. None
/// without the library that counts.
fn allocations(options: &Options, ground: &mut Ground<'_>, start: &Start<'_>) -> Option<(f64, f64)> {
    let library = options.peers.as_ref()?.join("count_allocations.so");
    let counts = tempfile::NamedTempFile::new().ok()?;
    let variable = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
    let mut run = |events: usize| {
        std::fs::write(counts.path(), [0; 16]).ok()?;
        ground.environment = vec![
            variable("LD_PRELOAD", &library),
            variable("ALLOCATIONS_FILE", counts.path()),
            ("PYTHONMALLOC".into(), "malloc".into()), // or Python uses its own allocator
        ];
        let mut contender = start(ground);
        ground.round(&mut contender, events, 0);
        contender.end();
        ground.environment.clear();
        let bytes = std::fs::read(counts.path()).ok()?;
        let number = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?) as f64);
        Some((number(0)?, number(8)?))
    };
    let ((few, few_bytes), (many, many_bytes)) = (run(20)?, run(60)?);
    Some(((many - few) / 40.0, (many_bytes - few_bytes) / 40.0))
}
