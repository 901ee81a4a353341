//! The promise: every event with a high enough score reaches every destination, or is accounted for.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::sink::OK;
use crate::common::{Answer, Daemon, RingProducer, Sink, event, picture, publish};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::{NewEvent, Producer};

const RING: u64 = 1 << 20;

fn publish_many(recognizer: &mut RingProducer, count: usize, event: &NewEvent<'_>) {
    for _ in 0..count {
        publish(recognizer, event);
    }
}

#[test]
fn an_event_arrives_with_every_field_as_it_was_published() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "headers": { "Authorization": "Bearer s3cret" } }));
    let (reg_pic, spot_pic) = (picture(100_001, 1), picture(49_152, 2));
    let sequence = publish(
        &mut recognizer,
        &NewEvent {
            identity_id: b"007",
            identity_name: "张伟 \"<b>\"\\\u{1}".as_bytes(),
            group_name: b"",
            group_id: b"g-9",
            device_ip: b"10.0.0.7",
            ext_json: br#"{"door": 3, "big": 12345678901234567890.10, "device_ip": "no", "nested": {"a": [null]}}"#,
            timestamp_ms: 1_700_000_000_999,
            score: 0.87,
            person_type: 5,
            device_type: 4,
            reg_pic: &reg_pic,
            spot_pic: &spot_pic,
            ..NewEvent::default()
        },
    );
    let request = &sink.wait(1)[0];
    assert_eq!(request.line, "POST /RealTimeEvent HTTP/1.1");
    assert_eq!(request.headers["host"], sink.address.to_string());
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["authorization"], "Bearer s3cret");
    assert_eq!(request.headers["x-event-id"], format!("{}-{sequence}", recognizer.id()));
    assert_eq!(request.headers["idempotency-key"], request.headers["x-event-id"]);
    assert!(!request.headers.contains_key("transfer-encoding") && !request.headers.contains_key("expect"));
    let text = String::from_utf8(request.body.clone()).unwrap();
    let expected = format!(
        concat!(
            r#"{{"identity_id":"007","identity_name":"\u5f20\u4f1f \"<b>\"\\\u0001","group_name":"g-9","reg_pic":"{}","#,
            r#""timestamp":1700000000,"score":0.87,"ext_data":{{"device_ip":"10.0.0.7","person_type":5,"device_type":"4","#,
            r#""door":3,"big":12345678901234567890.10,"nested":{{"a": [null]}},"spot_pic":"{}"}}}}"#
        ),
        STANDARD.encode(&reg_pic),
        STANDARD.encode(&spot_pic)
    );
    assert!(text == expected, "{} … {}", &text[..200], &text[text.len() - 200..]);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.read, stopped.acknowledged), (1, 1));
    assert!(!stopped.log.contains("s3cret"));
}

#[test]
fn form_data_milliseconds_and_no_registered_picture_are_config() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let more = json!({ "content-type": "form-data", "timestamp_unit": "ms", "real_need_reg_pic": false });
    let daemon = Daemon::start(&home, &[sink.url()], more);
    let pic = picture(1000, 1);
    publish(&mut recognizer, &event(&pic, &pic));
    let request = &sink.wait(1)[0];
    let boundary = request.headers["content-type"].strip_prefix("multipart/form-data; boundary=").unwrap().to_owned();
    assert_eq!(boundary, format!("sophon-{}", request.id()));
    let part = |name: &str, value: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let expected = [
        part("identity_id", "17"),
        part("identity_name", "王芳"),
        part("group_name", "staff"),
        part("reg_pic", ""),
        part("timestamp", "1700000000123"),
        part("score", "0.75"),
        part("ext_data", &format!("{{\"spot_pic\":\"{}\"}}", STANDARD.encode(&pic))),
        format!("--{boundary}--\r\n"),
    ];
    assert_eq!(String::from_utf8_lossy(&request.body), expected.concat());
    daemon.terminate();
}

