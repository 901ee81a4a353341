//! What happens, as the core is told of it.

use std::time::Duration;

use super::spooling::Needs;
use super::{EventNo, LaneId, UploadId};
use crate::config::Report;
use crate::deliver::outcome::AttemptOutcome;
use crate::event::EventId;
use crate::readiness::NotReady;
use crate::spool::Address;

/// What happened.
#[derive(Debug)]
pub enum Input<T> {
    /// An event was read, for the destinations of these reports.
    Published(T, Scope),
    /// The kernel took the last byte of an upload's body, or it has none any more.
    BodyGone(LaneId, UploadId),
    /// An upload begins once more, and waits for [`Effect::Body`](super::Effect::Body).
    BodyWanted(LaneId, UploadId),
    /// An upload came to its end; its connection reads nothing any more.
    Ended {
        /// Whose.
        lane: LaneId,
        /// Which.
        upload: UploadId,
        /// Its event, for what is said of it.
        id: EventId,
        /// What became of it.
        outcome: AttemptOutcome,
        /// How long the try took that counts.
        took: Duration,
    },
    /// [`Effect::Pick`](super::Effect::Pick) was done.
    Picked(LaneId, UploadId, Picked),
    /// [`Effect::Write`](super::Effect::Write) was done.
    Written(Vec<(EventNo, Result<Stored, NotStored>)>),
    /// The spool was opened; why not, if not.
    Opened(Option<String>),
    /// The key was looked for; whether it is there.
    KeyChecked(bool),
    /// [`Effect::Settle`](super::Effect::Settle) was done: whether anything was moved. Else it failed.
    Settled(Result<bool, ()>),
    /// There may be something in the spool that was not known.
    LookIntoSpool,
    /// Whether this is a time at which a lane's backlog is sent.
    BacklogHours(LaneId, bool),
    /// The spool has to see to removed destinations, and try again whatever failed.
    Settle,
    /// The spool's folder is not the one that was opened.
    Reopen,
    /// How long an event that is to be stored waits for others.
    Window(Duration),
    /// The lanes, those that are kept by number.
    Configured(Vec<(Option<LaneId>, LaneSettings)>),
    /// The ring needs the room of these.
    Spill(Vec<EventNo>),
    /// Nothing more is to be taken out of the spool.
    LeaveBacklog,
    /// The process ends: no upload starts any more, and what is not sent by then goes to the spool.
    Suspend,
    /// The box lacks something that TLS needs, or nothing.
    Box(Option<NotReady>),
    /// Time went by.
    Tick,
}

/// What a pick came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picked {
    /// This one is open, and the spool offers it to nobody else.
    Event(u64, EventId),
    /// This one cannot be sent; the spool knows.
    Unusable(u64),
    /// There is none.
    Nothing,
    /// Something is short just now.
    Later,
}

/// What a lane is told by the config.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    /// Its destination.
    pub address: Address,
    /// It speaks TLS, or signs, which needs the time and random numbers.
    pub needs_box: bool,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// Events go one at a time, the oldest first; one that its server does not take stops the others for so long, zero: for ever.
    pub in_order: Option<Duration>,
    /// At this time of the day nothing is taken out of the spool; see [`Input::BacklogHours`].
    pub is_off_hours: bool,
    /// Which events it gets. What a removed destination lacks goes to others of the same report only.
    pub report: Report,
    /// It sends once in such a time.
    pub period: Option<Duration>,
}

/// Whose event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every destination's.
    All,
    /// Its score is below the threshold: only of those that get all events.
    History,
}

impl Scope {
    /// Whether destinations of this report get it.
    pub fn is_for(self, report: Report) -> bool {
        self == Scope::All || report == Report::History
    }
}

/// An event is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the spool.
    pub counter: u64,
    /// Uploads on their way read on in the file.
    pub is_relocated: bool,
}

/// Why a job was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The spool cannot do it now: why, and what has to be done first.
    Later(String, Needs),
    /// This event will never be stored.
    Unfit,
    /// The ring's file went away.
    Lost,
}
