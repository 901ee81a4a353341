//! The system calls that the running uplink makes, grouped by purpose. Every other call ends the process.
//!
//! The box's programs are linked statically with musl. glibc needs more calls: it loads its resolvers as libraries and makes
//! further requests to the kernel. These calls are allowed only in builds for glibc (`GLIBC`). `x86_64` has older calls in
//! addition to those of every machine; they are listed last.
//!
//! Omitted on purpose: executing programs, creating processes, executable memory, tracing other processes and reading their
//! memory, signals to other processes, changing users, mounts, namespaces, modules, keys, bpf, raw and packet sockets, device
//! nodes, symbolic links.

use libc::*;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

/// A system call.
pub type Number = c_long;
/// A condition on an argument: its index, how much of it is compared, the operator, and the value.
pub type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);
/// One way in which a call is allowed: all of its conditions hold.
pub type Way = Vec<Condition>;

const GLIBC: bool = cfg!(target_env = "gnu");

/// "No system call": a tracer puts this number in place of a call that it skips.
const NONE: Number = u32::MAX as Number; // -1, as the filter sees it

/// Allowed with any arguments.
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
    // Memory; conditions forbid executable memory below.
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk,
    // Thread lifetime and names. A separate filter answers clone3 with ENOSYS, see `filter`.
    SYS_clone3, SYS_set_robust_list, SYS_set_tid_address, SYS_rseq, SYS_futex, SYS_gettid, SYS_getpid, SYS_exit,
    SYS_exit_group, SYS_sched_yield, SYS_sched_getaffinity,
    // Signals: the thread that receives them, the SIGBUS handler for mapped files, continuing after SIGSTOP.
    SYS_rt_sigprocmask, SYS_rt_sigtimedwait, SYS_rt_sigreturn, SYS_sigaltstack, SYS_restart_syscall,
    // Time and random numbers. The first two are needed only if the vDSO lacks them.
    SYS_clock_gettime, SYS_gettimeofday, SYS_clock_getres, SYS_nanosleep, SYS_clock_nanosleep, SYS_getrandom,
    // Checking a ring's owner, and the state of the process that opens rings.
    SYS_geteuid, SYS_getuid, SYS_getegid, SYS_getgid, SYS_wait4,
];

#[rustfmt::skip]
const EVENTS_AND_SOCKETS: &[Number] = &[
    SYS_epoll_ctl, SYS_epoll_pwait, SYS_ppoll, SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_close,
    // `socket` itself has conditions, see below.
    SYS_bind, SYS_listen, SYS_accept4, SYS_connect, SYS_shutdown, SYS_getsockname, SYS_getpeername, SYS_getsockopt,
    SYS_setsockopt, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg,
];

/// Config, token, certificates, resolv.conf, the spool and the rings.
#[rustfmt::skip]
const FILES: &[Number] = &[
    SYS_openat, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_readlinkat, SYS_getcwd, SYS_getdents64, SYS_lseek,
    SYS_pread64, SYS_pwrite64, SYS_fsync, SYS_fadvise64, SYS_flock, SYS_mkdirat, SYS_unlinkat, SYS_linkat, SYS_renameat,
    SYS_renameat2, SYS_fchmod, SYS_fchmodat, SYS_fchown,
];

