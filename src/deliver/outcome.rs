//! The outcome of one attempt to deliver an event: the table of docs/design.md, "Delivery".

use std::num::IntErrorKind;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{DATE, HeaderMap, RETRY_AFTER};

use super::failure::{Code, Early, Failure};
use crate::config::answers::Meaning;

/// The longest pause that a server may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The server had the whole event and answered 2xx.
    Acknowledged,
    /// No connection could be made, so the failure has nothing to do with the event.
    Unreachable {
        /// Why.
        failure: Failure,
    },
    /// Another attempt failed while this one waited to begin: this one says nothing.
    NotBegun {
        /// The failure of the other attempt.
        failure: Failure,
    },
    /// The destination fails now, or fails for this event: try again later.
    Down {
        /// Why.
        failure: Failure,
        /// The pause that the server asked for.
        retry_after: Option<Duration>,
    },
    /// The server does not take this event now, or not this way; that says nothing about other events. Try again later.
    NotNow {
        /// Why.
        failure: Failure,
        /// The pause that the server asked for.
        retry_after: Option<Duration>,
    },
    /// The destination answers, but not like a receiver of events: an operator has to fix it.
    Misconfigured {
        /// Why, and what to check.
        failure: Failure,
    },
    /// The server refuses this event for good.
    Refused {
        /// Why.
        failure: Failure,
    },
    /// The event's pictures are no longer available.
    SourceLost,
}

/// The failure in an outcome, by shared or mutable reference like the outcome.
macro_rules! failure_of {
    ($outcome:expr) => {
        match $outcome {
            AttemptOutcome::Unreachable { failure }
            | AttemptOutcome::NotBegun { failure }
            | AttemptOutcome::Down { failure, .. }
            | AttemptOutcome::NotNow { failure, .. }
            | AttemptOutcome::Misconfigured { failure }
            | AttemptOutcome::Refused { failure } => Some(failure),
            AttemptOutcome::Acknowledged | AttemptOutcome::SourceLost => None,
        }
    };
}

impl AttemptOutcome {
    /// A failure of the network or of the server's HTTP.
    pub const fn down(failure: Failure) -> AttemptOutcome {
        AttemptOutcome::Down { failure, retry_after: None }
    }

    /// Classifies an answer by its status alone, without its body. `early`: set if it came before the server had the whole event.
    pub fn of_answer(number: u16, headers: &HeaderMap, early: Option<Early>) -> AttemptOutcome {
        if let (200..=299, None) = (number, early) {
            return AttemptOutcome::Acknowledged; // returns before the text is built, because nearly every event takes this path
        }
        let mut why = format!("the server answered {number}");
        if let Some(reason) = StatusCode::from_u16(number).ok().and_then(|status| status.canonical_reason()) {
            why = format!("{why} {reason}");
        }
        if let Some(early) = early {
            why = format!("{why} {early}");
        }
        let failure = |advice: &str| {
            let why = format!("{why}{advice}");
            Failure { code: Code::of_status(number), why, status: Some(number), early }
        };
        let asked = retry_after(headers);
        let outcome = match number {
            200..=299 => AttemptOutcome::down(Failure {
                code: Code::EarlyAnswer,
                ..failure(", before it had the whole event, which is no acknowledgement")
            }),
            408 | 425 | 429 | 500..=599 => AttemptOutcome::Down { failure: failure(""), retry_after: asked },
            300..=399 => {
                AttemptOutcome::Misconfigured { failure: failure(": a redirect is not followed, set the final URL") }
            }
            401 => AttemptOutcome::Misconfigured { failure: failure(": check headers.Authorization") },
            407 => AttemptOutcome::Misconfigured { failure: failure(": a proxy wants a login, set proxy.url") },
            403 => {
                AttemptOutcome::Misconfigured { failure: failure(": check the server's access rules and the headers") }
            }
            404 | 405 => AttemptOutcome::Misconfigured { failure: failure(": check the URL's path") },
            402 | 409 | 421 | 423 | 426 | 428 | 431 | 440 | 451 | 498 => {
                AttemptOutcome::NotNow { failure: failure(""), retry_after: asked }
            }
            400..=499 => AttemptOutcome::Refused { failure: failure("") },
            _ => AttemptOutcome::down(failure("")),
        };
        match (outcome, asked) {
            // The server says itself that it is not for good.
            (AttemptOutcome::Refused { failure }, asked @ Some(_)) => {
                AttemptOutcome::NotNow { failure, retry_after: asked }
            }
            (AttemptOutcome::Misconfigured { failure }, asked @ Some(_)) => {
                AttemptOutcome::Down { failure, retry_after: asked }
            }
            (outcome, _) => outcome,
        }
    }

    /// Applies the config's `answers` to the outcome. Before the server had the whole event there is no acknowledgement.
    #[must_use]
    pub fn meaning(self, meaning: Meaning, status: u16, early: Option<Early>, headers: &HeaderMap) -> AttemptOutcome {
        match (meaning, self) {
            (Meaning::Accept, _) if early.is_none() => AttemptOutcome::Acknowledged,
            (Meaning::Refuse | Meaning::Retry, AttemptOutcome::Acknowledged) => {
                let is_final = meaning == Meaning::Refuse;
                let list = if is_final { "refuse" } else { "retry" };
                let why = format!("the server answered {status}, which is in answers.{list}");
                let failure = Failure { status: Some(status), ..Failure::new(Code::NotAccepted, why) };
                match is_final {
                    true => AttemptOutcome::Refused { failure },
                    false => AttemptOutcome::NotNow { failure, retry_after: retry_after(headers) },
                }
            }
            (
                Meaning::Refuse,
                AttemptOutcome::Down { failure, .. }
                | AttemptOutcome::NotNow { failure, .. }
                | AttemptOutcome::Misconfigured { failure },
            ) if failure.code != Code::EarlyAnswer => AttemptOutcome::Refused { failure },
            (Meaning::Retry, AttemptOutcome::Refused { failure } | AttemptOutcome::Misconfigured { failure }) => {
                AttemptOutcome::NotNow { failure, retry_after: None }
            }
            (_, same) => same,
        }
    }

