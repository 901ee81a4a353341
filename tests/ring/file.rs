//! The promise: recognizer and uplink start, stop, die and are replaced in any order, and nothing that was published is lost.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::confined::of_every_thread;
use crate::common::daemon::Home;
use crate::common::{Daemon, Sink, event, picture, program, publish, wait_until};
use serde_json::{Value, json};
use sophon_uplink::picture::PictureSource;
use sophon_uplink::ring::file::{Naming, OpenError, RingFile, Side};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::ring::wake::{WaitOn, Watcher};
use sophon_uplink::ring::{Memory, Word, Words, consumer, fifo};

const RING: u64 = 1 << 20;

#[test]
fn the_uplink_may_start_first_or_last() {
    let home = Home::new();
    let sink = Sink::start();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_log("waiting: there is no ring");
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(1);
    daemon.terminate();
    publish(&mut recognizer, &event(b"", b""));
    let daemon = Daemon::restart(&home);
    assert_eq!(sink.wait(2)[1].sequence(), 2);
    daemon.terminate();
}

#[test]
fn a_ring_that_is_replaced_is_emptied_first_and_the_new_one_comes_next() {
    let home = Home::new();
    let sink = Sink::start();
    let mut first = Producer::open(&home.ring(), RING).unwrap();
    let first_id = first.id();
    let pic = picture(10_000, 1);
    (0..20).for_each(|_| assert!(first.publish(&event(&pic, b"")).is_ok()));
    // As an update of the recognizer might do. The first one's lock is free only when the second ring is there: an uplink that
    // looks in between would leave the first ring for none.
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_attached();
    fs::remove_file(home.ring()).unwrap();
    let mut second = Producer::open(&home.ring(), 2 * RING).unwrap();
    assert_ne!(second.id(), first_id);
    drop(first);
    publish(&mut second, &event(&pic, b""));
    let requests = sink.wait(21);
    daemon.wait_log("replaced by a new ring");
    let of = |id: String| requests.iter().filter(|request| request.id().starts_with(&id)).count();
    assert_eq!((of(first_id.to_string()), of(second.id().to_string())), (20, 1));
    assert_eq!(daemon.terminate().acknowledged, 21);
}

#[test]
fn a_replaced_ring_with_more_events_than_may_be_in_flight_is_still_emptied() {
    const EVENTS: usize = 300; // more than the ledger's window
    let home = Home::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(); // closed again at once
    let mut first = Producer::open(&home.ring(), RING).unwrap();
    (0..EVENTS).for_each(|_| assert!(first.publish(&event(b"", b"")).is_ok()));
    let daemon = Daemon::start(&home, &[format!("http://{address}/")], json!({}));
    daemon.wait_log("Connection refused");
    drop(first);
    fs::remove_file(home.ring()).unwrap();
    let mut second = Producer::open(&home.ring(), RING).unwrap();
    publish(&mut second, &event(b"", b""));
    let sink = Sink::on(TcpListener::bind(address).unwrap(), |_, _| crate::common::sink::OK);
    let second_id = second.id().to_string();
    sink.wait_for("every event of both rings", |requests| {
        let ids: std::collections::HashSet<_> = requests.iter().map(crate::common::Request::id).collect();
        ids.len() == EVENTS + 1 && ids.iter().any(|id| id.starts_with(&second_id))
    });
    home.wait_done();
    assert_eq!(daemon.terminate().acknowledged as usize, EVENTS + 1);
}

#[test]
fn a_second_consumer_is_refused_with_the_pid_of_the_first() {
    let home = Home::new();
    let sink = Sink::start();
    let _recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_attached();
    let (status, log) = Daemon::restart(&home).wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("in use by another consumer, process {}", daemon.pid())), "{log}");
    daemon.kill();
    let daemon = Daemon::restart(&home);
    daemon.wait_attached();
    daemon.terminate();
}

