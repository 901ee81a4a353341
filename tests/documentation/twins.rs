//! What the two languages of a page have in common: headings, code, lists and tables in the same order, and links to the same
//! pages.

use std::collections::BTreeSet;

use crate::markdown::{cells, links};

/// The frame of a page without its words, with the lines' numbers: an entry for each heading, item of a list, row of a table and
/// line of code.
pub fn frame(text: &str) -> Vec<(usize, String)> {
    let mut language = None;
    let mut frame = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let entry = match (line.strip_prefix("```"), language) {
            (Some(_), Some(_)) => {
                language = None;
                "the end of the code".into()
            }
            (Some(begun), None) => {
                language = Some(begun);
                format!("code in {begun:?}")
            }
            (None, Some(language)) => format!("code: {}", without_comment(line, language)),
            (None, None) => match words_apart(line) {
                Some(entry) => entry,
                None => continue,
            },
        };
        frame.push((number, entry));
    }
    frame
}

fn without_comment<'a>(line: &'a str, language: &str) -> &'a str {
    let comment = match language {
        "sh" | "python" => "# ",
        "c" => "/*",
        _ => return line,
    };
    line.split(comment).next().unwrap().trim_end()
}

/// What of a line of prose is the same in every language.
fn words_apart(line: &str) -> Option<String> {
    if let Some(row) = cells(line) {
        let code: Vec<_> = row[0].split('`').skip(1).step_by(2).collect();
        return Some(format!("a row of {} cells, the first with {code:?}", row.len()));
    }
    let depth = line.chars().take_while(|c| *c == '#').count();
    if depth > 0 {
        return Some(format!("a heading of depth {depth}"));
    }
    (line.starts_with("- ") || line.starts_with("![")).then(|| format!("a line with {}", &line[..2]))
}

/// The pages, files and pictures that a page leads to, whatever their language; not where in them.
pub fn targets(text: &str) -> BTreeSet<String> {
    let pages = links(text).into_iter().map(|(_, target)| target.split('#').next().unwrap().to_owned());
    pages.map(|page| page.replace(".zh-CN.md", ".md").replace("-zh", "-en")).collect()
}
