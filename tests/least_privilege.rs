//! The promise: what was taken over has nothing. A call that the uplink does not need ends it; what it needs works without root.
//!
//! The rest of the tests runs under the same filter, which is on by default. What takes root says SKIPPED where there is none.
#![allow(unsafe_code)] // raw system calls, that no library would make

mod common;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use common::closed_port::ClosedPort;
use common::daemon::Home;
use common::http::{get, post_json};
use common::{Daemon, Sink, Watched, event, picture, program, publish, publish_many, wait_until};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sophon_uplink::confine::filter::{End, Filter, install_with};
use sophon_uplink::confine::{User, hand_over};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

const USER: User = User { id: 65528, group: 65527 };

// --- calls that are not allowed -------------------------------------------------------------------------------------

type Call = (&'static str, libc::c_long, [u64; 4]);

/// What an intruder would want; none of these would do harm if it were made.
fn banned() -> Vec<Call> {
    use libc::*;
    const BAD: u64 = 1; // an address that is nowhere
    let flag = |value: i32| value as u32 as u64;
    let mut calls = vec![
        ("execve", SYS_execve, [BAD, 0, 0, 0]),
        ("execveat", SYS_execveat, [0, BAD, 0, 0]),
        ("a process", SYS_clone, [flag(SIGCHLD), 0, 0, 0]),
        ("ptrace", SYS_ptrace, [flag(PTRACE_ATTACH as i32), 1, 0, 0]),
        ("process_vm_readv", SYS_process_vm_readv, [1, 0, 0, 0]),
        ("process_vm_writev", SYS_process_vm_writev, [1, 0, 0, 0]),
        ("pidfd_open", SYS_pidfd_open, [1, 0, 0, 0]),
        ("kill", SYS_kill, [1, 0, 0, 0]),
        ("a signal to another's thread", SYS_tgkill, [1, 1, 0, 0]),
        ("SIGKILL to a thread", SYS_tkill, [BAD, flag(SIGKILL), 0, 0]),
        ("catching SIGSYS", SYS_rt_sigaction, [flag(SIGSYS), 0, 0, 8]),
        ("setuid", SYS_setuid, [0, 0, 0, 0]),
        ("setgid", SYS_setgid, [0, 0, 0, 0]),
        ("setgroups", SYS_setgroups, [0, BAD, 0, 0]),
        ("setresuid", SYS_setresuid, [0, 0, 0, 0]),
        ("capset", SYS_capset, [BAD, BAD, 0, 0]),
        ("being dumped again", SYS_prctl, [flag(PR_SET_DUMPABLE), 1, 0, 0]),
        ("another filter", SYS_seccomp, [0, 0, 0, 0]),
        ("raising a limit", SYS_prlimit64, [0, flag(RLIMIT_CORE as i32), BAD, 0]),
        ("another's limit", SYS_prlimit64, [1, flag(RLIMIT_CORE as i32), 0, 0]),
        ("chroot", SYS_chroot, [BAD, 0, 0, 0]),
        ("chdir", SYS_chdir, [BAD, 0, 0, 0]),
        ("mount", SYS_mount, [BAD, BAD, 0, 0]),
        ("umount", SYS_umount2, [BAD, 0, 0, 0]),
        ("pivot_root", SYS_pivot_root, [BAD, BAD, 0, 0]),
        ("unshare", SYS_unshare, [0, 0, 0, 0]),
        ("setns", SYS_setns, [u64::MAX, 0, 0, 0]),
        ("init_module", SYS_init_module, [BAD, 0, BAD, 0]),
        ("finit_module", SYS_finit_module, [u64::MAX, BAD, 0, 0]),
        ("delete_module", SYS_delete_module, [BAD, 0, 0, 0]),
        ("kexec_load", SYS_kexec_load, [0, u64::MAX, 0, 0]),
        ("reboot", SYS_reboot, [0, 0, 0, 0]),
        ("bpf", SYS_bpf, [u64::MAX, 0, 0, 0]),
        ("perf_event_open", SYS_perf_event_open, [BAD, 0, 0, 0]),
        ("keyctl", SYS_keyctl, [u64::MAX, 0, 0, 0]),
        ("add_key", SYS_add_key, [BAD, BAD, 0, 0]),
        ("personality", SYS_personality, [u64::from(u32::MAX), 0, 0, 0]),
        ("userfaultfd", SYS_userfaultfd, [u64::MAX, 0, 0, 0]),
        ("io_uring_setup", SYS_io_uring_setup, [0, BAD, 0, 0]),
        ("memfd_create", SYS_memfd_create, [BAD, 0, 0, 0]),
        ("open_by_handle_at", SYS_open_by_handle_at, [u64::MAX, BAD, 0, 0]),
        ("a device", SYS_mknodat, [u64::MAX, BAD, 0, 0]),
        ("a symbolic link", SYS_symlinkat, [BAD, u64::MAX, BAD, 0]),
        ("setxattr", SYS_setxattr, [BAD, BAD, 0, 0]),
        ("sethostname", SYS_sethostname, [BAD, u64::MAX, 0, 0]),
        ("the clock", SYS_clock_settime, [u64::MAX, BAD, 0, 0]),
        ("swapon", SYS_swapon, [BAD, 0, 0, 0]),
        ("memory that is written and executed", SYS_mmap, [0, 4096, 7, flag(MAP_PRIVATE | MAP_ANONYMOUS)]),
        ("memory that becomes executable", SYS_mprotect, [0, 0, 5, 0]),
        ("pkey_mprotect", SYS_pkey_mprotect, [0, 0, 5, 0]),
        ("packets", SYS_socket, [flag(AF_PACKET), flag(SOCK_DGRAM), 0, 0]),
        ("raw sockets", SYS_socket, [flag(AF_INET), flag(SOCK_RAW), 1, 0]),
        ("the kernel's audit", SYS_socket, [flag(AF_NETLINK), flag(SOCK_RAW), flag(NETLINK_AUDIT), 0]),
        ("vsock", SYS_socket, [flag(AF_VSOCK), flag(SOCK_STREAM), 0, 0]),
        ("typing on a terminal", SYS_ioctl, [0, flag(TIOCSTI as i32), BAD, 0]),
        ("signals by a descriptor", SYS_fcntl, [0, flag(F_SETOWN), 1, 0]),
    ];
    if cfg!(not(target_env = "gnu")) {
        calls.push(("executable memory", SYS_mmap, [0, 4096, 5, flag(MAP_PRIVATE | MAP_ANONYMOUS)]));
    }
    #[cfg(target_arch = "x86_64")]
    calls.extend([
        ("fork", SYS_fork, [0; 4]),
        ("vfork", SYS_vfork, [0; 4]),
        ("ports", SYS_iopl, [u64::MAX, 0, 0, 0]),
        ("a call of the x32 machine", SYS_getpid | 0x4000_0000, [0; 4]),
    ]);
    calls
}

/// Of this test in a process of its own: which call, and how the filter is to end it.
const WHICH: &str = "SOPHON_BANNED_CALL";

/// What became of a child that is to make call number `which`.
fn child(which: &str, end: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "in_a_process_of_its_own_a_call_is_made", "--nocapture", "--test-threads=1"]);
    command.env(WHICH, which).env("SOPHON_END", end).output().unwrap().status
}

