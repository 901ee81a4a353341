//! One event as one message.
//!
//! | part | what |
//! | --- | --- |
//! | subject | `events.<box>.<kind>`: the box's name, escaped; `realtime`, `history` or `status` |
//! | `Nats-Msg-Id` | `<box>:<X-Event-Id>`: ids are of the whole stream, so a box has its own; a state report has none, each is a new one |
//! | `Nats-Expected-Stream` | so that no other stream acknowledges it |
//! | `Content-Type` | as sent: JSON, or a form with its boundary |
//! | `Event-Id`, `Event-Received` | X-Event-Id; when it came, RFC 3339 |
//! | `Event-Time`, `Event-Score` | when it was, in Unix milliseconds; the score |
//! | `Event-Pictures` | `reg_pic=SHA256:BYTES, ext_data/spot_pic=…`: of each decoded picture, by its place in the body |
//! | payload | the body, byte for byte |
//!
//! The box is the one that the token belongs to, if the gateway has tokens; else `ext_data.dev_sno`; else the ring's id, which is
//! the beginning of X-Event-Id. In subject, id and picture's name every byte but letters, digits, - and _ is written as %XX.

use std::fmt::Write as _;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use bytes::Bytes;
use hyper::StatusCode;
use sophon_uplink::event::Place;

use super::access;
use crate::error::ApiError;
use crate::escape::escaped;
use crate::event::{Event, Kept, Which};
use crate::json::shortened;
use crate::store::{Content, Delivery};

/// Every message is below it.
pub const ROOT: &str = "events";
/// The longest name of a box, in bytes.
pub const MOST_OF_A_NAME: usize = 128;
/// The longest X-Event-Id, in bytes.
const MOST_OF_AN_ID: usize = 128;
/// The most that headers take, in bytes, so that the limit of a body can be checked before the body comes.
pub const MOST_OF_HEADERS: usize = 8 << 10;
/// Milliseconds begin here, see `event`.
const MILLISECONDS_FROM: i64 = 1_000_000_000_000;

/// What is published.
pub struct Message {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// Checks that an event has an id. Without one, an event that is sent again would be a second event.
pub fn check_id(id: &Result<Option<String>, String>) -> Result<(), ApiError> {
    let fault = match id {
        Ok(Some(id)) if id.len() <= MOST_OF_AN_ID => return Ok(()),
        Ok(Some(id)) => format!("X-Event-Id: came {}; allowed: 1 to 128 visible ASCII characters", shortened(id)),
        Ok(None) => "X-Event-Id: missing; allowed: 1 to 128 visible ASCII characters".into(),
        Err(fault) => fault.clone(),
    };
    Err(ApiError { reason: "bad_id", ..ApiError::new(StatusCode::BAD_REQUEST, fault) })
}

/// The message of a delivery, for a stream.
pub fn of(delivery: Delivery, stream: &str) -> Result<Message, ApiError> {
    let Delivery { sender, id, received_at, content_type, body, content, .. } = delivery;
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_STREAM, stream);
    headers.insert("Content-Type", content_type);
    headers.insert("Event-Received", received_at);
    let (name, kind) = match &content {
        Content::State(report) => {
            let named = Some(report.registration()).filter(|name| !name.is_empty());
            let is_known = named.is_some() || sender.is_some();
            (box_of(sender.as_deref(), named.or((!is_known).then(|| report.name())), None)?, "status")
        }
        Content::Event(event) => {
            let id = event.report.id(id.unwrap_or_default());
            let name = box_of(sender.as_deref(), registration(event).as_deref(), Some(&id))?;
            headers.insert(NATS_MESSAGE_ID, format!("{}:{id}", escaped(&name)));
            headers.insert("Event-Id", id);
            describe(event, &mut headers)?;
            (name, event.report.name())
        }
    };
    let subject = format!("{ROOT}.{}.{kind}", escaped(&name));
    Ok(Message { subject, headers, payload: body })
}

