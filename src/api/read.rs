//! Reads a request's body, within its limits, as named values: JSON, multipart/form-data or urlencoded.
//!
//! Accepts what real clients send. The bytes must be UTF-8, whatever charset is named; a byte order mark is skipped. A JSON
//! object is read as JSON even if the client's library sent it as a form, or without a Content-Type.

use bytes::BytesMut;
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use serde::de::DeserializeSeed as _;
use serde_json::Value;

use super::Limits;
use super::error::{ApiError, shortened};
use crate::serve::body::{self, Broken, Members};

/// More than any call has.
const MAX_FIELDS: usize = 64;

/// The values sent, in their order.
#[derive(Debug, PartialEq)]
pub enum Fields {
    /// Members of one JSON object; each key occurs once.
    Json(Vec<(String, Value)>),
    /// Fields of a form; a key may occur several times.
    Form(Vec<(String, String)>),
}

/// Reads a body of at most `limits.body_bytes` within `limits.body_time`.
///
/// # Errors
/// 400, 408, 413 or 415. The rest of the body may still be arriving.
pub async fn read(headers: &HeaderMap, body: &mut Incoming, limits: &Limits) -> Result<Fields, ApiError> {
    let format = Format::of(headers)?;
    let bytes = whole(body, limits).await?;
    match format {
        Format::Json => members(&bytes).map(Fields::Json),
        // `curl -d '{…}'`, Python's urllib and Qt send it as a form. Python's requests sends no type.
        Format::Urlencoded | Format::Unnamed if is_object(&bytes) => members(&bytes).map(Fields::Json),
        Format::Unnamed => Err(unsupported(format!("Content-Type: it is missing; {ALLOWED}"))),
        Format::Multipart(boundary) => parts(bytes, &boundary).await.map(Fields::Form),
        Format::Urlencoded => pairs(&bytes).map(Fields::Form),
    }
}

const ALLOWED: &str = "allowed: application/json, multipart/form-data, application/x-www-form-urlencoded";

fn unsupported(what: String) -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", what)
}

/// Whether the body can only be JSON.
fn is_object(bytes: &[u8]) -> bool {
    without_mark(bytes).trim_ascii_start().starts_with(b"{")
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

#[derive(Debug, PartialEq)]
enum Format {
    Json,
    Multipart(String),
    Urlencoded,
    /// No Content-Type.
    Unnamed,
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Format, ApiError> {
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(unsupported("Content-Encoding: a compressed body is not taken".into()));
        }
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let written = match (types.next(), types.next()) {
            (None, _) => return Ok(Format::Unnamed),
            (Some(only), None) => String::from_utf8_lossy(only.as_bytes()),
            _ => return Err(unsupported(format!("Content-Type: it is there twice; {ALLOWED}"))),
        };
        let kind = written.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/json" => Ok(Format::Json),
            "application/x-www-form-urlencoded" => Ok(Format::Urlencoded),
            "multipart/form-data" => multer::parse_boundary(&*written)
                .map(Format::Multipart)
                .map_err(|_| ApiError::invalid("Content-Type: multipart/form-data without its boundary")),
            _ => Err(unsupported(format!("Content-Type: {}; {ALLOWED}", shortened(&written)))),
        }
    }
}

async fn whole(body: &mut Incoming, limits: &Limits) -> Result<Bytes, ApiError> {
    let (most, time) = (limits.body_bytes, limits.body_time);
    let read = body::whole(body, most as u64, time, time).await;
    read.map(BytesMut::freeze).map_err(|broken| match broken {
        Broken::TooLarge => {
            let message = format!("the body is too large; at most {most} bytes are taken");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
        }
        Broken::Off(came) => ApiError::invalid(format!("the body broke off after {came} bytes")),
        Broken::Late(came) => {
            let message = format!("only {came} bytes of the body came within {time:?}");
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", message)
        }
    })
}

/// The text without a byte order mark.
fn text(bytes: &[u8]) -> Result<&str, ApiError> {
    // Detects UTF-16 without a mark too: JSON and forms begin with two ASCII characters.
    if matches!(bytes, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, _, ..] | [_, 0, ..]) {
        return Err(ApiError::invalid("the body is UTF-16; send UTF-8"));
    }
    std::str::from_utf8(without_mark(bytes))
        .map_err(|_| ApiError::invalid("the body is not UTF-8; send UTF-8, whatever the charset in the Content-Type"))
}

/// Reads one JSON object. The parser bounds the nesting.
fn members(bytes: &[u8]) -> Result<Vec<(String, Value)>, ApiError> {
    let mut parser = serde_json::Deserializer::from_str(text(bytes)?);
    let read = Members::each_once(MAX_FIELDS, ("a JSON object", "too many keys")).deserialize(&mut parser);
    let read = read.and_then(|members| parser.end().map(|()| members));
    read.map_err(|error| ApiError::invalid(format!("the body is no JSON object: {error}")))
}

