//! Prints the results and writes them into docs/benchmarks.md.

use std::fmt::Write;
use std::io;
use std::path::Path;

use super::compare::{Row, RowFigures};
use super::growth::Plot;
use super::measure::Figures;
use super::plot;

/// Maximum ratio of [`super::contender::UPLINK`]'s CPU time to the limit's, at 200 KB over HTTP.
pub const CPU_BUDGET: f64 = 1.25;
/// End marker of a generated section in `docs/benchmarks.md`. A line with the name of the section begins it.
const END: &str = "<!-- to here -->";

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = "| pictures | who | CPU ÷ limit | wall ÷ limit | CPU, µs | wall, µs | CPU paced, µs | p50 paced, µs | p99 paced, µs | RssAnon, KiB | allocations |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for row in rows {
        let scheme = if row.is_tls { "HTTPS" } else { "HTTP" };
        let _ = write!(text, "| {} KB {scheme} | {} ", row.size, row.name);
        match &row.figures {
            Ok(figures) => text.push_str(&cells(figures)),
            Err(why) => {
                let _ = writeln!(text, "| not measured: {why} |||||||||");
            }
        }
    }
    text
}

fn cells(figures: &RowFigures) -> String {
    let allocations = figures
        .allocations
        .map_or("not counted".into(), |(count, bytes)| format!("{count:.0}, {}", bytes_in_words(bytes)));
    let paced = |value: f64| if value.is_finite() { format!("{value:.0}") } else { "–".into() };
    format!(
        "| {} | {} | {:.0} | {:.0} | {} | {} | {} | {} | {allocations} |\n",
        ratio(&figures.cpu_ratio),
        ratio(&figures.wall_ratio),
        figures.cpu_us(),
        figures.wall_us(),
        paced(figures.paced_cpu_us()),
        paced(figures.latency_us(0.5)),
        paced(figures.latency_us(0.99)),
        figures.rss_kib(),
    )
}

/// The median, and the range of the middle half of the rounds.
pub fn ratio(figures: &Figures) -> String {
    format!("**{:.2}** ({:.2}–{:.2})", figures.median(), figures.quantile(0.25), figures.quantile(0.75))
}

fn bytes_in_words(bytes: f64) -> String {
    if bytes < 100_000.0 { format!("{:.1} KB", bytes / 1e3) } else { format!("{:.1} MB", bytes / 1e6) }
}

/// Replaces the section `part` in `docs/benchmarks.md`.
///
/// # Errors
/// The file cannot be read or written, or has no such section.
pub fn write_docs(docs: &Path, part: &str, text: &str) -> io::Result<()> {
    let (page, begin) = (docs.join("benchmarks.md"), format!("<!-- scripts/bench {part} writes from here -->"));
    let old = std::fs::read_to_string(&page)?;
    let place = old.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        place.ok_or_else(|| io::Error::other(format!("{} has no lines {begin} and {END}", page.display())))?;
    std::fs::write(&page, format!("{before}{begin}\n\n{text}\n{END}{after}"))
}

/// Writes each plot as an SVG.
///
/// # Errors
/// A file cannot be written.
pub fn write_plots(folder: &Path, plots: &[Plot]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    plots.iter().try_for_each(|(name, panels)| std::fs::write(folder.join(format!("{name}.svg")), plot::svg(panels)))
}

/// The points of the plots as text.
pub fn points(plots: &[Plot]) -> String {
    let mut text = String::new();
    for (name, panels) in plots {
        for panel in panels {
            for line in &panel.lines {
                let points: Vec<_> = line.points.iter().map(|(x, y)| format!("{x} → {y:.1}")).collect();
                let _ = writeln!(
                    text,
                    "{name}, {}, {} ({}): {}",
                    panel.y.label,
                    line.name,
                    panel.x.label,
                    points.join(", ")
                );
            }
        }
    }
    text
}
