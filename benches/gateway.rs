//! CPU time of the gateway for an event of 200 KB, compared with a loop that only reads a body and publishes it unchanged.
//!
//!     NATS_SERVER=target/venv-fleet/bin/nats-server cargo bench --profile gateway --features jetstream --bench gateway
//!
//! GATEWAY names another event-receive-server than the one of this build. Both run as separate processes against the same server, in
//! turns. The kernel's CPU times of both are compared. The difference is the cost of checking an event: its JSON, its base64, the
//! SHA-256 of its pictures, its headers.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{Client, HeaderMap};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;

const EVENTS: u64 = 1000;
const TURNS: u64 = 5;

/// A process that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts a server and reads the address that it prints.
    fn start(command: &mut Command) -> (Running, SocketAddr) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a program");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").expect("an address").parse().unwrap();
        (Running(child), address)
    }

    /// CPU time so far, in milliseconds.
    fn cpu_ms(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10 // the kernel counts hundredths of a second
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "plain") {
        return runtime().block_on(plain(&arguments[at + 1]));
    }
    let Ok(program) = std::env::var("NATS_SERVER") else {
        return println!("SKIPPED: NATS_SERVER names no nats-server");
    };
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = folder.path().join("nats.conf");
    let store = folder.path().join("store");
    std::fs::write(
        &config,
        format!("listen: \"127.0.0.1:{port}\"\nmax_payload: 16MB\njetstream {{ store_dir: {store:?} }}\n"),
    )
    .unwrap();
    let server = Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().expect("nats-server");
    let _server = Running(server);
    let url = format!("nats://127.0.0.1:{port}");
    runtime().block_on(make_stream(&url));

    let gateway = ["--listen", "127.0.0.1:0", "--jetstream", &url];
    let built = env!("CARGO_BIN_EXE_event-receive-server");
    let program = std::env::var("GATEWAY").unwrap_or_else(|_| built.to_owned());
    let (gateway, gateway_at) = Running::start(Command::new(program).args(gateway));
    let (loop_, loop_at) = Running::start(Command::new(&arguments[0]).args(["plain", &url]));
    let body = event();
    println!("{EVENTS} events of {} bytes a turn, CPU time an event:", body.len());
    let mut ratios = Vec::new();
    for turn in 0..TURNS {
        let cost = |server: &Running, address, first| {
            let before = server.cpu_ms();
            post(address, &body, first);
            (server.cpu_ms() - before) as f64 / EVENTS as f64
        };
        let (ours, plain) =
            (cost(&gateway, gateway_at, turn * 2 * EVENTS), cost(&loop_, loop_at, (turn * 2 + 1) * EVENTS));
        println!("  gateway {ours:.3} ms, loop {plain:.3} ms: {:.2} times", ours / plain);
        ratios.push(ours / plain);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median: {:.2} times", ratios[ratios.len() / 2]);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connected(url: &str) -> Client {
    async_nats::ConnectOptions::new().retry_on_initial_connect().connect(url).await.unwrap()
}

async fn make_stream(url: &str) {
    let config = json!({"name": "EVENTS", "subjects": ["events.>"], "discard": "new", "storage": "file", "max_bytes": 4_u64 << 30,
                        "duplicate_window": 120_000_000_000_u64});
    let client = connected(url).await;
    loop {
        let answer = client.request("$JS.API.STREAM.CREATE.EVENTS", config.to_string().into()).await;
        if answer.is_ok_and(|answer| !answer.payload.windows(7).any(|text| text == b"\"error\"")) {
            return;
        }
    }
}

/// The loop: reads a body, publishes it, waits for the ack.
async fn plain(url: &str) {
    let client = connected(url).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let client = client.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let client = client.clone();
                async move {
                    let mut headers = HeaderMap::new();
                    headers.insert(NATS_MESSAGE_ID, request.headers()["x-event-id"].to_str().unwrap());
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    client.request_with_headers("events.plain.realtime", headers, body).await.unwrap();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// A body of about 200 KB, as a box sends it.
fn event() -> String {
    let picture = |name: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
        STANDARD.encode(std::fs::read(format!("{path}{name}")).unwrap())
    };
    json!({"identity_id": "1001", "identity_name": "韩梅梅", "group_name": "staff", "reg_pic": picture("chelsea-spot-50k.jpg"),
           "timestamp": 1_700_000_000, "score": 0.93, "ext_data": {"dev_sno": "gate-1", "spot_pic": picture("cameraman-spot-100k.jpg")}})
    .to_string()
}

/// Posts the events over one connection. Each is acknowledged before the next one. Ids begin at `first`.
fn post(address: SocketAddr, body: &str, first: u64) {
    let mut socket = TcpStream::connect(address).unwrap();
    let mut number = first;
    while number < first + EVENTS {
        let head = format!(
            "POST /RealTimeEvent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Event-Id: {:032x}-{number}\r\nContent-Length: {}\r\n\r\n",
            7,
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(body.as_bytes()).unwrap();
        let status = answered(&mut socket);
        assert!(status == 200 || number == first, "answered {status}");
        number += u64::from(status == 200); // the gateway may still be looking for its stream, but not for long
        if status != 200 {
            socket = TcpStream::connect(address).unwrap();
        }
    }
}

/// Reads an answer with its body and returns its status.
fn answered(socket: &mut TcpStream) -> u16 {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = socket.read(&mut piece).unwrap();
        assert_ne!(count, 0, "the connection ended");
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length: usize =
            head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
        if body.len() >= length {
            return head.split(' ').nth(1).unwrap().parse().unwrap();
        }
    }
}
