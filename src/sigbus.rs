//! The guard of mapped files: a file that shrinks, or that its disk cannot read, costs the mapping and not the process.
//!
//! An access to a page that the file does not have raises SIGBUS. The handler maps zeros over the whole mapping and marks it as
//! lost, and the faulting instruction goes on. A reader checks [`Watched::is_lost`] afterwards, and discards what it has read.
//! The handler finds the mapping in a table of atomics, because it may run at any time.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The size of the table: more than the rings and spooled events that a box maps at once. Test processes map more than a box.
const SLOTS: usize = 1024;

/// A mapping that the handler may replace. `base` is 0 while the slot is free, and 1 while it is being filled in.
struct Entry {
    base: AtomicUsize,
    length: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Entry; SLOTS] =
    [const { Entry { base: AtomicUsize::new(0), length: AtomicUsize::new(0), lost: AtomicBool::new(false) } }; SLOTS];

/// The handler of SIGBUS before ours (the Rust runtime's stack guard), for faults outside our mappings. Written once, when
/// our handler is installed.
static PREVIOUS: std::sync::OnceLock<SigAction> = std::sync::OnceLock::new();

/// A slot in the table; freed when dropped.
#[derive(Debug)]
pub struct Watched(usize);

impl Watched {
    /// Whether the mapping was replaced by zeros.
    pub fn is_lost(&self) -> bool {
        TABLE[self.0].lost.load(Ordering::Acquire)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        TABLE[self.0].base.store(0, Ordering::Release);
    }
}

/// Guards `length` bytes from `base`, which must be a mapping of the caller.
pub fn watch(base: NonNull<u8>, length: usize) -> io::Result<Watched> {
    install()?;
    let free = TABLE
        .iter()
        .position(|entry| entry.base.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok())
        .ok_or_else(|| io::Error::other("too many rings and spooled events are mapped in this process"))?;
    TABLE[free].lost.store(false, Ordering::Relaxed);
    TABLE[free].length.store(length, Ordering::Release);
    TABLE[free].base.store(base.as_ptr() as usize, Ordering::Release);
    Ok(Watched(free))
}

fn install() -> io::Result<()> {
    static INSTALL: Once = Once::new();
    let mut result = Ok(());
    INSTALL.call_once(|| {
        let ours = SigAction::new(
            SigHandler::SigAction(on_sigbus),
            SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER,
            SigSet::empty(),
        );
        // SAFETY: the handler uses only async-signal-safe calls (see there).
        match unsafe { sigaction(Signal::SIGBUS, &ours) } {
            Ok(previous) => drop(PREVIOUS.set(previous)),
            Err(error) => result = Err(error.into()),
        }
    });
    result
}

/// Runs in the thread that accessed the missing page. Uses only atomics, `mmap` and `sigaction`, which are async-signal-safe.
extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler; SIGBUS fills in the address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code <= 0 {
        return; // sent by a process: there was no fault, and the guard stays installed
    }
    let ours = TABLE.iter().find_map(|entry| {
        let base = entry.base.load(Ordering::Acquire);
        let length = entry.length.load(Ordering::Acquire);
        let is_here = base > 1 && address.wrapping_sub(base) < length;
        // Another thread may have given the slot to another mapping in between.
        (is_here && entry.base.load(Ordering::Acquire) == base).then_some((entry, base, length))
    });
    if !ours.is_some_and(|(entry, base, length)| replace_by_zeros(entry, base, length)) {
        hand_on();
    }
}

fn replace_by_zeros(entry: &Entry, base: usize, length: usize) -> bool {
    entry.lost.store(true, Ordering::Release);
    let base = base as *mut libc::c_void;
    // SAFETY: replaces a whole mapping of ours by zeros; its owner keeps it mapped until its slot is freed.
    let mapped = unsafe {
        libc::mmap(
            base,
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    mapped == base
}

/// Restores the previous handler. The instruction then faults again, and that handler runs.
fn hand_on() {
    match PREVIOUS.get() {
        // SAFETY: an action that was in force before.
        Some(previous) => drop(unsafe { sigaction(Signal::SIGBUS, previous) }),
        // SAFETY: the default action; no handler runs any more.
        None => drop(unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) }),
    }
}
