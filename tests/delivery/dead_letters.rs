//! The promise: what a server refused is kept, can be seen, and can be sent again, whether the uplink runs or not.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::daemon::Home;
use crate::common::http::get;
use crate::common::{Answer, Daemon, RingProducer, Sink, event, picture, program, publish, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::ring::producer::Producer;

const RING: u64 = 1 << 20;

/// Refuses events with an even sequence number.
fn refusing() -> Sink {
    Sink::with(|request, _| Answer::Status(if request.sequence() % 2 == 0 { 422 } else { 200 }, ""))
}

fn publish_many(recognizer: &mut RingProducer, count: usize) {
    for _ in 0..count {
        publish(recognizer, &event(b"reg", b"spot"));
    }
}

/// What a command on the home's config prints; its error where it fails. The running daemon listens on a port of the system's
/// choice, so its config is not quite the command's.
pub fn command(home: &Home, daemon: Option<&Daemon>, words: &[&str]) -> Result<String, String> {
    let mut config: Value = serde_json::from_slice(&std::fs::read(home.config()).unwrap()).unwrap();
    if let Some(daemon) = daemon {
        config["api"]["listen"] = daemon.api().to_string().into();
    }
    let asking = home.folder.path().join("asking.json");
    std::fs::write(&asking, config.to_string()).unwrap();
    let output = Command::new(program("sophon-uplink")).args(words).arg("--config").arg(asking).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn letters(home: &Home) -> Vec<(u64, String)> {
    let folders: Value = serde_json::from_str(&command(home, None, &["dead", "list", "--json"]).unwrap()).unwrap();
    let letters = folders.as_array().unwrap().iter().flat_map(|folder| folder["events"].as_array().unwrap());
    letters.map(|letter| (letter["number"].as_u64().unwrap(), letter["event"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn refused_events_are_listed_and_sent_again_by_the_running_uplink() {
    let home = Home::new();
    let (sink, other) = (refusing(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let urls = [sink.url(), other.url()];
    let daemon = Daemon::start(&home, &urls, json!({}));
    publish_many(&mut recognizer, 7);
    home.wait_done();
    let before = letters(&home);
    assert_eq!(before.len(), 3);
    let list = command(&home, Some(&daemon), &["dead", "list"]).unwrap();
    assert!(before.iter().all(|(number, id)| list.contains(&format!("{number}  {id}"))), "{list}");
    assert!(list.contains(&sink.url()), "{list}");
    assert!(list.contains("status 422, 1 tries, ") && list.contains(": the server answered 422"), "{list}");
    let shown = get(daemon.api(), "/api/dead-letters?limit=2").json();
    let first = &shown["dead"][0]["events"][0];
    assert_eq!(
        (&shown["total"], &shown["next"], &first["number"]),
        (&json!(3), &json!(before[1].0), &json!(before[0].0))
    );
    assert_eq!((&first["status"], &first["tries"]), (&json!(422), &json!(1)), "{shown}");
    assert!(
        first["reason"].as_str().unwrap().contains("422") && first["time"].as_u64() > Some(1_700_000_000),
        "{shown}"
    );
    let last = get(daemon.api(), &format!("/api/dead-letters?after={}", before[1].0)).json();
    assert_eq!((&last["dead"][0]["events"][0]["number"], &last["next"]), (&json!(before[2].0), &Value::Null));
    assert_eq!(get(daemon.api(), "/api/dead-letters?limit=no").status, 400);
    assert!(command(&home, Some(&daemon), &["spool"]).unwrap().contains("dead       3"));

    // One of them to the same server, which refuses it once more; the rest to the other one.
    let first = before[0].0.to_string();
    let requests = sink.received().len();
    assert_eq!(
        command(&home, Some(&daemon), &["dead", "resend", &first]).unwrap(),
        "1 dead letters wait to be sent again"
    );
    assert_eq!(sink.wait(requests + 1)[requests].id(), before[0].1);
    home.wait_done();
    assert_eq!(letters(&home).len(), 3);
    assert_eq!(
        command(&home, Some(&daemon), &["dead", "resend", "--all", "--to", &other.url()]).unwrap(),
        "3 dead letters wait to be sent again"
    );
    let again = other.wait(7 + 3);
    let mut ids: Vec<_> = again[7..].iter().map(|request| request.id().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, before.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>());
    home.wait_done();
    assert_eq!(command(&home, Some(&daemon), &["dead", "list"]).unwrap(), "no dead letters");
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.resent, stopped.acknowledged), (4, 4, 4 + 7 + 3));
}

#[test]
fn a_servers_limit_is_told_by_status_log_and_dead_letter_until_a_larger_event_is_taken() {
    const TOO_LARGE: &str = "HTTP/1.1 413 x\r\nServer: nginx/1.22.1\r\nContent-Length: 0\r\n\r\n";
    const LIMIT: usize = 1 << 20;
    let home = Home::new();
    let is_raised = Arc::new(AtomicBool::new(false));
    let is_all_taken = Arc::clone(&is_raised);
    let server = Sink::with(move |request, _| {
        let is_taken = request.body.len() <= LIMIT || is_all_taken.load(Ordering::Relaxed);
        if is_taken { Answer::Status(200, "") } else { Answer::Raw(TOO_LARGE) }
    });
    let mut recognizer = Producer::open(&home.ring(), 16 << 20).unwrap();
    let daemon = Daemon::start(&home, &[server.url()], json!({}));
    let limit = || daemon.status()["destinations"][0]["limit"].clone();
    publish(&mut recognizer, &event(&picture(600_000, 1), b"spot"));
    server.wait(1);
    wait_until("it is acknowledged", || daemon.status()["destinations"][0]["acknowledged"] == 1);
    assert_eq!(limit(), Value::Null);
    publish(&mut recognizer, &event(&picture(900_000, 2), b"spot"));
    wait_until("a dead letter", || daemon.status()["destinations"][0]["dead"] == 1);
    let told = limit();
    assert!(told["takes_body_bytes"].as_u64().unwrap() <= LIMIT as u64, "{told}");
    assert!(told["refuses_body_bytes"].as_u64().unwrap() > LIMIT as u64, "{told}");
    let likely = json!([{"server": "nginx", "setting": "client_max_body_size 32m;", "is_named": true}]);
    assert_eq!((&told["status"], &told["likely"]), (&json!(413), &likely), "{told}");
    let words = "it accepts requests of 800 kB and refuses requests of 1.2 MB; the setting may be, for nginx: client_max_body_size 32m;";
    daemon.wait_log(&format!("the server has a limit: for json, {words}"));
    let list = command(&home, Some(&daemon), &["dead", "list"]).unwrap();
    assert!(list.contains(words), "{list}");
    let asked = command(&home, Some(&daemon), &["status"]).unwrap();
    assert!(asked.contains("is it nginx? then set client_max_body_size 32m;"), "{asked}");
    is_raised.store(true, Ordering::Relaxed);
    command(&home, Some(&daemon), &["dead", "resend", "--all"]).unwrap();
    wait_until("the limit is no more told", || limit() == Value::Null);
    daemon.terminate();
}

#[test]
fn dead_letters_are_sent_again_by_the_next_run_when_no_uplink_runs() {
    let home = Home::new();
    let sink = refusing();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish_many(&mut recognizer, 4);
    home.wait_done();
    daemon.terminate();
    assert_eq!(command(&home, None, &["dead", "resend", "--all"]).unwrap(), "2 dead letters wait to be sent again");
    assert!(letters(&home).is_empty());
    let spool = command(&home, None, &["spool"]).unwrap();
    assert!(spool.contains("waiting    2") && spool.contains(&sink.url()), "{spool}");
    let requests = sink.received().len();
    let daemon = Daemon::restart(&home);
    sink.wait(requests + 2);
    home.wait_done();
    assert_eq!(daemon.terminate().recovered, 2);
}

#[test]
fn what_cannot_be_sent_again_is_said_and_stays() {
    let home = Home::new();
    let sink = refusing();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    home.configure(&[sink.url()], json!({}));
    assert!(command(&home, None, &["spool"]).unwrap_err().contains("nothing was ever spooled"));
    let daemon = Daemon::restart(&home);
    publish_many(&mut recognizer, 2);
    home.wait_done();
    assert_eq!(
        command(&home, Some(&daemon), &["dead", "resend", "99"]).unwrap(),
        "0 dead letters wait to be sent again"
    );
    let unknown = command(&home, Some(&daemon), &["dead", "resend", "--all", "--to", "http://10.0.0.1/"]).unwrap_err();
    assert!(
        unknown.contains("http://10.0.0.1/") && unknown.contains("is not a destination of the config"),
        "{unknown}"
    );
    for (words, why) in [
        (&["dead", "resend"][..], "--all, or their numbers"),
        (&["dead", "resend", "--all", "3"], "--all, or their numbers"),
        (&["dead", "resend", "x"], "not the number of a dead letter"),
        (&["dead"], "list or resend"),
        (&["spool", "--all"], "takes no --all"),
    ] {
        assert!(command(&home, None, words).unwrap_err().contains(why), "{words:?}");
    }
    // Its destination goes: it stays a letter until somebody says who is to have it.
    let heir = Sink::start();
    home.configure(&[heir.url()], json!({}));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("config read again");
    let orphan = command(&home, Some(&daemon), &["dead", "resend", "--all"]).unwrap_err();
    assert!(orphan.contains("its destination is not in the config"), "{orphan}");
    assert_eq!(letters(&home).len(), 1);
    command(&home, Some(&daemon), &["dead", "resend", "--all", "--to", &heir.url()]).unwrap();
    heir.wait(1);
    home.wait_done();
    assert_eq!((letters(&home).len(), heir.received().len()), (0, 1));
    daemon.terminate();
}
