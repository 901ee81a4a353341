//! Why something was not taken.

use hyper::StatusCode;

/// Why something was not taken.
#[derive(Debug)]
pub struct Refusal {
    /// What it is answered with.
    pub status: StatusCode,
    /// What is wrong, each thing with what is allowed.
    pub errors: Vec<String>,
    /// Whether bytes of the request are still under way, so that the connection cannot be used again.
    pub unread: bool,
    /// Whether the sender went away before the body was whole.
    pub incomplete: bool,
    /// In seconds; for 503.
    pub retry_after: u64,
    /// The word under which it is counted.
    #[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
    pub reason: &'static str,
}

impl Refusal {
    /// For what is not to be taken, or not now.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        let errors = vec![error.into()];
        Refusal { status, errors, unread: false, incomplete: false, retry_after: 1, reason: reason_of(status) }
    }

    /// For what came whole and is wrong.
    pub fn faulty(errors: Vec<String>) -> Refusal {
        Refusal { errors, ..Refusal::new(StatusCode::BAD_REQUEST, "") }
    }

    /// For what was not read to its end.
    pub fn unread(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { unread: true, ..Refusal::new(status, error) }
    }

    /// For what is counted under a word of its own.
    #[cfg(feature = "jetstream")]
    pub fn counted(status: StatusCode, reason: &'static str, error: impl Into<String>) -> Refusal {
        Refusal { reason, ..Refusal::new(status, error) }
    }
}

fn reason_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::REQUEST_TIMEOUT => "slow",
        StatusCode::LENGTH_REQUIRED => "no_length",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "not_json_or_form",
        StatusCode::SERVICE_UNAVAILABLE => "no_room",
        status if status.is_server_error() => "error",
        _ => "faulty",
    }
}
