//! Splits the body of a request into named values. `event` checks the values.
//!
//! - `application/json`: one object in UTF-8. Its values stay as they were written.
//! - `multipart/form-data`: one part per key. Every value is text; `ext_data` is text that contains a JSON object.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::value::RawValue;
use sophon_uplink::serve::body;

use crate::json::{Members, shortened};

/// More than any event has.
const MAX_PARTS: usize = 100;

/// The format of the body, from the request's headers.
#[derive(Debug, PartialEq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `multipart/form-data`, with its boundary.
    FormData { boundary: String },
}

impl Format {
    /// The name in the uplink's config and in the record of an event.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::FormData { .. } => "form-data",
        }
    }

    /// Parses a Content-Type header.
    pub fn of(content_type: Option<&str>) -> Result<Format, (StatusCode, String)> {
        const ALLOWED: &str = "allowed: application/json or multipart/form-data";
        let unsupported =
            |what: String| (StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("Content-Type: {what}; {ALLOWED}"));
        let Some(content_type) = content_type else {
            return Err(unsupported("missing".into()));
        };
        let mut pieces = content_type.split(';').map(str::trim);
        match pieces.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/json" => {
                for (name, value) in pieces.filter_map(|parameter| parameter.split_once('=')) {
                    let utf8 = value.trim_matches('"').eq_ignore_ascii_case("utf-8");
                    if name.eq_ignore_ascii_case("charset") && !utf8 {
                        return Err(unsupported(format!("came the charset {}, but JSON is UTF-8", shortened(value))));
                    }
                }
                Ok(Format::Json)
            }
            "multipart/form-data" => match multer::parse_boundary(content_type) {
                Ok(boundary) => Ok(Format::FormData { boundary }),
                Err(_) => {
                    Err((StatusCode::BAD_REQUEST, "Content-Type: multipart/form-data without its boundary".into()))
                }
            },
            _ => Err(unsupported(format!("came {}", shortened(content_type)))),
        }
    }
}

/// A body with a valid outer form.
pub enum Body {
    /// UTF-8, not parsed yet.
    Json(Bytes),
    /// The parts in their order, each checked to be UTF-8.
    Form(Vec<(String, Bytes)>),
}

/// One value, unchanged.
#[derive(Clone, Copy)]
pub enum FieldValue<'a> {
    /// A JSON value.
    Json(&'a RawValue),
    /// The text of a part of form-data.
    Text(&'a str),
}

impl Body {
    /// Splits form-data into parts; does not parse JSON yet. An error is a fault of the whole body.
    pub async fn read(format: &Format, bytes: Bytes) -> Result<Body, String> {
        if bytes.is_empty() {
            return Err("body: empty; allowed: an event".into());
        }
        match format {
            Format::Json => Ok(Body::Json(bytes)),
            Format::FormData { boundary } => parts(bytes, boundary).await.map(Body::Form),
        }
    }

    /// The values by name, in their order.
    pub fn fields(&self) -> Result<Vec<(String, FieldValue<'_>)>, String> {
        match self {
            Body::Json(bytes) => {
                let text = utf8("body", bytes)?;
                let Members(members) = serde_json::from_str(text)
                    .map_err(|error| format!("body: came no JSON object: {error}; allowed: one JSON object"))?;
                Ok(members.into_iter().map(|(key, value)| (key, FieldValue::Json(value))).collect())
            }
            Body::Form(parts) => parts
                .iter()
                .map(|(name, value)| Ok((name.clone(), FieldValue::Text(utf8(&key_of(name), value)?))))
                .collect(),
        }
    }
}

/// A key for messages: unchanged if it is a plain word, otherwise quoted, so that it cannot forge a message.
pub fn key_of(name: &str) -> String {
    let plain = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if plain && !name.is_empty() { name.to_string() } else { shortened(name) }
}

fn utf8<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        let hint = if bytes.starts_with(b"\xFF\xD8\xFF") { "; a picture is sent as base64 text" } else { "" };
        format!("{what}: came {} bytes that are not UTF-8 from byte {} on{hint}", bytes.len(), error.valid_up_to())
    })
}

async fn parts(bytes: Bytes, boundary: &str) -> Result<Vec<(String, Bytes)>, String> {
    let broken = |error: multer::Error| format!("body: came broken multipart/form-data: {error}");
    let named = |index: usize, part: &multer::Field<'_>| match index {
        MAX_PARTS => Err(format!("body: came more than {MAX_PARTS} parts")),
        _ => Ok(part.name().unwrap_or_default().to_owned()),
    };
    body::parts(bytes, boundary, broken, named).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_taken_with_the_charset_that_it_has_anyway() {
        for accepted in ["application/json", "Application/JSON ; charset=UTF-8", "application/json;charset=\"utf-8\""] {
            assert_eq!(Format::of(Some(accepted)), Ok(Format::Json), "{accepted}");
        }
    }

    #[test]
    fn form_data_is_taken_with_its_boundary() {
        let format = Format::of(Some("multipart/form-data; boundary=\"a b\"")).unwrap();
        assert_eq!(format, Format::FormData { boundary: "a b".into() });
        let (status, fault) = Format::of(Some("multipart/form-data")).unwrap_err();
        assert_eq!((status, fault.contains("boundary")), (StatusCode::BAD_REQUEST, true));
    }

    #[test]
    fn another_type_or_charset_is_named() {
        for (refused, named) in [
            (None, "missing"),
            (Some("text/plain"), "text/plain"),
            (Some("application/x-www-form-urlencoded"), "urlencoded"),
            (Some("application/json; charset=gbk"), "gbk"),
        ] {
            let (status, fault) = Format::of(refused).unwrap_err();
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert!(fault.contains(named) && fault.contains("multipart/form-data"), "{fault}");
        }
    }

    #[test]
    fn a_key_cannot_forge_a_message() {
        assert_eq!(key_of("reg_pic"), "reg_pic");
        assert_eq!(key_of("a\nb"), r#""a\nb""#);
        assert_eq!(key_of(""), r#""""#);
    }
}
