//! What an error of a connection means.

use crate::deliver::failure::{Code, Failure};
use crate::deliver::tls_error;

/// The texts for [`is_unsolicited`]: the first is hyper's, which has no predicate for it, the second ours.
const UNSOLICITED_BY_HYPER: &str = "received unexpected message from connection";
pub(super) const UNSOLICITED: &str = "the server sent a response before the request";
pub(super) const TOO_LARGE: &str = "the head of the server's answer is too long";
pub(super) const OVERSIZE: &str = "the head of the server's answer is larger than 64 KiB";

/// Whether a connection failed because of an unsolicited response.
pub fn is_unsolicited(error: &hyper::Error) -> bool {
    let text = with_causes(error);
    text.contains(UNSOLICITED_BY_HYPER) || text.contains(UNSOLICITED)
}

/// Whether the head of an answer was too long for hyper.
pub fn is_oversize(error: &hyper::Error) -> bool {
    with_causes(error).contains(OVERSIZE)
}

/// The failure for an error: TLS errors in plain words, others with `code` and their causes.
pub fn describe(error: &(dyn std::error::Error + 'static), code: Code) -> Failure {
    tls_error::failure_for(error).unwrap_or_else(|| Failure::new(code, with_causes(error)))
}

/// An error with its causes, each text once.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
