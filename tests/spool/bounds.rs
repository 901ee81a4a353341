//! The promise: the spool stays within its bounds at every moment, the oldest events go first, counted and said; and while every
//! server is up, not one byte is written.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::common::daemon::Home;
use crate::common::meter::{Meter, Moment};
use crate::common::mounted::Mounted;
use crate::common::{Daemon, RingProducer, event, picture, publish};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

const MIB: u64 = 1 << 20;
/// Between two looks at the disk, in events.
const LOOK_EVERY: u64 = 2;

/// What the files below `folder` take, as `du` counts: in blocks, and a file with several names once.
fn disk_usage(folder: &Path) -> u64 {
    let (mut files, mut folders) = (HashMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            files.insert(metadata.ino(), metadata.blocks() * 512);
        }
    }
    files.into_values().sum()
}

/// Publishes `bytes` of events of random sizes, looking at the disk again and again; the number of the last one.
fn publish_bytes(recognizer: &mut RingProducer, random: &mut fastrand::Rng, bytes: u64, mut look: impl FnMut()) -> u64 {
    let all = picture(60_000, 1);
    let (mut published, mut last) = (0, 0);
    while published < bytes {
        let [reg, spot] = [random.usize(8..30_000), random.usize(8..60_000)];
        let event = event(&all[..reg], &all[..spot]);
        last = publish(recognizer, &event);
        published += event.record_len() as u64;
        if last % LOOK_EVERY == 0 {
            look();
        }
    }
    last
}

/// Everything that is left is the newest, and comes when the server is back; the rest was counted and said.
fn assert_the_newest_come(home: &Home, daemon: Daemon, servers: &[Meter], last: u64) {
    home.wait_released();
    let kept = home.spooled_sequences();
    let first = last + 1 - kept.len() as u64;
    assert!(first > 1 && kept == (first..=last).collect::<BTreeSet<_>>(), "of {last}: {kept:?}");
    servers.iter().for_each(Meter::open);
    daemon.signal(Signal::SIGHUP); // instead of waiting for the end of the pause
    for server in servers {
        let arrivals = server.wait("the newest", |arrivals: &[Moment]| arrivals.len() >= kept.len());
        let got: BTreeSet<u64> = arrivals.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!((got, arrivals.len()), (kept.clone(), kept.len()), "the newest, each once");
    }
    home.wait_done();
    let count = servers.len() as u64;
    let evicted = daemon.status()["shares"]["evicted"].as_u64().unwrap();
    let stopped = daemon.terminate();
    println!(
        "{last} events to {count} servers that were down: {} are delivered, {} evicted",
        stopped.acknowledged, stopped.evicted
    );
    assert_eq!((evicted, stopped.evicted), ((first - 1) * count, (first - 1) * count));
    assert_eq!(stopped.acknowledged, kept.len() as u64 * count);
    assert!(stopped.log.contains("the spool is full: the oldest were given up"), "{}", stopped.log);
}

/// `SOPHON_SPOOL_TIMES` raises how many times the spool's size is published.
#[test]
fn the_spool_never_takes_more_than_max_bytes_and_the_newest_events_are_those_that_are_kept() {
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let (home, servers) = (Home::new(), [Meter::start(), Meter::start()]);
    servers.iter().for_each(Meter::close);
    let mut recognizer = Producer::open(&home.ring(), MIB).unwrap();
    let spool = json!({ "dir": home.spool(), "max_bytes": MIB, "min_free_bytes": 0 });
    let urls: Vec<_> = servers.iter().map(Meter::url).collect();
    let daemon = Daemon::start(&home, &urls, json!({ "spool": spool }));
    daemon.wait_attached();
    let mut most = 0;
    let times = crate::common::count("SOPHON_SPOOL_TIMES", 5);
    let last = publish_bytes(&mut recognizer, &mut random, times * MIB, || {
        let used = daemon.frozen(|| disk_usage(&home.spool()));
        most = most.max(used);
        assert!(used <= MIB, "{used} bytes");
    });
    println!("max_bytes {MIB}: at most {most} were used while {times} times that was published");
    // Room comes when the last event of a group goes, and there are few groups in so small a spool.
    assert!(most > MIB / 2, "the bound was not even come near: {most}");
    assert_the_newest_come(&home, daemon, &servers, last);
}

/// A spool on a small file system, of which it leaves 2 MiB to others.
struct SmallDisk {
    home: Home,
    recognizer: RingProducer,
    random: fastrand::Rng,
    least_free: u64,
    daemon: Daemon,
    mounted: Mounted,
}