#[test]
fn a_second_producer_is_refused_until_the_first_is_gone_even_by_kill() {
    let home = Home::new();
    let recognizer = Producer::open(&home.ring(), RING).unwrap();
    match Producer::open(&home.ring(), RING) {
        Err(OpenError::Busy { side: "producer", pid, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    drop(recognizer);
    let mut child = Command::new(program("fake-recognizer"))
        .args(["--rate", "1", "--ring"])
        .arg(home.ring())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    crate::common::wait_until("the other recognizer", || {
        RingState::of(&home.ring()).unwrap().producer == Some(child.id())
            && RingState::of(&home.ring()).unwrap().published > 0
    });
    assert!(matches!(Producer::open(&home.ring(), RING), Err(OpenError::Busy { pid, .. }) if pid == child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    let before = RingState::of(&home.ring()).unwrap();
    let mut successor = Producer::open(&home.ring(), RING).unwrap();
    assert_eq!(successor.id().to_string(), before.id);
    assert_eq!(successor.publish(&event(b"", b"")), Ok(before.published + 1));
}

#[test]
fn what_is_at_the_path_is_taken_over_replaced_or_set_aside_and_never_destroyed() {
    let folder = crate::common::shm();
    let path = folder.path().join("ring");
    let open = |capacity| Producer::open(&path, capacity);
    let mut producer = open(RING).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096 + RING);
    let id = producer.id();
    producer.publish(&event(b"", b"")).unwrap();
    drop(producer);
    assert_eq!(open(2 * RING).unwrap().id(), id, "not empty: taken over as it is");
    let file = RingFile::open_consumer(&path).unwrap();
    let (mut reader, mut releaser, _) = consumer::attach(&file);
    let frame = reader.read().unwrap().unwrap();
    releaser.release(frame.end, 1);
    let bigger = open(2 * RING).unwrap();
    assert_ne!(bigger.id(), id, "empty and of another size: replaced");
    assert_eq!(file.naming(&path), Naming::Another);
    drop((bigger, file));

    for damage in [
        |bytes: &mut Vec<u8>| bytes[0] = b'x',
        |bytes: &mut Vec<u8>| bytes[8] = 3,
        |bytes: &mut Vec<u8>| bytes[0x12] ^= 1,
        |bytes: &mut Vec<u8>| bytes[0x80] = 4,
        |bytes: &mut Vec<u8>| bytes[0x100] = 8,
        |bytes: &mut Vec<u8>| bytes.truncate(4096 + 100_000),
        |bytes: &mut Vec<u8>| bytes.clear(),
    ] {
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        drop(open(RING).unwrap());
        assert!(fs::read(folder.path().join("ring.bad")).unwrap() == bytes);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(open(RING), Err(OpenError::NotARing { .. })));
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink(folder.path().join("ring.bad"), &path).unwrap();
    assert!(matches!(open(RING), Err(OpenError::NotARing { .. })));
    assert!(matches!(open(RING + 8), Err(OpenError::NotARing { .. })));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "the ring, its FIFO, what was set aside, and no temporary file: {names:?}");
}

#[test]
fn a_file_that_is_no_ring_is_named_and_waited_out() {
    let home = Home::new();
    fs::write(home.ring(), vec![7; 4096 + 65536]).unwrap();
    let sink = Sink::start();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_log("is not a usable ring");
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(1);
    daemon.terminate();
}

#[test]
fn a_corrupt_ring_is_counted_and_the_next_good_event_still_arrives() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 16).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(1);
    let ring = recognizer.memory();
    let good = ring.load(Word::Head, std::sync::atomic::Ordering::Relaxed);
    // Positions that make no sense, each healed by the producer itself.
    for head in [good + 8, good + 4, good.wrapping_sub(8), good + (1 << 20), u64::MAX] {
        let before = RingState::of(&home.ring()).unwrap().resyncs;
        recognizer.memory().store(Word::Head, head, std::sync::atomic::Ordering::Release);
        recognizer.memory().futex_wake();
        crate::common::wait_until("the corruption noticed", || RingState::of(&home.ring()).unwrap().resyncs > before);
        let arrived = sink.received().len();
        // It may take a few events until both agree again; what is refused or skipped meanwhile is what corruption costs.
        crate::common::wait_until("a good event", || {
            let _ = recognizer.publish(&event(b"", b""));
            sink.received().len() > arrived
        });
    }
    // A tail that makes no sense is written anew by the consumer, though it has nothing to release.
    crate::common::wait_until("everything released", || RingState::of(&home.ring()).unwrap().used == 0);
    recognizer.memory().store(Word::Tail, u64::MAX - 3, std::sync::atomic::Ordering::Relaxed);
    let arrived = sink.received().len();
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(arrived + 1);
    let stopped = daemon.terminate();
    assert!(stopped.corrupt >= 5, "{stopped:?}");
    assert!(stopped.log.contains("the ring is corrupt"));
}

#[test]
fn a_file_truncated_under_an_upload_kills_nobody_and_sends_no_false_picture() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut recognizer = Producer::open(&home.ring(), 64 << 20).unwrap();
    let daemon = Daemon::start(&home, &[format!("http://{}/", listener.local_addr().unwrap())], json!({}));
    publish(&mut recognizer, &event(&picture(24 << 20, 1), b""));
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    OpenOptions::new().write(true).open(home.ring()).unwrap().set_len(8192).unwrap();
    let mut rest = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        rest += count;
    }
    assert!(rest < 32 << 20, "the request broke off");
    daemon.wait_log("was truncated under it");
    daemon.wait_log("truncated: waiting for a new one");
    // What is left is no ring: the next recognizer sets it aside, and goes on.
    drop(recognizer);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    assert!(home.folder.path().join("events.bad").exists());
    publish(&mut recognizer, &event(b"", b""));
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\"ext_data\":{}}") {
        let count = stream.read(&mut buffer).unwrap();
        head.extend_from_slice(&buffer[..count]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.lost, stopped.acknowledged), (1, 1));
}

