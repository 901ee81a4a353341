//! The published figures: the table in docs/benchmarks.md, read and written.

use std::fmt::Write as _;

use super::counter::{Counts, PARTS};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md");
/// The lines of the page between which a table stands.
pub type Marks = [&'static str; 2];
const MARKS: Marks = ["<!-- written by UPDATE_FIGURES=yes scripts/test instructions -->\n", "<!-- until here -->\n"];

/// What is compared: a part with a figure of its own to keep, and all together.
const COMPARED: [&str; 2] = ["encoder", "together"];

/// Behind the rows: another compiler makes other code, which is nobody's fault here.
const COMPILED_BY: &str = "Compiled by ";
/// What a figure may exceed the published one by, under the same compiler and under another one.
const TOLERANCE: [f64; 2] = [0.02, 0.1];

/// Rows of figures, in the order of `columns`.
#[derive(Debug, PartialEq)]
pub struct Table {
    compiler: String,
    rows: Vec<(String, Vec<u64>)>,
}

pub fn together(counts: &Counts) -> u64 {
    counts.values().sum()
}

fn columns() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|(part, _)| *part).chain(["together"])
}

impl Table {
    /// To be filled with what is measured now.
    pub fn new() -> Table {
        let version = std::process::Command::new("rustc").arg("--version").output().expect("rustc is there").stdout;
        let compiler = String::from_utf8(version).expect("ASCII").trim().to_owned();
        Table { compiler, rows: Vec::new() }
    }

    pub fn add(&mut self, name: &str, counts: Counts) {
        let parts = PARTS.iter().map(|(part, _)| counts.get(part).copied().unwrap_or_default());
        self.rows.push((name.to_owned(), parts.chain([together(&counts)]).collect()));
    }

    /// As Markdown.
    pub fn text(&self) -> String {
        let mut text = format!("| event |{}\n", columns().map(|name| format!(" {name} |")).collect::<String>());
        text += &format!("| --- |{}\n", " ---: |".repeat(columns().count()));
        for (name, figures) in &self.rows {
            let _ = writeln!(
                text,
                "| {name} |{}",
                figures.iter().map(|figure| format!(" {} |", grouped(*figure))).collect::<String>()
            );
        }
        let _ = writeln!(text, "\n{COMPILED_BY}{}.", self.compiler);
        text
    }

    /// The other way round.
    fn of_text(text: &str) -> Table {
        let cells =
            |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let row = |line: &str| {
            let cells = cells(line);
            let figures = cells[1..].iter().map(|figure| figure.replace(',', "").parse().expect("a figure")).collect();
            (cells[0].clone(), figures)
        };
        let compiler = text.lines().find_map(|line| line.strip_prefix(COMPILED_BY)?.strip_suffix('.'));
        Table {
            compiler: compiler.expect("the table says what compiled it").to_owned(),
            rows: text.lines().filter(|line| line.starts_with('|')).skip(2).map(row).collect(),
        }
    }

    /// What docs/benchmarks.md says.
    pub fn published() -> Table {
        let page = std::fs::read_to_string(PAGE).unwrap();
        Table::of_text(parts_of(&page, MARKS)[1])
    }

    /// Writes it into docs/benchmarks.md.
    pub fn publish(&self) {
        write(MARKS, &self.text());
    }

    /// What is more than `published` by more than is tolerated, in words. What is less by as much is only printed: it is no
    /// fault, but a published figure should be true.
    pub fn compare(&self, published: &Table) -> Vec<String> {
        assert_eq!(names(self), names(published), "docs/benchmarks.md has other rows");
        let is_same = self.compiler == published.compiler;
        let tolerance = TOLERANCE[usize::from(!is_same)];
        if !is_same {
            println!(
                "{} here, {} published: {:.0} % are tolerated",
                self.compiler,
                published.compiler,
                tolerance * 100.0
            );
        }
        let mut exceeded = Vec::new();
        for ((name, ours), (_, theirs)) in self.rows.iter().zip(&published.rows) {
            let figures = columns().zip(ours.iter().zip(theirs));
            for (column, (ours, theirs)) in figures.filter(|(column, _)| COMPARED.contains(column)) {
                let more = *ours as f64 / *theirs as f64 - 1.0;
                let words = format!(
                    "{name}, {column}: {} instead of {} ({:+.1} %)",
                    grouped(*ours),
                    grouped(*theirs),
                    more * 100.0
                );
                if more > tolerance {
                    exceeded.push(words);
                } else if more < -tolerance {
                    println!(
                        "better than published: {words}; to publish it: UPDATE_FIGURES=yes scripts/test instructions"
                    );
                }
            }
        }
        exceeded
    }
}

fn names(table: &Table) -> Vec<&String> {
    table.rows.iter().map(|(name, _)| name).collect()
}

/// Writes `text` between the marks in docs/benchmarks.md.
pub fn write(marks: Marks, text: &str) {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let [before, _, after] = parts_of(&page, marks);
    std::fs::write(PAGE, format!("{before}{text}{after}")).unwrap();
}

/// The page before the table, the table, and what comes after it.
fn parts_of(page: &str, [first, last]: Marks) -> [&str; 3] {
    let begin = page.find(first).expect("docs/benchmarks.md has the table's first mark") + first.len();
    let end = begin + page[begin..].find(last).expect("docs/benchmarks.md has the table's last mark");
    [&page[..begin], &page[begin..end], &page[end..]]
}

/// With commas between the thousands.
pub fn grouped(figure: u64) -> String {
    let digits = figure.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
