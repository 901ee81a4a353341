//! Turns a request that was read into a delivery, or into the reason why it is refused. This file has no socket and no store.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use serde_json::json as object;

use crate::boxes::StateReport;
use crate::clock;
use crate::error::ApiError;
use crate::event::{self, Event};
use crate::fields::{Body, Format};
use crate::json::shortened;
use crate::store::{Content, Delivery, Expected, Sender};

/// The sender's id of an event, or the fault of that id.
pub type Id = Result<Option<String>, String>;

/// A body of at most so many bytes is checked on the thread of the sockets. That takes less than a millisecond, and a change of
/// thread would cost a part of it.
const AT_ONCE: usize = 256 << 10;

/// The longest Content-Type, in bytes. A boundary has at most 70.
const MOST_OF_A_TYPE: usize = 256;

/// Checks a request with this body.
pub async fn delivery(
    expected: Expected,
    headers: &HeaderMap,
    sender: Sender,
    id: Id,
    body: Bytes,
) -> Result<Delivery, ApiError> {
    let received_at = clock::now();
    let format = format(headers).map_err(|(status, error)| ApiError::new(status, error))?;
    let parts = Body::read(&format, body.clone()).await;
    let broken = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the event could not be checked: this is a bug");
    let (content, id) = if body.len() <= AT_ONCE {
        check(expected, parts, id)
    } else {
        tokio::task::spawn_blocking(move || check(expected, parts, id)).await.map_err(broken)?
    }?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().into();
    Ok(Delivery { sender, id, received_at, format: format.name(), content_type, body, content })
}

/// Checks the content of a body. It hashes megabytes, so it blocks.
fn check(expected: Expected, body: Result<Body, String>, id: Id) -> Result<(Content, Option<String>), ApiError> {
    match expected {
        Expected::State => {
            let Body::Json(bytes) = body.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error))? else {
                let error = "Content-Type: came a form; allowed: application/json";
                return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
            };
            Ok((Content::State(StateReport::of(&bytes).map_err(ApiError::faulty)?), None))
        }
        Expected::Event(report) => {
            let mut errors: Vec<String> = id.as_ref().err().cloned().into_iter().collect();
            let event = body
                .and_then(|body| Ok(event::check(&body.fields()?, report)))
                .unwrap_or_else(|error| Err(vec![error]))
                .map_err(|mut faults| errors.append(&mut faults));
            match (event, id) {
                (Ok(event), Ok(id)) => Ok((Content::Event(Box::new(event)), id)),
                _ => Err(ApiError::faulty(errors)),
            }
        }
    }
}

impl Content {
    /// The answer to a sender of it.
    pub fn answer(&self) -> String {
        match self {
            Content::Event(event) => received(event),
            Content::State(_) => object!({"status": "ok"}).to_string(),
        }
    }
}

/// The answer to a stored event: what arrived of its pictures, as docs/receivers.md defines.
fn received(event: &Event) -> String {
    let mut pictures = serde_json::Map::new();
    for (which, picture) in event.pictures() {
        pictures.insert(which.name().to_owned(), object!({"bytes": picture.bytes.len(), "sha256": picture.sha256}));
    }
    object!({"status": "ok", "received": pictures}).to_string()
}

fn format(headers: &HeaderMap) -> Result<Format, (StatusCode, String)> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let came = shortened(&String::from_utf8_lossy(encoding.as_bytes()));
        let error = format!("Content-Encoding: came {came}; allowed: none");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    // It is passed on unchanged: consumers read the body by it.
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    if let Some(value) = content_type.filter(|value| !(1..=MOST_OF_A_TYPE).contains(&value.len())) {
        let error = format!("Content-Type: came {} bytes of ASCII; allowed: 1 to {MOST_OF_A_TYPE}", value.len());
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    Format::of(content_type)
}

/// The sender's id of the event, from either of its two headers.
pub fn event_id(headers: &HeaderMap) -> Id {
    let mut found: Option<(&str, &[u8])> = None;
    for name in ["X-Event-Id", "Idempotency-Key"] {
        for value in headers.get_all(name) {
            let value = value.as_bytes();
            if !(1..=200).contains(&value.len()) || !value.iter().all(u8::is_ascii_graphic) {
                let came = shortened(&String::from_utf8_lossy(value));
                return Err(format!("{name}: came {came}; allowed: 1 to 200 visible ASCII characters"));
            }
            match found {
                Some((other, first)) if first != value => {
                    let came = shortened(&String::from_utf8_lossy(value));
                    return Err(format!("{name}: came {came}, which differs from {other}; allowed: the same value"));
                }
                _ => found = Some((name, value)),
            }
        }
    }
    Ok(found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_that_could_not_go_on_as_it_came_is_refused() {
        let of = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.try_into().unwrap());
            format(&headers).map_err(|(status, _)| status.as_u16())
        };
        assert_eq!(of(b"application/json; charset=utf-8"), Ok(Format::Json));
        for bad in [&b""[..], b"application/json; x=\xe9", &[b"application/json", &b";a=b".repeat(80)[..]].concat()] {
            assert_eq!(of(bad), Err(415), "{}", String::from_utf8_lossy(bad));
        }
    }
}
