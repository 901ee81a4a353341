//! The connection to the engine: publishing a message and waiting for its ack, and a look at the stream every few seconds.
//!
//! `ready` says whether events are accepted; `fault` says what is wrong. If the stream does not answer for a while, there is a
//! fault, but events are still accepted: the settings are known from before, and each publish shows whether there is a quorum.

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::connection::State as Connection;
use async_nats::{Client, HeaderMap, Message as Answer, StatusCode};
use bytes::Bytes;
use hyper::StatusCode as Status;
use sophon_uplink::rate_limited::RateLimited;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::connection::{LastError, connect};
use super::info::{self as stated, Copies, StreamInfo};
use super::message::Message;
use super::options::Options;
use super::outcome::{self, Ack, EngineError, Trouble};
use super::replies::Replies;
use super::settings;

/// For an ack: less than the ten seconds that a box waits for an answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(8);
/// For STREAM.INFO.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// The interval between two checks of the stream: while all is well, and while there is a fault.
const LOOKS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];
/// The log warns from this fullness on: somebody should make room.
const NEARLY_FULL: f64 = 0.9;

/// What the last look found.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamState {
    /// The largest body in bytes, or why none is taken.
    ready: Result<u64, String>,
    fault: Option<String>,
    /// From 0 to 1.
    pub fullness: f64,
    pub copies: Copies,
}

/// See the module.
pub struct Engine {
    client: Client,
    replies: Arc<Replies>,
    stream: Arc<str>,
    state: watch::Receiver<StreamState>,
}

impl Engine {
    /// Reads the files, and begins to connect; an error is one of the files'.
    pub async fn start(options: &Options) -> Result<Engine, String> {
        let last_error = Arc::new(LastError::default());
        let client = connect(options, last_error.clone()).await?;
        let replies = Arc::new(Replies::start(&client).await?);
        let begin = StreamState {
            ready: Err("not connected yet".into()),
            fault: Some("not connected yet".into()),
            fullness: 0.0,
            copies: Copies::default(),
        };
        let (sender, state) = watch::channel(begin);
        let engine = Engine { client, replies, stream: options.stream().into(), state };
        let look = Look {
            engine: engine.cloned(),
            servers: options.servers.join(", "),
            last_error,
            warned: Vec::new(),
            log_limiter: RateLimited::new(1),
        };
        tokio::spawn(look.run(sender));
        Ok(engine)
    }

    fn cloned(&self) -> Engine {
        let Engine { client, replies, stream, state } = self;
        Engine { client: client.clone(), replies: replies.clone(), stream: stream.clone(), state: state.clone() }
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// What the last look found.
    pub fn state(&self) -> StreamState {
        self.state.borrow().clone()
    }

    /// The largest body that is taken at present, in bytes.
    pub fn ready(&self) -> Result<u64, Trouble> {
        if !self.is_connected() {
            return Err(Trouble::soon("not_connected", "not connected to the stream's servers; send it again"));
        }
        self.state.borrow().ready.clone().map_err(|why| Trouble { alarm: false, ..Trouble::later("not_ready", why) })
    }

    /// Why all is not well.
    pub fn fault(&self) -> Option<String> {
        self.state.borrow().fault.clone()
    }

    /// Publishes a message; `Ok` when the stream has it.
    pub async fn publish(&self, message: Message) -> Result<Ack, Trouble> {
        let Message { subject, headers, payload } = message;
        let answer = self.request(subject, headers, payload, REPLY_TIMEOUT).await?;
        outcome::of_answer(&answer.payload, &self.stream)
    }

    /// Sends a request and waits for its answer. A request without an answer is not cancelled: the server may still carry it out.
    async fn request(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Answer, Trouble> {
        if !self.is_connected() {
            return Err(Trouble::soon("not_connected", "not connected to the stream's servers; send it again"));
        }
        let mut expected = self.replies.expect();
        let inbox = expected.subject.clone();
        let asked = async {
            let sent = self.client.publish_with_reply_and_headers(subject, inbox, headers, payload).await;
            sent.map_err(|error| self.not_sent(&error))?;
            expected
                .wait()
                .await
                .ok_or_else(|| Trouble::soon("not_connected", "the connection to the servers has ended"))
        };
        match timeout(patience, asked).await {
            Ok(Ok(answer)) if answer.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Trouble::soon("no_responders", "the stream has no leader at present; send it again"))
            }
            Ok(answer) => answer,
            Err(_) => Err(Trouble::soon("timeout", "the stream did not answer in time; send it again")),
        }
    }

