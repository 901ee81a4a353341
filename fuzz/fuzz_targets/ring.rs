//! Reads a ring that another process writes into at the same time: header words, records, sections and pictures, between any two
//! reads. `tests/common/disturbed.rs` has the rules.
//!
//! Input: first position (u64), number of events (u8), then writes: number of reads before it (u8), position (u16: a header word,
//! or with the top bit a word of the data area), number of words (u8, 0 means one), the words.
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
