//! The promise: started by root the uplink becomes a user who has nothing, and everything works. What takes root says SKIPPED
//! where there is none.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::closed_port::ClosedPort;
use crate::common::confined::{Box, USER, assert_confined, is_root, of_every_thread};
use crate::common::daemon::Home;
use crate::common::http::{get, post_json};
use crate::common::{Daemon, RingProducer, Sink, Watched, event, picture, program, publish, publish_many, wait_until};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::ring::wake::WaitOn;
use sophon_uplink::ring::{Memory, Word, fifo, opener};

/// The process that opens rings.
#[track_caller]
fn opener_of(daemon: &Daemon) -> u32 {
    let pid = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap_or_else(|_| panic!("one child: {children:?}"))
}

/// A server for https://localhost; whole requests that came.
fn tls_server(ca: &CertifiedIssuer<'static, KeyPair>) -> (String, Arc<Watched<usize>>) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, ca).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![cert.der().clone()], secret).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/x", listener.local_addr().unwrap().port());
    let came = Arc::new(Watched::<usize>::default());
    let counted = Arc::clone(&came);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut text = Vec::new();
            let mut buffer = [0; 16384];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                text.extend_from_slice(&buffer[..count]);
                if text.ends_with(b"}}") {
                    text.clear();
                    counted.change(|count| *count += 1);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            }
        }
    });
    (url, came)
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn root_becomes_a_user_who_has_nothing_and_everything_works() {
    if !is_root("root_becomes_a_user_who_has_nothing") {
        return;
    }
    // What root was a member of, nobody is any more.
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(4242)]).unwrap();
    let (the_box, sink, ca) = (Box::new(), Sink::start(), authority());
    let (url, came) = tls_server(&ca);
    let pem = the_box.home.folder.path().join("config/ca.pem");
    fs::write(&pem, ca.pem()).unwrap();
    fs::set_permissions(&pem, Permissions::from_mode(0o600)).unwrap();
    let tls = json!({ "tls": { "ca_file": "ca.pem" } });
    the_box.configure(&[url], tls.clone());
    let daemon = the_box.start();

    // A name, TLS, and a ring that root makes only now.
    daemon.wait_log("waiting: there is no ring");
    let ring = the_box.home.ring();
    let mut recognizer = Producer::open(&ring, 1 << 20).unwrap();
    let pic = picture(5000, 1);
    publish(&mut recognizer, &event(&pic, &pic));
    came.wait("an event over TLS", |came| (*came > 0).then_some(()));

    assert_confined(daemon.pid());
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
    assert!(of_every_thread(daemon.pid(), "Uid").iter().all(|ids| *ids == four(USER.id)));
    assert!(of_every_thread(daemon.pid(), "Gid").iter().all(|ids| *ids == four(USER.group)));
    assert!(of_every_thread(daemon.pid(), "Groups").iter().all(String::is_empty));
    assert!(of_every_thread(daemon.pid(), "CapBnd").iter().all(|set| *set == "0000000000000000"));
    let told = &daemon.status()["privileges"];
    assert_eq!(*told, json!({ "user": USER.id, "group": USER.group, "seccomp": true, "problem": null }));
    assert!(daemon.status()["rings"][0]["state"]["id"].is_string(), "the status shows the ring");
    let opener = opener_of(&daemon);
    for (name, value) in
        [("CapEff", "0000000000000002"), ("CapBnd", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")]
    {
        assert_eq!(of_every_thread(opener, name), [value], "{name} of the process that opens rings");
    }

    // A change by the API is in force and saved, one by hand is read, and the disk takes events.
    let change = json!({ "event_server_url": [sink.url()], "content-type": "json" });
    assert_eq!(post_json(daemon.api(), "/SophonFogSys/api/EventServerUrl", &change).status, 200);
    assert!(fs::read_to_string(the_box.config()).unwrap().contains(&sink.url()));
    publish_many(&mut recognizer, 1);
    sink.wait(1);
    let down = ClosedPort::new();
    the_box.configure(&[down.url()], tls.clone());
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("config read again");
    publish_many(&mut recognizer, 5);
    wait_until("events in the spool", || the_box.home.spooled_sequences().len() == 5);

    // Another ring in its place, once the old one is empty.
    the_box.home.wait_released();
    drop(recognizer);
    let mut recognizer = next_recognizer(&ring);
    daemon.wait_log("replaced by a new ring");
    publish_many(&mut recognizer, 1);
    wait_until("the next event in the spool", || the_box.home.spooled_files().len() == 6);
    the_box.assert_all_is_the_users();
    assert_eq!(daemon.terminate().spooled, 6);
    wait_until("the end of the process that opens rings", || !Path::new(&format!("/proc/{opener}")).exists());

    // What the user wrote is what the next start finds.
    the_box.configure(&[sink.url()], tls);
    let daemon = the_box.start();
    wait_until("the end of the backlog", || the_box.home.is_drained());
    let stopped = daemon.terminate();
    assert_eq!((stopped.recovered, stopped.evicted, stopped.quarantined), (6, 0, 0));
    the_box.assert_all_is_the_users();
    // Nor does a command of root's leave anything behind that the user could not read.
    let asked = the_box.command("dead resend").arg("--all").output().unwrap();
    assert!(asked.status.success(), "{asked:?}");
    the_box.assert_all_is_the_users();
}

#[test]
fn a_port_that_only_root_may_have_is_taken_before_root_is_left() {
    if !is_root("a_port_that_only_root_may_have") {
        return;
    }
    let the_box = Box::new();
    // Some port below 1024 that nobody has.
    let port = (600..1000).rev().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    the_box.configure(&[], json!({ "api": { "listen": format!("127.0.0.1:{port}") } }));
    let daemon = the_box.start();
    assert_eq!(daemon.api().port(), port);
    assert_eq!(get(daemon.api(), "/healthz").status, 200);
    daemon.terminate();
}

#[test]
fn the_opener_opens_rings_of_any_owner_and_nothing_else() {
    if !is_root("the_opener_opens_rings_of_any_owner") {
        return;
    }
    let (the_box, sink) = (Box::new(), Sink::start());
    let ring = the_box.home.ring();
    // As an intruder would write it into the config: what root alone may read, and is no ring.
    let secret = the_box.home.folder.path().join("secret");
    fs::write(&secret, vec![b'x'; 4096 + (1 << 20)]).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    the_box.configure(&[sink.url()], json!({ "rings": [&secret, &ring] }));
    let mut recognizer = Producer::open(&ring, 1 << 20).unwrap();
    chown(&ring, Some(1234), Some(1234)).unwrap();
    chown(fifo::path_of(&ring), Some(1234), Some(1234)).unwrap();
    let daemon = the_box.start();
    daemon.wait_log("is not a usable ring: its size or its header is no ring's");
    let waiting = || recognizer.memory().load(Word::Waiting, Ordering::Relaxed);
    wait_until("the sleep on its FIFO", || waiting() == WaitOn::Fifo as u64);
    publish_many(&mut recognizer, 1);
    sink.wait(1);
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let mut open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    assert!(!open.any(|path| path == secret));
    daemon.terminate();
}

/// A recognizer in place of one that has ended. A process that another test has just forked may have its lock until it becomes its
/// program.
fn next_recognizer(ring: &Path) -> RingProducer {
    let mut recognizer = None;
    wait_until("the ring is free", || {
        recognizer = Producer::open(ring, 1 << 21).ok();
        recognizer.is_some()
    });
    recognizer.expect("it is free")
}

#[test]
fn a_ring_in_a_folder_that_only_the_recognizer_may_enter_is_read_and_replaced_and_judged() {
    if !is_root("a_ring_in_a_folder_that_only_the_recognizer_may_enter") {
        return;
    }
    let (the_box, sink) = (Box::new(), Sink::start());
    let folder = the_box.home.folder.path().join("recognizer");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(1234), Some(1234)).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let ring = folder.join("events");
    the_box.configure(&[sink.url()], json!({ "rings": [&ring] }));
    let daemon = the_box.start();
    daemon.wait_log("waiting: there is no ring");
    assert_eq!(get(daemon.api(), "/healthz").status, 200, "the recognizer has not started yet");
    fs::write(&ring, "no ring").unwrap();
    assert_eq!(get(daemon.api(), "/healthz").status, 503);
    fs::remove_file(&ring).unwrap();
    let mut recognizer = Producer::open(&ring, 1 << 20).unwrap();
    publish_many(&mut recognizer, 1);
    sink.wait(1);
    wait_until("the release of the event", || RingState::of(&ring).unwrap().used == 0);
    drop(recognizer);
    let mut recognizer = next_recognizer(&ring);
    daemon.wait_log("replaced by a new ring");
    publish_many(&mut recognizer, 1);
    sink.wait(2);
    daemon.terminate();
}

