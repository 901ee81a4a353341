//! One destination's HTTP client: a few kept-alive connections and what one try on them comes to.
//!
//! - A connection serves one request at a time; idle ones are taken newest first and dropped before servers usually drop them.
//! - A reused connection that ends before any byte of an answer was most likely closed while the request was on its way: one
//!   retry at once on a new connection, same id.
//! - Waiting is bounded by progress: while the body goes out by its last byte moved, then by the answer's.
//! - 2xx counts only when the server has had the whole body.
//! - An answer to nothing, before a request, is nobody's: that connection is not used. One that crosses a request on the wire
//!   cannot be told from its answer, so a server that was once heard to speak unasked gets a connection for each event.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

use super::answer::{DRAIN_LIMIT, Heard, answer_in_time, drain};
use super::connect::Memory;
use super::deadline::Deadline;
use super::failure::{Code, Early, Failure};
use super::head::{HYPER_TAKES, State};
use super::history::History;
use super::link::{Link, Turn};
use super::outcome::AttemptOutcome;
use super::permit::BodyPermit;
use super::progress::{Begun, Progress};
use super::rate::Rate;
use super::servers::Way;
use super::signature::Key;
use super::sizes::{EventSize, Known, Sizes};
use super::tls::Validity;
use super::transport::{self, describe};
use crate::body::constants::Constants;
use crate::body::encoder::{self, Pool};
use crate::body::{BodyOptions, EventBody, Sent, Template};
use crate::config::Report;
use crate::config::answers::AcceptBody;
use crate::config::proxy::Proxy;
use crate::config::sending::{Bounds, GIVES_UP, Order};
use crate::config::{Options, Timeouts, Url};
use crate::event::{Event, EventId};
use crate::ring::mapping::{Lost, PictureSource};

/// Idle connections are dropped after this: below the 5 s of the servers that drop theirs first.
pub const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// Of an answer, this is kept where somebody wants to see it, in bytes.
const WORDS: usize = 1024;
/// Whether an idle connection still stands is looked at so often.
const IDLE_LOOK: Duration = Duration::from_millis(50);
/// A connection serves so many requests.
const MOST_REQUESTS: u32 = 1000;
/// A server that spoke unasked gets one request a connection for this long.
const WARY: Duration = Duration::from_secs(3600);

const X_EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest event id: a ring's 32 digits, a sequence number's 20, and [`OF_HISTORY`].
const ID_LENGTH: usize = 32 + 1 + 20 + OF_HISTORY.len();
/// Stands behind the id of an event that is sent once more in the history: a receiver of both reports must not take it for a duplicate,
/// and can join them.
const OF_HISTORY: &str = "-history";

/// What becomes of a connection on which nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// There was none: the server closes after each answer.
    NotKept,
    /// The server closed it then.
    ClosedAfter(Duration),
    /// It was still there.
    Kept,
}

/// An event ready to go out, to any destination, any number of times.
pub struct Upload {
    /// What the recognizer said. Its body is written anew for each try, so that a config read again is in force for what waits.
    pub event: Rc<Event>,
    /// Where its pictures lie.
    pub source: Arc<dyn PictureSource>,
}

/// What a client needs to know.
#[derive(Clone)]
pub struct Settings {
    /// From the config.
    pub body: BodyOptions,
    /// What every event of this box has.
    pub constants: Arc<Constants>,
    /// From the config; the values are sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// From the config.
    pub timeouts: Timeouts,
    /// From the config, for this destination.
    pub options: Options,
    /// From the config and its file: the header with the signature, and the key.
    pub sign: Option<(HeaderName, Key)>,
    /// From the config, where this destination is reached through it.
    pub proxy: Option<Arc<Proxy>>,
    /// Between two times at which events are sent; none: at once.
    pub period: Option<Duration>,
    /// The servers that stand in, with their own settings.
    pub standby: Vec<(Url, Settings)>,
    /// How fast bytes may go out.
    pub rate: Option<Arc<Rate>>,
    /// From the config's certificate files.
    pub tls: Arc<rustls::ClientConfig>,
    /// For encoded chunks; one for all clients.
    pub pool: Arc<Pool>,
    /// Of what was delivered; one for all clients.
    pub history: Rc<History>,
}

