//! The API's error answers: `{"error":{"code":400,"message":"…","status":"INVALID_ARGUMENT"}}`.

use hyper::StatusCode;
use serde_json::json;

use crate::serve::text;

/// An error answer. Its message never contains a secret.
#[derive(Debug, PartialEq, Eq)]
pub struct ApiError {
    /// 4xx or 5xx.
    pub status: StatusCode,
    /// The status as a word, from google.rpc.Code where it has one.
    pub word: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl ApiError {
    /// 400: the request is wrong.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError { status: StatusCode::BAD_REQUEST, word: "INVALID_ARGUMENT", message: message.into() }
    }

    /// Any other error.
    pub fn new(status: StatusCode, word: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, word, message: message.into() }
    }

    /// The answer's body.
    pub fn json(&self) -> String {
        json!({"error": {"code": self.status.as_u16(), "message": self.message, "status": self.word}}).to_string()
    }

    /// A complete HTTP answer, for connections that hyper never got or has given up. They are closed after it.
    pub fn raw(&self) -> Vec<u8> {
        let body = self.json();
        let reason = self.status.canonical_reason().unwrap_or_default();
        let code = self.status.as_u16();
        format!(
            "HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Quotes at most 60 characters of a text and escapes control characters.
pub fn shortened(text: &str) -> String {
    text::shortened(text, 60)
}
