//! The promise: what others rely on stays as it is. Requests on the wire, keys of the status, metrics, exit codes, answers of the
//! API and of the receiver, the config as it is saved, and the files of a spool are compared with `tests/fixtures/public`, which
//! an earlier build wrote.
//!
//! A change that is meant is made with `UPDATE_PUBLIC=yes cargo test --test daemon public_behaviour`, and its diff is read. The
//! spool is written by `UPDATE_PUBLIC=spool`: a new format gets a fixture of its own beside the old one. `SOPHON_BIN_DIR` names
//! the programs of another build.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::slice;
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use sophon_uplink::ring::producer::{NewEvent, Producer};
use sophon_uplink::spool::Destination;

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::Home;
use crate::common::http::{call, get};
use crate::common::{BOUND, Daemon, Sink, event, picture, program, publish, wait_until};

const RING: u64 = 1 << 20;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/public")
}

/// Compares a text with the one that an earlier build made.
#[track_caller]
fn assert_unchanged(name: &str, text: &str) {
    let path = fixtures().join(name);
    if std::env::var("UPDATE_PUBLIC").is_ok_and(|value| value == "yes") {
        fs::write(&path, text).unwrap();
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), text.lines().collect());
    let gone: Vec<_> = old.difference(&new).collect();
    let come: Vec<_> = new.difference(&old).collect();
    assert!(before == text, "{name} is not as before.\ngone: {gone:#?}\nnew: {come:#?}\n(an order may differ, too)");
}

/// A server that keeps each request byte by byte.
struct Capture {
    url: String,
    requests: mpsc::Receiver<Vec<u8>>,
}

impl Capture {
    fn start() -> Capture {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/RealTimeEvent", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, sender) = (BufReader::new(stream.unwrap()), sender.clone());
                thread::spawn(move || {
                    while let Some(request) = read_request(&mut stream) {
                        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                        let _ = sender.send(request);
                    }
                });
            }
        });
        Capture { url, requests }
    }

    fn next(&self) -> String {
        String::from_utf8(self.requests.recv_timeout(BOUND).unwrap()).unwrap()
    }
}

/// None at the end of a connection.
fn read_request(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let before = request.len();
        if stream.read_until(b'\n', &mut request).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&request[before..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.extend_from_slice(&body);
    Some(request)
}

/// Replaces what differs from run to run; line ends become visible.
fn normalised(text: &str, replaced: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (value, name) in replaced {
        text = text.replace(value, name);
    }
    text.replace('\r', "␍")
}

/// The paths of all keys with the kinds of their values, one a line; elements of a list count as one.
fn keys(value: &Value) -> String {
    fn walk(path: &str, value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| walk(&format!("{path}.{key}"), value, found))
            }
            Value::Array(elements) => elements.iter().for_each(|value| walk(&format!("{path}[]"), value, found)),
            Value::String(_) => drop(found.insert(format!("{path} string"))),
            Value::Number(_) => drop(found.insert(format!("{path} number"))),
            Value::Bool(_) => drop(found.insert(format!("{path} bool"))),
            Value::Null => drop(found.insert(format!("{path} null"))),
        }
    }
    let mut found = BTreeSet::new();
    walk("", value, &mut found);
    found.into_iter().fold(String::new(), |text, line| text + &line + "\n")
}

fn rich_event<'a>(reg_pic: &'a [u8], spot_pic: &'a [u8]) -> NewEvent<'a> {
    NewEvent {
        device_ip: b"10.0.0.7",
        ext_json: br#"{"door": 3, "nested": {"a": [null, 1.50]}}"#,
        person_type: 2,
        device_type: 4,
        ..event(reg_pic, spot_pic)
    }
}

