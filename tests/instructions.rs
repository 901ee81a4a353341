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
#[path = "instructions/libcurl.rs"]
mod libcurl;
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

/// Instructions of an event that `send` hands over, and waits for.
fn of_an_event(name: &str, counter: &Counter, mut send: impl FnMut()) -> Counts {
    let mut before = counter.at_rest();
    let mut one = || {
        send();
        let now = counter.at_rest();
        let since =
            |(part, count): (&&'static str, &u64)| (*part, count - before.get(part).copied().unwrap_or_default());
        let spent: Counts = now.iter().map(since).collect();
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
}

/// Instructions an event, for each size.
fn measure(program: &Path, counter: &Counter, sink: &Sink, home: &Home) -> Vec<Counts> {
    home.configure(&[sink.url()], json!({ "tls": { "ca_file": sink.ca_file } }));
    let mut recognizer = Producer::open(&home.ring(), 16 << 20).unwrap();
    let daemon = Daemon::spawn(counter.command(program).arg("run").arg("--config").arg(home.config()));
    daemon.wait_attached();
    let measured = SIZES.map(|(name, [reg, spot])| {
        let (reg, spot) = (picture(reg, 1), picture(spot, 2));
        of_an_event(name, counter, || {
            let sequence = publish(&mut recognizer, &event(&reg, &spot));
            common::wait_until("the release", || RingState::of(&home.ring()).unwrap().consumed == sequence);
        })
    });
    let sent = (SIZES.len() * (WARM_UP + EVENTS)) as u64;
    assert_eq!(daemon.terminate().acknowledged, sent);
    measured.into()
}

/// What the uplink takes, in the order of `rows`.
fn measure_uplink() -> Vec<Counts> {
    let program = path("SOPHON_AARCH64_DIR").join("sophon-uplink");
    let of = |tls| {
        let home = Home::new();
        let counter = Counter::new(&path("SOPHON_BLOCKS_PLUGIN"), &path("SOPHON_AARCH64_SYMBOLS"), home.folder.path());
        measure(&program, &counter, &Sink::start(tls, home.folder.path()), &home)
    };
    [false, true].into_iter().flat_map(of).collect()
}

/// The rows of a table.
fn rows() -> impl Iterator<Item = String> {
    ["HTTP", "HTTPS"].into_iter().flat_map(|scheme| SIZES.map(|(size, _)| format!("{scheme}, {size}")))
}

#[test]
#[ignore = "needs the aarch64 binaries: scripts/test instructions"]
fn an_event_costs_no_more_instructions_than_is_published() {
    let mut measured = Table::new();
    rows().zip(measure_uplink()).for_each(|(name, counts)| measured.add(&name, counts));
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

/// Ours over libcurl's, at 200 KB over HTTP.
const LIBCURL_BUDGET: f64 = 0.3;

#[test]
#[ignore = "needs the aarch64 binaries and an arm64 libcurl: scripts/bench instructions"]
fn an_event_costs_a_fraction_of_what_libcurl_takes() {
    let peer = libcurl::Peer::new(path("SOPHON_LIBCURL"), path("SOPHON_LIBCURL_ROOT"), path("SOPHON_BLOCKS_PLUGIN"));
    let ours = measure_uplink();
    let [theirs, without_base64] = ["", "encoded"].map(|mode| peer.measure(mode));
    let rows: Vec<libcurl::Row> = rows()
        .enumerate()
        .map(|(at, name)| libcurl::Row {
            name,
            ours: [table::together(&ours[at]), table::together(&ours[at]) - ours[at]["encoder"]],
            theirs: [theirs[at], without_base64[at]],
        })
        .collect();
    let text = libcurl::text(&peer.version(), &rows);
    println!("{text}");
    if std::env::var_os("UPDATE_FIGURES").is_some() {
        table::write(libcurl::MARKS, &text);
    }
    let judged = rows.iter().find(|row| row.name == "HTTP, 200 KB").expect("it was measured");
    let ratio = judged.ours[0] as f64 / judged.theirs[0] as f64;
    assert!(
        ratio <= LIBCURL_BUDGET,
        "{}: {ratio:.2} times what libcurl takes; the budget is {LIBCURL_BUDGET}",
        judged.name
    );
}
