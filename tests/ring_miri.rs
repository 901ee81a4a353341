//! The ring's safe and unsafe code over heap memory: run by Miri (`scripts/test miri`), which sees every data race, every use of
//! uninitialised or foreign memory, every wrong pointer. It is an ordinary test as well.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use sophon_uplink::event::Event;
use sophon_uplink::picture::PictureSource;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::mapping::Mapping;
use sophon_uplink::ring::producer::{NewEvent, NewPicture, Producer};
use sophon_uplink::ring::{Memory, Word, Words, consumer};

fn event<'a>(name: &'a [u8], picture: &'a [u8], named: &'a [NewPicture<'a>]) -> NewEvent<'a> {
    let top_json: &[u8] = if named.is_empty() { b"" } else { b"{}" };
    let event = NewEvent { identity_name: name, reg_pic: picture, device_type: -1, score: 1.0, ..NewEvent::default() };
    NewEvent { top_json, pictures: named, ..event }
}

#[test]
fn a_producer_and_a_consumer_on_two_threads_race_for_nothing() {
    const EVENTS: u64 = 60;
    let memory = Arc::new(Mapping::on_heap(512));
    let shared = Arc::clone(&memory);
    let publishing = thread::spawn(move || {
        let mut producer = Producer::attach(shared);
        for number in 0..EVENTS {
            let picture = vec![number as u8; (number as usize * 7) % 90];
            // Every other one as ABI 2 has it.
            let named = [NewPicture { place: 1, name: b"n", jpeg: &picture[..picture.len() / 8] }];
            let named = if number % 2 == 0 { &named[..] } else { &[] };
            while !producer.has_room(&event(b"name", &picture, named)) {
                thread::yield_now();
            }
            producer.publish(&event(b"name", &picture, named)).unwrap();
        }
    });
    let (mut reader, mut releaser, _) = consumer::attach(Arc::clone(&memory));
    let mut number = 0;
    while number < EVENTS {
        let Some(frame) = reader.read().unwrap() else {
            thread::yield_now();
            continue;
        };
        let event = Event::from_record(&memory, &frame, RingId([0; 16])).unwrap();
        assert_eq!((event.id.sequence, event.identity_name.as_str()), (number + 1, "name"));
        let length = event.reg_pic.len();
        assert_eq!(length, (number as usize * 7) % 90);
        for named in event.pictures {
            assert_eq!((number % 2, named.range.len()), (0, length / 8));
            memory.lend(named.range, &mut |bytes| assert!(bytes.iter().all(|byte| *byte == number as u8))).unwrap();
        }
        memory.lend(event.reg_pic, &mut |bytes| assert!(bytes.iter().all(|byte| *byte == number as u8))).unwrap();
        releaser.release(frame.end, 1);
        number += 1;
    }
    publishing.join().unwrap();
    assert_eq!(memory.load(Word::Consumed, Ordering::Relaxed), EVENTS);
}

#[test]
fn noise_in_the_ring_is_read_within_bounds() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..40 {
        let memory = Arc::new(Mapping::on_heap(256));
        for offset in (0..256).step_by(8) {
            memory.set_word(
                offset,
                u64::from(random.choice([0u32, 1, 2, 7, 8, 9, 10, 16, 17, 24, 32, 40]).unwrap())
                    | u64::from(random.u32(0..24)) << 32,
            );
        }
        memory.store(Word::Head, random.u64(0..34) * 8, Ordering::Relaxed);
        let (mut reader, _, _) = consumer::attach(Arc::clone(&memory));
        for _ in 0..40 {
            if let Ok(Some(frame)) = reader.read()
                && let Ok(event) = Event::from_record(&memory, &frame, RingId([0; 16]))
            {
                let named = event.pictures.into_iter().map(|named| named.range);
                for range in named.chain([event.spot_pic]) {
                    memory.lend(range, &mut |bytes| drop(bytes.to_vec())).unwrap();
                }
            }
        }
    }
}

#[test]
fn the_last_word_is_inside_and_the_next_one_is_not() {
    let memory = Mapping::on_heap(64);
    memory.set_word(56, 7);
    assert_eq!(memory.word(56), 7);
    assert!(std::panic::catch_unwind(|| memory.word(64)).is_err());
    assert!(std::panic::catch_unwind(|| memory.word(60)).is_err());
    assert!(std::panic::catch_unwind(|| memory.lend(0..65, &mut |_| ())).is_err());
}
