//! Why a request was refused.

use hyper::StatusCode;

/// Why a request was refused.
#[derive(Debug)]
pub struct ApiError {
    /// Status of the answer.
    pub status: StatusCode,
    /// The faults, each with what is allowed.
    pub errors: Vec<String>,
    /// Whether bytes of the request may still arrive, so that the connection cannot be reused.
    pub unread: bool,
    /// Whether the sender disconnected before the body was complete.
    pub incomplete: bool,
    /// Seconds for Retry-After; for 503.
    pub retry_after: u64,
    /// The reason under which it is counted.
    #[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
    pub reason: &'static str,
}

impl ApiError {
    /// A request that is not allowed, or cannot be accepted now.
    pub fn new(status: StatusCode, error: impl Into<String>) -> ApiError {
        let errors = vec![error.into()];
        ApiError { status, errors, unread: false, incomplete: false, retry_after: 1, reason: reason_of(status) }
    }

    /// A complete request with faults.
    pub fn faulty(errors: Vec<String>) -> ApiError {
        ApiError { errors, ..ApiError::new(StatusCode::BAD_REQUEST, "") }
    }

    /// A request that was not read to its end.
    pub fn unread(status: StatusCode, error: impl Into<String>) -> ApiError {
        ApiError { unread: true, ..ApiError::new(status, error) }
    }

    /// For what is counted under a word of its own.
    #[cfg(feature = "jetstream")]
    pub fn counted(status: StatusCode, reason: &'static str, error: impl Into<String>) -> ApiError {
        ApiError { reason, ..ApiError::new(status, error) }
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
