//! `/api/stream`: new events of the journal as server-sent events.
//!
//! - `event: stored`, data: the event's line, as in events.jsonl
//! - `event: counters`, data: the counters. A reader gets them first, and then after each change; changes in quick succession are
//!   combined.
//! - a comment every 15 s, so that proxies and readers see that the connection is alive
//!
//! A reader that lags behind further than the journal allows is dropped. It reconnects by itself and then gets the list anew.
//! Events not sent yet are references into that list, so slow readers cost no memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use crate::journal::{Counters, Journal};
use crate::record::Record;
use crate::routes::{App, Reply, failure};
use crate::search::Search;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One reader of the stream.
struct Reader {
    counters: watch::Receiver<Counters>,
    news: broadcast::Receiver<Weak<Record>>,
    search: Search,
    /// Pieces of messages that are still to be sent.
    pieces: VecDeque<Bytes>,
    _room: OwnedSemaphorePermit,
}

/// Answers `GET /api/stream`: the new events that are asked for.
pub fn follow(app: &App, journal: &Journal, search: Search) -> Reply {
    let Ok(room) = app.streams.clone().try_acquire_owned() else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, &["too many readers of /api/stream; try again later".into()]);
    };
    let (mut counters, news) = journal.follow();
    let first = counters_message(&counters.borrow_and_update());
    // EventSource reconnects after this many milliseconds.
    let pieces = VecDeque::from([Bytes::from_static(b"retry: 1000\n\n"), first]);
    let reader = Reader { counters, news, search, pieces, _room: room };
    let frames = stream::unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), reader))
    });
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().expect("a plain text"));
    reply
}

impl Reader {
    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(piece);
            }
            tokio::select! {
                news = self.news.recv() => {
                    // An error means that this reader is too far behind.
                    if let Some(record) = news.ok()?.upgrade().filter(|record| self.search.finds(&record.keys)) {
                        let start = Bytes::from_static(b"event: stored\ndata: ");
                        self.pieces.extend([start, record.json.clone(), Bytes::from_static(b"\n\n")]);
                    }
                }
                changed = self.counters.changed() => {
                    changed.ok()?;
                    return Some(counters_message(&self.counters.borrow_and_update()));
                }
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }
}

fn counters_message(counters: &Counters) -> Bytes {
    let counters = serde_json::to_string(counters).expect("counters have nothing that JSON cannot hold");
    format!("event: counters\ndata: {counters}\n\n").into()
}