#[test]
fn a_watcher_that_ends_leaves_the_ring_to_whoever_waits_next() {
    let folder = crate::common::shm();
    let path = folder.path().join("events");
    let _recognizer = Producer::open(&path, RING).unwrap();
    let file = Arc::new(RingFile::open_consumer(&path).unwrap());
    for _ in 0..20 {
        let watcher = Watcher::start(Arc::clone(&file), Arc::default()).unwrap();
        wait_until("it waits", || file.load(Word::Waiting, Ordering::Relaxed) == WaitOn::Futex as u64);
        drop(watcher);
        file.store(Word::Waiting, WaitOn::Fifo as u64, Ordering::Relaxed);
        wait_until("it has ended", || {
            file.futex_wake(); // it may have been about to sleep
            Arc::strong_count(&file) == 1
        });
        assert_eq!(file.load(Word::Waiting, Ordering::Relaxed), WaitOn::Fifo as u64);
        file.store(Word::Waiting, 0, Ordering::Relaxed);
    }
}

#[test]
fn a_mapping_whose_file_shrinks_reads_as_zeros_and_says_so() {
    let folder = crate::common::shm();
    let path = folder.path().join("ring");
    let mut producer = Producer::open(&path, RING).unwrap();
    producer.publish(&event(&picture(100_000, 1), b"")).unwrap();
    let ring = RingFile::open_consumer(&path).unwrap();
    assert!(!ring.lost());
    OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let lent = ring.lend(0..100_000, &mut |bytes| assert!(bytes.iter().all(|byte| *byte == 0)));
    assert!(lent.is_err() && ring.lost());
}

