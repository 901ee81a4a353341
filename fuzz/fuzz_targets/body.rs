//! Builds the body of any event. Independent parsers read back exactly the event, and the length is as announced.
//! `tests/common/event_spec.rs` has the rules.
//!
//! Input: options (u8), timestamp (u64), score (u32, the bits of an f32), person_type and device_type (u8 each, plus one),
//! lengths of the pictures (u16 each), then ext_json and the five texts, each after its length (u16), then top_json in the same
//! way, and named pictures to the end: place (u8), length of the name (u8), the name, length of the picture (u16).
#![no_main]

use sophon_uplink::body::{BodyOptions, Format, TimestampUnit};
use sophon_uplink_fuzz::Input;
use sophon_uplink_fuzz::event_spec::EventSpec;

/// Pseudo-random bytes that depend on their position.
fn picture(length: u16) -> Vec<u8> {
    (0..u32::from(length)).map(|at| (at.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect()
}

fn text(input: &mut Input) -> Vec<u8> {
    let length = input.u16().into();
    input.bytes(length).to_vec()
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let flags = input.u8();
    let options = BodyOptions {
        format: if flags & 1 == 0 { Format::Json } else { Format::FormData },
        with_reg_pic: flags & 2 == 0,
        timestamp_unit: if flags & 4 == 0 { TimestampUnit::Seconds } else { TimestampUnit::Milliseconds },
    };
    let mut given = EventSpec {
        timestamp_ms: input.u64() as i64,
        score: f32::from_bits(input.u32()),
        person_type: i32::from(input.u8()) - 1,
        device_type: i32::from(input.u8()) - 1,
        reg_pic: picture(input.u16()),
        spot_pic: picture(input.u16()),
        ext_json: text(&mut input),
        texts: std::array::from_fn(|_| text(&mut input)),
        top_json: text(&mut input),
        pictures: Vec::new(),
    };
    while !input.is_empty() && given.pictures.len() < 17 {
        let (place, length) = (input.u8() % 3, usize::from(input.u8()) % 70);
        let name = input.bytes(length).to_vec();
        given.pictures.push((place, name, picture(input.u16())));
    }
    given.check_body(options);
});