#[test]
fn requests_on_the_wire() {
    let variants = [
        ("json", json!({})),
        ("json with milliseconds", json!({ "timestamp_unit": "ms" })),
        ("json without the registered picture", json!({ "real_need_reg_pic": false })),
        ("form-data", json!({ "content-type": "form-data" })),
        (
            "json with more",
            json!({
                "headers": { "Authorization": "Bearer s3cret", "X-Site": "north" },
                "box": { "serial_file": "serial" },
                "ext_data": { "dev_sno": "${serial}", "site": "gate 1" },
                "top": { "tenant": "李", "level": 3 },
            }),
        ),
        ("form-data with more", json!({ "content-type": "form-data", "top": { "tenant": "李", "level": 3 } })),
    ];
    let pictures = (picture(40, 1), picture(50, 2));
    let mut text = String::new();
    for (name, config) in variants {
        let (home, capture) = (Home::new(), Capture::start());
        fs::write(home.folder.path().join("serial"), "AKOP-1\n").unwrap();
        let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
        let daemon = Daemon::start(&home, slice::from_ref(&capture.url), config);
        for event in [rich_event(&pictures.0, &pictures.1), event(b"", b"")] {
            publish(&mut recognizer, &event);
            let address = capture.url.split('/').nth(2).unwrap();
            let request = normalised(&capture.next(), &[(address, "ADDRESS"), (&recognizer.id().to_string(), "RING")]);
            writeln!(text, "== {name}\n{request}\n").unwrap();
        }
        daemon.terminate();
    }
    assert_unchanged("wire.txt", &text);
}

#[test]
fn history_and_state_reports_on_the_wire() {
    let (home, capture) = (Home::new(), Capture::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let history = json!({
        "history_upload_event_url": [capture.url], "history_need_reg_pic": true, "content-type": "json", "reported_peroid": 1
    });
    let daemon = Daemon::start(&home, &[], json!({ "history": history, "box": { "dev_sno": "AKOP-1" } }));
    publish(&mut recognizer, &rich_event(b"reg", b"spot"));
    let address = capture.url.split('/').nth(2).unwrap();
    let request = normalised(&capture.next(), &[(address, "ADDRESS"), (&recognizer.id().to_string(), "RING")]);
    daemon.terminate();

    let (home, capture) = (Home::new(), Capture::start());
    let monitor = json!({ "monitor_server_url": capture.url, "reported_peroid": 1, "content-type": "json" });
    let daemon = Daemon::start(&home, &[], json!({ "monitor": monitor, "box": { "dev_sno": "AKOP-1" } }));
    let report = capture.next();
    daemon.terminate();
    let (head, body) = report.split_once("\r\n\r\n").unwrap();
    let names: Vec<_> = head.lines().map(|line| line.split(':').next().unwrap()).collect();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_unchanged("reports.txt", &format!("{request}\n\n== state\n{}\n{}", names.join("\n"), keys(&body)));
}

#[test]
fn keys_of_the_status_and_names_of_the_metrics() {
    let (home, sink, dead) = (Home::new(), Sink::start(), ClosedPort::new());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url(), dead.url()], json!({}));
    publish(&mut recognizer, &event(b"reg", b"spot"));
    sink.wait(1);
    home.wait_released();
    wait_until("the acknowledgement", || daemon.status()["shares"]["acknowledged"] == 1);
    let status = keys(&daemon.status());
    let metrics = get(daemon.api(), "/metrics").body;
    let names: BTreeSet<_> = metrics.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let names = names.into_iter().fold(String::new(), |text, line| text + line + "\n");
    daemon.terminate();
    assert_unchanged("status.txt", &format!("{status}\n{names}"));
}