#[test]
fn in_a_process_of_its_own_a_call_is_made() {
    let Ok(which) = std::env::var(WHICH) else { return };
    let no_core = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, no_core).unwrap();
    let end = match std::env::var("SOPHON_END").as_deref() {
        Ok("kill") => Some(End::Kill),
        Ok("signal") => Some(End::Signal),
        _ => None,
    };
    if let Some(end) = end {
        install_with(Filter::Uplink, end).unwrap();
    }
    match which.parse::<usize>() {
        Ok(which) => {
            let (_, number, [a, b, c, d]) = banned()[which];
            // SAFETY: at the worst an error: see the table.
            unsafe { libc::syscall(number, a, b, c, d, -1, 0) };
        }
        Err(_) if which == "a program" => drop(Command::new("true").status()),
        Err(_) => {
            // What is allowed: files, threads, names, sockets.
            fs::write(std::env::temp_dir().join(format!("sophon-allowed-{}", std::process::id())), "").unwrap();
            fs::remove_file(std::env::temp_dir().join(format!("sophon-allowed-{}", std::process::id()))).unwrap();
            let named = std::thread::spawn(|| ("localhost", 80).to_socket_addrs().unwrap().count());
            assert!(named.join().unwrap() > 0);
            // An address with a zone, as it may stand in resolv.conf: whatever comes of it.
            let _ = ("fe80::1%lo", 80).to_socket_addrs();
            TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        }
    }
    std::process::exit(42);
}

