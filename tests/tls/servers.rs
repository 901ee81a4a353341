//! The promise: a server that does not prove who it is gets not a byte of HTTP, and the operator is told in plain words why; one
//! that does gets every event whole.
//!
//! The servers are nginx and `openssl s_server` from Debian (packages nginx-light and openssl; without them the tests say that
//! they are skipped), with certificates from `forge.rs`, row by row of `table.rs`. The client is the daemon as it is shipped.

mod forge;
mod peers;
mod table;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::common::daemon::Home;
use crate::common::tls_server::TlsServer;
use crate::common::{Daemon, Sink, event, picture, program, publish, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge::{Forge, Identity};
use peers::{Files, Nginx, OpenSsl};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use sophon_uplink::ring::producer::Producer;
use table::{Expect, Row, TABLE};

/// The most destinations of a config.
const BATCH: usize = 16;
/// Names for wildcards; `localhost` needs none.
const HOSTS: &str = "127.0.0.1 localhost box.test www.box.test a.b.box.test\n";

/// Debian keeps it out of a user's PATH.
fn nginx() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    folders.map(|folder| Path::new(folder).join("nginx")).find(|path| path.exists())
}

fn is_possible(test: &str) -> bool {
    let has_openssl = Command::new("openssl").arg("version").output().is_ok();
    if !has_openssl || nginx().is_none() {
        println!("SKIPPED: {test}: no nginx or no openssl here (apt-get install nginx-light openssl)");
    }
    has_openssl && nginx().is_some()
}

/// A shell in which [`HOSTS`] are the names that there are.
fn with_hosts(hosts: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let bind = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    command.args(["sh", "-c", bind]).arg(hosts);
    command
}

/// A server of the table as one program runs it.
struct Case {
    label: String,
    url: String,
    expect: Expect,
    peer: Peer,
}

enum Peer {
    OpenSsl(OpenSsl),
    Own(TlsServer),
    /// Its port, and the path by which the backend knows what came through it.
    Nginx(u16, String),
    /// No TLS at all: what comes as HTTP comes to the backend.
    Plain(String),
}

impl Case {
    /// Requests that came whole.
    fn requests(&self, backend: &Sink) -> Vec<Vec<u8>> {
        match &self.peer {
            Peer::OpenSsl(server) => server.requests(),
            Peer::Own(server) => {
                server.requests.look(|texts| texts.iter().map(|text| text.clone().into_bytes()).collect())
            }
            Peer::Nginx(_, path) | Peer::Plain(path) => {
                let requests = backend.received().into_iter();
                requests
                    .filter(|request| request.line.contains(&format!(" {path} ")))
                    .map(|request| request.body)
                    .collect()
            }
        }
    }

    /// Whether anything came that was HTTP.
    fn heard_http(&self, nginx: &Nginx, backend: &Sink) -> bool {
        !self.requests(backend).is_empty()
            || match &self.peer {
                Peer::OpenSsl(server) => server.heard_http(),
                Peer::Nginx(port, _) => !nginx.requests_at(*port).is_empty(),
                Peer::Own(_) | Peer::Plain(_) => false,
            }
    }
}

/// Shows its identity as it is: rustls looks at it no more than at any bytes.
fn own_server(identity: &Identity) -> TlsServer {
    let secret = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let signing = rustls::crypto::ring::sign::any_supported_type(&secret).unwrap();
    let chain = identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    TlsServer::showing(CertifiedKey::new(chain, signing))
}

/// Each server of the table by each program that can be one; and what speaks no TLS.
fn cases(forge: &Forge, backend: &Sink, rows: &[&Row]) -> (Vec<Case>, Nginx) {
    let mut cases = Vec::new();
    let mut for_nginx = Vec::new();
    let case = |row: &Row, kind: &str, port: u16, path: &str, peer| {
        let (label, url) = (format!("{kind}: {}", row.name), format!("https://{}:{port}{path}", row.host));
        Case { label, url, expect: row.expect, peer }
    };
    for (number, row) in rows.iter().enumerate() {
        let identity = (row.make)(forge);
        if row.own {
            let own = own_server(&identity);
            cases.push(case(row, "own", own.port, "/x", Peer::Own(own)));
            continue;
        }
        let files = Files::write(&forge.folder, &format!("row{number}"), &identity);
        if let Some(more) = row.openssl {
            let server = OpenSsl::start(&files, more);
            cases.push(case(row, "s_server", server.port, "/x", Peer::OpenSsl(server)));
        }
        if let Some(more) = row.nginx {
            for_nginx.push((*row, files, more));
        }
    }
    let servers: Vec<_> = for_nginx.iter().map(|(_, files, more)| (files, *more)).collect();
    let nginx = Nginx::start(&forge.folder, &backend.address.to_string(), &servers);
    for (number, ((row, ..), port)) in for_nginx.iter().zip(&nginx.ports).enumerate() {
        let path = format!("/nginx/{number}");
        cases.push(case(row, "nginx", *port, &path, Peer::Nginx(*port, path.clone())));
    }
    (cases, nginx)
}

