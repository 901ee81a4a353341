//! `--gallery-from`: the page of events and the page of boxes, filled from a stream instead of by POST. A gallery accepts no
//! events and keeps only what it shows. So it may be killed and started at any time, and any number of galleries may run.
//!
//! ```text
//!  events.*.realtime, events.*.history ──▶ consumer NAME-events (`pull`) ──▶ checked (`event`) ──▶ journal ──▶ /, /api/events, /api/stream
//!  events.*.status, the last of each   ──▶ consumer NAME-boxes           ──▶ boxes ──▶ /boxes, /api/boxes
//! ```
//! It uses the journal, boxes and pages of the folder store. An event is shown once: its message id is its id here. The gallery
//! shows the last 1,000 events, with at most 128 MiB of pictures, and knows 100,000 ids. A start begins as far back in the
//! stream. The subject, which the gateway wrote, decides to which box an event or a report belongs: a box cannot change another
//! box's row by what its body says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{Client, Message};
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use tokio::time::Instant;

use super::connection::{LastError, connect};
use super::message::ROOT;
use super::options::Options;
use super::pull::{Begin, Consumer, MessageHandler};
use crate::boxes::{Came, StateReport};
use crate::dialect::Report;
use crate::error::ApiError;
use crate::escape::unescaped;
use crate::event;
use crate::fields::{Body, Format};
use crate::folder::Folder;
use crate::journal::Journal;
use crate::record::Arrival;
use crate::store::{Delivery, RequestHead, Sender, Store};

const EVENTS: &[&str] = &["events.*.realtime", "events.*.history"];
const STATES: &[&str] = &["events.*.status"];

/// See the module.
pub struct Gallery {
    /// The content of the pages.
    pub shown: Arc<Folder>,
    faults: Faults,
}

/// Why no messages arrive, by consumer.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Gallery {
    /// Reads the files that the options name, and starts to look for the stream, which may not exist yet.
    pub async fn start(options: &Options) -> Result<Gallery, String> {
        let last_error = Arc::new(LastError::default());
        let client = connect(options, last_error.clone()).await?;
        let shown = Arc::new(Folder::new(Journal::of_stream(options.stream().to_owned())));
        let faults = Faults::default();
        let kinds =
            [("events", EVENTS, Begin::Last(Journal::most_of_a_stream())), ("boxes", STATES, Begin::LastOfEach)];
        for (kind, subjects, begin) in kinds {
            faults.lock().insert(kind, "not connected yet".into());
            let (client, stream) = (client.clone(), options.stream().to_owned());
            let name = format!("{}-{kind}", options.consumer());
            let handler = GalleryHandler {
                kind,
                shown: shown.clone(),
                faults: faults.clone(),
                client: client.clone(),
                last_error: last_error.clone(),
            };
            tokio::spawn(Consumer { client, stream, name, subjects, begin }.run(handler));
        }
        Ok(Gallery { shown, faults })
    }
}

impl Store for Gallery {
    /// A box that gets this answer keeps its events and comes again.
    fn admit(&self, _: &RequestHead) -> Result<Sender, ApiError> {
        const WHY: &str =
            "this is a gallery, which shows what is in a stream and takes nothing: send to a gateway (docs/fleet.md)";
        Err(ApiError::counted(StatusCode::FORBIDDEN, "gallery", WHY))
    }