fn pairs(bytes: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    let text = text(bytes)?;
    if text.trim_start().starts_with('[') {
        return Err(ApiError::invalid(
            "the body looks like JSON, but the Content-Type says that it is a form; send an object as application/json",
        ));
    }
    let mut pairs = Vec::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        if [&name, &value].iter().any(|text| text.contains('\u{fffd}')) {
            return Err(ApiError::invalid(
                "the form has values that are not UTF-8; send UTF-8, whatever the charset in the Content-Type",
            ));
        }
        push(&mut pairs, name.into_owned(), value.into_owned())?;
    }
    Ok(pairs)
}

async fn parts(bytes: Bytes, boundary: &str) -> Result<Vec<(String, String)>, ApiError> {
    let broken = |error: multer::Error| ApiError::invalid(format!("the body is broken multipart/form-data: {error}"));
    let named = |_: usize, part: &multer::Field<'_>| {
        let name = part.name().ok_or_else(|| ApiError::invalid("a part of the form has no name"))?;
        check_encoding(name, part.headers())?;
        Ok(name.to_owned())
    };
    let mut fields = Vec::new();
    for (name, bytes) in body::parts(bytes, boundary, broken, named).await? {
        let value = std::str::from_utf8(without_mark(&bytes))
            .map_err(|_| ApiError::invalid(format!("the form's field {} is not UTF-8", shortened(&name))))?;
        push(&mut fields, name, value.to_owned())?;
    }
    Ok(fields)
}

/// Forms do not use the transfer encodings of e-mail (RFC 7578, section 4.7). An encoded value must not be taken literally.
fn check_encoding(name: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    let encoding = headers.get("content-transfer-encoding").map(|value| String::from_utf8_lossy(value.as_bytes()));
    match encoding {
        Some(encoding) if !["7bit", "8bit", "binary"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain)) => {
            let (name, encoding) = (shortened(name), shortened(&encoding));
            let message =
                format!("the form's field {name} has the Content-Transfer-Encoding {encoding}; send it as it is");
            Err(ApiError::invalid(message))
        }
        _ => Ok(()),
    }
}

fn push(fields: &mut Vec<(String, String)>, name: String, value: String) -> Result<(), ApiError> {
    if fields.len() == MAX_FIELDS {
        return Err(ApiError::invalid(format!("the form has more than {MAX_FIELDS} fields")));
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
        Format::of(&headers).map_err(|error| error.status.as_u16())
    }

    #[test]
    fn a_body_is_what_its_content_type_says() {
        assert_eq!(format("Application/JSON; charset=\"UTF-8\""), Ok(Format::Json));
        assert_eq!(format("application/x-www-form-urlencoded"), Ok(Format::Urlencoded));
        assert_eq!(format("multipart/form-data; boundary=xyz"), Ok(Format::Multipart("xyz".into())));
        assert_eq!(format("multipart/form-data"), Err(400));
        for charset in ["ISO-8859-1", "US-ASCII", "gbk", "utf-16", "\"latin1\"", "x"] {
            assert_eq!(format(&format!("application/json; charset={charset}")), Ok(Format::Json));
            let form = format(&format!("application/x-www-form-urlencoded;charset={charset}"));
            assert_eq!(form, Ok(Format::Urlencoded));
            let parts = format(&format!("multipart/form-data; charset={charset}; boundary=xyz"));
            assert_eq!(parts, Ok(Format::Multipart("xyz".into())), "{charset}");
        }
        for refused in ["text/plain", "", "application/jsonp"] {
            assert_eq!(format(refused), Err(415), "{refused}");
        }
        assert_eq!(Format::of(&HeaderMap::new()), Ok(Format::Unnamed));
    }

    #[test]
    fn an_object_has_each_key_once_and_bounded_depth() {
        let read = |text: &str| members(text.as_bytes()).map_err(|error| error.message);
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
    fn a_byte_order_mark_is_skipped_and_utf_16_is_named() {
        let marked = |text: &str| [b"\xEF\xBB\xBF", text.as_bytes()].concat();
        assert_eq!(members(&marked("{\"a\":1}")), Ok(vec![("a".into(), 1.into())]));
        assert_eq!(pairs(&marked("a=1")), Ok(vec![("a".into(), "1".into())]));
        assert!(is_object(&marked(" {")) && !is_object(b"a={") && !is_object(b"[{"));
        for text in ["{\"a\":1}", "a=1"] {
            for big in [false, true] {
                let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
                let utf16: Vec<u8> = text.encode_utf16().flat_map(bytes).collect();
                let with_mark = [&bytes(0xFEFF)[..], &utf16].concat();
                for body in [utf16, with_mark] {
                    assert!(members(&body).unwrap_err().message.contains("UTF-16"), "{body:?}");
                    assert!(pairs(&body).unwrap_err().message.contains("UTF-16"), "{body:?}");
                }
            }
        }
    }

    #[test]
    fn a_form_that_is_a_json_list_is_told_so() {
        assert!(pairs(b" [1]").unwrap_err().message.contains("application/json"));
        assert_eq!(pairs(b"a=1&a=%E7%8E%8B+x").unwrap(), [("a".into(), "1".into()), ("a".into(), "王 x".into())]);
        assert!(pairs(b"a=%ff").is_err());
        assert!(pairs(&b"a&".repeat(MAX_FIELDS + 1)).is_err());
    }
}