/// Loading a resolver as a library, and the calls of the resolvers.
const OF_GLIBC: &[Number] = &[SYS_sendmmsg, SYS_uname, SYS_sysinfo, SYS_faccessat, SYS_faccessat2, SYS_fstatfs];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OF_MACHINE: &[Number] = &[
    SYS_time, SYS_poll, SYS_epoll_wait, SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_mkdir, SYS_rmdir,
    SYS_unlink, SYS_link, SYS_rename, SYS_chmod,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_MACHINE: &[Number] = &[];

/// Allowed only with these arguments.
pub fn conditional() -> Vec<(Number, Vec<Way>)> {
    let mut calls = vec![
        (SYS_mmap, memory_is_not_executable(true)),
        (SYS_mprotect, memory_is_not_executable(false)),
        // Only threads, no processes.
        (SYS_clone, vec![vec![(0, Qword, MaskedEq(CLONE_THREAD as u64), CLONE_THREAD as u64)]]),
        // Only naming a thread; nothing else of prctl.
        (SYS_prctl, one_of(0, &[PR_SET_NAME])),
        // Before Linux 4.14, SIGSYS takes the place of "kill". No handler for it may be installed.
        (SYS_rt_sigaction, vec![vec![(0, Dword, Ne, SIGSYS as u64)]]),
        // abort(): only SIGABRT, and only to a thread of this process.
        (SYS_tgkill, vec![vec![(0, Dword, Eq, u64::from(std::process::id())), (2, Dword, Eq, SIGABRT as u64)]]),
        (SYS_tkill, one_of(1, &[SIGABRT])),
        // Reading our own limits, not setting them.
        (SYS_prlimit64, vec![vec![(0, Dword, Eq, 0), (2, Qword, Eq, 0)]]),
        (SYS_fcntl, one_of(1, &[F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_OFD_SETLK, F_OFD_GETLK])),
        // Non-blocking mode, the numbers of unread and of unacknowledged bytes, and the index of an interface such as `eth0`: a
        // resolver needs it for an address with a zone in resolv.conf or hosts. Compared as one int, because each libc passes an
        // int.
        (SYS_ioctl, one_of(1, &[FIONBIO as i32, FIONREAD as i32, TIOCOUTQ as i32, SIOCGIFINDEX as i32])),
    ];
    let mut sockets =
        vec![(AF_INET, SOCK_STREAM), (AF_INET, SOCK_DGRAM), (AF_INET6, SOCK_STREAM), (AF_INET6, SOCK_DGRAM)];
    sockets.push((AF_UNIX, SOCK_DGRAM)); // for the request of the interface index
    if GLIBC {
        sockets.push((AF_UNIX, SOCK_STREAM)); // nscd and other name services
    }
    const TYPE: u64 = 0xF; // the higher bits are flags
    let socket = |(family, kind)| vec![(0, Dword, Eq, family as u64), (1, Dword, MaskedEq(TYPE), kind as u64)];
    let mut sockets: Vec<Way> = sockets.into_iter().map(socket).collect();
    if GLIBC {
        // The addresses of this machine; the resolver reads them before it resolves names.
        sockets.push(vec![(0, Dword, Eq, AF_NETLINK as u64), (2, Dword, Eq, NETLINK_ROUTE as u64)]);
    }
    calls.push((SYS_socket, sockets));
    calls
}

/// Memory is never both writable and executable, and executable only if libraries are loaded.
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

/// Calls of the process that opens rings: it needs one socket, and files.
#[rustfmt::skip]
pub const OF_OPENER: &[Number] = &[
    NONE, SYS_recvmsg, SYS_sendmsg, SYS_recvfrom, SYS_sendto, SYS_openat, SYS_fstat, SYS_newfstatat, SYS_statx,
    SYS_pread64, SYS_close, SYS_write, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_rt_sigreturn,
    SYS_rt_sigprocmask, SYS_sigaltstack, SYS_restart_syscall, SYS_futex, SYS_exit, SYS_exit_group,
];

/// Calls of the same process that are allowed only with these arguments.
pub fn of_opener_conditional() -> Vec<(Number, Vec<Way>)> {
    vec![
        (SYS_mmap, memory_is_not_executable(false)),
        (SYS_mprotect, memory_is_not_executable(false)),
        // musl sets O_CLOEXEC once more after opening a file. With debug assertions, the standard library checks before closing a
        // file that it is open.
        (SYS_fcntl, one_of(1, &[F_GETFD, F_SETFD])),
    ]
}

/// Converts a condition to the crate's type.
pub fn condition((argument, length, operator, value): &Condition) -> SeccompCondition {
    SeccompCondition::new(*argument, length.clone(), operator.clone(), *value).expect("an argument from 0 to 5")
}