#[test]
fn the_ring_command_shows_the_state_and_disturbs_nothing() {
    let home = Home::new();
    let mut recognizer = Producer::open(&home.ring(), 1 << 16).unwrap();
    let pic = picture(20_000, 1);
    assert_eq!((0..4).filter(|_| recognizer.publish(&event(&pic, b"")).is_ok()).count(), 3);
    let before = fs::read(home.ring()).unwrap();
    let ring = |more: &[&str]| {
        let output = Command::new(program("sophon-uplink")).arg("ring").arg(home.ring()).args(more).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let state: Value = serde_json::from_str(&ring(&["--json"])).unwrap();
    assert_eq!(state["id"], recognizer.id().to_string());
    let numbers = ["capacity", "published", "consumed", "dropped"].map(|name| state[name].as_u64().unwrap());
    assert_eq!(numbers, [65536, 3, 0, 1]);
    assert!(state["used"].as_u64().unwrap() > 60_000);
    assert_eq!((&state["producer"], &state["consumer"]), (&json!(std::process::id()), &Value::Null));
    let text = ring(&[]);
    assert!(text.contains("published  3") && text.contains("consumer   none"), "{text}");
    assert!(before == fs::read(home.ring()).unwrap());
    assert_eq!(RingFile::open_inspect(&home.ring()).unwrap().holder(Side::Consumer), None);
    let missing = Command::new(program("sophon-uplink")).args(["ring", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no ring at /nowhere"));
}

/// A recognizer with the header of before, which has the pid of the one before it, as in a container: it writes to no FIFO.
struct OfBefore(RingFile);

impl Words for OfBefore {
    fn word(&self, offset: usize) -> u64 {
        self.0.word(offset)
    }
}

impl Memory for OfBefore {
    fn capacity(&self) -> u64 {
        self.0.capacity()
    }
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.0.load(word, order)
    }
    fn store(&self, word: Word, value: u64, order: Ordering) {
        self.0.store(word, value, order);
    }
    fn fence(&self) {
        self.0.fence();
    }
    fn set_word(&self, offset: usize, value: u64) {
        self.0.set_word(offset, value);
    }
    fn futex_wait(&self, expected: u32, timeout: Duration) {
        self.0.futex_wait(expected, timeout);
    }
    fn futex_wake(&self) {
        self.0.futex_wake();
    }
    fn fifo_wake(&self) {
        self.futex_wake();
    }
}

/// Until the uplink sleeps on it, and whether it has a thread for that.
fn sleeps_on(home: &Home, daemon: &Daemon, on: WaitOn) -> bool {
    let ring = RingFile::open_inspect(&home.ring()).unwrap();
    wait_until("the sleep", || ring.load(Word::Waiting, Ordering::Relaxed) == on as u64);
    of_every_thread(daemon.pid(), "Name").iter().any(|name| name == "ring-watcher")
}

#[test]
fn the_event_loop_itself_sleeps_on_the_fifo_of_a_recognizer_that_has_one() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    daemon.wait_attached();
    for number in 1..=3 {
        assert!(!sleeps_on(&home, &daemon, WaitOn::Fifo), "it needs no thread");
        publish(&mut recognizer, &event(b"", b""));
        sink.wait(number);
    }
    // Nothing but the name was its recognizer's: the next one goes on with it.
    drop(recognizer);
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(4);
    daemon.terminate();
}

#[test]
fn without_a_fifo_a_thread_sleeps_on_the_futex_and_another_recognizer_changes_that() {
    let home = Home::new();
    let sink = Sink::start();
    fs::write(fifo::path_of(&home.ring()), "somebody's").unwrap();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    assert!(sleeps_on(&home, &daemon, WaitOn::Futex));
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(1);
    drop(recognizer);
    assert_eq!(fs::read(fifo::path_of(&home.ring())).unwrap(), b"somebody's");
    fs::remove_file(fifo::path_of(&home.ring())).unwrap();
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    sleeps_on(&home, &daemon, WaitOn::Fifo);
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(2);
    // And back: this one does not say that it writes to a FIFO.
    recognizer.memory().store(Word::FifoPid, 0, Ordering::Relaxed);
    assert!(sleeps_on(&home, &daemon, WaitOn::Futex));
    publish(&mut recognizer, &event(b"", b""));
    sink.wait(3);
    daemon.terminate();
}

#[test]
fn a_recognizer_that_writes_to_no_fifo_though_its_ring_says_so_is_heard_all_the_same() {
    let home = Home::new();
    let sink = Sink::start();
    let memory = OfBefore(RingFile::open_producer(&home.ring(), RING).unwrap());
    let mut recognizer = Producer::attach(memory);
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let waiting = |memory: &OfBefore| memory.load(Word::Waiting, Ordering::Relaxed);
    let mut published = 0;
    // Each is found by a look, or by chance; after two looks that found one it is not believed to write.
    wait_until("the thread", || {
        wait_until("a sleep", || waiting(recognizer.memory()) != 0);
        published += 1;
        recognizer.publish(&event(b"", b"")).unwrap();
        sink.wait(published);
        waiting(recognizer.memory()) == WaitOn::Futex as u64
    });
    assert!(sleeps_on(&home, &daemon, WaitOn::Futex));
    assert!(published >= 2, "once is chance");
    daemon.terminate();
}
