//! Measures a process from outside, and combines many measurements.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Nanoseconds of a clock that all processes share.
pub fn now() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// User and system time of a process in nanoseconds, including its ended threads: the sum that `getrusage` reports, with the
/// precision of the scheduler.
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

/// Runs `work` and returns the maximum private memory of the process during it, in KiB, sampled every 10 ms.
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

/// Sleeps until that time of [`now`]; returns at once if it has passed.
pub fn sleep_until(due: u64) {
    std::thread::sleep(Duration::from_nanos(due.saturating_sub(now())));
}

/// Assigns the cores. The measured process has the last core alone, so that neither the sink nor the recognizer preempts it.
/// Everything else uses the other cores.
pub struct Cores {
    measured: CpuSet,
    others: CpuSet,
}

impl Cores {
    /// Divides the available cores, and moves this process to the others. With a single core there is nothing to divide.
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

    /// Runs `start` so that the process it starts gets the core for measuring.
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

/// Many measurements of one quantity.
#[derive(Clone, Debug, Default)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    /// The value that the fraction `part` of the figures does not exceed; 0.5 is the median.
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

    /// Divides each figure by the other one of the same round: a lasting disturbance affects both.
    pub fn over(&self, other: &Figures) -> Figures {
        Figures(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
    }
}

/// A description of the machine in one line.
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
