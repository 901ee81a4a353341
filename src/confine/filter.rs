//! The filter of system calls. A call that is not in [`super::calls`] ends the whole process at once.
//!
//! Two programs are installed; the kernel applies the stricter result. The first one answers `clone3` with ENOSYS, because its
//! flags lie in memory, where no filter can read them; libraries then fall back on `clone`. The second one has the list of
//! allowed calls.
//!
//! Linux can kill a whole process since 4.14. Older kernels kill one thread only, and an uplink without its event loop would run
//! and do nothing. On these, a forbidden call raises SIGSYS instead. The kernel delivers it even if it is blocked or ignored, and
//! it ends the process. The filter forbids installing a handler for it.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, apply_filter};

use super::calls::{self, Number, Way};

/// The process to filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The running uplink.
    Uplink,
    /// The process that opens rings.
    Opener,
}

/// Why system calls are not filtered.
#[derive(Debug, thiserror::Error)]
pub enum Unfiltered {
    /// The config turns the filter off.
    #[error("system calls are not filtered: privileges.seccomp is false in the config")]
    Config,
    /// The kernel, or the emulator in its place, has no filters.
    #[error("system calls are not filtered: this kernel cannot ({0})")]
    Kernel(String),
}

/// How a forbidden call ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `SECCOMP_RET_KILL_PROCESS`
    Kill,
    /// `SECCOMP_RET_TRAP`
    Signal,
}

impl End {
    /// The best one that this kernel offers.
    pub fn of_this_kernel() -> End {
        // The file exists since the same kernel version as the action.
        let offered = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
        if offered.split_whitespace().any(|action| action == "kill_process") { End::Kill } else { End::Signal }
    }
}

/// Filters the system calls of this thread from now on, and of every thread that it starts later.
///
/// # Errors
/// The kernel cannot filter.
pub fn install(filter: Filter) -> Result<(), Unfiltered> {
    install_with(filter, End::of_this_kernel())
}

/// The same, with the `end` that the caller chooses.
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
