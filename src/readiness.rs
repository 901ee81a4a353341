//! What TLS and sealing need of the box before they can begin, and may lack for a while after a boot: the time, and random numbers.
//!
//! **Random numbers.** Before Linux 5.4 the kernel gathers them from interrupts alone: an idle box may need many minutes, and until then
//! `getrandom` waits. Nothing may wait in it: not the event loop, and not the spool's thread. So whoever needs a secret asks
//! [`randomness`] first, which never waits, and comes again later where there is none; once the kernel has random numbers, it has them for
//! ever, and drawing them cannot wait any more. What needs no secret (back-off, temporary names, boundaries, ids) draws none at all.
//!
//! **The time.** See [`clock`].

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::clock;
use crate::deliver::failure::{Code, Failure};

/// Something that the box does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The wall clock is before the program was built.
    Clock,
    /// The kernel has no random numbers.
    Randomness,
}

impl NotReady {
    /// The state of what waits for it, as the status names it.
    pub const fn state(self) -> &'static str {
        match self {
            NotReady::Clock => "clock not set",
            NotReady::Randomness => "randomness not ready",
        }
    }

    /// What is said where an upload waits for it, and what to do.
    pub const fn why(self) -> &'static str {
        match self {
            NotReady::Clock => clock::NOT_SET,
            NotReady::Randomness => {
                "the kernel has no random numbers yet, so that nothing can be encrypted: an old kernel gathers them for some minutes after a boot (rngd or haveged make it faster); uploads over TLS wait for it, and go on by themselves"
            }
        }
    }

    /// The same as a failure of a try.
    pub fn failure(self) -> Failure {
        let code = match self {
            NotReady::Clock => Code::ClockNotSet,
            NotReady::Randomness => Code::RandomnessNotReady,
        };
        Failure::new(code, self.why())
    }

    /// What is said when it has come.
    pub const fn over(self) -> &'static str {
        match self {
            NotReady::Clock => "the clock is set: uploads go on",
            NotReady::Randomness => "the kernel has random numbers: uploads go on",
        }
    }
}

/// What a TLS connection would have to wait for; none where it can begin. The clock is named first: it may need a person.
pub fn of_tls() -> Option<NotReady> {
    match () {
        () if !clock::is_set() => Some(NotReady::Clock),
        () if !randomness() => Some(NotReady::Randomness),
        () => None,
    }
}

/// Whether the kernel has random numbers. Never waits; costs one system call until they are there, and none from then on.
pub fn randomness() -> bool {
    static IS_READY: AtomicBool = AtomicBool::new(false);
    if IS_READY.load(Ordering::Relaxed) {
        return true;
    }
    // Any other failure (a kernel before 3.17, which does not know the call) is for whoever draws to deal with.
    let is_ready = getrandom(&mut [0; 1], GetRandomFlags::NONBLOCK) != Err(Errno::AGAIN);
    IS_READY.store(is_ready, Ordering::Relaxed);
    is_ready
}
