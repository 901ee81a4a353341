//! A request's body, within its bounds, as named values: JSON, multipart/form-data or urlencoded.

use std::fmt;

use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::Limits;
use super::refusal::{Refusal, shortened};

/// More values than any call has.
const MAX_FIELDS: usize = 64;

/// What was sent, in the order it came.
#[derive(Debug, PartialEq)]
pub enum Fields {
    /// Members of one JSON object, each key once.
    Json(Vec<(String, Value)>),
    /// Fields of a form; a key may come several times.
    Form(Vec<(String, String)>),
}

/// Reads a body of at most `limits.body_bytes` within `limits.body_time`.
///
/// # Errors
/// 400, 408, 413 or 415. The rest of the body may still be on its way.
pub async fn read(headers: &HeaderMap, body: &mut Incoming, limits: &Limits) -> Result<Fields, Refusal> {
    let format = Format::of(headers)?;
    let bytes = whole(body, limits).await?;
    match format {
        Format::Json => members(&bytes).map(Fields::Json),
        Format::Multipart(boundary) => parts(bytes.into(), &boundary).await.map(Fields::Form),
        Format::Urlencoded => pairs(&bytes).map(Fields::Form),
    }
}

#[derive(Debug, PartialEq)]
enum Format {
    Json,
    Multipart(String),
    Urlencoded,
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Format, Refusal> {
        const ALLOWED: &str = "allowed: application/json, multipart/form-data, application/x-www-form-urlencoded";
        let unsupported =
            |what: String| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", what);
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(unsupported("Content-Encoding: a compressed body is not taken".into()));
        }
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let (Some(written), None) = (types.next(), types.next()) else {
            return Err(unsupported(format!("Content-Type: exactly one is needed; {ALLOWED}")));
        };
        let written = String::from_utf8_lossy(written.as_bytes());
        let mut pieces = written.split(';').map(str::trim);
        let kind = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let charset =
            pieces.filter_map(|piece| piece.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
        if charset.is_some_and(|(_, value)| !value.trim_matches('"').eq_ignore_ascii_case("utf-8")) {
            return Err(unsupported("Content-Type: the charset must be UTF-8".into()));
        }
        match kind.as_str() {
            "application/json" => Ok(Format::Json),
            "application/x-www-form-urlencoded" => Ok(Format::Urlencoded),
            "multipart/form-data" => multer::parse_boundary(&*written)
                .map(Format::Multipart)
                .map_err(|_| Refusal::invalid("Content-Type: multipart/form-data without its boundary")),
            _ => Err(unsupported(format!("Content-Type: {}; {ALLOWED}", shortened(&written)))),
        }
    }
}

async fn whole(body: &mut Incoming, limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let most = limits.body_bytes;
    let too_large = || {
        let message = format!("the body is too large; at most {most} bytes are taken");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let due = Instant::now() + limits.body_time;
    let mut bytes = Vec::new();
    loop {
        match timeout_at(due, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                if bytes.len() + data.len() > most {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(_))) => {
                return Err(Refusal::invalid(format!("the body broke off after {} bytes", bytes.len())));
            }
            Err(_) => {
                let message = format!("only {} bytes of the body came within {:?}", bytes.len(), limits.body_time);
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", message));
            }
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::invalid("the body is not UTF-8"))
}

/// One JSON object. Nesting is bounded by the parser.
fn members(bytes: &[u8]) -> Result<Vec<(String, Value)>, Refusal> {
    struct EachOnce;

    impl<'de> Visitor<'de> for EachOnce {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members: Vec<(String, Value)> = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, Value>()? {
                if members.len() == MAX_FIELDS {
                    return Err(A::Error::custom("too many keys"));
                }
                if members.iter().any(|(known, _)| *known == key) {
                    return Err(A::Error::custom(format_args!("the key {} is there twice", shortened(&key))));
                }
                members.push((key, value));
            }
            Ok(members)
        }
    }

    let mut parser = serde_json::Deserializer::from_str(text(bytes)?);
    let read = parser.deserialize_map(EachOnce).and_then(|members| parser.end().map(|()| members));
    read.map_err(|error| Refusal::invalid(format!("the body is no JSON object: {error}")))
}

