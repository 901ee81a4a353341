//! Signals that nobody sends for a reason end none of the programs, and those that end them do so at any moment.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use nix::libc;
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

use crate::common::daemon::Home;
use crate::common::hanging::Hanging;
use crate::common::{Daemon, Sink, event, http, program, publish};

/// Each ends a program that does not say otherwise; the last is one of the real-time signals, which have no names.
const STRAYS: [i32; 12] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    40,
];

fn send(process: u32, signal: i32) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().unwrap();
    assert!(sent.success(), "{signal}");
}

/// A program that ends with the test, whatever becomes of that.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Program {
        Program(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap)
    }

    /// Ends it by SIGTERM and gives its exit code; none where a signal ended it.
    fn stop(mut self) -> Option<i32> {
        send(self.0.id(), libc::SIGTERM);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn signals_that_nobody_sends_for_a_reason_end_none_of_the_programs() {
    let (home, sink) = (Home::new(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let mut daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_attached();
    let mut server = Program::start(Command::new(program("event-receive-server")).args(["--listen", "127.0.0.1:0"]));
    let line = server.lines().next().unwrap();
    let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    let mut fake = Command::new(program("fake-recognizer"));
    let ring = home.folder.path().join("another");
    let mut fake = Program::start(fake.arg("--ring").arg(ring).args(["--rate", "20"]));
    let mut events = fake.lines();
    events.next().unwrap();
    for (number, signal) in STRAYS.into_iter().enumerate() {
        for process in [daemon.pid(), server.0.id(), fake.0.id()] {
            send(process, signal);
        }
        // Each still does its work.
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(number + 1);
        assert_eq!(http::get(address, "/api/events").status, 200);
        (0..2).for_each(|_| drop(events.next().unwrap()));
        assert!(!daemon.has_ended(), "{signal}");
    }
    home.wait_done();
    daemon.terminate();
    assert_eq!(server.stop(), Some(0));
    assert_eq!(fake.stop(), None, "it ends as any program does at SIGTERM");
}

#[test]
fn a_sighup_that_comes_before_anything_else_does_not_end_the_uplink_and_a_sigterm_does() {
    let (home, sink) = (Home::new(), Sink::start());
    let Some(system) = Hanging::build(&home) else {
        println!("SKIPPED: a_sighup_that_comes_before_anything_else: there is no C compiler");
        return;
    };
    home.configure(&[sink.url()], json!({}));
    let begun = || {
        system.begin("bind"); // the first thing that it does, once it knows where
        let daemon = Daemon::spawn(&mut system.uplink(&home));
        system.wait("bind");
        daemon
    };
    let daemon = begun();
    [libc::SIGHUP, libc::SIGUSR1].into_iter().for_each(|signal| send(daemon.pid(), signal));
    system.end("bind");
    daemon.wait_log("config read again");
    daemon.terminate();

    let daemon = begun();
    send(daemon.pid(), libc::SIGTERM);
    let (status, log) = daemon.wait();
    assert_eq!((status.signal(), log.as_str()), (Some(libc::SIGTERM), ""));
}

#[test]
fn a_sighup_is_obeyed_though_who_started_the_uplink_ignores_it() {
    let (home, sink) = (Home::new(), Sink::start());
    home.configure(&[sink.url()], json!({}));
    let mut shell = Command::new("sh"); // as the init script's supervisor
    shell.args(["-c", "trap '' HUP; exec \"$0\" run --config \"$1\""]).arg(program("sophon-uplink")).arg(home.config());
    let daemon = Daemon::spawn(&mut shell);
    daemon.wait_log(" started ");
    send(daemon.pid(), libc::SIGHUP);
    daemon.wait_log("config read again");
    daemon.terminate();
}

/// Who started the tests under `nohup`, say, wants all that they start to ignore it.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal - 1) & 1 == 1
}

#[test]
fn a_command_ends_at_the_signals_that_end_any_command() {
    let signals = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
    for signal in signals.into_iter().filter(|signal| !is_ignored(*signal)) {
        let (home, silent) = (Home::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let api = json!({ "listen": silent.local_addr().unwrap(), "token_file": "api.token" });
        home.configure(&[], json!({ "api": api }));
        let mut command = Command::new(program("sophon-uplink"));
        let mut child = command.args(["status", "--config"]).arg(home.config()).spawn().unwrap();
        let _asked = silent.accept().unwrap();
        send(child.id(), signal);
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
    }
}
