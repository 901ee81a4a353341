//! The promise: an event costs no more instructions on the box than docs/benchmarks.md says, to 2 %.
//!
//! The box's own static binary runs under qemu-user with a plugin that counts every instruction (`instructions/blocks.c`); the
//! ring's other side and the server are native. So that the figures repeat, events come one at a time, each to a program at rest,
//! and the median of several counts: a timer that fires meanwhile, or a write that the socket takes in two parts, moves only some.
//! The table in docs/benchmarks.md is what is compared with; `UPDATE_FIGURES=yes` writes it anew.
//!
//! Ignored without the binaries: `scripts/test instructions` builds them, and the plugin, and says where they are.

mod common;
#[path = "instructions/counter.rs"]
mod counter;
#[path = "instructions/sink.rs"]
mod sink;
#[path = "instructions/table.rs"]
mod table;

use std::path::{Path, PathBuf};

use common::daemon::Home;
use common::{Daemon, event, picture, publish};
use counter::{Counter, Counts};
use serde_json::json;
use sink::Sink;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;
use table::Table;

/// Bytes of an event's two pictures, and what they are called in the table.
const SIZES: [(&str, [usize; 2]); 3] =
    [("20 KB", [6_000, 14_000]), ("200 KB", [60_000, 140_000]), ("2 MB", [600_000, 1_400_000])];
/// Connections, pools and buffers have their sizes after these.
const WARM_UP: usize = 5;
const EVENTS: usize = 21;

fn path(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: scripts/test instructions sets it"))
        .into()
}

/// Instructions an event, for each size.
fn measure(program: &Path, counter: &Counter, sink: &Sink, home: &Home) -> Vec<Counts> {
    home.configure(&[sink.url()], json!({ "tls": { "ca_file": sink.ca_file } }));
    let mut recognizer = Producer::open(&home.ring(), 16 << 20).unwrap();
    let daemon = Daemon::spawn(counter.command(program).arg("run").arg("--config").arg(home.config()));
    daemon.wait_attached();
    let measured = SIZES.map(|(name, [reg, spot])| {
        let (reg, spot) = (picture(reg, 1), picture(spot, 2));
        let mut before = counter.at_rest();
        let mut one = || {
            let sequence = publish(&mut recognizer, &event(&reg, &spot));
            common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sequence);
            let now = counter.at_rest();
            let spent: Counts = now
                .iter()
                .map(|(part, count)| (*part, count - before.get(part).copied().unwrap_or_default()))
                .collect();
            before = now;
            spent
        };
        (0..WARM_UP).for_each(|_| drop(one()));
        let mut events: Vec<Counts> = (0..EVENTS).map(|_| one()).collect();
        events.sort_unstable_by_key(table::together);
        let [least, most] = [0, EVENTS - 1].map(|index| table::together(&events[index]));
        println!("{name}: {least} to {most} instructions an event");
        // A busy machine adds wake-ups of timers: the lower quartile is what the program itself takes.
        events.swap_remove(EVENTS / 4)
    });
    let sent = (SIZES.len() * (WARM_UP + EVENTS)) as u64;
    assert_eq!(daemon.terminate().acknowledged, sent);
    measured.into()
}

#[test]
#[ignore = "needs the aarch64 binaries: scripts/test instructions"]
fn an_event_costs_no_more_instructions_than_is_published() {
    let program = path("SOPHON_AARCH64_DIR").join("sophon-uplink");
    let mut measured = Table::new();
    for tls in [false, true] {
        let home = Home::new();
        let counter = Counter::new(&path("SOPHON_BLOCKS_PLUGIN"), &path("SOPHON_AARCH64_SYMBOLS"), home.folder.path());
        let sink = Sink::start(tls, home.folder.path());
        let counts = measure(&program, &counter, &sink, &home);
        for ((size, _), counts) in SIZES.iter().zip(counts) {
            measured.add(&format!("{}, {size}", if tls { "HTTPS" } else { "HTTP" }), counts);
        }
    }
    println!("{}", measured.text());
    if std::env::var_os("UPDATE_FIGURES").is_some() {
        return measured.publish();
    }
    let exceeded = measured.compare(&Table::published());
    assert!(
        exceeded.is_empty(),
        "more instructions than docs/benchmarks.md says:\n{}\nif that is meant: UPDATE_FIGURES=yes scripts/test instructions",
        exceeded.join("\n")
    );
}
