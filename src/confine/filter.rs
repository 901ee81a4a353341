//! The filter of system calls: what is not in [`super::calls`] ends the whole process, at once.
//!
//! Two programs are installed, of which the kernel obeys the stricter: the first says of `clone3` that this kernel does not have it
//! (its flags lie in memory, where no filter can look; libraries fall back on `clone`), the second knows what is allowed.
//!
//! Linux can kill a whole process since 4.14. Before, "kill" ends one thread, and an uplink without its event loop would be a service
//! that runs and does nothing. There the call raises SIGSYS instead, which the kernel delivers even where it is blocked or ignored,
//! and which ends the process: that somebody handles it is what the filter does not allow.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, apply_filter};

use super::calls::{self, Number, Way};

/// Whose system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The running uplink's.
    Uplink,
    /// Those of the process that opens rings.
    Opener,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum Unfiltered {
    /// As it was wanted.
    #[error("system calls are not filtered: privileges.seccomp is false in the config")]
    Config,
    /// By this kernel, or by the emulator that stands for one.
    #[error("system calls are not filtered: this kernel cannot ({0})")]
    Kernel(String),
}

/// How a call that is not allowed ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `SECCOMP_RET_KILL_PROCESS`
    Kill,
    /// `SECCOMP_RET_TRAP`
    Signal,
}

impl End {
    /// What this kernel offers.
    pub fn of_this_kernel() -> End {
        // The file is as old as the action.
        let offered = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
        if offered.split_whitespace().any(|action| action == "kill_process") { End::Kill } else { End::Signal }
    }
}

/// Filters this thread's system calls from now on, and those of every thread that it starts.
///
/// # Errors
/// Where the kernel cannot.
pub fn install(filter: Filter) -> Result<(), Unfiltered> {
    install_with(filter, End::of_this_kernel())
}

/// The same with an end of the caller's choice.
///
/// # Errors
/// As [`install`].
pub fn install_with(filter: Filter, end: End) -> Result<(), Unfiltered> {
    let unavailable = |error: seccompiler::Error| Unfiltered::Kernel(error.to_string());
    let mut missing = BTreeMap::new();
    missing.insert(libc::SYS_clone3, Vec::new());
    let allowed = rules(filter);
    let end = match end {
        End::Kill => SeccompAction::KillProcess,
        End::Signal => SeccompAction::Trap,
    };
    let first = program(missing, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32));
    let second = program(allowed, end, SeccompAction::Allow);
    apply_filter(&first).and_then(|()| apply_filter(&second)).map_err(unavailable)
}

type Rules = BTreeMap<Number, Vec<SeccompRule>>;

fn rules(filter: Filter) -> Rules {
    let (plain, conditional) = match filter {
        Filter::Uplink => (calls::plain(), calls::conditional()),
        Filter::Opener => (calls::OF_OPENER.to_vec(), calls::of_opener_conditional()),
    };
    let rule =
        |way: &Way| SeccompRule::new(way.iter().map(calls::condition).collect()).expect("at least one condition");
    let mut rules = Rules::new();
    for number in plain {
        rules.insert(number, Vec::new());
    }
    for (number, ways) in conditional {
        rules.insert(number, ways.iter().map(rule).collect());
    }
    rules
}

fn program(rules: Rules, otherwise: SeccompAction, matching: SeccompAction) -> BpfProgram {
    let machine = std::env::consts::ARCH.try_into().expect("x86_64 or aarch64");
    let filter = SeccompFilter::new(rules, otherwise, matching, machine).expect("two different actions");
    filter.try_into().expect("far fewer instructions than the kernel takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_allowed_both_with_any_and_with_certain_arguments() {
        for (plain, conditional) in
            [(calls::plain(), calls::conditional()), (calls::OF_OPENER.to_vec(), calls::of_opener_conditional())]
        {
            assert!(conditional.iter().all(|(number, ways)| !plain.contains(number) && !ways.is_empty()));
        }
    }
}
