//! The promise: what the documents name is there. Every promise, threat and seeded bug names tests that exist; `unsafe` stands in
//! the files listed and in no other; links lead somewhere; the README is short and leads to every page; the two languages of a page
//! have the same headings, code, tables and links.

#[path = "documentation/evidence.rs"]
mod evidence;
#[path = "documentation/markdown.rs"]
mod markdown;
#[path = "documentation/twins.rs"]
mod twins;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use evidence::Evidence;
use markdown::{anchors, column, links};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below `folder` whose name ends in `extension`, from the project's root; without what builds leave.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() && !["target", "dist", ".git", "node_modules", "venv"].iter().any(|built| name == *built) {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The page in Chinese that belongs to a page in English.
fn in_chinese(page: &Path) -> PathBuf {
    page.with_extension("zh-CN.md")
}

fn is_in_chinese(page: &Path) -> bool {
    page.to_str().unwrap().ends_with(".zh-CN.md")
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What is wrong with the column `head` of the document's tables, and what the column names.
fn evidence_of(document: &str, head: &str) -> (Vec<String>, Vec<Evidence>) {
    let cells = column(&read(document), head);
    assert!(!cells.is_empty(), "{document} has no table with a column {head:?}");
    let (mut faults, mut evidence) = (Vec::new(), Vec::new());
    for (line, cell) in cells {
        match Evidence::parse_all(&cell) {
            Ok(named) => {
                faults.extend(
                    named.iter().filter_map(Evidence::fault).map(|fault| format!("{document}:{line}: {fault}")),
                );
                evidence.extend(named);
            }
            Err(fault) => faults.push(format!("{document}:{line}: {fault}")),
        }
    }
    (faults, evidence)
}

#[test]
fn every_promise_and_number_names_what_enforces_it() {
    assert_none(&evidence_of("docs/specification.md", "enforced by").0);
}

#[test]
fn every_answer_to_a_threat_names_the_test_that_shows_it() {
    assert_none(&evidence_of("docs/security.md", "shown by").0);
}

#[test]
fn every_seeded_bug_names_the_test_that_fails() {
    assert_none(&evidence_of("docs/design.md", "the test that fails").0);
}

/// A promise that nobody wrote down is kept by accident.
#[test]
fn every_file_of_tests_and_every_campaign_stands_in_the_specification() {
    let (_, evidence) = evidence_of("docs/specification.md", "enforced by");
    let named: BTreeSet<String> = evidence.iter().map(Evidence::place).collect();
    let tests = evidence::places_with_tests().into_iter().filter(|place| place != "documentation");
    let campaigns = evidence::words_of("scripts/soak").into_iter().map(|campaign| format!("scripts/soak {campaign}"));
    let missing: Vec<_> = tests.chain(campaigns).filter(|name| !named.contains(name)).collect();
    assert_none(
        &missing.iter().map(|name| format!("docs/specification.md has no row that names `{name}`")).collect::<Vec<_>>(),
    );
}

#[test]
fn unsafe_stands_in_the_files_that_are_listed_and_in_no_other() {
    let listed: BTreeSet<_> =
        column(&read("docs/security.md"), "unsafe in").into_iter().map(|(_, cell)| cell.replace('`', "")).collect();
    let has_unsafe = |path: &str| {
        let text = read(path);
        let mut code = text.lines().map(|line| line.split("//").next().unwrap());
        code.any(|line| ["allow(unsafe_code)", "unsafe ", "unsafe("].iter().any(|mark| line.contains(mark)))
    };
    let all = ["src", "tests", "benches", "fuzz"].into_iter().flat_map(|folder| files(folder, "rs"));
    let all = all.map(|path| path.into_os_string().into_string().unwrap());
    let found: BTreeSet<_> = all.filter(|path| !path.starts_with("tests/documentation") && has_unsafe(path)).collect();
    assert_eq!(listed, found, "listed in docs/security.md, and found");
}

#[test]
fn a_file_makes_system_calls_by_one_crate_or_says_why_by_two() {
    let (security, manifest) = (read("docs/security.md"), read("Cargo.toml"));
    for (_, name) in column(&security, "crate").into_iter().filter(|(_, cell)| !cell.contains('`')) {
        let lines: Vec<_> = manifest.lines().take_while(|line| !line.starts_with("[dev-dependencies]")).collect();
        let at = lines.iter().position(|line| line.starts_with(&format!("{name} = ")));
        let at = at.unwrap_or_else(|| panic!("{name} is no dependency"));
        assert!(lines[at - 1].starts_with("# "), "Cargo.toml says nothing of {name}");
    }
    let cells = column(&security, "file with two of them").into_iter();
    let listed: BTreeSet<_> = cells.map(|(_, cell)| cell.replace('`', "")).collect();
    let crates = |path: &str| {
        let text = read(path);
        let code: String = text.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect();
        let is_name = |at: usize| !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        let uses = |name: &&str| code.match_indices(&format!("{name}::")).any(|(at, _)| is_name(at));
        ["nix", "rustix", "socket2"].into_iter().filter(uses).count()
    };
    let all = files("src", "rs").into_iter().map(|path| path.into_os_string().into_string().unwrap());
    let found: BTreeSet<_> = all.filter(|path| crates(path) > 1).collect();
    assert_eq!(listed, found, "listed in docs/security.md, and found");
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_that_are_there() {
    let mut faults = Vec::new();
    for document in files("", "md") {
        for (line, target) in links(&read(document.to_str().unwrap())) {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let there = root().join(&path);
            if !there.exists() {
                faults.push(format!("{}:{line}: there is no {target}", document.display()));
            } else if !anchor.is_empty() && !anchors(&std::fs::read_to_string(there).unwrap()).contains(anchor) {
                faults.push(format!("{}:{line}: {target} is no heading there", document.display()));
            }
        }
    }
    assert_none(&faults);
}

/// A newcomer reads it in some minutes, and finds the page that is for them.
#[test]
fn the_readme_is_short_and_leads_to_every_page() {
    let mut faults = Vec::new();
    for readme in ["README.md", "README.zh-CN.md"] {
        let text = read(readme);
        let lines = text.lines().count();
        if lines > 90 {
            faults.push(format!("{readme} has {lines} lines, more than 90"));
        }
        let targets: BTreeSet<_> = links(&text).into_iter().map(|(_, target)| PathBuf::from(target)).collect();
        for page in files("docs", "md").into_iter().filter(|page| !is_in_chinese(page)) {
            let chinese = in_chinese(&page);
            let page = if is_in_chinese(Path::new(readme)) && root().join(&chinese).exists() { chinese } else { page };
            if !targets.contains(&page) {
                faults.push(format!("{readme} does not lead to {}", page.display()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn both_languages_of_a_page_have_the_same_headings_code_tables_and_links() {
    let readers =
        ["README", "docs/install", "docs/integrators", "docs/operators", "docs/receivers", "docs/recognizers"];
    let mut pages: BTreeSet<_> = readers.map(|page| PathBuf::from(format!("{page}.md"))).into();
    let chinese = files("", "md").into_iter().filter(|page| is_in_chinese(page));
    pages.extend(chinese.map(|page| PathBuf::from(page.to_str().unwrap().replace(".zh-CN.md", ".md"))));
    let mut faults = Vec::new();
    for page in pages {
        let chinese = in_chinese(&page);
        let [english, chinese_text] = [&page, &chinese].map(|page| read(page.to_str().unwrap()));
        let [one, other] = [&english, &chinese_text].map(|text| twins::frame(text));
        assert!(!one.is_empty(), "{}", page.display());
        if let Some(((here, one), (there, other))) = one.iter().zip(&other).find(|(one, other)| one.1 != other.1) {
            let (page, chinese) = (page.display(), chinese.display());
            faults.push(format!("{page}:{here} has {one}, {chinese}:{there} has {other}"));
        } else if one.len() != other.len() {
            faults.push(format!("{} and {} do not end with the same", page.display(), chinese.display()));
        }
        let [one, other] = [&english, &chinese_text].map(|text| twins::targets(text));
        let apart: Vec<_> = one.symmetric_difference(&other).collect();
        if !apart.is_empty() {
            faults.push(format!("only one of {} and {} leads to {apart:?}", page.display(), chinese.display()));
        }
    }
    assert_none(&faults);
}
