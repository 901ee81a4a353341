//! A destination in the status.

use std::time::Instant;

use serde::Serialize;

use crate::deliver::core::lane::Lane;
use crate::deliver::endpoints::Endpoints;
use crate::deliver::recent::{LastHour, Recent};
use crate::deliver::sizes::Known;
use crate::spool::{self, Tally};

/// A destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Destination {
    /// From the config.
    pub url: String,
    /// `up`, `down`, `misconfigured`, `refusing`, `clock not set` or `randomness not ready`.
    pub state: &'static str,
    /// Duration of this state.
    pub since_seconds: f64,
    /// The last failure, in words.
    pub last_error: Option<String>,
    /// The last failure, for programs: a permanent name, see [`crate::deliver::failure::Code`].
    pub last_error_code: Option<&'static str>,
    /// Time since the last failure.
    pub last_error_seconds: Option<f64>,
    /// Time since the last acknowledgement.
    pub last_success_seconds: Option<f64>,
    /// The status of the last answer to any request.
    pub last_answer: Option<u16>,
    /// A size limit: larger events fail, and smaller ones do not.
    pub limit: Option<Known>,
    /// Time until the next attempt may begin, during a pause.
    pub next_try_seconds: Option<f64>,
    /// Uploads in progress.
    pub in_flight: u64,
    /// How long at least one upload has been in progress.
    pub busy_seconds: Option<f64>,
    /// Events that wait in memory.
    pub queued: u64,
    /// Events that wait in the spool.
    pub backlog: Backlog,
    /// Acknowledged (2xx) since the start.
    pub acknowledged: u64,
    /// Events that became dead letters since the start.
    pub dead: u64,
    /// Events evicted for newer ones since the start.
    pub evicted: u64,
    /// Events dropped since the start because they were older than `bounds.max_age_s`.
    pub expired: u64,
    /// The standby server that gets the events now, if any.
    pub standing_in: Option<String>,
    /// Whether events are sent one at a time, the oldest first.
    pub in_order: bool,
    /// Whether events in the spool are not sent at this time of day.
    pub off_hours: bool,
    /// `bounds.bytes_per_second`.
    pub bytes_per_second: Option<u32>,
    /// Period of a destination that gets all events once per period.
    pub period_seconds: Option<u64>,
    /// Time until the waiting events of such a destination are sent; none if none wait.
    pub next_round_seconds: Option<f64>,
    /// Failed attempts since the start.
    pub failed_tries: u64,
    /// Results of the last hour: they show whether refusals are exceptions.
    pub last_hour: LastHour,
}

impl Destination {
    /// Combines what the lane, the client and the spool know.
    pub fn of(lane: &Lane, endpoints: &Endpoints, recent: &Recent, spool: &spool::Status) -> Destination {
        let (client, health, now) = (endpoints.first(), &*lane.standing, Instant::now());
        let here = spool.destinations.iter().find(|known| known.destination == lane.destination());
        let tally = here.map_or(Tally::default(), |here| here.tally);
        let ago = |moment: Instant| now.saturating_duration_since(moment).as_secs_f64();
        let until = |moment: Instant| moment.saturating_duration_since(now).as_secs_f64();
        let failure = health.last_failure.as_ref();
        Destination {
            url: client.url().to_string(),
            state: health.condition.name(),
            since_seconds: ago(health.since),
            last_error: failure.map(|(failure, _)| failure.why.clone()),
            last_error_code: failure.map(|(failure, _)| failure.code.name()),
            last_error_seconds: failure.map(|(_, moment)| ago(*moment)),
            last_success_seconds: health.last_success.map(ago),
            last_answer: client.last_answer(),
            limit: client.limit(),
            next_try_seconds: health.paused_until(now).map(until),
            in_flight: lane.limit.in_flight() as u64,
            busy_seconds: lane.limit.busy_since().map(ago),
            queued: lane.deliveries.count_waiting(),
            backlog: here.map_or(Backlog::default(), |here| Backlog {
                events: here.waiting,
                bytes: here.bytes,
                unreadable: here.stuck,
            }),
            acknowledged: lane.counters.acknowledged + tally.delivered,
            dead: tally.dead,
            evicted: lane.counters.evicted + tally.evicted,
            expired: tally.expired,
            standing_in: endpoints.standing_in().map(|client| client.url().to_string()),
            in_order: lane.in_order.is_some(),
            off_hours: lane.is_off_hours,
            bytes_per_second: client.bounds().bytes_per_second,
            period_seconds: lane.rounds.as_ref().map(|rounds| rounds.period().as_secs()),
            next_round_seconds: lane.rounds.as_ref().and_then(|rounds| rounds.due()).map(until),
            failed_tries: lane.counters.failures,
            last_hour: recent.last_hour(),
        }
    }
}

/// A destination's events in the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Number of events.
    pub events: u64,
    /// Their size, in whole blocks.
    pub bytes: u64,
    /// Further events that could not be read. They are offered again after the next start, or when a spool that could not be used works again.
    pub unreadable: u64,
}
