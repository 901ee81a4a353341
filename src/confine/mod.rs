//! Least privilege: the process gives up almost all rights that it was started with.
//!
//! ```text
//!  as root ──▶ a process that opens rings ──▶ config folder, spool handed over ──▶ user ──▶ no capabilities ──▶ system calls
//!                                                                           `run --user`
//!  as anybody ───────────────────────────────────────────────────────────────────────────▶ no capabilities ──▶ system calls
//! ```
//!
//! [`confine`] is called while the process has one thread, and before any input from outside arrives: threads inherit all
//! restrictions.
//!
//! - **The user comes from the command line**, which the init script writes, and never from the config. The uplink writes the
//!   config, and a compromised process must not choose its user after the next start. For the same reason, root does not trust
//!   paths in the config: it hands a spool over only if it looks like one ([`hand_over`]), and opens a ring only if it is one
//!   ([`crate::ring::opener`]). Certificates are read as the user.
//! - **Capabilities** are empty in every set and cannot come back: `no_new_privs` is on, and no program can be executed.
//! - **System calls** that are not in [`calls`] end the process ([`filter`]).
//! - Memory contains faces, tokens and keys. Core dumps and tracing by other processes of the same user are off. New files are
//!   accessible to the user only.

pub mod calls;
pub mod filter;
pub mod hand_over;
pub mod user;

use std::io;
use std::path::Path;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getegid, geteuid, set_dumpable_behavior, setrlimit};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use serde::Serialize;

use crate::config::Config;
use crate::ring::opener;
use filter::{Filter, Unfiltered};
pub use user::User;

/// The resulting privileges of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confined {
    /// Its user id.
    pub user: u32,
    /// Its group id.
    pub group: u32,
    /// Whether system calls are filtered.
    pub seccomp: bool,
    /// Why they are not filtered.
    pub problem: Option<String>,
    /// Folders that could not be handed over to the user, or taken back by root, and what to do about it. For the log.
    #[serde(skip)]
    pub left: Vec<String>,
}

/// Why the process must end.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The process is neither root nor that user.
    #[error("only root can become user {0}: start it as root, or without --user")]
    NotRoot(User),
    /// A required system call failed.
    #[error("cannot {what}: {source}")]
    System {
        /// For example "give up the capabilities".
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::System { what, source: source.into() }
}

/// Gives up every right that uploading does not need. `file` is the path of the config, `config` its content. A root process
/// becomes `user`.
///
/// # Errors
/// [`ConfineError`]. The process must end then: its rights are in an undefined state.
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
    // Only now: the change of user resets this flag.
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

/// For a check of the config at `file`: as in [`confine`], root hands over the config's folder and becomes the user, so that
/// files are checked with that user's rights. Returns in words what could not be handed over.
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

/// Makes sure that executing a program cannot restore a capability. This needs the capability `CAP_SETPCAP`; without it,
/// `no_new_privs` alone has the same effect.
fn give_up_bounding_set() {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        let _needs_a_capability = thread::remove_capability_from_bounding_set(capability);
    }
}

/// Reduces the thread's capabilities to `kept`, permanently.
fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    thread::set_no_new_privs(true)?;
    let kept = thread::capabilities(None)?.permitted & kept;
    let _linux_before_4_3_has_none = thread::clear_ambient_capability_set();
    let inheritable = CapabilitySet::empty();
    Ok(thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })?)
}

/// Forbids core dumps and new files that others may read.
fn leave_no_traces() -> io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Confines the process that opens rings. It stays root, but keeps only the right to open other users' files.
///
/// # Errors
/// The system's error. The process must end then.
pub fn confine_opener(seccomp: bool) -> io::Result<()> {
    give_up_bounding_set();
    keep_capabilities(CapabilitySet::DAC_OVERRIDE)?;
    leave_no_traces()?;
    if seccomp {
        // If the kernel has no filters, the uplink itself reports it.
        let _same_as_the_uplink = filter::install(Filter::Opener);
    }
    Ok(())
}
