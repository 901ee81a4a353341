//! As much of Markdown as the documents use.

use std::collections::BTreeSet;

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut prose = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            prose.push((number, line));
        }
    }
    prose
}

/// The cells of a table's row.
pub fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The cells below the head `head` in every table that has it, with their lines' numbers.
pub fn column(text: &str, head: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut place = None; // in the table that the line belongs to
    let mut in_table = false;
    for (number, line) in prose(text) {
        let Some(row) = cells(line) else {
            in_table = false;
            continue;
        };
        if !in_table {
            in_table = true;
            place = row.iter().position(|cell| cell == head);
        } else if let Some(place) = place
            && !row[0].starts_with("---")
        {
            found.push((number, row.get(place).cloned().unwrap_or_default()));
        }
    }
    found
}

/// The links and images that lead into the project, with their lines' numbers.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            if !target.contains("://") {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// What a link may name behind `#`: each heading in small letters, words joined by hyphens.
pub fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    let slug = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(|(_, line)| slug(line.trim_start_matches('#').trim())).collect()
}
