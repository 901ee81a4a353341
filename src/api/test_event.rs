//! `POST /api/test-event`: one event, marked as a test, to every destination in force, and what each of them answered.
//!
//! It goes out as every event does, with the config's format and headers, but on connections of its own and past rings, threshold,
//! lanes and counters: a test must work while a lane is paused, and must not show up in the balance.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::refusal::Refusal;
use crate::deliver::client::{Client, Upload};
use crate::deliver::failure::{Code, Failure};
use crate::event::{Event, EventId};
use crate::ring::file::RingId;
use crate::ring::mapping::{Lost, PictureSource};
use crate::uplink::Uplink;

/// A test card, 96 pixels square.
const PICTURE: &[u8] = include_bytes!("test-event.jpg");
/// Somebody is looking at a button: no answer comes later than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// A picture that is part of the program.
struct Picture;

impl PictureSource for Picture {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        encode(&PICTURE[range]);
        Ok(())
    }
}

/// Sends it everywhere at once. `headers` are the config's, whose values must not come back in what is shown.
///
/// # Errors
/// 500, where there can be no client.
pub async fn send(uplink: &Uplink, headers: &[(HeaderName, HeaderValue)]) -> Result<Value, Refusal> {
    let internal = |why: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", why);
    let clients = uplink.test_clients().map_err(|fault| internal(fault.to_string()))?;
    let secrets: Vec<String> = headers.iter().flat_map(|(_, value)| secrets_of(value)).collect();
    let mut tests = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        let secrets = secrets.clone();
        tests.spawn_local(async move { (index, test(&client, &secrets).await) });
    }
    let mut results = tests.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    Ok(json!({"results": results.into_iter().map(|(_, result)| result).collect::<Vec<_>>()}))
}

async fn test(client: &Client, secrets: &[String]) -> Value {
    let began = Instant::now();
    let upload = Upload { event: Rc::new(event()), source: Arc::new(Picture) };
    let outcome = tokio::time::timeout(PATIENCE, client.send(&upload, None)).await;
    let failure = match &outcome {
        Ok((outcome, _)) => outcome.failure().cloned(),
        Err(_) => Some(Failure::new(Code::NoAnswer, format!("no answer within {} s", PATIENCE.as_secs()))),
    };
    let words = String::from_utf8_lossy(&client.last_words()).trim().to_owned();
    json!({
        "url": client.url().to_string(),
        "event_id": upload.event.id.to_string(),
        "delivered": failure.is_none(),
        "status": client.last_answer(),
        "milliseconds": began.elapsed().as_millis() as u64,
        "error_code": failure.as_ref().map(|failure| failure.code.name()),
        "error": failure.map(|failure| failure.why),
        "answer": (!words.is_empty()).then(|| without(words, secrets)),
    })
}

/// A new id each time: a receiver that drops duplicates must not drop the second test.
fn event() -> Event {
    let ring = RingId(fastrand::u128(..).to_le_bytes());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Event {
        id: EventId { ring, sequence: 1 },
        identity_id: "0".into(),
        identity_name: "测试事件 Test event".into(),
        group_name: "sophon-uplink".into(),
        device_ip: None,
        ext: vec![("test".into(), to_raw_value(&true).expect("it is JSON"))],
        timestamp_ms: now.as_millis() as i64,
        score: 1.0,
        person_type: Some(1),
        device_type: None,
        reg_pic: 0..PICTURE.len(),
        spot_pic: 0..PICTURE.len(),
        mended: Vec::new(),
    }
}

/// A header's value and its words: a server may say back any of them.
fn secrets_of(value: &HeaderValue) -> Vec<String> {
    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let words = value.split([' ', ',', ';', '=', ':']).filter(|word| word.len() >= 4).map(String::from);
    let mut secrets: Vec<_> = words.collect();
    secrets.push(value);
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

fn without(text: String, secrets: &[String]) -> String {
    secrets.iter().filter(|secret| !secret.is_empty()).fold(text, |text, secret| text.replace(secret, "•••"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_back_of_a_header_is_not_shown() {
        let value = HeaderValue::from_static("Bearer canary-1; key=canary-2");
        let said = "{\"authorization\": \"Bearer canary-1; key=canary-2\", \"tokens\": [\"canary-1\", \"canary-2\"], \"ok\": true}";
        let shown = without(said.into(), &secrets_of(&value));
        assert!(!shown.contains("canary") && shown.contains("\"ok\": true"), "{shown}");
    }

    #[test]
    fn each_test_is_another_event() {
        assert_ne!(event().id, event().id);
    }
}