impl SmallDisk {
    const MIN_FREE: u64 = 2 * MIB;

    /// None where mounting is not allowed.
    fn start(url: String) -> Option<SmallDisk> {
        let (mounted, home) = (Mounted::new("6m")?, Home::new());
        let random = fastrand::Rng::with_seed(crate::common::seed());
        let recognizer = Producer::open(&home.ring(), MIB).unwrap();
        let dir = mounted.path().join("spool");
        std::os::unix::fs::symlink(&dir, home.spool()).unwrap(); // for who looks into it
        let spool = json!({ "dir": dir, "max_bytes": 256 * MIB, "min_free_bytes": SmallDisk::MIN_FREE });
        let daemon = Daemon::start(&home, &[url], json!({ "spool": spool }));
        daemon.wait_attached();
        Some(SmallDisk { home, recognizer, random, least_free: u64::MAX, daemon, mounted })
    }

    /// Publishes `bytes` of events, and checks again and again what is free. Returns the number of the last event.
    fn publish(&mut self, bytes: u64) -> u64 {
        publish_bytes(&mut self.recognizer, &mut self.random, bytes, || {
            let free = self.daemon.frozen(|| self.mounted.free_bytes());
            self.least_free = self.least_free.min(free);
            assert!(free >= SmallDisk::MIN_FREE, "{free} bytes are left");
        })
    }

    fn assert_it_was_nearly_full(&self) {
        println!("min_free_bytes {}: at least {} were free", SmallDisk::MIN_FREE, self.least_free);
        assert!(self.least_free < SmallDisk::MIN_FREE + MIB / 2, "the bound was not even come near");
    }
}

#[test]
fn others_are_left_their_free_bytes_also_when_they_need_more() {
    let server = Meter::start();
    server.close();
    let Some(mut disk) = SmallDisk::start(server.url()) else {
        println!("SKIPPED: others_are_left_their_free_bytes: mounting is not allowed here");
        return;
    };
    disk.publish(8 * MIB);
    disk.home.wait_released();
    // Others take 1 MiB: what is spooled next has to make room for it.
    std::fs::write(disk.mounted.path().join("others"), vec![1; MIB as usize]).unwrap();
    publish_bytes(&mut disk.recognizer, &mut disk.random, MIB / 8, || ());
    disk.home.wait_released();
    let last = disk.publish(2 * MIB);
    disk.assert_it_was_nearly_full();
    assert_the_newest_come(&disk.home, disk.daemon, &[server], last);
}

/// The server never answers, so its uploads read events that are evicted meanwhile: their files take room until then.
#[test]
fn others_are_left_their_free_bytes_also_while_evicted_events_are_being_read() {
    let server = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap(); // nobody takes what is connected
    let Some(mut disk) = SmallDisk::start(format!("http://{}/", server.local_addr().unwrap())) else {
        println!("SKIPPED: others_are_left_their_free_bytes: mounting is not allowed here");
        return;
    };
    disk.publish(8 * MIB);
    disk.assert_it_was_nearly_full();
    let status = disk.daemon.status();
    assert!(status["shares"]["evicted"].as_u64() > Some(0), "{status}");
}

#[test]
fn while_every_server_is_up_not_one_byte_is_written() {
    const EVENTS: u64 = 3000;
    let (home, servers) = (Home::new(), [Meter::start(), Meter::start()]);
    let mut recognizer = Producer::open(&home.ring(), 4 * MIB).unwrap();
    let urls: Vec<_> = servers.iter().map(Meter::url).collect();
    let daemon = Daemon::start(&home, &urls, json!({}));
    daemon.wait_attached();
    let (reg, spot) = (picture(2000, 1), picture(6000, 2));
    for _ in 0..EVENTS {
        // A pace that keeps the ring below half full, which is where pressing would begin.
        crate::common::wait_until("an emptier ring", || RingState::of(&home.ring()).unwrap().used < 3 * MIB / 2);
        publish(&mut recognizer, &event(&reg, &spot));
    }
    home.wait_done();
    assert_eq!(home.spooled_files().len(), 0);
    assert_eq!(daemon.status()["spool"]["bytes_written"], 0);
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.written), (2 * EVENTS, 0));
    assert_eq!(disk_usage(&home.spool()), 0, "no file at all");
}

