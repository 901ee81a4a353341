//! The promise: what was taken over has nothing. A call that the uplink does not need ends it; what it needs works without root.
//!
//! The rest of the tests runs under the same filter, which is on by default; root that becomes a user is `other_user.rs`.
#![allow(unsafe_code)] // raw system calls, that no library would make

use std::fs::{self};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use crate::common::confined::{assert_confined, of_every_thread};
use crate::common::daemon::Home;
use crate::common::{Daemon, Sink, own_test, program, publish_many};
use nix::sys::signal::Signal;
use serde_json::json;
use sophon_uplink::confine::filter::{End, Filter, install_with};
use sophon_uplink::ring::producer::Producer;

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
    let mut command = own_test(module_path!(), "in_a_process_of_its_own_a_call_is_made");
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
        Ok("as the uplink") => Some(End::of_this_kernel()),
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
    assert_eq!(child("0", "as the uplink").signal(), Some(libc::SIGSYS), "whatever this kernel offers");
    // It is the filter that ends them.
    assert_eq!(child("0", "none").code(), Some(42));
    println!("{} calls", calls.len() + 1);
}

/// Whether this kernel filters at all: an emulator does not.
fn probe_filter() -> Result<(), String> {
    std::thread::spawn(|| install_with(Filter::Uplink, End::Signal)).join().unwrap().map_err(|error| error.to_string())
}

// --- what the running uplink has ------------------------------------------------------------------------------------

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
    let privileges = json!({ "seccomp": false });
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "privileges": privileges }));
    let api = json!({ "listen": daemon.api(), "token_file": "api.token" });
    home.configure(&[sink.url()], json!({ "privileges": privileges, "api": api })); // for the command that asks there
    let status = daemon.status();
    let problem = "system calls are not filtered: privileges.seccomp is false in the config";
    assert_eq!((&status["privileges"]["seccomp"], &status["privileges"]["problem"]), (&json!(false), &json!(problem)));
    assert!(daemon.log().contains(problem));
    // None of its own: whoever runs the tests may have one, which it inherits.
    let inherited = of_every_thread(std::process::id(), "Seccomp");
    assert!(of_every_thread(daemon.pid(), "Seccomp").iter().all(|mode| *mode == inherited[0]), "{inherited:?}");
    assert!(of_every_thread(daemon.pid(), "CapEff").iter().all(|set| set == "0000000000000000"), "the rest stays on");
    let asked =
        Command::new(program("sophon-uplink")).arg("status").arg("--config").arg(home.config()).output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stdout).contains(&format!("privileges    {problem}")), "{asked:?}");
    home.configure(&[sink.url()], json!({ "api": api }));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_log("privileges.seccomp: read at the start only");
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