impl Settings {
    /// Where events go one at a time: for how long one that is not taken may stop the others; zero: for ever.
    pub fn in_order(&self) -> Option<Duration> {
        let is_strict = self.options.order == Some(Order::Strict);
        is_strict.then(|| self.options.order_gives_up.unwrap_or(GIVES_UP))
    }

    /// What the link allows.
    pub fn bounds(&self) -> Bounds {
        self.options.bounds.unwrap_or_default()
    }
}

/// The client of one destination.
pub struct Client {
    url: Url,
    /// The URL's host and port, as each request names them.
    host: HeaderValue,
    settings: RefCell<Settings>,
    idle: RefCell<Vec<Connection>>,
    /// Counts the settings: a connection made under old ones is not kept.
    generation: Cell<u64>,
    last_answer: Cell<Option<u16>>,
    /// The destination was removed.
    is_retired: Cell<bool>,
    /// What the last answer said, where it was no 2xx or somebody wants to see it.
    heard: RefCell<Heard>,
    /// Somebody wants to see it.
    is_listening: bool,
    /// When the server's certificate is valid, where somebody wants to know.
    validity: Cell<Option<Validity>>,
    /// How large the events are that the server takes.
    sizes: RefCell<Sizes>,
    /// When the server was last heard to say what nobody had asked for.
    unsolicited_response: Rc<Cell<Option<Instant>>>,
    /// Of its addresses.
    memory: Arc<Memory>,
    /// The way there.
    link: Rc<Link>,
}

/// Dropping it ends the connection, and with it the reading of the event that is being sent: by then the event's room in the ring
/// may be another's.
pub(super) struct Connection {
    pub(super) sender: SendRequest<EventBody>,
    /// hyper's side of it.
    task: AbortHandle,
    generation: u64,
    pub(super) is_tls: bool,
    pub(super) progress: Rc<Progress>,
    idle_since: Instant,
    peer: Option<IpAddr>,
    /// The address that it goes out from.
    pub(super) local: Option<IpAddr>,
    /// It begins no request after that: a name may lead elsewhere by then, and a balancer have another server.
    ends_at: Instant,
    /// Nor more than these.
    requests_left: u32,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A try on a connection.
enum Try {
    Outcome(AttemptOutcome),
    /// The reused connection was closed under the request.
    Stale,
}

impl Client {
    /// A client without connections yet.
    pub fn new(url: Url, settings: Settings) -> Client {
        Client {
            host: HeaderValue::try_from(url.authority()).expect("checked in the config"),
            url,
            settings: RefCell::new(settings),
            idle: RefCell::default(),
            generation: Cell::new(0),
            last_answer: Cell::new(None),
            is_retired: Cell::new(false),
            heard: RefCell::default(),
            is_listening: false,
            validity: Cell::new(None),
            sizes: RefCell::default(),
            unsolicited_response: Rc::default(),
            memory: Arc::default(),
            link: Rc::default(),
        }
    }

    /// A client that keeps what answers say, for a person to read.
    pub fn listening(url: Url, settings: Settings) -> Client {
        Client { is_listening: true, ..Client::new(url, settings) }
    }

    /// What the last answer said; nothing where there was none, or nobody asked for it.
    pub fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// When the server's certificate is valid; none without TLS.
    pub fn validity(&self) -> Option<Validity> {
        self.validity.get()
    }

    /// Waits until the server closes the connection that is idle, `most` at the longest.
    pub async fn wait_for_close(&self, most: Duration) -> Idle {
        let Some(connection) = self.idle.borrow_mut().pop() else { return Idle::NotKept };
        let began = connection.idle_since;
        let close = async {
            while !connection.sender.is_closed() {
                tokio::time::sleep(IDLE_LOOK).await;
            }
        };
        match tokio::time::timeout(most, close).await {
            Ok(()) => Idle::ClosedAfter(began.elapsed()),
            Err(_) => Idle::Kept,
        }
    }

    /// Begins no request any more, not even on a connection that is just being made.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.idle.borrow_mut().clear();
    }

    /// Its destination.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The status of the last answer.
    pub fn last_answer(&self) -> Option<u16> {
        self.last_answer.get()
    }

