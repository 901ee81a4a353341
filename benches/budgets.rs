//! Checks the budgets of docs/benchmarks.md that need an optimised build: `scripts/test budgets`. Measures RssAnon when idle and
//! during four uploads of 4 MiB pictures, and how often the uplink wakes an idle box. (`scripts/bench` measures CPU time against
//! the limit.)
#![allow(missing_docs)]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use sophon_uplink::ring::file::RingFile;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::{NewEvent, Producer};

const IDLE_BUDGET_KIB: u64 = 1536;
const GROWTH_BUDGET_KIB: u64 = 1024;

/// Budgets of wake-ups per second, for all threads together.
const WAKE_UPS: [(&str, usize, bool, f64); 3] = [
    ("one ring", 1, false, 1.0),
    ("sixteen rings", 16, false, 2.0),
    ("a destination down, with a backlog", 1, true, 3.0),
];
const COUNTED: Duration = Duration::from_secs(20);

fn main() {
    let is_held = WAKE_UPS.map(|(what, rings, is_down, most)| wake_ups(what, rings, is_down, most));
    if !memory() || is_held.contains(&false) {
        std::process::exit(1);
    }
}

// --- memory ---------------------------------------------------------------------------------------------------------

fn memory() -> bool {
    // The sink reads heads and no bodies, so the uploads stop in the middle.
    let sink = Sink::start(Sink::read_heads_then_wait);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let ring = folder.path().join("ring");
    let mut recognizer: Producer<RingFile> = Producer::open(&ring, 64 << 20).unwrap();
    let uplink = start_uplink(folder.path(), std::slice::from_ref(&ring), sink.address);
    wait_attached(&ring);
    thread::sleep(Duration::from_millis(500)); // let the start settle
    let idle = rss_anon_kib(uplink.0.id());
    let picture = random_bytes(4 << 20);
    let event = NewEvent { score: 1.0, device_type: -1, reg_pic: &picture, ..NewEvent::default() };
    (0..8).for_each(|_| assert!(recognizer.publish(&event).is_ok()));
    while sink.heads.load(Ordering::Relaxed) < 4 {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(500)); // until the sockets are full
    let loaded = rss_anon_kib(uplink.0.id());
    let growth = loaded.saturating_sub(idle);
    println!("RssAnon idle: {idle} KiB, budget {IDLE_BUDGET_KIB}: {}", verdict(idle <= IDLE_BUDGET_KIB));
    println!(
        "RssAnon growth with four 4 MiB pictures in flight: {growth} KiB, budget {GROWTH_BUDGET_KIB}: {}",
        verdict(growth <= GROWTH_BUDGET_KIB)
    );
    idle <= IDLE_BUDGET_KIB && growth <= GROWTH_BUDGET_KIB
}

// --- wake-ups -------------------------------------------------------------------------------------------------------

/// Whether an uplink with this many rings, and with an unreachable server if `is_down`, stays within its budget of wake-ups.
fn wake_ups(what: &str, rings: usize, is_down: bool, most: f64) -> bool {
    let sink = Sink::start(Sink::read_heads_then_wait);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let paths: Vec<PathBuf> = (0..rings).map(|ring| folder.path().join(format!("ring{ring}"))).collect();
    let mut recognizers: Vec<Producer<RingFile>> =
        paths.iter().map(|path| Producer::open(path, 1 << 20).unwrap()).collect();
    let uplink = start_uplink(folder.path(), &paths, if is_down { closed } else { sink.address });
    paths.iter().for_each(|path| wait_attached(path));
    if is_down {
        let event = NewEvent { score: 1.0, device_type: -1, reg_pic: &[7; 20_000], ..NewEvent::default() };
        (0..20).for_each(|_| assert!(recognizers[0].publish(&event).is_ok()));
    }
    // Wait until the start has settled, and begin between two checks of the ring, which happen every five seconds.
    thread::sleep(Duration::from_millis(7500));
    let before = voluntary_switches(uplink.0.id());
    thread::sleep(COUNTED);
    let found = (voluntary_switches(uplink.0.id()) - before) as f64 / COUNTED.as_secs_f64();
    println!("wake-ups a second, {what}: {found:.2}, budget {most}: {}", verdict(found <= most));
    found <= most
}

/// How often the process's threads have gone to sleep.
fn voluntary_switches(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    status.map(count).sum()
}

fn rss_anon_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

// --- shared ---------------------------------------------------------------------------------------------------------

struct Uplink(Child);

impl Drop for Uplink {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The package's program, or that of another build (`SOPHON_BIN_DIR`).
fn uplink() -> PathBuf {
    let folder = std::env::var_os("SOPHON_BIN_DIR").map(PathBuf::from);
    folder.map_or_else(|| env!("CARGO_BIN_EXE_sophon-uplink").into(), |folder| folder.join("sophon-uplink"))
}

fn start_uplink(folder: &Path, rings: &[PathBuf], address: SocketAddr) -> Uplink {
    let config = folder.join("uplink.json");
    let url = format!("http://{address}/RealTimeEvent");
    let written = json!({ "rings": rings, "event_server_url": [url], "spool": { "dir": folder.join("spool") }, "api": { "listen": "127.0.0.1:0" } });
    std::fs::write(&config, written.to_string()).unwrap();
    let mut command = Command::new(uplink());
    Uplink(command.arg("run").arg("--config").arg(&config).stderr(Stdio::null()).spawn().unwrap())
}

/// Waits until the uplink reads the ring.
fn wait_attached(ring: &Path) {
    while RingState::of(ring).unwrap().consumer.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
}

struct Sink {
    address: SocketAddr,
    heads: Arc<AtomicU64>,
}

impl Sink {
    fn start(serve: fn(TcpStream, Arc<AtomicU64>)) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sink = Sink { address: listener.local_addr().unwrap(), heads: Arc::default() };
        let heads = Arc::clone(&sink.heads);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heads = Arc::clone(&heads);
                thread::spawn(move || serve(stream, heads));
            }
        });
        sink
    }

    fn read_heads_then_wait(stream: TcpStream, heads: Arc<AtomicU64>) {
        let mut input = BufReader::new(stream);
        if Sink::read_head(&mut input).is_some() {
            heads.fetch_add(1, Ordering::Relaxed);
            thread::park();
        }
    }

    fn read_head(input: &mut impl BufRead) -> Option<usize> {
        let mut length = None;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                return length;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            }
        }
    }
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "NOT HELD" }
}
