//! The promise: whatever is changed about the destinations while events wait or are on their way, each event comes to its end
//! once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::sink::OK;
use crate::common::{Answer, Daemon, Request, Sink, event, picture, publish, publish_many, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::ring::producer::Producer;

const RING: u64 = 1 << 20;

fn reload(home: &Home, daemon: &Daemon, urls: &[String]) {
    reload_with(home, daemon, urls, &json!({}));
}

fn reload_with(home: &Home, daemon: &Daemon, urls: &[String], more: &Value) {
    let before = daemon.log().matches("config read again").count();
    home.configure(urls, more.clone());
    daemon.signal(Signal::SIGHUP);
    wait_until("the reload", || daemon.log().matches("config read again").count() > before);
}

fn distinct(requests: &[Request]) -> usize {
    requests.iter().map(Request::sequence).collect::<std::collections::BTreeSet<_>>().len()
}

/// A server that fails until it is told to be well.
fn switched() -> (Arc<AtomicBool>, Sink) {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let sink = Sink::with(move |_, _| if up.load(SeqCst) { OK } else { Answer::Status(503, "") });
    (is_up, sink)
}

#[test]
fn a_new_token_in_the_query_does_not_bury_the_backlog() {
    let home = Home::new();
    let sink = Sink::with(|request, _| if request.line.contains("token=new") { OK } else { Answer::Status(401, "") });
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url() + "?token=old"], json!({}));
    publish_many(&mut recognizer, 20);
    home.wait_released(); // all spooled
    reload(&home, &daemon, &[sink.url() + "?token=new"]);
    home.wait_done();
    let renewed = sink.received().into_iter().filter(|request| request.line.contains("token=new"));
    assert_eq!(distinct(&renewed.collect::<Vec<_>>()), 20);
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.acknowledged), (0, 20), "{}", stopped.log);
}

#[test]
fn two_urls_that_differ_in_their_query_each_get_every_event() {
    let home = Home::new();
    let (is_up, sink) = switched();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url() + "?to=1", sink.url() + "?to=2"], json!({}));
    publish_many(&mut recognizer, 20);
    home.wait_released();
    sink.take();
    is_up.store(true, SeqCst);
    home.wait_done();
    let got = |to: &str| distinct(&sink.received().into_iter().filter(|r| r.line.contains(to)).collect::<Vec<_>>());
    let got = (got("to=1"), got("to=2"));
    daemon.terminate();
    assert_eq!(got, (20, 20));
}

#[test]
fn a_host_in_capitals_is_the_same_destination_after_a_restart_too() {
    let home = Home::new();
    let closed = ClosedPort::new();
    let port = closed.address.port();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[format!("http://localhost:{port}/e")], json!({}));
    publish_many(&mut recognizer, 3);
    home.wait_released();
    reload(&home, &daemon, &[format!("http://LOCALHOST:{port}/e")]);
    publish_many(&mut recognizer, 3);
    home.wait_released();
    daemon.terminate();
    let daemon = Daemon::restart(&home);
    daemon.wait_log("not delivered"); // it has looked at what it found
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.spooled), (0, 6), "{}", stopped.log);
}

#[test]
fn a_hung_upload_to_a_removed_destination_does_not_stop_the_spool() {
    let home = Home::new();
    let hung = Sink::with(|_, _| Answer::Hang);
    let down = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[hung.url()], json!({}));
    let spot = picture(60_000, 1);
    publish(&mut recognizer, &event(b"", &spot));
    hung.wait_heads(1);
    reload(&home, &daemon, &[down.url()]);
    for _ in 0..40 {
        publish(&mut recognizer, &event(b"", &spot)); // there is always room again
    }
    let stopped = daemon.terminate();
    assert_eq!((stopped.open, stopped.spooled), (0, 41), "{}", stopped.log);
}

