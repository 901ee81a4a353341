//! The promise: https through rustls, to servers that prove who they are and to no others.

mod files;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use files::{client_files, files};

use crate::common::daemon::Home;
use crate::common::http::post_json;
use crate::common::tls_server::{TlsServer, whole_request};
use crate::common::{Daemon, Sink, event, picture, program, publish, wait_until};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::fs::inotify;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sophon_uplink::control::CheckedConfig;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::trial;
use sophon_uplink::trial::picture::TestPicture;
use sophon_uplink::uplink::Uplink;
use tokio::runtime::LocalOptions;

/// A TLS server for `name` with a certificate by `ca`; it asks for a client certificate by `ca` where `mutual` says so.
fn serve(ca: &CertifiedIssuer<'static, KeyPair>, name: &str, mutual: bool) -> TlsServer {
    TlsServer::start(config(ca, name, mutual))
}

fn config(ca: &CertifiedIssuer<'static, KeyPair>, name: &str, mutual: bool) -> ServerConfig {
    config_of(ca, CertificateParams::new(vec![name.to_owned()]).unwrap(), mutual)
}

fn config_of(ca: &CertifiedIssuer<'static, KeyPair>, params: CertificateParams, mutual: bool) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = if mutual {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    builder.with_single_cert(vec![cert.der().clone()], secret).unwrap()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn an_event_goes_over_tls_to_a_server_of_a_private_ca_and_to_no_other() {
    let home = Home::new();
    let ca = authority("the owner's CA");
    std::fs::write(home.folder.path().join("ca.pem"), ca.pem()).unwrap();
    let good = serve(&ca, "localhost", false);
    let (wrong_ca, wrong_name) =
        (serve(&authority("another CA"), "localhost", false), serve(&ca, "elsewhere.example", false));
    let mut recognizer = Producer::open(&home.ring(), 1 << 22).unwrap();
    let pic = picture(700_000, 1);
    publish(&mut recognizer, &event(&pic, &pic));

    let tls = json!({ "tls": { "ca_file": "ca.pem" } }); // a relative path: from the config's folder
    for (server, complaint) in
        [(&wrong_ca, "unknown authority"), (&wrong_name, "is not for localhost but for elsewhere.example")]
    {
        let daemon = Daemon::start(&home, &[format!("https://localhost:{}/x", server.port)], tls.clone());
        daemon.wait_log(complaint);
        assert_eq!(daemon.terminate().acknowledged, 0);
        assert!(server.requests.look(Vec::is_empty), "nothing was sent to a server that did not prove itself");
    }
    let daemon = Daemon::start(&home, &[format!("https://localhost:{}/x", good.port)], json!({}));
    daemon.wait_log("unknown authority"); // the CA is not configured
    home.configure(&[format!("https://localhost:{}/x", good.port)], tls);
    daemon.signal(Signal::SIGHUP);
    let request = good.requests.wait("the event", |requests| requests.first().cloned());
    assert!(request.contains(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &pic)));
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

#[test]
fn try_says_when_the_servers_certificate_is_valid() {
    let home = Home::new();
    let ca = authority("the owner's CA");
    std::fs::write(home.folder.path().join("ca.pem"), ca.pem()).unwrap();
    home.configure(&[], json!({ "tls": { "ca_file": "ca.pem" } }));
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 2);
    params.not_after = rcgen::date_time_ymd(2049, 3, 4);
    let server = TlsServer::start(config_of(&ca, params, false));
    let url = format!("https://localhost:{}/x", server.port);
    let config = home.config();
    let try_it = |more: &[&str]| {
        let mut command = Command::new(program("sophon-uplink"));
        let words = ["try", &url, "--format", "json", "--idle", "0", "--config", config.to_str().unwrap()];
        String::from_utf8(command.args(words).args(more).output().unwrap().stdout).unwrap()
    };
    let words = try_it(&[]);
    let dates = "its certificate is valid from Fri, 02 Jan 2026 00:00:00 GMT until Thu, 04 Mar 2049 00:00:00 GMT (";
    assert!(words.contains(dates), "{words}");
    let found: Value = serde_json::from_str(&try_it(&["--json"])).unwrap();
    assert_eq!(found["certificate"], json!({"not_before": 1_767_312_000, "not_after": 2_498_428_800_u64}), "{found}");
}