    /// What the link allows.
    pub fn bounds(&self) -> Bounds {
        self.settings.borrow().bounds()
    }

    /// How bodies are written.
    pub fn body_options(&self) -> BodyOptions {
        self.settings.borrow().body
    }

    /// An event's body without its pictures.
    pub fn template(&self, event: &Event) -> Template {
        let settings = self.settings.borrow();
        Template::new(event, settings.body, &settings.constants)
    }

    /// The limit that the server was seen to have, for those who look.
    pub fn limit(&self) -> Option<Known> {
        self.sizes.borrow().known(self.settings.borrow().body.format)
    }

    /// Uses other settings from the next try on.
    pub fn configure(&self, settings: Settings) {
        let before = self.settings.replace(settings);
        if before.body != self.settings.borrow().body {
            self.sizes.take();
        }
        self.unsolicited_response.set(None);
        self.generation.set(self.generation.get() + 1);
        self.idle.borrow_mut().clear();
    }

    /// Tries once to deliver `upload` (twice, where the first try fell into the closing of an idle connection); what became of it, and how
    /// long the try took that counts. `permit` is dropped when its body has gone.
    pub async fn send(&self, upload: &Upload, permit: Option<BodyPermit>) -> (AttemptOutcome, Duration) {
        let pictures = upload.event.picture_sizes().sum::<usize>();
        let turn = match self.link.turn(pictures as u64).await {
            Ok(turn) => turn,
            Err(failure) => return (AttemptOutcome::NotBegun { failure }, Duration::ZERO),
        };
        let mut began = Instant::now();
        let outcome = self.try_to_send(upload, permit, turn, &mut began).await;
        let took = began.elapsed();
        if let AttemptOutcome::Unreachable { failure }
        | AttemptOutcome::Down { failure, .. }
        | AttemptOutcome::Misconfigured { failure } = &outcome
        {
            self.link.failed(failure);
        }
        if outcome == AttemptOutcome::Acknowledged {
            self.settings.borrow().history.delivered(took);
        }
        (outcome, took)
    }

    /// `began` is when the try began that counts.
    async fn try_to_send(
        &self,
        upload: &Upload,
        mut permit: Option<BodyPermit>,
        turn: Turn,
        began: &mut Instant,
    ) -> AttemptOutcome {
        let (mut turn, mut idle) = (Some(turn), self.take_idle());
        loop {
            let reused = idle.is_some();
            let connection = match idle.take() {
                Some(connection) => connection,
                None => match self.connect_unless_retired().await {
                    Ok(connection) => connection,
                    Err(failure) => return AttemptOutcome::Unreachable { failure },
                },
            };
            let again = permit.as_ref().filter(|_| reused).map(BodyPermit::again);
            match self.exchange(connection, reused, upload, permit.take(), turn.take()).await {
                Try::Outcome(outcome) => return outcome,
                Try::Stale if !reused => return AttemptOutcome::down(closed()),
                Try::Stale => {}
            }
            if let Some(again) = again {
                // A server that restarts closes many at once.
                permit = again.permit().await;
                if permit.is_none() {
                    return AttemptOutcome::NotBegun { failure: closed() };
                }
                *began = Instant::now();
            }
        }
    }

    pub(super) async fn connect_unless_retired(&self) -> Result<Connection, Failure> {
        let removed = || Err(Failure::new(Code::Removed, "the destination was removed"));
        if self.is_retired.get() {
            return removed();
        }
        let connected = self.connect().await;
        if self.is_retired.get() { removed() } else { connected }
    }

    /// Whether its answers may be to something else than the request before them: then a connection serves one request.
    fn is_wary(&self) -> bool {
        self.unsolicited_response.get().is_some_and(|at| at.elapsed() < WARY)
    }

    /// Drops connections that have been idle for too long; when the next one will have been, if any is left.
    pub fn drop_idle(&self) -> Option<Instant> {
        let mut idle = self.idle.borrow_mut();
        if self.is_wary() {
            idle.clear();
        }
        let now = Instant::now();
        idle.retain(|connection| {
            !connection.sender.is_closed()
                && now.duration_since(connection.idle_since) < IDLE_LIMIT
                && now < connection.ends_at
        });
        idle.iter().map(|connection| (connection.idle_since + IDLE_LIMIT).min(connection.ends_at)).min()
    }

