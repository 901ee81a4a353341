//! The same events by libcurl (`benches/peers/libcurl.c`) on the same processor, and the table of both.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::common::{picture, wait_until};
use super::counter::Counter;
use super::sink::Sink;
use super::table::{Marks, grouped, together};
use super::{SIZES, of_an_event};

pub const MARKS: Marks = ["<!-- scripts/bench instructions writes from here -->\n", "<!-- to here -->\n"];

/// libcurl's program for the box's processor.
pub struct Peer {
    program: PathBuf,
    /// Where its libraries are.
    root: PathBuf,
    plugin: PathBuf,
}

/// Instructions of an event: all, and those without base64.
pub struct Row {
    pub name: String,
    pub ours: [u64; 2],
    pub theirs: [u64; 2],
}

impl Peer {
    pub fn new(program: PathBuf, root: PathBuf, plugin: PathBuf) -> Peer {
        Peer { program, root, plugin }
    }

    /// As it says it itself.
    pub fn version(&self) -> String {
        let mut command = std::process::Command::new("qemu-aarch64");
        let output = command.arg("-L").arg(&self.root).arg(&self.program).arg("--version").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(", ").replace('/', " ")
    }

    /// Instructions of an event, over HTTP and HTTPS, for each size. The `mode` is the program's: nothing, or "encoded".
    pub fn measure(&self, mode: &str) -> Vec<u64> {
        [false, true].into_iter().flat_map(|tls| self.measure_over(tls, mode)).collect()
    }

    fn measure_over(&self, tls: bool, mode: &str) -> Vec<u64> {
        let folder = tempfile::tempdir().unwrap();
        let counter = Counter::of_unknown(&self.plugin, folder.path());
        let sink = Sink::start(tls, folder.path());
        let mut command = counter.command(&self.program);
        command
            .env("QEMU_LD_PREFIX", &self.root)
            .arg(sink.url())
            .arg(sink.ca_file.as_deref().unwrap_or(Path::new("none")));
        let mut peer = command.args((!mode.is_empty()).then_some(mode)).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = peer.stdin.take().unwrap();
        let measured = SIZES.map(|(name, [reg, spot])| {
            let line = line(folder.path(), mode, [picture(reg, 1), picture(spot, 2)]);
            let mut send = || {
                let before = sink.answered();
                input.write_all(line.as_bytes()).unwrap();
                wait_until("the answer", || sink.answered() > before);
            };
            send(); // only a program that runs can be at rest
            together(&of_an_event(&format!("libcurl {mode} {name}"), &counter, send))
        });
        drop(input);
        assert!(peer.wait().unwrap().success());
        measured.into()
    }
}

/// Writes the pictures into files; the line that names them.
fn line(folder: &Path, mode: &str, pictures: [Vec<u8>; 2]) -> String {
    let names = ["reg_pic", "spot_pic"].map(|name| folder.join(name).display().to_string());
    for (name, picture) in names.iter().zip(pictures) {
        let content = if mode.is_empty() { picture } else { BASE64_STANDARD.encode(picture).into() };
        std::fs::write(name, content).unwrap();
    }
    names.join(" ") + "\n"
}

/// As Markdown.
pub fn text(version: &str, rows: &[Row]) -> String {
    let mut text = format!("| event | sophon-uplink | {version} | ratio | both without base64 | | ratio |\n");
    text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for Row { name, ours, theirs } in rows {
        let _ = write!(text, "| {name} |");
        for of in 0..2 {
            let ratio = ours[of] as f64 / theirs[of] as f64;
            let _ = write!(text, " {} | {} | **{ratio:.2}** |", grouped(ours[of]), grouped(theirs[of]));
        }
        text.push('\n');
    }
    text
}
