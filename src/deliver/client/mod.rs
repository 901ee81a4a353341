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

mod connection;
mod exchange;
mod request;
mod settings;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::time::Instant;

use super::answer::Heard;
use super::connect::Memory;
use super::failure::{Code, Failure};
use super::link::{Link, Turn};
use super::outcome::AttemptOutcome;
use super::permit::BodyPermit;
use super::sizes::{Known, Sizes};
use super::tls::Validity;
use crate::body::{BodyOptions, Template};
use crate::config::sending::Bounds;
use crate::config::{Timeouts, Url};
use crate::event::Event;
use crate::picture::PictureSource;
use connection::Connection;
pub use connection::{IDLE_LIMIT, Idle};
use exchange::Try;
pub(super) use exchange::broken;
pub use settings::Settings;

/// An event that can be sent to any destination, any number of times.
pub struct Upload {
    /// The event. Its body is built for each attempt, so that a changed config applies to waiting events.
    pub event: Rc<Event>,
    /// The source of its pictures.
    pub source: Arc<dyn PictureSource>,
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
    /// The content of the last answer, if it was no acknowledgement, or if `is_listening`.
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
            }
            *began = Instant::now();
        }
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
}

fn closed() -> Failure {
    Failure::new(Code::ClosedWithoutAnswer, "the server closed the connection without an answer")
}