#[test]
fn exit_codes_and_what_the_command_line_answers() {
    let home = Home::new();
    home.configure(&["http://127.0.0.1:9/".into()], json!({}));
    let good = home.config().display().to_string();
    let folder = home.folder.path().display().to_string();
    let write = |name: &str, text: &str| {
        let path = home.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let broken = write("broken.json", "{");
    let unknown = write("unknown.json", r#"{"event_server_url": [], "colour": "red", "threshold": 7}"#);
    let text = write("text", "no ring");
    let missing = format!("{folder}/missing");
    let calls: [&[&str]; 22] = [
        &[],
        &["--help"],
        &["--version"],
        &["fly"],
        &["run", "--json"],
        &["run", "--config", &broken],
        &["run", "--config", &unknown],
        &["run", "--config", &missing],
        &["run", "--user", "nobody-has-this-name"],
        &["check-config"],
        &["check-config", &good],
        &["check-config", &broken],
        &["check-config", &unknown],
        &["check-config", &missing],
        &["status", "--config", &good],
        &["ring", &missing],
        &["ring", &text],
        &["spool", "--config", &good],
        &["spool", "--config", &good, "--json"],
        &["dead", "list", "--config", &good],
        &["dead", "resend", "--config", &good, "--all"],
        &["try", "no url"],
    ];
    let mut said = String::new();
    for arguments in calls {
        let output =
            Command::new(program("sophon-uplink")).args(arguments).env_clear().stdin(Stdio::null()).output().unwrap();
        let shown = |bytes: &[u8]| normalised(&String::from_utf8_lossy(bytes), &[(&folder, "HOME")]);
        let (out, err) = (shown(&output.stdout), shown(&output.stderr));
        let err = err.lines().map(without_time).fold(String::new(), |text, line| text + &line + "\n");
        let code = output.status.code();
        writeln!(
            said,
            "== sophon-uplink {}\nexit code {code:?}\n{out}{err}",
            normalised(&arguments.join(" "), &[(&folder, "HOME")])
        )
        .unwrap();
    }
    assert_unchanged("commands.txt", &said);
}

/// A line of the log without its time.
fn without_time(line: &str) -> String {
    match line.split_once(' ') {
        Some((time, rest)) if time.starts_with("20") && time.contains('T') => format!("TIME {rest}"),
        _ => line.to_owned(),
    }
}

#[test]
fn answers_of_the_api_and_the_config_that_it_saves() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({ "threshold": 0.5 }));
    let api = daemon.api();
    let url = "/SophonFogSys/api/EventServerUrl";
    let mut text = String::new();
    let settings = json!({
        "event_server_url": ["http://127.0.0.1:9/a"], "real_need_reg_pic": false, "content-type": "json", "threshold": 0.25
    });
    let json_type = "Content-Type: application/json\r\n";
    let calls: [(&str, &str, &str, String); 9] = [
        ("GET", url, "", String::new()),
        ("POST", url, json_type, settings.to_string()),
        ("GET", url, "", String::new()),
        ("POST", url, json_type, "{".into()),
        ("POST", url, json_type, json!({ "event_server_url": "ftp://x" }).to_string()),
        ("POST", url, "Content-Type: text/plain\r\n", "x".into()),
        ("DELETE", url, "", String::new()),
        ("GET", "/nothing", "", String::new()),
        ("GET", "/healthz", "", String::new()),
    ];
    for (method, path, headers, body) in calls {
        let reply = call(api, method, path, headers, body.as_bytes());
        // An etag is the digest of settings in which a port of the system's choice stands.
        let fixed = |line: &str| if line.starts_with("etag:") { "etag: ETAG".into() } else { line.to_owned() };
        let head: Vec<_> = reply.head.lines().filter(|line| !line.starts_with("date:")).map(fixed).collect();
        let address = api.to_string();
        let (head, body) = (head.join("\n"), normalised(&reply.body, &[(&address, "ADDRESS")]));
        writeln!(text, "== {method} {path} {headers:?}\n{head}\n{body}\n").unwrap();
    }
    let folder = home.folder.path().display().to_string();
    let saved = normalised(&fs::read_to_string(home.config()).unwrap(), &[(&folder, "HOME")]);
    daemon.terminate();
    assert_unchanged("api.txt", &format!("{text}== the config\n{saved}\n"));
}

