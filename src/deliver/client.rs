//! The HTTP client of one destination: a few kept-alive connections, and one attempt at a time on each.
//!
//! - A connection serves one request at a time. The newest idle one is used first. Idle ones are dropped before servers usually
//!   drop them.
//! - A reused connection that ends before any byte of an answer was most likely closed while the request was in transit. The
//!   request is sent once more at once on a new connection, with the same id.
//! - Timeouts run from the last progress: from the body's last byte that moved, then from the answer's last byte.
//! - A 2xx counts only if the server had the whole body.
//! - A response that comes before a request belongs to no request: the connection is not used. If such a response crosses a
//!   request in transit, it cannot be told from the answer. So a server that sent an unsolicited response gets a new connection
//!   for each event, for an hour.

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
use crate::picture::{Lost, PictureSource};

/// Idle connections are dropped after this time, which is below the 5 s after which some servers drop them.
pub const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How many bytes of an answer's body are kept for people to read.
const KEPT_BYTES: usize = 1024;
/// The interval between checks whether an idle connection is still open.
const IDLE_LOOK: Duration = Duration::from_millis(50);
/// The most requests on one connection.
const MOST_REQUESTS: u32 = 1000;
/// After an unsolicited response each connection serves one request for this long.
const AVOID_REUSE: Duration = Duration::from_secs(3600);

const X_EVENT_ID: HeaderName = HeaderName::from_static("x-event-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The length of the longest event id: 32 digits of the ring, 20 of the sequence number, and [`OF_HISTORY`].
const ID_LENGTH: usize = 32 + 1 + 20 + OF_HISTORY.len();
/// The suffix of an event's id in the history report. A receiver of both reports must not take the second one for a duplicate,
/// and can join the two.
const OF_HISTORY: &str = "-history";

/// What happens to a connection that is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// There was no idle connection: the server closes it after each answer.
    NotKept,
    /// The server closed it after this time.
    ClosedAfter(Duration),
    /// The server kept it open.
    Kept,
}

/// An event that can be sent to any destination, any number of times.
pub struct Upload {
    /// The event. Its body is built for each attempt, so that a changed config applies to waiting events.
    pub event: Rc<Event>,
    /// The source of its pictures.
    pub source: Arc<dyn PictureSource>,
}

/// The settings of a client.
#[derive(Clone)]
pub struct Settings {
    /// The format of bodies, from the config.
    pub body: BodyOptions,
    /// The parts of a body that are the same for every event of this box.
    pub constants: Arc<Constants>,
    /// The headers, from the config; their values are sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The timeouts, from the config.
    pub timeouts: Timeouts,
    /// The options of this destination, from the config.
    pub options: Options,
    /// The header for the signature, and the key; from the config and its key file.
    pub sign: Option<(HeaderName, Key)>,
    /// The proxy, from the config, if this destination is reached through one.
    pub proxy: Option<Arc<Proxy>>,
    /// The period, if events are sent once a period; none: at once.
    pub period: Option<Duration>,
    /// The standby servers, with their own settings.
    pub standby: Vec<(Url, Settings)>,
    /// Limits the bytes per second.
    pub rate: Option<Arc<Rate>>,
    /// The TLS config, from the config's certificate files.
    pub tls: Arc<rustls::ClientConfig>,
    /// Buffers for encoded chunks, shared by all clients.
    pub pool: Arc<Pool>,
    /// Statistics of deliveries, shared by all clients.
    pub history: Rc<History>,
}

impl Settings {
    /// Set for strict order: how long an event that is not taken may stop the others; zero: without a limit.
    pub fn in_order(&self) -> Option<Duration> {
        let is_strict = self.options.order == Some(Order::Strict);
        is_strict.then(|| self.options.order_gives_up.unwrap_or(GIVES_UP))
    }

    /// The limits on what is sent: rate, hours and age.
    pub fn bounds(&self) -> Bounds {
        self.options.bounds.unwrap_or_default()
    }
}

/// The client of one destination.
pub struct Client {
    url: Url,
    /// The URL's host and port, for the `Host` header.
    host: HeaderValue,
    settings: RefCell<Settings>,
    idle: RefCell<Vec<Connection>>,
    /// Counts the settings: a connection that was made under old ones is not kept.
    generation: Cell<u64>,
    last_answer: Cell<Option<u16>>,
    /// Whether the destination was removed.
    is_retired: Cell<bool>,
    /// The content of the last answer, if it was not a 2xx or `is_listening`.
    heard: RefCell<Heard>,
    /// Whether answers are kept for people to read.
    is_listening: bool,
    /// The validity of the server's certificate, if `is_listening`.
    validity: Cell<Option<Validity>>,
    /// The sizes of events that the server accepts.
    sizes: RefCell<Sizes>,
    /// When the server last sent an unsolicited response.
    unsolicited_response: Rc<Cell<Option<Instant>>>,
    /// What is remembered of its addresses.
    memory: Arc<Memory>,
    /// The link to the destination.
    link: Rc<Link>,
}