/// Speaks no TLS: HTTP, and nothing at all.
fn without_tls(nginx: &Nginx) -> Vec<Case> {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    thread::spawn(move || silent.incoming().for_each(drop));
    [("plain HTTP", nginx.plain, "does not speak TLS"), ("closes at once", silent_port, "in the TLS handshake")]
        .map(|(name, port, words)| {
            let url = format!("https://127.0.0.1:{port}/plain");
            Case { label: name.into(), url, expect: Expect::Refused(words), peer: Peer::Plain("/plain".into()) }
        })
        .into()
}

/// Sends one event to the servers of `cases`, with these certificate files, and says what was not as expected.
fn judge(cases: &[Case], tls: &Value, nginx: &Nginx, backend: &Sink, shell: Option<Command>) -> Vec<String> {
    let home = Home::new();
    let pic = picture(20_000, 1);
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let urls: Vec<_> = cases.iter().map(|case| case.url.clone()).collect();
    home.configure(&urls, json!({ "tls": tls, "timeouts_ms": { "connect": 60_000 } }));
    let mut command = shell.unwrap_or_else(|| Command::new("env"));
    command.arg(program("sophon-uplink")).args(["run", "--config"]).arg(home.config());
    let daemon = Daemon::spawn(&mut command);
    publish(&mut recognizer, &event(&pic, &pic));
    let mut status = Value::Null;
    let is_over = |told: &Value| told["acknowledged"] != 0 || !told["last_error"].is_null();
    wait_until("the end of every try", || {
        status = daemon.status();
        status["destinations"].as_array().unwrap().iter().all(is_over)
    });
    let mut wrong = Vec::new();
    for (case, told) in cases.iter().zip(status["destinations"].as_array().unwrap()) {
        let error = told["last_error"].as_str().unwrap_or_default();
        let is_right = match case.expect {
            Expect::Delivered => {
                let encoded = STANDARD.encode(&pic).into_bytes();
                let count = |body: &Vec<u8>| body.windows(encoded.len()).filter(|part| *part == encoded).count();
                error.is_empty() && case.requests(backend).iter().map(count).eq([2])
            }
            Expect::Refused(words) => {
                told["acknowledged"] == 0 && error.contains(words) && !case.heard_http(nginx, backend)
            }
        };
        if !is_right {
            wrong.push(format!("{}: {:?}, but: {error:?}", case.label, case.expect));
        }
    }
    let stopped = daemon.terminate();
    assert_eq!((stopped.dead, stopped.refused, stopped.evicted, stopped.lost), (0, 0, 0, 0), "{}", stopped.log);
    wrong
}

