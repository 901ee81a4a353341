//! The promise: a recognizer in C99 or C++11 that includes `include/sophon_ring.h` feeds the uplink.
//!
//! The programs of tests/c are compiled here, with the compilers that integrators use; what cannot be compiled is a failure.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::common::daemon::Home;
use crate::common::{Daemon, Sink, picture};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;

/// A program of tests/c, driven line by line (the commands are in tests/c/producer.c).
struct Recognizer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Recognizer {
    fn start(language: Language) -> Recognizer {
        let mut child = Command::new(language.program()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Recognizer { child, input, output }
    }

    /// With the ring of `home` open.
    fn on(language: Language, home: &Home, capacity: u64) -> Recognizer {
        let mut recognizer = Recognizer::start(language);
        recognizer.ok(&format!("open {} {capacity}", home.ring().display()));
        recognizer
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    #[track_caller]
    fn ok(&mut self, command: &str) -> String {
        let answer = self.ask(command);
        let rest = answer.strip_prefix("ok").unwrap_or_else(|| panic!("{command}: {answer}"));
        rest.trim_start().to_owned()
    }
}

impl Drop for Recognizer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The recognizer's language, and the header that it was compiled with: today's, or that of ABI 1, which is kept in tests/c/abi1.
#[derive(Clone, Copy, Debug)]
enum Language {
    C,
    Cpp,
    CAbi1,
    CppAbi1,
}

const LANGUAGES: [Language; 4] = [Language::C, Language::Cpp, Language::CAbi1, Language::CppAbi1];
/// Those with today's header.
const NEWEST: [Language; 2] = [Language::C, Language::Cpp];

impl Language {
    /// Compiled without a warning: once, for all tests and their processes, from these sources and with these flags.
    fn program(self) -> PathBuf {
        const FLAGS: [&str; 5] = ["-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];
        let (compiler, standard, source) = match self {
            Language::C | Language::CAbi1 => ("gcc", "-std=c99", "producer.c"),
            Language::Cpp | Language::CppAbi1 => ("g++", "-std=c++11", "producer.cpp"),
        };
        let header = match self {
            Language::C | Language::Cpp => "../../include/sophon_ring.h",
            Language::CAbi1 | Language::CppAbi1 => "abi1/sophon_ring.h",
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
        let mut made_of = Sha256::new_with_prefix(format!("{compiler} {standard} {FLAGS:?} {header}"));
        [source, header].iter().for_each(|file| made_of.update(std::fs::read(folder.join(file)).unwrap()));
        let made_of = format!("{:x}", made_of.finalize());
        let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (program, new) = (built.join(format!("{self:?}.{}", &made_of[..16])), built.join("new"));
        let one_at_a_time = File::create(built.join("compiling")).unwrap();
        one_at_a_time.lock().unwrap();
        if !program.exists() {
            let mut command = Command::new(compiler);
            command.arg(format!("-DSOPHON_RING_HEADER=\"{header}\"")).arg(standard).args(FLAGS);
            let compiled = command.arg("-o").args([&new, &folder.join(source)]).status();
            assert!(compiled.unwrap_or_else(|error| panic!("{compiler}: {error}; apt-get install gcc g++")).success());
            std::fs::rename(new, &program).unwrap(); // whole, or not there
        }
        program
    }
}

/// `value` as the producers read it.
fn percent(value: impl AsRef<[u8]>) -> String {
    value.as_ref().iter().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn every_field_from_c_and_cpp_arrives() {
    for language in LANGUAGES {
        let home = Home::new();
        let sink = Sink::start();
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        let mut recognizer = Recognizer::on(language, &home, 1048576);
        let (reg, spot) = (picture(70_001, 1), picture(30_000, 2));
        let (reg_file, spot_file) = (home.folder.path().join("reg.jpg"), home.folder.path().join("spot.jpg"));
        std::fs::write(&reg_file, &reg).unwrap();
        std::fs::write(&spot_file, &spot).unwrap();
        let sequence = recognizer.ok(&format!(
            "publish identity_id={} identity_name={} group_name={} group_id=g device_ip=10.1.2.3 ext_json={} \
             timestamp_ms=1700000000999 score=0.625 person_type=4 device_type=0 reg_file={} spot_file={}",
            percent("00 7"),
            percent("张伟 \"x\""),
            percent(b"\xff!"),
            percent(r#"{"lane": 2}"#),
            reg_file.display(),
            spot_file.display(),
        ));
        let request = &sink.wait(1)[0];
        assert_eq!(request.id(), format!("{}-{sequence}", recognizer.ok("id")));
        let expected = json!({
            "identity_id": "00 7",
            "identity_name": "张伟 \"x\"",
            "group_name": "\u{FFFD}!",
            "reg_pic": STANDARD.encode(&reg),
            "timestamp": 1_700_000_000,
            "score": 0.625,
            "ext_data": {
                "device_ip": "10.1.2.3", "person_type": 4, "device_type": "0", "lane": 2, "spot_pic": STANDARD.encode(&spot),
            },
        });
        assert!(request.json() == expected, "{language:?}");

        // Nothing but what must be: NULL everywhere.
        recognizer.ok("publish score=0.5");
        let expected = json!({
            "identity_id": "", "identity_name": "", "group_name": "", "reg_pic": "", "timestamp": 0, "score": 0.5, "ext_data": {},
        });
        assert_eq!(sink.wait(2)[1].json(), expected);

        // The group's id stands in for its name.
        recognizer.ok("publish group_id=42 score=0.5");
        assert_eq!(sink.wait(3)[2].json()["group_name"], "42");
        home.wait_done();
        assert_eq!(daemon.terminate().acknowledged, 3);
    }
}

#[test]
fn pictures_encoded_into_the_ring_arrive_at_the_length_of_the_commit() {
    for language in LANGUAGES {
        let home = Home::new();
        let sink = Sink::start();
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        let mut recognizer = Recognizer::on(language, &home, 1048576);
        let file = home.folder.path().join("x.jpg");
        std::fs::write(&file, picture(5000, 3)).unwrap();
        for (count, (reg_len, spot_len)) in
            [(5000, 5000), (1, 5000), (0, 4999), (5000, 0), (0, 0)].into_iter().enumerate()
        {
            recognizer.ok("reserve name=R score=0.5 reg_max=9000 spot_max=70000");
            recognizer.ok(&format!("write reg_file={0} spot_file={0}", file.display()));
            recognizer.ok(&format!("commit reg_len={reg_len} spot_len={spot_len}"));
            let event = sink.wait(count + 1)[count].json();
            let decoded = |text: &serde_json::Value| STANDARD.decode(text.as_str().unwrap_or_default()).unwrap();
            assert!(decoded(&event["reg_pic"]) == picture(5000, 3)[..reg_len], "{language:?} {reg_len}");
            assert!(decoded(&event["ext_data"]["spot_pic"]) == picture(5000, 3)[..spot_len], "{language:?} {spot_len}");
        }
        // An aborted reservation was never there.
        recognizer.ok("reserve name=A score=0.5 reg_max=9000");
        recognizer.ok("abort");
        recognizer.ok("publish name=after score=0.5");
        assert_eq!(sink.wait(6)[5].json()["identity_name"], "after");
        home.wait_done();
        assert_eq!(daemon.terminate().acknowledged, 6);
    }
}

#[test]
fn a_full_ring_and_an_event_that_cannot_fit_are_said_and_counted() {
    for language in LANGUAGES {
        let home = Home::new();
        let mut recognizer = Recognizer::on(language, &home, 65536);
        let file = home.folder.path().join("x.jpg");
        std::fs::write(&file, picture(30_000, 1)).unwrap();
        let publish = format!("publish name=F score=0.5 reg_file={}", file.display());
        recognizer.ok(&publish);
        recognizer.ok(&publish);
        assert_eq!(recognizer.ask(&publish), "error -28 ENOSPC");
        assert_eq!(recognizer.ask(&publish), "error -28 ENOSPC");
        std::fs::write(&file, picture(40_000, 1)).unwrap();
        assert_eq!(recognizer.ask(&publish), "error -90 EMSGSIZE");
        assert_eq!(recognizer.ok("dropped"), "2");
        assert_eq!(RingState::of(&home.ring()).unwrap().dropped, 2);
        // The uplink makes room, and the ring goes on where it stopped.
        let sink = Sink::start();
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        sink.wait(2);
        home.wait_done();
        recognizer.ok("publish name=G score=0.5");
        assert_eq!(sink.wait(3)[2].sequence(), 3);
        home.wait_done();
        daemon.terminate();
    }
}

#[test]
fn a_second_recognizer_is_refused_and_a_killed_one_is_succeeded() {
    for (first, second) in [
        (Language::C, Language::Cpp),
        (Language::Cpp, Language::C),
        (Language::CAbi1, Language::C),
        (Language::C, Language::CAbi1),
    ] {
        let home = Home::new();
        let open = format!("open {} 1048576", home.ring().display());
        let mut killed = Recognizer::start(first);
        killed.ok(&open);
        killed.ok("publish name=before score=0.5");
        let mut successor = Recognizer::start(second);
        assert_eq!(successor.ask(&open), "error -16 EBUSY");
        // Both languages of the ring see each other's lock.
        assert!(Producer::open(&home.ring(), 1 << 20).is_err());
        // In the middle of a write: half a record lies in the ring, and was never published.
        killed.ok("reserve name=half score=0.5 reg_max=100000 spot_max=100000");
        killed.ok("write_half");
        killed.child.kill().unwrap();
        killed.child.wait().unwrap();
        successor.ok(&open);
        assert_eq!(successor.ok("publish name=after score=0.5"), "2");
        let sink = Sink::start();
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        let names: Vec<_> = sink.wait(2).iter().map(|request| request.json()["identity_name"].clone()).collect();
        assert!(names.contains(&json!("before")) && names.contains(&json!("after")), "{names:?}");
        home.wait_done();
        let stopped = daemon.terminate();
        assert_eq!((stopped.acknowledged, stopped.malformed, stopped.corrupt), (2, 0, 0));
    }
}

#[test]
fn many_events_from_c_through_a_small_ring_arrive_each_once() {
    for language in LANGUAGES {
        let home = Home::new();
        let sink = Sink::start();
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        let mut recognizer = Recognizer::on(language, &home, 65536);
        let answer = recognizer.ok("many 1000 3001");
        assert!(answer.starts_with("1000 1000 "), "{answer}");
        let requests = sink.wait(1000);
        home.wait_done();
        let mut sequences: Vec<_> = requests.iter().map(crate::common::Request::sequence).collect();
        sequences.sort_unstable();
        assert_eq!(sequences, (1..=1000).collect::<Vec<_>>());
        for request in &requests {
            let (event, number) = (request.json(), request.sequence());
            assert_eq!(event["identity_id"], format!("many-{number}"));
            let byte = |j: u64| ((131 * number + 7 * j + j / 256) % 256) as u8;
            let picture: Vec<u8> = (0..3001).map(byte).collect();
            assert!(event["reg_pic"] == STANDARD.encode(&picture), "{language:?} {number}");
        }
        daemon.terminate();
    }
}

#[test]
fn a_recognizer_whose_ring_lost_its_name_makes_a_new_one_with_its_next_event() {
    for language in LANGUAGES {
        let home = Home::new();
        let sink = Sink::start();
        let daemon = Daemon::start(&home, &[sink.url()], json!({}));
        let mut recognizer = Recognizer::on(language, &home, 1048576);
        recognizer.ok("publish name=before score=0.5");
        sink.wait(1);
        // The uplink has it open: it reads that one to its end, and then the new one.
        std::fs::remove_file(home.ring()).unwrap();
        crate::common::wait_until("a new ring", || {
            recognizer.ok("publish name=while score=0.5");
            home.ring().exists()
        });
        daemon.wait_log("replaced by a new ring");
        home.wait_done();
        let read = daemon.terminate().acknowledged;
        // Nobody has it open: what is in it goes along.
        recognizer.ok("publish name=waiting score=0.5");
        std::fs::remove_file(home.ring()).unwrap();
        let daemon = Daemon::restart(&home);
        let id = recognizer.ok("id");
        let mut more = 1;
        crate::common::wait_until("the ring again", || {
            recognizer.ok("publish name=after score=0.5");
            more += 1;
            home.ring().exists()
        });
        sink.wait_for("all of them", |requests| requests.len() as u64 == read + more);
        assert_eq!(recognizer.ok("id"), id);
        home.wait_done();
        assert_eq!(daemon.terminate().acknowledged, more, "{language:?}");
    }
}

/// Sixteen pictures at both places, whose names are those of nothing else, and the words that publish them.
fn sixteen(home: &Home) -> (Vec<(bool, String, Vec<u8>)>, String) {
    let pictures: Vec<_> = (0..16usize)
        .map(|number| (number % 2 == 0, format!("picture_{number}"), picture(number * 2500 % 20_011, number as u64)))
        .collect();
    let words = pictures.iter().map(|(is_top, name, bytes)| {
        let file = home.folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        format!(" pic={}:{name}:{}", u8::from(!is_top), file.display())
    });
    let words = words.collect();
    (pictures, words)
}

/// A member to the last digit, one that a picture has the name of, and one of the documented ones.
const TOP_JSON: &str = r#"{"device_id": "9d1c", "identity_info": {"ids": [1.2300, 12345678901234567890123], "名": "é"}, "picture_2": 0, "score": 9}"#;

#[test]
fn sixteen_named_pictures_and_members_at_the_top_arrive_in_both_formats_byte_for_byte() {
    for (language, format) in NEWEST.into_iter().flat_map(|language| [(language, "json"), (language, "form-data")]) {
        let home = Home::new();
        let sink = Sink::start();
        let config = json!({"content-type": format, "top": {"device_id": "of the config", "site": "A"}});
        let daemon = Daemon::start(&home, &[sink.url()], config);
        let mut recognizer = Recognizer::on(language, &home, 1048576);
        let (pictures, words) = sixteen(&home);
        let event =
            format!("identity_id=7 score=0.5 top_json={} ext_json={}", percent(TOP_JSON), percent(r#"{"lane":2}"#));
        recognizer.ok(&format!("publish {event}{words}"));
        recognizer.ok(&format!("reserve {event}{}", words_of(&pictures, |_, bytes| (bytes.len() + 999).to_string())));
        recognizer.ok(&format!("write{words}"));
        recognizer.ok("commit");
        let (published, reserved) = (&sink.wait(2)[0], &sink.wait(2)[1]);
        for request in [published, reserved] {
            let (top, raw) = understood(request);
            let text = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            for (is_top, name, bytes) in &pictures {
                let got = if *is_top { top[name].clone() } else { top["ext_data"][name].clone() };
                assert!(text(got) == STANDARD.encode(bytes), "{language:?} {format} {name}");
            }
            assert_eq!(
                (&top["device_id"], &top["site"], &top["ext_data"]["lane"]),
                (&json!("9d1c"), &json!("A"), &json!(2))
            );
            assert_eq!(top["score"].to_string().trim_matches('"'), "0.5");
            assert!(raw.contains(r#""ids": [1.2300, 12345678901234567890123], "#), "to the last digit");
            let info = &top["identity_info"]; // of a form a text
            let info = info.as_str().map_or_else(|| info.clone(), |text| serde_json::from_str(text).unwrap());
            assert_eq!(info["名"], "é");
        }
        // The shorter reservation is the same event but for its number.
        assert_eq!(published.body.len(), reserved.body.len());
        home.wait_done();
        assert_eq!(RingState::of(&home.ring()).unwrap().abi_version, 2);
        assert!(daemon.terminate().log.contains("a member of top_json was left out"));
    }
}

/// `pic=` words with something else in place of the file.
fn words_of(pictures: &[(bool, String, Vec<u8>)], value: impl Fn(usize, &[u8]) -> String) -> String {
    let word = |(index, (is_top, name, bytes)): (usize, &(bool, String, Vec<u8>))| {
        format!(" pic={}:{name}:{}", u8::from(!is_top), value(index, bytes))
    };
    pictures.iter().enumerate().map(word).collect()
}

/// The event as a receiver of its format has it, ext_data as an object, and the text without its pictures.
fn understood(request: &crate::common::Request) -> (serde_json::Value, String) {
    let content_type = &request.headers["content-type"];
    let mut top = if content_type.starts_with("application/json") {
        request.json()
    } else {
        let mut form = crate::event_spec::parse_form(content_type, request.body.clone());
        form["ext_data"] = serde_json::from_str(form["ext_data"].as_str().unwrap()).unwrap();
        form
    };
    top["reg_pic"] = json!("");
    let text = String::from_utf8(request.body.clone()).unwrap();
    (top, text)
}

#[test]
fn sixteen_pictures_of_4_mib_go_through_without_memory_of_their_size() {
    let home = Home::new();
    let sink = Sink::start();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let mut recognizer = Recognizer::on(Language::C, &home, 256 << 20);
    recognizer.ok("publish score=0.5");
    sink.wait(1);
    home.wait_done();
    let before = daemon.rss_anon_kib();
    let large = picture(4 << 20, 7);
    let file = home.folder.path().join("large");
    std::fs::write(&file, &large).unwrap();
    let words = |number: usize| format!(" pic={}:picture_{number}:{}", number % 2, file.display());
    let words: String = (0..16).map(words).collect();
    (0..3).for_each(|_| drop(recognizer.ok(&format!("publish score=0.5{words}"))));
    let most = std::cell::Cell::new(before);
    let requests = sink.wait_for("three large events", |requests| {
        most.set(most.get().max(daemon.rss_anon_kib()));
        requests.len() == 4
    });
    for request in &requests[1..] {
        let event = request.json();
        let expected = json!(STANDARD.encode(&large));
        for number in 0..16 {
            let place = if number % 2 == 0 { &event } else { &event["ext_data"] };
            assert!(place[format!("picture_{number}")] == expected, "{number}");
        }
    }
    println!("RssAnon {before} KiB, with 3 x 64 MiB of pictures on their way {} KiB", most.get());
    assert!(most.get() < before + 2048, "{} KiB, before {before} KiB", most.get());
    home.wait_done();
    daemon.terminate();
}

/// A new recognizer that takes over what an old one left, and an old one that comes after it.
#[test]
fn a_ring_of_abi_1_becomes_one_of_abi_2_with_the_first_event_that_needs_it() {
    let home = Home::new();
    let open = format!("open {} 1048576", home.ring().display());
    let file = home.folder.path().join("face");
    std::fs::write(&file, picture(999, 1)).unwrap();
    let of_2 = format!("publish name=new score=0.5 pic=1:recognize_face:{}", file.display());
    let version = || RingState::of(&home.ring()).unwrap().abi_version;
    let mut old = Recognizer::start(Language::CAbi1);
    old.ok(&open);
    old.ok("publish name=old score=0.5");
    drop(old);
    let mut new = Recognizer::start(Language::C);
    new.ok(&open);
    new.ok("publish name=plain score=0.5");
    assert_eq!(version(), 1, "an uplink of before reads it until then");
    assert_eq!(new.ok(&of_2), "3");
    assert_eq!(version(), 2);
    drop(new);
    // One of before cannot write it; what is in it is set aside, as every ring that it does not know.
    let sink = Sink::start();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let mut names: Vec<_> = sink.wait(3).iter().map(|request| request.json()["identity_name"].to_string()).collect();
    names.sort();
    assert_eq!(names, [r#""new""#, r#""old""#, r#""plain""#]);
    home.wait_done();
    let mut old = Recognizer::start(Language::CAbi1);
    old.ok(&open);
    assert_eq!((old.ok("publish name=again score=0.5"), version()), ("1".into(), 1));
    assert_eq!(sink.wait(4)[3].json()["identity_name"], "again");
    home.wait_done();
    drop(old);
    daemon.terminate();
    // Of a version that is not known here either.
    let daemon = Daemon::restart(&home);
    daemon.wait_attached();
    daemon.terminate();
    let file = std::fs::OpenOptions::new().write(true).open(home.ring()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &3u32.to_le_bytes(), 8).unwrap();
    let daemon = Daemon::restart(&home);
    daemon.wait_log("its ABI version is 3, this program knows 1 to 2: update the older side");
    daemon.terminate();
}