/// A connection. Dropping it also ends the reading of the event that is being sent: after that the event's room in the ring may
/// be released.
pub(super) struct Connection {
    pub(super) sender: SendRequest<EventBody>,
    /// The hyper task of the connection.
    task: AbortHandle,
    generation: u64,
    pub(super) is_tls: bool,
    pub(super) progress: Rc<Progress>,
    idle_since: Instant,
    peer: Option<IpAddr>,
    /// The local address.
    pub(super) local: Option<IpAddr>,
    /// No request begins after this, because the name may resolve to another address by then, or a balancer may use another
    /// server.
    ends_at: Instant,
    /// How many more requests may begin.
    requests_left: u32,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The result of one request on a connection.
enum Try {
    Outcome(AttemptOutcome),
    /// The reused connection was closed while the request was in transit.
    Stale,
}

impl Client {
    /// A client without connections.
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

    /// A client that keeps the contents of answers, for people to read.
    pub fn listening(url: Url, settings: Settings) -> Client {
        Client { is_listening: true, ..Client::new(url, settings) }
    }

    /// The content of the last answer; empty if there was none, or it was not kept.
    pub fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// The validity of the server's certificate; none without TLS, or if it was not kept.
    pub fn validity(&self) -> Option<Validity> {
        self.validity.get()
    }

    /// Waits until the server closes the idle connection, for `most` at the longest.
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

    /// Starts no request any more, not even on a connection that is being made.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.idle.borrow_mut().clear();
    }

    /// The destination's URL.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The status of the last answer.
    pub fn last_answer(&self) -> Option<u16> {
        self.last_answer.get()
    }

    /// The limits on what is sent.
    pub fn bounds(&self) -> Bounds {
        self.settings.borrow().bounds()
    }

    /// The format of bodies.
    pub fn body_options(&self) -> BodyOptions {
        self.settings.borrow().body
    }

    /// An event's body, without its pictures.
    pub fn template(&self, event: &Event) -> Template {
        let settings = self.settings.borrow();
        Template::new(event, settings.body, &settings.constants)
    }

    /// The size limit of the server, as far as it was observed.
    pub fn limit(&self) -> Option<Known> {
        self.sizes.borrow().known(self.settings.borrow().body.format)
    }

    /// Applies other settings from the next attempt on.
    pub fn configure(&self, settings: Settings) {
        let before = self.settings.replace(settings);
        if before.body != self.settings.borrow().body {
            self.sizes.take();
        }
        self.unsolicited_response.set(None);
        self.generation.set(self.generation.get() + 1);
        self.idle.borrow_mut().clear();
    }

    /// Makes one attempt to deliver `upload`; two if the first one met a closed idle connection. Returns the outcome, and how
    /// long the last attempt took. `permit` is dropped when the body has been sent.
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

    /// Sets `began` to the beginning of the last attempt.
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
                // A server that restarts closes many connections at once, so the bodies have to wait for permits.
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

    /// Whether unsolicited responses were seen lately: responses cannot be matched, so connections are not reused.
    fn avoids_reuse(&self) -> bool {
        self.unsolicited_response.get().is_some_and(|at| at.elapsed() < AVOID_REUSE)
    }