fn describe(event: &Event, headers: &mut HeaderMap) -> Result<(), ApiError> {
    let time = if event.timestamp >= MILLISECONDS_FROM { event.timestamp } else { event.timestamp * 1000 };
    headers.insert("Event-Time", time.to_string());
    headers.insert("Event-Score", event.score.to_string());
    let mut pictures = String::new();
    for (which, picture) in event.pictures() {
        let place = match &which {
            Which::Reg => "reg_pic".into(),
            Which::Spot => "ext_data/spot_pic".into(),
            Which::Named(Place::Top, name) => escaped(name),
            Which::Named(Place::ExtData, name) => format!("ext_data/{}", escaped(name)),
        };
        let comma = if pictures.is_empty() { "" } else { ", " };
        let _ = write!(pictures, "{comma}{place}={}:{}", picture.sha256, picture.bytes.len());
    }
    if pictures.len() > MOST_OF_HEADERS - 2048 {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "body: came more pictures, or longer names, than a message has room for",
        ));
    }
    if !pictures.is_empty() {
        headers.insert("Event-Pictures", pictures);
    }
    Ok(())
}

/// The name of the box: by its token, by what it says, by its event's id.
fn box_of(sender: Option<&str>, named: Option<&str>, id: Option<&str>) -> Result<String, ApiError> {
    let name = match (sender, named) {
        (Some(sender), Some(named)) if sender != named => return Err(access::another(sender, named)),
        (Some(sender), _) => sender,
        (None, Some(named)) => named,
        (None, None) => ring_of(id.unwrap_or_default()).unwrap_or_default(),
    };
    if (1..=MOST_OF_A_NAME).contains(&name.len()) {
        return Ok(name.to_owned());
    }
    const ALLOWED: &str = "a name of the box in ext_data.dev_sno, of at most 128 bytes, or an id of the box's own";
    let error = format!("box: came {} as its name; allowed: {ALLOWED}", shortened(name));
    Err(ApiError::counted(StatusCode::BAD_REQUEST, "no_box", error))
}

/// What the event says of its box.
fn registration(event: &Event) -> Option<String> {
    let found = event.ext_data.iter().find(|(key, _)| key == "dev_sno");
    let Some((_, Kept::Json(value))) = found else { return None };
    serde_json::from_str::<String>(value.get()).ok().filter(|name| !name.is_empty())
}

