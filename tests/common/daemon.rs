//! The real daemon in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sophon_uplink::ring::inspect::RingState;

use super::{Watched, program, shm, wait_until};

/// A box of its own: a folder on tmpfs with a ring's path and a config.
pub struct Home {
    pub folder: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Home {
        Home { folder: shm() }
    }

    pub fn ring(&self) -> PathBuf {
        self.folder.path().join("events")
    }

    /// Waits until nothing is left in the ring.
    #[track_caller]
    pub fn wait_released(&self) {
        wait_until("the release of every event", || RingState::of(&self.ring()).unwrap().used == 0);
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("uplink.json")
    }

    /// Writes a config for this home's ring; `more` adds to it.
    pub fn configure(&self, urls: &[String], more: Value) {
        let mut config = json!({ "rings": [self.ring()], "event_server_url": urls });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::write(self.config(), config.to_string()).unwrap();
    }
}

pub struct Daemon {
    child: Child,
    log: Arc<Watched<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Daemon {
    /// Writes a config and starts the daemon on it.
    pub fn start(home: &Home, urls: &[String], more: Value) -> Daemon {
        home.configure(urls, more);
        Daemon::start_with(&program("sophon-uplink"), &home.config())
    }

    /// Starts the daemon again on the config that is there.
    pub fn restart(home: &Home) -> Daemon {
        Daemon::start_with(&program("sophon-uplink"), &home.config())
    }

    pub fn start_with(program: &Path, config: &Path) -> Daemon {
        Daemon::spawn(Command::new(program).arg("run").arg("--config").arg(config))
    }

    pub fn spawn(command: &mut Command) -> Daemon {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Watched::<String>::default());
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.change(|log| {
                    log.push_str(&line);
                    log.push('\n');
                });
            }
        });
        Daemon { child, log, reader: Some(reader) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.look(String::clone)
    }

    /// Waits for a text in the log.
    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        self.log.wait(&format!("{text:?} in the log"), |log| log.contains(text).then_some(()));
    }

    #[track_caller]
    pub fn wait_attached(&self) {
        self.wait_log(" attached ");
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// As a power cut for the process: no chance to do anything.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.end().1
    }

    /// Stops it as an init script does; it must obey within the 2 s that are promised.
    #[track_caller]
    pub fn terminate(mut self) -> Stopped {
        let began = Instant::now();
        self.signal(Signal::SIGTERM);
        let (status, log) = self.end();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "SIGTERM to exit took {took:?}\n{log}");
        assert!(status.success(), "{status}\n{log}");
        Stopped::read(log)
    }

    /// Waits for it to end by itself.
    pub fn wait(mut self) -> (ExitStatus, String) {
        self.end()
    }

    fn end(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status, self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stopped daemon said of its events. The counters balance, or reading them panics.
#[derive(Debug)]
pub struct Stopped {
    pub log: String,
    pub read: u64,
    pub filtered: u64,
    pub malformed: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub lost: u64,
    pub abandoned: u64,
    pub unfinished: u64,
    pub failed_tries: u64,
    pub corrupt: u64,
}

impl Stopped {
    #[track_caller]
    fn read(log: String) -> Stopped {
        let line = log.lines().rfind(|line| line.contains("stopped: ")).unwrap_or_else(|| panic!("no summary\n{log}"));
        let number = |name: &str| -> u64 {
            let words = line.split(|end: char| end.is_whitespace() || end == ';');
            let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next().unwrap_or_else(|| panic!("no {name} in {line}")).parse().unwrap()
        };
        let stopped = Stopped {
            read: number("read"),
            filtered: number("filtered"),
            malformed: number("malformed"),
            acknowledged: number("acknowledged"),
            refused: number("refused"),
            lost: number("lost"),
            abandoned: number("abandoned"),
            unfinished: number("unfinished"),
            failed_tries: number("failed_tries"),
            corrupt: number("corrupt"),
            log: log.clone(),
        };
        assert_eq!(stopped.read, stopped.filtered + stopped.malformed + number("sent"), "{line}");
        let ends = [stopped.acknowledged, stopped.refused, stopped.lost, stopped.abandoned, stopped.unfinished];
        assert_eq!(number("shares"), ends.iter().sum::<u64>(), "{line}");
        stopped
    }
}
