//! The promise: whatever a server does, no event is lost, and none counts as delivered that the server did not have whole and
//! answer with 2xx.
//!
//! Each row of the table is a server that misbehaves by a deterministic rule with some of its requests and serves the others, so
//! that every event can be delivered in the end. The daemon is measured against what the server wrote down itself.

mod peer;
mod server;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::closed_port::ClosedPort;
use crate::common::daemon::{Home, Stopped};
use crate::common::{BOUND, Daemon, event, picture};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use server::{Record, Server, listener, page};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::{NewEvent, Producer};
use table::{Does, Expect, Row, TABLE};

/// Rows at once; most of their time they wait.
const AT_ONCE: usize = 8;
/// How often a destination that is misconfigured, which means half a minute and more of pause, is set right.
const SET_RIGHT: Duration = Duration::from_millis(50);

/// `SOPHON_SERVER_EVENTS` raises the count for soak campaigns; `SOPHON_SERVER_ROW` is a part of the name of the rows to run.
#[test]
fn no_misbehaviour_of_a_server_loses_an_event_or_acknowledges_one_that_it_does_not_have() {
    let events = crate::common::count("SOPHON_SERVER_EVENTS", 6);
    let wanted = std::env::var("SOPHON_SERVER_ROW").unwrap_or_default();
    let rows = TABLE.iter().filter(|row| row.name.contains(&wanted));
    let runs: Vec<_> = rows.flat_map(|row| ["json", "form-data"].map(|format| (row, format))).collect();
    assert!(TABLE.len() >= 44);
    let began = Instant::now();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let tls = tls();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((row, format)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = events * row.times;
                    let name = format!("{} | {format} | {count} events", row.name.escape_debug());
                    let began = Instant::now();
                    match catch_unwind(AssertUnwindSafe(|| run(row, format, count, &tls))) {
                        Ok(verdict) => println!("{name} | {verdict} in {} ms", began.elapsed().as_millis()),
                        Err(_) => {
                            println!("{name} | FAILED");
                            failed.lock().unwrap().push(name);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!(
        "{} misbehaving servers, {} runs, {} failed, {:?}",
        runs.len() / 2,
        runs.len(),
        failed.len(),
        began.elapsed()
    );
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A server's certificate for localhost, and the CA that gave it.
struct Tls {
    ca: String,
    server: Arc<ServerConfig>,
}

fn tls() -> Tls {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = builder.with_no_client_auth().with_single_cert(vec![cert.der().clone()], secret).unwrap();
    Tls { ca: ca.pem(), server: Arc::new(server) }
}

/// Runs one row; panics where a promise is broken. What it returns is to be read.
fn run(row: &'static Row, format: &str, count: u64, tls: &Tls) -> String {
    let home = Home::new();
    // Room for everything: what is evicted is not lost by a server.
    let spool = json!({ "dir": home.spool(), "min_free_bytes": 0, "max_bytes": 8u64 << 30 });
    let mut config = json!({ "content-type": format, "spool": spool });
    let [connect, progress, response] = row.timeouts_ms;
    config["timeouts_ms"] = json!({ "connect": connect, "progress": progress, "response": response });
    if row.https {
        std::fs::write(home.folder.path().join("ca.pem"), &tls.ca).unwrap();
        config["tls"] = json!({ "ca_file": "ca.pem" });
    }
    let speaks_tls = row.https || matches!(row.does, Does::TlsWherePlain);
    let start = |listener| Server::start(row, count, speaks_tls.then(|| Arc::clone(&tls.server)), listener);
    let closed = ClosedPort::new();
    let is_closed = matches!(row.does, Does::Closed);
    let (address, mut server) = if is_closed {
        (closed.address, None)
    } else {
        let server = start(listener(row.receive_buffer));
        (server.address, Some(server))
    };
    let host = if row.https { format!("https://localhost:{}", address.port()) } else { format!("http://{address}") };
    let mut recognizer = Producer::open(&home.ring(), if row.picture > 100_000 { 16 << 20 } else { 1 << 20 }).unwrap();
    let daemon = Daemon::start(&home, &[format!("{host}/RealTimeEvent")], config);
    daemon.wait_attached(); // before that SIGHUP may find no handler
    let pic = picture(row.picture, 1);
    let mut published = 0;
    let mut progress = Progress { at: Instant::now(), seen: (0, 0) };
    let mut set_right = Instant::now();
    loop {
        let released = RingState::of(&home.ring()).unwrap().consumed;
        // (A surplus answer that crosses a request counts as its answer, but the server writes that down later.)
        if !matches!(row.does, Does::Surplus(..)) {
            check_released(&home, released, server.as_ref());
        }
        if released == count && home.is_drained() {
            break;
        }
        progress
            .note((released, server.as_ref().map_or(0, |server| server.look(|record| record.connections))), &daemon);
        let identity = (published + 1).to_string();
        let event = NewEvent { identity_id: identity.as_bytes(), ..event(&pic, b"") };
        if published < count && (!row.paced || released == published) && recognizer.has_room(&event) {
            if let Some(server) = &server {
                server.poke();
            }
            published = recognizer.publish(&event).unwrap();
            continue;
        }
        if server.is_none() && daemon.log().contains("not delivered, trying again: ") {
            server = Some(start(closed.open()));
        }
        if matches!(row.expect, Expect::Misconfigured(_)) && set_right.elapsed() >= SET_RIGHT {
            daemon.signal(Signal::SIGHUP);
            set_right = Instant::now();
        }
        thread::sleep(Duration::from_millis(1)); // the next look
    }
    check(row, count, &daemon.terminate(), server.as_ref().expect("it is there by now"))
}

/// What goes on, so that a hang is told from a long campaign.
struct Progress {
    at: Instant,
    seen: (u64, u64),
}

impl Progress {
    fn note(&mut self, seen: (u64, u64), daemon: &Daemon) {
        if seen != self.seen {
            *self = Progress { at: Instant::now(), seen };
        }
        assert!(self.at.elapsed() < BOUND, "nothing goes on, {seen:?} (released, connections)\n{}", daemon.log());
    }
}

/// At no moment is an event released that neither the server has written down nor the spool. Events are released in their order.
fn check_released(home: &Home, released: u64, server: Option<&Server>) {
    let ended = |sequence: &u64| {
        let Some(server) = server else { return false };
        server.look(|record| record.events.get(sequence).is_some_and(|known| known.acknowledged || known.refused))
    };
    // The last few of them stand for all: this is looked at every millisecond.
    let not_ended: Vec<_> = (1..=released).rev().take(64).filter(|sequence| !ended(sequence)).collect();
    if !not_ended.is_empty() {
        let spooled = home.spooled_sequences();
        // One that is not there either was delivered meanwhile, or is lost.
        let lost = not_ended.iter().find(|sequence| !spooled.contains(sequence) && !ended(sequence));
        assert_eq!(lost, None, "released, but neither with the server nor in the spool");
    }
}

fn check(row: &Row, count: u64, stopped: &Stopped, server: &Server) -> String {
    let log = &stopped.log;
    let record = server.look(Record::clone);
    let acknowledged = record.events.values().filter(|known| known.acknowledged).count() as u64;
    let refused = record.events.values().filter(|known| known.refused && !known.acknowledged).count() as u64;
    let tries: u64 = record.events.values().map(|known| known.tries).sum();
    let lost: Vec<_> = (1..=count)
        .filter(|sequence| !record.events.get(sequence).is_some_and(|known| known.acknowledged || known.refused))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}\n{log}");
    assert_eq!(record.faults.iter().collect::<Vec<_>>(), [""; 0]);
    assert_eq!(record.events.len() as u64, count, "nothing came that was not published");
    assert!(record.misbehaved > 0 || matches!(row.does, Does::Closed), "the server never misbehaved");
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(page().visits.look(|visits| *visits), 0, "a redirect was followed");
    assert_eq!((stopped.read, stopped.acknowledged + stopped.dead), (count, count), "{log}");
    assert_eq!((stopped.lost, stopped.spooled, stopped.corrupt), (0, 0, 0), "{log}");
    assert!(stopped.acknowledged <= acknowledged, "false acknowledgements\n{log}");
    let asked = record.events.values().filter_map(|known| known.pause).max();
    assert!(asked.unwrap_or_default() >= row.pause, "the pause that the server asked for was not kept: {asked:?}");

    let failures: Vec<_> = log.lines().filter(|line| line.contains("not delivered, trying again: ")).collect();
    let only = |texts: &str| {
        let is_one = |line: &&str| texts.split('|').any(|text| line.contains(text));
        assert!(failures.iter().all(is_one), "only {texts:?} was expected\n{log}");
    };
    match row.expect {
        Expect::Fine => assert_eq!((stopped.failed_tries, tries), (0, count), "{log}"),
        Expect::AtOnce => {
            assert_eq!((stopped.failed_tries, tries), (0, count + record.misbehaved), "{log}");
        }
        Expect::Down(texts) => {
            assert!(stopped.failed_tries > 0 && stopped.dead == 0, "{log}");
            only(texts);
        }
        Expect::Misconfigured(texts) => {
            assert!(stopped.failed_tries > 0 && stopped.dead == 0, "{log}");
            only(texts);
        }
        Expect::Refused(text) => {
            assert_eq!((stopped.failed_tries, stopped.dead, acknowledged), (0, refused, count - refused), "{log}");
            assert!(
                refused > 0 && log.lines().any(|line| line.contains("became a dead letter") && line.contains(text))
            );
        }
        Expect::RefusedOrDown => {}
        Expect::Acknowledged => assert_eq!(stopped.dead, 0, "{log}"),
    }
    let (failed, given_up) = (stopped.failed_tries, stopped.dead);
    format!("{tries} tries, {failed} failed, {acknowledged} acknowledged, {given_up} refused | ok")
}
