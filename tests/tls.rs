//! The promise: https through rustls, to servers that prove who they are and to no others.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use common::daemon::Home;
use common::{Daemon, Watched, event, picture, publish};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

struct TlsServer {
    port: u16,
    /// Requests that came whole: head and body.
    requests: Arc<Watched<Vec<String>>>,
}

/// A TLS server for `name` with a certificate by `ca`; it asks for a client certificate by `ca` where `mutual` says so.
fn serve(ca: &CertifiedIssuer<'static, KeyPair>, name: &str, mutual: bool) -> TlsServer {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
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
    let config = Arc::new(builder.with_single_cert(vec![cert.der().clone()], secret).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Watched::<Vec<String>>::default());
    let kept = Arc::clone(&requests);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let kept = Arc::clone(&kept);
            thread::spawn(move || while let Some(()) = exchange(&mut stream, &kept) {});
        }
    });
    TlsServer { port, requests }
}

fn exchange(stream: &mut (impl Read + Write), kept: &Watched<Vec<String>>) -> Option<()> {
    let mut text = Vec::new();
    let mut buffer = [0; 16384];
    let is_whole = |text: &[u8]| {
        let end = text.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        (text.len() >= end + length).then_some(())
    };
    while is_whole(&text).is_none() {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => text.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
    kept.change(|requests| requests.push(String::from_utf8_lossy(&text).into_owned()));
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()
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
    for (server, complaint) in [(&wrong_ca, "UnknownIssuer"), (&wrong_name, "not valid for name")] {
        let daemon = Daemon::start(&home, &[format!("https://localhost:{}/x", server.port)], tls.clone());
        daemon.wait_log(complaint);
        assert_eq!(daemon.terminate().acknowledged, 0);
        assert!(server.requests.look(Vec::is_empty), "nothing was sent to a server that did not prove itself");
    }
    let daemon = Daemon::start(&home, &[format!("https://localhost:{}/x", good.port)], json!({}));
    daemon.wait_log("UnknownIssuer"); // the CA is not configured
    home.configure(&[format!("https://localhost:{}/x", good.port)], tls);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let request = good.requests.wait("the event", |requests| requests.first().cloned());
    assert!(request.contains(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &pic)));
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

#[test]
fn a_client_certificate_is_shown_to_a_server_that_asks_for_one() {
    let home = Home::new();
    let ca = authority("the owner's CA");
    let write = |name: &str, text: String| std::fs::write(home.folder.path().join(name), text).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["box-1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    write("ca.pem", ca.pem());
    write("box.pem", cert.pem());
    write("box.key", key.serialize_pem());
    let server = serve(&ca, "localhost", true);
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    let url = [format!("https://localhost:{}/", server.port)];
    let daemon = Daemon::start(&home, &url, json!({ "tls": { "ca_file": "ca.pem" } }));
    daemon.wait_log("not delivered");
    assert_eq!(daemon.terminate().acknowledged, 0);
    let files = json!({ "ca_file": "ca.pem", "client_cert_file": "box.pem", "client_key_file": "box.key" });
    let daemon = Daemon::start(&home, &url, json!({ "tls": files }));
    server.requests.wait("the event", |requests| requests.first().cloned());
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
}

#[test]
fn a_certificate_file_that_does_not_do_is_a_bad_config_that_names_the_key() {
    let home = Home::new();
    std::fs::write(home.folder.path().join("junk.pem"), "junk").unwrap();
    for (key, tls) in [
        ("tls.ca_file", json!({ "ca_file": "missing.pem" })),
        ("tls.ca_file", json!({ "ca_file": "junk.pem" })),
        ("tls.client_cert_file", json!({ "client_cert_file": "junk.pem", "client_key_file": "junk.pem" })),
    ] {
        let (status, log) = Daemon::start(&home, &[], json!({ "tls": tls })).wait();
        assert_eq!(status.code(), Some(78), "{log}");
        assert!(log.contains(key), "{log}");
    }
}
