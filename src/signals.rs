//! Signals: those that the uplink handles, and those that it ignores.
//!
//! All of them are blocked in every thread, and one thread receives them. So there is no handler, no call is interrupted, and an
//! early signal is not lost. SIGTERM works even if other threads hang: in a disk, in a kernel without random numbers, in a name
//! that is being resolved. [`Signals::watch`] has the details.

use std::io;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::write;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Exit code of a program that did not stop in time after SIGTERM.
const EXIT_HUNG: i32 = 1;

/// What a signal asks of the running uplink, or reports to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGCHLD.
    ChildEnded,
}

/// The blocked signals: blocked in this thread and in all threads that it starts later.
#[derive(Debug)]
pub struct Signals {
    before: SigSet,
}

/// All signals except those for a fault of the thread itself and those by which a terminal stops a program or ends it at once.
fn stray() -> SigSet {
    use Signal::*;
    let mut signals = SigSet::all();
    let faults = [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS];
    faults.into_iter().chain([SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT]).for_each(|signal| signals.remove(signal));
    signals
}

/// For a program that a person runs. Ignores signals such as SIGUSR1 and SIGALRM, which end a program by default and which nobody
/// sends it on purpose. The signals by which a terminal or an init script ends it still do.
pub fn ignore_strays() {
    use Signal::*;
    let mut signals = stray();
    [SIGTERM, SIGINT, SIGHUP, SIGCHLD].into_iter().for_each(|signal| signals.remove(signal));
    let _such_a_set_is_always_taken = signals.thread_block();
}

impl Signals {
    /// Blocks the signals except SIGTERM and SIGINT. These two end the program until [`Signals::watch`]: nothing can be lost
    /// before, and a hanging start (a config on a file system that does not respond) must be stoppable. Call this first.
    pub fn hold() -> Signals {
        let mut signals = stray();
        [Signal::SIGTERM, Signal::SIGINT].into_iter().for_each(|signal| signals.remove(signal));
        Signals { before: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap_or_else(|_| SigSet::empty()) }
    }

    /// Restores the signal mask.
    pub fn release(self) {
        let _such_a_set_is_always_taken = self.before.thread_set_mask();
    }

    /// Starts the thread that receives the signals and sends notices. After SIGTERM or SIGINT the process has `patience` to end;
    /// then it is ended with exit code 1. Call this while there is one thread.
    ///
    /// # Errors
    /// The system cannot create a thread.
    pub fn watch(self, patience: Duration) -> io::Result<UnboundedReceiver<Notice>> {
        let signals = stray();
        signals.thread_block()?;
        let (sender, notices) = unbounded_channel();
        thread::Builder::new().name("signals".into()).stack_size(32 * 1024).spawn(move || {
            loop {
                let notice = match signals.wait() {
                    Ok(Signal::SIGTERM | Signal::SIGINT) => Notice::Stop,
                    Ok(Signal::SIGHUP) => Notice::Reload,
                    Ok(Signal::SIGCHLD) => Notice::ChildEnded,
                    _ => continue, // another signal, or one without a name
                };
                let _nobody_listens_at_the_end = sender.send(notice);
                if notice == Notice::Stop {
                    thread::sleep(patience);
                    end();
                }
            }
        })?;
        Ok(notices)
    }
}

/// Ends the process although other threads hang. They may hold the lock of standard error, or hang while they write to it.
fn end() -> ! {
    const MESSAGE: &[u8] =
        b"sophon-uplink: it did not stop in time, and is ended; events neither delivered nor spooled stay in the ring\n";
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::ZERO) == Ok(1) {
        let _ = write(&stderr, MESSAGE);
    }
    std::process::exit(EXIT_HUNG)
}
