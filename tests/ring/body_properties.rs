//! The promise: the body of any event parses, with parsers that are not ours, to exactly the event, and is as long as announced.

use crate::event_spec::EventSpec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Map, Value};
use sophon_uplink::body::encoder::{BUFFER, encoded_len};
use sophon_uplink::body::{BodyOptions, Format, TimestampUnit};

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        any::<String>().prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
        Just(b"\"\\\r\n--sophon-\0</script>\xed\xa0\x80".to_vec()),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn ext() -> impl Strategy<Value = Option<Map<String, Value>>> {
    let reserved = ["device_ip", "spot_pic", "person_type", "device_type"].map(String::from).to_vec();
    let key = prop_oneof![any::<String>(), prop::sample::select(reserved)];
    let members =
        prop::collection::vec((key, json_value()), 0..5).prop_map(|members| Some(members.into_iter().collect()));
    prop_oneof![Just(None), members]
}

fn top() -> impl Strategy<Value = Option<Map<String, Value>>> {
    let documented = crate::event_spec::KEYS.map(String::from).to_vec();
    let plain = "[a-z\r\n\"]{1,6}".prop_map(|key| key);
    let key = prop_oneof![plain, prop::sample::select(documented), Just("n1".to_owned())];
    let members =
        prop::collection::vec((key, json_value()), 0..5).prop_map(|members| Some(members.into_iter().collect()));
    prop_oneof![Just(None), members]
}

/// None to sixteen of them, each with another name; in some events one that is not allowed.
fn pictures() -> impl Strategy<Value = Vec<(u8, Vec<u8>, Vec<u8>)>> {
    let bad = prop::sample::select(vec!["a b", "", "reg_pic", "spot_pic", "x\"", "\r\n", "n0"]);
    let most = prop::collection::vec((0..2u8, picture()), 0..=15);
    (most, prop::option::weighted(0.1, (0..4u8, bad))).prop_map(|(pictures, bad)| {
        let named = pictures.into_iter().enumerate();
        let mut named: Vec<_> =
            named.map(|(number, (place, jpeg))| (place, format!("n{number}").into_bytes(), jpeg)).collect();
        named.extend(bad.map(|(place, name)| (place, name.as_bytes().to_vec(), vec![1])));
        named
    })
}

fn picture() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        Just(0),
        1..10usize,
        0..3000usize,
        (0..400usize).prop_map(|more| BUFFER / 4 * 3 - 390 + more),
        Just(2 * BUFFER)
    ];
    (length, any::<u64>()).prop_map(|(length, seed)| {
        let mut bytes = vec![0; length];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    })
}

prop_compose! {
    fn given()(
        texts in [text(), text(), text(), text(), text()],
        ext in ext(),
        top in top(),
        pictures in pictures(),
        timestamp_ms in prop_oneof![any::<i64>(), 0..4_000_000_000_000i64],
        score in prop_oneof![any::<f32>().prop_filter("finite", |score| score.is_finite()), 0.0f32..1.0],
        person_type in 0..=5,
        device_type in -1..=4,
        reg_pic in picture(),
        spot_pic in picture(),
    ) -> EventSpec {
        let [ext_json, top_json] = [ext, top].map(|members| members.map_or(Vec::new(), |members| serde_json::to_vec(&members).unwrap()));
        EventSpec { texts, ext_json, top_json, pictures, timestamp_ms, score, person_type, device_type, reg_pic, spot_pic }
    }
}

/// Found with the oracle of the fuzz target `body`: a member that was taken by itself made the whole body too deep for the parser
/// that had taken it.
#[test]
fn json_that_nests_as_deep_as_parsers_go_makes_no_body_that_they_refuse() {
    for depth in 120..130 {
        let ext_json = format!("{{\"a\":{}{},\"b\":1}}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
        let given = EventSpec {
            texts: Default::default(),
            top_json: ext_json.clone(),
            ext_json,
            pictures: Vec::new(),
            timestamp_ms: 0,
            score: 0.5,
            person_type: 0,
            device_type: -1,
            reg_pic: Vec::new(),
            spot_pic: Vec::new(),
        };
        for format in Format::ALL {
            given.check_body(BodyOptions { format, with_reg_pic: true, timestamp_unit: TimestampUnit::Seconds });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::common::count("SOPHON_PROPTEST_CASES", 300) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_body_parses_to_exactly_the_event_and_is_as_long_as_announced(
        given in given(),
        with_reg_pic in any::<bool>(),
        seconds in any::<bool>(),
    ) {
        let timestamp_unit = if seconds { TimestampUnit::Seconds } else { TimestampUnit::Milliseconds };
        for format in Format::ALL {
            given.check_body(BodyOptions { format, with_reg_pic, timestamp_unit });
        }
    }

    #[test]
    fn the_length_of_base64_is_what_an_encoder_writes(length in 0..10_000usize) {
        prop_assert_eq!(encoded_len(length), STANDARD.encode(vec![0; length]).len() as u64);
    }
}
