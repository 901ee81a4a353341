//! The promise: with `spool.key_file` the flash of a stolen box shows neither faces nor names; a key that is missing or another
//! one costs no event but by the bounds, stops no upload, and is named.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::http::get;
use crate::common::sink::OK;
use crate::common::{Daemon, RingProducer, Sink, event, make_key, picture, program, publish, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::ring::producer::{NewEvent, Producer};

const RING: u64 = 16 << 20;

/// What people must not find.
const NAME: &str = "王芳-Wang Fang";
const TEXTS: [&str; 6] = [NAME, "ID-4711-0815", "night shift", "group-77", "10.11.12.13", "corridor B"];
const PICTURES: [&str; 4] =
    ["astronaut-reg-60k.jpg", "cameraman-spot-100k.jpg", "chelsea-reg-15k.jpg", "astronaut-8k.jpg"];

fn photograph(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// What of the events that [`publish_people`] publishes can be found in these bytes.
fn found_in(bytes: &[u8]) -> BTreeSet<String> {
    let jpeg = bytes.windows(11).any(|at| at.starts_with(b"\xFF\xD8\xFF") && (at[6..].starts_with(b"JFIF\0")));
    let mut found: BTreeSet<String> = jpeg.then(|| "a JPEG marker".to_owned()).into_iter().collect();
    found.extend(TEXTS.iter().filter(|text| contains(bytes, text.as_bytes())).map(|text| (*text).to_owned()));
    for name in PICTURES {
        let picture = photograph(name);
        // From its middle, where no two pictures are the same.
        let parts = [picture.len() / 3, picture.len() / 2].map(|at| picture[at..at + 24].to_vec());
        found.extend(parts.iter().filter(|part| contains(bytes, part)).map(|_| format!("a part of {name}")));
    }
    found
}

fn publish_people(recognizer: &mut RingProducer) {
    for pair in PICTURES.chunks(2) {
        let pictures = [photograph(pair[0]), photograph(pair[1])];
        let person = NewEvent {
            identity_id: TEXTS[1].as_bytes(),
            identity_name: NAME.as_bytes(),
            group_name: TEXTS[2].as_bytes(),
            group_id: TEXTS[3].as_bytes(),
            device_ip: TEXTS[4].as_bytes(),
            ext_json: br#"{"place": "corridor B"}"#,
            ..event(&pictures[0], &pictures[1])
        };
        publish(recognizer, &person);
    }
}

/// A box whose server is away; what was published lies on its flash.
struct Outage {
    home: Home,
    port: ClosedPort,
    recognizer: RingProducer,
}

impl Outage {
    fn new() -> Outage {
        let home = Home::new();
        let recognizer = Producer::open(&home.ring(), RING).unwrap();
        Outage { home, port: ClosedPort::new(), recognizer }
    }

    /// The same, with a key and an uplink that has sealed what the recognizer published.
    fn with_sealed_people() -> (Outage, Daemon) {
        let mut here = Outage::new();
        make_key(&here.home.key());
        here.configure(true);
        let daemon = Daemon::restart(&here.home);
        publish_people(&mut here.recognizer);
        here.home.wait_released();
        (here, daemon)
    }

    fn configure(&self, is_sealed: bool) {
        if is_sealed {
            self.home.configure_sealed(&[self.port.url()]);
        } else {
            self.home.configure(&[self.port.url()], json!({}));
        }
    }

    /// Spools that many small events.
    fn spool(&mut self, count: usize) {
        let daemon = Daemon::restart(&self.home);
        daemon.wait_attached();
        for _ in 0..count {
            publish(&mut self.recognizer, &event(b"", b""));
        }
        self.home.wait_released();
        daemon.terminate();
    }

    fn server(&self) -> Sink {
        Sink::on(self.port.open(), |_, _| OK)
    }
}

fn spool_status(daemon: &Daemon) -> Value {
    get(daemon.api(), "/api/status").json()["spool"].clone()
}

/// How many files of the spool are sealed, and how many in clear.
fn forms(home: &Home) -> (usize, usize) {
    let versions = home.spooled_files().into_iter().map(|path| home.spooled_event(&path).unwrap()[8]);
    let (sealed, clear): (Vec<u8>, Vec<u8>) = versions.partition(|version| *version == 2);
    (sealed.len(), clear.len())
}

#[test]
fn a_file_system_with_a_sealed_spool_shows_neither_faces_nor_names() {
    let has_mke2fs = Command::new("mke2fs").arg("-V").output().is_ok();
    if !has_mke2fs {
        println!("SKIPPED: the image of a file system, only its files are looked at: apt-get install e2fsprogs");
    }
    let mut shown = Vec::new();
    for is_sealed in [true, false] {
        let mut here = Outage::new();
        make_key(&here.home.key());
        here.configure(is_sealed);
        let daemon = Daemon::restart(&here.home);
        publish_people(&mut here.recognizer);
        here.home.wait_released();
        daemon.terminate();
        assert_eq!(here.home.spooled_files().len(), PICTURES.len() / 2);
        let mut bytes = Vec::new();
        if has_mke2fs {
            let image = here.home.folder.path().join("image");
            let mut command = Command::new("mke2fs");
            command.args(["-q", "-t", "ext4", "-d"]).arg(here.home.spool()).arg(&image).arg("8M");
            assert!(command.output().unwrap().status.success());
            let blocks = fs::read(image).unwrap();
            bytes =
                blocks.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0)).collect::<Vec<_>>().concat();
        }
        here.home.spooled_files().iter().for_each(|path| bytes.extend(fs::read(here.home.spool().join(path)).unwrap()));
        shown.push(found_in(&bytes));
    }
    let control = shown.pop().unwrap();
    // The group has a name, so that its id is no part of what is sent; it is in the record all the same.
    assert_eq!(control.len(), 1 + TEXTS.len() + PICTURES.len(), "the control: {control:?}");
    assert_eq!(shown.pop().unwrap(), BTreeSet::new());
}

