//! The real program on a port of the system's choice, and an HTTP client of plain sockets that can also misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A server that ends with its test.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
}

/// An answer, read to the end of the connection.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// The program with these arguments, to be listened to.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_event-receive-server"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a program that must end by itself; one that starts to serve fails the test.
pub fn ends(mut command: Command) -> Output {
    let mut child = command.spawn().unwrap();
    let mut first = [0; 9];
    let read = child.stdout.as_mut().unwrap().read(&mut first).unwrap();
    if first == *b"listening" {
        let _ = child.kill();
    }
    let mut output = child.wait_with_output().unwrap();
    assert_ne!(first, *b"listening", "it serves");
    output.stdout.splice(0..0, first[..read].iter().copied());
    output
}

impl Server {
    pub fn in_memory() -> Server {
        Server::of(program(&["--listen", "127.0.0.1:0"]))
    }

    pub fn with_store(folder: &Path) -> Server {
        Server::of(program(&["--listen", "127.0.0.1:0", "--store", folder.to_str().unwrap()]))
    }

    /// Starts a program and reads its address from the line that it prints.
    pub fn of(mut command: Command) -> Server {
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on http://").expect(&line).trim_end().parse().unwrap();
        Server { child, address }
    }

    pub fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        // Only a failing test comes to this.
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket
    }

    /// Sends these bytes and reads the answer.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut socket = self.connect();
        socket.write_all(request).unwrap();
        Answer::read(socket)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    }

    /// Sends a body to /RealTimeEvent; `headers` are lines with their ends.
    pub fn post(&self, headers: &str, body: &[u8]) -> Answer {
        self.raw(&post_request("/RealTimeEvent", headers, body))
    }

    pub fn post_json(&self, id: &str, event: &Value) -> Answer {
        self.post(&format!("Content-Type: application/json\r\nX-Event-Id: {id}\r\n"), event.to_string().as_bytes())
    }

    pub fn post_form(&self, id: &str, parts: &[(&str, String)]) -> Answer {
        let headers = format!("Content-Type: multipart/form-data; boundary=between\r\nX-Event-Id: {id}\r\n");
        self.post(&headers, &form(parts))
    }

    /// What /api/events says.
    pub fn events(&self) -> Value {
        serde_json::from_slice(&self.get("/api/events?limit=1000").body).unwrap()
    }

    /// received, duplicates, rejected, incomplete
    pub fn counters(&self) -> [u64; 4] {
        let events = self.events();
        ["received", "duplicates", "rejected", "incomplete"].map(|name| events[name].as_u64().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    pub fn read(mut socket: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer with a head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: bytes.split_off(end) }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The errors of a refusal.
    pub fn errors(&self) -> Vec<String> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["status"], "error");
        serde_json::from_value(body["errors"].clone()).unwrap()
    }

    pub fn is_ok(&self) -> bool {
        self.status == 200 && self.text().starts_with(r#"{"status":"ok","received":{"#)
    }
}

pub fn post_request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

pub fn form(parts: &[(&str, String)]) -> Vec<u8> {
    let part = |(name, value): &(&str, String)| {
        format!("--between\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    (parts.iter().map(part).collect::<String>() + "--between--\r\n").into_bytes()
}

/// A good event without pictures.
pub fn event() -> Value {
    json!({"identity_id": "1001", "identity_name": "韩梅梅", "group_name": "staff", "reg_pic": "",
           "timestamp": 1_700_000_000, "score": 0.93, "ext_data": {}})
}

/// The good event with a value changed; a key is `score` or `ext_data/person_type`.
pub fn changed(key: &str, value: Value) -> Value {
    let mut event = event();
    match key.split_once('/') {
        Some((outer, inner)) => event[outer][inner] = value,
        None => event[key] = value,
    }
    event
}

/// The good event as the parts of a form, with one of them changed, or left out.
pub fn parts(key: &str, value: Option<&str>) -> Vec<(&'static str, String)> {
    let good = [
        ("identity_id", "1001"),
        ("identity_name", "韩梅梅"),
        ("group_name", "staff"),
        ("reg_pic", ""),
        ("timestamp", "1700000000"),
        ("score", "0.93"),
        ("ext_data", "{}"),
    ];
    let part = |(name, text): (&'static str, &str)| {
        let text = if name == key { value } else { Some(text) };
        text.map(|text| (name, text.to_string()))
    };
    good.into_iter().filter_map(part).collect()
}

/// A picture of tests/fixtures.
pub fn fixture(name: &str) -> Vec<u8> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures"].iter().collect();
    std::fs::read(folder.join(name)).unwrap()
}

pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines of a store.
pub fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "every line is whole");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The names of the pictures of a store, sorted.
pub fn pictures(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("pictures")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
