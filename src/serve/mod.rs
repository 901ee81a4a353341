//! What the package's two HTTP servers share: the box's own API and `event-receive-server`. Which clients, paths and bodies they take,
//! and what they answer, is their own.
//!
//! ```text
//!  connection.rs  accepting, and HTTP/1 on one socket within bounds
//!  patience.rs    a socket whose writes give up
//!  body.rs        a request's body: read within bounds; form-data and JSON objects taken apart
//!  token.rs       the token of a request, and how secrets are compared
//!  reply.rs       answers
//!  text.rs        what a client wrote, as messages show it
//!  exposition.rs  the text of metrics
//!  mod.rs         the headers that guard every answer, the end of a body that is not wanted, the look of the pages
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

/// Colours by role in light and dark, the bar with the language switch, tiles: what both pages begin with.
#[macro_export]
macro_rules! house_css {
    () => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/house.css"))
    };
}

/// The headers that keep names and faces out of caches and other sites, and foreign script out of the page. What the answer has
/// already stays.
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

/// Reads and forgets, for at most `time`, what a client sends although its answer is already on the way: a client that is reset while
/// it still sends may never see the answer. One that waits for `100 Continue` sends nothing.
pub fn discard(mut body: Incoming, headers: &HeaderMap, time: Duration) {
    if !body.is_end_stream() && !headers.contains_key(EXPECT) {
        tokio::spawn(tokio::time::timeout(time, async move { while let Some(Ok(_)) = body.frame().await {} }));
    }
}