/// `SOPHON_TLS_ROW` is a part of the name of the rows to run.
#[test]
fn a_server_that_does_not_prove_who_it_is_gets_not_a_byte_and_one_that_does_gets_the_event() {
    const TEST: &str = "a_server_that_does_not_prove_who_it_is";
    if !is_possible(TEST) {
        return;
    }
    let bad = TABLE.iter().filter(|row| row.expect != Expect::Delivered).count();
    assert!(bad >= 30 && TABLE.len() - bad >= 12, "{bad} bad ones of {}", TABLE.len());
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, HOSTS).unwrap();
    let has_names = with_hosts(&hosts).arg("true").output().is_ok_and(|tried| tried.status.success());
    let wanted = std::env::var("SOPHON_TLS_ROW").unwrap_or_default();
    let is_local = |row: &Row| ["localhost", "127.0.0.1"].contains(&row.host);
    let is_to_run = |row: &&Row| row.name.contains(&wanted) && (has_names || is_local(row));
    for row in TABLE.iter().filter(|row| !has_names && !is_local(row)) {
        println!("SKIPPED: {TEST}: {}: no names of our own here (run as root, or allow user namespaces)", row.name);
    }
    let rows: Vec<_> = TABLE.iter().filter(is_to_run).collect();
    let (forge, backend) = (Forge::new(folder.path()), Sink::start());
    let (mut cases, nginx) = cases(&forge, &backend, &rows);
    cases.extend(without_tls(&nginx));
    let shell = || has_names.then(|| with_hosts(&hosts));
    let tls = json!({ "ca_file": forge.folder.join("trusted.pem") });
    let wrong: Vec<_> = cases.chunks(BATCH).flat_map(|batch| judge(batch, &tls, &nginx, &backend, shell())).collect();
    println!("{} rows, {} servers", rows.len(), cases.len());
    assert!(wrong.is_empty(), "{} of {} servers:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Who the box says it is, and how a server that wants to know takes it.
const CLIENTS: [(&str, Expect); 5] = [
    ("nobody", Expect::Refused("wants a client certificate")),
    ("the box", Expect::Delivered),
    ("a stranger", Expect::Refused("client certificate (UnknownCA)")),
    ("expired", Expect::Refused("client certificate (CertificateExpired)")),
    ("a server", Expect::Refused("client certificate (UnsupportedCertificate)")),
];

/// Writes the files of each of [`CLIENTS`], and says how a config names them.
fn clients(forge: &Forge) -> Vec<Value> {
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let stranger = Forge::stranger("a stranger");
    let identities = [
        None,
        Some(forge.changed(for_clients)),
        Some(forge::issued(forge::leaf(&["box-1"]), &forge::key(), &stranger, &[])),
        Some(forge.changed(|params| {
            for_clients(params);
            forge::between(params, 2015, 2020);
        })),
        Some(forge.named(&["localhost"])),
    ];
    let ca = forge.folder.join("trusted.pem");
    let files = |(number, identity): (usize, Option<Identity>)| match identity {
        None => json!({ "ca_file": ca }),
        Some(identity) => {
            let files = Files::write(&forge.folder, &format!("client{number}"), &identity);
            json!({ "ca_file": ca, "client_cert_file": files.path("all"), "client_key_file": files.path("key") })
        }
    };
    identities.into_iter().enumerate().map(files).collect()
}

#[test]
fn a_server_that_wants_a_client_certificate_gets_the_event_with_it_and_is_named_without_it() {
    if !is_possible("a_server_that_wants_a_client_certificate") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (forge, backend) = (Forge::new(folder.path()), Sink::start());
    let server = Files::write(folder.path(), "server", &forge.named(&["localhost"]));
    let clients = clients(&forge);
    let mutual = "ssl_client_certificate trusted.pem; ssl_verify_client on;";
    let honest = format!("{mutual} error_page 495 496 = @refused; location @refused {{ return 403; }}");
    let servers = [(&server, mutual), (&server, honest.as_str())];
    let nginx = Nginx::start(folder.path(), &backend.address.to_string(), &servers);
    let nginx_url = |number: usize, path: &str| format!("https://localhost:{}{path}", nginx.ports[number]);
    let (mut cases, mut files) = (Vec::new(), serde_json::Map::new());
    for version in ["-tls1_2", "-tls1_3"] {
        for ((name, expect), client) in CLIENTS.iter().zip(&clients) {
            let s_server = format!("{version} -Verify 1 -verify_return_error -CAfile trusted.pem");
            let peer = OpenSsl::start(&server, &s_server);
            let url = format!("https://localhost:{}/", peer.port);
            files.insert(url.clone(), client.clone());
            let label = format!("s_server {version}: {name}");
            cases.push(Case { label, url, expect: *expect, peer: Peer::OpenSsl(peer) });
        }
    }
    files.insert(nginx_url(0, "/box"), clients[1].clone());
    let peer = Peer::Nginx(0, "/box".into());
    cases.push(Case { label: "nginx: the box".into(), url: nginx_url(0, "/box"), expect: Expect::Delivered, peer });
    let wrong = judge(&cases, &json!({ "destinations": files }), &nginx, &backend, None);
    assert!(wrong.is_empty(), "{} of {} servers:\n{}", wrong.len(), cases.len(), wrong.join("\n"));

    // nginx says it with a status: 400, which is what it says of a bad event too, or what it is told to.
    for (client, number, answer, dead) in [
        (0, 0, "400 Bad Request", 1),
        (2, 0, "400 Bad Request", 1),
        (0, 1, "403 Forbidden", 0),
        (3, 1, "403 Forbidden", 0),
    ] {
        let home = Home::new();
        let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
        publish(&mut recognizer, &event(b"", b""));
        let daemon = Daemon::start(&home, &[nginx_url(number, "/nobody")], json!({ "tls": clients[client] }));
        daemon.wait_log(&format!("the server answered {answer}"));
        home.wait_released();
        assert_eq!(daemon.terminate().dead, dead, "{answer}");
    }
    assert!(backend.received().iter().all(|request| request.line.contains(" /box ")));
}