#[test]
fn sigterm_soon_after_a_destination_was_removed_spools_everything() {
    let home = Home::new();
    let hung = Sink::with(|_, _| Answer::Hang);
    let also = Sink::with(|_, _| Answer::Hang);
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[hung.url()], json!({}));
    publish_many(&mut recognizer, 1);
    hung.wait_heads(1);
    reload(&home, &daemon, &[also.url()]);
    publish_many(&mut recognizer, 3);
    also.wait_heads(3);
    let stopped = daemon.terminate();
    assert_eq!((stopped.open, stopped.spooled), (0, 4), "{}", stopped.log);
}

/// A destination is removed while the disk has a bad moment, and put back before anything could be moved.
fn undo_a_removal(heir: Option<String>) {
    let home = Home::new();
    let (is_up, sink) = switched();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish_many(&mut recognizer, 5);
    home.wait_released();
    daemon.terminate();
    let away = home.folder.path().join("away");
    std::fs::rename(home.spool(), &away).unwrap();
    std::fs::write(home.spool(), b"").unwrap();
    let daemon = Daemon::restart(&home);
    daemon.wait_log("the spool is unavailable");
    reload(&home, &daemon, heir.as_slice());
    reload(&home, &daemon, &[sink.url()]);
    publish_many(&mut recognizer, 5);
    std::fs::remove_file(home.spool()).unwrap();
    std::fs::rename(&away, home.spool()).unwrap();
    is_up.store(true, SeqCst);
    sink.wait_for("every event", |requests| {
        (1..=10).all(|sequence| requests.iter().any(|one| one.sequence() == sequence))
    });
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.open, stopped.acknowledged), (0, 0, 10), "{}", stopped.log);
}

#[test]
fn undoing_a_removal_with_an_heir_while_it_is_pending_loses_nothing() {
    let heir = ClosedPort::new();
    undo_a_removal(Some(heir.url()));
}

#[test]
fn undoing_a_removal_without_heirs_while_it_is_pending_loses_nothing() {
    undo_a_removal(None);
}

#[test]
fn a_kill_in_the_middle_of_a_removal_leaves_the_heir_its_events() {
    let home = Home::new();
    let a = ClosedPort::new();
    let b = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[a.url()], json!({}));
    let count = 4000;
    publish_many(&mut recognizer, count);
    home.wait_released();
    let folders = || std::fs::read_dir(home.spool().join("to")).unwrap().count();
    assert_eq!(folders(), 1);
    home.configure(&[b.url()], json!({}));
    daemon.signal(Signal::SIGHUP);
    wait_until("the heir's folder", || folders() == 2);
    daemon.kill();
    let daemon = Daemon::restart(&home);
    wait_until("the end of the removal", || folders() == 1);
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.spooled), (0, count as u64), "{}", stopped.log);
}

#[test]
fn an_acknowledged_event_is_no_dead_letter() {
    let home = Home::new();
    let port = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[port.url()], json!({}));
    publish_many(&mut recognizer, 1);
    home.wait_released();
    daemon.terminate();
    let sink = Sink::on(port.open(), |_, _| {
        thread::sleep(Duration::from_millis(500));
        OK
    });
    let daemon = Daemon::restart(&home);
    sink.wait_heads(1);
    reload(&home, &daemon, &[]);
    sink.wait(1);
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.dead), (1, 0), "{}", stopped.log);
}

#[test]
fn more_destinations_come_and_go_while_the_disk_is_bad_than_the_spool_has_places() {
    let home = Home::new();
    std::fs::write(home.spool(), b"").unwrap();
    let closed = ClosedPort::new();
    let port = closed.address.port();
    let urls = |set: usize| (0..16).map(|number| format!("http://127.0.0.1:{port}/{set}/{number}")).collect::<Vec<_>>();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &urls(0), json!({}));
    daemon.wait_log("the spool is unavailable");
    (1..4).for_each(|set| reload(&home, &daemon, &urls(set)));
    publish_many(&mut recognizer, 3);
    std::fs::remove_file(home.spool()).unwrap();
    home.wait_released();
    let stopped = daemon.terminate();
    assert_eq!((stopped.open, stopped.spooled), (0, 3 * 16), "{}", stopped.log);
}