#[test]
fn a_call_that_is_not_needed_ends_the_process() {
    if let Err(error) = probe_filter() {
        println!("SKIPPED: a_call_that_is_not_needed_ends_the_process: {error}");
        return;
    }
    let calls = banned();
    for end in ["kill", "signal"] {
        assert_eq!(child("what is allowed", end).code(), Some(42), "{end}");
        for (which, (name, ..)) in calls.iter().enumerate() {
            let status = child(&which.to_string(), end);
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{name}, {end}: {status}");
        }
        assert_eq!(child("a program", end).signal(), Some(libc::SIGSYS), "{end}");
    }
    // It is the filter that ends them.
    assert_eq!(child("0", "none").code(), Some(42));
    println!("{} calls", calls.len() + 1);
}

/// Whether this kernel filters at all: an emulator does not.
fn probe_filter() -> Result<(), String> {
    std::thread::spawn(|| install_with(Filter::Uplink, End::Signal)).join().unwrap().map_err(|error| error.to_string())
}

// --- what the running uplink has ------------------------------------------------------------------------------------

/// A line of each thread's `/proc/PID/status`.
#[track_caller]
fn of_every_thread(pid: u32, name: &str) -> Vec<String> {
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path()).collect();
    let text = |task: &PathBuf| fs::read_to_string(task.join("status")).ok(); // a thread may just end
    let line = |text: String| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).map(str::to_owned)
    };
    tasks.iter().filter_map(text).map(|text| line(text).unwrap_or_else(|| panic!("no {name}"))).collect()
}

#[track_caller]
fn assert_confined(pid: u32) {
    for (name, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = of_every_thread(pid, name);
        assert!(found.iter().all(|found| found == value), "{name}: {found:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // What cannot be dumped is root's in /proc.
    assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0);
}

#[test]
fn whoever_starts_it_it_keeps_no_capability_and_is_filtered_and_says_so() {
    let (home, sink) = (Home::new(), Sink::start());
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish_many(&mut recognizer, 1);
    sink.wait(1);
    assert_confined(daemon.pid());
    let told = &daemon.status()["privileges"];
    let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    assert_eq!(*told, json!({ "user": user, "group": group, "seccomp": true, "problem": null }));
    let masks = of_every_thread(daemon.pid(), "Umask");
    assert!(masks.iter().all(|mask| mask == "0077"), "{masks:?}");
    daemon.terminate();
}

#[test]
fn a_filter_that_is_switched_off_is_said_in_log_and_status() {
    let (home, sink) = (Home::new(), Sink::start());
    let listen = ClosedPort::new().address; // let go: the API is to have it
    let api = json!({ "listen": listen, "token_file": "api.token" });
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "privileges": { "seccomp": false }, "api": api }));
    let status = daemon.status();
    let problem = "system calls are not filtered: privileges.seccomp is false in the config";
    assert_eq!((&status["privileges"]["seccomp"], &status["privileges"]["problem"]), (&json!(false), &json!(problem)));
    assert!(daemon.log().contains(problem));
    assert!(of_every_thread(daemon.pid(), "Seccomp").iter().all(|mode| mode == "0"));
    assert!(of_every_thread(daemon.pid(), "CapEff").iter().all(|set| set == "0000000000000000"), "the rest stays on");
    let asked =
        Command::new(program("sophon-uplink")).arg("status").arg("--config").arg(home.config()).output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stdout).contains(&format!("privileges    {problem}")), "{asked:?}");
    home.configure(&[sink.url()], json!({ "api": api }));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("privileges are read at the start only");
    daemon.terminate();
}