#[test]
fn the_opener_answers_for_its_own_rings_and_ends_with_who_asks() {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
    let home = Home::new();
    let others = home.folder.path().join("others");
    let rings = [home.ring(), others.clone()].map(|path| Producer::open(&path, 1 << 16).unwrap());
    let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let mut opener = Command::new(program("sophon-uplink"));
    let mut opener = opener.args(["open-rings", "filtered"]).arg(home.ring()).stdin(its).spawn().unwrap();
    let ask = |path: &Path| {
        let mut code = [0; 4];
        send(&ours, path.as_os_str().as_encoded_bytes(), SendFlags::empty()).unwrap();
        recv(&ours, &mut code, RecvFlags::empty()).unwrap();
        i32::from_le_bytes(code)
    };
    assert_eq!([ask(&home.ring()), ask(&others), ask(Path::new("/etc/passwd"))], [0, libc::EPERM, libc::EPERM]);
    assert_eq!(ask(&home.ring()), 0, "it goes on");
    assert_eq!([ask(&fifo::path_of(&home.ring())), ask(&fifo::path_of(&others))], [0, libc::EPERM]);
    fs::remove_file(fifo::path_of(&home.ring())).unwrap();
    fs::write(fifo::path_of(&home.ring()), "what root alone may read").unwrap();
    assert_eq!(ask(&fifo::path_of(&home.ring())), opener::NO_RING, "only a FIFO");
    assert!(opener.try_wait().unwrap().is_none());
    drop(ours);
    assert!(opener.wait().unwrap().success());
    drop(rings);
}

