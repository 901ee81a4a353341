//! The promise: no input and no neighbour makes the uplink fall over, fill the memory or flood the log.

mod output;
mod signals;

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::{Answer, Daemon, Sink, event, picture, publish};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::config::Timeouts;
use sophon_uplink::deliver::deadline::Deadline;
use sophon_uplink::deliver::failure::Code;
use sophon_uplink::deliver::{tls, transport};
use sophon_uplink::ring::Memory;
use sophon_uplink::ring::layout::Word;
use sophon_uplink::ring::producer::{NewEvent, Producer};

const RING: u64 = 1 << 20;

/// A port where nobody listens.
fn dead_url() -> String {
    format!("http://{}/", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

fn rss_anon_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn an_address_that_no_event_may_go_to_is_refused_when_it_is_connected_to() {
    // Past the config's check, as a name would lead there.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tls = tls::client_config(&Default::default()).unwrap();
    let (long, memory) = (Duration::from_secs(60), Arc::default());
    let timeouts = Timeouts { connect: long, progress: long, response: long, connection_age: long };
    for uri in ["http://169.254.169.254/", "http://[fe80::1]:80/", "http://0.0.0.0:9/", "https://[::ffff:169.254.1.1]/"]
    {
        let parsed = uri.parse().unwrap();
        let failure = runtime.block_on(async {
            let deadline = Deadline::new(timeouts.connect);
            transport::connect(&parsed, Arc::clone(&tls), transport::Route::default(), timeouts, &memory, &deadline)
                .await
                .err()
                .unwrap()
        });
        assert_eq!(failure.code, Code::AddressForbidden, "{uri}: {failure}");
    }
}

#[test]
fn an_ext_json_with_very_many_members_costs_neither_time_nor_the_event() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 8 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let many = |count: usize| {
        let members: Vec<_> = (0..count).map(|number| format!("\"{number:x}\":1")).collect();
        format!("{{{}}}", members.join(","))
    };
    for (count, kept) in [(20_000, 20_000), (300_000, 0)] {
        publish(&mut recognizer, &NewEvent { ext_json: many(count).as_bytes(), ..event(b"", b"") });
        let requests = sink.wait_for("the event", |requests| {
            requests.iter().any(|request| request.sequence() == if kept > 0 { 1 } else { 2 })
        });
        assert_eq!(requests.last().unwrap().json()["ext_data"].as_object().unwrap().len(), kept);
    }
    home.wait_done();
    let stopped = daemon.terminate(); // within 2 s
    assert!(stopped.log.contains("ext_json left out"), "{}", stopped.log);
}

#[test]
fn names_end_at_4_kib_and_an_ext_json_beyond_256_kib_is_left_out() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 8 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    for (number, beyond) in [0, 1].into_iter().enumerate() {
        let (name, text) = ("n".repeat(4096 + beyond), "x".repeat((256 << 10) - 8 + beyond));
        let ext_json = format!(r#"{{"a":"{text}"}}"#);
        let fields = NewEvent { identity_name: name.as_bytes(), ext_json: ext_json.as_bytes(), ..event(b"", b"") };
        publish(&mut recognizer, &fields);
        let got = sink.wait(number + 1)[number].json();
        assert_eq!(got["identity_name"].as_str().unwrap().len(), 4096);
        assert_eq!(got["ext_data"].as_object().unwrap().len(), 1 - beyond, "{} bytes of ext_json", ext_json.len());
    }
    assert!(daemon.terminate().log.contains("ext_json left out"));
}

#[test]
fn ext_json_cannot_make_the_body_break_the_contract() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let deep = format!(r#"{{"deep": {}1{}, "a": 1}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let cases: [(&str, Value); 6] = [
        (r#"{"a":"\ud800","big":1e999,"good":1}"#, json!({ "good": 1 })),
        (r#"{"spot_pic":"x","device_ip":null,"device_type":7,"person_type":"2"}"#, json!({})),
        (
            r#"{"spot_pic":null,"device_ip":"10.0.0.1","device_type":"3","person_type":4,"x":null}"#,
            json!({ "device_ip": "10.0.0.1", "person_type": 4, "device_type": "3", "x": null }),
        ),
        (r#"{"a":1,"a":2}"#, json!({ "a": 2 })),
        (&deep, json!({ "a": 1 })),
        ("[]", json!({})),
    ];
    for (number, (ext_json, ext_data)) in cases.into_iter().enumerate() {
        publish(&mut recognizer, &NewEvent { ext_json: ext_json.as_bytes(), ..event(b"", b"") });
        let got = sink.wait(number + 1)[number].json();
        assert_eq!(got["ext_data"], ext_data, "{ext_json:.100}");
    }
    daemon.terminate();
}

#[test]
fn a_ring_full_of_large_texts_does_not_fill_the_memory() {
    let home = Home::new();
    let mut recognizer = Producer::open(&home.ring(), 32 << 20).unwrap();
    let daemon = Daemon::start(&home, &[dead_url()], json!({}));
    let name = vec![1; 60_000];
    let ext_json = format!(r#"{{"a": "{}"}}"#, "x".repeat(200_000));
    let large = NewEvent { identity_name: &name, ext_json: ext_json.as_bytes(), ..event(b"", b"") };
    while recognizer.publish(&large).is_ok() {}
    daemon.wait_log("Connection refused");
    let kib = rss_anon_kib(daemon.pid());
    println!("RssAnon with 32 MiB of texts waiting: {kib} KiB");
    assert!(kib < 8 << 10, "{kib} KiB");
    daemon.terminate();
}

#[test]
fn corruption_again_and_again_does_not_grow_the_memory() {
    let home = Home::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[dead_url()], json!({}));
    publish(&mut recognizer, &event(b"", b"")); // never released: everything after it has to wait
    daemon.wait_log("Connection refused");
    let ring = recognizer.memory();
    let good = ring.load(Word::Head, Ordering::Relaxed);
    let corrupt = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let before = ring.load(Word::Resyncs, Ordering::Relaxed);
            ring.store(Word::Head, good.wrapping_add(3 * RING * number), Ordering::Release);
            ring.store(Word::Publications, before + 1, Ordering::Release);
            ring.futex_wake();
            crate::common::wait_until("the corruption noticed", || {
                ring.load(Word::Resyncs, Ordering::Relaxed) > before
            });
        }
    };
    corrupt(1..200);
    let before = rss_anon_kib(daemon.pid());
    corrupt(200..3200);
    let after = rss_anon_kib(daemon.pid());
    println!("RssAnon {before} KiB, after 3000 corruptions more {after} KiB");
    assert!(after <= before + 32);
    daemon.kill();
}

#[test]
fn an_event_that_is_gone_while_it_is_read_is_not_sent() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_attached();
    daemon.signal(Signal::SIGSTOP);
    // Its header is in the page that stays, its sections are not.
    let ext = format!("{{\"a\":\"{}\"}}", "x".repeat(4200));
    let pic = picture(50_000, 1);
    publish(&mut recognizer, &NewEvent { ext_json: ext.as_bytes(), ..event(&pic, &pic) });
    std::fs::OpenOptions::new().write(true).open(home.ring()).unwrap().set_len(8192).unwrap();
    daemon.signal(Signal::SIGCONT);
    daemon.wait_log("the ring's file was truncated");
    let stopped = daemon.terminate();
    assert_eq!((stopped.read, sink.received().len()), (0, 0));
}