    fn not_sent(&self, error: &PublishError) -> Trouble {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                let most = self.client.max_payload();
                let text = format!(
                    "the event takes more than the {most} bytes that the server takes in a message (max_payload)"
                );
                Trouble { status: Status::PAYLOAD_TOO_LARGE, alarm: false, ..Trouble::later("too_large", text) }
            }
            PublishErrorKind::Send => Trouble::soon("not_connected", "the connection to the servers has ended"),
            _ => Trouble::later("misconfigured", format!("the message could not be sent: {error}")),
        }
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == Connection::Connected
    }
}

/// Looks at the stream as long as the gateway runs.
struct Look {
    engine: Engine,
    servers: String,
    last_error: Arc<LastError>,
    /// What was warned of at the last look.
    warned: Vec<String>,
    log_limiter: RateLimited,
}

impl Look {
    async fn run(mut self, sender: watch::Sender<StreamState>) {
        loop {
            let before = sender.borrow().clone();
            let state = self.look(&before).await;
            self.say(&before, &state);
            let is_well = state.fault.is_none();
            sender.send_replace(state);
            let _ = timeout(LOOKS[usize::from(!is_well)], self.last_error.changed()).await;
        }
    }

    async fn look(&mut self, before: &StreamState) -> StreamState {
        let blind = |ready, fault: String| StreamState { ready, fault: Some(fault), ..before.clone() };
        let refused = |fault: String| blind(Err(fault.clone()), fault);
        if !self.engine.is_connected() {
            let last = self.last_error.last();
            let fault = format!("not connected to {}{}{last}", self.servers, if last.is_empty() { "" } else { ": " });
            // Not connected is said of each event; what the settings were is still true when the connection is back.
            return blind(before.ready.clone().or(Err(fault.clone())), fault);
        }
        if let Some(fault) = settings::version_fault(&self.engine.client.server_info().version) {
            return refused(fault);
        }
        let stream = &self.engine.stream;
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let answer = self.engine.request(subject, HeaderMap::new(), Bytes::new(), CHECK_TIMEOUT).await;
        match answer.map(|answer| info_of(&answer.payload)) {
            Ok(Ok(info)) => self.judge(&info),
            Ok(Err(Some(EngineError { err_code: 10059, .. }))) => {
                refused(format!("there is no stream {stream}: make one, see docs/fleet.md"))
            }
            Ok(Err(Some(error))) => {
                blind(before.ready.clone(), format!("the stream {stream} does not tell its settings: {error:?}"))
            }
            Ok(Err(None)) => blind(before.ready.clone(), "the answer to STREAM.INFO cannot be parsed".into()),
            Err(trouble) => {
                let hint = self.last_error.last();
                let hint = if hint.is_empty() { hint } else { format!(" (the last error of the connection: {hint})") };
                blind(
                    before.ready.clone(),
                    format!("the stream {stream} does not tell its settings: {}{hint}", trouble.text),
                )
            }
        }
    }

    fn judge(&mut self, info: &StreamInfo) -> StreamState {
        let max_payload = self.engine.client.max_payload();
        let found = settings::check(&info.config, max_payload);
        for warning in found.warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            warn!("{warning}");
        }
        self.warned = found.warnings;
        let fullness = stated::fullness(info);
        if fullness >= NEARLY_FULL {
            let percent = fullness * 100.0;
            self.log_limiter
                .say(|more| warn!("the stream is {percent:.0} % full: make room, or raise max_bytes{more}"));
        }
        let stream = &self.engine.stream;
        let (copies, quorum) = stated::copies(&info.cluster);
        let wrong = (!found.faults.is_empty()).then(|| format!("the stream {stream}: {}", found.faults.join(". ")));
        let fault = wrong.clone().or_else(|| quorum.err().map(|error| format!("the stream {stream}: {error}")));
        let limit = stated::limit(&info.config, max_payload);
        StreamState { ready: wrong.map_or(Ok(limit), Err), fault, fullness, copies }
    }

    fn say(&self, before: &StreamState, now: &StreamState) {
        match (&before.fault, &now.fault) {
            (before, Some(fault)) if before.as_ref() != Some(fault) => warn!("not ready: {fault}"),
            (Some(_), None) => info!(
                "ready: the stream {} takes bodies of {} bytes",
                self.engine.stream,
                now.ready.clone().unwrap_or(0)
            ),
            _ => {}
        }
    }
}

fn info_of(answer: &[u8]) -> Result<StreamInfo, Option<EngineError>> {
    #[derive(serde::Deserialize)]
    struct Failed {
        error: EngineError,
    }
    serde_json::from_slice(answer).map_err(|_| serde_json::from_slice(answer).ok().map(|Failed { error }| error))
}
