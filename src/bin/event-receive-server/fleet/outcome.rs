//! What the engine's answer to a message means for its sender.
//!
//! | the engine says | answer | |
//! | --- | --- | --- |
//! | an ack of the stream with a sequence, of a duplicate too | 200 | it is stored |
//! | nothing in time, no responders, not connected, 10158 (the same id is being stored) | 503, soon | whether it is stored is unknown; the same id settles it |
//! | 10077 (full), 10047 (no room), another 5xx | 503, later | alarm |
//! | 10054 | 413 | larger than the stream takes |
//! | another 4xx, an answer that is none | 503, later | we are set up wrong, and no box must lose an event by that: alarm |

use hyper::StatusCode;
use serde::Deserialize;

use crate::error::ApiError;
use crate::json::shortened;

/// That a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    Stored,
    Duplicate,
}

/// That a message is not stored, or that nobody knows.
#[derive(Debug)]
pub struct Trouble {
    pub status: StatusCode,
    /// In seconds, with jitter, so that many boxes do not come back at once.
    pub retry_after: u64,
    /// The word under which it is counted.
    pub reason: &'static str,
    /// Whether somebody has to do something.
    pub alarm: bool,
    pub text: String,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<EngineError>,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

/// An error as JetStream tells it.
#[derive(Debug, Deserialize)]
pub struct EngineError {
    #[serde(default)]
    pub code: u16,
    #[serde(default)]
    pub err_code: u32,
    #[serde(default)]
    pub description: String,
}

/// What an answer to a message for this stream means.
pub fn of_answer(answer: &[u8], stream: &str) -> Result<Ack, Trouble> {
    match serde_json::from_slice(answer) {
        Ok(Answer { error: Some(error), .. }) => Err(of_error(&error)),
        Ok(Answer { error: None, stream: named, seq: 1.., duplicate }) if named == stream => {
            Ok(if duplicate { Ack::Duplicate } else { Ack::Stored })
        }
        _ => {
            let came = shortened(&String::from_utf8_lossy(answer));
            Err(Trouble::later("misconfigured", format!("something else than the stream {stream} answered: {came}")))
        }
    }
}

fn of_error(error: &EngineError) -> Trouble {
    let EngineError { code, err_code, description } = error;
    let text = format!("the stream says {code}/{err_code}: {}", shortened(description));
    match (err_code, code) {
        (10158, _) => Trouble::soon("in_process", text),
        (10054, _) => {
            Trouble { status: StatusCode::PAYLOAD_TOO_LARGE, alarm: false, ..Trouble::later("too_large", text) }
        }
        (10077, _) => Trouble::later("full", format!("{text}: make room, or raise the stream's max_bytes")),
        (10047, _) => Trouble::later("no_resources", format!("{text}: the servers' disks or limits are used up")),
        (_, 500..) => Trouble::later("engine_error", text),
        _ => Trouble::later("misconfigured", format!("{text}: this gateway or the stream is set up wrong")),
    }
}

impl Trouble {
    /// It may be stored. The sender settles this if it sends the message again soon.
    pub fn soon(reason: &'static str, text: impl Into<String>) -> Trouble {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Trouble { status, retry_after: fastrand::u64(1..=5), reason, alarm: false, text: text.into() }
    }

    /// Somebody has to do something first.
    pub fn later(reason: &'static str, text: impl Into<String>) -> Trouble {
        Trouble { retry_after: fastrand::u64(15..=60), alarm: true, ..Trouble::soon(reason, text) }
    }
}

/// 413 for a body that no message has room for.
pub fn too_large(length: u64, limit: u64) -> ApiError {
    let error =
        format!("Content-Length: came {length}; allowed: at most {limit} bytes, which is what the stream takes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_means_what_the_table_says() {
        let error = |code: u16, err_code: u32| {
            format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"why"}},"stream":"S","seq":0}}"#)
        };
        for (answer, status, reason, alarm) in [
            (error(409, 10158), 503, "in_process", false),
            (error(503, 10077), 503, "full", true),
            (error(400, 10077), 503, "full", true),
            (error(503, 10047), 503, "no_resources", true),
            (error(503, 10008), 503, "engine_error", true),
            (error(500, 10000), 503, "engine_error", true),
            (error(400, 10054), 413, "too_large", false),
            (error(400, 10060), 503, "misconfigured", true),
            (error(404, 10059), 503, "misconfigured", true),
            (error(0, 0), 503, "misconfigured", true),
            (r#"{"stream":"S","seq":0}"#.into(), 503, "misconfigured", true),
            (r#"{"stream":"OTHER","seq":3}"#.into(), 503, "misconfigured", true),
            ("".into(), 503, "misconfigured", true),
            ("hello".into(), 503, "misconfigured", true),
        ] {
            let trouble = of_answer(answer.as_bytes(), "S").expect_err(&answer);
            assert_eq!((trouble.status.as_u16(), trouble.reason, trouble.alarm), (status, reason, alarm), "{answer}");
            let range = if alarm || status == 413 { 15..=60 } else { 1..=5 };
            assert!(range.contains(&trouble.retry_after));
        }
        assert_eq!(of_answer(br#"{"stream":"S","seq":1}"#, "S").ok(), Some(Ack::Stored));
        let duplicate = br#"{"stream":"S","seq":1,"duplicate":true,"domain":"x"}"#;
        assert_eq!(of_answer(duplicate, "S").ok(), Some(Ack::Duplicate));
    }
}
