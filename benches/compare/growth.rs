//! How cost grows with the size of pictures, the number of destinations, the size of the ring, the number of spooled events, and
//! the distance of the server.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::Options;
use super::compare::RING;
use super::contender::{Contender, Ground};
use super::measure::{Cores, Figures};
use super::plot::{Axis, Line, Panel};
use super::sink::Sink;
use super::source::Pictures;

/// Rounds for each point; the median counts.
const ROUNDS: usize = 5;

/// The name of a plot, and its panels.
pub type Plot = (&'static str, Vec<Panel>);

/// The settings of the measurements.
pub struct Field<'a> {
    pub options: &'a Options,
    pub cores: &'a Cores,
    pub certificates: &'a Path,
}

impl Field<'_> {
    /// All plots.
    pub fn all(&self) -> Vec<Plot> {
        vec![
            self.plot("picture-size", Self::picture_size),
            self.plot("destinations", Self::destinations),
            self.plot("ring", Self::ring),
            self.plot("spool", Self::spool),
            self.plot("latency", Self::latency),
        ]
    }

    fn plot(&self, name: &'static str, measure: fn(&Self) -> Vec<Panel>) -> Plot {
        println!("measuring how cost grows: {name}");
        (name, measure(self))
    }

    /// Events with `size` bytes of pictures, for a sink that answers after `delay`.
    fn with<R>(&self, size: usize, delay: Duration, work: impl FnOnce(&mut Ground<'_>) -> R) -> R {
        let mut sink = Sink::start(self.certificates, delay);
        let pictures = Pictures::new(size);
        work(&mut Ground::new(self.cores, &mut sink, &pictures, self.certificates))
    }

    fn picture_size(&self) -> Vec<Panel> {
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for size in [1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000, 4_000_000, 8_000_000] {
            self.with(size, Duration::ZERO, |ground| {
                let count = (20_000_000 / size).clamp(8, 1000);
                let uplink = ground.uplink("uplink", &self.options.uplink, RING.max(4 * size as u64), json!({}));
                ours.push((size as f64 / 1000.0, cpu(ground, uplink, 1, count)));
                let limit = ground.limit();
                limits.push((size as f64 / 1000.0, cpu(ground, limit, 1, count)));
            });
        }
        vec![Panel {
            title: "Size of an event's pictures",
            x: Axis { label: "KB", is_log: true },
            y: Axis { label: "CPU µs an event", is_log: true },
            lines: vec![Line { name: "sophon-uplink", points: ours }, Line { name: "limit", points: limits }],
        }]
    }

    fn destinations(&self) -> Vec<Panel> {
        let (mut cpus, mut memory) = (Vec::new(), Vec::new());
        self.with(200_000, Duration::ZERO, |ground| {
            for count in 1..=8 {
                let urls: Vec<_> = (0..count).map(|number| format!("{}/{number}", ground.sink.url(false))).collect();
                let mut uplink =
                    ground.uplink("uplink", &self.options.uplink, RING, json!({ "event_server_url": urls }));
                ground.round_to(count, &mut uplink, 20, 0);
                let rounds: Vec<_> = (0..ROUNDS).map(|_| ground.round_to(count, &mut uplink, 60, 0)).collect();
                uplink.end();
                cpus.push((count as f64, Figures(rounds.iter().map(|round| round.cpu_us).collect()).median()));
                memory.push((count as f64, rounds.iter().map(|round| round.rss_kib).max().unwrap_or_default() as f64));
            }
        });
        let x = || Axis { label: "destinations", is_log: false };
        vec![
            panel("Destinations of an event of 200 KB", x(), "CPU µs an event", "sophon-uplink", cpus),
            panel("The same: private memory", x(), "RssAnon, KiB", "sophon-uplink", memory),
        ]
    }

    fn ring(&self) -> Vec<Panel> {
        let (mut cpus, mut memory) = (Vec::new(), Vec::new());
        self.with(20_000, Duration::ZERO, |ground| {
            for mib in [1, 4, 16, 64, 256] {
                let mut uplink = ground.uplink("uplink", &self.options.uplink, mib << 20, json!({}));
                ground.round(&mut uplink, 200, 0);
                let rounds: Vec<_> = (0..ROUNDS).map(|_| ground.round(&mut uplink, 500, 0)).collect();
                uplink.end();
                cpus.push((mib as f64, Figures(rounds.iter().map(|round| round.cpu_us).collect()).median()));
                memory.push((mib as f64, rounds.iter().map(|round| round.rss_kib).max().unwrap_or_default() as f64));
            }
        });
        let x = || Axis { label: "MiB of ring", is_log: true };
        vec![
            panel("Size of the ring, events of 20 KB", x(), "CPU µs an event", "sophon-uplink", cpus),
            panel("The same: private memory", x(), "RssAnon, KiB", "sophon-uplink", memory),
        ]
    }

    /// A spool that fills for an unreachable destination beside a reachable one: the cost of a start and of a live event.
    fn spool(&self) -> Vec<Panel> {
        let folder = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there");
        let closed =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let (mut starts, mut cpus, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        let most = if self.options.is_quick { 1_000 } else { 100_000 };
        self.with(1_000, Duration::ZERO, |ground| {
            let spool = json!({ "dir": folder.path(), "max_bytes": 1_u64 << 31, "min_free_bytes": 0 });
            let urls = [ground.sink.url(false), format!("http://{closed}/")];
            let mut filled = 0;
            for wanted in [0, most / 100, most / 10, most / 2, most] {
                let more = json!({ "spool": spool, "event_server_url": urls });
                let mut fill = ground.uplink("uplink", &self.options.uplink, RING, more.clone());
                while filled < wanted {
                    let part = (wanted - filled).min(2000);
                    ground.round(&mut fill, part, 0);
                    filled += part;
                }
                fill.end();
                let mut uplink = ground.uplink("uplink", &self.options.uplink, RING, more);
                let first = ground.round(&mut uplink, 1, 0); // published while it starts
                starts.push((wanted as f64, first.latencies_us.median() / 1000.0));
                let rounds: Vec<_> = (0..ROUNDS).map(|_| ground.round(&mut uplink, 20, 5000)).collect();
                filled += 1 + 20 * ROUNDS;
                cpus.push((wanted as f64, Figures(rounds.iter().map(|round| round.cpu_us).collect()).median()));
                memory.push((wanted as f64, rounds.iter().map(|round| round.rss_kib).max().unwrap_or_default() as f64));
                uplink.end();
            }
        });
        let x = || Axis { label: "events in the spool", is_log: false };
        vec![
            panel("From start to the first event", x(), "ms", "sophon-uplink", starts),
            panel("A live event that is spooled too", x(), "CPU µs an event", "sophon-uplink", cpus),
            panel("The same: private memory", x(), "RssAnon, KiB", "sophon-uplink", memory),
        ]
    }

    /// Events at full speed, for a server that answers late.
    fn latency(&self) -> Vec<Panel> {
        let (mut rates, mut four, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for delay_ms in [1_u32, 10, 50, 100, 250, 500, 1000] {
            let delay = Duration::from_millis(delay_ms.into());
            self.with(200_000, delay, |ground| {
                let mut uplink = ground.uplink("uplink", &self.options.uplink, 64 << 20, json!({}));
                // Warm up until it has the maximum number of parallel uploads: the number doubles with each answer.
                ground.round(&mut uplink, 100, 0);
                let count = 96;
                let rounds: Vec<_> = (0..2).map(|_| ground.round(&mut uplink, count, 0)).collect();
                uplink.end();
                let wall = Figures(rounds.iter().map(|round| round.wall_us).collect()).median();
                // The last event counts as delivered when it is answered.
                let seconds = wall * count as f64 / 1e6 + f64::from(delay_ms) / 1e3;
                rates.push((delay_ms.into(), count as f64 / seconds));
                four.push((delay_ms.into(), 4000.0 / f64::from(delay_ms)));
                memory
                    .push((delay_ms.into(), rounds.iter().map(|round| round.rss_kib).max().unwrap_or_default() as f64));
            });
        }
        let x = || Axis { label: "ms until the server answers", is_log: true };
        let lines =
            vec![Line { name: "sophon-uplink", points: rates }, Line { name: "four uploads at once", points: four }];
        let rate = Panel {
            title: "A server that is far away",
            x: x(),
            y: Axis { label: "events of 200 KB a second", is_log: true },
            lines,
        };
        vec![rate, panel("The same: private memory", x(), "RssAnon, KiB", "sophon-uplink", memory)]
    }
}

/// The median CPU time per event, in microseconds. Ends the contender.
fn cpu(ground: &mut Ground<'_>, mut contender: Contender, destinations: usize, count: usize) -> f64 {
    ground.round_to(destinations, &mut contender, count.min(50), 0);
    let rounds = (0..ROUNDS).map(|_| ground.round_to(destinations, &mut contender, count, 0).cpu_us).collect();
    contender.end();
    Figures(rounds).median()
}

fn panel(title: &'static str, x: Axis, y: &'static str, name: &'static str, points: Vec<(f64, f64)>) -> Panel {
    Panel { title, x, y: Axis { label: y, is_log: false }, lines: vec![Line { name, points }] }
}
