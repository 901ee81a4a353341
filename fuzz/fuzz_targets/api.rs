//! Sends arbitrary requests to the local HTTP API, as it runs in the daemon, over a real socket. Every answer is complete,
//! contains no secret, and is not an internal error. The config in force equals the file, which stays a good config with every
//! secret in its place. Waiting takes no time: the clock is virtual.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sophon_uplink::api::{App, Limits, listen};
use sophon_uplink::config::Config;
use sophon_uplink::config::document::Document;
use sophon_uplink::confine::Confined;
use sophon_uplink::control::{CheckedConfig, Control};
use sophon_uplink::uplink::Uplink;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

const SECRET: &str = "canary-7f3a9c";
/// Maximum number of checks for work in progress.
const LOOKS: usize = 1000;

struct Daemon {
    runtime: Runtime,
    tasks: LocalSet,
    folder: tempfile::TempDir,
    address: String,
    config: String,
    control: Rc<Control>,
}

impl Daemon {
    fn start() -> Daemon {
        let runtime = sophon_uplink_fuzz::runtime();
        let folder = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there");
        // A loopback address of this process alone, made from its process id.
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let address = format!("127.{a}.{b}.{c}");
        let config = json!({
            "rings": [folder.path().join("ring")],
            "event_server_url": [format!("http://{address}:9/RealTimeEvent")],
            "headers": {"Authorization": format!("Bearer {SECRET}")},
            "spool": {"dir": folder.path().join("spool"), "min_free_bytes": 0},
            "api": {"listen": format!("{address}:5555"), "token_file": "api.token"},
        });
        let config = config.to_string();
        let path = folder.path().join("uplink.json");
        fs::write(&path, &config).expect("room on tmpfs");
        let tasks = LocalSet::new();
        let control = tasks.block_on(&runtime, async {
            let good = CheckedConfig::read(&path).expect("it is good");
            let uplink = Uplink::start(Arc::clone(good.setup())).expect("a thread");
            let control = Control::new(&path, Rc::clone(&uplink), good, None);
            // Only for the status: a fuzzer needs more system calls than an uplink.
            let confined = Confined { user: 0, group: 0, seccomp: false, problem: None, left: Vec::new() };
            let app = App::new(Rc::clone(&control), uplink, confined, Limits::default());
            tokio::task::spawn_local(listen::serve(app, None));
            control
        });
        let daemon = Daemon { runtime, tasks, folder, address: format!("{address}:5555"), config, control };
        daemon.tasks.block_on(&daemon.runtime, daemon.wait_for_listener());
        daemon
    }

    async fn wait_for_listener(&self) {
        for _ in 0..LOOKS {
            match TcpStream::connect(&self.address).await {
                Ok(_) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        panic!("the API does not listen on {}", self.address);
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("uplink.json")
    }

    /// Sends `request` and returns everything that comes back on the connection.
    async fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(&self.address).await.expect("the API listens");
        let (mut reading, mut writing) = socket.split();
        let mut answer = Vec::new();
        let ask = writing.write_all(request); // a server may answer and close before it has read everything
        let _ = tokio::join!(ask, reading.read_to_end(&mut answer));
        answer
    }

    /// Checks that the config in force equals the file, even after a change whose client did not wait.
    async fn check_file(&self) {
        for _ in 0..LOOKS {
            let text = fs::read(self.path()).expect("it is never missing");
            let written = Config::of_text(&text, &self.path()).expect("it is good");
            if written == *self.control.config() {
                return self.check_untouched(&text);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("the file is not what is in force: {:?}", self.control.config());
    }

    /// Checks that keys which the API must not change are unchanged.
    fn check_untouched(&self, text: &[u8]) {
        let [before, now] = [self.config.as_bytes(), text].map(|text| Document::parse(text).expect("it is good"));
        for key in ["rings", "headers", "spool", "api", "tls", "timeouts_ms"] {
            assert_eq!(now.get(key), before.get(key), "{key}");
        }
    }

    /// Restores the initial config.
    async fn restore(&self) {
        if fs::read(self.path()).expect("it is never missing") != self.config.as_bytes() {
            fs::write(self.path(), &self.config).expect("room on tmpfs");
            Rc::clone(&self.control).reload().await;
        }
    }
}

/// Checks the first answer on a connection. Further ones cannot be separated without knowing their requests.
fn check_answer(request: &[u8], answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    assert!(!text.contains(SECRET) || String::from_utf8_lossy(request).contains(SECRET), "a secret: {text}");
    if answer.is_empty() {
        return; // hyper may close without an answer if the request is not HTTP
    }
    let text = text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("half an answer: {text}"));
    let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let head = head.to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    assert!(status != 500, "an internal error: {text}");
    if field("server").is_none() {
        return assert!(matches!(status, 400 | 408 | 414 | 431 | 505) || body.is_empty(), "{text}"); // hyper's own
    }
    for guard in ["content-security-policy", "x-content-type-options", "cache-control", "x-frame-options"] {
        assert!(field(guard).is_some(), "no {guard}: {text}");
    }
    if request.trim_ascii_start().starts_with(b"HEAD ") {
        return; // the rest is the next answer
    }
    if status >= 400 && field("content-type") == Some("application/json") && !body.is_empty() {
        let length: usize = field("content-length").expect("it is exact").parse().expect("a number");
        let error: Value = serde_json::from_str(&body[..length]).unwrap_or_else(|error| panic!("{error}: {text}"));
        let is_clear = error["error"]["code"] == status
            && error["error"]["message"].as_str().is_some_and(|said| said.len() < 1000);
        assert!(is_clear || error["problems"].is_array(), "{text}");
    }
}

/// Whether the request could send a test event, which goes to the configured servers: the fuzzer must send nothing out.
fn would_go_out(request: &[u8]) -> bool {
    let count = |what: &[u8]| request.windows(what.len()).filter(|window| *window == what).count();
    count(b"/api/test-event") > 0 && count(b"HTTP/1") > 1
}

libfuzzer_sys::fuzz_target!(|request: &[u8]| {
    thread_local!(static DAEMON: Daemon = Daemon::start());
    if would_go_out(request) {
        return;
    }
    DAEMON.with(|daemon| {
        daemon.tasks.block_on(&daemon.runtime, async {
            let answer = daemon.ask(request).await;
            check_answer(request, &answer);
            daemon.check_file().await;
            daemon.restore().await;
        });
    });
});
