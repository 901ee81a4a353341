//! Signals: those that the uplink obeys, and those that it must not mind.
//!
//! All of them are blocked, in every thread, and one thread takes what comes. So there is no handler, nothing is interrupted, a signal
//! that comes early waits, and SIGTERM is obeyed whatever the other threads hang in: a disk, a kernel without random numbers, a name
//! that is being resolved. [`Signals::watch`] says how.

use std::io;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How a program ends that SIGTERM did not stop in time.
const HUNG: i32 = 1;

/// What a signal tells the running uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGCHLD.
    ChildEnded,
}

/// Those that are blocked, in this thread and in all that it starts from then on.
#[derive(Debug)]
pub struct Signals {
    before: SigSet,
}

/// Every signal but those that tell of a fault of the thread's own, and those by which a terminal stops a program and ends it at once.
fn stray() -> SigSet {
    use Signal::*;
    let mut signals = SigSet::all();
    let faults = [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS];
    faults.into_iter().chain([SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT]).for_each(|signal| signals.remove(signal));
    signals
}

/// For a program that a person runs: SIGUSR1, SIGALRM and their kind, which end a program by default and which nobody sends it for a
/// reason, do not end it. Those that end it at a terminal's and at an init script's wish do.
pub fn ignore_strays() {
    use Signal::*;
    let mut signals = stray();
    [SIGTERM, SIGINT, SIGHUP, SIGCHLD].into_iter().for_each(|signal| signals.remove(signal));
    let _such_a_set_is_always_taken = signals.thread_block();
}

impl Signals {
    /// Blocks them, but SIGTERM and SIGINT, which end the program until [`Signals::watch`]: nothing is at stake before, and what it
    /// hangs in (a config on a file system that does not answer) must not keep it. To be called first of all.
    pub fn hold() -> Signals {
        let mut signals = stray();
        [Signal::SIGTERM, Signal::SIGINT].into_iter().for_each(|signal| signals.remove(signal));
        Signals { before: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap_or_else(|_| SigSet::empty()) }
    }

    /// Makes everything as it was.
    pub fn release(self) {
        let _such_a_set_is_always_taken = self.before.thread_set_mask();
    }

    /// Starts the thread that takes them, and tells of them. After SIGTERM or SIGINT the process has `patience` to end; then it is
    /// ended, with exit code 1. To be called while there is one thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(self, patience: Duration) -> io::Result<UnboundedReceiver<Told>> {
        let signals = stray();
        signals.thread_block()?;
        let (tell, told) = unbounded_channel();
        thread::Builder::new().name("signals".into()).stack_size(32 * 1024).spawn(move || {
            loop {
                let news = match signals.wait() {
                    Ok(Signal::SIGTERM | Signal::SIGINT) => Told::Stop,
                    Ok(Signal::SIGHUP) => Told::Reload,
                    Ok(Signal::SIGCHLD) => Told::ChildEnded,
                    _ => continue, // a stray one, or one that has no name
                };
                let _nobody_listens_at_the_end = tell.send(news);
                if news == Told::Stop {
                    thread::sleep(patience);
                    end();
                }
            }
        })?;
        Ok(told)
    }
}

/// Ends the process though other threads hang, perhaps while they hold the lock of standard error, or in writing to it.
fn end() -> ! {
    const LAST_WORDS: &[u8] =
        b"sophon-uplink: it hangs, and is ended; what was neither delivered nor spooled stays in the ring\n";
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut ready, Some(&Timespec::default())) == Ok(1) {
        let _ = rustix::io::write(stderr.as_fd(), LAST_WORDS);
    }
    std::process::exit(HUNG)
}