#[test]
fn without_its_opener_the_uplink_stops_in_order_and_says_that_it_failed() {
    if !is_root("without_its_opener_the_uplink_stops") {
        return;
    }
    let (the_box, sink) = (Box::new(), Sink::start());
    let mut recognizer = Producer::open(&the_box.home.ring(), 1 << 20).unwrap();
    the_box.configure(&[sink.url()], json!({}));
    let daemon = the_box.start();
    daemon.wait_attached();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(opener_of(&daemon) as i32), Signal::SIGKILL).unwrap();
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the process that opens rings has ended") && log.contains("stopped: "), "{log}");
    publish_many(&mut recognizer, 1);
    let daemon = the_box.start();
    sink.wait(1);
    daemon.terminate();
}

#[test]
fn who_is_not_root_cannot_become_somebody() {
    let home = Home::new();
    home.configure(&[], json!({}));
    let run = |who: &str, as_user: Option<u32>| {
        let mut command = Command::new(program("sophon-uplink"));
        command.args(["run", "--user", who, "--config"]).arg(home.config());
        if let Some(user) = as_user {
            command.uid(user).gid(user);
        }
        command.output().unwrap()
    };
    for who in ["0", "root", "no-such-user", "1:0"] {
        let said = run(who, None);
        assert_eq!(said.status.code(), Some(2), "{who}: {said:?}");
    }
    if nix::unistd::geteuid().is_root() {
        return; // another user could not execute what lies in root's folders
    }
    let said = run("65528", None);
    assert!(
        said.status.code() == Some(1) && String::from_utf8_lossy(&said.stderr).contains("only root can become"),
        "{said:?}"
    );
}

