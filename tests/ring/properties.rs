//! The promise: whatever is published comes out, byte for byte and in order, for any sizes and any interleaving.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disturbed::{CAPACITY, Story, check};
use crate::restless::{Place, Write};
use proptest::prelude::*;
use sophon_uplink::event::{Event, Malformed};
use sophon_uplink::picture::PictureSource;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::mapping::Mapping;
use sophon_uplink::ring::producer::{NewEvent, NewPicture, Producer, PublishError};
use sophon_uplink::ring::{Memory, Word, consumer};

#[derive(Clone, Debug)]
enum Step {
    /// Lengths of the identity, ext_json, reg_pic and spot_pic, and of each named picture.
    Publish([usize; 4], Vec<usize>),
    Read,
    /// Release everything read so far.
    Release,
    /// A new producer goes on from the words in the header.
    Successor,
}

fn steps(capacity: usize) -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![Just(0), 1..40usize, 0..capacity / 4];
    let named = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..capacity / 40, 1..=16)];
    let publish = ([length.clone(), length.clone(), length.clone(), length], named)
        .prop_map(|(lengths, named)| Step::Publish(lengths, named));
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
    /// Those that are not empty.
    named: Vec<Vec<u8>>,
}

fn lent(memory: &Mapping, range: std::ops::Range<usize>) -> Vec<u8> {
    let mut copy = Vec::new();
    memory.lend(range, &mut |bytes| copy.extend_from_slice(bytes)).unwrap();
    copy
}

fn used(memory: &Mapping) -> usize {
    memory.load(Word::Head, Ordering::Relaxed).wrapping_sub(memory.load(Word::Tail, Ordering::Relaxed)) as usize
}

/// A ring of 512 bytes with an event of 80 bytes at its beginning (header, a section of 25 bytes), published by hand.
fn ring_with_a_record() -> Arc<Mapping> {
    let memory = Arc::new(Mapping::on_heap(512));
    let picture = [7; 25];
    let event = NewEvent { reg_pic: &picture, device_type: -1, ..NewEvent::default() };
    assert_eq!(event.record_len(), 80);
    Producer::attach(Arc::clone(&memory)).publish(&event).unwrap();
    memory
}

