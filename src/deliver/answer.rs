//! Waiting for a server's answer, and reading what it says.

use std::future::Future;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::failure::{Code, Failure};
use super::transport::Progress;
use crate::config::Timeouts;

/// An answer's body is read up to here for the sake of the connection, in bytes.
const DRAIN_LIMIT: usize = 64 * 1024;
/// And it is read for this long.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// An answer that trickles in may take this many times the response timeout in all.
const TRICKLE: u32 = 6;

/// Reads an answer's body to its end, of which it keeps `kept` bytes in `words`; false when it is too long, takes too long or breaks
/// off: then the connection is of no more use.
pub async fn drain(body: Incoming, words: &mut Vec<u8>, kept: usize) -> bool {
    tokio::time::timeout(DRAIN_TIME, read_to_end(body, words, kept)).await == Ok(true)
}

async fn read_to_end(mut body: Incoming, words: &mut Vec<u8>, kept: usize) -> bool {
    let mut left = DRAIN_LIMIT;
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.as_ref().ok().and_then(|frame| frame.data_ref()) {
            words.extend(data.iter().take(kept - words.len()));
        }
        let length = frame.as_ref().map_or(usize::MAX, |frame| frame.data_ref().map_or(0, |data| data.len()));
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

/// Waits for an answer's head as long as there is progress.
///
/// # Errors
/// What there was none of, and for how long.
pub async fn answer_in_time<T>(
    mut answer: std::pin::Pin<&mut impl Future<Output = T>>,
    progress: &Progress,
    timeouts: Timeouts,
) -> Result<T, Failure> {
    loop {
        let written_at = progress.written_at.get();
        let (due, why) = if progress.is_sent() {
            let moved_at = written_at.max(progress.read_at.get());
            let due = (moved_at + timeouts.response).min(written_at + timeouts.response * TRICKLE);
            let why = format!("no answer within {} ms of the request", timeouts.response.as_millis());
            (due, Failure::new(Code::NoAnswer, why))
        } else {
            let why = format!("no byte of the request moved for {} ms", timeouts.progress.as_millis());
            (written_at + timeouts.progress, Failure::new(Code::Stalled, why))
        };
        if due <= Instant::now() {
            return Err(why);
        }
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = tokio::time::sleep_until(due) => {}
        }
    }
}