#[test]
fn reloads_in_a_row_do_not_multiply() {
    let home = Home::new();
    let port = ClosedPort::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[port.url()], json!({}));
    publish_many(&mut recognizer, 1);
    home.wait_released();
    daemon.terminate();
    let sink = Sink::on(port.open(), |_, _| {
        thread::sleep(Duration::from_millis(1500));
        OK
    });
    let daemon = Daemon::restart(&home);
    sink.wait_heads(1);
    let closed = ClosedPort::new();
    let port = closed.address.port();
    for set in 0..7 {
        let urls: Vec<_> = (0..16).map(|number| format!("http://127.0.0.1:{port}/{set}/{number}")).collect();
        reload(&home, &daemon, &urls);
    }
    sink.wait(1);
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

#[test]
fn what_the_old_lane_of_a_destination_leaves_in_the_spool_is_sent_by_the_new_one() {
    let home = Home::new();
    let other = Sink::start();
    let sink = Sink::with(|_, before| if before == 0 { Answer::Hang } else { OK });
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let short = json!({ "timeouts_ms": { "connect": 1000, "progress": 1000, "response": 1000 } });
    let daemon = Daemon::start(&home, &[sink.url()], short.clone());
    let spot = picture(60_000, 1);
    publish(&mut recognizer, &event(b"", &spot));
    sink.wait(1); // whole, no answer
    reload_with(&home, &daemon, &[other.url()], &short);
    reload_with(&home, &daemon, &[sink.url()], &short);
    for _ in 0..12 {
        publish(&mut recognizer, &event(b"", &spot));
    }
    wait_until("that it is spooled", || !home.spooled_files().is_empty());
    let is_first = |request: &&Request| request.sequence() == 1;
    sink.wait_for("the first event, once more", |requests| requests.iter().filter(is_first).count() == 2);
    home.wait_done();
    assert_eq!((other.received().len(), daemon.terminate().acknowledged), (0, 13));
}

#[test]
fn a_url_that_is_taken_away_and_put_back_gets_everything_that_waited() {
    // By SIGHUP, through the API, and by an edit while nothing runs.
    for by in ["sighup", "api", "restart"] {
        let home = Home::new();
        let (is_up, sink) = switched();
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        // An eighth of this is less than what waits.
        let spool = json!({ "spool": { "dir": home.spool(), "max_bytes": 1 << 20, "min_free_bytes": 0 } });
        let mut daemon = Daemon::start(&home, &[sink.url()], spool.clone());
        publish_many(&mut recognizer, 200);
        home.wait_released();
        for urls in [vec![], vec![sink.url()]] {
            is_up.store(!urls.is_empty(), SeqCst);
            match by {
                "sighup" => reload_with(&home, &daemon, &urls, &spool),
                "api" => {
                    let body = json!({ "event_server_url": urls, "content-type": "json" });
                    let answer =
                        crate::common::http::post_json(daemon.api(), "/SophonFogSys/api/EventServerUrl", &body);
                    assert_eq!(answer.status, 200);
                }
                _ => {
                    daemon.terminate();
                    daemon = Daemon::start(&home, &urls, spool.clone());
                    daemon.wait_attached();
                }
            }
            if urls.is_empty() {
                let parked = &daemon.status()["spool"]["parked"][0];
                assert_eq!((parked["url"].as_str(), &parked["events"]), (Some(&*sink.url()), &json!(200)), "{by}");
                let health = daemon.status()["health"].clone();
                assert_eq!(health["ok"], true, "{by}: {health}");
            }
        }
        home.wait_done();
        let acknowledged = sink.received().iter().map(Request::sequence).collect::<std::collections::BTreeSet<_>>();
        let stopped = daemon.terminate();
        assert_eq!((acknowledged.len(), stopped.dead, stopped.evicted), (200, 0, 0), "{by}: {}", stopped.log);
    }
}
