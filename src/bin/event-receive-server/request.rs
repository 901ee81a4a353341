//! A request that was read, as what is to be kept, or why it is not to be. It has no socket and no store: what strangers write passes
//! through here alone, and `fuzz/fuzz_targets/gateway.rs` tries it.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use serde_json::json as object;

use crate::boxes::StateReport;
use crate::clock;
use crate::event::{self, Event};
use crate::fields::{Body, Format};
use crate::json::shortened;
use crate::refusal::Refusal;
use crate::store::{Brings, Delivery, Sender, What};

/// What the sender called its event, or what is wrong with that.
pub type Id = Result<Option<String>, String>;

/// A body of so many bytes is checked where it is: that takes less than a millisecond, and another thread would cost a part of it.
const AT_ONCE: usize = 256 << 10;

/// The longest Content-Type, in bytes: a boundary has 70 at most.
const MOST_OF_A_TYPE: usize = 256;

/// What a request with this body brings, whole and in order.
pub async fn delivery(
    brings: Brings,
    headers: &HeaderMap,
    sender: Sender,
    id: Id,
    body: Bytes,
) -> Result<Delivery, Refusal> {
    let received_at = clock::now();
    let format = format(headers).map_err(|(status, error)| Refusal::new(status, error))?;
    let parts = Body::read(&format, body.clone()).await;
    let broken = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the event could not be checked: this is a bug");
    let (what, id) = if body.len() <= AT_ONCE {
        check(brings, parts, id)
    } else {
        tokio::task::spawn_blocking(move || check(brings, parts, id)).await.map_err(broken)?
    }?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().into();
    Ok(Delivery { sender, id, received_at, format: format.name(), content_type, body, what })
}

/// Checks what a body says; it hashes megabytes, so it blocks.
fn check(brings: Brings, body: Result<Body, String>, id: Id) -> Result<(What, Option<String>), Refusal> {
    match brings {
        Brings::State => {
            let Body::Json(bytes) = body.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error))? else {
                let error = "Content-Type: came a form; allowed: application/json";
                return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
            };
            Ok((What::State(StateReport::of(&bytes).map_err(Refusal::faulty)?), None))
        }
        Brings::Event(report) => {
            let mut errors: Vec<String> = id.as_ref().err().cloned().into_iter().collect();
            let event = body
                .and_then(|body| Ok(event::check(&body.fields()?, report)))
                .unwrap_or_else(|error| Err(vec![error]))
                .map_err(|mut faults| errors.append(&mut faults));
            match (event, id) {
                (Ok(event), Ok(id)) => Ok((What::Event(Box::new(event)), id)),
                _ => Err(Refusal::faulty(errors)),
            }
        }
    }
}

impl What {
    /// The answer to a sender of it.
    pub fn answer(&self) -> String {
        match self {
            What::Event(event) => received(event),
            What::State(_) => object!({"status": "ok"}).to_string(),
        }
    }
}

/// The answer to an event that is kept: what of its pictures arrived, as docs/receivers.md asks for.
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
    // It goes on as it came: consumers read the body by it.
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    if let Some(value) = content_type.filter(|value| !(1..=MOST_OF_A_TYPE).contains(&value.len())) {
        let error = format!("Content-Type: came {} bytes of ASCII; allowed: 1 to {MOST_OF_A_TYPE}", value.len());
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    Format::of(content_type)
}

/// The id that the sender gave the event, under either of its two names.
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