#[test]
fn events_below_the_threshold_and_malformed_ones_are_counted_and_not_sent() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "threshold": 0.7 }));
    let pic = picture(100, 1);
    let scored = |score| NewEvent { score, ..event(&pic, &pic) };
    for score in [0.7, 0.699_999, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 0.9] {
        publish(&mut recognizer, &scored(score));
    }
    publish(&mut recognizer, &NewEvent { person_type: 6, ..scored(0.9) });
    publish(&mut recognizer, &NewEvent { device_type: -2, ..scored(0.9) });
    publish(&mut recognizer, &NewEvent { ext_json: b"[1]", identity_name: b"\xff\xc3", ..scored(0.95) });
    let scores: Vec<_> =
        sink.wait(3).iter().map(|request| (request.sequence(), request.json()["score"].clone())).collect();
    assert_eq!(scores.len(), 3);
    for expected in [(1, json!(0.7)), (7, json!(0.9)), (10, json!(0.95))] {
        assert!(scores.contains(&expected), "{scores:?}");
    }
    let last = sink.received().into_iter().find(|request| request.sequence() == 10).unwrap();
    assert_eq!(last.json()["identity_name"], "\u{FFFD}\u{FFFD}");
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.read, stopped.filtered, stopped.malformed, stopped.acknowledged), (10, 2, 5, 3));
    assert!(stopped.log.contains("sequence=3") && stopped.log.contains("its score is NaN"), "{}", stopped.log);
    assert!(stopped.log.contains("ext_json left out"), "{}", stopped.log);
}

#[test]
fn every_destination_gets_every_event_and_what_a_dead_one_lacks_waits_in_one_file_each() {
    let home = Home::new();
    let (first, second) = (Sink::start(), Sink::start());
    let dead = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let urls = [first.url(), dead.url(), second.url()];
    let daemon = Daemon::start(&home, &urls, json!({}));
    let pic = picture(5000, 1);
    publish_many(&mut recognizer, 20, &event(&pic, &pic));
    assert_eq!((first.wait(20).len(), second.wait(20).len()), (20, 20));
    daemon.wait_log("Connection refused");
    home.wait_released();
    assert_eq!(home.spooled_files().len(), 20);
    let third = Sink::on(dead.open(), |_, _| OK);
    let mut sequences: Vec<_> = third.wait(20).iter().map(crate::common::Request::sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=20).collect::<Vec<_>>());
    daemon.wait_log("up again");
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.read, stopped.acknowledged, stopped.spooled), (20, 60, 0));
    assert_eq!((first.received().len(), second.received().len()), (20, 20));
}

#[test]
fn events_of_sixteen_rings_arrive_each_under_its_rings_id() {
    let home = Home::new();
    let sink = Sink::start();
    let paths: Vec<_> = (0..16).map(|number| home.folder.path().join(format!("ring-{number}"))).collect();
    let mut recognizers: Vec<_> = paths.iter().map(|path| Producer::open(path, 1 << 16).unwrap()).collect();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "rings": paths }));
    let mut wanted = BTreeSet::new();
    for sequence in 1..=2 {
        for recognizer in &mut recognizers {
            publish(recognizer, &event(b"", b""));
            wanted.insert(format!("{}-{sequence}", recognizer.id()));
        }
    }
    let got: BTreeSet<_> = sink.wait(32).iter().map(|request| request.id().to_owned()).collect();
    assert_eq!((sink.received().len(), got), (32, wanted));
    crate::common::wait_until("the release of every event", || {
        paths.iter().all(|path| RingState::of(path).unwrap().used == 0)
    });
    assert_eq!(daemon.terminate().acknowledged, 32);
}

