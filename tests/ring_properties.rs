//! The promise: whatever is published comes out, byte for byte and in order, for any sizes and any interleaving.

mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use sophon_uplink::event::Event;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::mapping::{Mapping, PictureSource};
use sophon_uplink::ring::producer::{NewEvent, Producer, PublishError};
use sophon_uplink::ring::{Memory, Word, consumer};

#[derive(Clone, Debug)]
enum Step {
    /// Lengths of the identity, ext_json, reg_pic and spot_pic.
    Publish([usize; 4]),
    Read,
    /// Release everything read so far.
    Release,
    /// A new producer goes on from the words in the header.
    Successor,
}

fn steps(capacity: usize) -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![Just(0), 1..40usize, 0..capacity / 4];
    let publish = [length.clone(), length.clone(), length.clone(), length].prop_map(Step::Publish);
    let step = prop_oneof![6 => publish, 5 => Just(Step::Read), 3 => Just(Step::Release), 1 => Just(Step::Successor)];
    prop::collection::vec(step, 1..200)
}

fn bytes(length: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    (0..length).map(|_| random.u8(b' '..b'~')).collect()
}

struct Published {
    sequence: u64,
    identity: Vec<u8>,
    reg_pic: Vec<u8>,
    spot_pic: Vec<u8>,
}

fn lent(memory: &Mapping, range: std::ops::Range<usize>) -> Vec<u8> {
    let mut copy = Vec::new();
    memory.lend(range, &mut |bytes| copy.extend_from_slice(bytes)).unwrap();
    copy
}

fn used(memory: &Mapping) -> usize {
    memory.load(Word::Head, Ordering::Relaxed).wrapping_sub(memory.load(Word::Tail, Ordering::Relaxed)) as usize
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::count("SOPHON_PROPTEST_CASES", 300) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_published_is_read_byte_for_byte_and_in_order(
        steps in steps(4096),
        // the positions wrap around u64 in some runs
        start in prop_oneof![Just(0u64), Just(u64::MAX - 4095 - 8 * 100), any::<u64>()],
        seed in any::<u64>(),
    ) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let memory = Arc::new(Mapping::on_heap(4096));
        memory.store(Word::Head, start & !7, Ordering::Relaxed);
        memory.store(Word::Tail, start & !7, Ordering::Relaxed);
        let mut producer = Producer::attach(Arc::clone(&memory));
        let (mut reader, mut releaser, corrupt) = consumer::attach(Arc::clone(&memory));
        prop_assert!(corrupt.is_none());
        let mut expected: VecDeque<Published> = VecDeque::new();
        let mut read_and_kept: VecDeque<(Published, Event)> = VecDeque::new();
        let mut unreleased = (None, 0);
        let (mut dropped, mut sequence) = (0, 0);
        for step in steps {
            match step {
                Step::Publish([identity, ext, reg, spot]) => {
                    let [identity, ext, reg_pic, spot_pic] = [identity, ext, reg, spot].map(|length| bytes(length, random));
                    let event = NewEvent {
                        identity_id: &identity, ext_json: &ext, reg_pic: &reg_pic, spot_pic: &spot_pic,
                        device_type: -1, score: 0.5, ..NewEvent::default()
                    };
                    match producer.publish(&event) {
                        Ok(given) => {
                            sequence += 1;
                            prop_assert_eq!(given, sequence);
                            expected.push_back(Published { sequence, identity, reg_pic, spot_pic });
                        }
                        Err(PublishError::TooLarge) => prop_assert!(event.record_len() > 2048),
                        Err(PublishError::Full) => {
                            dropped += 1;
                            // Padding is less than what did not fit.
                            prop_assert!(used(&memory) + 2 * event.record_len() > 4096);
                        }
                    }
                }
                Step::Read => match reader.read().unwrap() {
                    None => prop_assert!(expected.is_empty()),
                    Some(frame) => {
                        let published = expected.pop_front().expect("no more than was published");
                        let event = Event::from_record(&memory, &frame, RingId([0; 16])).unwrap();
                        unreleased = (Some(frame.end), unreleased.1 + 1);
                        read_and_kept.push_back((published, event));
                    }
                },
                Step::Release => {
                    // Everything kept must still be there, whatever was published since it was read.
                    for (published, event) in read_and_kept.drain(..) {
                        prop_assert_eq!(event.id.sequence, published.sequence);
                        prop_assert_eq!(event.identity_id.as_bytes(), &published.identity[..]);
                        prop_assert_eq!(lent(&memory, event.reg_pic), published.reg_pic);
                        prop_assert_eq!(lent(&memory, event.spot_pic), published.spot_pic);
                    }
                    if let (Some(end), events) = std::mem::take(&mut unreleased) {
                        releaser.release(end, events);
                    }
                }
                Step::Successor => producer = Producer::attach(Arc::clone(&memory)),
            }
        }
        prop_assert_eq!(producer.dropped(), dropped);
        prop_assert_eq!(memory.load(Word::Resyncs, Ordering::Relaxed), 0);
    }

    #[test]
    fn any_bytes_in_the_ring_are_records_or_corruption_and_never_a_panic(
        noise in prop::collection::vec(any::<u8>(), 512),
        head in prop_oneof![any::<u64>(), 0..600u64, (0..64u64).prop_map(|n| n * 8)],
        tail in prop_oneof![any::<u64>(), 0..600u64, (0..64u64).prop_map(|n| n * 8)],
        seed in any::<u64>(),
    ) {
        let random = &mut fastrand::Rng::with_seed(seed);
        let memory = Arc::new(Mapping::on_heap(512));
        for (index, word) in noise.chunks(8).enumerate() {
            let mut word = u64::from_le_bytes(word.try_into().unwrap());
            if random.u8(..) < 160 {
                // something like a record's or a section's first word
                word = u64::from(random.u32(0..20) * 8) | u64::from(random.u32(0..4)) << 32;
            }
            memory.set_word(index * 8, word);
        }
        memory.store(Word::Head, head, Ordering::Relaxed);
        memory.store(Word::Tail, tail, Ordering::Relaxed);
        let (mut reader, _, _) = consumer::attach(Arc::clone(&memory));
        // Each read makes progress: there cannot be more records than words.
        for _ in 0..70 {
            match reader.read() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    prop_assert!(frame.offset + frame.header.length as usize <= 512);
                    if let Ok(event) = Event::from_record(&memory, &frame, RingId([0; 16])) {
                        lent(&memory, event.reg_pic);
                        lent(&memory, event.spot_pic);
                    }
                }
                Err(corrupt) => prop_assert!(!corrupt.reason.is_empty()),
            }
        }
        prop_assert!(matches!(reader.read(), Ok(None)), "the reader comes to an end");
    }
}
