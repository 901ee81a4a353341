//! The promise: the wall clock decides nothing but what is printed. It may be in 1970, and jump by decades.
//!
//! libfaketime makes the clock: Debian's package `libfaketime`. Where it is not installed, the test says so and is skipped.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::daemon::Home;
use common::meter::{Meter, publish_paced};
use common::{Daemon, event, picture, program, wait_until};
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

/// Pauses of the first failures are shorter, whatever the dice say.
const SOON: Duration = Duration::from_secs(20);

fn libfaketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|folder| folder.path().join("faketime"));
    folders.map(|folder| folder.join("libfaketimeMT.so.1")).find(|path| path.exists())
}

/// A clock that a program reads from a file.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// `time` as libfaketime takes it: a moment at which the clock stands still, or a distance from the true time.
    fn set(&self, time: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, time).unwrap();
        std::fs::rename(new, &self.file).unwrap(); // never half a time
    }

    fn start(&self, config: &Path) -> Daemon {
        let mut command = Command::new(program("sophon-uplink"));
        command.arg("run").arg("--config").arg(config).env("LD_PRELOAD", &self.library).env("TZ", "UTC");
        command
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        Daemon::spawn(&mut command)
    }
}

fn failed_tries(daemon: &Daemon) -> u64 {
    daemon.status()["shares"]["failed_tries"].as_u64().unwrap()
}

/// `SOPHON_CLOCK_STEPS` raises the count for soak campaigns.
#[test]
fn a_clock_that_is_not_set_and_jumps_by_decades_evicts_nothing_and_stalls_nothing() {
    let Some(library) = libfaketime() else {
        println!("SKIPPED: a_clock_that_is_not_set_and_jumps: no libfaketime here (apt-get install libfaketime)");
        return;
    };
    let (home, server) = (Home::new(), Meter::start());
    let clock = Clock { library, file: home.folder.path().join("clock") };
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let pic = picture(3000, 1);
    let mut publish = |count| publish_paced(&mut recognizer, &event(&pic, b""), count, Duration::from_millis(1));
    home.configure(&[server.url()], json!({}));
    clock.set("1970-01-01 00:00:05");
    let daemon = clock.start(&home.config());
    let began = Instant::now();
    daemon.wait_attached();
    assert!(daemon.log().starts_with("1970-01-01T00:00:05"), "the clock is not faked: {}", daemon.log());
    assert_eq!(daemon.status()["clock_is_set"], false);
    server.latencies(&publish(20));

    for step in 0..common::count("SOPHON_CLOCK_STEPS", 4) {
        server.close();
        publish(20);
        home.wait_released();
        clock.set(["+50y", "-50y", "+0", "1970-01-01 00:00:05"][step as usize % 4]);
        assert_eq!(daemon.status()["clock_is_set"], step % 2 == 0);
        // The back-off goes on at its own pace: neither at once for ever, nor never.
        let before = failed_tries(&daemon);
        let stepped = Instant::now();
        wait_until("another try", || failed_tries(&daemon) > before);
        assert!(stepped.elapsed() < SOON, "the next try came after {:?}", stepped.elapsed());
        let tries = failed_tries(&daemon);
        assert!(tries < 60 * (step + 1), "{tries} tries: the pauses are gone");
        assert_eq!(home.spooled_files().len(), 20, "nothing is given up");

        server.open();
        home.wait_done();
        server.latencies(&publish(20)); // and live events come
    }
    let status = daemon.status();
    let (told, true_time) = (status["uptime_seconds"].as_f64().unwrap(), began.elapsed().as_secs_f64());
    assert!((told - true_time).abs() < 5.0, "{told} s up, but it was {true_time} s");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.evicted, stopped.dead), (stopped.read, 0, 0));
    assert_eq!(server.arrivals().len() as u64, stopped.read, "each once");
}
