//! Tracks the progress of a connection, and computes its deadlines.
//!
//! Bytes make progress when the kernel takes them and when the peer's TCP acknowledges them. On a slow link the kernel has the
//! whole body long before the peer has it. The kernel is asked for unacknowledged bytes (`SIOCOUTQ`) whenever bytes come in,
//! and at growing intervals while no answer comes. The response timeout begins when the peer has the whole body.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::deadline::{longest, patience};
use super::failure::{Code, Early, Failure};
use super::head::{Head, State};
use super::link::{Link, Turn};
use super::permit::BodyPermit;
use super::unacknowledged::{Signs, bound_queue, signs, unacknowledged};
use crate::body::Sent;
use crate::config::Timeouts;

/// The progress of a connection.
#[derive(Debug)]
pub struct Progress {
    /// None once it is closed.
    socket: Cell<Option<RawFd>>,
    /// How long the connection took to be made: about one round trip.
    rtt: Duration,
    /// The current round-trip time, including queues on the way.
    smoothed_rtt: Cell<Duration>,
    /// Bytes that the kernel ever took from us, and how many of them the peer acknowledged.
    taken: Cell<u64>,
    acknowledged: Cell<u64>,
    /// The most bytes that the peer has received, including those behind a gap.
    reached: Cell<u64>,
    /// When the request began, and how many bytes the kernel had taken by then.
    began: Cell<(Instant, u64)>,
    /// When bytes of the request last made progress. In the future while our own rate limit holds them back.
    moved_at: Cell<Instant>,
    /// When the peer had the whole request.
    arrived_at: Cell<Option<Instant>>,
    /// When bytes last came in.
    read_at: Cell<Instant>,
    /// All bytes that came in.
    read: Cell<u64>,
    head: RefCell<Head>,
    /// Counts the bytes of the request's body that were sent.
    sent: RefCell<Sent>,
    /// The length of that body.
    length: Cell<u64>,
    /// Whether TLS has bytes that the kernel did not take yet.
    pub is_held: Cell<bool>,
    /// The permit for the body, held until the kernel took its last byte.
    pub permit: RefCell<Option<BodyPermit>>,
    /// Whether the send queue is limited, because the link is narrow.
    is_bounded: Cell<bool>,
    /// The turn on the link, held until the peer has the body.
    turn: RefCell<Option<Turn>>,
    link: RefCell<Rc<Link>>,
    /// Whether the kernel had the whole body and the peer's TCP had acknowledged it when bytes last came in. Otherwise the peer
    /// cannot have had the whole request when it answered. Every segment acknowledges what was received before it was sent, so a
    /// correct answer to a whole request never leaves unacknowledged bytes.
    was_whole_at_read: Cell<bool>,
    /// Bytes of the body that the peer's TCP had acknowledged by then, as far as known.
    arrived_at_read: Cell<u64>,
    /// The next byte written is the first of a request: it must not be written if unread bytes have come in.
    pub begins: Cell<bool>,
}

/// A request that begins.
pub struct Begun {
    /// Counts the bytes of its body that were sent.
    pub sent: Sent,
    /// The length of that body.
    pub length: u64,
    /// Held until the kernel took the body.
    pub permit: Option<BodyPermit>,
    /// Held until the peer has the body.
    pub turn: Option<Turn>,
    /// No bytes may have come in before its first byte is written.
    pub begins: bool,
}

impl Progress {
    /// Progress of a connection that took `rtt` to be made, and to which `taken` bytes were written already.
    pub fn new(socket: RawFd, taken: u64, rtt: Duration) -> Progress {
        let now = Instant::now();
        Progress {
            socket: Cell::new(Some(socket)),
            rtt,
            smoothed_rtt: Cell::new(rtt),
            taken: Cell::new(taken),
            acknowledged: Cell::new(0),
            reached: Cell::new(0),
            began: Cell::new((now, 0)),
            moved_at: Cell::new(now),
            arrived_at: Cell::new(None),
            read_at: Cell::new(now),
            read: Cell::new(0),
            head: RefCell::default(),
            sent: RefCell::default(),
            length: Cell::new(0),
            is_held: Cell::new(false),
            permit: RefCell::default(),
            is_bounded: Cell::new(false),
            turn: RefCell::default(),
            link: RefCell::default(),
            was_whole_at_read: Cell::new(false),
            arrived_at_read: Cell::new(0),
            begins: Cell::new(false),
        }
    }

    /// A request begins.
    pub fn begin(&self, request: Begun, link: &Rc<Link>) {
        let now = Instant::now();
        self.began.set((now, self.taken.get()));
        self.moved_at.set(now);
        self.arrived_at.set(None);
        self.head.replace(Head::awaited());
        self.sent.replace(request.sent);
        self.length.set(request.length);
        self.was_whole_at_read.set(false);
        self.arrived_at_read.set(0);
        self.permit.replace(request.permit);
        self.turn.replace(request.turn);
        link.begins(self.rtt, now);
        self.link.replace(Rc::clone(link));
        self.bound();
        self.begins.set(request.begins);
    }

    /// The request ended.
    pub fn end(&self) {
        self.permit.take();
        self.turn.take();
    }

    /// The connection is closed: the descriptor may be reused.
    pub fn closed(&self) {
        self.socket.set(None);
    }

    /// The kernel has taken `taken` bytes so far.
    pub fn took(&self, taken: u64) {
        if self.taken.replace(taken) != taken {
            self.begins.set(false);
            self.moved(Instant::now());
        }
    }

