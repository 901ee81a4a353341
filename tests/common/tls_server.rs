//! A TLS server of our own: it shows what it is given, and keeps what it is sent.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Watched;

pub struct TlsServer {
    pub port: u16,
    /// Requests that came whole: head and body.
    pub requests: Arc<Watched<Vec<String>>>,
    /// No handshake begins before it is true.
    pub gate: Arc<Watched<bool>>,
    /// Connections that came, and those that ended.
    pub connections: Arc<Watched<(usize, usize)>>,
}

impl TlsServer {
    pub fn start(config: ServerConfig) -> TlsServer {
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Watched::<Vec<String>>::default());
        let gate = Arc::new(Watched::<bool>::default());
        gate.change(|open| *open = true);
        let connections = Arc::new(Watched::<(usize, usize)>::default());
        let shared = (Arc::clone(&requests), Arc::clone(&gate), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                let (kept, gate, connections) = shared.clone();
                connections.change(|(came, _)| *came += 1);
                thread::spawn(move || {
                    gate.wait("the gate", |open| open.then_some(()));
                    while let Some(()) = exchange(&mut stream, &kept) {}
                    connections.change(|(_, ended)| *ended += 1);
                });
            }
        });
        TlsServer { port, requests, gate, connections }
    }

    /// With a certificate that nobody looks at before.
    pub fn showing(shown: CertifiedKey) -> TlsServer {
        #[derive(Debug)]
        struct Shown(Arc<CertifiedKey>);
        impl ResolvesServerCert for Shown {
            fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
                Some(Arc::clone(&self.0))
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        TlsServer::start(builder.with_no_client_auth().with_cert_resolver(Arc::new(Shown(Arc::new(shown)))))
    }
}

/// The length of a request that has come whole.
pub fn whole_request(text: &[u8]) -> Option<usize> {
    let end = text.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
    let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    (text.len() >= end + length).then_some(end + length)
}

fn exchange(stream: &mut (impl Read + Write), kept: &Watched<Vec<String>>) -> Option<()> {
    let mut text = Vec::new();
    let mut buffer = [0; 16384];
    while whole_request(&text).is_none() {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => text.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
    kept.change(|requests| requests.push(String::from_utf8_lossy(&text).into_owned()));
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()
}
