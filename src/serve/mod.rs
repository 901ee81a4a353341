//! Code that both HTTP servers of the package use: the box's API and `event-receive-server`. Each server decides itself which
//! clients, paths and bodies it accepts, and what it answers.
//!
//! ```text
//!  connection.rs  accepts connections, and serves HTTP/1 on a socket within bounds
//!  patience.rs    a socket whose writes time out
//!  body.rs        reads a request's body within bounds; parses form-data and JSON objects
//!  token.rs       the token of a request, and the comparison of secrets
//!  reply.rs       builds answers
//!  text.rs        quotes what a client sent, for messages
//!  exposition.rs  the text format of metrics
//!  mod.rs         the security headers of every answer, discarding an unwanted body, the style of the pages
//! ```

pub mod body;
pub mod connection;
pub mod exposition;
pub mod patience;
pub mod reply;
pub mod text;
pub mod token;

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, EXPECT, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// The common style of both pages: colours by role in light and dark, the bar with the language switch, tiles.
#[macro_export]
macro_rules! house_css {
    () => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/house.css"))
    };
}

/// Adds the headers that keep names and faces out of caches and other sites, and foreign scripts out of the page. Headers that
/// the answer already has stay.
pub fn guard(headers: &mut HeaderMap) {
    const PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                        base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let guards: [(HeaderName, &'static str); 6] = [
        (CONTENT_SECURITY_POLICY, PAGE),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in guards {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Reads and discards the rest of a body, for at most `time`: a client whose connection is reset while it sends may never see the
/// answer. A client that waits for `100 Continue` sends nothing.
pub fn discard(mut body: Incoming, headers: &HeaderMap, time: Duration) {
    if !body.is_end_stream() && !headers.contains_key(EXPECT) {
        tokio::spawn(tokio::time::timeout(time, async move { while let Some(Ok(_)) = body.frame().await {} }));
    }
}
