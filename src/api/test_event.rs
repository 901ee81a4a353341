//! `POST /api/test-event` sends one event, marked as a test, to every destination in force, and returns their answers.
//!
//! The event goes out like every other, with the config's format and headers. But it uses its own connections and bypasses rings,
//! threshold, lanes and counters: a test must work while a lane is paused, and must not change the balance.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::error::ApiError;
use super::read::Fields;
use crate::body::Format;
use crate::deliver::client::Client;
use crate::trial::digests::Proof;
use crate::trial::picture::TestPicture;
use crate::trial::{self, Fate, LARGEST, Ladder, Tried};
use crate::uplink::Uplink;

/// Timeout for an answer: a person waits at the page.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Timeout for the answer to a large event.
const LARGE_ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// The only key of the body.
const PICTURE_BYTES: &str = "picture_bytes";

/// Returns the size of the pictures: as in the test card, or as the body requests.
///
/// # Errors
/// 400: the body requests anything else.
pub fn picture(fields: Fields) -> Result<TestPicture, ApiError> {
    let members = match fields {
        Fields::Json(members) => members,
        Fields::Form(pairs) => pairs.into_iter().map(|(key, value)| (key, Value::from(value))).collect(),
    };
    let mut picture = TestPicture::card();
    for (key, value) in members {
        let bytes = value.as_u64().or_else(|| value.as_str()?.parse().ok()).map(usize::try_from);
        match (key.as_str(), bytes) {
            (PICTURE_BYTES, Some(Ok(bytes @ 1..=LARGEST))) => picture = TestPicture::of(bytes),
            (PICTURE_BYTES, _) => {
                let allowed = format!("{PICTURE_BYTES}: came {value}; allowed: a number of bytes from 1 to {LARGEST}");
                return Err(ApiError::invalid(allowed));
            }
            _ => return Err(ApiError::invalid(format!("{key:?}: this key is not known; there is {PICTURE_BYTES}"))),
        }
    }
    Ok(picture)
}

/// Sends the event to all destinations at once. `headers` are those of the config; the result never shows their values.
pub async fn send(uplink: &Uplink, headers: &[(HeaderName, HeaderValue)], picture: TestPicture) -> Value {
    let clients = uplink.test_clients();
    let secrets: Vec<String> = headers.iter().flat_map(|(_, value)| secrets_of(value)).collect();
    let mut tests = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        let secrets = secrets.clone();
        tests.spawn_local(async move { (index, test(&client, picture, &secrets).await) });
    }
    let mut results = tests.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    json!({"results": results.into_iter().map(|(_, result)| result).collect::<Vec<_>>()})
}

async fn test(client: &Client, picture: TestPicture, secrets: &[String]) -> Value {
    let began = Instant::now();
    let most = if picture == TestPicture::card() { ANSWER_DEADLINE } else { LARGE_ANSWER_DEADLINE };
    let tried = trial::send(client, picture, Some(most)).await;
    let words = String::from_utf8_lossy(&tried.heard.words).trim().to_owned();
    let why = match &tried.fate {
        Fate::Answered(_, Proof::Short(what)) => Some(what.clone()),
        fate => fate.failure().map(|failure| failure.why.clone()),
    };
    json!({
        "url": client.url().to_string(),
        "event_id": tried.id.to_string(),
        "picture_bytes": picture.bytes(),
        "delivered": tried.is_taken(),
        "proven": tried.is_proven(),
        "status": tried.status(),
        "milliseconds": began.elapsed().as_millis() as u64,
        "error_code": tried.error_code(),
        "error": why,
        "answer": (!words.is_empty()).then(|| without(words, secrets)),
        "likely": likely(client.body_options().format, tried),
    })
}

/// Server products whose limit may be the cause, and the setting to change. Only products that the server names.
fn likely(format: Format, tried: Tried) -> Vec<Value> {
    if tried.is_taken() {
        return Vec::new();
    }
    let ladder = Ladder { format, taken: None, refused: Some(tried), lost: None };
    let likely = ladder.likely().into_iter().filter(|likely| likely.is_named);
    likely.map(|likely| json!({"server": likely.row.server, "setting": likely.row.setting})).collect()
}

/// A header's value and its parts: a server may repeat any of them in its answer.
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
    fn the_size_of_a_pictures_is_within_its_bounds_and_nothing_else_is_asked_for() {
        let asked = |key: &str, value: Value| picture(Fields::Json(vec![(key.into(), value)]));
        assert_eq!(asked(PICTURE_BYTES, json!(300_000)).unwrap().bytes(), 300_000);
        assert_eq!(asked(PICTURE_BYTES, json!("300000")).unwrap().bytes(), 300_000);
        assert_eq!(picture(Fields::Json(Vec::new())).unwrap(), TestPicture::card());
        for wrong in [json!(0), json!(-1), json!(LARGEST + 1), json!(1.5), json!(null), json!("many"), json!([1])] {
            assert!(asked(PICTURE_BYTES, wrong.clone()).is_err(), "{wrong}");
        }
        assert!(asked("size", json!(1)).is_err());
    }
}
