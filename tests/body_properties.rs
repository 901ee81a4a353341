//! The promise: the body of any event parses, with parsers that are not ours, to exactly the event, and is as long as announced.

mod common;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sophon_uplink::body::base64::{BUFFER, Pool, encoded_len};
use sophon_uplink::body::{BodyOptions, EventBody, Format, Sent, Template, TimestampUnit};
use sophon_uplink::event::Event;
use sophon_uplink::ring::consumer;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::mapping::Mapping;
use sophon_uplink::ring::producer::{NewEvent, Producer};

/// Everything of an event, owned.
#[derive(Clone, Debug)]
struct Given {
    texts: [Vec<u8>; 5],
    ext: Option<Map<String, Value>>,
    timestamp_ms: i64,
    score: f32,
    person_type: i32,
    device_type: i32,
    reg_pic: Vec<u8>,
    spot_pic: Vec<u8>,
}

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
        timestamp_ms in prop_oneof![any::<i64>(), 0..4_000_000_000_000i64],
        score in prop_oneof![any::<f32>().prop_filter("finite", |score| score.is_finite()), 0.0f32..1.0],
        person_type in 0..=5,
        device_type in -1..=4,
        reg_pic in picture(),
        spot_pic in picture(),
    ) -> Given {
        Given { texts, ext, timestamp_ms, score, person_type, device_type, reg_pic, spot_pic }
    }
}

/// What a receiver must understand.
fn expected(given: &Given, options: BodyOptions) -> Value {
    let [identity_id, identity_name, group_name, group_id, device_ip] =
        given.texts.each_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    // What ext_json says under a key of the table counts where the event says nothing, and only if it is of the table's type.
    let mut ext_data = given.ext.clone().unwrap_or_default();
    let is_good = |key: &str, value: &Value| match key {
        "device_ip" => value.is_string(),
        "person_type" => value.as_i64().is_some_and(|kind| (1..=5).contains(&kind)),
        "device_type" => value.as_str().is_some_and(|kind| ["0", "1", "2", "3", "4"].contains(&kind)),
        key => key != "spot_pic",
    };
    ext_data.retain(|key, value| is_good(key, value));
    if !device_ip.is_empty() {
        ext_data.insert("device_ip".into(), device_ip.into());
    }
    if given.person_type != 0 {
        ext_data.insert("person_type".into(), given.person_type.into());
    }
    if given.device_type != -1 {
        ext_data.insert("device_type".into(), given.device_type.to_string().into());
    }
    if !given.spot_pic.is_empty() {
        ext_data.insert("spot_pic".into(), STANDARD.encode(&given.spot_pic).into());
    }
    let seconds = options.timestamp_unit == TimestampUnit::Seconds;
    json!({
        "identity_id": identity_id,
        "identity_name": identity_name,
        "group_name": if group_name.is_empty() { group_id } else { group_name },
        "reg_pic": if options.with_reg_pic { STANDARD.encode(&given.reg_pic) } else { String::new() },
        "timestamp": if seconds { given.timestamp_ms.div_euclid(1000) } else { given.timestamp_ms },
        "score": given.score,
        "ext_data": ext_data,
    })
}