#[test]
fn sealed_events_are_delivered_as_they_were() {
    let (here, daemon) = Outage::with_sealed_people();
    let sealed = here.home.spooled_files().len();
    daemon.kill();
    let sink = here.server();
    let daemon = Daemon::restart(&here.home);
    here.home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((sealed as u64, stopped.acknowledged, stopped.quarantined), (2, 2, 0));
    for request in sink.received() {
        let pair = &PICTURES[2 * (request.headers["x-event-id"].ends_with("-2") as usize)..][..2];
        assert_eq!(request.json()["identity_name"], NAME);
        let body = String::from_utf8(request.body).unwrap();
        assert!(body.contains("corridor B"));
        for name in pair {
            use base64::Engine as _;
            assert!(body.contains(&base64::engine::general_purpose::STANDARD.encode(photograph(name))), "{name}");
        }
    }
}

#[test]
fn without_its_key_nothing_is_written_in_clear_and_uploads_go_on() {
    let mut here = Outage::new();
    let sink = Sink::start();
    here.home.configure_sealed(&[here.port.url(), sink.url()]);
    let daemon = Daemon::restart(&here.home);
    daemon.wait_log("spool.key_file cannot be read: No such file");
    assert_eq!(spool_status(&daemon)["is_usable"], false);
    for number in 1..=5 {
        publish(&mut here.recognizer, &event(b"", b""));
        sink.wait(number);
    }
    daemon.wait_log("events stay in the ring, uploads go on");
    let problem = spool_status(&daemon)["problem"].to_string();
    assert!(problem.contains("spool.key_file") && !problem.contains(here.home.key().to_str().unwrap()), "{problem}");
    assert_eq!(here.home.spooled_files(), Vec::<std::path::PathBuf>::new());
    make_key(&here.home.key()); // found by the next try, without a word
    here.home.wait_released();
    assert_eq!(forms(&here.home), (5, 0));
    assert_eq!(spool_status(&daemon)["problem"], Value::Null);
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.spooled), (5, 5), "{}", stopped.log);
}