#[test]
fn a_living_recognizer_is_not_left_for_another_file() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(1);
    let junk = home.folder.path().join("junk");
    std::fs::write(&junk, b"junk").unwrap();
    std::fs::rename(&junk, home.ring()).unwrap();
    daemon.wait_log("its recognizer is alive");
    (0..5).for_each(|_| assert!(recognizer.publish(&event(b"", b"")).is_ok()));
    sink.wait(6);
    // It dies, and its successor sets the junk aside.
    drop(recognizer);
    daemon.wait_log("is not a usable ring");
    let mut successor = Producer::open(&home.ring(), RING).unwrap();
    publish(&mut successor, &event(b"", b""));
    sink.wait(7);
    home.wait_done();
    daemon.terminate();
}

#[test]
fn a_server_that_refuses_every_fourth_event_does_not_flood_the_log() {
    let home = Home::new();
    // One of the four that are on their way at once: never five in a row.
    let sink = Sink::with(|request, _| Answer::Status(if request.sequence() % 4 == 0 { 400 } else { 200 }, ""));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    for _ in 0..2000 {
        publish(&mut recognizer, &event(b"", b""));
    }
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.dead), (1500, 500));
    let lines = stopped.log.lines().count();
    assert!(lines < 100, "{lines} lines");
}

