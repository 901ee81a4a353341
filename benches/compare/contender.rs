//! The contenders: the limit, sophon-uplink, and what a user would use instead.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::measure::{self, Cores, Figures};
use super::sink::Sink;
use super::source::{Files, Pictures, Ring, Source};

/// The reference for all others.
pub const LIMIT: &str = "limit";
/// The contender with the budget.
pub const UPLINK: &str = "sophon-uplink, JSON";

/// What all contenders of a comparison share.
pub struct Ground<'a> {
    pub cores: &'a Cores,
    pub sink: &'a mut Sink,
    pub pictures: &'a Pictures,
    pub is_tls: bool,
    /// The folder with `ca.pem`.
    pub certificates: &'a Path,
    /// Environment of the measured process.
    pub environment: Vec<(String, String)>,
    /// Whether to sample its memory, which costs it a little time.
    pub watches_memory: bool,
}

/// A process that uploads.
pub struct Contender {
    pub name: String,
    child: Child,
    source: Source,
    /// Its ring, config or pictures. Removed when this is dropped.
    _folder: tempfile::TempDir,
}

/// The results of a round, per event.
#[derive(Clone, Debug, Default)]
pub struct Round {
    pub cpu_us: f64,
    pub wall_us: f64,
    /// From publish to the last byte at the sink.
    pub latencies_us: Figures,
    /// Maximum private memory of the process, if sampled.
    pub rss_kib: u64,
}

impl<'a> Ground<'a> {
    /// Over HTTP, with memory sampled.
    pub fn new(cores: &'a Cores, sink: &'a mut Sink, pictures: &'a Pictures, certificates: &'a Path) -> Ground<'a> {
        Ground { cores, sink, pictures, is_tls: false, certificates, environment: Vec::new(), watches_memory: true }
    }

    /// The limit: writes encoded bytes.
    pub fn limit(&self) -> Contender {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let body = self.pictures.encoded() + 300; // plus the rest of the JSON
        command.args(["--limit", &self.sink.url(self.is_tls), &body.to_string()]).arg(self.certificates.join("ca.pem"));
        self.start(temporary_folder(), LIMIT, command, Source::Lines)
    }

    /// The real binary. `more` is added to its config.
    pub fn uplink(&self, name: &str, program: &Path, capacity: u64, more: Value) -> Contender {
        let mut config = json!({
            "event_server_url": [self.sink.url(self.is_tls)],
            "tls": { "ca_file": self.certificates.join("ca.pem") },
        });
        extend(&mut config, more);
        start_uplink(self.cores, &self.environment, name, program, capacity, config)
    }

    /// A small program that reads pictures from files.
    pub fn peer(&self, name: &str, program: &Path) -> Contender {
        let mut command = Command::new(program);
        command.arg(self.sink.url(self.is_tls)).arg(self.certificates.join("ca.pem"));
        let folder = temporary_folder();
        let files = Files::new(folder.path(), self.pictures);
        self.start(folder, name, command, Source::Files(files))
    }

    fn start(&self, folder: tempfile::TempDir, name: &str, command: Command, source: Source) -> Contender {
        start(self.cores, &self.environment, folder, name, command, source)
    }

    /// Sends `count` events as fast as the contender takes them, or one every `pace_us`.
    pub fn round(&mut self, contender: &mut Contender, count: usize, pace_us: u64) -> Round {
        self.round_to(1, contender, count, pace_us)
    }

    /// The same, with each event going to several destinations.
    pub fn round_to(&mut self, destinations: usize, contender: &mut Contender, count: usize, pace_us: u64) -> Round {
        let pid = contender.pid();
        let (began, cpu) = (measure::now(), measure::cpu_of(pid));
        let mut work = || {
            let published: Vec<u64> = (0..count as u64)
                .map(|number| {
                    measure::sleep_until(began + number * pace_us * 1000);
                    contender.publish(self.pictures)
                })
                .collect();
            let arrivals = self.sink.wait(count * destinations);
            contender.source.settle();
            (published, arrivals)
        };
        let ((published, arrivals), rss_kib) =
            if self.watches_memory { measure::with_most_memory(pid, work) } else { (work(), 0) };
        let cpu = measure::cpu_of(pid) - cpu;
        let (least, name) = (self.pictures.encoded() as u64, &contender.name);
        assert!(arrivals.iter().all(|arrival| arrival.length >= least), "{name} sent less than the pictures");
        let mut came: Vec<u64> = arrivals.iter().map(|arrival| arrival.at).collect();
        came.sort_unstable();
        let wall = came[came.len() - 1] - published[0];
        let latency = |(came, published): (&u64, &u64)| came.saturating_sub(*published) as f64 / 1000.0;
        Round {
            cpu_us: cpu as f64 / 1000.0 / count as f64,
            wall_us: wall as f64 / 1000.0 / count as f64,
            latencies_us: Figures(came.iter().zip(&published).map(latency).collect()),
            rss_kib,
        }
    }
}

impl Contender {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Publishes an event as soon as there is room for it. Returns the time, in nanoseconds of [`measure::now`].
    pub fn publish(&mut self, pictures: &Pictures) -> u64 {
        self.source.publish(self.child.stdin.as_mut().expect("piped"), pictures)
    }

    /// Waits until it has finished all published events.
    pub fn settle(&self) {
        self.source.settle();
    }

    /// Stops it as its user would, and waits until it has ended.
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        if let Source::Ring(_) = self.source {
            kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM).expect("it lives");
        }
        let _ = self.child.wait();
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the real binary with a ring of `capacity` bytes. Its spool is in its temporary folder unless `config` says otherwise.
pub fn start_uplink(
    cores: &Cores,
    environment: &[(String, String)],
    name: &str,
    program: &Path,
    capacity: u64,
    config: Value,
) -> Contender {
    let folder = temporary_folder();
    let ring = folder.path().join("ring");
    let mut whole = json!({
        "rings": [ring],
        "spool": { "dir": folder.path().join("spool"), "min_free_bytes": 0 },
        "api": { "listen": "127.0.0.1:0" },
    });
    extend(&mut whole, config);
    let file = folder.path().join("uplink.json");
    std::fs::write(&file, whole.to_string()).expect("a temporary folder");
    let source = Source::Ring(Ring::new(ring, capacity));
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(&file);
    start(cores, environment, folder, name, command, source)
}

fn start(
    cores: &Cores,
    environment: &[(String, String)],
    folder: tempfile::TempDir,
    name: &str,
    mut command: Command,
    source: Source,
) -> Contender {
    command.envs(environment.iter().cloned()).stdin(Stdio::piped()).stdout(Stdio::null());
    if let Source::Ring(_) = source {
        command.stderr(Stdio::null()); // its log
    }
    let child = cores.measured(|| command.spawn());
    let child = child.unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
    Contender { name: name.into(), child, source, _folder: folder }
}

fn extend(config: &mut Value, more: Value) {
    config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
}

fn temporary_folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sophon-bench-").tempdir_in("/dev/shm").expect("/dev/shm is there")
}

/// A peer in `folder`: its name with version, and its program; or how to get it. scripts/bench writes these files.
pub fn peer_program(folder: &Path, name: &str) -> Result<(String, PathBuf), String> {
    let said =
        |kind: &str| std::fs::read_to_string(folder.join(format!("{name}.{kind}"))).map(|text| text.trim().to_owned());
    match said("version") {
        Ok(version) => Ok((version, folder.join(name))),
        Err(_) => Err(said("missing").unwrap_or_else(|_| "scripts/bench builds it".into())),
    }
}