    fn keep(self: Arc<Self>, _: Delivery) -> BoxFuture<'static, Result<(), ApiError>> {
        unreachable!("nothing is admitted")
    }

    fn refused(&self, refusal: &ApiError) {
        self.shown.journal.reject(&refusal.errors);
    }

    fn fault(&self) -> Option<String> {
        self.faults.lock().values().next().cloned()
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the messages of one consumer where the pages look.
struct GalleryHandler {
    kind: &'static str,
    shown: Arc<Folder>,
    faults: Faults,
    client: Client,
    last_error: Arc<LastError>,
}

impl MessageHandler for GalleryHandler {
    async fn handle(&self, message: Message) {
        if let Err(errors) = show(&self.shown, message).await {
            self.shown.journal.reject(&errors);
        }
    }

    fn report(&self, fault: Option<String>) {
        let mut faults = self.faults.lock();
        let Some(fault) = fault else {
            if faults.remove(self.kind).is_some() {
                tracing::info!("{} come from the stream", self.kind);
            }
            return;
        };
        let last = self.last_error.last();
        let fault = if last.is_empty() { fault } else { format!("{fault} (the last error of the connection: {last})") };
        let fault = format!("{} do not come from {}: {fault}", self.kind, self.client.server_info().server_name);
        if faults.insert(self.kind, fault.clone()).as_ref() != Some(&fault) {
            tracing::warn!("{fault}");
        }
    }
}

/// Shows the event or state of a message. The error says why a gateway cannot have made the message.
async fn show(shown: &Arc<Folder>, message: Message) -> Result<(), Vec<String>> {
    let subject = message.subject.to_string();
    let rejected = |error: &str| vec![format!("{subject}: {error}")];
    let mut tokens = subject.split('.');
    let (Some(ROOT), Some(name), Some(kind), None) = (tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return Err(rejected("a gateway makes no such subject"));
    };
    let name = unescaped(name).ok_or_else(|| rejected("the subject has no valid name of a box"))?;
    let header = |name: &str| {
        message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned())
    };
    let received_at = header("Event-Received").unwrap_or_default();
    if kind == "status" {
        let report = StateReport::of(&message.payload)?;
        let (sequence, age) = place(message.reply.as_deref().unwrap_or_default()).unwrap_or_default();
        shown.boxes.take(name, report, Came { age, received_at, sequence }, Instant::now());
        return Ok(());
    }
    let report = if kind == Report::History.name() { Report::History } else { Report::RealTime };
    let id = header(NATS_MESSAGE_ID.as_ref()).ok_or_else(|| rejected("no Nats-Msg-Id"))?;
    let format = Format::of(header("Content-Type").as_deref()).map_err(|(_, error)| rejected(&error))?;
    let body = Body::read(&format, message.payload).await.map_err(|error| rejected(&error))?;
    let shown = shown.clone();
    let format = format.name();
    // Base64 and SHA-256 of megabytes: not on the thread of the sockets.
    let taken = tokio::task::spawn_blocking(move || {
        let event = event::check(&body.fields().map_err(|error| vec![error])?, report)?;
        let arrival = Arrival { id, box_name: Some(name), received_at, format, event };
        shown.journal.take(arrival).map(|_| ()).map_err(|error| vec![error.to_string()])
    });
    taken.await.unwrap_or_else(|_| Err(vec!["the event could not be checked: this is a bug".into()]))
}

/// Where a message is in its stream, and how long it has been there, by the subject of its ack:
/// `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.NUMBER.NANOSECONDS.PENDING`, with two more tokens before STREAM where there are
/// domains.
fn place(reply: &str) -> Option<(Option<u64>, Duration)> {
    let tokens: Vec<&str> = reply.split('.').collect();
    let rest = match tokens.as_slice() {
        ["$JS", "ACK", rest @ ..] if rest.len() == 7 => rest,
        ["$JS", "ACK", _, _, rest @ ..] if rest.len() >= 7 => rest,
        _ => return None,
    };
    let then = UNIX_EPOCH + Duration::from_nanos(rest[5].parse().ok()?);
    Some((rest[3].parse().ok(), SystemTime::now().duration_since(then).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_message_is_in_the_subject_of_its_ack() {
        let hour_ago = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(3600)).as_nanos();
        for reply in [
            format!("$JS.ACK.EVENTS.gallery-boxes.1.17.3.{hour_ago}.5"),
            format!("$JS.ACK._.hash.EVENTS.gallery-boxes.1.17.3.{hour_ago}.5"),
            format!("$JS.ACK.domain.hash.EVENTS.gallery-boxes.1.17.3.{hour_ago}.5.random"),
        ] {
            let (sequence, age) = place(&reply).expect(&reply);
            assert_eq!(sequence, Some(17));
            assert!((3600..4600).contains(&age.as_secs()), "{age:?}");
        }
        for reply in ["", "_INBOX.x", "$JS.ACK.a.b.c.d.e.f", "$JS.ACK.S.c.1.2.3.x.4"] {
            assert_eq!(place(reply), None, "{reply}");
        }
    }
}