#[test]
fn a_log_that_is_closed_or_that_nobody_reads_does_not_stop_the_uplink() {
    for close in [true, false] {
        let home = Home::new();
        let sink = Sink::start();
        home.configure(&[sink.url()], json!({}));
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        let mut child = Command::new(crate::common::program("sophon-uplink"))
            .args(["run", "--config"])
            .arg(home.config())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = child.stderr.take().filter(|_| !close); // either closed, or open and never read
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(1);
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        // Far more lines than a pipe holds.
        for number in 2..1500 {
            nix::sys::signal::kill(pid, Signal::SIGHUP).unwrap();
            publish(&mut recognizer, &event(b"", b""));
            sink.wait(number);
        }
        home.wait_done();
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        let naps = crate::common::Naps::start();
        assert!(child.wait().unwrap().success(), "closed: {close}");
        assert!(naps.passed() < Duration::from_secs(2));
        drop(log);
    }
}

#[test]
fn a_2xx_with_a_large_head_is_an_acknowledgement() {
    let home = Home::new();
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(40_000));
    let head: &'static str = Box::leak(head.into_boxed_str());
    let sink = Sink::with(move |_, _| Answer::Raw(head));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish(&mut recognizer, &event(b"", b""));
    home.wait_done();
    assert_eq!((sink.received().len(), daemon.terminate().acknowledged), (1, 1));
}

#[test]
fn two_producers_never_both_get_the_ring_and_a_live_one_is_never_set_aside() {
    let folder = crate::common::shm();
    let path = folder.path().join("ring");
    for round in 0..500 {
        std::fs::write(&path, b"junk").unwrap();
        let barrier = std::sync::Barrier::new(2);
        let alive = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    barrier.wait();
                    let opened = Producer::open(&path, 65536);
                    match &opened {
                        Ok(_) => drop(alive.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
                    }
                    barrier.wait();
                });
            }
        });
        assert!(alive.into_inner() <= 1, "two live producers in round {round}");
    }
}

#[test]
fn a_ring_with_holes_that_is_taken_over_gets_its_pages() {
    use std::os::unix::fs::MetadataExt;
    let folder = crate::common::shm();
    let path = folder.path().join("ring");
    drop(Producer::open(&path, RING).unwrap());
    let header = std::fs::read(&path).unwrap()[..4096].to_vec();
    std::fs::write(&path, header).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096 + RING).unwrap();
    drop(Producer::open(&path, RING).unwrap());
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= RING);
}

