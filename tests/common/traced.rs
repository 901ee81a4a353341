//! The daemon under strace, which counts its system calls, fails one of them, or kills the process at one.
//!
//! A call is named by its system call and by the how-manieth of its thread it is. Which thread gets there first may differ from
//! run to run; a call that no run reaches is no failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use sophon_uplink::spool::Destination;

use super::daemon::{Daemon, Home};
use super::program;

/// Whether strace is here and may trace; says so where it may not.
pub fn is_possible(test: &str) -> bool {
    let tried = Command::new("strace").args(["-f", "-e", "trace=openat", "-o", "/dev/null", "true"]).output();
    let is_possible = tried.is_ok_and(|output| output.status.success());
    if !is_possible {
        println!("SKIPPED: {test}: strace is not here, or may not trace");
    }
    is_possible
}

/// What strace is to watch, and what to do.
pub struct Trace {
    command: Command,
    /// What it writes down.
    pub record: PathBuf,
}

impl Trace {
    pub fn of(home: &Home) -> Trace {
        let record = home.folder.path().join("trace");
        let mut command = Command::new("strace");
        // As a grandchild, so that the daemon itself is our child, and gets our signals.
        command.args(["-D", "-f", "-qq", "-o"]).arg(&record);
        Trace { command, record }
    }

    /// Only calls that concern the spool: those of its thread.
    pub fn spool(mut self, home: &Home, urls: &[String]) -> Trace {
        let root = home.spool();
        let folders = ["", "new", "to", "dead", "bad"].map(|name| root.join(name));
        let to = urls.iter().map(|url| root.join("to").join(Destination::of(url).to_string()));
        let folders: Vec<_> = folders.into_iter().chain(to).collect();
        for folder in &folders {
            let events = (1..=FILES).map(|number| folder.join(format!("{number:020}.event")));
            for path in [folder.clone(), folder.join("url")].into_iter().chain(events) {
                self.command.arg("-P").arg(path);
            }
        }
        self
    }

    /// Only calls that concern this file.
    pub fn path(mut self, path: &Path) -> Trace {
        self.command.arg("-P").arg(path);
        self
    }

    /// Only this system call, and at the one with this number, and with `lasting` at all later ones, what strace's `-e inject`
    /// calls `action`.
    pub fn inject(self, call: &Call, action: &str, lasting: bool) -> Trace {
        let Call { name, number } = call;
        let more = if lasting { "+" } else { "" };
        self.inject_when(name, action, &format!("{number}{more}"))
    }

    /// Only this system call, and at its first `count` ones of each thread what strace's `-e inject` calls `action`.
    pub fn inject_first(self, name: &str, action: &str, count: u64) -> Trace {
        self.inject_when(name, action, &format!("1..{count}"))
    }

    fn inject_when(mut self, name: &str, action: &str, when: &str) -> Trace {
        self.command.args(["-e", &format!("trace={name}")]);
        self.command.args(["-e", &format!("inject={name}:{action}:when={when}")]);
        self
    }

    pub fn start(mut self, home: &Home) -> Daemon {
        let daemon = program("sophon-uplink");
        Daemon::spawn(self.command.arg(daemon).arg("run").arg("--config").arg(home.config()))
    }
}

/// Numbers that a short run may give to files, failed tries included.
const FILES: u64 = 100;

/// A system call of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub name: String,
    /// Of its thread, from 1.
    pub number: u64,
}

/// Every call that a record speaks of.
pub fn calls(record: &Path) -> Vec<Call> {
    let mut by_thread = BTreeMap::<(String, String), u64>::new();
    for line in std::fs::read_to_string(record).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            *by_thread.entry((name.to_owned(), thread.to_owned())).or_default() += 1;
        }
    }
    let mut most = BTreeMap::<String, u64>::new();
    for ((name, _), count) in by_thread {
        let known = most.entry(name).or_default();
        *known = count.max(*known);
    }
    most.into_iter()
        .flat_map(|(name, count)| (1..=count).map(move |number| Call { name: name.clone(), number }))
        .collect()
}

/// Does `work` for each of `points` in a few threads, with a `tool` of its own for each, and says how far it is.
pub fn each<P: Sync, T>(points: &[P], tool: impl Fn() -> T + Sync, work: impl Fn(&mut T, &P) + Sync) {
    let next = Mutex::new(points.iter().enumerate());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut tool = tool();
                loop {
                    let Some((number, point)) = next.lock().unwrap().next() else { return };
                    work(&mut tool, point);
                    if (number + 1) % 100 == 0 {
                        println!("{} of {}", number + 1, points.len());
                    }
                }
            });
        }
    });
}
