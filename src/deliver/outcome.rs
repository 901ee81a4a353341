//! What became of one try to deliver an event: the table of docs/design.md, "Delivery".

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{DATE, HeaderMap, RETRY_AFTER};

/// The longest pause that a server may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// What became of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server had the whole event and answered 2xx.
    Acknowledged,
    /// There is no connection to be had: it does not matter which event is tried next.
    Unreachable {
        /// In words.
        why: String,
    },
    /// The destination does not work now, or not for this event: try again after a while.
    Down {
        /// In words.
        why: String,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// The destination answers, but not as a receiver of events: somebody has to set something right.
    Misconfigured {
        /// In words, with what to look at.
        why: String,
    },
    /// The server does not want this event.
    Refused {
        /// In words.
        why: String,
    },
    /// The event's pictures went away under us.
    SourceLost,
}

impl Outcome {
    /// A failure of the network or of the server's HTTP.
    pub fn down(why: impl Into<String>) -> Outcome {
        Outcome::Down { why: why.into(), retry_after: None }
    }

    /// Judges an answer by its status alone; its body is never looked at.
    pub fn of_answer(status: StatusCode, headers: &HeaderMap) -> Outcome {
        let why = match status.canonical_reason() {
            Some(reason) => format!("the server answered {} {reason}", status.as_u16()),
            None => format!("the server answered {}", status.as_u16()),
        };
        match status.as_u16() {
            200..=299 => Outcome::Acknowledged,
            408 | 425 | 429 | 500..=599 => Outcome::Down { why, retry_after: retry_after(headers) },
            300..=399 => {
                Outcome::Misconfigured { why: format!("{why}: a redirect is not followed, set the final URL") }
            }
            401 | 407 => Outcome::Misconfigured { why: format!("{why}: check headers.Authorization") },
            403 => Outcome::Misconfigured { why: format!("{why}: check the server's access rules and the headers") },
            404 | 405 => Outcome::Misconfigured { why: format!("{why}: check the URL's path") },
            400..=499 => Outcome::Refused { why },
            _ => Outcome::down(why),
        }
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3) in seconds, or as a date, which is compared with the server's own `Date`: our wall
/// clock decides nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
            httpdate::parse_http_date(value).ok()?.duration_since(now).ok()?
        }
    };
    Some(asked.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Outcome {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Outcome::of_answer(StatusCode::from_u16(status).unwrap(), &pairs.collect())
    }

    #[test]
    fn every_status_has_the_class_of_the_table() {
        for status in 100..=999 {
            let class = match answer(status, &[]) {
                Outcome::Acknowledged => "acknowledged",
                Outcome::Down { .. } => "down",
                Outcome::Unreachable { .. } => "unreachable",
                Outcome::Misconfigured { .. } => "misconfigured",
                Outcome::Refused { .. } => "refused",
                Outcome::SourceLost => "lost",
            };
            let expected = match status {
                200..=299 => "acknowledged",
                408 | 425 | 429 => "down",
                300..=399 | 401 | 403 | 404 | 405 | 407 => "misconfigured",
                400..=499 => "refused",
                _ => "down",
            };
            assert_eq!(class, expected, "{status}");
        }
    }

    #[test]
    fn retry_after_is_honoured_in_both_forms_up_to_ten_minutes() {
        let pause = |headers: &[(&'static str, &str)]| match answer(503, headers) {
            Outcome::Down { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(pause(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(pause(&[("retry-after", "86400")]), Some(MAX_RETRY_AFTER));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(pause(&[date, ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), Some(Duration::from_secs(30)));
        assert_eq!(pause(&[date, ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), None);
        assert_eq!(pause(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), None);
        assert_eq!(pause(&[("retry-after", "soon")]), None);
        assert_eq!(pause(&[]), None);
    }
}
