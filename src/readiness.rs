//! What TLS and sealing need before they can begin, and may lack for some time after a boot: the time and random numbers.
//!
//! **Random numbers.** Before Linux 5.4 the kernel gathers them from interrupts only. An idle box may need many minutes, and
//! `getrandom` blocks until then. Neither the event loop nor the spool's thread may block in it. So code that needs a secret
//! calls [`randomness`] first, which never blocks, and tries again later if it returns false. Once the kernel has random numbers,
//! it always has them, and drawing them never blocks again. Code that needs no secret (back-off, temporary names, boundaries,
//! ids) draws none.
//!
//! **The time.** See [`clock`].

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::clock;

/// Something that the box does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The wall clock is before the program was built.
    Clock,
    /// The kernel has no random numbers.
    Randomness,
}

impl NotReady {
    /// The state of a destination that waits for it, as the status names it.
    pub const fn state(self) -> &'static str {
        match self {
            NotReady::Clock => "clock not set",
            NotReady::Randomness => "randomness not ready",
        }
    }

    /// The message while an upload waits for it, with what to do.
    pub const fn why(self) -> &'static str {
        match self {
            NotReady::Clock => clock::NOT_SET,
            NotReady::Randomness => {
                "the kernel has no random numbers yet, so nothing can be encrypted: an old kernel gathers them for some minutes after a boot (rngd or haveged make it faster); uploads over TLS wait, and continue by themselves"
            }
        }
    }

    /// The message when it has become ready.
    pub const fn over(self) -> &'static str {
        match self {
            NotReady::Clock => "the clock is set: uploads continue",
            NotReady::Randomness => "the kernel has random numbers: uploads continue",
        }
    }
}

/// What a TLS connection must wait for; none if it can begin. The clock comes first: it may need a person.
pub fn of_tls() -> Option<NotReady> {
    match () {
        () if !clock::is_set() => Some(NotReady::Clock),
        () if !randomness() => Some(NotReady::Randomness),
        () => None,
    }
}

/// Whether the kernel has random numbers. Never blocks. Costs one system call per use until they are ready, and none afterwards.
pub fn randomness() -> bool {
    static IS_READY: AtomicBool = AtomicBool::new(false);
    if IS_READY.load(Ordering::Relaxed) {
        return true;
    }
    // Other errors are left to the code that draws numbers, for example a kernel before 3.17 without this call.
    let is_ready = getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK) != Err(Errno::AGAIN);
    IS_READY.store(is_ready, Ordering::Relaxed);
    is_ready
}