#[test]
fn check_config_judges_as_the_user_that_the_uplink_becomes() {
    if !is_root("check_config_judges_as_the_user") {
        return;
    }
    let the_box = Box::new();
    let pem = the_box.home.folder.path().join("ca.pem");
    fs::write(&pem, authority().pem()).unwrap();
    fs::set_permissions(&pem, Permissions::from_mode(0o600)).unwrap();
    let check = |tls: Value, words: &[&str]| {
        the_box.configure(&["https://localhost/x".into()], json!({ "tls": tls }));
        fs::set_permissions(the_box.config(), Permissions::from_mode(0o600)).unwrap();
        Command::new(program("sophon-uplink")).arg("check-config").arg(the_box.config()).args(words).output().unwrap()
    };
    let user = USER.to_string();
    let with_user = ["--user", user.as_str()];
    for _before_and_after_the_hand_over in 0..2 {
        assert_eq!(check(json!({}), &with_user).status.code(), Some(0), "what root writes, the user is given");
        assert_eq!(check(json!({ "ca_file": &pem }), &with_user).status.code(), Some(78));
    }
    assert_eq!(check(json!({ "ca_file": &pem }), &[]).status.code(), Some(0), "as root");
}

#[test]
fn dead_resend_by_root_acts_in_no_folder_that_the_uplinks_user_names() {
    if !is_root("dead_resend_by_root_acts_in_no_folder") {
        return;
    }
    let the_box = Box::new();
    // As a taken-over uplink would write it: a spool that is a link into root's own, or that is root's own.
    let etc = the_box.home.folder.path().join("etc");
    let link = the_box.home.folder.path().join("config/link");
    fs::create_dir(&etc).unwrap();
    fs::set_permissions(&etc, Permissions::from_mode(0o755)).unwrap();
    symlink(&etc, &link).unwrap();
    for (dir, why) in
        [(&link, "no folder, or a link"), (&etc, "belongs to user 0, and the config's folder to user 65528")]
    {
        the_box.configure(&[], json!({ "spool": { "dir": dir } }));
        for path in [the_box.config(), the_box.home.folder.path().join("config"), link.clone()] {
            std::os::unix::fs::lchown(path, Some(USER.id), Some(USER.group)).unwrap();
        }
        let said = the_box.command("dead resend").arg("--all").output().unwrap();
        assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains(why), "{said:?}");
        assert_eq!(fs::metadata(&etc).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(&etc).unwrap().count(), 0);
    }
    // Nor is a config read that its user may not read: root is that user by then.
    fs::remove_file(the_box.config()).unwrap();
    let secret = the_box.home.folder.path().join("secret");
    fs::write(&secret, "{\"secret\": 1}").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    symlink(&secret, the_box.config()).unwrap();
    let said = the_box.command("dead resend").arg("--all").output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("cannot be read"), "{said:?}");
}

#[test]
fn an_ordinary_account_that_may_not_read_the_config_sees_the_status() {
    if !is_root("an_ordinary_account_that_may_not_read_the_config") {
        return;
    }
    let the_box = Box::new();
    the_box.configure(&[], json!({}));
    let daemon = the_box.start();
    // Where everybody may run it.
    let copy = the_box.home.folder.path().join("sophon-uplink");
    fs::copy(program("sophon-uplink"), &copy).unwrap();
    let status = |more: &[&str]| {
        let mut command = Command::new(&copy);
        command.args(["status", "--config"]).arg(the_box.config()).args(more).uid(65534).gid(65534);
        loop {
            match command.output() {
                // A process that another test has just forked may still have the copy open for writing.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                output => return output.unwrap(),
            }
        }
    };
    let there = status(&["--api", &daemon.api().to_string()]);
    assert!(there.status.success(), "{}", String::from_utf8_lossy(&there.stderr));
    assert!(String::from_utf8_lossy(&there.stdout).contains("running for"));
    // Without it the default address is asked, where another uplink may be.
    let by_default = status(&[]);
    let said = String::from_utf8_lossy(&by_default.stderr).into_owned();
    assert!(by_default.status.success() || said.contains("127.0.0.1:5555") && said.contains("--api"), "{said}");
    daemon.terminate();
}
