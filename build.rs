//! Compresses the box's page into its program. For the box's programs, also tells the linker to leave out the unwinding tables, a
//! tenth of the file: a panic aborts there. Rust's own linker also merges functions with identical code.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use flate2::{Compression, GzBuilder};

/// The files of the page, and the sources of each.
const PAGE: [(&str, &[&str]); 5] = [
    ("index.html", &["src/api/page/index.html"]),
    ("uplink.css", &["src/serve/house.css", "src/api/page/uplink.css"]),
    ("texts.js", &["src/api/page/texts.js"]),
    ("uplink.js", &["src/api/page/uplink.js"]),
    ("icon.svg", &["src/api/page/icon.svg"]),
];

fn main() {
    PAGE.iter().for_each(|(name, parts)| compress(name, parts));
    link();
}

/// Writes gzip without a time, so that two builds give the same bytes.
fn compress(name: &str, parts: &[&str]) {
    let folder = std::env::var("OUT_DIR").expect("cargo says where to");
    let file = File::create(Path::new(&folder).join(format!("{name}.gz"))).expect("a file of the build");
    let mut packed = GzBuilder::new().mtime(0).write(file, Compression::new(10));
    for part in parts {
        println!("cargo::rerun-if-changed={part}");
        let text = fs::read_to_string(part).expect("a file of the page");
        packed.write_all(without_comments(&text).as_bytes()).expect("room on the disk");
    }
    packed.finish().expect("room on the disk");
}

/// Leaves out what only readers of the source need: lines that are comments, and indentation. No text of the page has lines of
/// its own.
fn without_comments(text: &str) -> String {
    let is_comment = |line: &str| line.starts_with("//") || (line.starts_with("/*") && line.ends_with("*/"));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_comment(line));
    lines.fold(String::new(), |whole, line| whole + line + "\n")
}

fn link() {
    const SCRIPT: &str = "scripts/lib/box.ld";
    println!("cargo::rerun-if-changed={SCRIPT}");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Only in the release profile, where a panic aborts; cargo does not tell this script about panics.
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("PROFILE", "release") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
        println!("cargo::rustc-link-arg-bins=-T{folder}/{SCRIPT}");
        if std::env::var("RUSTC_LINKER").is_ok_and(|linker| linker.ends_with("rust-lld")) {
            println!("cargo::rustc-link-arg-bins=--icf=all");
        }
    }
}