/// The spool's status, once `is_so`.
fn spool_status(daemon: &Daemon, is_so: impl Fn(&Value) -> bool) -> Value {
    crate::common::wait_until("the spool's status", || is_so(&daemon.status()["spool"]));
    daemon.status()["spool"].clone()
}

#[test]
fn max_bytes_that_is_lowered_by_a_reload_is_honoured_at_once_and_said_once() {
    let (home, server) = (Home::new(), Meter::start());
    server.close();
    let mut recognizer = Producer::open(&home.ring(), MIB).unwrap();
    let spool =
        |max_bytes: u64| json!({ "spool": { "dir": home.spool(), "max_bytes": max_bytes, "min_free_bytes": 0 } });
    let daemon = Daemon::start(&home, &[server.url()], spool(4 * MIB));
    let spot = picture(20_000, 1);
    for _ in 0..150 {
        crate::common::wait_until("room in the ring", || RingState::of(&home.ring()).unwrap().used < MIB / 2);
        publish(&mut recognizer, &event(b"", &spot));
    }
    home.wait_released();
    home.configure(&[server.url()], spool(MIB));
    daemon.signal(Signal::SIGHUP);
    spool_status(&daemon, |spool| spool["bytes"].as_u64().unwrap() <= MIB);
    assert!(disk_usage(&home.spool()) <= MIB);
    // From now on each event costs an older one: one line a minute, however many there are.
    for _ in 0..100 {
        crate::common::wait_until("room in the ring", || RingState::of(&home.ring()).unwrap().used < MIB / 2);
        publish(&mut recognizer, &event(b"", &spot));
    }
    home.wait_released();
    assert!(daemon.status()["health"]["problems"].to_string().contains("lost from the spool lately"));
    let metrics = crate::common::http::get(daemon.api(), "/metrics").body;
    assert!(metrics.contains("sophon_uplink_spool_dead_letters_evicted_total 0"), "{metrics}");
    let stopped = daemon.terminate();
    assert!(stopped.evicted > 150, "{}", stopped.evicted);
    assert_eq!(stopped.log.matches("were given up").count(), 2, "{}", stopped.log);
}

#[test]
fn inodes_are_a_bound_like_bytes_and_a_config_finds_room_to_be_saved() {
    let Some(mounted) = Mounted::new("64m,nr_inodes=400") else {
        return println!("SKIPPED: a file system of its own needs root");
    };
    let (home, server, other) = (Home::new(), Meter::start(), Meter::start());
    server.close();
    other.close();
    let mut recognizer = Producer::open(&home.ring(), MIB).unwrap();
    let dir = mounted.path().join("spool");
    std::os::unix::fs::symlink(&dir, home.spool()).unwrap(); // for who looks into it
    let more = json!({ "spool": { "dir": dir, "max_bytes": 64 * MIB, "min_free_bytes": 0 } });
    home.configure(&[server.url()], more);
    // The config lies there too, as on the box.
    let config = mounted.path().join("uplink.json");
    std::fs::copy(home.config(), &config).unwrap();
    std::fs::remove_file(home.config()).unwrap();
    std::os::unix::fs::symlink(&config, home.config()).unwrap();
    let daemon = Daemon::restart(&home);
    daemon.wait_attached();
    for _ in 0..500 {
        crate::common::wait_until("room in the ring", || RingState::of(&home.ring()).unwrap().used < MIB / 2);
        publish(&mut recognizer, &event(b"", b"small"));
    }
    home.wait_released();
    let free = || nix::sys::statvfs::statvfs(mounted.path()).unwrap().files_available() as u64;
    assert!((128..200).contains(&free()), "{} inodes are left to others", free());
    assert!(spool_status(&daemon, |_| true)["is_usable"] == true, "older events make room");
    // Somebody else takes all the rest: the spool gives way to a config, and to nothing else.
    let before = daemon.status()["spool"]["events"].as_u64().unwrap();
    let mut taken = 0;
    while std::fs::write(mounted.path().join(format!("other-{taken}")), b"").is_ok() {
        taken += 1;
    }
    let body = json!({ "event_server_url": [other.url()], "content-type": "json" });
    let answer = crate::common::http::post_json(daemon.api(), "/SophonFogSys/api/EventServerUrl", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(std::fs::read_to_string(&config).unwrap().contains(&other.url()));
    let after = daemon.status()["spool"]["events"].as_u64().unwrap();
    assert!(before - after <= 8, "{before} events, then {after}");
    daemon.wait_log("the config has no room to be saved");
    daemon.terminate();
}
