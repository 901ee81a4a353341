//! What a document names as evidence: `` `place`: the test's name as a sentence ``, or a command of `scripts/`; several are
//! separated by semicolons.
//!
//! A place is a file from the project's root, or one of `tests/` without its `.rs`: `outage`, or `spool/damage` for a module of
//! the program `spool`. A folder of the same name belongs to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{files, read, root};

#[derive(Debug)]
pub enum Evidence {
    Test { place: String, name: String },
    Script { script: String, word: Option<String> },
}

impl Evidence {
    /// Everything that a cell names, or why it names nothing.
    pub fn parse_all(cell: &str) -> Result<Vec<Self>, String> {
        cell.split("; ").map(Self::parse).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is neither `place`: a test's name nor a command of `scripts/`");
        let (quoted, rest) = text.strip_prefix('`').and_then(|text| text.split_once('`')).ok_or_else(expected)?;
        match rest.strip_prefix(": ") {
            Some(sentence) => Ok(Self::Test { place: quoted.to_owned(), name: identifier(sentence) }),
            None if rest.is_empty() && quoted.starts_with("scripts/") => {
                let (script, word) =
                    quoted.split_once(' ').map_or((quoted, None), |(script, word)| (script, Some(word.to_owned())));
                Ok(Self::Script { script: script.to_owned(), word })
            }
            None => Err(expected()),
        }
    }

    /// Where it is, in the document's words.
    pub fn place(&self) -> String {
        match self {
            Self::Test { place, .. } => place.clone(),
            Self::Script { script, word } => {
                word.iter().fold(script.clone(), |script, word| format!("{script} {word}"))
            }
        }
    }

    /// Why it is no evidence.
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::Test { place, name } => {
                let tests = tests_of(place);
                (!tests.contains(name)).then(|| match tests.len() {
                    0 => format!("{place} is no file with tests"),
                    _ => format!("{place} has no test {name}"),
                })
            }
            Self::Script { script, word } if root().join(script).is_file() => {
                let word = word.as_ref()?;
                (!words_of(script).contains(word)).then(|| format!("{script} does not know {word}"))
            }
            Self::Script { script, .. } => Some(format!("there is no {script}")),
        }
    }
}

/// A sentence as the name of a function.
fn identifier(sentence: &str) -> String {
    let words = sentence.replace('\'', "").to_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

fn tests_of(place: &str) -> BTreeSet<String> {
    let paths = match place.contains('.') {
        true => vec![place.into()],
        false => {
            let mut paths = files(&format!("tests/{place}"), "rs");
            paths.push(format!("tests/{place}.rs").into());
            paths
        }
    };
    let paths = paths.into_iter().filter(|path| root().join(path).is_file());
    let of = |path: PathBuf| {
        let text = read(path.to_str().unwrap());
        if path.extension().is_some_and(|extension| extension == "py") {
            python_tests(&text)
        } else {
            rust_tests(&text)
        }
    };
    paths.flat_map(of).collect()
}

/// The places of `tests/` that have tests.
pub fn places_with_tests() -> BTreeSet<String> {
    let is_module = |path: &PathBuf| path.parent().is_some_and(|folder| root().join(folder).join("main.rs").is_file());
    let is_place = |path: &PathBuf| path.parent() == Some(Path::new("tests")) || is_module(path);
    let places = files("tests", "rs").into_iter().filter(is_place);
    let places = places.map(|path| path.with_extension("").strip_prefix("tests").unwrap().to_str().unwrap().to_owned());
    places.filter(|place| !tests_of(place).is_empty()).collect()
}

/// The functions below an attribute that makes them tests.
fn rust_tests(text: &str) -> Vec<String> {
    let (mut tests, mut marked) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next().unwrap();
            tests.extend(std::mem::take(&mut marked).then(|| name.to_owned()));
        }
    }
    tests
}

fn python_tests(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("def test_"));
    names.map(|rest| rest.split('(').next().unwrap().to_owned()).collect()
}

/// What a script lists as its first argument, a line each: `    "word   what it does"`.
pub fn words_of(script: &str) -> BTreeSet<String> {
    let text = read(script);
    let entries = text.lines().filter_map(|line| line.strip_prefix("    \""));
    entries.filter_map(|entry| entry.split_once(' ')).map(|(word, _)| word.to_owned()).collect()
}
