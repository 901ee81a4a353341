//! The publication protocol and the wake-up under every interleaving and every reordering that the memory model allows: loom
//! runs the very code of `ring::producer`, `ring::consumer` and `ring::wake` over a model of memory.
//!
//! The data area is made of loom's `UnsafeCell`s, so that a record read before its publication, or overwritten before its
//! release, is a race that loom reports. Neither the futex nor the FIFO has a timeout here: a lost wake-up is a deadlock that loom reports.

use std::sync::atomic::Ordering;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use sophon_uplink::ring::layout::{ALIGN, EVENT_HEADER};
use sophon_uplink::ring::producer::{NewEvent, Producer};
use sophon_uplink::ring::wake::{self, WaitOn};
use sophon_uplink::ring::{Memory, Word, Words, consumer};

const CAPACITY: usize = 128;

struct Model {
    words: Vec<AtomicU64>,
    data: Vec<UnsafeCell<u64>>,
    futex: Mutex<()>,
    woken: Condvar,
    /// Bytes in the FIFO.
    fifo: Mutex<u32>,
    byte_came: Condvar,
}

// SAFETY: the point of the model: loom checks every access to the cells.
#[allow(unsafe_code)]
unsafe impl Sync for Model {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Send for Model {}

impl Model {
    /// A ring whose positions stand at `start`.
    fn at(start: u64) -> Arc<Model> {
        let model = Model {
            words: Word::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            data: (0..CAPACITY / ALIGN).map(|_| UnsafeCell::new(0)).collect(),
            futex: Mutex::new(()),
            woken: Condvar::new(),
            fifo: Mutex::new(0),
            byte_came: Condvar::new(),
        };
        model.store(Word::Head, start, Ordering::Relaxed);
        model.store(Word::Tail, start, Ordering::Relaxed);
        Arc::new(model)
    }

    fn index(word: Word) -> usize {
        Word::ALL.iter().position(|known| *known == word).unwrap()
    }
}

impl Words for Model {
    fn word(&self, offset: usize) -> u64 {
        // SAFETY: loom panics if somebody writes the cell at the same time.
        #[allow(unsafe_code)]
        self.data[offset / ALIGN].with(|word| unsafe { *word })
    }
}

impl Memory for Model {
    fn capacity(&self) -> u64 {
        CAPACITY as u64
    }
    fn load(&self, word: Word, order: Ordering) -> u64 {
        self.words[Model::index(word)].load(order)
    }
    fn store(&self, word: Word, value: u64, order: Ordering) {
        self.words[Model::index(word)].store(value, order);
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
    fn set_word(&self, offset: usize, value: u64) {
        // SAFETY: loom panics if somebody else reaches the cell at the same time.
        #[allow(unsafe_code)]
        self.data[offset / ALIGN].with_mut(|word| unsafe { *word = value });
    }
    /// As the kernel: compared and put to sleep under one lock, without the bound that the real one has.
    fn futex_wait(&self, expected: u32, _: Duration) {
        let guard = self.futex.lock().unwrap();
        if self.load(Word::Publications, Ordering::Relaxed) as u32 == expected {
            drop(self.woken.wait(guard).unwrap());
        }
    }
    fn futex_wake(&self) {
        let _guard = self.futex.lock().unwrap();
        self.woken.notify_all();
    }
    fn fifo_wake(&self) {
        *self.fifo.lock().unwrap() += 1;
        self.byte_came.notify_all();
    }
}

fn event(score: f32) -> NewEvent<'static> {
    NewEvent { score, ..NewEvent::default() }
}

/// Reads the next event, sleeping as the watcher and the reader do together, or as the event loop does.
fn next(memory: &Arc<Model>, reader: &mut consumer::Reader<Arc<Model>>, on: WaitOn) -> consumer::Frame {
    loop {
        let seen = wake::publications(memory);
        if let Some(frame) = reader.read().unwrap() {
            return frame;
        }
        match on {
            WaitOn::Futex => assert!(wake::sleep(memory, seen, wake::WAIT_BOUND, || false)),
            WaitOn::Fifo => sleep_on_fifo(memory, seen),
        }
    }
}

/// As `Fifo::published`: until a byte is there, and then all are read.
fn sleep_on_fifo(memory: &Arc<Model>, seen: u32) {
    if wake::prepare_to_wait(memory, WaitOn::Fifo, seen) {
        let mut bytes = memory.fifo.lock().unwrap();
        while *bytes == 0 {
            bytes = memory.byte_came.wait(bytes).unwrap();
        }
        *bytes = 0;
    }
    wake::finish_wait(memory);
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

fn no_wake_up_is_lost(on: WaitOn) {
    model(move || {
        let memory = Model::at(0);
        let shared = Arc::clone(&memory);
        let publishing = thread::spawn(move || {
            let mut producer = Producer::attach(shared);
            assert_eq!(producer.publish(&event(1.0)), Ok(1));
            // With a member at the top level: the ring becomes one of ABI 2 meanwhile.
            assert_eq!(producer.publish(&NewEvent { top_json: b"{}", ..event(2.0) }), Ok(2));
        });
        let (mut reader, _, _) = consumer::attach(Arc::clone(&memory));
        for expected in [1.0, 2.0] {
            assert_eq!(next(&memory, &mut reader, on).header.score, expected);
        }
        publishing.join().unwrap();
    });
}

#[test]
fn no_event_is_seen_before_it_is_complete_and_no_wake_up_is_lost() {
    no_wake_up_is_lost(WaitOn::Futex);
}

#[test]
fn no_wake_up_of_an_event_loop_is_lost() {
    no_wake_up_is_lost(WaitOn::Fifo);
}

#[test]
fn room_is_not_written_before_it_is_released_across_the_wrap() {
    model(|| {
        // Two events fit before the end, the third needs padding and the room of the first.
        let start = (CAPACITY - 2 * EVENT_HEADER - ALIGN) as u64;
        let memory = Model::at(start);
        let mut producer = Producer::attach(Arc::clone(&memory));
        (1..=2).for_each(|score| assert!(producer.publish(&event(score as f32)).is_ok()));
        let (mut reader, mut releaser, _) = consumer::attach(Arc::clone(&memory));
        let publishing = thread::spawn(move || {
            let mut producer = producer;
            (producer.publish(&event(3.0)).is_ok(), producer.publish(&event(4.0)).is_ok())
        });
        for expected in [1.0, 2.0] {
            let frame = reader.read().unwrap().unwrap();
            assert_eq!(frame.header.score, expected);
            releaser.release(frame.end, 1);
        }
        let published = publishing.join().unwrap();
        let mut got = Vec::new();
        while let Some(frame) = reader.read().unwrap() {
            got.push(frame.header.score);
        }
        let expected = [(published.0, 3.0), (published.1, 4.0)];
        assert_eq!(got, expected.iter().filter(|(done, _)| *done).map(|(_, score)| *score).collect::<Vec<_>>());
    });
}
