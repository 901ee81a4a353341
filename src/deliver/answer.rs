//! Waits for a server's answer, and reads its body.

use std::future::Future;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use tokio::time::Instant;

use super::failure::Failure;
use super::progress::Progress;
use crate::config::Timeouts;

/// The most bytes of an answer's body that are read so that the connection can be reused.
pub const DRAIN_LIMIT: usize = 64 * 1024;
/// The longest time for that.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// The first check of unacknowledged bytes in the kernel; the intervals grow from there.
const FIRST_LOOK: Duration = Duration::from_millis(20);

/// What a server sent besides its status, for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The headers `Server`, `X-Powered-By` and `Via`, one per line.
    pub names: String,
    /// The beginning of the body, as received.
    pub words: Vec<u8>,
}

impl Heard {
    /// Of an answer with these headers and this beginning of its body.
    pub fn new(headers: &HeaderMap, words: Vec<u8>) -> Heard {
        let names = ["server", "x-powered-by", "via"].iter().flat_map(|name| headers.get_all(*name));
        let names = names.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned());
        Heard { names: names.collect::<Vec<_>>().join("\n"), words }
    }

    /// All of it, as text.
    pub fn said(&self) -> String {
        format!("{}\n{}\n", self.names, String::from_utf8_lossy(&self.words))
    }
}

/// Reads an answer's body to its end, and keeps the first `kept` bytes in `words`. Returns false if it is too long, takes too
/// long or breaks off: the connection cannot be reused then.
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

/// Waits for an answer's head while there is progress.
///
/// # Errors
/// Which progress was missing, and for how long.
pub async fn answer_in_time<T>(
    mut answer: std::pin::Pin<&mut impl Future<Output = T>>,
    progress: &Progress,
    timeouts: Timeouts,
) -> Result<T, Failure> {
    let most = timeouts.progress.min(timeouts.response) / 8;
    let mut pause = FIRST_LOOK.min(most);
    loop {
        let due = progress.due(timeouts);
        let now = Instant::now();
        if due <= now {
            return Err(progress.overdue(timeouts));
        }
        let next = if progress.has_arrived() { due } else { due.min(now + pause) };
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = tokio::time::sleep_until(next) => {
                progress.look();
            }
        }
        pause = (pause * 2).min(most);
    }
}
