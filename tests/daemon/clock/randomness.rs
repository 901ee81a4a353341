//! A kernel without random numbers: nothing waits in `getrandom`, what needs no secret goes on, and the rest goes on by itself.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

use crate::common::daemon::Home;
use crate::common::kernel::Unseeded;
use crate::common::tls_server::TlsServer;
use crate::common::{BOUND, Daemon, Sink, http, program, publish_many, wait_until};
use rustls::sign::CertifiedKey;

/// What the kernel tells of a thread that waits for it.
const WAITS: &str = "unseeded: ";

#[test]
fn what_needs_no_secret_goes_on_without_random_numbers_in_both_formats() {
    for format in ["json", "form-data"] {
        let (home, sink) = (Home::new(), Sink::start());
        let Some(kernel) = Unseeded::build(&home, "what_needs_no_secret_goes_on") else { return };
        home.configure(&[sink.url()], json!({ "content-type": format }));
        let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
        let daemon = Daemon::spawn(&mut kernel.uplink(&home));
        publish_many(&mut recognizer, 5);
        sink.wait(5);
        home.wait_done();
        assert_eq!(daemon.status()["randomness_is_ready"], false);
        assert_eq!(http::get(daemon.api(), "/healthz").status, 200);
        let tested = http::post_json(daemon.api(), "/api/test-event", &json!({})).json();
        assert_eq!(tested["results"][0]["delivered"], true, "{tested}");
        let stopped = daemon.terminate();
        assert!(!stopped.log.contains(WAITS), "{}", stopped.log);
    }
}

#[test]
fn uploads_over_tls_wait_for_random_numbers_and_go_on_by_themselves_while_others_never_wait() {
    let (home, plain) = (Home::new(), Sink::start());
    let Some(kernel) = Unseeded::build(&home, "uploads_over_tls_wait_for_random_numbers") else { return };
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&secret).unwrap();
    let server = TlsServer::showing(CertifiedKey::new(vec![own.cert.der().clone()], key));
    let url = format!("https://localhost:{}/x", server.port);
    // With a client's key for ECDSA, which takes random numbers when it is made ready.
    for (name, text) in [("ca.pem", own.cert.pem()), ("own.key", own.signing_key.serialize_pem())] {
        std::fs::write(home.folder.path().join(name), text).unwrap();
    }
    let tls = json!({ "ca_file": "ca.pem", "client_cert_file": "ca.pem", "client_key_file": "own.key" });
    home.configure(&[url.clone(), plain.url()], json!({ "tls": tls }));
    let mut check = kernel.run(Path::new("timeout"));
    check.arg(BOUND.as_secs().to_string()).arg(program("sophon-uplink")).arg("check-config").arg(home.config());
    let checked = check.output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");

    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::spawn(&mut kernel.uplink(&home));
    let told = || daemon.status()["destinations"][0].clone();
    wait_until("the state", || told()["state"] == "randomness not ready");
    publish_many(&mut recognizer, 5);
    plain.wait(5);
    wait_until("the events in the spool", || home.spooled_for(&url).len() == 5);
    home.wait_released();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("config read again");
    wait_until("the state again", || told()["state"] == "randomness not ready");
    let status = told();
    assert!(status["last_error"].as_str().unwrap().contains("no random numbers"), "{status}");
    let labels = format!("{{destination=\"1\",server=\"https://localhost:{}\"}}", server.port);
    let metrics = http::get(daemon.api(), "/metrics").body;
    assert!(metrics.contains(&format!("sophon_uplink_destination_waits_for_randomness{labels} 1")), "{metrics}");
    assert!(metrics.contains("sophon_uplink_randomness_is_ready 0"), "{metrics}");
    let tested = http::post_json(daemon.api(), "/api/test-event", &json!({})).json();
    assert!(tested["results"][0]["error"].as_str().unwrap().contains("no random numbers"), "{tested}");
    assert_eq!(tested["results"][1]["delivered"], true, "{tested}");
    assert_eq!(server.connections.look(|(came, _)| *came), 0, "nobody was connected to");
    assert!(daemon.log().contains("no random numbers") && !daemon.log().contains(WAITS), "{}", daemon.log());

    kernel.seed();
    server.requests.wait("what waited", |requests| (requests.len() >= 5).then_some(()));
    home.wait_done();
    assert_eq!((told()["state"].clone(), told()["last_error"].clone()), (json!("up"), Value::Null));
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries, stopped.dead), (10, 0, 0), "{}", stopped.log);
}

#[test]
fn a_sealed_spool_waits_for_random_numbers_and_uploads_go_on() {
    let (home, plain) = (Home::new(), Sink::start());
    let Some(kernel) = Unseeded::build(&home, "a_sealed_spool_waits_for_random_numbers") else { return };
    let closed = crate::common::closed_port::ClosedPort::new();
    crate::common::make_key(&home.key());
    home.configure_sealed(&[closed.url(), plain.url()]);
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::spawn(&mut kernel.uplink(&home));
    publish_many(&mut recognizer, 5);
    plain.wait(5);
    let problem = || daemon.status()["spool"]["problem"].as_str().unwrap_or_default().to_owned();
    wait_until("the problem", || problem().contains("has no random numbers yet"));
    let ring = RingState::of(&home.ring()).unwrap();
    assert!(ring.consumed == 0 && home.spooled_files().is_empty(), "{ring}");
    assert!(!daemon.log().contains(WAITS), "{}", daemon.log());

    kernel.seed();
    wait_until("the events in the spool", || home.spooled_for(&closed.url()).len() == 5);
    home.wait_released();
    wait_until("the end of the problem", || problem().is_empty());
    assert_eq!(daemon.terminate().acknowledged, 5);
}

#[test]
fn a_token_is_made_when_there_are_random_numbers_and_uploads_go_on_until_then() {
    let (home, plain) = (Home::new(), Sink::start());
    let Some(kernel) = Unseeded::build(&home, "a_token_is_made_when_there_are_random_numbers") else { return };
    home.configure(&[plain.url()], json!({ "api": { "listen": "0.0.0.0:0", "token_file": "api.token" } }));
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::spawn(&mut kernel.uplink(&home));
    daemon.wait_log("no random numbers yet; a token is made as soon as it has");
    publish_many(&mut recognizer, 5);
    plain.wait(5);
    home.wait_done();
    assert!(!home.folder.path().join("api.token").exists() && !daemon.log().contains("the API listens"));

    kernel.seed();
    daemon.wait_log(", and asks for the token");
    assert_eq!(std::fs::read_to_string(home.folder.path().join("api.token")).unwrap().trim().len(), 32);
    let stopped = daemon.terminate();
    assert!(stopped.acknowledged == 5 && !stopped.log.contains(WAITS), "{}", stopped.log);
}
