//! The budgets of docs/benchmarks.md that need an optimised build: `cargo bench --bench budgets`.
//!
//! CPU time of the uplink for an event against a plain loop in a process of its own that writes the same, already encoded bytes
//! on one kept-alive socket. Both are measured in turn in one run, so that a noisy machine disturbs both; the medians' ratio is
//! the figure. Then memory: RssAnon idle, and with four uploads of 4 MiB pictures on their way.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use sophon_uplink::ring::file::RingFile;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::{NewEvent, Producer};

const EVENTS: u64 = 500;
const ROUNDS: usize = 9;
/// Bytes of the two pictures of an event: 200 KB together.
const PICTURES: [usize; 2] = [60_000, 140_000];
const CPU_BUDGET: f64 = 1.25;
const IDLE_BUDGET_KIB: u64 = 1536;
const GROWTH_BUDGET_KIB: u64 = 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(position) = arguments.iter().position(|argument| argument == "--limit") {
        return limit(arguments[position + 1].parse().unwrap(), arguments[position + 2].parse().unwrap());
    }
    cpu();
    if !memory() {
        std::process::exit(1);
    }
}

// --- CPU ------------------------------------------------------------------------------------------------------------

/// Prints only: on a machine with two cores, shared with the sink and the recognizer, the figure moves too much to fail a run.
fn cpu() {
    let sink = Sink::start(Sink::answer_all);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let ring = folder.path().join("ring");
    let mut recognizer = Producer::open(&ring, 16 << 20).unwrap();
    let uplink = start_uplink(folder.path(), &ring, sink.address);
    let body_length: usize = PICTURES.map(|length| length.div_ceil(3) * 4).iter().sum::<usize>() + 400;
    let mut socket_loop = SocketLoop::start(sink.address, body_length);
    let event = |pictures: &'static [Vec<u8>; 2]| NewEvent {
        identity_id: b"100001",
        identity_name: b"Ada Lovelace",
        device_type: -1,
        score: 0.9,
        reg_pic: &pictures[0],
        spot_pic: &pictures[1],
        ..NewEvent::default()
    };
    let pictures: &'static [Vec<u8>; 2] = Box::leak(Box::new(PICTURES.map(random_bytes)));
    let mut uplink_round = |pause: Duration, events: u64| {
        let before = cpu_nanoseconds(uplink.0.id());
        for _ in 0..events {
            while !recognizer.has_room(&event(pictures)) {
                thread::sleep(Duration::from_micros(200));
            }
            recognizer.publish(&event(pictures)).unwrap();
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
        while RingState::of(&ring).unwrap().used > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        (cpu_nanoseconds(uplink.0.id()) - before) as f64 / events as f64 / 1000.0
    };
    uplink_round(Duration::ZERO, 100);
    socket_loop.round(100, Duration::ZERO);
    for (name, pause, events) in
        [("at saturation", Duration::ZERO, EVENTS), ("paced, 5 ms", Duration::from_millis(5), 100)]
    {
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(uplink_round(pause, events));
            limits.push(socket_loop.round(events, pause));
        }
        let mut ratios: Vec<f64> = ours.iter().zip(&limits).map(|(ours, limit)| ours / limit).collect();
        let (ours, limit, ratio) = (median(&mut ours), median(&mut limits), median(&mut ratios));
        println!(
            "CPU an event of 200 KB, {name}: uplink {ours:.0} µs, socket loop {limit:.0} µs, ratio {ratio:.2} \
             ({:.2} to {:.2} over {ROUNDS} rounds)",
            ratios[0],
            ratios[ROUNDS - 1]
        );
        if pause.is_zero() {
            println!("  budget {CPU_BUDGET}: {}", verdict(ratio <= CPU_BUDGET));
        }
    }
}

/// The limit: writes the same bytes again and again; started as a process of its own, it obeys lines on stdin.
fn limit(address: SocketAddr, body_length: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    // As many different events as the ring holds: they come from memory, and not from the cache, as an event from another
    // process does.
    let requests: Vec<Vec<u8>> = (0..64u8)
        .map(|number| {
            let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {body_length}\r\n\r\n");
            [head.into_bytes(), vec![b'A' + number; body_length]].concat()
        })
        .collect();
    let mut requests = requests.iter().cycle();
    let mut answer = [0; 4096];
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (count, pause) = line.split_once(' ').unwrap();
        for _ in 0..count.parse::<u64>().unwrap() {
            stream.write_all(requests.next().unwrap()).unwrap();
            assert!(stream.read(&mut answer).unwrap() > 0);
            if pause != "0" {
                thread::sleep(Duration::from_micros(pause.parse().unwrap()));
            }
        }
        println!("done");
    }
}

struct SocketLoop {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl SocketLoop {
    fn start(address: SocketAddr, body_length: usize) -> SocketLoop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--limit", &address.to_string(), &body_length.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        SocketLoop { child, answers }
    }

    /// CPU microseconds a request.
    fn round(&mut self, count: u64, pause: Duration) -> f64 {
        let before = cpu_nanoseconds(self.child.id());
        writeln!(self.child.stdin.as_mut().unwrap(), "{count} {}", pause.as_micros()).unwrap();
        self.answers.read_line(&mut String::new()).unwrap();
        (cpu_nanoseconds(self.child.id()) - before) as f64 / count as f64 / 1000.0
    }
}

impl Drop for SocketLoop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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

fn start_uplink(folder: &Path, ring: &Path, address: SocketAddr) -> Uplink {
    let config = folder.join("uplink.json");
    let url = format!("http://{address}/RealTimeEvent");
    std::fs::write(&config, json!({ "rings": [ring], "event_server_url": [url] }).to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sophon-uplink"));
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

    /// Counts bytes and answers 200, for ever.
    fn answer_all(stream: TcpStream, heads: Arc<AtomicU64>) {
        stream.set_nodelay(true).unwrap();
        let mut output = stream.try_clone().unwrap();
        let mut input = BufReader::with_capacity(256 << 10, stream);
        while let Some(mut left) = Sink::read_head(&mut input) {
            heads.fetch_add(1, Ordering::Relaxed);
            while left > 0 {
                let available = input.fill_buf().unwrap().len();
                if available == 0 {
                    return;
                }
                let taken = available.min(left);
                input.consume(taken);
                left -= taken;
            }
            if output.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
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

/// CPU time of all threads of a process, to the nanosecond.
fn cpu_nanoseconds(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

/// Sorts.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn verdict(held: bool) -> &'static str {
    if held { "held" } else { "NOT HELD" }
}