fn pairs(bytes: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    if text(bytes)?.trim_start().starts_with(['{', '[']) {
        // `curl -d '{…}'` says that it sends a form.
        return Err(Refusal::invalid(
            "the body looks like JSON, but the Content-Type says that it is a form; send application/json",
        ));
    }
    let mut pairs = Vec::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        if [&name, &value].iter().any(|text| text.contains('\u{fffd}')) {
            return Err(Refusal::invalid("the form has values that are not UTF-8"));
        }
        push(&mut pairs, name.into_owned(), value.into_owned())?;
    }
    Ok(pairs)
}

async fn parts(bytes: Bytes, boundary: &str) -> Result<Vec<(String, String)>, Refusal> {
    let broken = |error: multer::Error| Refusal::invalid(format!("the body is broken multipart/form-data: {error}"));
    let whole = stream::iter([Ok::<_, std::convert::Infallible>(bytes)]);
    let mut multipart = multer::Multipart::new(whole, boundary);
    let mut fields = Vec::new();
    while let Some(part) = multipart.next_field().await.map_err(broken)? {
        let name = part.name().ok_or_else(|| Refusal::invalid("a part of the form has no name"))?.to_owned();
        let bytes = part.bytes().await.map_err(broken)?;
        let value = std::str::from_utf8(&bytes)
            .map_err(|_| Refusal::invalid(format!("the form's field {} is not UTF-8", shortened(&name))))?;
        push(&mut fields, name, value.to_owned())?;
    }
    Ok(fields)
}

fn push(fields: &mut Vec<(String, String)>, name: String, value: String) -> Result<(), Refusal> {
    if fields.len() == MAX_FIELDS {
        return Err(Refusal::invalid(format!("the form has more than {MAX_FIELDS} fields")));
    }
    fields.push((name, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn format(content_type: &str) -> Result<Format, u16> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::try_from(content_type).unwrap())]);
        Format::of(&headers).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn a_body_is_what_its_content_type_says() {
        assert_eq!(format("Application/JSON; charset=\"UTF-8\""), Ok(Format::Json));
        assert_eq!(format("application/x-www-form-urlencoded"), Ok(Format::Urlencoded));
        assert_eq!(format("multipart/form-data; boundary=xyz"), Ok(Format::Multipart("xyz".into())));
        assert_eq!(format("multipart/form-data"), Err(400));
        for refused in ["text/plain", "", "application/json; charset=gbk", "application/jsonp"] {
            assert_eq!(format(refused), Err(415), "{refused}");
        }
        assert_eq!(Format::of(&HeaderMap::new()).unwrap_err().status, 415);
    }

    #[test]
    fn an_object_has_each_key_once_and_bounded_depth() {
        let read = |text: &str| members(text.as_bytes()).map_err(|refusal| refusal.message);
        assert_eq!(read(r#"{"b":1,"a":[2]}"#), Ok(vec![("b".into(), 1.into()), ("a".into(), vec![2].into())]));
        assert!(read(r#"{"a":1,"a":1}"#).unwrap_err().contains("twice"));
        assert!(read(&format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200))).unwrap_err().contains("recursion"));
        for wrong in ["", "[]", "null", "{}{}", "{\"a\":1", "{'a':1}", "{\"a\":NaN}"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let many = |count: usize| (0..count).map(|key| format!("\"{key}\":0")).collect::<Vec<_>>().join(",");
        assert!(read(&format!("{{{}}}", many(MAX_FIELDS))).is_ok());
        assert!(read(&format!("{{{}}}", many(MAX_FIELDS + 1))).is_err());
    }

    #[test]
    fn a_form_that_is_json_is_told_so() {
        assert!(pairs(b" {\"a\":1}").unwrap_err().message.contains("application/json"));
        assert_eq!(pairs(b"a=1&a=%E7%8E%8B+x").unwrap(), [("a".into(), "1".into()), ("a".into(), "王 x".into())]);
        assert!(pairs(b"a=%ff").is_err());
        assert!(pairs(&b"a&".repeat(MAX_FIELDS + 1)).is_err());
    }
}