#[test]
fn a_failed_try_is_repeated_with_the_same_id_and_the_same_bytes() {
    let failures: [Answer; 8] = [
        Answer::Status(500, ""),
        Answer::Status(503, "Retry-After: 0\r\n"),
        Answer::Status(429, ""),
        Answer::Status(408, ""),
        Answer::Close,
        Answer::RawThenClose("HTTP/1.1 2"),
        Answer::RawThenClose("garbage\r\n\r\n"),
        Answer::RawThenClose("HTTP/1.1 600 x\r\n\r\n"),
    ];
    for failure in failures {
        let home = Home::new();
        let first = failure.clone();
        let sink = Sink::with(move |_, before| if before == 0 { first.clone() } else { OK });
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        publish(&mut recognizer, &event(&picture(70_000, 1), b""));
        let requests = sink.wait(2);
        assert_eq!((requests[0].id(), &requests[0].body), (requests[1].id(), &requests[1].body));
        home.wait_done();
        let stopped = daemon.terminate();
        assert_eq!((stopped.acknowledged, stopped.dead, stopped.failed_tries), (1, 0, 1), "{failure:?}");
    }
}

/// By one process, and after its death by the next one.
#[test]
fn a_form_is_the_same_bytes_over_a_restart() {
    let home = Home::new();
    let sink = Sink::with(|_, before| if before == 0 { Answer::Hang } else { OK });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let form = json!({ "content-type": "form-data" });
    let daemon = Daemon::start(&home, &[sink.url()], form.clone());
    let name = format!("--sophon-{}-1", recognizer.id());
    publish(&mut recognizer, &NewEvent { identity_name: name.as_bytes(), ..event(&picture(70_000, 1), b"") });
    sink.wait(1);
    daemon.kill();
    let _daemon = Daemon::start(&home, &[sink.url()], form);
    let requests = sink.wait(2);
    assert_eq!((requests[0].id(), &requests[0].body), (requests[1].id(), &requests[1].body));
    let boundary = |request: &crate::common::Request| request.headers["content-type"].clone();
    assert_eq!(boundary(&requests[0]), boundary(&requests[1]));
    assert!(boundary(&requests[0]).ends_with("-1-1"), "the name has the first choice in it");
}

#[test]
fn a_misconfigured_destination_is_named_and_tried_again_when_the_config_is_read_again() {
    for (status, advice) in
        [(302, "redirect"), (401, "Authorization"), (403, "access"), (404, "path"), (405, "path"), (407, "proxy.url")]
    {
        let home = Home::new();
        let wrong = Sink::with(move |_, _| Answer::Status(status, "Location: /\r\n"));
        let right = Sink::start();
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        let daemon = Daemon::start(&home, &[wrong.url()], json!({}));
        publish(&mut recognizer, &event(b"", b""));
        daemon.wait_log(advice);
        home.configure(&[right.url()], json!({}));
        daemon.signal(Signal::SIGHUP);
        assert_eq!(right.wait(1)[0].id(), wrong.received()[0].id());
        home.wait_done();
        let stopped = daemon.terminate();
        assert_eq!((stopped.acknowledged, stopped.dead), (1, 0), "{status}");
    }
}

#[test]
fn a_refused_event_is_given_up_but_not_one_after_another() {
    let home = Home::new();
    let sink = Sink::with(|request, _| Answer::Status(if request.sequence() == 2 { 400 } else { 200 }, ""));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish_many(&mut recognizer, 4, &event(b"", b""));
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.dead), (3, 1));
    assert!(stopped.log.contains("became a dead letter: the server answered 400 Bad Request"), "{}", stopped.log);

    let home = Home::new();
    let sink = Sink::with(|_, _| Answer::Status(422, ""));
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish_many(&mut recognizer, 50, &event(b"", b""));
    daemon.wait_log("nothing more is given up");
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.spooled), (4, 46));
}

#[test]
fn the_pause_that_a_server_asked_for_is_kept_whatever_becomes_of_uploads_beside_it() {
    const TOO_MANY: Answer = Answer::Status(429, "Retry-After: 1\r\n");
    // The first event's answer, and the second's, which comes when the lane has said why it pauses.
    for (first, second) in [(TOO_MANY, OK), (Answer::Status(500, ""), TOO_MANY)] {
        let home = Home::new();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let tries = std::sync::atomic::AtomicUsize::new(0);
        let sink = Sink::with(move |request, _| {
            let tries =
                if request.body.is_empty() { 2 } else { tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) };
            match request.sequence() {
                1 if tries < 2 => first.clone(),
                2 if tries < 2 => {
                    gate.lock().unwrap().recv().unwrap();
                    second.clone()
                }
                _ => OK,
            }
        });
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        publish_many(&mut recognizer, 2, &event(b"", b""));
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        daemon.wait_log("not delivered");
        let began = Instant::now();
        open.send(()).unwrap();
        publish_many(&mut recognizer, 1, &event(b"", b"")); // one that has not failed yet has to wait as well
        sink.wait(3);
        let pause = began.elapsed();
        assert!(pause.as_millis() > 900, "tried again after {pause:?}");
        home.wait_done();
        assert_eq!(daemon.terminate().acknowledged, 3);
    }
}

