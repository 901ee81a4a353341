//! The state of the running uplink, as shown by `GET /api/status`, `sophon-uplink status`, the metrics, and one log line at the
//! stop.
//!
//! A *delivery* is one event for one destination; the JSON calls them `shares`. The counts balance: the deliveries that came
//! equal those that ended plus those that are still here. [`Shares`] says for each count which of these it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::config;
use crate::deliver::core::counters::Counters;
use crate::deliver::core::lane::Lane;
use crate::deliver::endpoints::Endpoints;
use crate::deliver::recent::{LastHour, Recent};
use crate::deliver::sizes::Known;
use crate::ring::inspect::RingState;
use crate::spool::{self, State, Tally};

/// The whole state at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Time since the start.
    pub uptime_seconds: f64,
    /// False if the time is before the program was built.
    pub clock_is_set: bool,
    /// False if the kernel has no random numbers yet.
    pub randomness_is_ready: bool,
    /// `health.max_silence_s` of the config; 0: no limit.
    pub max_silence_seconds: u64,
    /// Counts of the events read.
    pub events: Events,
    /// Counts of their deliveries.
    pub shares: Shares,
    /// Changed keys of the config that are applied only after a restart.
    pub pending_restart: Vec<&'static str>,
    /// The rings opened at the start.
    pub rings: Vec<Ring>,
    /// How often a ring was found corrupt.
    pub rings_corrupt: u64,
    /// Events that were repaired, or that a receiver may refuse; the log says why.
    pub events_mended: u64,
    /// The spool.
    pub spool: Spool,
    /// In the config's order.
    pub destinations: Vec<Destination>,
    /// The state report, if there is one.
    pub monitor: Option<Monitor>,
}

/// The state report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Monitor {
    /// From the config.
    pub url: String,
    /// From the config.
    pub period_seconds: u64,
    /// Time since the last successful report.
    pub last_success_seconds: Option<f64>,
    /// The last failure, in words.
    pub last_error: Option<String>,
    /// The last failure, for programs.
    pub last_error_code: Option<&'static str>,
    /// Time since the last failure.
    pub last_error_seconds: Option<f64>,
    /// The status of the last answer.
    pub last_answer: Option<u16>,
}

/// Counts of events. `read` is the sum of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Events {
    /// Events taken out of a ring.
    pub read: u64,
    /// Events with a score below the threshold.
    pub filtered: u64,
    /// Malformed events: no correct recognizer writes such a record.
    pub malformed: u64,
    /// Events passed on to every destination.
    pub sent: u64,
}

/// Counts of deliveries since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// Came: an event was read, or taken over in memory from a removed destination.
    pub entered: u64,
    /// Came: found in the spool at the start.
    pub recovered: u64,
    /// Came: taken over in the spool from a removed destination.
    pub inherited: u64,
    /// Came: a dead letter is sent again.
    pub resent: u64,
    /// Ended: acknowledged with 2xx.
    pub acknowledged: u64,
    /// Ended: kept as a dead letter, because the server refused it or its destination was removed.
    pub dead: u64,
    /// Ended: dropped, because it waited in the spool for longer than the config allows.
    pub expired: u64,
    /// Ended: evicted from the spool for newer events, or too large for it while the ring needed the room.
    pub evicted: u64,
    /// Ended: damaged in the spool, and moved to quarantine.
    pub quarantined: u64,
    /// Ended: somebody else removed it from the spool.
    pub vanished: u64,
    /// Ended: refused by the server, and could not be kept as a dead letter.
    pub refused: u64,
    /// Ended: the pictures were lost, because the ring's file was truncated.
    pub lost: u64,
    /// Ended: its destination was removed, and its heirs have the event.
    pub handed_over: u64,
    /// Here: in the spool.
    pub spooled: u64,
    /// Here: in the ring, waiting or being sent.
    pub open: u64,
    /// Deliveries that memory and spool count differently, because they are being stored right now. 0 when idle. Not part of the
    /// balance.
    pub in_transit: u64,
    /// Failed attempts. Not part of the balance.
    pub failed_tries: u64,
}

impl Shares {
    /// Combines the counts of memory and spool. `open` was counted one by one.
    pub fn of(lanes: &Counters, spool: &Tally, open: u64) -> Shares {
        let Counters { entered, acknowledged, spooled, refused, lost, evicted, handed_over, failures } = *lanes;
        Shares {
            entered,
            recovered: spool.recovered,
            inherited: spool.inherited,
            resent: spool.resent,
            acknowledged: acknowledged + spool.delivered,
            dead: spool.dead,
            expired: spool.expired,
            evicted: evicted + spool.evicted,
            quarantined: spool.quarantined,
            vanished: spool.vanished,
            refused,
            lost,
            handed_over: handed_over + spool.handed_over,
            spooled: spool.remaining(),
            // An event stored between the two readings must not count twice.
            open: (open + spooled).saturating_sub(spool.stored),
            in_transit: spooled.abs_diff(spool.stored),
            failed_tries: failures,
        }
    }
}

