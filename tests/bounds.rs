//! The promise: the spool stays within its bounds at every moment, the oldest events go first, counted and said; and while every
//! server is up, not one byte is written.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::daemon::Home;
use common::meter::{Meter, Moment};
use common::mounted::Mounted;
use common::{Daemon, RingProducer, event, picture, publish};
use nix::sys::signal::Signal;
use serde_json::json;
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
    let mut random = fastrand::Rng::with_seed(common::seed());
    let (home, servers) = (Home::new(), [Meter::start(), Meter::start()]);
    servers.iter().for_each(Meter::close);
    let mut recognizer = Producer::open(&home.ring(), MIB).unwrap();
    let spool = json!({ "dir": home.spool(), "max_bytes": MIB, "min_free_bytes": 0 });
    let urls: Vec<_> = servers.iter().map(Meter::url).collect();
    let daemon = Daemon::start(&home, &urls, json!({ "spool": spool }));
    daemon.wait_attached();
    let mut most = 0;
    let times = common::count("SOPHON_SPOOL_TIMES", 5);
    let last = publish_bytes(&mut recognizer, &mut random, times * MIB, || {
        let used = daemon.frozen(|| disk_usage(&home.spool()));
        most = most.max(used);
        assert!(used <= MIB, "{used} bytes");
    });
    println!("max_bytes {MIB}: at most {most} were used while {times} times that was published");
    assert!(most > MIB * 3 / 4, "the bound was not even come near: {most}");
    assert_the_newest_come(&home, daemon, &servers, last);
}

#[test]
fn others_are_left_their_free_bytes_also_when_they_need_more() {
    let Some(mounted) = Mounted::new("6m") else {
        println!("SKIPPED: others_are_left_their_free_bytes: mounting is not allowed here");
        return;
    };
    let mut random = fastrand::Rng::with_seed(common::seed());
    let (home, servers) = (Home::new(), [Meter::start()]);
    servers[0].close();
    let mut recognizer = Producer::open(&home.ring(), MIB).unwrap();
    let spool = json!({ "dir": mounted.path().join("spool"), "max_bytes": 256 * MIB, "min_free_bytes": 2 * MIB });
    std::os::unix::fs::symlink(mounted.path().join("spool"), home.spool()).unwrap(); // for who looks into it
    let daemon = Daemon::start(&home, &[servers[0].url()], json!({ "spool": spool }));
    daemon.wait_attached();
    let mut least = u64::MAX;
    let mut look = || {
        let free = daemon.frozen(|| mounted.free_bytes());
        least = least.min(free);
        assert!(free >= 2 * MIB, "{free} bytes are left");
    };
    publish_bytes(&mut recognizer, &mut random, 8 * MIB, &mut look);
    home.wait_released();
    // Others take 1 MiB: what is spooled next has to make room for it.
    std::fs::write(mounted.path().join("others"), vec![1; MIB as usize]).unwrap();
    publish_bytes(&mut recognizer, &mut random, MIB / 8, || ());
    home.wait_released();
    let last = publish_bytes(&mut recognizer, &mut random, 2 * MIB, &mut look);
    println!("min_free_bytes {}: at least {least} were free", 2 * MIB);
    assert!(least < 2 * MIB + MIB / 2, "the bound was not even come near: {least}");
    assert_the_newest_come(&home, daemon, &servers, last);
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
        common::wait_until("an emptier ring", || RingState::of(&home.ring()).unwrap().used < 3 * MIB / 2);
        publish(&mut recognizer, &event(&reg, &spot));
    }
    home.wait_done();
    assert_eq!(home.spooled_files().len(), 0);
    assert_eq!(daemon.status()["spool"]["bytes_written"], 0);
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.written), (2 * EVENTS, 0));
    assert_eq!(disk_usage(&home.spool()), 0, "no file at all");
}