#[test]
fn privileges_with_a_fault_are_a_bad_config() {
    let home = Home::new();
    for (key, privileges) in
        [("privileges.seccomp", json!({ "seccomp": "no" })), ("privileges.user", json!({ "user": "x" }))]
    {
        let (status, log) = Daemon::start(&home, &[], json!({ "privileges": privileges })).wait();
        assert!(status.code() == Some(78) && log.contains(key), "{log}");
    }
}

// --- root becomes a user --------------------------------------------------------------------------------------------

fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!(
            "SKIPPED: {test}: only root can become another user; to run it: sudo -E cargo test --test least_privilege"
        );
    }
    is_root
}

/// A box as `S95sophon-uplink prepare` leaves it, all root's.
struct Box {
    home: Home,
}

impl Box {
    fn new() -> Box {
        let home = Home::new();
        fs::set_permissions(home.folder.path(), Permissions::from_mode(0o755)).unwrap();
        for folder in ["config", "spool", "spool/new"] {
            fs::create_dir(home.folder.path().join(folder)).unwrap();
            fs::set_permissions(home.folder.path().join(folder), Permissions::from_mode(0o700)).unwrap();
        }
        Box { home }
    }

    fn config(&self) -> PathBuf {
        self.home.folder.path().join("config/uplink.json")
    }

    /// In place: the file stays whose it is.
    fn configure(&self, urls: &[String], more: Value) {
        self.home.configure(urls, more);
        let text = fs::read(self.home.config()).unwrap();
        fs::remove_file(self.home.config()).unwrap();
        fs::write(self.config(), text).unwrap();
    }

    fn start(&self) -> Daemon {
        Daemon::spawn(self.command("run").args(["--user", &USER.to_string()]))
    }

    fn command(&self, command: &str) -> Command {
        let mut uplink = Command::new(program("sophon-uplink"));
        uplink.args(command.split(' ')).arg("--config").arg(self.config());
        uplink
    }

    /// Everything under config and spool is the user's.
    #[track_caller]
    fn assert_all_is_the_users(&self) {
        self.assert_owner(USER, vec![self.home.spool(), self.home.folder.path().join("config")]);
    }

    #[track_caller]
    fn assert_all_the_spool_is(&self, user: User) {
        self.assert_owner(user, vec![self.home.spool()]);
    }

    #[track_caller]
    fn assert_owner(&self, user: User, mut folders: Vec<PathBuf>) {
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).chain([folder.clone()]) {
                let found = fs::symlink_metadata(&path).unwrap();
                assert_eq!((found.uid(), found.gid()), (user.id, user.group), "{}", path.display());
                if found.is_dir() && path != folder {
                    folders.push(path);
                }
            }
        }
    }
}

/// The process that opens rings.
#[track_caller]
fn opener(daemon: &Daemon) -> u32 {
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
    let opener = opener(&daemon);
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
    let mut recognizer = Producer::open(&ring, 1 << 21).unwrap();
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
    let daemon = the_box.start();
    daemon.wait_log("is not a usable ring: its size or its header is no ring's");
    publish_many(&mut recognizer, 1);
    sink.wait(1);
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let mut open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    assert!(!open.any(|path| path == secret));
    daemon.terminate();
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
    let mut recognizer = Producer::open(&ring, 1 << 21).unwrap();
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
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(opener(&daemon) as i32), Signal::SIGKILL).unwrap();
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
    for (dir, why) in [(&link, "no folder, or a link"), (&etc, "is user 0's, and the config's folder user 65528's")] {
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

// --- handing over ---------------------------------------------------------------------------------------------------

fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().uid()
}

