//! The real daemon in a process of its own.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sophon_uplink::picture::PictureSource as _;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::spool::Destination;
use sophon_uplink::spool::disk::Mapped as _;
use sophon_uplink::spool::group::Part;
use sophon_uplink::spool::mapped_file::MappedFile;

use super::{Naps, Watched, program, shm, wait_until};

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

    pub fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// Every file in the spool but the names of destinations, relative to it.
    pub fn spooled_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.spool()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    _ if ["url", "heirs", "reasons"].iter().any(|note| entry.file_name() == *note) => {}
                    _ => found.push(entry.path().strip_prefix(self.spool()).unwrap().to_owned()),
                }
            }
        }
        found.sort();
        found
    }

    /// Waits until nothing is left in the ring.
    #[track_caller]
    pub fn wait_released(&self) {
        wait_until("the release of every event", || RingState::of(&self.ring()).unwrap().used == 0);
    }

    /// Whether nothing is left in the spool but dead letters and what was set aside.
    pub fn is_drained(&self) -> bool {
        !self.spooled_files().iter().any(|path| path.starts_with("to") || path.starts_with("new"))
    }

    /// Waits until every event has come to its end: nothing is left in the ring, nor in the spool but what stays there.
    #[track_caller]
    pub fn wait_done(&self) {
        self.wait_released();
        wait_until("the end of the backlog", || self.is_drained());
    }

    /// The sequence numbers of the events in the spool, dead letters included, as their files say.
    pub fn spooled_sequences(&self) -> BTreeSet<u64> {
        self.sequences(|path| !path.starts_with("new")).collect()
    }

    /// The same for what waits for the destination at `url`, each file for itself.
    pub fn spooled_for(&self, url: &str) -> Vec<u64> {
        let folder = Path::new("to").join(Destination::of(url).to_string());
        self.sequences(|path| path.starts_with(&folder)).collect()
    }

    /// What a file has of the event of that name, as if it had a file of its own; none where it is not there any more.
    pub fn spooled_event(&self, path: &Path) -> Option<Vec<u8>> {
        let mapped = MappedFile::of(&std::fs::File::open(self.spool().join(path)).ok()?).ok()?;
        let part = Part::of(mapped, path.file_stem()?.to_str()?.parse().ok()?).ok()?;
        let mut event = Vec::new();
        part.lend(0..part.size(), &mut |bytes| event.extend_from_slice(bytes)).ok()?;
        Some(event)
    }

    fn sequences(&self, is_meant: impl Fn(&Path) -> bool) -> impl Iterator<Item = u64> {
        let sequence = |path: PathBuf| {
            let event = self.spooled_event(&path)?;
            Some(u64::from_le_bytes(event.get(0x28..0x30)?.try_into().unwrap()))
        };
        self.spooled_files().into_iter().filter(move |path| is_meant(path)).filter_map(sequence)
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("uplink.json")
    }

    /// Where this home's key lies, once one was made.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("spool.key")
    }

    /// Writes a config whose spool is sealed with this home's key, whether there is one or not.
    pub fn configure_sealed(&self, urls: &[String]) {
        let spool = json!({ "dir": self.spool(), "min_free_bytes": 0, "key_file": self.key() });
        self.configure(urls, json!({ "spool": spool }));
    }

    /// The exit code of `check-config`, and what it says.
    pub fn check_config(&self) -> (Option<i32>, String) {
        let output = Command::new(program("sophon-uplink")).arg("check-config").arg(self.config()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Writes a config for this home's ring; `more` adds to it.
    pub fn configure(&self, urls: &[String], more: Value) {
        let spool = json!({ "dir": self.spool(), "min_free_bytes": 0 });
        let api = json!({ "listen": "127.0.0.1:0", "token_file": "api.token" });
        let mut config = json!({ "rings": [self.ring()], "event_server_url": urls, "spool": spool, "api": api });
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

    /// Whether its process is over.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
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

    /// Where its API listens; waits until it does.
    #[track_caller]
    pub fn api(&self) -> SocketAddr {
        const BEFORE: &str = "the API listens on http://";
        self.log.wait("the API's address in the log", |log| {
            let (_, rest) = log.rsplit_once(BEFORE)?;
            rest.split_once('/')?.0.parse().ok()
        })
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Its private memory.
    pub fn rss_anon_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Looks at what it makes while it stands still: a moment of its own, without a race.
    #[track_caller]
    pub fn frozen<R>(&self, look: impl FnOnce() -> R) -> R {
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat"));
            stat.map_or(true, |stat| stat.rsplit(") ").next().unwrap().starts_with('T')) // a thread may just end
        };
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.pid());
        wait_until("its standstill", || std::fs::read_dir(&tasks).unwrap().all(is_stopped));
        let seen = look();
        self.signal(Signal::SIGCONT);
        seen
    }

    /// What its API says of it.
    #[track_caller]
    pub fn status(&self) -> Value {
        super::http::get(self.api(), "/api/status").json()
    }

    /// As a power cut for the process: no chance to do anything.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.end().1
    }

    /// Stops it as an init script does; it must obey within the 2 s that are promised.
    #[track_caller]
    pub fn terminate(mut self) -> Stopped {
        let naps = Naps::start();
        self.signal(Signal::SIGTERM);
        wait_until("the end after SIGTERM", || self.child.try_wait().unwrap().is_some());
        let (status, log) = self.end();
        let took = naps.passed();
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
        if thread::panicking() && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::SIGTERM); // for its summary
            thread::sleep(Duration::from_secs(2));
            eprintln!("{}", self.log());
        }
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
    pub recovered: u64,
    pub resent: u64,
    pub acknowledged: u64,
    pub dead: u64,
    pub evicted: u64,
    pub quarantined: u64,
    pub refused: u64,
    pub lost: u64,
    /// In the spool.
    pub spooled: u64,
    /// Neither delivered nor spooled: in the ring.
    pub open: u64,
    pub failed_tries: u64,
    pub written: u64,
    pub corrupt: u64,
}

impl Stopped {
    #[track_caller]
    pub fn read(log: String) -> Stopped {
        let line = log.lines().rfind(|line| line.contains("stopped: ")).unwrap_or_else(|| panic!("no summary\n{log}"));
        let number = |name: &str| -> u64 {
            let words = line.split(|end: char| end.is_whitespace() || end == ';');
            let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next().unwrap_or_else(|| panic!("no {name} in {line}")).parse().unwrap()
        };
        assert_eq!(number("read"), number("filtered") + number("malformed") + number("sent"), "{line}");
        let sum = |names: &[&str]| names.iter().map(|name| number(name)).sum::<u64>();
        let came = sum(&["entered", "recovered", "inherited", "resent"]);
        let went = sum(&[
            "acknowledged",
            "dead",
            "expired",
            "evicted",
            "quarantined",
            "vanished",
            "refused",
            "lost",
            "handed_over",
        ]);
        assert_eq!(came, went + sum(&["spooled", "open"]), "{line}");
        Stopped {
            read: number("read"),
            filtered: number("filtered"),
            malformed: number("malformed"),
            recovered: number("recovered"),
            resent: number("resent"),
            acknowledged: number("acknowledged"),
            dead: number("dead"),
            evicted: number("evicted"),
            quarantined: number("quarantined"),
            refused: number("refused"),
            lost: number("lost"),
            spooled: number("spooled"),
            open: number("open"),
            failed_tries: number("failed_tries"),
            written: number("written"),
            corrupt: number("corrupt"),
            log: log.clone(),
        }
    }
}
