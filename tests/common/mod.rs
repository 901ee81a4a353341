//! What the tests share: the real daemon in a process of its own, a scripted server on a real socket, a recognizer.
//!
//! Nothing waits for a time: every wait is for a condition, with a bound that only a failure reaches.
#![allow(dead_code, unused_imports)] // each test program uses its part

pub mod books;
pub mod closed_port;
pub mod confined;
pub mod daemon;
pub mod hanging;
pub mod http;
pub mod kernel;
pub mod meter;
pub mod moody;
pub mod mounted;
pub mod naps;
pub mod short_run;
pub mod sink;
pub mod tls_server;
pub mod traced;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sophon_uplink::ring::file::RingFile;
use sophon_uplink::ring::producer::{NewEvent, Producer};

pub use daemon::Daemon;
pub use naps::Naps;
pub use sink::{Answer, Request, Sink};

/// What only a failure reaches.
pub const BOUND: Duration = Duration::from_secs(60);

/// A folder on tmpfs, where rings live.
pub fn shm() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sophon-test-").tempdir_in("/dev/shm").expect("/dev/shm is there")
}

/// A value that a thread changes and another one waits on.
#[derive(Default)]
pub struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner) // a test that fails still shows what it knows
    }

    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `found` finds something.
    #[track_caller]
    pub fn wait<R>(&self, what: &str, mut found: impl FnMut(&mut T) -> Option<R>) -> R {
        let began = Instant::now();
        let mut value = self.lock();
        loop {
            if let Some(result) = found(&mut value) {
                return result;
            }
            let left = BOUND.checked_sub(began.elapsed()).unwrap_or_else(|| panic!("{what} did not come"));
            value = self.changed.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Waits for what no condition variable tells of, as another process's file.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < BOUND, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A JPEG in name: the markers around bytes that depend on `seed`.
pub fn picture(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length.max(8)];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes[..4].copy_from_slice(&[0xFF, 0xD8, 0xFF, 0xE0]);
    bytes
}

/// Makes a new key file, as an operator would.
pub fn make_key(path: &Path) {
    let _old = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    let secret: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(32).collect();
    file.write_all(&secret).unwrap();
}

/// An event like any other.
pub fn event<'a>(reg_pic: &'a [u8], spot_pic: &'a [u8]) -> NewEvent<'a> {
    NewEvent {
        identity_id: b"17",
        identity_name: "王芳".as_bytes(),
        group_name: b"staff",
        group_id: b"3",
        timestamp_ms: 1_700_000_000_123,
        score: 0.75,
        device_type: -1,
        reg_pic,
        spot_pic,
        ..NewEvent::default()
    }
}

/// A seed for what a test randomises: from the environment variable `SEED`, or new; always printed.
pub fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    seed
}

/// A count that soak campaigns raise: from the environment variable `name`.
pub fn count(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

pub type RingProducer = Producer<RingFile>;

/// Publishes as soon as there is room.
#[track_caller]
pub fn publish(producer: &mut RingProducer, event: &NewEvent<'_>) -> u64 {
    wait_until("room in the ring", || producer.has_room(event));
    producer.publish(event).unwrap()
}

/// Publishes events without pictures.
#[track_caller]
pub fn publish_many(producer: &mut RingProducer, count: usize) {
    for _ in 0..count {
        publish(producer, &event(b"", b""));
    }
}

/// One of the package's programs, or the one of another build (`SOPHON_BIN_DIR`, as for a sanitizer).
pub fn program(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("SOPHON_BIN_DIR") {
        return Path::new(&folder).join(name);
    }
    let built = match name {
        "sophon-uplink" => env!("CARGO_BIN_EXE_sophon-uplink"),
        "fake-recognizer" => env!("CARGO_BIN_EXE_fake-recognizer"),
        "event-receive-server" => env!("CARGO_BIN_EXE_event-receive-server"),
        other => panic!("no program {other}"),
    };
    Path::new(built).to_owned()
}

/// This program again, for one of its tests alone: a test that is a process of its own. `module` is the test's `module_path!()`.
pub fn own_test(module: &str, test: &str) -> Command {
    let (_program, module) = module.split_once("::").expect("a test in a module");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}"), "--nocapture", "--test-threads=1"]);
    command
}

/// What a test was about when it failed.
pub struct Said<'a>(pub &'a str);

impl Drop for Said<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was: {}", self.0);
        }
    }
}