#[test]
fn the_receivers_answers_and_files() {
    let store = crate::common::shm();
    let mut receiver = Command::new(program("event-receive-server"))
        .args(["--listen", "127.0.0.1:0", "--store"])
        .arg(store.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(receiver.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).unwrap().trim().parse().unwrap();
    let event = json!({
        "identity_id": "1", "identity_name": "Ada", "group_name": "staff", "reg_pic": "/9j/4A==", "timestamp": 1_700_000_000,
        "score": 0.5, "ext_data": { "dev_sno": "AKOP-1", "spot_pic": "/9j/4Q==" },
    });
    let id = format!("X-Event-Id: {}-1\r\nContent-Type: application/json\r\n", "a".repeat(32));
    let mut text = String::new();
    for (headers, body) in
        [(id.as_str(), event.to_string()), (&id, event.to_string()), (&id, "{".into()), ("", "{}".into())]
    {
        let reply = call(address, "POST", "/RealTimeEvent", headers, body.as_bytes());
        writeln!(text, "{} {}", reply.status, reply.body).unwrap();
    }
    let _ = receiver.kill();
    let _ = receiver.wait();
    let mut files: Vec<String> = Vec::new();
    let mut folders = vec![store.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let shown = path.strip_prefix(store.path()).unwrap().display().to_string();
            match serde_json::from_slice::<Value>(bytes.split(|byte| *byte == b'\n').next().unwrap()) {
                Ok(line) => files.push(format!(
                    "{shown}: {} lines like\n{}",
                    bytes.split(|byte| *byte == b'\n').count() - 1,
                    keys(&line)
                )),
                Err(_) => files.push(format!("{shown}: {} bytes\n", bytes.len())),
            }
        }
    }
    files.sort();
    assert_unchanged("receiver.txt", &(text + &files.concat()));
}

/// A spool that an earlier build wrote is delivered, each event as that build would have sent it; dead letters are listed as
/// before.
#[test]
fn a_spool_of_an_earlier_build() {
    let folder = fixtures().join("spool");
    if std::env::var("UPDATE_PUBLIC").is_ok_and(|value| value == "spool") {
        write_spool(&folder);
    }
    let (home, capture) = (Home::new(), Capture::start());
    let run = Command::new("cp").arg("-r").arg(&folder).arg(home.spool()).status().unwrap();
    assert!(run.success());
    let old = fs::read_dir(home.spool().join("to")).unwrap().next().unwrap().unwrap().path();
    let new = home.spool().join("to").join(Destination::of(&capture.url).to_string());
    fs::write(old.join("url"), fs::read_to_string(old.join("url")).unwrap().replace(OLD_URL, &capture.url)).unwrap();
    fs::rename(&old, &new).unwrap();
    let daemon = Daemon::start(&home, slice::from_ref(&capture.url), json!({}));
    let address = capture.url.split('/').nth(2).unwrap();
    let mut requests: Vec<_> =
        (0..3).map(|_| without_ring(&normalised(&capture.next(), &[(address, "ADDRESS")]))).collect();
    requests.sort();
    wait_until("the end of the backlog", || home.is_drained());
    daemon.terminate();
    assert_unchanged("spooled.txt", &requests.join("\n\n"));
}

/// Where the events of the fixture were to go.
const OLD_URL: &str = "http://127.0.0.1:9/RealTimeEvent";

/// A request whose ring's id is replaced.
fn without_ring(request: &str) -> String {
    let id = request
        .lines()
        .find_map(|line| line.strip_prefix("X-Event-Id: ").or(line.strip_prefix("x-event-id: ")))
        .unwrap();
    request.replace(&id[..32], "RING")
}

/// Writes the fixture: three events for a server that is away.
fn write_spool(folder: &Path) {
    let home = Home::new();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[OLD_URL.into()], json!({}));
    let pictures = (picture(40, 1), picture(50, 2));
    for number in 0..3 {
        publish(
            &mut recognizer,
            &NewEvent { timestamp_ms: 1_700_000_000_000 + number, ..rich_event(&pictures.0, &pictures.1) },
        );
    }
    home.wait_released();
    daemon.terminate();
    let _ = fs::remove_dir_all(folder);
    let run = Command::new("cp").arg("-r").arg(home.spool()).arg(folder).status().unwrap();
    assert!(run.success());
}