    /// Our own rate limit holds bytes back until then, so the peer is not to blame.
    pub fn held_back(&self, until: Instant) {
        self.moved(until);
    }

    fn moved(&self, at: Instant) {
        self.moved_at.set(at.max(self.moved_at.get()));
    }

    /// Bytes came in. Returns the state of the answer's head, and whether it is too long for hyper.
    pub fn received(&self, bytes: &[u8]) -> (State, bool) {
        let now = Instant::now();
        self.read.set(self.read.get() + bytes.len() as u64);
        self.read_at.set(now);
        let unacknowledged = self.socket.get().map_or(0, unacknowledged);
        self.note(unacknowledged, Signs::default(), now);
        self.was_whole_at_read.set(self.is_sent() && unacknowledged == 0);
        self.arrived_at_read.set(self.sent.borrow().load(Ordering::Relaxed).saturating_sub(unacknowledged));
        let mut head = self.head.borrow_mut();
        let state = head.read(bytes);
        (state, head.is_oversize())
    }

    /// Asks the kernel for unacknowledged bytes, and records progress.
    pub fn look(&self) {
        if let Some(socket) = self.socket.get() {
            let unacknowledged = unacknowledged(socket);
            let signs = if unacknowledged > 0 { signs(socket) } else { Signs::default() };
            self.note(unacknowledged, signs, Instant::now());
        }
    }

    fn note(&self, unacknowledged: u64, signs: Signs, now: Instant) {
        let acknowledged = self.taken.get().saturating_sub(unacknowledged);
        let reached = acknowledged + signs.beyond_a_gap.min(unacknowledged);
        let has_moved = acknowledged > self.acknowledged.get() || reached > self.reached.get();
        self.acknowledged.set(acknowledged.max(self.acknowledged.get()));
        self.reached.set(reached.max(self.reached.get()));
        self.smoothed_rtt.set(signs.smoothed_rtt.unwrap_or(self.smoothed_rtt.get()));
        // Needless retransmissions make no progress but fill a slow link: acknowledgements show that the link still moves.
        let heard_at = signs.heard_before.and_then(|before| now.checked_sub(before));
        if let Some(moved_at) = if has_moved { Some(now) } else { heard_at.filter(|at| *at > self.moved_at.get()) } {
            self.moved(moved_at);
            self.link.borrow().moved(moved_at);
        }
        let whole = self.is_sent() && unacknowledged == 0;
        if self.arrived_at.get().is_none() && (whole || has_moved) {
            let (began, before) = self.began.get();
            let bytes = acknowledged.saturating_sub(before);
            self.link.borrow().judge(bytes, now - began, self.rtt, whole);
            self.bound();
            if whole {
                self.arrived_at.set(Some(now));
                self.turn.take();
            }
        }
    }

    /// Limits the send queue if the link is narrow.
    fn bound(&self) {
        if let (Some(most), Some(socket), false) =
            (self.link.borrow().queue(), self.socket.get(), self.is_bounded.get())
        {
            bound_queue(socket, most);
            self.is_bounded.set(true);
        }
    }

    /// The deadline of the current request.
    pub fn due(&self, timeouts: Timeouts) -> Instant {
        match self.arrived_at.get() {
            Some(arrived_at) => {
                // The first segment of the answer may be lost as well.
                let due = arrived_at.max(self.read_at.get()) + patience(timeouts.response, self.rtt);
                due.min(arrived_at + longest(timeouts.response, self.rtt))
            }
            None => {
                let (moved_at, shared) = (self.moved_at.get(), self.link.borrow().shared_moved_at());
                let due = shared.map_or(moved_at, |shared| shared.max(moved_at)) + self.patience(timeouts);
                due.min(moved_at + longest(timeouts.progress, self.rtt))
            }
        }
    }

    fn patience(&self, timeouts: Timeouts) -> Duration {
        let rtt = self.rtt.max(self.smoothed_rtt.get());
        patience(timeouts.progress, rtt).min(longest(timeouts.progress, self.rtt))
    }

    /// Which progress was missing until [`Progress::due`].
    pub fn overdue(&self, timeouts: Timeouts) -> Failure {
        if self.has_arrived() {
            let patience = patience(timeouts.response, self.rtt);
            let why = format!("no answer within {} ms of the request", patience.as_millis());
            return Failure::new(Code::NoAnswer, why);
        }
        let patience = self.patience(timeouts);
        Failure::new(Code::Stalled, format!("no byte of the request moved for {} ms", patience.as_millis()))
    }

    /// Whether the peer has the whole request.
    pub fn has_arrived(&self) -> bool {
        self.arrived_at.get().is_some()
    }

    /// The state of the answer's head.
    pub fn head_state(&self) -> State {
        self.head.borrow().state()
    }

    /// The status of the answer, once its head is complete.
    pub fn status(&self) -> Option<u16> {
        self.head.borrow().status()
    }

    /// All bytes that came in.
    pub fn read(&self) -> u64 {
        self.read.get()
    }

    /// How much of the body the peer had when bytes last came in; none if it had all.
    pub fn early(&self) -> Option<Early> {
        let total = self.length.get();
        let sent = self.arrived_at_read.get().min(total.saturating_sub(1));
        (!self.was_whole_at_read.get()).then_some(Early { sent, total })
    }

    /// Whether the kernel took the whole body.
    pub fn is_sent(&self) -> bool {
        !self.is_held.get() && self.sent.borrow().load(Ordering::Relaxed) == self.length.get()
    }
}