/// A ring of the config, as configured at the start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ring {
    /// Path of its file.
    pub path: PathBuf,
    /// None if there is no ring; `problem` says why.
    pub state: Option<RingState>,
    /// Why there is no state, or what is wrong with the ring.
    pub problem: Option<String>,
    /// Whether the problem is that there is no file: the recognizer has not started yet.
    #[serde(skip)]
    pub is_missing: bool,
    /// Whether its file was removed while it is being read: nobody else can find it.
    pub is_removed: bool,
    /// `alive`, `closed` (it ended in order), `died`, or `absent` (no ring is being read).
    pub recognizer: &'static str,
    /// Duration of this state.
    pub recognizer_seconds: f64,
    /// Time since the last event; none if there was none since the start.
    pub last_event_seconds: Option<f64>,
}

/// The spool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spool {
    /// Its folder, as opened at the start.
    pub dir: PathBuf,
    /// False if its file system has no hard links: an event for several destinations is then written once for each.
    pub has_hard_links: bool,
    /// Whether events can be stored.
    pub is_usable: bool,
    /// Why events cannot be stored.
    pub problem: Option<String>,
    /// Size of everything in it, in whole blocks.
    pub bytes: u64,
    /// The maximum size.
    pub max_bytes: u64,
    /// Events that wait; each is counted once.
    pub events: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Files in quarantine.
    pub set_aside: u64,
    /// Removed destinations whose events wait until the destination, or a new one, is in the config. Part of `events`.
    pub parked: Vec<Parked>,
    /// Events sealed with a key other than the one in use; counted once for each destination. They stay. Part of the spooled
    /// ones.
    pub locked: u64,
    /// Dead letters evicted for lack of room since the start.
    pub dead_letters_evicted: u64,
    /// Time since the last detected loss: events or dead letters evicted for lack of room, or removed by somebody else.
    pub last_loss_seconds: Option<f64>,
    /// Bytes written since the start; 0 while every server is up.
    pub bytes_written: u64,
}

impl Spool {
    /// Combines the spool's own status with what the uplink found. `trouble` says why events could not be stored, while they
    /// wait. A failed store is no problem any more once nothing waits.
    pub fn of(
        spool: &spool::Status,
        dir: &Path,
        config: &config::Spool,
        trouble: Option<String>,
        last_loss_seconds: Option<f64>,
    ) -> Spool {
        let problem = match &spool.state {
            State::Usable | State::Troubled(_) => spool.key_problem.clone().or(trouble),
            State::Unavailable(why) => Some(why.clone()),
        };
        Spool {
            dir: dir.to_owned(),
            has_hard_links: spool.has_hard_links,
            is_usable: problem.is_none(),
            problem,
            bytes: spool.bytes,
            max_bytes: config.max_bytes,
            events: spool.events,
            dead_letters: spool.dead,
            set_aside: spool.bad,
            parked: spool.destinations.iter().filter_map(Parked::of).collect(),
            locked: spool.locked,
            dead_letters_evicted: spool.tally.dead_evicted,
            last_loss_seconds,
            bytes_written: spool.bytes_written,
        }
    }
}

/// A destination that is not in the config any more, and that has no heirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parked {
    /// The URL stored in its folder, or else the folder's name.
    pub url: String,
    /// Events that wait for it.
    pub events: u64,
    /// Their size, in whole blocks.
    pub bytes: u64,
}

impl Parked {
    fn of(one: &spool::DestinationStatus) -> Option<Parked> {
        let events = one.waiting + one.stuck;
        let url = || one.url.clone().unwrap_or_else(|| one.destination.to_string());
        (one.parked && events > 0).then(|| Parked { url: url(), events, bytes: one.bytes })
    }
}

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
    /// Further events that could not be read. They are offered again after the next start.
    pub unreadable: u64,
}

/// One line with all counts of the balance.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Events { read, filtered, malformed, sent } = &self.events;
        write!(f, "events read={read} filtered={filtered} malformed={malformed} sent={sent}; shares")?;
        let shares = serde_json::to_value(&self.shares).map_err(|_| fmt::Error)?;
        for (name, count) in shares.as_object().into_iter().flatten() {
            write!(f, " {name}={count}")?;
        }
        let Spool { bytes, bytes_written, .. } = &self.spool;
        write!(f, "; spool bytes={bytes} written={bytes_written}; rings corrupt={}", self.rings_corrupt)
    }
}
