//! The promise: all events go to the history once a period, each once or under the same id, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::http::{get, post_json, raw};
use crate::common::sink::OK;
use crate::common::{Answer, Daemon, Request, RingProducer, Sink, event, publish, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::ring::producer::{NewEvent, Producer};

pub const RING: u64 = 1 << 20;
const HISTORY: &str = "/SophonFogSys/api/HistoryEventUrl";
pub const MONITOR: &str = "/SophonFogSys/api/MonitorServerUrl";

fn history(urls: &[String], period: u64) -> Value {
    json!({
        "history_upload_event_url": urls, "history_need_reg_pic": true, "content-type": "json", "reported_peroid": period
    })
}

/// Events of which every second one is below the threshold of 0.5.
pub fn publish_some(recognizer: &mut RingProducer, count: u64) {
    for number in 0..count {
        let score = if number % 2 == 0 { 0.25 } else { 0.75 };
        publish(recognizer, &NewEvent { score, ..event(b"reg", b"spot") });
    }
}

fn sequence(request: &Request) -> u64 {
    request.id().strip_suffix("-history").unwrap().rsplit('-').next().unwrap().parse().unwrap()
}

#[test]
fn every_event_goes_to_the_history_and_those_that_reach_the_threshold_at_once_to_the_others() {
    let home = Home::new();
    let (realtime, all) = (Sink::start(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let mut history = history(&[all.url()], 1);
    history["history_need_reg_pic"] = json!(false);
    let config = json!({ "threshold": 0.5, "history": history, "box": { "dev_sno": "AKOPKKKKK" } });
    let daemon = Daemon::start(&home, &[realtime.url()], config);
    publish_some(&mut recognizer, 20);
    let ext_json = br#"{"dev_sno": "its own", "grab_fiqa_info": {"blur": 0.10}}"#;
    publish(&mut recognizer, &NewEvent { score: 0.1, ext_json, ..event(b"reg", b"spot") });
    let requests = all.wait(21);
    home.wait_done();
    assert_eq!(requests.iter().map(sequence).collect::<BTreeSet<_>>(), (1..=21).collect());
    assert_eq!(realtime.received().iter().map(Request::sequence).collect::<Vec<_>>().len(), 10);
    for request in &requests {
        let (event, own) = (request.json(), sequence(request) == 21);
        assert_eq!((&event["reg_pic"], &event["ext_data"]["spot_pic"]), (&json!(""), &json!("c3BvdA==")));
        let expected = if own { ("its own", json!({"blur": 0.10})) } else { ("AKOPKKKKK", json!({})) };
        assert_eq!(
            (&event["ext_data"]["dev_sno"], &event["ext_data"]["grab_fiqa_info"]),
            (&json!(expected.0), &expected.1)
        );
        assert_eq!(event["ext_data"]["box_fiqa_info"], json!({}));
        assert_eq!(request.headers["idempotency-key"], request.id());
    }
    let status = daemon.status();
    assert_eq!(status["spool"]["bytes_written"], 0, "there was room in the ring");
    let urls: Vec<_> = (0..2).map(|place| status["destinations"][place]["url"].clone()).collect();
    assert_eq!(urls, [json!(realtime.url()), json!(format!("{}#history", all.url()))]);
    assert_eq!((&status["events"]["filtered"], &status["destinations"][1]["period_seconds"]), (&json!(11), &json!(1)));
    let metrics = get(daemon.api(), "/metrics").body;
    let line = format!(
        "sophon_uplink_destination_acknowledged_total{{destination=\"2\",server=\"http://{}\",report=\"history\"}} 21",
        all.address
    );
    assert!(metrics.contains(&line), "a label of its own: {metrics}");
    daemon.terminate();
}

#[test]
fn one_url_may_be_the_destination_of_both_reports() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let config = json!({ "threshold": 0.5, "history": history(&[sink.url()], 1) });
    let daemon = Daemon::start(&home, &[sink.url()], config);
    publish_some(&mut recognizer, 4);
    let ids: BTreeSet<_> = sink.wait(6).iter().map(|request| request.id().to_owned()).collect();
    let (of_history, at_once): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| id.ends_with("-history"));
    assert_eq!((of_history.len(), at_once.len()), (4, 2));
    let joined = at_once.iter().all(|id| of_history.contains(&format!("{id}-history")));
    assert!(joined, "{at_once:?} in {of_history:?}");
    home.wait_done();
    daemon.terminate();
}

#[test]
fn the_history_is_complete_over_outages_restarts_and_a_ring_that_fills() {
    let count = crate::common::count("SOPHON_HISTORY_EVENTS", 4_000);
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let home = Home::new();
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let sink = Sink::with(move |_, number| match number % 50 {
        _ if down.load(Relaxed) => Answer::Close,
        7 => Answer::Status(500, ""),
        _ => OK,
    });
    let config = json!({ "threshold": 0.5, "history": history(&[sink.url()], 1) });
    let mut recognizer = Producer::open(&home.ring(), 1 << 16).unwrap();
    let mut daemon = Daemon::start(&home, &[], config);
    let mut published = 0;
    while published < count {
        let some = random.u64(1..=count / 8).min(count - published);
        is_down.store(random.u8(..3) == 0, Relaxed);
        publish_some(&mut recognizer, some);
        published += some;
        if random.bool() {
            daemon.wait_attached();
            daemon.terminate();
            daemon = Daemon::restart(&home);
        } else {
            std::thread::sleep(Duration::from_millis(random.u64(..300)));
        }
    }
    is_down.store(false, Relaxed);
    daemon.wait_attached();
    daemon.signal(Signal::SIGHUP);
    home.wait_done();
    // Of one that was answered with 500 the sink has it, and the uplink sends it again.
    let received = sink.received();
    let mut times = BTreeMap::<u64, u32>::new();
    received.iter().for_each(|request| *times.entry(sequence(request)).or_default() += 1);
    let missing: Vec<_> = (1..=published).filter(|sequence| !times.contains_key(sequence)).take(10).collect();
    let repeated = times.values().filter(|times| **times > 1).count();
    println!("{published} events, {} requests, {repeated} events more than once under the same id", received.len());
    assert!(missing.is_empty(), "{missing:?}");
    daemon.terminate();
}

fn wait_ten_parked(daemon: &Daemon) {
    wait_until("they are parked", || daemon.status()["spool"]["parked"][0]["events"] == 10);
}

/// The other history has the ten events that waited, and the realtime report no more than its own.
fn has_the_ten(home: &Home, other: &Sink, realtime: &Sink) {
    let ids: BTreeSet<_> = other.wait(10).iter().map(sequence).collect();
    assert_eq!(ids, (1..=10).collect());
    home.wait_done();
    assert_eq!(realtime.received().len(), 1);
}

#[test]
fn what_waits_for_a_history_that_is_removed_goes_to_another_history_and_to_nobody_else() {
    let home = Home::new();
    let (port, realtime, other) = (ClosedPort::new(), Sink::start(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let config = json!({ "threshold": 0.5, "history": history(&[port.url()], 1) });
    let daemon = Daemon::start(&home, &[], config);
    publish_some(&mut recognizer, 10);
    wait_until("the outage fills the spool", || home.spooled_files().len() == 10);
    let api = daemon.api();
    let set = |urls: &[String]| {
        let reply = post_json(api, HISTORY, &history(urls, 1));
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    set(&[]);
    let call = json!({"event_server_url": [realtime.url()], "content-type": "json"});
    assert_eq!(post_json(api, "/SophonFogSys/api/EventServerUrl", &call).status, 200);
    publish_some(&mut recognizer, 2);
    realtime.wait(1);
    wait_ten_parked(&daemon);
    daemon.terminate();
    let daemon = Daemon::restart(&home);
    wait_ten_parked(&daemon);
    let set = |urls: &[String]| assert_eq!(post_json(daemon.api(), HISTORY, &history(urls, 1)).status, 200);
    set(&[other.url()]);
    has_the_ten(&home, &other, &realtime);
    daemon.terminate();
}

#[test]
fn what_waits_for_a_history_that_is_gone_at_a_start_goes_to_another_history_and_to_nobody_else() {
    let home = Home::new();
    let (port, realtime, other) = (ClosedPort::new(), Sink::start(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[], json!({ "history": history(&[port.url()], 1) }));
    publish_some(&mut recognizer, 10);
    wait_until("the outage fills the spool", || home.spooled_files().len() == 10);
    daemon.terminate();
    let daemon = Daemon::start(&home, &[realtime.url()], json!({}));
    publish_some(&mut recognizer, 1);
    realtime.wait(1);
    wait_ten_parked(&daemon);
    daemon.terminate();
    let daemon = Daemon::start(&home, &[realtime.url()], json!({ "history": history(&[other.url()], 1) }));
    has_the_ten(&home, &other, &realtime);
    daemon.terminate();
}

#[test]
fn what_a_history_refused_is_a_dead_letter_of_its_own_and_sent_again_by_its_name() {
    let home = Home::new();
    let is_refusing = Arc::new(AtomicBool::new(true));
    let refuses = Arc::clone(&is_refusing);
    let sink = Sink::with(move |request, _| {
        let is_one = request.id().ends_with("-1-history") && refuses.load(Relaxed);
        if is_one { Answer::Status(400, "") } else { OK }
    });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "history": history(&[sink.url()], 1) }));
    publish_some(&mut recognizer, 3);
    wait_until("the dead letter", || daemon.status()["spool"]["dead_letters"] == 1);
    let list = get(daemon.api(), "/api/dead-letters").json();
    let name = format!("{}#history", sink.url());
    assert_eq!(list["dead"][0]["url"], json!(name), "{list}");
    is_refusing.store(false, Relaxed);
    let other =
        post_json(daemon.api(), "/api/dead-letters", &json!({"all": true, "to": "http://127.0.0.1:1/#history"}));
    assert_eq!(other.status, 400, "{other:?}");
    let sent = post_json(daemon.api(), "/api/dead-letters", &json!({"all": true, "to": name}));
    assert_eq!(sent.status, 200, "{sent:?}");
    let is_there = |requests: &[Request]| requests.iter().filter(|one| one.id().ends_with("-1-history")).count() == 2;
    sink.wait_for("it once more", is_there);
    home.wait_done();
    assert_eq!(sink.received().iter().filter(|one| one.id().ends_with("-1")).count(), 1, "and not to the other lane");
    daemon.terminate();
}

// --- the calls of the documentation ---------------------------------------------------------------------------------

#[test]
fn the_documented_calls_set_what_get_gives_back_and_name_what_is_wrong() {
    let home = Home::new();
    let sink = Sink::start();
    let daemon = Daemon::start(
        &home,
        &[],
        json!({ "monitor": {
            "monitor_server_url": "", "content-type": "json", "reported_peroid": 9, "headers": {"Authorization": "Bearer s3cret"}
        }}),
    );
    let api = daemon.api();
    assert_eq!(get(api, MONITOR).json(), json!({"data": {"monitor_server_url": "", "reported_peroid": 9}}));
    assert_eq!(
        get(api, HISTORY).json(),
        json!({"data": {"history_upload_event_url": [], "history_need_reg_pic": true, "content-type": "json", "reported_peroid": 60}})
    );
    // As Python's requests sends JSON, and as curl sends both kinds of forms.
    let call = json!({
        "history_upload_event_url": [sink.url()], "history_need_reg_pic": false, "content-type": "form-data", "reported_peroid": 30
    });
    assert_eq!(post_json(api, HISTORY, &call).json(), json!({"data": call, "message": "ok"}));
    assert_eq!(get(api, HISTORY).json(), json!({ "data": call }));
    let form = format!("monitor_server_url={}&content-type=json&reported_peroid=5", sink.url());
    let post = |kind: &str, body: &str| {
        let request = format!(
            "POST {MONITOR} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        raw(api, request.as_bytes()).unwrap()
    };
    assert_eq!(post("application/x-www-form-urlencoded", &form).json(), json!({"data": "ok"}));
    assert_eq!(get(api, MONITOR).json(), json!({"data": {"monitor_server_url": sink.url(), "reported_peroid": 5}}));
    let part =
        |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let multipart =
        part("monitor_server_url", &sink.url()) + &part("content-type", "json") + &part("reported_peroid", "7");
    assert_eq!(post("multipart/form-data; boundary=b", &(multipart + "--b--\r\n")).json(), json!({"data": "ok"}));
    assert_eq!(get(api, MONITOR).json()["data"]["reported_peroid"], 7);
    let written: Value = serde_json::from_slice(&std::fs::read(home.config()).unwrap()).unwrap();
    assert_eq!(
        written["monitor"]["headers"]["Authorization"], "Bearer s3cret",
        "what the call does not speak of stays"
    );

    let url = sink.url();
    for (path, call, named) in [
        (HISTORY, json!({"content-type": "json", "reported_peroid": 60}), "history_upload_event_url: it is missing"),
        (HISTORY, json!({"history_upload_event_url": [url], "reported_peroid": 60}), "content-type: it is missing"),
        (HISTORY, json!({"history_upload_event_url": [url], "content-type": "json"}), "reported_peroid: it is missing"),
        (
            HISTORY,
            json!({"history_upload_event_url": [url], "content-type": "xml", "reported_peroid": 60}),
            "content-type: \"xml\"",
        ),
        (
            HISTORY,
            json!({"history_upload_event_url": [url], "content-type": "json", "reported_peroid": 0}),
            "reported_peroid: 0",
        ),
        (
            HISTORY,
            json!({"history_upload_event_url": ["ftp://a/"], "content-type": "json", "reported_peroid": 1}),
            "history_upload_event_url[0]",
        ),
        (
            HISTORY,
            json!({"history_upload_event_url": [url], "content-type": "json", "reported_period": 1}),
            "this key is not known",
        ),
        (
            MONITOR,
            json!({"monitor_server_url": "a", "content-type": "json", "reported_peroid": 1}),
            "monitor.monitor_server_url",
        ),
        (
            MONITOR,
            json!({"monitor_server_url": url, "content-type": "form-data", "reported_peroid": 1}),
            "monitor.content-type",
        ),
        (
            MONITOR,
            json!({"monitor_server_url": url, "content-type": "json", "reported_peroid": "soon"}),
            "reported_peroid: \"soon\"",
        ),
    ] {
        let before = (get(api, HISTORY).json(), get(api, MONITOR).json());
        let reply = post_json(api, path, &call);
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["status"]), (400, &json!("INVALID_ARGUMENT")), "{call}");
        assert!(error["message"].as_str().unwrap().contains(named), "{named}: {error}");
        assert_eq!((get(api, HISTORY).json(), get(api, MONITOR).json()), before);
    }
    daemon.terminate();
}

// --- the state report -----------------------------------------------------------------------------------------------
