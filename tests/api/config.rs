//! The promises: whatever ends the process while it saves, the old config or the new one is there; and reading a config again, by
//! SIGHUP or by the API, loses no event and sends none to a URL that was no longer in force when its sending began.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::http::{get, post_json};
use crate::common::{Answer, Daemon, Sink, event, picture, program, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::config::Config;
use sophon_uplink::ring::producer::Producer;

const URL: &str = "/SophonFogSys/api/EventServerUrl";

fn url(generation: u64) -> String {
    format!("http://192.0.2.1/{generation}")
}

/// The generation of a config file, which is whole.
fn generation(path: &Path, filler: &str) -> u64 {
    let text = fs::read(path).unwrap();
    let config = Config::of_text(&text, path).unwrap_or_else(|error| panic!("torn: {error}"));
    assert_eq!(config.headers[0].1, filler, "what the change is not about stays");
    let url = config.event_server_url[0].uri().path()[1..].parse().unwrap();
    assert_eq!(config.threshold.0, 0.625);
    url
}

/// `SOPHON_SAVE_KILLS` raises the count for soak campaigns.
#[test]
fn kill_9_while_saving_leaves_the_old_config_or_the_new_one() {
    let kills = crate::common::count("SOPHON_SAVE_KILLS", 1000);
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let home = Home::new();
    let filler = "x".repeat(100_000); // so that writing takes its time
    home.configure(&[url(0)], json!({ "threshold": 0.625, "headers": { "X-Filler": filler } }));
    let (mut last, mut during, mut unfinished) = (0, 0, 0);
    let mut most = 8_000; // microseconds: as long as some configs take to save, however slow the machine is
    for kill in 0..kills {
        let daemon = Daemon::restart(&home);
        let api = daemon.api();
        let delay = Duration::from_micros(random.u64(0..most));
        let first = last + 1;
        let pid = daemon.pid();
        let killer = thread::spawn(move || {
            thread::sleep(delay); // the moment is the point
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        });
        let answered = post_until_dead(api, first);
        killer.join().unwrap();
        daemon.wait();
        let found = generation(&home.config(), &filler);
        // What was answered is on the disk; what was not may be.
        assert!(found == answered || found == answered + 1, "answered {answered}, found {found}");
        during += u64::from(found == answered + 1);
        unfinished += u64::from(home.folder.path().join("uplink.json.new").exists());
        let bak = home.folder.path().join("uplink.json.bak");
        if bak.exists() {
            let kept = generation(&bak, &filler);
            assert!(kept <= found && found <= kept + 1, "the last good one of {found} is {kept}");
            // Of an earlier run's config a start makes the last good one; it may have been killed before that.
            assert!(
                kept >= answered || answered < first,
                "{answered} was in force and is not the last good one: {kept}"
            );
        }
        assert!(!home.folder.path().join("uplink.json.bad").exists());
        most = if found > last { (most / 2).max(8_000) } else { (most + most / 4).min(1_000_000) };
        last = found;
        if kill % 100 == 99 {
            println!("{} of {kills} kills, {last} configs saved", kill + 1);
        }
    }
    println!(
        "{kills} kills, {last} configs saved; {during} kills between saving and answering, {unfinished} while writing a file"
    );
    assert!(last > 0 && (kills < 1000 || during + unfinished > 0), "no kill fell into a save");
}

/// Changes the config again and again; the last generation that was answered.
fn post_until_dead(api: std::net::SocketAddr, first: u64) -> u64 {
    use std::io::Read as _;
    for generation in first.. {
        let body = json!({"event_server_url": [url(generation)], "content-type": "json"}).to_string();
        let head = format!(
            "POST {URL} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut answer = String::new();
        let answered = TcpStream::connect(api).and_then(|mut socket| {
            socket.write_all((head + &body).as_bytes())?;
            socket.read_to_string(&mut answer)
        });
        if answered.is_err() || !answer.starts_with("HTTP/1.1 200") {
            return generation - 1;
        }
    }
    unreachable!()
}

/// `SOPHON_RELOADS` raises the count for soak campaigns.
#[test]
fn reloads_under_load_lose_nothing_and_send_nothing_to_what_is_not_in_force() {
    let reloads = crate::common::count("SOPHON_RELOADS", 1000);
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let home = Home::new();
    let sink = Sink::start();
    let recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let (published, arrived) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let publishing = thread::spawn({
        let (published, arrived, done) = (Arc::clone(&published), Arc::clone(&arrived), Arc::clone(&done));
        move || publish_all_the_time(recognizer, &published, &arrived, &done)
    });
    let target = |generation: u64| format!("http://{}/{generation}", sink.address);
    let daemon = Daemon::start(&home, &[target(0)], json!({}));
    let api = daemon.api();
    // From this sequence number on, events were published after the generation came into force.
    let mut floors = vec![0];
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for generation in 1..=reloads {
        let call = json!({"event_server_url": [target(generation)], "content-type": if random.bool() { "json" } else { "form-data" }});
        match random.u8(0..3) {
            0 => {
                home.configure(&[target(generation)], json!({}));
                daemon.signal(Signal::SIGHUP);
                let wanted = json!([target(generation)]);
                crate::common::wait_until("the reload", || get(api, URL).json()["data"]["event_server_url"] == wanted);
            }
            1 => {
                // What is refused changes nothing, whatever the load.
                let bad = json!({"event_server_url": [target(9_999_999), "ftp://x/"], "content-type": "json"});
                assert_eq!(post_json(api, URL, &bad).status, 400);
                assert_eq!(post_json(api, URL, &call).status, 200);
            }
            _ => assert_eq!(post_json(api, URL, &call).status, 200),
        }
        // The spool knows at most 32 destinations, removed ones included, and a busy machine does not move backlogs as fast as
        // this.
        crate::common::wait_until("fewer destinations with a backlog", || {
            fs::read_dir(home.spool().join("to")).map_or(0, Iterator::count) < 16
        });
        // One more may have been published without having been counted yet.
        floors.push(published.load(Ordering::SeqCst) + 2);
        let enough = random.usize(0..20);
        sink.wait(enough);
        keep(&sink, &mut seen, &floors);
        arrived.store(seen.len() as u64, Ordering::SeqCst);
        if generation % 100 == 0 {
            println!("{generation} of {reloads} reloads, {} events", seen.len());
        }
    }
    done.store(true, Ordering::SeqCst);
    let last = publishing.join().unwrap();
    home.wait_done(); // under load the ring presses, and the last ones go through the spool
    keep(&sink, &mut seen, &floors);
    let stopped = daemon.terminate();
    assert_eq!((stopped.spooled, stopped.evicted, stopped.dead), (0, 0, 0), "{}", stopped.log);
    let lost: Vec<u64> = (1..=last).filter(|sequence| !seen.contains_key(sequence)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}\n{}", stopped.log);
    let twice = seen.values().filter(|times| **times > 1).count();
    println!("{reloads} reloads, {last} events, none lost, {twice} sent twice with the same id");
    assert_eq!((stopped.refused, stopped.lost), (0, 0), "{}", stopped.log);
}

/// Until it is done; the number of the last one. So many events are on their way at most that they fill the ring, and not the spool,
/// however slow the machine is.
fn publish_all_the_time(
    mut recognizer: crate::common::RingProducer,
    published: &AtomicU64,
    arrived: &AtomicU64,
    done: &AtomicBool,
) -> u64 {
    const ON_THEIR_WAY: u64 = 1000;
    let pictures: Vec<_> = (0..4).map(|seed| picture(2_000 << seed, seed)).collect();
    let mut last = 0;
    while !done.load(Ordering::SeqCst) {
        if last > arrived.load(Ordering::SeqCst) + ON_THEIR_WAY {
            thread::sleep(Duration::from_micros(200));
            continue;
        }
        match recognizer.publish(&event(&pictures[last as usize % 4], b"")) {
            Ok(sequence) => {
                last = sequence;
                published.store(last, Ordering::SeqCst);
            }
            Err(_) => thread::sleep(Duration::from_micros(200)), // the ring is full
        }
        thread::sleep(Duration::from_micros(300));
    }
    last
}

/// Takes what the server has, and asks of each event whether its URL was in force when it was published, or came later.
fn keep(sink: &Sink, seen: &mut HashMap<u64, u64>, floors: &[u64]) {
    for request in sink.take() {
        let sequence = request.sequence();
        let path: Value = request.line.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let generation = path.as_u64().unwrap() as usize;
        let in_force = floors.iter().rposition(|floor| *floor <= sequence).unwrap();
        assert!(
            generation >= in_force,
            "event {sequence} went to {generation}, but {in_force} was in force before it was there"
        );
        assert!(generation < floors.len() + 1, "to a URL that was refused");
        *seen.entry(sequence).or_default() += 1;
    }
}

#[test]
fn what_is_open_and_what_waits_for_a_restart_is_said_everywhere() {
    let home = Home::new();
    let sink = Sink::with(|_, _| Answer::Status(422, ""));
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    crate::common::publish(&mut recognizer, &event(b"", b""));
    wait_until("the dead letter", || daemon.status()["spool"]["dead_letters"] == 1);
    let elsewhere = home.folder.path().join("elsewhere");
    let more =
        json!({ "rings": [home.folder.path().join("other-ring")], "spool": { "dir": elsewhere, "min_free_bytes": 0 } });
    home.configure(&[sink.url()], more);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("rings, spool.dir: read at the start only; restart to put the change into force");
    let status = daemon.status();
    assert_eq!(status["pending_restart"], json!(["rings", "spool.dir"]));
    assert_eq!((&status["spool"]["dir"], &status["rings"][0]["path"]), (&json!(home.spool()), &json!(home.ring())));
    let health = get(daemon.api(), "/healthz").json();
    assert!(health["notes"].to_string().contains("rings, spool.dir"), "{health}");
    // The daemon listens on a port of the system's choice, so its config is not quite the commands'.
    let mut config: Value = serde_json::from_slice(&fs::read(home.config()).unwrap()).unwrap();
    config["api"]["listen"] = daemon.api().to_string().into();
    let asking = home.folder.path().join("asking.json");
    fs::write(&asking, config.to_string()).unwrap();
    let ask = |words: &[&str]| {
        let output = Command::new(program("sophon-uplink")).args(words).arg("--config").arg(&asking).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask(&["status"]).contains("applied only after a restart: rings, spool.dir"));
    assert!(ask(&["dead", "list"]).contains("status 422"));
    assert!(ask(&["spool"]).contains(home.spool().to_str().unwrap()));
    let requests = sink.received().len();
    assert!(ask(&["dead", "resend", "--all"]).starts_with("1 dead letters"));
    sink.wait(requests + 1);
    assert!(!elsewhere.exists(), "nobody made the spool that is not in force");
    daemon.terminate();
}

/// The config as one file that is mounted, as containers do it: no other file can take its place.
#[test]
fn a_config_that_is_a_mount_of_its_own_is_written_in_place_and_healed_where_that_was_cut_off() {
    let home = Home::new();
    home.configure(&[url(0)], json!({ "threshold": 0.625, "headers": { "X-Filler": "x".repeat(100_000) } }));
    let outside = home.folder.path().join("outside.json");
    fs::copy(home.config(), &outside).unwrap();
    let start = |script: &str| {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = format!("mount --bind \"$1\" \"$2\" && {script}");
        command.args(["sh", "-c", &script]).arg(program("sophon-uplink")).arg(&outside).arg(home.config());
        command
    };
    if !start("true").status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: a_config_that_is_a_mount_of_its_own: mounting is not allowed here");
        return;
    }
    let run = "exec \"$0\" run --config \"$2\"";
    let here = |name: &str| home.folder.path().join(name);
    let in_force = |daemon: &Daemon| get(daemon.api(), URL).json()["data"]["event_server_url"].clone();
    let daemon = Daemon::spawn(&mut start(run));
    for (number, bad) in [(1, false), (2, false), (3, true)] {
        if bad {
            fs::write(&outside, "by hand, and no config").unwrap();
        }
        let answer = post_json(daemon.api(), URL, &json!({"event_server_url": [url(number)], "content-type": "json"}));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(generation(&outside, &"x".repeat(100_000)), number);
        assert_eq!(fs::read(here("uplink.json.bak")).unwrap(), fs::read(&outside).unwrap());
        assert!(!here("uplink.json.saving").exists() && !here("uplink.json.new").exists());
    }
    assert_eq!(fs::read_to_string(here("uplink.json.bad")).unwrap(), "by hand, and no config");
    daemon.terminate();

    // Cut off in the middle: the whole text is beside the file, and what was in force before is the last good one.
    let whole = fs::read_to_string(&outside).unwrap().replace(&url(3), &url(4));
    fs::write(here("uplink.json.saving"), &whole).unwrap();
    for written in [0, 1, 50_000, whole.len() - 2] {
        fs::write(here("uplink.json.saving"), &whole).unwrap();
        fs::write(&outside, &whole[..written]).unwrap();
        let daemon = Daemon::spawn(&mut start(run));
        assert_eq!(in_force(&daemon), json!([url(4)]));
        daemon.wait_log("an interrupted write of the config file was completed");
        assert_eq!(get(daemon.api(), "/api/status").json()["config"]["problem"], Value::Null);
        assert_eq!(fs::read_to_string(&outside).unwrap(), whole);
        assert!(!here("uplink.json.saving").exists());
        daemon.terminate();
    }
}