    fn take_idle(&self) -> Option<Connection> {
        self.drop_idle();
        self.idle.borrow_mut().pop()
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let generation = self.generation.get();
        let (tls, timeouts, route) = {
            let settings = self.settings.borrow();
            let route = transport::Route { proxy: settings.proxy.clone(), rate: settings.rate.clone() };
            (Arc::clone(&settings.tls), settings.timeouts, route)
        };
        let deadline = Deadline::new(timeouts.connect);
        let transport = tokio::select! {
            biased;
            connected = transport::connect(self.url.uri(), tls, route, timeouts, &self.memory, &deadline) => connected?,
            never = self.link.extend(&deadline) => match never {},
        };
        if self.is_listening {
            self.validity.set(transport.validity());
        }
        let (progress, is_tls) = (Rc::clone(&transport.progress), transport.is_tls());
        let (peer, local) = (transport.peer(), transport.local());
        let (sender, connection) = http1::Builder::new()
            // As much of a request is gathered, too, before it is written: two buffers of ours, the first being a little shorter.
            .max_buf_size(HYPER_TAKES)
            .title_case_headers(true)
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|error| describe(&error, Code::ConnectFailed))?;
        let (unsolicited_response, url) = (Rc::clone(&self.unsolicited_response), self.url.clone());
        let task = tokio::task::spawn_local(async move {
            // Of other failures whoever sent the request is told.
            if let Err(error) = connection.await {
                note_unasked(&error, &unsolicited_response, &url);
            }
        });
        let now = Instant::now();
        // Not all at once: those that began together would end together, again and again.
        let age = timeouts.connection_age.mul_f64(1.0 - fastrand::f64() / 4.0);
        Ok(Connection {
            sender,
            task: task.abort_handle(),
            generation,
            is_tls,
            progress,
            idle_since: now,
            peer,
            local,
            ends_at: now + age,
            requests_left: MOST_REQUESTS - fastrand::u32(..MOST_REQUESTS / 4),
        })
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        reused: bool,
        upload: &Upload,
        permit: Option<BodyPermit>,
        turn: Option<Turn>,
    ) -> Try {
        self.heard.take();
        let sent = Sent::default();
        let template = self.template(&upload.event);
        let length = template.length();
        let mut request = self.request(Some(upload.event.id), Arc::clone(&upload.source), template, &sent);
        if self.settings.borrow().sign.is_some() {
            match Box::pin(self.signature(upload)).await {
                Ok(signature) => request.headers_mut().extend(signature.map(|(name, value)| (Some(name), value))),
                Err(Lost) => return Try::Outcome(AttemptOutcome::SourceLost),
            }
        }
        let read_before = connection.progress.read();
        let timeouts = self.settings.borrow().timeouts;
        connection.requests_left -= 1;
        // A new TLS connection may bring session tickets at any time.
        let begins = reused || !connection.is_tls;
        connection.progress.begin(Begun { sent, length, permit, turn, begins }, &self.link);
        let answer = {
            let answer = pin!(connection.sender.send_request(request));
            answer_in_time(answer, &connection.progress, timeouts).await
        };
        connection.progress.end();
        let peer = connection.peer;
        let mut tried = match answer {
            Ok(Ok(response)) => {
                // Not what has gone by now: the rest may have found its way since the answer came.
                let early = connection.progress.early();
                Try::Outcome(self.finish(connection, response, early).await)
            }
            Ok(Err(error)) if error.source().is_some_and(|cause| cause.is::<Lost>()) => {
                Try::Outcome(AttemptOutcome::SourceLost)
            }
            Ok(Err(error)) if reused && connection.progress.read() == read_before => {
                note_unasked(&error, &self.unsolicited_response, &self.url);
                Try::Stale
            }
            Ok(Err(error)) => Try::Outcome(match connection.progress.status() {
                // Only the status matters of a head that hyper does not understand.
                Some(status) if error.is_parse() || transport::is_oversize(&error) => {
                    self.last_answer.set(Some(status));
                    AttemptOutcome::of_answer(status, &HeaderMap::new(), connection.progress.early())
                }
                _ => AttemptOutcome::down(broken(&error, &connection.progress)),
            }),
            Err(failure) => Try::Outcome(AttemptOutcome::down(failure)),
        };
        if let (Try::Outcome(outcome), Some(peer)) = (&tried, peer) {
            let is_answer = outcome.failure().is_none_or(|failure| failure.code.is_answer());
            self.memory.note(peer, is_answer);
        }
        if let (Try::Outcome(outcome), false) = (&mut tried, self.is_listening) {
            let larger = upload.event.picture_sizes().max().unwrap_or_default();
            self.learn(EventSize { body: length, field: encoder::encoded_len(larger) }, outcome);
        }
        tried
    }

    /// Takes note of how large an event was that was taken, or let go; of one that is beyond the server's limit the failure says so.
    fn learn(&self, size: EventSize, outcome: &mut AttemptOutcome) {
        if *outcome == AttemptOutcome::Acknowledged {
            return self.sizes.borrow_mut().took(size);
        }
        let Some(way) = outcome.failure().and_then(Way::of) else { return };
        let was_known = self.limit().is_some();
        self.sizes.borrow_mut().refused(size, way, || self.heard.borrow().said());
        let Some(limit) = self.limit().filter(|limit| size.body >= limit.refuses_body_bytes) else { return };
        if !was_known {
            warn!(url = %self.url, "the server has a limit: {limit}");
        }
        if let Some(failure) = outcome.failure_mut() {
            failure.why = format!("{}; {limit}", failure.why);
        }
    }

    /// The header that signs an event's body, where that is on.
    async fn signature(&self, upload: &Upload) -> Result<Option<(HeaderName, HeaderValue)>, Lost> {
        let (sign, pool) = {
            let settings = self.settings.borrow();
            (settings.sign.clone(), Arc::clone(&settings.pool))
        };
        let Some((header, key)) = sign else { return Ok(None) };
        let signature = key.sign(self.template(&upload.event), Arc::clone(&upload.source), pool).await?;
        Ok(Some((header, signature)))
    }

    /// What an answer means by HTTP and by the config, and what its body has to say yet.
    fn judge(&self, status: u16, headers: &HeaderMap, early: Option<Early>) -> (AttemptOutcome, Option<AcceptBody>) {
        let settings = self.settings.borrow();
        let mut outcome = AttemptOutcome::of_answer(status, headers, early);
        let answers = settings.options.answers.as_ref();
        if let Some(meaning) = answers.and_then(|answers| answers.meaning(status)) {
            outcome = outcome.meaning(meaning, early);
        }
        let proxy = self.forward_proxy(&settings).filter(|_| status == 401);
        if let (Some(failure), Some(proxy)) = (outcome.failure_mut(), proxy) {
            // tinyproxy answers so to a wrong password.
            failure.why = format!("{}, and user and password in proxy.url: it may be {proxy} that asks", failure.why);
        }
        let rule = settings.options.accept_body.as_ref();
        let rule = rule.filter(|rule| !rule.is_empty() && outcome == AttemptOutcome::Acknowledged).cloned();
        (outcome, rule)
    }

    /// The proxy that reads the requests and forwards them; through a tunnel it reads nothing.
    fn forward_proxy<'a>(&self, settings: &'a Settings) -> Option<&'a Proxy> {
        settings.proxy.as_deref().filter(|_| !self.url.is_tls())
    }

    /// A POST of a body; `id` is its event's, if it is one's.
    pub(super) fn request(
        &self,
        id: Option<EventId>,
        source: Arc<dyn PictureSource>,
        mut template: Template,
        sent: &Sent,
    ) -> Request<EventBody> {
        let settings = self.settings.borrow();
        let content_type = match std::mem::take(&mut template.content_type) {
            Cow::Borrowed(name) => HeaderValue::from_static(name),
            Cow::Owned(name) => HeaderValue::try_from(name).expect("ours"),
        };
        let mut headers = HeaderMap::with_capacity(8 + settings.headers.len());
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sophon-uplink/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &settings.headers {
            headers.insert(name, value.clone());
        }
        let proxy = self.forward_proxy(&settings);
        if let Some(login) = proxy.and_then(Proxy::authorization) {
            headers.insert(PROXY_AUTHORIZATION, login.clone());
        }
        headers.insert(CONTENT_TYPE, content_type);
        if let Some(id) = id.map(|id| self.name_of(id)) {
            headers.insert(X_EVENT_ID, id.clone());
            headers.insert(IDEMPOTENCY_KEY, id);
        }
        let body = EventBody::new(template, source, Arc::clone(&settings.pool), Arc::clone(sent));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = if proxy.is_some() { self.url.uri() } else { self.url.target() }.clone();
        *request.headers_mut() = headers;
        request
    }

    /// What an event is called there.
    fn name_of(&self, id: EventId) -> HeaderValue {
        let mut name = String::with_capacity(ID_LENGTH);
        write!(name, "{id}").expect("a String takes everything");
        if self.url.report() == Report::History {
            name.push_str(OF_HISTORY);
        }
        HeaderValue::try_from(name).expect("hex and digits")
    }

    /// The way there.
    pub(super) fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// How long to wait for what.
    pub(super) fn timeouts(&self) -> Timeouts {
        self.settings.borrow().timeouts
    }

    /// The server answered with this status.
    pub(super) fn note_answer(&self, status: u16) {
        self.last_answer.set(Some(status));
    }

    /// Judges an answer, and keeps the connection where it can be kept.
    async fn finish(
        &self,
        mut connection: Connection,
        response: Response<Incoming>,
        early: Option<Early>,
    ) -> AttemptOutcome {
        let (head, body) = response.into_parts();
        self.last_answer.set(Some(head.status.as_u16()));
        let (mut outcome, rule) = self.judge(head.status.as_u16(), &head.headers, early);
        let is_kept = self.is_listening || outcome != AttemptOutcome::Acknowledged;
        let kept = match is_kept {
            _ if rule.is_some() => DRAIN_LIMIT,
            true => WORDS,
            false => 0,
        };
        let mut words = Vec::new();
        let is_read = (early.is_none() || self.is_listening) && drain(body, &mut words, kept).await;
        if let Some(rule) = rule {
            let checked =
                if is_read { rule.check(&words) } else { Err("it does not end in time, or in 64 KiB".into()) };
            if let Err(why) = checked {
                outcome = AttemptOutcome::not_accepted(head.status.as_u16(), &why);
            }
        }
        if is_kept || outcome != AttemptOutcome::Acknowledged {
            words.truncate(WORDS);
            self.heard.replace(Heard::new(&head.headers, words));
        }
        if early.is_some() {
            return outcome;
        }
        let current = connection.generation == self.generation.get();
        if current
            && is_read
            && connection.requests_left > 0
            && Instant::now() < connection.ends_at
            && connection.sender.ready().await.is_ok()
            && !self.is_wary()
        {
            connection.idle_since = Instant::now();
            self.idle.borrow_mut().push(connection);
        }
        outcome
    }
}

fn closed() -> Failure {
    Failure::new(Code::ClosedWithoutAnswer, "the server closed the connection without an answer")
}

/// The failure of a connection that ended, or brought what is no answer.
pub(super) fn broken(error: &hyper::Error, progress: &Progress) -> Failure {
    let code = match () {
        () if transport::is_unasked(error) => Code::UnaskedAnswer,
        () if error.is_parse_too_large() || progress.head_state() == State::TooLarge => Code::AnswerTooLarge,
        () if error.is_parse() => Code::BadAnswer,
        () if progress.is_sent() => Code::ClosedWithoutAnswer,
        () => Code::Interrupted,
    };
    describe(error, code)
}

/// Takes note of it where a connection failed because the server said what nobody had asked for; the first time in a while is said.
fn note_unasked(error: &hyper::Error, unsolicited_response: &Cell<Option<Instant>>, url: &Url) {
    if !transport::is_unasked(error) {
        return;
    }
    let before = unsolicited_response.replace(Some(Instant::now()));
    if before.is_none_or(|at| at.elapsed() >= WARY) {
        warn!(%url, "the server answers what nobody asked: each event gets a connection of its own for {} s", WARY.as_secs());
    }
}
