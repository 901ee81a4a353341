//! The ring's consumer, over a ring that a third process writes into while it is read: header words, records, sections, pictures,
//! between any two reads. What must hold is said in `tests/common/disturbed.rs`.
//!
//! Input: first position (u64), events (u8), then writes: reads to let pass (u8), place (u16: a header word, or with the top bit a
//! word of the data area), count of words (u8, 0 for one), the words.
#![no_main]

use sophon_uplink::ring::Word;
use sophon_uplink_fuzz::Input;
use sophon_uplink_fuzz::disturbed::{CAPACITY, Story, check};
use sophon_uplink_fuzz::restless::{Place, Write};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (start, events) = (input.u64(), input.u8() % 8);
    let mut writes = Vec::new();
    while !input.is_empty() {
        let (after, place, count) = (input.u8(), input.u16(), input.u8() % 32);
        let place = match place & 0x8000 {
            0 => Place::Header(Word::ALL[usize::from(place) % Word::ALL.len()]),
            _ => Place::Data(usize::from(place & 0x7FFF) * 8 % CAPACITY),
        };
        writes.push(Write { after, place, words: (0..count.max(1)).map(|_| input.u64()).collect() });
    }
    check(Story { start, events, writes });
});
