//! Test events: like a recognizer's events in every way, and marked in three ways, so that no receiver takes one for a real
//! person.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderName, HeaderValue};
use serde_json::value::to_raw_value;

use super::picture::TestPicture;
use crate::event::{Event, EventId};
use crate::ring::file::RingId;

/// A header of every test event.
pub const X_EVENT_TEST: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-event-test"), HeaderValue::from_static("1"));

/// A test event with `picture` as both of its pictures. Each one has a new id: a receiver that drops duplicates must not drop the
/// second test.
pub fn event(picture: TestPicture) -> Event {
    let ring = RingId(fastrand::u128(..).to_le_bytes());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Event {
        id: EventId { ring, sequence: 1 },
        identity_id: "test".into(),
        identity_name: "测试事件 Test event".into(),
        group_name: "sophon-uplink".into(),
        device_ip: None,
        top: Vec::new(),
        ext: vec![("test".into(), to_raw_value(&true).expect("it is JSON"))],
        timestamp_ms: now.as_millis() as i64,
        score: 1.0,
        person_type: Some(1),
        device_type: None,
        reg_pic: 0..picture.bytes(),
        spot_pic: 0..picture.bytes(),
        pictures: Vec::new(),
        mended: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_is_another_event() {
        assert_ne!(event(TestPicture::card()).id, event(TestPicture::card()).id);
    }
}