#[test]
fn a_connection_that_is_made_when_its_destination_is_removed_carries_no_event() {
    let home = Home::new();
    let ca = authority("the owner's CA");
    std::fs::write(home.folder.path().join("ca.pem"), ca.pem()).unwrap();
    let (removed, added) = (serve(&ca, "localhost", false), Sink::start());
    removed.gate.change(|open| *open = false);
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    let more = json!({ "tls": { "ca_file": "ca.pem" }, "timeouts_ms": { "connect": 60_000 } });
    let daemon = Daemon::start(&home, &[format!("https://localhost:{}/x", removed.port)], more);
    removed.connections.wait("the connection", |(came, _)| (*came > 0).then_some(()));
    let change = json!({ "event_server_url": [added.url()], "content-type": "json" });
    let answer = post_json(daemon.api(), "/SophonFogSys/api/EventServerUrl", &change);
    assert_eq!(answer.status, 200);
    removed.gate.change(|open| *open = true); // from now on it could be sent
    added.wait(1);
    removed.connections.wait("the connection's end", |(_, ended)| (*ended > 0).then_some(()));
    assert!(removed.requests.look(Vec::is_empty), "sent to a URL that was not in force any more");
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

#[test]
fn a_client_certificate_is_shown_to_a_server_that_asks_for_one() {
    let home = Home::new();
    let ca = authority("the owner's CA");
    client_files(&home, "box", &ca);
    let server = serve(&ca, "localhost", true);
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    let url = [format!("https://localhost:{}/", server.port)];
    let daemon = Daemon::start(&home, &url, json!({ "tls": { "ca_file": "box.ca" } }));
    daemon.wait_log("not delivered, trying again: the server wants a client certificate");
    assert_eq!(daemon.terminate().acknowledged, 0);
    let daemon = Daemon::start(&home, &url, json!({ "tls": files("box") }));
    server.requests.wait("the event", |requests| requests.first().cloned());
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

fn url_of(server: &TlsServer) -> String {
    format!("https://localhost:{}/x", server.port)
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Reads 2000 bytes at most, after a rest as long as it is told.
struct Throttled(TcpStream, Duration);

impl Read for Throttled {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        thread::sleep(self.1);
        let most = buffer.len().min(2000);
        self.0.read(&mut buffer[..most])
    }
}

impl Write for Throttled {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A TLS server whose kernel holds little of what it does not read.
struct Narrow {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Narrow {
    /// It, and a daemon that has an event of so many picture bytes for it.
    fn start(picture_length: usize, timeout_ms: u64) -> (Narrow, Home, Daemon) {
        let ca = authority("the owner's CA");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_tcp_mss(1000).unwrap(); // loopback's segments would not fit into it
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(16).unwrap();
        let server = Narrow { listener: socket.into(), config: Arc::new(config(&ca, "localhost", false)) };
        let home = Home::new();
        std::fs::write(home.folder.path().join("ca.pem"), ca.pem()).unwrap();
        let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
        publish(&mut recognizer, &event(&picture(picture_length, 1), b""));
        let url = format!("https://localhost:{}/", server.listener.local_addr().unwrap().port());
        let more = json!({ "tls": { "ca_file": "ca.pem" }, "timeouts_ms": { "progress": timeout_ms, "response": timeout_ms } });
        let daemon = Daemon::start(&home, &[url], more);
        (server, home, daemon)
    }

    fn accept(&self) -> StreamOwned<ServerConnection, Throttled> {
        let tcp = self.listener.accept().unwrap().0;
        StreamOwned::new(ServerConnection::new(Arc::clone(&self.config)).unwrap(), Throttled(tcp, Duration::ZERO))
    }
}

#[test]
fn a_slow_link_under_tls_is_progress() {
    let (server, home, daemon) = Narrow::start(120_000, 1000); // 160 KB of body: 4 s
    thread::spawn(move || {
        loop {
            let mut stream = server.accept();
            let (mut text, mut buffer) = (Vec::new(), [0; 16384]);
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                stream.sock.1 = Duration::from_millis(50); // 40 KB/s
                text.extend_from_slice(&buffer[..count]);
                if whole_request(&text).is_some() {
                    let _ = stream.write_all(ANSWER);
                }
            }
        }
    });
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (1, 0));
}

/// Whether a connection to `port` has bytes for which the peer has no room: the kernel asks for some from time to time (4 is the
/// timer of that, in proc_net_tcp.txt of Linux's documentation).
fn is_window_shut(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|fields| fields.len() > 5 && fields[2].ends_with(&format!(":{port:04X}")) && fields[5].starts_with("04:"))
}

#[test]
fn an_answer_while_tls_holds_the_end_of_the_event_is_no_acknowledgement() {
    let (server, _home, daemon) = Narrow::start(40_000, 10_000);
    let mut stream = server.accept();
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    // TLS has the event, of which the kernel takes no more for now.
    wait_until("a window that is shut", || is_window_shut(stream.sock.0.local_addr().unwrap().port()));
    daemon.frozen(|| {
        stream.sock.0.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while stream.read(&mut [0; 16384]).is_ok_and(|count| count > 0) {} // so that all that the kernel had is acknowledged
        stream.write_all(ANSWER).unwrap();
    });
    daemon.wait_log("before it had the whole event");
    assert_eq!(daemon.terminate().acknowledged, 0);
}