    /// Drops connections that have been idle for too long. Returns when the next one will be, if any is left.
    pub fn drop_idle(&self) -> Option<Instant> {
        let mut idle = self.idle.borrow_mut();
        if self.avoids_reuse() {
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
            // hyper also collects up to this much of a request before it writes. That is two of our chunks, the first being a
            // little shorter.
            .max_buf_size(HYPER_TAKES)
            .title_case_headers(true)
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|error| describe(&error, Code::ConnectFailed))?;
        let (unsolicited_response, url) = (Rc::clone(&self.unsolicited_response), self.url.clone());
        let task = tokio::task::spawn_local(async move {
            // Other failures are reported to the sender of the request.
            if let Err(error) = connection.await {
                note_unsolicited(&error, &unsolicited_response, &url);
            }
        });
        let now = Instant::now();
        // A random age: connections that began together must not end together.
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
        // A new TLS connection may receive session tickets at any time.
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
                // The state when the answer came: the rest of the body may have been acknowledged since.
                let early = connection.progress.early();
                Try::Outcome(self.finish(connection, response, early).await)
            }
            Ok(Err(error)) if error.source().is_some_and(|cause| cause.is::<Lost>()) => {
                Try::Outcome(AttemptOutcome::SourceLost)
            }
            Ok(Err(error)) if reused && connection.progress.read() == read_before => {
                note_unsolicited(&error, &self.unsolicited_response, &self.url);
                Try::Stale
            }
            Ok(Err(error)) => Try::Outcome(match connection.progress.status() {
                // If hyper cannot parse the head, only the status counts.
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

    /// Records the size of an event that was accepted or refused. If the event exceeds the server's limit, the failure says so.
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

    /// The header with the signature of an event's body, if requests are signed.
    async fn signature(&self, upload: &Upload) -> Result<Option<(HeaderName, HeaderValue)>, Lost> {
        let (sign, pool) = {
            let settings = self.settings.borrow();
            (settings.sign.clone(), Arc::clone(&settings.pool))
        };
        let Some((header, key)) = sign else { return Ok(None) };
        let signature = key.sign(self.template(&upload.event), Arc::clone(&upload.source), pool).await?;
        Ok(Some((header, signature)))
    }

    /// Classifies an answer by its status and the config. Also returns the rule for its body, if one still has to be checked.
    fn judge(&self, status: u16, headers: &HeaderMap, early: Option<Early>) -> (AttemptOutcome, Option<AcceptBody>) {
        let settings = self.settings.borrow();
        let mut outcome = AttemptOutcome::of_answer(status, headers, early);
        let answers = settings.options.answers.as_ref();
        if let Some(meaning) = answers.and_then(|answers| answers.meaning(status)) {
            outcome = outcome.meaning(meaning, early);
        }
        let proxy = self.forward_proxy(&settings).filter(|_| status == 401);
        if let (Some(failure), Some(proxy)) = (outcome.failure_mut(), proxy) {
            // tinyproxy answers a wrong password this way.
            failure.why = format!("{}, and user and password in proxy.url: {proxy} may have answered", failure.why);
        }
        let rule = settings.options.accept_body.as_ref();
        let rule = rule.filter(|rule| !rule.is_empty() && outcome == AttemptOutcome::Acknowledged).cloned();
        (outcome, rule)
    }

    /// The proxy that parses and forwards requests; none with a tunnel, because a proxy does not read those.
    fn forward_proxy<'a>(&self, settings: &'a Settings) -> Option<&'a Proxy> {
        settings.proxy.as_deref().filter(|_| !self.url.is_tls())
    }

    /// A POST request with a body; `id` is the id of its event, if it is for one.
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
            Cow::Owned(name) => HeaderValue::try_from(name).expect("a valid boundary"),
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

    /// The event's id in this destination's report.
    fn name_of(&self, id: EventId) -> HeaderValue {
        let mut name = String::with_capacity(ID_LENGTH);
        write!(name, "{id}").expect("writing to a String");
        if self.url.report() == Report::History {
            name.push_str(OF_HISTORY);
        }
        HeaderValue::try_from(name).expect("hex and digits")
    }

    /// The link to the destination.
    pub(super) fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// The timeouts.
    pub(super) fn timeouts(&self) -> Timeouts {
        self.settings.borrow().timeouts
    }

    /// Records the status of an answer.
    pub(super) fn note_answer(&self, status: u16) {
        self.last_answer.set(Some(status));
    }

    /// Classifies an answer, and keeps the connection if it can be reused.
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
            true => KEPT_BYTES,
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
            words.truncate(KEPT_BYTES);
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
            && !self.avoids_reuse()
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

/// The failure of a connection that ended, or received something other than an answer.
pub(super) fn broken(error: &hyper::Error, progress: &Progress) -> Failure {
    let code = match () {
        () if transport::is_unsolicited(error) => Code::UnsolicitedResponse,
        () if error.is_parse_too_large() || progress.head_state() == State::TooLarge => Code::AnswerTooLarge,
        () if error.is_parse() => Code::BadAnswer,
        () if progress.is_sent() => Code::ClosedWithoutAnswer,
        () => Code::Interrupted,
    };
    describe(error, code)
}

/// Records an unsolicited response, if that was the error; logs it the first time in a while.
fn note_unsolicited(error: &hyper::Error, unsolicited_response: &Cell<Option<Instant>>, url: &Url) {
    if !transport::is_unsolicited(error) {
        return;
    }
    let before = unsolicited_response.replace(Some(Instant::now()));
    if before.is_none_or(|at| at.elapsed() >= AVOID_REUSE) {
        warn!(%url, "the server answers what nobody asked: each event gets a connection of its own for {} s", AVOID_REUSE.as_secs());
    }
}
