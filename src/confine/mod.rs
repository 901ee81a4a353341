//! Least privilege: what the process keeps of the rights that it was started with, which is next to nothing.
//!
//! ```text
//!  as root ──▶ a process that opens rings ──▶ config folder, spool handed over ──▶ user ──▶ no capabilities ──▶ system calls
//!                                                                           `run --user`
//!  as anybody ───────────────────────────────────────────────────────────────────────────▶ no capabilities ──▶ system calls
//! ```
//!
//! [`confine`] is called while the process has one thread, and before anything comes in from outside: threads inherit all of this.
//!
//! - **The user comes from the command line**, which is the init script's, and never from the config: the uplink writes the config,
//!   and a process that was taken over must not choose who it will be after the next start. For the same reason nothing that the
//!   config names is believed while the process is root: a spool is handed over if it looks like one ([`hand_over`]), a ring is
//!   opened if it is one ([`crate::ring::opener`]), certificates are read as the user.
//! - **Capabilities** are empty in every set, and nothing gives them back: `no_new_privs` is on, and no program can be executed.
//! - **System calls** that are not in [`calls`] end the process ([`filter`]).
//! - Memory holds faces, tokens and keys: no core dumps, no tracing by others of the same user. New files are the user's alone.

pub mod calls;
pub mod filter;
pub mod hand_over;
pub mod user;

use std::io;
use std::path::Path;

use nix::unistd::{getegid, geteuid};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use serde::Serialize;

use crate::config::Config;
use crate::ring::opener;
use filter::{Filter, Unfiltered};
pub use user::User;

/// What became of the process's privileges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confined {
    /// Its user id.
    pub user: u32,
    /// Its group id.
    pub group: u32,
    /// Whether system calls are filtered.
    pub seccomp: bool,
    /// Why they are not.
    pub problem: Option<String>,
    /// What could not be handed over to the user (or taken back, by root that stays root), and what to do about it; for the log.
    #[serde(skip)]
    pub left: Vec<String>,
}

/// Why the process does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Neither root nor already that user.
    #[error("only root can become user {0}: start it as root, or without --user")]
    NotRoot(User),
    /// A system call that must not fail.
    #[error("cannot {what}: {source}")]
    System {
        /// "give up the capabilities", ...
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::System { what, source: source.into() }
}

/// Gives up everything that uploading does not need. `file` is the config's, `config` what it says; `user` is whom a root process
/// becomes.
///
/// # Errors
/// [`ConfineError`]; the process must end then, for it is neither the one nor the other.
pub fn confine(file: &Path, config: &Config, user: Option<User>) -> Result<Confined, ConfineError> {
    let mut left = Vec::new();
    match user {
        Some(user) if geteuid().is_root() => {
            opener::start(&config.rings, config.seccomp).map_err(failed("start the process that opens rings"))?;
            left.extend(hand_over::config_folder(file, user).err());
            left.extend(hand_over::spool(&config.spool.dir, user).err());
            give_up_bounding_set();
            user.become_it().map_err(failed("become the user"))?;
        }
        Some(user) if !user.is_me() => return Err(ConfineError::NotRoot(user)),
        None if geteuid().is_root() => {
            left.extend(hand_over::config_folder(file, hand_over::ROOT).err());
            left.extend(hand_over::spool(&config.spool.dir, hand_over::ROOT).err());
            give_up_bounding_set();
        }
        _ => give_up_bounding_set(),
    }
    keep_capabilities(CapabilitySet::empty()).map_err(failed("give up the capabilities"))?;
    // After the change of user, which sets it anew.
    leave_no_traces().map_err(failed("forbid core dumps"))?;
    let filtered = match config.seccomp {
        true => filter::install(Filter::Uplink),
        false => Err(Unfiltered::Config),
    };
    Ok(Confined {
        user: geteuid().as_raw(),
        group: getegid().as_raw(),
        seccomp: filtered.is_ok(),
        problem: filtered.err().map(|why| why.to_string()),
        left,
    })
}

/// For who checks the config at `file`: root hands its folder over and becomes the user, as [`confine`] would, to judge files by that
/// user's rights. What could not be handed over, in words.
///
/// # Errors
/// As [`confine`].
pub fn judge_as(file: &Path, user: User) -> Result<Option<String>, ConfineError> {
    match geteuid().is_root() {
        true => {
            let left = hand_over::config_folder(file, user).err();
            user.become_it().map_err(failed("become the user"))?;
            Ok(left)
        }
        false if !user.is_me() => Err(ConfineError::NotRoot(user)),
        false => Ok(None),
    }
}

/// No capability can come back by executing something. It takes one (`CAP_SETPCAP`) to do so: without it, `no_new_privs` alone
/// sees to the same.
fn give_up_bounding_set() {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        let _needs_a_capability = thread::remove_capability_from_bounding_set(capability);
    }
}

/// Of what the thread has, only `kept`; and nothing more, ever.
fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    thread::set_no_new_privs(true)?;
    let kept = thread::capabilities(None)?.permitted & kept;
    let _linux_before_4_3_has_none = thread::clear_ambient_capability_set();
    let inheritable = CapabilitySet::empty();
    Ok(thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?)
}

/// Neither a core dump nor a file that others may read.
fn leave_no_traces() -> io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// For the process that opens rings: it stays root, but what is left of root is the right to open others' files.
///
/// # Errors
/// What the system says; the process must end then.
pub fn confine_opener(seccomp: bool) -> io::Result<()> {
    give_up_bounding_set();
    keep_capabilities(CapabilitySet::DAC_OVERRIDE)?;
    leave_no_traces()?;
    if seccomp {
        // Where there is none, the uplink says so: the same is true of itself.
        let _same_as_the_uplink = filter::install(Filter::Opener);
    }
    Ok(())
}