#[test]
fn what_is_handed_over_is_the_uplinks_and_nothing_that_a_name_leads_to() {
    if !is_root("what_is_handed_over_is_the_uplinks") {
        return;
    }
    let the_box = Box::new();
    let (root, spool) = (the_box.home.folder.path(), the_box.home.spool());
    let secret = root.join("secret");
    fs::write(&secret, "").unwrap();
    fs::create_dir(spool.join("to")).unwrap();
    fs::create_dir(spool.join("to/1")).unwrap();
    fs::write(spool.join("to/1/1.event"), "").unwrap();
    fs::hard_link(spool.join("to/1/1.event"), spool.join("new/1.event")).unwrap();
    symlink(&secret, spool.join("to/1/link")).unwrap();
    hand_over::spool(&spool, USER).unwrap();
    for path in ["", "to", "to/1", "to/1/1.event", "new"] {
        assert_eq!(owner(&spool.join(path)), USER.id, "{path}");
    }
    assert_eq!((owner(&secret), owner(&spool.join("to/1/link"))), (0, 0));

    // In the user's own folder: what root put there, but no second name of something else.
    let config = root.join("config");
    hand_over::config_folder(&the_box.config(), USER).unwrap();
    fs::write(config.join("key.pem"), "").unwrap();
    fs::hard_link(&secret, config.join("planted")).unwrap();
    symlink(&secret, config.join("link")).unwrap();
    fs::create_dir(config.join("folder")).unwrap();
    let said = hand_over::config_folder(&the_box.config(), USER).unwrap_err();
    assert!(said.contains("other names elsewhere: 1;") && !said.contains("chown"), "{said}");
    assert_eq!((owner(&config), owner(&config.join("key.pem"))), (USER.id, USER.id));
    assert_eq!([owner(&secret), owner(&config.join("link")), owner(&config.join("folder"))], [0; 3]);
}

#[test]
fn an_event_for_two_servers_is_handed_over_and_a_second_name_of_something_else_is_not() {
    if !is_root("an_event_for_two_servers_is_handed_over") {
        return;
    }
    let the_box = Box::new();
    let (root, spool) = (the_box.home.folder.path(), the_box.home.spool());
    for folder in ["to", "to/1", "to/2", "dead", "dead/1"] {
        fs::create_dir(spool.join(folder)).unwrap();
    }
    let names = ["new/1.event", "to/1/1.event", "to/2/1.event", "dead/1/0.event"].map(|name| spool.join(name));
    fs::write(&names[0], "").unwrap();
    fs::write(&names[3], "").unwrap();
    names[1..3].iter().for_each(|name| fs::hard_link(&names[0], name).unwrap());
    let secret = root.join("secret");
    fs::write(&secret, "").unwrap();
    fs::hard_link(&secret, spool.join("new/2.event")).unwrap();
    let said = hand_over::spool(&spool, USER).unwrap_err();
    assert!(said.contains("other names elsewhere: 1;"), "{said}");
    assert_eq!(owner(&secret), 0);
    fs::remove_file(spool.join("new/2.event")).unwrap();
    the_box.assert_all_the_spool_is(USER);
    hand_over::spool(&spool, hand_over::ROOT).unwrap();
    the_box.assert_all_the_spool_is(hand_over::ROOT);
}