#[test]
fn sigterm_in_the_middle_of_an_upload_ends_within_two_seconds_and_loses_nothing() {
    let home = Home::new();
    let deaf = Sink::with(|_, _| Answer::AtHead(""));
    let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
    let daemon = Daemon::start(&home, &[deaf.url()], json!({}));
    let big = picture(12 << 20, 1);
    publish(&mut recognizer, &event(&big, b""));
    deaf.wait_heads(1);
    let began = Instant::now();
    let stopped = daemon.terminate();
    println!("SIGTERM to exit with an upload that hangs: {} ms (budget 2000)", began.elapsed().as_millis());
    assert_eq!((stopped.acknowledged, stopped.spooled), (0, 1));
    let sink = Sink::start();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    assert_eq!(sink.wait(1)[0].sequence(), 1);
    home.wait_done();
    daemon.terminate();
}

#[test]
fn an_upload_that_fails_while_the_uplink_stops_goes_to_the_spool() {
    let home = Home::new();
    let sink = Sink::with(|_, _| Answer::Hang);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish_many(&mut recognizer, 6, &event(b"", b""));
    sink.wait(4);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_log("stopping");
    sink.close_all();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.spooled, stopped.open), (0, 6, 0));
    assert_eq!(RingState::of(&home.ring()).unwrap().consumed, 6);
}

#[test]
fn without_destinations_events_are_read_and_not_kept() {
    let home = Home::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[], json!({}));
    let pic = picture(100_000, 1);
    publish_many(&mut recognizer, 50, &event(&pic, b""));
    home.wait_done();
    assert_eq!(daemon.terminate().read, 50);
}

#[test]
fn a_reload_under_load_loses_no_event_and_a_bad_config_changes_nothing() {
    let home = Home::new();
    let (old, new) = (Sink::start(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[old.url()], json!({}));
    daemon.wait_attached(); // before that SIGHUP may find no handler
    let pic = picture(20_000, 1);
    for round in 0..40 {
        publish_many(&mut recognizer, 5, &event(&pic, b""));
        let urls = if round % 2 == 0 { [new.url()] } else { [old.url()] };
        home.configure(&urls, json!({}));
        daemon.signal(Signal::SIGHUP);
    }
    std::fs::write(home.config(), r#"{"event_server_url": 5}"#).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("the config stays as it was");
    home.wait_done();
    let mut got: Vec<_> =
        [old.received(), new.received()].concat().iter().map(crate::common::Request::sequence).collect();
    got.sort_unstable();
    assert_eq!(got, (1..=200).collect::<Vec<_>>());
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.dead), (200, 0));
}

#[test]
fn a_link_local_or_metadata_address_is_a_bad_config_in_every_notation() {
    for host in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0xa9fea9fe", "2852039166", "0.0.0.0"] {
        let home = Home::new();
        let (status, log) = Daemon::start(&home, &[format!("http://{host}/")], json!({})).wait();
        assert_eq!(status.code(), Some(78), "{host}: {log}");
    }
    // What a name leads to is looked at again when it is connected to.
    assert!(sophon_uplink::config::is_forbidden_address("169.254.1.1".parse().unwrap()));
    assert!(!sophon_uplink::config::is_forbidden_address("192.168.1.19".parse().unwrap()));
    assert!(!sophon_uplink::config::is_forbidden_address("::1".parse().unwrap()));
}
