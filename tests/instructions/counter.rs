//! The real aarch64 program under qemu-user with a plugin that counts (`blocks.c`), and whose instructions they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The columns of the table, and how the names of their functions begin. What the compiler inlined counts as what it was inlined
/// into.
pub const PARTS: [(&str, &[&str]); 7] = [
    ("encoder", &["sophon_uplink::body::neon::"]),
    ("body", &["sophon_uplink::body::", "serde_json::", "itoa::"]),
    ("uplink", &["sophon_uplink::"]),
    (
        "hyper",
        &[
            "hyper::",
            "hyper_util::",
            "hyper_rustls::",
            "http::",
            "http_body::",
            "http_body_util::",
            "httparse::",
            "httpdate::",
            "bytes::",
            "want::",
        ],
    ),
    ("TLS", &["rustls::", "tokio_rustls::", "rustls_pki_types::", "webpki::", "ring::", "ring_core_", "ChaCha20_"]),
    ("event loop", &["tokio::", "mio::", "futures_util::", "futures_core::", "slab::", "socket2::"]),
    (REST, &[]),
];
const REST: &str = "libraries";

/// By the path that comes first in the name: `<hyper::A as core::B>::c` is hyper's.
fn part_of(function: &str) -> &'static str {
    let is_path =
        |at: usize| !function[..at].ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before));
    let first = |path: &str| function.match_indices(path).map(|(at, _)| at).find(|at| is_path(*at));
    let found =
        PARTS.iter().filter_map(|(part, paths)| Some((paths.iter().filter_map(|path| first(path)).min()?, *part)));
    // The encoder's path is also the body's and the uplink's: `min_by_key` takes the first of equals.
    found.min_by_key(|(at, _)| *at).map_or(REST, |(_, part)| part)
}

/// Instructions by part.
pub type Counts = HashMap<&'static str, u64>;

pub struct Counter {
    plugin: PathBuf,
    table: PathBuf,
    /// Where functions begin, in order, and of what they are a part.
    functions: Vec<(u64, &'static str)>,
    entry: u64,
}

impl Counter {
    /// With the `plugin`, for programs that have the code of `twin`, whose symbols are there; the counts go into `folder`.
    pub fn new(plugin: &Path, twin: &Path, folder: &Path) -> Counter {
        let (functions, entry) = symbols(twin);
        Counter { plugin: plugin.to_owned(), table: folder.join("blocks"), functions, entry }
    }

    /// For programs whose functions are not told apart: all that they take is the libraries'.
    pub fn of_unknown(plugin: &Path, folder: &Path) -> Counter {
        Counter { plugin: plugin.to_owned(), table: folder.join("blocks"), functions: Vec::new(), entry: 0 }
    }

    /// `program` under qemu, as the box's processor, counting.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("qemu-aarch64");
        command.args(["-cpu", "cortex-a53", "-plugin"]);
        command.arg(format!("{},table={}", self.plugin.display(), self.table.display())).arg(program);
        command
    }

    /// All instructions until now.
    pub fn now(&self) -> Counts {
        let lines = lines(&self.table);
        let [at, _, lacking] = lines[0];
        assert_eq!(lacking, 0, "the table of blocks is too small");
        let moved = at.wrapping_sub(self.entry);
        let mut counts = Counts::new();
        for [address, instructions, executions] in &lines[1..] {
            let after = self.functions.partition_point(|(start, _)| *start <= address.wrapping_sub(moved));
            let part = after.checked_sub(1).map_or(REST, |index| self.functions[index].1);
            *counts.entry(part).or_default() += instructions * executions;
        }
        counts
    }

    /// The same once the program rests.
    pub fn at_rest(&self) -> Counts {
        let all = || lines(&self.table)[1..].iter().map(|[_, _, executions]| executions).sum::<u64>();
        let mut before = all();
        super::common::wait_until("the program's rest", || {
            std::thread::sleep(Duration::from_millis(5));
            std::mem::replace(&mut before, all()) == before
        });
        self.now()
    }
}

/// The table's lines that are in use; the first one is about the table.
fn lines(table: &Path) -> Vec<[u64; 3]> {
    let bytes = std::fs::read(table).unwrap_or_default();
    let (words, _) = bytes.as_chunks::<8>();
    let (lines, _) = words.as_chunks::<3>();
    let used = lines.first().map_or(0, |[_, used, _]| 1 + u64::from_le_bytes(*used) as usize);
    lines.iter().take(used).map(|line| line.map(u64::from_le_bytes)).collect()
}

/// The functions of a program that has symbols, and where it begins.
fn symbols(twin: &Path) -> (Vec<(u64, &'static str)>, u64) {
    let output = Command::new("aarch64-linux-gnu-nm").args(["-C", "--defined-only"]).arg(twin).output();
    let output = output.expect("aarch64-linux-gnu-nm is there");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut functions = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        if let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) = (words.next(), words.next(), words.next()) {
            functions.push((u64::from_str_radix(address, 16).unwrap(), part_of(name)));
        }
    }
    for (part, _) in PARTS {
        let is_there = functions.iter().any(|(_, of)| *of == part);
        assert!(is_there, "{} has no symbols of the {part}; scripts/build makes it with them", twin.display());
    }
    functions.sort_unstable();
    let entry = std::fs::read(twin).unwrap()[24..32].try_into().unwrap(); // e_entry of a 64-bit ELF file
    (functions, u64::from_le_bytes(entry))
}
