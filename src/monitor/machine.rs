//! Figures of the machine from the kernel. The report leaves out what cannot be read.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Bytes of a gigabyte, as the box's documentation counts memory and disks.
const GB: f64 = (1u64 << 30) as f64;

/// Remembers the processor time of the last reading.
#[derive(Debug, Default)]
pub struct Machine {
    /// Ticks since the boot: the total, and the idle ones.
    ticks: Option<(u64, u64)>,
}

/// A size in GB, and how much of it is used, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// In GB.
    pub size: f64,
    /// In percent.
    pub percent: f64,
}

impl Machine {
    /// Processor use since the last reading, in percent. The first reading covers the time since the boot.
    pub fn cpu_percent(&mut self) -> Option<f64> {
        let now = ticks(&fs::read_to_string("/proc/stat").ok()?)?;
        let (all, idle) = self.ticks.replace(now).unwrap_or_default();
        let (all, idle) = (now.0.checked_sub(all)?, now.1.saturating_sub(idle));
        (all > 0).then(|| percent((all - idle.min(all)) as f64, all as f64))
    }
}

/// Reads `/proc/stat`: the total of all ticks, and the idle ones, including those that waited for a disk.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // Skip the last two: guests' time, which the first ones already include.
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).take(8).collect();
    Some((ticks.iter().sum(), ticks.get(3)? + ticks.get(4)?))
}

/// The memory of the box.
pub fn memory() -> Option<Usage> {
    memory_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// Reads `/proc/meminfo`. Before Linux 3.14 there is no MemAvailable; MemFree is used then.
fn memory_of(meminfo: &str) -> Option<Usage> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let (total, available) = (kib("MemTotal")?, kib("MemAvailable").or_else(|| kib("MemFree"))?);
    Some(Usage { size: rounded(total * 1024.0 / GB), percent: percent(total - available, total) })
}

/// Usage of the file system of `path`, or of its nearest existing parent folder.
pub fn disk(path: &Path) -> Option<Usage> {
    let found = path.ancestors().find_map(|folder| statvfs(folder).ok())?;
    let total = found.blocks() as f64 * found.fragment_size() as f64;
    let free = found.blocks_free() as f64 * found.fragment_size() as f64;
    (total > 0.0).then(|| Usage { size: rounded(total / GB), percent: percent(total - free, total) })
}

fn percent(part: f64, whole: f64) -> f64 {
    rounded((100.0 * part / whole).clamp(0.0, 100.0))
}

/// Rounds to two decimal places.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_counted_without_guests_and_idle_with_waiting_for_disks() {
        assert_eq!(ticks("cpu  10 1 5 70 4 0 1 2 3 3\ncpu0 1 1 1\n"), Some((93, 74)));
        assert_eq!(ticks("cpu  10 1 5 70 4\n"), Some((90, 74)), "an old kernel");
        for wrong in ["", "intr 1 2", "cpu  1 2", "cpu  a"] {
            assert_eq!(ticks(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn memory_in_use_is_what_is_not_available() {
        let meminfo = "MemTotal:        2097152 kB\nMemFree:          100 kB\nMemAvailable:    1572864 kB\n";
        assert_eq!(memory_of(meminfo), Some(Usage { size: 2.0, percent: 25.0 }));
        assert_eq!(memory_of("MemTotal: 4 kB\nMemFree: 1 kB\n").unwrap().percent, 75.0);
        assert_eq!(memory_of("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_tells_its_figures() {
        let mut machine = Machine::default();
        let is_percent = |percent: f64| (0.0..=100.0).contains(&percent);
        assert!(machine.cpu_percent().is_some_and(is_percent));
        assert!(memory().is_some_and(|memory| memory.size > 0.0 && is_percent(memory.percent)));
        let below = Path::new("/is/not/there/spool");
        assert_eq!(disk(below).map(|disk| disk.size), disk(Path::new("/")).map(|disk| disk.size));
    }
}
