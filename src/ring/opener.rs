//! A process that opens rings for an uplink without the right to. A recognizer creates its ring for its own user only (mode
//! 0600), often as root. It may do so at any time, long after the uplink has dropped root's rights.
//!
//! ```text
//!  uplink (some user) ── path ──▶ opener (root, with the single right to open others' files)
//!                     ◀── descriptor, or an error ──
//! ```
//! The opener is this program, started again with an empty environment before the rights are dropped, with one end of a socket
//! pair as its stdin. It opens only the rings of the config that it was started with and their FIFOs, and only if they are rings
//! or FIFOs: the uplink can write the config, and must not make root open other files. The opener ends with the uplink. If it
//! ends earlier, the uplink ends too, so that both are started again.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};

use super::fifo;
use super::layout::{self, HEADER_SIZE, MAGIC};

/// The command that runs this program as an opener.
pub const COMMAND: &str = "open-rings";
/// The opener's first argument if its system calls are to be filtered; any other value if not.
pub const FILTERED: &str = "filtered";
/// An opener that does not answer within this time has failed.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// The same for its first answer: on a box that boots, the opener's own start may take long.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The error for a file that is not a ring.
pub const NO_RING: i32 = libc::EBADMSG;
/// The longest path in a request, in bytes.
const LONGEST: usize = 4096;

/// The uplink's connection to the opener, if there is one.
static OPENER: Mutex<Option<Opener>> = Mutex::new(None);

struct Opener {
    process: Pid,
    /// None after a missing answer: a late answer must not be taken for the answer to the next request.
    socket: Option<OwnedFd>,
    has_answered: bool,
}

/// Starts the opener for these rings.
///
/// # Errors
/// The process cannot be started.
pub fn start(rings: &[PathBuf], seccomp: bool) -> io::Result<()> {
    let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&ours, Timeout::Recv, Some(START_TIMEOUT))?;
    set_socket_timeout(&ours, Timeout::Send, Some(REPLY_TIMEOUT))?;
    let filtered = if seccomp { FILTERED } else { "unfiltered" };
    let words = ["sophon-uplink", COMMAND, filtered].into_iter().map(CString::new);
    let rings = rings.iter().map(|ring| CString::new(ring.as_os_str().as_bytes()));
    let words = words.chain(rings).collect::<Result<Vec<_>, _>>()?;
    let mut descriptors = PosixSpawnFileActions::init()?;
    descriptors.add_dup2(its.as_raw_fd(), 0)?;
    let environment: [CString; 0] = [];
    let process = posix_spawn(c"/proc/self/exe", &descriptors, &PosixSpawnAttr::init()?, &words, &environment)?;
    *lock() = Some(Opener { process, socket: Some(ours), has_answered: false });
    Ok(())
}

/// Whether an opener was started and has ended.
pub fn has_ended() -> bool {
    let is_running =
        |opener: &Opener| waitpid(opener.process, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive);
    lock().as_ref().is_some_and(|opener| !is_running(opener))
}

/// The ring or FIFO at `path`, opened by the opener for reading and writing; none if there is no opener.
///
/// # Errors
/// The opener's error, which is [`NO_RING`] if the file is neither; or the reason why the opener does not answer.
pub fn open(path: &Path) -> Option<io::Result<File>> {
    let mut opener = lock();
    let opener = opener.as_mut()?;
    let answer = opener.socket.as_ref().and_then(|socket| ask(socket, path).ok());
    if let (Some(socket), Some(_), false) = (&opener.socket, &answer, opener.has_answered) {
        opener.has_answered = set_socket_timeout(socket, Timeout::Recv, Some(REPLY_TIMEOUT)).is_ok();
    }
    if answer.is_none() {
        opener.socket = None; // this ends the opener, and then the uplink
    }
    Some(
        answer.unwrap_or_else(|| Err(io::Error::other("the process that opens rings does not answer"))).map(File::from),
    )
}

fn lock() -> std::sync::MutexGuard<'static, Option<Opener>> {
    OPENER.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The opener's answer. The outer error: the opener did not answer.
fn ask(socket: &OwnedFd, path: &Path) -> io::Result<io::Result<OwnedFd>> {
    retry_on_intr(|| send(socket, path.as_os_str().as_bytes(), SendFlags::NOSIGNAL))?;
    let mut code = [0; size_of::<i32>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut answer = [IoSliceMut::new(&mut code)];
    let received = retry_on_intr(|| recvmsg(socket, &mut answer, &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    let passed = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match (passed, i32::from_le_bytes(code)) {
        (Some(descriptor), 0) => Ok(Ok(descriptor)),
        (None, code @ 1..) if received.bytes == size_of::<i32>() => Ok(Err(io::Error::from_raw_os_error(code))),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Runs the opener: answers requests on stdin until the uplink has gone.
///
/// # Errors
/// The system's error.
pub fn serve(rings: &[PathBuf]) -> io::Result<()> {
    let socket = io::stdin();
    let mut path = [0; LONGEST];
    loop {
        let mut none = RecvAncillaryBuffer::default();
        let mut request = [IoSliceMut::new(&mut path)];
        let asked = retry_on_intr(|| recvmsg(&socket, &mut request, &mut none, RecvFlags::empty()))?;
        if asked.bytes == 0 {
            return Ok(());
        }
        let path = Path::new(OsStr::from_bytes(&path[..asked.bytes]));
        let opened = if rings.iter().any(|ring| ring == path) {
            open_ring(path)
        } else if rings.iter().any(|ring| fifo::path_of(ring) == path) {
            fifo::open(path)
        } else {
            Err(io::Error::from_raw_os_error(libc::EPERM))
        };
        let code = opened.as_ref().map_or_else(|error| error.raw_os_error().unwrap_or(NO_RING), |_| 0);
        let code = code.to_le_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptor = opened.as_ref().ok().map(|file| [file.as_fd()]);
        if let Some(descriptor) = &descriptor {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptor));
        }
        sendmsg(&socket, &[IoSlice::new(&code)], &mut ancillary, SendFlags::NOSIGNAL)?;
    }
}

/// Opens the file at `path` if its size and the first words of its header are a ring's.
fn open_ring(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    let mut begin = [0; 16];
    let is_read = file.read_exact_at(&mut begin, 0).is_ok();
    let [magic, sizes] = [0, 8].map(|at| u64::from_le_bytes(begin[at..at + 8].try_into().expect("8 bytes")));
    let is_ring = found.is_file()
        && layout::is_capacity(found.len().saturating_sub(HEADER_SIZE as u64))
        && is_read
        && magic == MAGIC
        && layout::is_known_version(layout::low(sizes))
        && layout::high(sizes) == HEADER_SIZE as u32;
    if is_ring { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
}
