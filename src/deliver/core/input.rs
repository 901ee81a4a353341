//! The inputs of the core: what happened.

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
    /// An event was read; it is for the destinations in this scope.
    Published(T, Scope),
    /// The kernel took the last byte of an upload's body, or the upload has no body to send any more.
    BodyGone(LaneId, UploadId),
    /// An upload has to send its body again, and waits for [`Effect::Body`](super::Effect::Body).
    BodyWanted(LaneId, UploadId),
    /// An upload ended; its connection no longer reads the event.
    Ended {
        /// Its lane.
        lane: LaneId,
        /// Its number.
        upload: UploadId,
        /// Its event, for the log.
        id: EventId,
        /// The outcome.
        outcome: AttemptOutcome,
        /// How long the last attempt took: the one that the outcome is of.
        took: Duration,
    },
    /// [`Effect::Pick`](super::Effect::Pick) was done.
    Picked(LaneId, UploadId, Picked),
    /// [`Effect::Write`](super::Effect::Write) was done.
    Written(Vec<(EventNo, Result<Stored, NotStored>)>),
    /// The spool was opened; the reason, if that failed.
    Opened(Option<String>),
    /// Whether the key is there.
    KeyChecked(bool),
    /// [`Effect::Settle`](super::Effect::Settle) was done: whether anything was moved. An error: it failed.
    Settled(Result<bool, ()>),
    /// The spool may have events that the core does not know of.
    LookIntoSpool,
    /// Whether the lane's backlog may be sent at this time of the day.
    BacklogHours(LaneId, bool),
    /// The spool has to take care of removed destinations, and to retry what failed.
    Settle,
    /// The spool's folder is no longer the one that was opened.
    Reopen,
    /// How long an event that is to be stored waits for others.
    Window(Duration),
    /// The configured lanes; a lane that stays comes with its number.
    Configured(Vec<(Option<LaneId>, LaneSettings)>),
    /// The ring needs the room of these events.
    Spill(Vec<EventNo>),
    /// Take no more events out of the spool.
    LeaveBacklog,
    /// The process ends: no upload starts any more, and what has not been sent goes to the spool.
    Suspend,
    /// What TLS needs and the box does not have; `None`: nothing is missing.
    Box(Option<NotReady>),
    /// The timer fired: see [`Core::next_timer`](super::Core::next_timer).
    Tick,
}

/// The result of a pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picked {
    /// This event (number in the spool, id) is open and leased: the spool offers it to nobody else.
    Event(u64, EventId),
    /// This event cannot be sent; the spool has recorded that.
    Unusable(u64),
    /// No event was found.
    Nothing,
    /// A resource is short at the moment.
    Later,
}

/// A lane's settings from the config.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    /// Its destination.
    pub address: Address,
    /// It uses TLS or signs requests, so it needs the clock to be set and random numbers.
    pub needs_box: bool,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// Strict order: events go one at a time, the oldest first. An event that the server does not take stops the others until
    /// it has failed five times and for at least this long; zero: without a limit.
    pub in_order: Option<Duration>,
    /// At this time of the day nothing is taken out of the spool; see [`Input::BacklogHours`].
    pub is_off_hours: bool,
    /// Which events it gets. The events of a removed destination go only to destinations of the same report.
    pub report: Report,
    /// The period, where it sends once a period.
    pub period: Option<Duration>,
}

/// Which destinations get an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every destination.
    All,
    /// Only destinations that get all events: its score is below the threshold.
    History,
}

impl Scope {
    /// Whether destinations of this report get it.
    pub fn is_for(self, report: Report) -> bool {
        self == Scope::All || report == Report::History
    }
}

/// An event is durable in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the spool.
    pub counter: u64,
    /// Whether uploads in flight now read the event in the file.
    pub is_relocated: bool,
}

/// Why an event was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// The spool cannot store it now: why, and what has to be done first.
    Later(String, Needs),
    /// This event can never be stored.
    Unfit,
    /// The event cannot be read any more: the ring's file was truncated, or the recognizer wrote over the event.
    Lost,
}
