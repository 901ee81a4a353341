//! The system calls that the running uplink makes, grouped by why. Everything else ends the process.
//!
//! The box's programs are linked with musl, statically; what only glibc needs (it loads its resolvers as libraries, and asks more
//! of the kernel) is allowed where the program is built for it, `GLIBC`. `x86_64` has older calls beside the ones that every
//! machine has: its part stands last.
//!
//! What is not here, on purpose: executing programs, making processes, executable memory, tracing and reading others' memory,
//! signals to others, changing users, mounts, namespaces, modules, keys, bpf, raw and packet sockets, new devices, links by symbol.

use libc::*;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

/// A system call.
pub type Number = c_long;
/// What an argument must be: which, how much of it, compared how, with what.
pub type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);
/// One way in which a call is allowed: all of the conditions hold.
pub type Way = Vec<Condition>;

const GLIBC: bool = cfg!(target_env = "gnu");

/// "No system call": what a tracer puts in the place of one that it skips.
const NONE: Number = u32::MAX as Number; // -1, as the filter sees it

/// Whatever their arguments.
pub fn plain() -> Vec<Number> {
    let mut calls = MEMORY_AND_THREADS.to_vec();
    calls.extend(EVENTS_AND_SOCKETS);
    calls.extend(FILES);
    if GLIBC {
        calls.extend(OF_GLIBC);
    }
    calls.extend(OF_MACHINE);
    calls
}

#[rustfmt::skip]
const MEMORY_AND_THREADS: &[Number] = &[
    NONE,
    // Memory; what may not be executable is below.
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk,
    // A thread's life, and its name. clone3 is answered with ENOSYS by a filter of its own, see `filter`.
    SYS_clone3, SYS_set_robust_list, SYS_set_tid_address, SYS_rseq, SYS_futex, SYS_gettid, SYS_getpid, SYS_exit,
    SYS_exit_group, SYS_sched_yield, SYS_sched_getaffinity,
    // Signals: the thread that takes them, the SIGBUS guard of mapped files, going on after SIGSTOP.
    SYS_rt_sigprocmask, SYS_rt_sigtimedwait, SYS_rt_sigreturn, SYS_sigaltstack, SYS_restart_syscall,
    // Time and random numbers; the first two only where the vDSO lacks them.
    SYS_clock_gettime, SYS_gettimeofday, SYS_clock_getres, SYS_nanosleep, SYS_clock_nanosleep, SYS_getrandom,
    // Whose ring it is; and how the process that opens rings fares.
    SYS_geteuid, SYS_getuid, SYS_getegid, SYS_getgid, SYS_wait4,
];

#[rustfmt::skip]
const EVENTS_AND_SOCKETS: &[Number] = &[
    SYS_epoll_ctl, SYS_epoll_pwait, SYS_ppoll, SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_close,
    // socket itself is below.
    SYS_bind, SYS_listen, SYS_accept4, SYS_connect, SYS_shutdown, SYS_getsockname, SYS_getpeername, SYS_getsockopt,
    SYS_setsockopt, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg,
];

/// Config, token, certificates, resolv.conf; the spool; the rings.
#[rustfmt::skip]
const FILES: &[Number] = &[
    SYS_openat, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_readlinkat, SYS_getcwd, SYS_getdents64, SYS_lseek,
    SYS_pread64, SYS_pwrite64, SYS_fsync, SYS_fadvise64, SYS_flock, SYS_mkdirat, SYS_unlinkat, SYS_linkat, SYS_renameat,
    SYS_renameat2, SYS_fchmod, SYS_fchmodat, SYS_fchown,
];

