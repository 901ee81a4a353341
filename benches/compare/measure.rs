//! What is measured of a process from outside, and what is made of many measurements.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Nanoseconds of the clock that all processes share.
pub fn now() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// User and system time of a process, in nanoseconds, with its threads that have ended: what `getrusage` sums up, as exactly as the
/// scheduler counts it.
pub fn cpu_of(pid: u32) -> u64 {
    nanoseconds(clock_getcpuclockid(Pid::from_raw(pid as i32)).expect("the process lives"))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time: Duration = clock_gettime(clock).expect("a clock that exists").into();
    u64::try_from(time.as_nanos()).expect("less than 500 years")
}

/// Private memory of a process, in KiB.
pub fn rss_anon(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Does `work`, and says how much private memory the process had at most meanwhile, in KiB, as far as a look each 10 ms tells.
pub fn with_most_memory<R>(pid: u32, work: impl FnOnce() -> R) -> (R, u64) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = rss_anon(pid);
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
                most = most.max(rss_anon(pid));
            }
            most
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        (done, watcher.join().expect("it only looks"))
    })
}

/// Sleeps until that time of [`now`]; not at all when it is over.
pub fn sleep_until(due: u64) {
    std::thread::sleep(Duration::from_nanos(due.saturating_sub(now())));
}

/// Which cores do what: the process that is measured has the last one for itself, so that neither the sink nor the recognizer
/// preempts it, everything else has the others.
pub struct Cores {
    measured: CpuSet,
    others: CpuSet,
}

impl Cores {
    /// Divides the cores that we may use, and moves this process to the others. With one core there is nothing to divide.
    pub fn divide() -> Cores {
        let all = sched_getaffinity(Pid::from_raw(0)).expect("our own");
        let numbers: Vec<_> = (0..CpuSet::count()).filter(|core| all.is_set(*core) == Ok(true)).collect();
        let (mut measured, mut others) = (all, all);
        if let [rest @ .., last] = &numbers[..]
            && !rest.is_empty()
        {
            rest.iter().for_each(|core| measured.unset(*core).expect("it was set"));
            others.unset(*last).expect("it was set");
        }
        let cores = Cores { measured, others };
        move_to(&cores.others);
        cores
    }

    /// Does `start`, whose process is to be measured.
    pub fn measured<R>(&self, start: impl FnOnce() -> R) -> R {
        move_to(&self.measured);
        let started = start();
        move_to(&self.others);
        started
    }
}

fn move_to(cores: &CpuSet) {
    sched_setaffinity(Pid::from_raw(0), cores).expect("cores that were ours");
}

/// Many measurements of one thing.
#[derive(Clone, Debug, Default)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    /// The value that `part` of the figures do not exceed; the median for 0.5.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            return f64::NAN; // not measured
        }
        let index = (part * sorted.len() as f64).ceil() as usize;
        sorted[index.clamp(1, sorted.len()) - 1]
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Each divided by the one of the same round: a disturbance that lasts hits both.
    pub fn over(&self, other: &Figures) -> Figures {
        Figures(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// The machine, in a line.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let virtual_machine = if cpu.contains(" hypervisor") { ", a virtual machine" } else { "" };
    format!(
        "{} {model}, {cores} cores{virtual_machine}, Linux {}",
        std::env::consts::ARCH,
        read("/proc/sys/kernel/osrelease").trim().split('-').next().unwrap_or_default()
    )
}
