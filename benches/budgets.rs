//! The budgets of docs/benchmarks.md that need an optimised build: `scripts/test budgets`. RssAnon idle, and with four uploads
//! of 4 MiB pictures on their way. (CPU time against the limit is `scripts/bench`.)
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

fn main() {
    if !memory() {
        std::process::exit(1);
    }
}

// --- memory ---------------------------------------------------------------------------------------------------------

fn memory() -> bool {
    // Reads heads and no bodies until it is told to: the uploads hang in the middle.
    let sink = Sink::start(Sink::read_heads_then_wait);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let ring = folder.path().join("ring");
    let mut recognizer: Producer<RingFile> = Producer::open(&ring, 64 << 20).unwrap();
    let uplink = start_uplink(folder.path(), &ring, sink.address);
    while RingState::of(&ring).unwrap().consumer.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(500)); // idle is when nothing happens
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

fn start_uplink(folder: &Path, ring: &Path, address: SocketAddr) -> Uplink {
    let config = folder.join("uplink.json");
    let url = format!("http://{address}/RealTimeEvent");
    std::fs::write(&config, json!({ "rings": [ring], "event_server_url": [url] }).to_string()).unwrap();
    let mut command = Command::new(uplink());
    Uplink(command.arg("run").arg("--config").arg(&config).stderr(Stdio::null()).spawn().unwrap())
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
