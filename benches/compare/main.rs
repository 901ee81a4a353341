//! Compares sophon-uplink with what a user would use instead, and with the limit: `scripts/bench`, which builds the peers.
//!
//! ```text
//!  recognizer (here) ──ring, or files and a line──▶ contender ──HTTP or HTTPS──▶ sink (a process) ──arrivals──▶ here
//!     the other cores                               a core of its own                the other cores
//! ```
//!
//! All contenders of a comparison run at the same time. They are measured in turn, round by round: a lasting disturbance affects
//! all of them. Ratios are computed within a round. Fails if the CPU time or the latency of an event of 200 KB over HTTP exceeds
//! its budget.
//!
//! | file | contents |
//! | --- | --- |
//! | [`compare`], [`report`] | rounds in turn, and their table |
//! | [`latency`] | thousands of paced events, for a meaningful 99th percentile |
//! | [`drain`] | a backlog that drains beside live events |
//! | [`growth`], [`plot`] | how cost grows, as plots |
//! | [`contender`], [`limit`], `../peers` | the contenders |
//! | [`source`], [`sink`], [`tls`] | the source and the server of the events |
//! | [`measure`] | clocks, memory, cores, medians |
#![allow(missing_docs)]

mod compare;
mod contender;
mod drain;
mod growth;
mod latency;
mod limit;
mod measure;
mod plot;
mod report;
mod sink;
mod source;
mod tls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use contender::UPLINK;
use drain::Drains;
use growth::Field;
use measure::Cores;
use report::CPU_BUDGET;

const ROUNDS: usize = 9;

/// The options of the command line.
pub struct Options {
    /// A quick check: few events, 200 KB, HTTP, only sophon-uplink and the limit.
    is_quick: bool,
    /// Also writes the table and the plots into docs/.
    writes_docs: bool,
    /// The folder with the peers' programs.
    peers: Option<PathBuf>,
    /// Another build of sophon-uplink, as a further contender.
    against: Option<PathBuf>,
    /// The measured build.
    uplink: PathBuf,
    /// Rounds of each contender at saturation.
    rounds: usize,
    /// The parts to measure: the table, latencies, the drain, the plots, or all.
    parts: Vec<String>,
    /// Sizes of pictures, in KB.
    sizes: Vec<usize>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        // The child processes of this program.
        ["--sink", delay, certificates] => {
            let delay = Duration::from_millis(delay.parse().expect("milliseconds"));
            sink::serve(Path::new(certificates), delay).expect("loopback has ports");
            ExitCode::SUCCESS
        }
        ["--limit", url, length, ca] => {
            limit::run(url, length.parse().expect("bytes"), Path::new(ca)).expect("the sink is there");
            ExitCode::SUCCESS
        }
        _ => match options(&arguments) {
            Ok(options) => run(&options),
            Err(why) => {
                eprintln!("{why}; see scripts/bench --help");
                ExitCode::from(2)
            }
        },
    }
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        is_quick: false,
        writes_docs: false,
        peers: None,
        against: None,
        uplink: env!("CARGO_BIN_EXE_sophon-uplink").into(),
        rounds: ROUNDS,
        parts: Vec::new(),
        sizes: Vec::new(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: &String| text.parse().map_err(|_| format!("{argument} needs a number, not {text}"));
        match argument.as_str() {
            "--quick" => (options.is_quick, options.rounds) = (true, 15),
            "--write-docs" => options.writes_docs = true,
            "--peers" => options.peers = Some(value()?.into()),
            "--against" => options.against = Some(value()?.into()),
            "--uplink" => options.uplink = value()?.into(),
            "--rounds" => options.rounds = number(value()?)?,
            "--size" => options.sizes.push(number(value()?)?),
            part @ ("table" | "latency" | "drain" | "plots") => options.parts.push(part.into()),
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> ExitCode {
    let machine = format!(
        "{}, {}.",
        measure::machine(),
        if cfg!(debug_assertions) { "a debug build" } else { "optimised builds" }
    );
    println!("{machine}");
    let cores = Cores::divide();
    let certificates = tempfile::tempdir().expect("a temporary folder");
    tls::write_certificates(certificates.path());
    let wants = |part: &str| options.parts.is_empty() || options.parts.iter().any(|wanted| wanted == part);
    let sizes = match &options.sizes[..] {
        [] if options.is_quick => &[200],
        [] => &compare::SIZES[..],
        sizes => sizes,
    };
    let mut rows = Vec::new();
    for (is_tls, size) in [false, true].into_iter().flat_map(|is_tls| sizes.iter().map(move |size| (is_tls, *size))) {
        if wants("table") && !(options.is_quick && is_tls) {
            println!("measuring events of {size} KB over {}", if is_tls { "HTTPS" } else { "HTTP" });
            rows.extend(compare::compare(options, &cores, certificates.path(), size, is_tls));
        }
    }
    let latency = (wants("latency") && !options.is_quick).then(|| {
        println!("measuring latencies");
        latency::measure(options, &cores, certificates.path())
    });
    let drains = (wants("drain") && !options.is_quick).then(|| {
        println!("measuring how a backlog drains");
        Drains::measure(options, &cores, certificates.path())
    });
    let plots = if wants("plots") && !options.is_quick {
        Field { options, cores: &cores, certificates: certificates.path() }.all()
    } else {
        Vec::new()
    };
    let mut texts = Vec::new();
    if !rows.is_empty() {
        texts.push(("table", format!("{machine} HTTPS is TLS 1.3 with {}.\n\n{}", tls::CIPHER, report::table(&rows))));
    }
    if let Some(latency) = &latency {
        texts.push(("latency", format!("{machine}\n\n{}", latency.table())));
    }
    if let Some(drains) = &drains {
        texts.push(("drain", format!("{machine}\n\n{}", drains.table())));
    }
    texts.iter().for_each(|(_, text)| println!("\n{text}"));
    println!("{}", report::points(&plots));
    if let Err(error) = write(options, &texts, &plots) {
        eprintln!("the results cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    let judged = [judge(&rows), latency.map(|latency| latency.judge()), drains.map(|drains| drains.judge())];
    judged.iter().flatten().for_each(|(said, _)| println!("{said}"));
    if judged.iter().flatten().all(|(_, is_held)| *is_held) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes the results that were measured, and only these, to their places in docs/.
fn write(options: &Options, texts: &[(&str, String)], plots: &[growth::Plot]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !options.writes_docs {
        return report::write_plots(&folder.join("target/plots"), plots);
    }
    let docs = folder.join("docs");
    texts.iter().try_for_each(|(part, text)| report::write_docs(&docs, part, text))?;
    report::write_plots(&docs.join("plots"), plots)
}

/// Whether the budget of CPU time is met; none if the figures for it were not measured.
fn judge(rows: &[compare::Row]) -> Option<(String, bool)> {
    let is_it = |row: &&compare::Row| row.size == 200 && !row.is_tls && row.name == UPLINK;
    let uplink = rows.iter().find(is_it)?.figures.as_ref().ok()?;
    let is_held = uplink.cpu_ratio.median() <= CPU_BUDGET;
    let said = format!(
        "CPU of an event of 200 KB over HTTP against the limit: {}, budget {CPU_BUDGET}: {}",
        report::ratio(&uplink.cpu_ratio).replace('*', ""),
        if is_held { "held" } else { "NOT HELD" }
    );
    Some((said, is_held))
}
