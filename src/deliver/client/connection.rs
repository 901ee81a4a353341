//! The connections of a client: making them, and keeping those that are idle.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

use super::Client;
use crate::body::EventBody;
use crate::config::Url;
use crate::deliver::deadline::Deadline;
use crate::deliver::failure::{Code, Failure};
use crate::deliver::head::HYPER_TAKES;
use crate::deliver::progress::Progress;
use crate::deliver::transport::{self, describe};

/// Idle connections are dropped after this time, which is below the 5 s after which some servers drop them.
pub const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// The interval between checks whether an idle connection is still open.
const IDLE_LOOK: Duration = Duration::from_millis(50);
/// The most requests on one connection.
const MOST_REQUESTS: u32 = 1000;
/// For this long after an unsolicited response, each connection serves only one request.
const AVOID_REUSE: Duration = Duration::from_secs(3600);

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

/// A connection. Dropping it also ends the reading of the event that is being sent: after that the event's room in the ring may
/// be released.
pub(in crate::deliver) struct Connection {
    pub(in crate::deliver) sender: SendRequest<EventBody>,
    /// The hyper task of the connection.
    task: AbortHandle,
    pub(super) generation: u64,
    pub(in crate::deliver) is_tls: bool,
    pub(in crate::deliver) progress: Rc<Progress>,
    pub(super) idle_since: Instant,
    pub(super) peer: Option<IpAddr>,
    /// The local address.
    pub(in crate::deliver) local: Option<IpAddr>,
    /// No request begins after this, because the name may resolve to another address by then, or a balancer may use another
    /// server.
    pub(super) ends_at: Instant,
    /// How many more requests may begin.
    pub(super) requests_left: u32,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
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

    pub(in crate::deliver) async fn connect_unless_retired(&self) -> Result<Connection, Failure> {
        let removed = || Err(Failure::new(Code::Removed, "the destination was removed"));
        if self.is_retired.get() {
            return removed();
        }
        let connected = self.connect().await;
        if self.is_retired.get() { removed() } else { connected }
    }

    /// Whether unsolicited responses were seen lately: responses cannot be matched, so connections are not reused.
    pub(super) fn avoids_reuse(&self) -> bool {
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

    pub(super) fn take_idle(&self) -> Option<Connection> {
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
            // hyper also collects up to this much of a request before it writes. One chunk is a little shorter than that, so
            // hyper collects two.
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
}

/// Records an unsolicited response, if that was the error; logs it the first time in a while.
pub(super) fn note_unsolicited(error: &hyper::Error, unsolicited_response: &Cell<Option<Instant>>, url: &Url) {
    if !transport::is_unsolicited(error) {
        return;
    }
    let before = unsolicited_response.replace(Some(Instant::now()));
    if before.is_none_or(|at| at.elapsed() >= AVOID_REUSE) {
        warn!(%url, "the server sent an unsolicited response: each event gets a connection of its own for {} s", AVOID_REUSE.as_secs());
    }
}
