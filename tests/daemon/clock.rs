//! The promise: the wall clock decides nothing but what is printed, and when TLS may begin. It may be in 1970, and jump by
//! decades.
//!
//! libfaketime makes the clock: Debian's package `libfaketime`. Where it is not installed, the test says so and is skipped.

mod randomness;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::daemon::Home;
use crate::common::meter::{Meter, publish_paced};
use crate::common::tls_server::TlsServer;
use crate::common::{Daemon, Sink, event, picture, program, publish_many, wait_until};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
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
    let began = Instant::now();
    let daemon = clock.start(&home.config());
    daemon.wait_attached();
    let attached = Instant::now();
    assert!(daemon.log().starts_with("1970-01-01T00:00:05"), "the clock is not faked: {}", daemon.log());
    assert_eq!(daemon.status()["clock_is_set"], false);
    server.latencies(&publish(20));
    home.wait_done(); // an answer that the server's end cuts off would make one event more

    for step in 0..crate::common::count("SOPHON_CLOCK_STEPS", 4) {
        server.close();
        publish(20);
        home.wait_released();
        clock.set(["+50y", "-50y", "+0", "1970-01-01 00:00:05"][step as usize % 4]);
        assert_eq!(daemon.status()["clock_is_set"], step % 2 == 0);
        // The back-off goes on at its own pace: neither at once for ever, nor never.
        let before = failed_tries(&daemon);
        let stepped = crate::common::Naps::start();
        wait_until("another try", || failed_tries(&daemon) > before);
        assert!(stepped.passed() < SOON, "the next try came after {:?}", stepped.passed());
        let tries = failed_tries(&daemon);
        assert!(tries < 60 * (step + 1), "{tries} tries: the pauses are gone");
        assert_eq!(home.spooled_files().len(), 20, "nothing is given up");

        server.open();
        home.wait_done();
        server.latencies(&publish(20)); // and live events come
        home.wait_done();
    }
    let at_least = attached.elapsed().as_secs_f64();
    let told = daemon.status()["uptime_seconds"].as_f64().unwrap();
    let at_most = began.elapsed().as_secs_f64();
    assert!((at_least..at_most).contains(&told), "{told} s up, but it was {at_least} to {at_most} s");
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.evicted, stopped.dead), (stopped.read, 0, 0));
    assert_eq!(server.arrivals().len() as u64, stopped.read, "each once");
}

#[test]
fn uploads_over_tls_wait_until_the_clock_is_set_and_go_on_by_themselves() {
    let Some(library) = libfaketime() else {
        println!("SKIPPED: uploads_over_tls_wait: no libfaketime here (apt-get install libfaketime)");
        return;
    };
    let (home, plain) = (Home::new(), Sink::start());
    let clock = Clock { library, file: home.folder.path().join("clock") };
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(home.folder.path().join("ca.pem"), own.cert.pem()).unwrap();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&secret).unwrap();
    let server = TlsServer::showing(CertifiedKey::new(vec![own.cert.der().clone()], key));
    let url = format!("https://localhost:{}/x", server.port);
    let came = |count: usize| {
        server.requests.wait("what waited", |requests| (requests.len() >= count).then_some(()));
        assert_eq!(server.requests.look(Vec::len), count, "each once");
    };
    home.configure(&[url.clone(), plain.url()], json!({ "tls": { "ca_file": "ca.pem" } }));
    clock.set("1970-01-01 00:00:05");
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = clock.start(&home.config());
    let told = || daemon.status()["destinations"][0].clone();
    wait_until("the state", || told()["state"] == "clock not set");
    publish_many(&mut recognizer, 5);
    plain.wait(5); // what needs no clock does not wait
    wait_until("the events in the spool", || home.spooled_for(&url).len() == 5);
    home.wait_released();
    let status = told();
    assert!(status["last_error"].as_str().unwrap().contains("clock is not set"), "{status}");
    assert_eq!(status["last_error_code"], "clock_not_set", "{status}");
    let labels = format!("{{destination=\"1\",server=\"https://localhost:{}\"}}", server.port);
    let metrics = crate::common::http::get(daemon.api(), "/metrics").body;
    assert!(metrics.contains(&format!("sophon_uplink_destination_waits_for_clock{labels} 1")), "{metrics}");
    let tested = crate::common::http::post_json(daemon.api(), "/api/test-event", &json!({})).json();
    assert!(tested["results"][0]["error"].as_str().unwrap().contains("clock is not set"), "{tested}");
    assert_eq!(tested["results"][1]["delivered"], true);
    assert_eq!(server.connections.look(|(came, _)| *came), 0, "nobody was asked for a certificate");

    clock.set("+0");
    came(5);
    home.wait_done();
    assert_eq!((told()["state"].clone(), told()["last_error"].clone()), (json!("up"), Value::Null));
    clock.set("1970-01-01 00:00:05"); // and is lost again
    publish_many(&mut recognizer, 1);
    wait_until("the event in the spool", || home.spooled_for(&url).len() == 1);
    clock.set("+0");
    came(6);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries, stopped.dead), (2 * stopped.read, 0, 0), "{}", stopped.log);
}