/// Loading a resolver as a library, and what the resolvers do.
const OF_GLIBC: &[Number] = &[SYS_sendmmsg, SYS_uname, SYS_sysinfo, SYS_faccessat, SYS_faccessat2, SYS_fstatfs];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OF_MACHINE: &[Number] = &[
    SYS_time, SYS_poll, SYS_epoll_wait, SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_mkdir, SYS_rmdir,
    SYS_unlink, SYS_link, SYS_rename, SYS_chmod,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_MACHINE: &[Number] = &[];

/// Only with these arguments.
pub fn conditional() -> Vec<(Number, Vec<Way>)> {
    let mut calls = vec![
        (SYS_mmap, memory_is_not_executable(true)),
        (SYS_mprotect, memory_is_not_executable(false)),
        // Threads, and no processes.
        (SYS_clone, vec![vec![(0, Qword, MaskedEq(CLONE_THREAD as u64), CLONE_THREAD as u64)]]),
        // Naming a thread; nothing else of prctl.
        (SYS_prctl, one_of(0, &[PR_SET_NAME])),
        // Where SIGSYS stands for "kill" (before Linux 4.14), nobody may catch it.
        (SYS_rt_sigaction, vec![vec![(0, Dword, Ne, SIGSYS as u64)]]),
        // abort(): a signal to a thread of ours, and that signal.
        (SYS_tgkill, vec![vec![(0, Dword, Eq, u64::from(std::process::id())), (2, Dword, Eq, SIGABRT as u64)]]),
        (SYS_tkill, one_of(1, &[SIGABRT])),
        // Asking for our own limits; not setting them.
        (SYS_prlimit64, vec![vec![(0, Dword, Eq, 0), (2, Qword, Eq, 0)]]),
        (SYS_fcntl, one_of(1, &[F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_OFD_SETLK, F_OFD_GETLK])),
        // Blocking or not; bytes unread and unacknowledged; the number of `eth0` in an address with a zone, which a resolver may
        // find in resolv.conf and hosts. As one int, for that is what each libc makes of it.
        (SYS_ioctl, one_of(1, &[FIONBIO as i32, FIONREAD as i32, TIOCOUTQ as i32, SIOCGIFINDEX as i32])),
    ];
    let mut sockets =
        vec![(AF_INET, SOCK_STREAM), (AF_INET, SOCK_DGRAM), (AF_INET6, SOCK_STREAM), (AF_INET6, SOCK_DGRAM)];
    sockets.push((AF_UNIX, SOCK_DGRAM)); // what that number is asked through
    if GLIBC {
        sockets.push((AF_UNIX, SOCK_STREAM)); // nscd and other name services
    }
    const TYPE: u64 = 0xF; // what is above are flags
    let socket = |(family, kind)| vec![(0, Dword, Eq, family as u64), (1, Dword, MaskedEq(TYPE), kind as u64)];
    let mut sockets: Vec<Way> = sockets.into_iter().map(socket).collect();
    if GLIBC {
        // Which addresses this machine has, before it is asked for others'.
        sockets.push(vec![(0, Dword, Eq, AF_NETLINK as u64), (2, Dword, Eq, NETLINK_ROUTE as u64)]);
    }
    calls.push((SYS_socket, sockets));
    calls
}

/// Never both writable and executable; and executable only where libraries are loaded.
fn memory_is_not_executable(may_be_library: bool) -> Vec<Way> {
    let both = (PROT_WRITE | PROT_EXEC) as u64;
    let mut ways = vec![vec![(2, Dword, MaskedEq(PROT_EXEC as u64), 0)]];
    if GLIBC && may_be_library {
        ways.push(vec![(2, Dword, MaskedEq(both), PROT_EXEC as u64)]);
    }
    ways
}

fn one_of(argument: u8, values: &[i32]) -> Vec<Way> {
    values.iter().map(|value| vec![(argument, Dword, Eq, u64::from(*value as u32))]).collect()
}

/// What the process that opens rings needs: one socket, and files.
#[rustfmt::skip]
pub const OF_OPENER: &[Number] = &[
    NONE, SYS_recvmsg, SYS_sendmsg, SYS_recvfrom, SYS_sendto, SYS_openat, SYS_fstat, SYS_newfstatat, SYS_statx,
    SYS_pread64, SYS_close, SYS_write, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_rt_sigreturn,
    SYS_rt_sigprocmask, SYS_sigaltstack, SYS_restart_syscall, SYS_futex, SYS_exit, SYS_exit_group,
];

/// The same, only with these arguments.
pub fn of_opener_conditional() -> Vec<(Number, Vec<Way>)> {
    vec![
        (SYS_mmap, memory_is_not_executable(false)),
        (SYS_mprotect, memory_is_not_executable(false)),
        // musl sets O_CLOEXEC once more when a file is open. The standard library, with debug assertions, asks whether what it
        // closes is open.
        (SYS_fcntl, one_of(1, &[F_GETFD, F_SETFD])),
    ]
}

/// A condition as the crate takes it.
pub fn condition((argument, length, operator, value): &Condition) -> SeccompCondition {
    SeccompCondition::new(*argument, length.clone(), operator.clone(), *value).expect("an argument from 0 to 5")
}