const fn two(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[test]
fn a_record_that_breaks_a_rule_of_the_frame_makes_the_ring_corrupt() {
    // (what, head, position of the record, its length, its kind)
    for (what, head, at, length, kind) in [
        ("longer than what is published", 80, 0, 88, 1),
        ("not a multiple of 8", 80, 0, 76, 1),
        ("shorter than its header", 80, 0, 32, 1),
        ("empty", 80, 0, 0, 1),
        ("longer than half the ring", 512, 0, 264, 1),
        ("across the end", 560, 432, 88, 1),
        ("of an unknown kind", 80, 0, 80, 3),
        ("padding that ends before the end", 512, 0, 504, 2),
        ("padding beyond what is published", 504, 432, 80, 2),
        ("empty padding", 80, 0, 0, 2),
        ("an endless record", 80, 0, u32::MAX, 1),
    ] {
        let memory = ring_with_a_record();
        memory.store(Word::Head, head, Ordering::Relaxed);
        memory.store(Word::Tail, at, Ordering::Relaxed);
        memory.set_word(at as usize, two(length, kind));
        let (mut reader, _, corrupt) = consumer::attach(Arc::clone(&memory));
        assert!(corrupt.is_none());
        let corrupt = reader.read().expect_err(what);
        assert_eq!((corrupt.position, corrupt.resume), (at, head), "{what}");
        assert_eq!(reader.read(), Ok(None), "{what}");
        assert_eq!(memory.load(Word::Resyncs, Ordering::Relaxed), 1);
    }
}

#[test]
fn a_record_that_breaks_a_rule_inside_is_malformed_and_the_next_one_is_read() {
    let reg_pic = 40;
    for (what, at, word) in [
        ("a section that overruns the record", reg_pic, two(7, 33)),
        ("a section that overruns by far", reg_pic, two(7, u32::MAX)),
        ("a section that ends early, and another that overruns", reg_pic, two(7, 1)),
        ("an unknown section that overruns", reg_pic, two(99, 40)),
        ("a score that is not a number", 24, two(f32::NAN.to_bits(), 0)),
        ("an unknown person_type", 24, two(0, 6)),
        ("an unknown device_type", 32, two(5, 0)),
    ] {
        let memory = ring_with_a_record();
        Producer::attach(Arc::clone(&memory)).publish(&NewEvent::default()).unwrap();
        memory.set_word(at, word);
        let (mut reader, _, _) = consumer::attach(Arc::clone(&memory));
        let frame = reader.read().unwrap().unwrap();
        assert!(Event::from_record(&memory, &frame, RingId([0; 16])).is_err(), "{what}");
        let frame = reader.read().unwrap().unwrap();
        assert_eq!(Event::from_record(&memory, &frame, RingId([0; 16])).unwrap().id.sequence, 2);
    }
    // Two sections of one kind; an unknown one and a filler are skipped.
    for (kind, good) in [(7, false), (99, true), (0, true)] {
        let memory = ring_with_a_record();
        memory.set_word(reg_pic, two(7, 8));
        memory.set_word(reg_pic + 16, two(kind, 16));
        let frame = consumer::attach(Arc::clone(&memory)).0.read().unwrap().unwrap();
        assert_eq!(Event::from_record(&memory, &frame, RingId([0; 16])).is_ok(), good, "{kind}");
    }
}

/// What no header of ours writes: names without a picture's right to them, pictures without a name.
#[test]
fn named_pictures_that_the_header_would_have_refused_are_malformed() {
    let at_top = |name: &'static [u8]| NewPicture { place: 0, name, jpeg: b"jpeg" };
    let good = at_top(b"face");
    let seventeen: Vec<Vec<u8>> = (0..17).map(|number| format!("n{number}").into_bytes()).collect();
    let many: Vec<_> = seventeen.iter().map(|name| NewPicture { place: 1, name, jpeg: b"" }).collect();
    let below = |name: &'static [u8]| NewPicture { place: 1, ..at_top(name) };
    for (what, pictures) in [
        ("a quote", vec![at_top(b"a\"b")]),
        ("no name", vec![at_top(b"")]),
        ("a line's end", vec![good, at_top(b"a\r\nb")]),
        ("65 bytes", vec![at_top(&[b'a'; 65])]),
        ("not ASCII", vec![at_top("é".as_bytes())]),
        ("a documented key", vec![at_top(b"ext_data")]),
        ("a documented key of ext_data", vec![below(b"spot_pic")]),
        ("twice", vec![good, below(b"face"), good]),
        ("an unknown place", vec![NewPicture { place: 2, ..good }]),
        ("seventeen", many.clone()),
    ] {
        let event = NewEvent { pictures: &pictures, device_type: -1, ..NewEvent::default() };
        assert!(read_back(&event, &[]).is_err(), "{what}");
    }
    let pictures = [good, below(b"face"), below(b"reg_pic"), at_top(b"spot_pic")];
    let event = NewEvent { pictures: &pictures, device_type: -1, ..NewEvent::default() };
    let read = read_back(&event, &[]).unwrap();
    let named: Vec<_> = read.pictures.iter().map(|named| (named.place.code(), named.name.as_str())).collect();
    assert_eq!(named, [(0, "face"), (1, "face"), (1, "reg_pic"), (0, "spot_pic")]);
    let sixteen = NewEvent { pictures: &many[..16], device_type: -1, ..NewEvent::default() };
    assert!(read_back(&sixteen, &[]).unwrap().pictures.is_empty(), "names of pictures that the encoder did not make");

    // The names' section begins at 40 with 10, 4 + 2 bytes, the picture's follows.
    let one = [good];
    let event = NewEvent { pictures: &one, device_type: -1, ..NewEvent::default() };
    for (what, at, word) in [
        ("a name longer than its section", 48, u64::from_le_bytes(*b"\0\x05face\0\0")),
        ("half a name", 40, two(10, 5)),
        ("one byte", 40, two(10, 1)),
        ("names that are longer than all may be", 40, two(99, 6)),
        ("a picture of a name that is not there", 56, two(17, 4)),
    ] {
        assert!(read_back(&event, &[(at, word)]).is_err(), "{what}");
    }
    assert!(read_back(&event, &[(56, two(99, 4))]).unwrap().pictures.is_empty(), "an unknown kind is skipped");
}

/// The event as the uplink reads it, after somebody wrote words into its record.
fn read_back(event: &NewEvent<'_>, words: &[(usize, u64)]) -> Result<Event, Malformed> {
    let memory = Arc::new(Mapping::on_heap((2 * event.record_len()).next_power_of_two()));
    Producer::attach(Arc::clone(&memory)).publish(event).unwrap();
    words.iter().for_each(|(at, word)| memory.set_word(*at, *word));
    let frame = consumer::attach(Arc::clone(&memory)).0.read().unwrap().unwrap();
    Event::from_record(&memory, &frame, RingId([0; 16]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::common::count("SOPHON_PROPTEST_CASES", 300) as u32, failure_persistence: None, ..ProptestConfig::default() })]

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
                Step::Publish([identity, ext, reg, spot], named) => {
                    let [identity, ext, reg_pic, spot_pic] = [identity, ext, reg, spot].map(|length| bytes(length, random));
                    let named: Vec<_> = named.into_iter().map(|length| bytes(length, random)).collect();
                    let names: Vec<_> = (0..named.len()).map(|number| format!("n{number}").into_bytes()).collect();
                    let pictures: Vec<_> =
                        names.iter().zip(&named).map(|(name, jpeg)| NewPicture { place: 1, name, jpeg }).collect();
                    let event = NewEvent {
                        identity_id: &identity, ext_json: &ext, reg_pic: &reg_pic, spot_pic: &spot_pic,
                        pictures: &pictures, device_type: -1, score: 0.5, ..NewEvent::default()
                    };
                    match producer.publish(&event) {
                        Ok(given) => {
                            sequence += 1;
                            prop_assert_eq!(given, sequence);
                            let named = named.into_iter().filter(|jpeg| !jpeg.is_empty()).collect();
                            expected.push_back(Published { sequence, identity, reg_pic, spot_pic, named });
                        }
                        Err(PublishError::TooLarge) => prop_assert!(event.record_len() > 2048),
                        Err(PublishError::Full) => {
                            dropped += 1;
                            // Padding is less than what did not fit.
                            prop_assert!(used(&memory) + 2 * event.record_len() > 4096);
                        }
                        Err(PublishError::NotUnderstood) => prop_assert!(false, "heap memory has no consumer of ABI 1"),
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
                        let named: Vec<_> = event.pictures.into_iter().map(|named| lent(&memory, named.range)).collect();
                        prop_assert_eq!(named, published.named);
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

fn write() -> impl Strategy<Value = Write> {
    let place = prop_oneof![
        2 => prop::sample::select(Word::ALL.to_vec()).prop_map(Place::Header),
        5 => (0..CAPACITY / 8).prop_map(|word| Place::Data(word * 8)),
    ];
    // Lengths, kinds and positions that may be right, most of the time.
    let likely = (0..130u32, 0..10u32).prop_map(|(words, kind)| u64::from(words * 8) | u64::from(kind) << 32);
    let word = prop_oneof![4 => likely.clone(), 2 => likely.prop_map(|word| word.rotate_left(32)), 1 => any::<u64>()];
    (0..60u8, place, prop::collection::vec(word, 1..8)).prop_map(|(after, place, words)| Write { after, place, words })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::common::count("SOPHON_PROPTEST_CASES", 500) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_that_changes_between_any_two_reads_costs_its_events_and_nothing_else(
        start in prop_oneof![0..2000u64, any::<u64>()],
        events in 0..8u8,
        writes in prop::collection::vec(write(), 0..12),
    ) {
        check(Story { start, events, writes });
    }
}

/// Found by fuzzing: the producer saw a full ring, the consumer an empty one, and each waited for the other.
#[test]
fn a_full_ring_whose_head_was_overwritten_heals() {
    let memory = Arc::new(Mapping::on_heap(512));
    let mut producer = Producer::attach(Arc::clone(&memory));
    let event = NewEvent { reg_pic: &[7; 180], device_type: -1, ..NewEvent::default() };
    while producer.publish(&event).is_ok() {}
    let [head, publications] = [Word::Head, Word::Publications].map(|word| memory.load(word, Ordering::Relaxed));
    memory.store(Word::Head, 0, Ordering::Relaxed);
    let seen = |producer: &mut Producer<_>| {
        assert_eq!(producer.publish(&event), Err(PublishError::Full));
        [Word::Head, Word::Publications].map(|word| memory.load(word, Ordering::Relaxed))
    };
    assert_eq!(seen(&mut producer), [head, publications + 1]);
    assert_eq!(seen(&mut producer), [head, publications + 1], "it is merely full: nobody is woken");
}

#[test]
fn a_record_whose_first_words_change_at_any_moment_is_what_was_checked() {
    for after in 0..80 {
        for word in
            [two(2000, 1), two(u32::MAX, 1), two(0, 1), two(48, 1), two(76, 1), two(1024, 2), two(7, 4000), two(7, 9)]
        {
            for offset in [0, 40, 56] {
                let write = Write { after, place: Place::Data(offset), words: vec![word] };
                check(Story { start: 0, events: 2, writes: vec![write] });
            }
        }
    }
}