/// Looking through it would hold up each start by all that waits.
#[test]
fn a_spool_that_was_handed_over_is_not_looked_through_and_what_cannot_be_read_there_stays_and_is_said() {
    if !is_root("a_spool_that_was_handed_over_is_not_looked_through") {
        return;
    }
    let (the_box, port) = (Box::new(), ClosedPort::new());
    the_box.configure(&[port.url()], json!({}));
    let mut recognizer = Producer::open(&the_box.home.ring(), 1 << 20).unwrap();
    let daemon = the_box.start();
    publish_many(&mut recognizer, 3);
    wait_until("events in the spool", || the_box.home.spooled_sequences().len() == 3);
    daemon.terminate();
    let roots = the_box.home.spool().join(the_box.home.spooled_files().remove(0));
    chown(&roots, Some(0), Some(0)).unwrap();
    let sink = Sink::on(port.open(), |_, _| common::sink::OK);
    let daemon = the_box.start();
    sink.wait(2);
    daemon.wait_log("cannot be read");
    assert!(daemon.log().contains("Permission denied"), "{}", daemon.log());
    daemon.terminate();
    assert_eq!((owner(&roots), sink.received().len()), (0, 2));
    chown(&roots, Some(USER.id), Some(USER.group)).unwrap();
    let daemon = the_box.start();
    sink.wait(3);
    the_box.home.wait_done();
    daemon.terminate();
}

#[test]
fn root_that_stays_root_goes_on_with_what_a_user_had() {
    if !is_root("root_that_stays_root_goes_on") {
        return;
    }
    let (the_box, sink) = (Box::new(), Sink::start());
    let down = ClosedPort::new();
    the_box.configure(&[down.url()], json!({}));
    let mut recognizer = Producer::open(&the_box.home.ring(), 1 << 20).unwrap();
    let daemon = the_box.start();
    publish_many(&mut recognizer, 2);
    wait_until("events in the spool", || the_box.home.spooled_sequences().len() == 2);
    daemon.terminate();
    the_box.configure(&[sink.url()], json!({}));
    let daemon = Daemon::spawn(&mut the_box.command("run"));
    sink.wait(2);
    let log = daemon.log();
    daemon.terminate();
    assert!(!log.contains("stays as it is"), "{log}");
    the_box.assert_all_the_spool_is(hand_over::ROOT);
}

#[test]
fn a_folder_that_may_be_somebody_elses_stays_and_that_is_said() {
    if !is_root("a_folder_that_may_be_somebody_elses") {
        return;
    }
    let home_folder = Home::new();
    let home = &home_folder;
    let folder = |name: &str, mode: u32, inside: &[&str]| {
        let path = home.folder.path().join(name);
        fs::create_dir(&path).unwrap();
        inside.iter().for_each(|name| fs::create_dir(path.join(name)).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let spool = folder("a spool", 0o700, &["new", "to"]);
    let link = home.folder.path().join("link");
    symlink(&spool, &link).unwrap();
    for (path, why) in [
        (folder("an empty home", 0o700, &[]), "what a spool holds"),
        (folder("a home", 0o700, &["new", ".ssh"]), "what a spool holds"),
        (folder("a public spool", 0o755, &["new"]), "not private"),
        (link, "directory"),
    ] {
        let said = hand_over::spool(&path, USER).unwrap_err();
        assert!(said.contains(why) && said.contains("chown -R 65528:65527"), "{said}");
        assert_eq!(owner(&path), 0, "{}", path.display());
    }
    assert_eq!(owner(&spool), 0);
    assert!(hand_over::spool(&home.folder.path().join("none"), USER).is_ok(), "the user makes it");
    let etc = folder("etc", 0o755, &[]);
    assert!(hand_over::config_folder(&etc.join("uplink.json"), USER).is_err());
    assert_eq!(owner(&etc), 0);
    // A home, and another user's folder.
    let home = folder("root's home", 0o700, &[".ssh"]);
    let said = hand_over::config_folder(&home.join("uplink.json"), USER).unwrap_err();
    assert!(said.contains("a folder of its own") && !said.contains("chown") && owner(&home) == 0, "{said}");
    let another = folder("another's", 0o700, &[]);
    chown(&another, Some(1234), Some(1234)).unwrap();
    let said = hand_over::config_folder(&another.join("uplink.json"), USER).unwrap_err();
    assert!(said.contains("neither root nor that user") && owner(&another) == 1234, "{said}");
}