    /// A 2xx whose body is not what the config's `accept_body` requires. The cause may be a failing server, a login portal, or
    /// this event.
    pub fn not_accepted(status: u16, why: &str) -> AttemptOutcome {
        let why = format!("the server answered {status}, and its body is not what accept_body wants: {why}");
        AttemptOutcome::down(Failure { status: Some(status), ..Failure::new(Code::NotAccepted, why) })
    }

    /// The failure, if the outcome has one.
    pub const fn failure(&self) -> Option<&Failure> {
        failure_of!(self)
    }

    /// The same, mutable.
    pub const fn failure_mut(&mut self) -> Option<&mut Failure> {
        failure_of!(self)
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3), in seconds or as a date. A date is compared with the server's own `Date`, so the
/// box's clock does not matter.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => MAX_RETRY_AFTER,
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

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> AttemptOutcome {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        AttemptOutcome::of_answer(status, &pairs.collect(), None)
    }

    #[test]
    fn every_status_has_the_class_of_the_table() {
        for status in 100..=999 {
            let class = match answer(status, &[]) {
                AttemptOutcome::Acknowledged => "acknowledged",
                AttemptOutcome::Down { .. } => "down",
                AttemptOutcome::NotNow { .. } => "not now",
                AttemptOutcome::Unreachable { .. } | AttemptOutcome::NotBegun { .. } => "unreachable",
                AttemptOutcome::Misconfigured { .. } => "misconfigured",
                AttemptOutcome::Refused { .. } => "refused",
                AttemptOutcome::SourceLost => "lost",
            };
            let expected = match status {
                200..=299 => "acknowledged",
                408 | 425 | 429 => "down",
                300..=399 | 401 | 403 | 404 | 405 | 407 => "misconfigured",
                402 | 409 | 421 | 423 | 426 | 428 | 431 | 440 | 451 | 498 => "not now",
                400..=499 => "refused",
                _ => "down",
            };
            assert_eq!(class, expected, "{status}");
        }
    }

    #[test]
    fn an_answer_before_the_whole_event_says_how_much_of_it_had_gone_and_is_no_acknowledgement() {
        let early = Some(Early { sent: 65_536, total: 200_000 });
        for (status, code, words) in [
            (
                200,
                Code::EarlyAnswer,
                "the server answered 200 OK after 65536 of 200000 bytes, before it had the whole event",
            ),
            (400, Code::AnsweredBadRequest, "the server answered 400 Bad Request after 65536 of 200000 bytes"),
            (413, Code::AnsweredTooLarge, "the server answered 413 Payload Too Large after 65536 of 200000 bytes"),
            (
                500,
                Code::AnsweredServerError,
                "the server answered 500 Internal Server Error after 65536 of 200000 bytes",
            ),
        ] {
            let outcome = AttemptOutcome::of_answer(status, &HeaderMap::new(), early);
            let failure = outcome.failure().unwrap();
            assert_eq!((failure.code, failure.early), (code, early));
            assert!(failure.why.starts_with(words), "{failure}");
        }
    }

    #[test]
    fn whatever_the_status_an_answer_with_retry_after_is_not_for_good() {
        let asked = [("retry-after", "7")];
        for status in 300..=599 {
            let outcome = answer(status, &asked);
            let (AttemptOutcome::Down { retry_after, .. } | AttemptOutcome::NotNow { retry_after, .. }) = outcome
            else {
                panic!("{status}: {outcome:?}");
            };
            assert_eq!(retry_after, Some(Duration::from_secs(7)), "{status}");
        }
        let headers: HeaderMap = [("retry-after".parse().unwrap(), "7".parse().unwrap())].into_iter().collect();
        let accepted = AttemptOutcome::of_answer(202, &headers, None).meaning(Meaning::Retry, 202, None, &headers);
        assert!(matches!(accepted, AttemptOutcome::NotNow { retry_after: Some(_), .. }), "{accepted:?}");
        assert_eq!(accepted.failure().and_then(|failure| failure.status), Some(202), "the dead letter says it");
        let refused = AttemptOutcome::of_answer(503, &headers, None).meaning(Meaning::Refuse, 503, None, &headers);
        assert!(matches!(refused, AttemptOutcome::Refused { .. }), "the owner's rule comes first: {refused:?}");
    }

    #[test]
    fn retry_after_is_honoured_in_both_forms_up_to_ten_minutes() {
        let pause = |headers: &[(&'static str, &str)]| match answer(503, headers) {
            AttemptOutcome::Down { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(pause(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(pause(&[("retry-after", "86400")]), Some(MAX_RETRY_AFTER));
        assert_eq!(pause(&[("retry-after", "1000000000000000000000000000000")]), Some(MAX_RETRY_AFTER), "10^30");
        assert_eq!(pause(&[("retry-after", "-1")]), None);
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(pause(&[date, ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), Some(Duration::from_secs(30)));
        assert_eq!(pause(&[date, ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), None);
        assert_eq!(pause(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), None);
        assert_eq!(pause(&[("retry-after", "soon")]), None);
        assert_eq!(pause(&[]), None);
    }
}