#[test]
fn events_sealed_with_another_key_stay_until_it_is_back() {
    let mut here = Outage::new();
    make_key(&here.home.key());
    here.configure(true);
    here.spool(300);
    let old = here.home.folder.path().join("old.key");
    fs::rename(here.home.key(), &old).unwrap();
    make_key(&here.home.key());
    let sink = here.server();
    let daemon = Daemon::restart(&here.home);
    daemon.wait_log("are sealed with the key");
    publish(&mut here.recognizer, &event(b"", b""));
    sink.wait(1);
    wait_until("the count of what is locked", || spool_status(&daemon)["locked"] == 300);
    let status = get(daemon.api(), "/api/status").json();
    assert_eq!((&status["shares"]["quarantined"], &status["spool"]["set_aside"]), (&json!(0), &json!(0)));
    assert_eq!(status["destinations"][0]["backlog"]["unreadable"], 300);
    assert_eq!(forms(&here.home), (300, 0));
    fs::rename(&old, here.home.key()).unwrap();
    daemon.signal(Signal::SIGHUP);
    sink.wait(301);
    here.home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.quarantined, stopped.spooled), (301, 0, 0), "{}", stopped.log);
}

#[test]
fn sealed_events_go_out_when_their_key_comes_after_the_uplink_started() {
    let mut here = Outage::new();
    make_key(&here.home.key());
    here.configure(true);
    here.spool(3);
    let away = here.home.folder.path().join("away");
    fs::rename(here.home.key(), &away).unwrap();
    let sink = here.server();
    let daemon = Daemon::restart(&here.home);
    daemon.wait_log("are sealed with the key");
    fs::rename(&away, here.home.key()).unwrap(); // nothing is published, nothing is told to the uplink
    sink.wait(3);
    here.home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 3);
}

#[test]
fn who_deletes_the_key_has_erased_the_spool() {
    let (here, daemon) = Outage::with_sealed_people();
    daemon.kill();
    fs::remove_file(here.home.key()).unwrap();
    let sink = here.server();
    for is_new in [false, true] {
        if is_new {
            make_key(&here.home.key());
        }
        let daemon = Daemon::restart(&here.home);
        daemon.wait_log("2 spooled events are sealed with the key");
        daemon.terminate();
    }
    assert!(sink.received().is_empty());
    let everything =
        here.home.spooled_files().into_iter().flat_map(|path| fs::read(here.home.spool().join(path)).unwrap());
    assert_eq!(found_in(&everything.collect::<Vec<_>>()), BTreeSet::new());
}

#[test]
fn a_spool_can_hold_both_and_sealing_can_be_turned_on_and_off_by_a_reload() {
    let mut here = Outage::new();
    make_key(&here.home.key());
    here.configure(false);
    let daemon = Daemon::restart(&here.home);
    daemon.wait_attached();
    publish(&mut here.recognizer, &event(b"", b""));
    here.home.wait_released();
    for (number, is_sealed) in [(1, true), (2, false)] {
        here.configure(is_sealed);
        daemon.signal(Signal::SIGHUP);
        wait_until("the reload", || daemon.log().matches("config read again").count() == number);
        publish(&mut here.recognizer, &event(b"", b""));
        here.home.wait_released();
    }
    assert_eq!(forms(&here.home), (1, 2));
    // Off: what is in clear goes, the sealed one stays and is named.
    let sink = here.server();
    daemon.wait_log("are sealed with the key");
    sink.wait(2);
    here.configure(true);
    daemon.signal(Signal::SIGHUP);
    sink.wait(3);
    here.home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 3);
}

#[test]
fn check_config_names_a_key_that_does_not_do_and_does_not_call_the_config_bad() {
    let here = Outage::new();
    here.configure(true);
    let (code, said) = here.home.check_config();
    assert!(code == Some(0) && said.contains("spool.key_file cannot be read"), "{said}");
    make_key(&here.home.key());
    assert_eq!(here.home.check_config(), (Some(0), String::new()));
}