/// The id of the ring, of an id as a box makes it: 32 hex digits, a hyphen, a number.
fn ring_of(id: &str) -> Option<&str> {
    let (ring, rest) = id.split_once('-')?;
    let is_ring = ring.len() == 32 && ring.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_ring && rest.starts_with(|first: char| first.is_ascii_digit())).then_some(ring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::StateReport;
    use crate::dialect::Report;
    use crate::fields::FieldValue;
    use crate::json::Members;

    const ID: &str = "0123456789abcdef0123456789abcdef-7";

    fn delivery(sender: Option<&str>, id: &str, ext_data: &str, report: Report) -> Delivery {
        let body = format!(
            r#"{{"identity_id":"7","identity_name":"a","group_name":"g","reg_pic":"/9j/4A==","timestamp":17,"score":0.5,"ext_data":{ext_data}}}"#
        );
        let Members(members) = serde_json::from_str(&body).unwrap();
        let fields: Vec<_> = members.into_iter().map(|(key, value)| (key, FieldValue::Json(value))).collect();
        let event = crate::event::check(&fields, report).unwrap();
        Delivery {
            sender: sender.map(Into::into),
            id: Some(id.into()),
            received_at: "now".into(),
            format: "json",
            content_type: "application/json".into(),
            body: body.into(),
            content: Content::Event(Box::new(event)),
        }
    }

    fn header(message: &Message, name: &str) -> String {
        message.headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default()
    }

    #[test]
    fn an_event_is_a_message_with_what_a_consumer_asks_for_first() {
        let named = r#"{"dev_sno":"Gate 1.A>","/":1,"x y":"/9j/4A=="}"#;
        let message = of(delivery(None, ID, named, Report::RealTime), "EVENTS").ok().unwrap();
        assert_eq!(message.subject, "events.Gate%201%2EA%3E.realtime");
        assert_eq!(header(&message, "Nats-Msg-Id"), format!("Gate%201%2EA%3E:{ID}"));
        assert_eq!(header(&message, "Event-Id"), ID);
        assert_eq!(
            (header(&message, "Event-Time").as_str(), header(&message, "Event-Score").as_str()),
            ("17000", "0.5")
        );
        assert_eq!(header(&message, "Nats-Expected-Stream"), "EVENTS");
        let digest = crate::picture::sha256_hex(b"\xFF\xD8\xFF\xE0");
        assert_eq!(header(&message, "Event-Pictures"), format!("reg_pic={digest}:4, ext_data/x%20y={digest}:4"));
        assert!(message.payload.starts_with(b"{\"identity_id\""));
    }

    #[test]
    fn the_box_is_its_tokens_then_what_it_says_then_its_ring() {
        let history = r#"{"dev_sno":"D","grab_fiqa_info":{},"box_fiqa_info":{}}"#;
        for (sender, id, ext_data, report, subject) in [
            (None, ID, "{}", Report::RealTime, "events.0123456789abcdef0123456789abcdef.realtime"),
            (None, ID, r#"{"dev_sno":""}"#, Report::RealTime, "events.0123456789abcdef0123456789abcdef.realtime"),
            (None, ID, history, Report::History, "events.D.history"),
            (Some("D"), ID, history, Report::History, "events.D.history"),
            (Some("T"), ID, "{}", Report::RealTime, "events.T.realtime"),
            (Some("T"), "x", "{}", Report::RealTime, "events.T.realtime"),
        ] {
            let message = of(delivery(sender, id, ext_data, report), "S").ok().expect(subject);
            assert_eq!(message.subject, subject);
        }
        let both = of(delivery(None, ID, history, Report::History), "S").ok().unwrap();
        assert_eq!(
            header(&both, "Event-Id"),
            format!("{ID}-history"),
            "the history's event is another message than the realtime one"
        );
    }

    #[test]
    fn a_box_cannot_write_for_another_nor_without_a_name() {
        let refused = |sender, id, ext_data: &str| {
            let refusal = of(delivery(sender, id, ext_data, Report::RealTime), "S").err().expect(ext_data);
            (refusal.status.as_u16(), refusal.reason)
        };
        assert_eq!(refused(Some("T"), ID, r#"{"dev_sno":"D"}"#), (403, "another_box"));
        assert_eq!(refused(None, "x-1", "{}"), (400, "no_box"));
        assert_eq!(refused(None, ID, &format!(r#"{{"dev_sno":"{}"}}"#, "x".repeat(129))), (400, "no_box"));
        let many: Vec<String> = (0..200).map(|number| format!(r#""{number}":"/9j/4A==""#)).collect();
        assert_eq!(refused(None, ID, &format!("{{{}}}", many.join(","))), (400, "faulty"));
    }

    #[test]
    fn a_state_report_is_a_message_without_an_id() {
        let report = |more: &str| {
            let text = format!(
                r#"{{"gateway_ip":"10.0.0.2","gateway_name":"E","gateway_status":"online","gateway_sn":"SN","gateway_ext_data":{{}},"sub_devices":[]{more}}}"#
            );
            Content::State(StateReport::of(text.as_bytes()).unwrap())
        };
        let subject = |sender, more| {
            let content = report(more);
            of(Delivery { content, id: None, ..delivery(sender, ID, "{}", Report::RealTime) }, "S").map(|message| {
                assert_eq!(header(&message, "Nats-Msg-Id"), "");
                message.subject
            })
        };
        assert_eq!(subject(None, "").ok().unwrap(), "events.SN.status");
        assert_eq!(subject(None, r#","dev_sno":"D""#).ok().unwrap(), "events.D.status");
        assert_eq!(subject(Some("T"), "").ok().unwrap(), "events.T.status");
        assert_eq!(subject(Some("T"), r#","dev_sno":"D""#).err().unwrap().status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn an_id_that_is_missing_empty_or_too_long_is_refused() {
        assert!(check_id(&Ok(Some("x".repeat(128)))).is_ok());
        for id in [Ok(None), Ok(Some("x".repeat(129))), Err("X-Event-Id: came \"\"".to_owned())] {
            let refusal = check_id(&id).unwrap_err();
            assert_eq!((refusal.status, refusal.reason), (StatusCode::BAD_REQUEST, "bad_id"));
            assert!(refusal.errors[0].starts_with("X-Event-Id: "));
        }
    }
}