/// Through a ring, as every event comes.
fn body_of(given: &Given, options: BodyOptions) -> (String, Vec<u8>) {
    let memory = Arc::new(Mapping::on_heap(1 << 20));
    let ext_json = given.ext.as_ref().map_or(Vec::new(), |members| serde_json::to_vec(members).unwrap());
    let texts = &given.texts;
    let event = NewEvent {
        identity_id: &texts[0],
        identity_name: &texts[1],
        group_name: &texts[2],
        group_id: &texts[3],
        device_ip: &texts[4],
        ext_json: &ext_json,
        timestamp_ms: given.timestamp_ms,
        score: given.score,
        person_type: given.person_type,
        device_type: given.device_type,
        reg_pic: &given.reg_pic,
        spot_pic: &given.spot_pic,
    };
    Producer::attach(Arc::clone(&memory)).publish(&event).unwrap();
    let frame = consumer::attach(Arc::clone(&memory)).0.read().unwrap().unwrap();
    let event = Event::from_record(&memory, &frame, RingId([7; 16])).unwrap();
    let template = Template::new(&event, options);
    let (length, content_type) = (template.length(), template.content_type.clone());
    let sent = Sent::default();
    let body = EventBody::new(template, memory, Arc::<Pool>::default(), Arc::clone(&sent));
    assert_eq!(body.size_hint().exact(), Some(length));
    let bytes = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap().to_bytes();
    assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), length);
    assert_eq!(bytes.len() as u64, length);
    (content_type, bytes.to_vec())
}

fn parse_form(content_type: &str, body: Vec<u8>) -> Value {
    let boundary = multer::parse_boundary(content_type).unwrap();
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(body))]);
    let mut form = multer::Multipart::new(stream, boundary);
    let parts = async {
        let mut parts = Map::new();
        while let Some(field) = form.next_field().await.unwrap() {
            assert!(field.file_name().is_none() && field.content_type().is_none());
            let name = field.name().unwrap().to_owned();
            assert!(parts.insert(name, field.text().await.unwrap().into()).is_none());
        }
        parts
    };
    Value::Object(futures_util::FutureExt::now_or_never(parts).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: common::count("SOPHON_PROPTEST_CASES", 300) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_body_parses_to_exactly_the_event_and_is_as_long_as_announced(
        given in given(),
        with_reg_pic in any::<bool>(),
        seconds in any::<bool>(),
    ) {
        let timestamp_unit = if seconds { TimestampUnit::Seconds } else { TimestampUnit::Milliseconds };
        let json = BodyOptions { format: Format::Json, with_reg_pic, timestamp_unit };
        let expected = expected(&given, json);

        let (_, body) = body_of(&given, json);
        let parsed: Value = serde_json::from_slice(&body).unwrap();
        let score = |value: &Value| value["score"].as_f64().unwrap() as f32;
        prop_assert_eq!(score(&parsed).to_bits(), given.score.to_bits());
        let without_score = |mut value: Value| { value["score"] = Value::Null; value };
        prop_assert_eq!(without_score(parsed.clone()), without_score(expected.clone()));
        let keys: Vec<_> = parsed.as_object().unwrap().keys().collect();
        prop_assert_eq!(keys, ["identity_id", "identity_name", "group_name", "reg_pic", "timestamp", "score", "ext_data"]);
        if !given.spot_pic.is_empty() {
            prop_assert_eq!(parsed["ext_data"].as_object().unwrap().keys().next_back().unwrap(), "spot_pic");
        }

        let (content_type, body) = body_of(&given, BodyOptions { format: Format::FormData, ..json });
        let form = parse_form(&content_type, body);
        for key in ["identity_id", "identity_name", "group_name", "reg_pic"] {
            prop_assert_eq!(&form[key], &expected[key]);
        }
        prop_assert_eq!(form["timestamp"].as_str().unwrap(), expected["timestamp"].to_string());
        prop_assert_eq!(form["score"].as_str().unwrap().parse::<f32>().unwrap().to_bits(), given.score.to_bits());
        prop_assert_eq!(serde_json::from_str::<Value>(form["ext_data"].as_str().unwrap()).unwrap(), expected["ext_data"].clone());
        let keys: Vec<_> = form.as_object().unwrap().keys().collect();
        prop_assert_eq!(keys, ["identity_id", "identity_name", "group_name", "reg_pic", "timestamp", "score", "ext_data"]);
    }

    #[test]
    fn the_length_of_base64_is_what_an_encoder_writes(length in 0..10_000usize) {
        prop_assert_eq!(encoded_len(length), STANDARD.encode(vec![0; length]).len() as u64);
    }
}