#[test]
fn each_thing_that_is_mended_has_its_line_in_the_log() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let gbk: &[u8] = &[0xD5, 0xC5, 0xCE, 0xB0]; // a name in GBK
    let long = "张".repeat(2000);
    let cases: [(NewEvent<'_>, &[&str]); 8] = [
        (
            NewEvent { identity_name: gbk, group_name: gbk, ..event(b"", b"") },
            &["identity_name is not UTF-8", "group_name is not UTF-8"],
        ),
        (
            NewEvent { identity_id: long.as_bytes(), ..event(b"", b"") }, // and is UTF-8: the seventh event is not
            &["identity_id was cut off: 4095 of its 6000 bytes"],
        ),
        (NewEvent { ext_json: b"{\"dept\": \"\xD1\xD0\"}", ..event(b"", b"") }, &["ext_json is not UTF-8"]),
        (
            NewEvent { ext_json: br#"{"a": 1, "device_type": 0, "person_type": "2"}"#, ..event(b"", b"") },
            &[
                r#"a member of ext_json was left out: "device_type": it is no string from "0" to "4" (and 1 members more)"#,
            ],
        ),
        (NewEvent { ext_json: br#"{"a": 1,}"#, ..event(b"", b"") }, &["ext_json left out: trailing comma"]),
        (NewEvent { timestamp_ms: 1_700_000_000_000_000, ..event(b"", b"") }, &["timestamp 1700000000000 s goes out"]),
        (NewEvent { identity_id: b"\xFF", ..event(b"", b"") }, &["identity_id is not UTF-8"]),
        (
            NewEvent { device_ip: b"\xFF", group_name: b"", group_id: b"\xFF", ..event(b"", b"") },
            &["device_ip is", "group_id is"],
        ),
    ];
    for (number, (mended, said)) in cases.iter().enumerate() {
        let before = daemon.log();
        publish(&mut recognizer, mended);
        sink.wait(number + 1);
        for said in *said {
            assert!(!before.contains(said), "{said}");
            daemon.wait_log(said);
        }
    }
    let received = sink.received();
    let name = received[1].json()["identity_id"].as_str().unwrap().to_owned();
    assert!(name.len() == 4095 && name.chars().all(|letter| letter == '张'), "cut between two characters");
    assert_eq!(received[3].json()["ext_data"], json!({ "a": 1 }));
    // The same again and again: a line now and then, with the count.
    assert_eq!(daemon.status()["events_mended"], 8);
    for _ in 0..500 {
        publish(&mut recognizer, &NewEvent { identity_name: gbk, ..event(b"", b"") });
    }
    home.wait_done();
    let stopped = daemon.terminate();
    let lines = stopped.log.lines().filter(|line| line.contains("identity_name is not UTF-8")).count();
    assert!(lines <= 4, "{lines} lines");
    assert!(!stopped.log.contains('张'), "no name is in the log");
}

#[test]
fn a_spool_that_is_full_does_not_flood_the_log() {
    let home = Home::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let spool = json!({ "dir": home.spool(), "min_free_bytes": 0, "max_bytes": 1 << 20 });
    let daemon = Daemon::start(&home, &[dead_url()], json!({ "spool": spool }));
    let pic = picture(20_000, 1);
    for _ in 0..300 {
        publish(&mut recognizer, &event(&pic, b""));
    }
    home.wait_released();
    let evicted = daemon.status()["shares"]["evicted"].as_u64().unwrap();
    assert!(evicted > 200, "{evicted}");
    let stopped = daemon.terminate();
    let lines = stopped.log.lines().filter(|line| line.contains("the oldest were given up")).count();
    assert!((1..=4).contains(&lines), "{lines} lines\n{}", stopped.log);
}

#[test]
fn two_entries_that_lead_to_one_ring_are_named_and_it_is_read_once() {
    let home = Home::new();
    let sink = Sink::start();
    let folder = home.folder.path();
    std::fs::create_dir(folder.join("inner")).unwrap();
    std::os::unix::fs::symlink(folder, folder.join("link")).unwrap();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    std::fs::hard_link(home.ring(), folder.join("second")).unwrap();
    let others = [folder.join("inner/../events"), folder.join("link/events"), folder.join("second")];
    let rings: Vec<_> = std::iter::once(home.ring()).chain(others.iter().cloned()).collect();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "rings": rings }));
    for other in &others {
        daemon.wait_log(&format!("{} is the same ring as {}", other.display(), home.ring().display()));
    }
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(1);
    home.wait_done();
    let checked =
        Command::new(crate::common::program("sophon-uplink")).arg("check-config").arg(home.config()).output().unwrap();
    let said = String::from_utf8(checked.stdout).unwrap() + &String::from_utf8(checked.stderr).unwrap();
    assert!(checked.status.success() && said.contains("rings[3]: the same ring as rings[0]"), "{said}");
    assert_eq!(daemon.status()["rings"].as_array().unwrap().len(), 4);
    assert_eq!(daemon.terminate().acknowledged, 1);
    // It is not there yet, and comes: the same.
    drop(recognizer);
    std::fs::remove_file(home.ring()).unwrap();
    std::fs::remove_file(folder.join("second")).unwrap();
    let daemon = Daemon::restart(&home);
    daemon.wait_log("waiting: there is no ring");
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(2);
    home.wait_done();
    assert_eq!(daemon.terminate().read, 1);
}