#[test]
fn dead_letters_that_are_sealed_are_listed_without_the_key_and_sent_again_with_it() {
    let here = Outage::new();
    make_key(&here.home.key());
    let sink = Sink::with(|_, number| if number == 0 { crate::common::Answer::Status(422, "") } else { OK });
    here.home.configure_sealed(&[here.port.url(), sink.url()]);
    let mut recognizer = here.recognizer;
    let home = &here.home;
    // The other destination's file is the letter's: an event that is spooled before it is refused.
    let daemon = Daemon::restart(home);
    daemon.wait_attached();
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    home.wait_released();
    wait_until("the dead letter", || get(daemon.api(), "/api/status").json()["spool"]["dead_letters"] == 1);
    daemon.terminate();
    let command = |words: &[&str]| {
        let output = Command::new(program("sophon-uplink")).args(words).arg("--config").arg(home.config()).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let away = home.folder.path().join("away");
    fs::rename(home.key(), &away).unwrap();
    let list = command(&["dead", "list"]);
    assert!(list.contains("-1  (sealed)") && list.contains(&sink.url()) && !list.contains("王芳"), "{list}");
    assert!(command(&["spool", "--json"]).contains("\"sealed\":true"));
    assert!(command(&["dead", "resend", "--all"]).starts_with('1'));
    fs::rename(&away, home.key()).unwrap();
    let daemon = Daemon::restart(home);
    sink.wait(2);
    daemon.terminate();
    assert_eq!(sink.received().iter().map(|request| request.sequence()).collect::<Vec<_>>(), [1, 1]);
}

/// The uplink's private memory while its uploads hang in the middle of large events out of the spool.
fn memory_with_uploads_that_hang(is_sealed: bool) -> (u64, u64) {
    let mut here = Outage::new();
    make_key(&here.home.key());
    here.configure(is_sealed);
    let daemon = Daemon::restart(&here.home);
    daemon.wait_attached();
    let idle = daemon.rss_anon_kib();
    for seed in 0..4 {
        let pictures = [picture(2 << 20, seed), picture(2 << 20, seed + 10)];
        publish(&mut here.recognizer, &event(&pictures[0], &pictures[1]));
        here.home.wait_released();
    }
    daemon.terminate();
    // It takes connections and never reads: the rest of each request stays here.
    let _server = here.port.open();
    let daemon = Daemon::restart(&here.home);
    wait_until("the uploads", || {
        get(daemon.api(), "/api/status").json()["destinations"][0]["in_flight"].as_u64() >= Some(3)
    });
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(daemon.rss_anon_kib());
        std::thread::sleep(Duration::from_millis(10));
    }
    (idle, most)
}

#[test]
fn memory_does_not_depend_on_the_size_of_a_sealed_event() {
    let (idle, clear) = memory_with_uploads_that_hang(false);
    let (_, sealed) = memory_with_uploads_that_hang(true);
    println!(
        "RssAnon: idle {idle} KiB, three hanging uploads of 4 MiB out of the spool {clear} KiB, sealed {sealed} KiB"
    );
    assert!(sealed.saturating_sub(idle) <= 1024, "idle {idle} KiB, sealed {sealed} KiB");
}

#[test]
fn an_uplink_without_its_key_and_with_nothing_to_write_does_nothing() {
    let mut here = Outage::new();
    here.configure(true);
    let daemon = Daemon::restart(&here.home);
    publish(&mut here.recognizer, &event(b"", b""));
    daemon.wait_log("events stay in the ring");
    let sink = here.server();
    sink.wait(1);
    here.home.wait_released();
    std::thread::sleep(Duration::from_millis(1100)); // until the pause after the failure is over
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(500));
    let spent = ticks() - before;
    assert!(spent <= 10, "{spent} of 50 ticks");
    daemon.terminate();
}
