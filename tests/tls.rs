//! The promise: https through rustls, to servers that prove who they are and to no others.

mod common;

use std::sync::Arc;

use common::daemon::Home;
use common::tls_server::TlsServer;
use common::{Daemon, Sink, event, picture, publish};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use sophon_uplink::ring::producer::Producer;

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
    TlsServer::start(builder.with_single_cert(vec![cert.der().clone()], secret).unwrap())
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
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let request = good.requests.wait("the event", |requests| requests.first().cloned());
    assert!(request.contains(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &pic)));
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged, 1);
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
    let answer = common::http::post_json(daemon.api(), "/SophonFogSys/api/EventServerUrl", &change);
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
