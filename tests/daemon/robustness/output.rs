//! What the programs do where nobody reads what they print, or the disk that it goes to is full.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

use crate::common::daemon::Home;
use crate::common::{Daemon, Sink, event, http, program, publish};

/// Every write to it fails, as to a full disk.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader has gone.
fn nobody() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A command that does its work, in a home where an uplink runs.
fn good_commands(home: &Home) -> Vec<(&'static str, Vec<String>)> {
    let (config, ring) = (home.config().display().to_string(), home.ring().display().to_string());
    let uplink = [
        "--help",
        "--version",
        &format!("check-config {config}"),
        &format!("status --config {config}"),
        &format!("status --json --config {config}"),
        &format!("ring {ring}"),
        &format!("ring {ring} --json"),
        &format!("spool --config {config}"),
        &format!("spool --json --config {config}"),
        &format!("dead list --config {config}"),
        &format!("dead list --json --config {config}"),
        &format!("dead resend --all --config {config}"),
    ]
    .map(|line| ("sophon-uplink", line.to_owned()));
    let other = folder_of_its_own(home).display().to_string();
    let others = [
        ("event-receive-server", "--help".to_owned()),
        ("event-receive-server", "--version".to_owned()),
        ("fake-recognizer", "--help".to_owned()),
        ("fake-recognizer", format!("--ring {other} --count 3")),
    ];
    let words = |line: String| line.split(' ').map(str::to_owned).collect();
    uplink.into_iter().chain(others).map(|(program, line)| (program, words(line))).collect()
}

fn folder_of_its_own(home: &Home) -> std::path::PathBuf {
    home.folder.path().join("another-ring")
}

fn run(name: &str, words: &[impl AsRef<std::ffi::OsStr>], out: Stdio, err: Stdio) -> Output {
    Command::new(program(name)).args(words).stdin(Stdio::null()).stdout(out).stderr(err).output().unwrap()
}

#[test]
fn what_nobody_reads_is_a_quiet_success_and_a_full_disk_a_clear_error() {
    let (home, sink) = (Home::new(), Sink::start());
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let api = json!({ "listen": daemon.api(), "token_file": "api.token" });
    home.configure(&[sink.url()], json!({ "api": api })); // for the commands that ask there
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    home.wait_done();
    std::fs::create_dir_all(home.spool()).unwrap();
    for (name, words) in good_commands(&home) {
        let told = run(name, &words, Stdio::piped(), Stdio::piped());
        assert!(told.status.success() && !told.stdout.is_empty(), "{name} {words:?}: {told:?}");
        let gone = run(name, &words, nobody(), Stdio::piped());
        assert_eq!((gone.status.code(), gone.stderr.as_slice()), (Some(0), &b""[..]), "{name} {words:?}: {gone:?}");
        let disk = run(name, &words, full().into(), Stdio::piped());
        let said = String::from_utf8_lossy(&disk.stderr).into_owned();
        let expected = format!("{name}: standard output cannot be written: No space left on device (os error 28)\n");
        assert_eq!((disk.status.code(), said), (Some(1), expected), "{name} {words:?}");
        // Neither can be written: the code says it.
        assert_eq!(run(name, &words, full().into(), full().into()).status.code(), Some(1), "{name} {words:?}");
    }
    daemon.terminate();
}

#[test]
fn an_error_that_cannot_be_written_is_told_by_its_exit_code() {
    let home = Home::new();
    let path = |name: &str| home.folder.path().join(name).display().to_string();
    std::fs::write(path("bad.json"), r#"{"event_server_url": ["x"], "foo": 1}"#).unwrap();
    std::fs::write(path("good.json"), r#"{"event_server_url": [], "api": {"listen": "127.0.0.1:1"}}"#).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cases = [
        ("sophon-uplink", "fly".to_owned(), 2),
        ("sophon-uplink", format!("check-config {}", path("bad.json")), 78),
        ("sophon-uplink", format!("run --config {}", path("bad.json")), 78),
        ("sophon-uplink", format!("status --config {}", path("good.json")), 1),
        ("sophon-uplink", format!("ring {}", path("nowhere")), 1),
        ("sophon-uplink", format!("dead list --config {}", path("bad.json")), 1),
        ("sophon-uplink", "open-rings unfiltered".to_owned(), 1),
        ("event-receive-server", "--fly".to_owned(), 2),
        ("event-receive-server", format!("--listen {}", taken.local_addr().unwrap()), 1),
        ("fake-recognizer", "--fly".to_owned(), 2),
        ("fake-recognizer", format!("--ring {}/no/such/folder", path("nowhere")), 1),
    ];
    for (name, line, code) in cases {
        let words: Vec<_> = line.split(' ').collect();
        for unwritable in [nobody(), full().into()] {
            let ended = run(name, &words, Stdio::piped(), unwritable);
            assert_eq!(ended.status.code(), Some(code), "{name} {line}: {:?}", ended.status);
        }
        let said = run(name, &words, Stdio::piped(), Stdio::piped());
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.code() == Some(code) && text.starts_with(&format!("{name}: ")), "{name} {line}: {text}");
    }
}

#[test]
fn a_receiving_server_goes_on_though_neither_its_log_nor_its_output_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    for log in [nobody(), full().into()] {
        let mut command = Command::new(program("event-receive-server"));
        command.args(["--listen", "127.0.0.1:0", "--store"]).arg(folder.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(log);
        let mut server = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap(); // and its reader goes
        let address = line.trim_end().strip_prefix("listening on http://").unwrap().parse().unwrap();
        for _ in 0..3 {
            assert_eq!(http::post_json(address, "/RealTimeEvent", &json!({})).status, 400); // which is logged
        }
        assert_eq!(http::get(address, "/api/events").status, 200);
        kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM).unwrap();
        assert!(server.wait().unwrap().success());
    }
}
