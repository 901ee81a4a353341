//! What is told about the running uplink: in `GET /api/status`, `sophon-uplink status`, metrics, and one line when it stops.
//!
//! A *delivery* is one event for one destination; the JSON calls them `shares`. They balance: what came is what went and what is here, as [`Shares`] says of each count.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::config;
use crate::deliver::core::counters::Counters;
use crate::deliver::core::lane::Lane;
use crate::deliver::endpoints::Endpoints;
use crate::deliver::recent::Recent;
use crate::deliver::sizes::Known;
use crate::ring::inspect::RingState;
use crate::spool::{self, State, Tally};

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Of the program.
    pub version: &'static str,
    /// Since its start.
    pub uptime_seconds: f64,
    /// False: the time is before the program was built.
    pub clock_is_set: bool,
    /// False: the kernel has no random numbers yet.
    pub randomness_is_ready: bool,
    /// `health.max_silence_s` of the config: 0 for none.
    pub max_silence_seconds: u64,
    /// What was read.
    pub events: Events,
    /// What became of it.
    pub shares: Shares,
    /// Keys of the config whose change comes into force with a restart only.
    pub pending_restart: Vec<&'static str>,
    /// The rings that were opened at the start.
    pub rings: Vec<Ring>,
    /// Times that a ring was found corrupt.
    pub rings_corrupt: u64,
    /// Events of which something was mended, or that a receiver may not take: the log says what.
    pub events_mended: u64,
    /// The spool.
    pub spool: Spool,
    /// In the order of the config.
    pub destinations: Vec<Destination>,
    /// The state report, where there is one.
    pub monitor: Option<Monitor>,
}

/// The state report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Monitor {
    /// From the config.
    pub url: String,
    /// From the config.
    pub period_seconds: u64,
    /// How long ago one was sent.
    pub last_success_seconds: Option<f64>,
    /// Why the last one was not, in words.
    pub last_error: Option<String>,
    /// The same for programs.
    pub last_error_code: Option<&'static str>,
    /// How long ago that was.
    pub last_error_seconds: Option<f64>,
    /// The status of the last answer.
    pub last_answer: Option<u16>,
}

/// Events: `read` is the sum of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Events {
    /// Taken out of a ring.
    pub read: u64,
    /// Of these: score below the threshold.
    pub filtered: u64,
    /// Of these: a record that no correct recognizer writes.
    pub malformed: u64,
    /// Of these: sent on their way to every destination.
    pub sent: u64,
}

/// What became of the shares since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// Came: an event was read, or taken over in memory from a destination that was removed.
    pub entered: u64,
    /// Came: found in the spool by the start.
    pub recovered: u64,
    /// Came: taken over in the spool from a destination that was removed.
    pub inherited: u64,
    /// Came: a dead letter to be sent again.
    pub resent: u64,
    /// Went: 2xx.
    pub acknowledged: u64,
    /// Went: refused by the server, or its destination was removed; kept as a dead letter.
    pub dead: u64,
    /// Went: let go, for it had waited in the spool for longer than the config allows.
    pub expired: u64,
    /// Went: given up by the spool for newer ones, or too large for it while the ring needed the room.
    pub evicted: u64,
    /// Went: damaged in the spool and set aside.
    pub quarantined: u64,
    /// Went: removed from the spool by somebody else.
    pub vanished: u64,
    /// Went: refused by the server, and could not be kept as a dead letter.
    pub refused: u64,
    /// Went: the pictures were lost, because the ring's file was truncated.
    pub lost: u64,
    /// Went: its destination was removed, and those that were added have it.
    pub handed_over: u64,
    /// Is in the spool.
    pub spooled: u64,
    /// Is in the ring, waiting or on its way.
    pub open: u64,
    /// Shares that memory and spool count differently, because they are just being stored: 0 when nothing goes on. No part of the
    /// balance.
    pub in_transit: u64,
    /// Tries that came to nothing; no part of the balance.
    pub failed_tries: u64,
}

impl Shares {
    /// Puts together what memory and spool know; `open` was counted one by one.
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
            // What is stored between the two looks must not count twice.
            open: (open + spooled).saturating_sub(spool.stored),
            in_transit: spooled.abs_diff(spool.stored),
            failed_tries: failures,
        }
    }
}

/// A ring of the config, as it was at the start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ring {
    /// Its file.
    pub path: PathBuf,
    /// None where there is none; `problem` says why.
    pub state: Option<RingState>,
    /// Why there is no state, or what is wrong with the ring.
    pub problem: Option<String>,
    /// Whether that is that there is no file: the recognizer has not started yet.
    #[serde(skip)]
    pub is_missing: bool,
    /// Its file was removed while it is being read: nobody else finds it any more.
    pub is_removed: bool,
    /// `alive`, `closed` (it ended in order), `died`, or `absent` (there is no ring that is read).
    pub recognizer: &'static str,
    /// For how long.
    pub recognizer_seconds: f64,
    /// How long ago the last event came; none since the start.
    pub last_event_seconds: Option<f64>,
}

/// The spool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spool {
    /// Its folder, as it was opened at the start.
    pub dir: PathBuf,
    /// False: its file system has no hard links, so that an event for several destinations is written once for each.
    pub has_hard_links: bool,
    /// Whether events can be stored.
    pub is_usable: bool,
    /// Why not.
    pub problem: Option<String>,
    /// What everything in it takes, in whole blocks.
    pub bytes: u64,
    /// The most that may be.
    pub max_bytes: u64,
    /// Events that wait, each counted once.
    pub events: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Files set aside.
    pub set_aside: u64,
    /// Removed destinations whose events stay until they, or new ones, come; of the events.
    pub parked: Vec<Parked>,
    /// Events that are sealed with another key than the one in use, once for each destination; they stay. Of the spooled ones.
    pub locked: u64,
    /// Dead letters given up for want of room since the start.
    pub dead_letters_evicted: u64,
    /// How long ago it was seen that events were given up for want of room, dead letters among them, or removed by somebody else.
    pub last_loss_seconds: Option<f64>,
    /// Written since the start: 0 while every server is up.
    pub bytes_written: u64,
}

impl Spool {
    /// What the spool says of itself, and what the uplink has found: `trouble` while events wait that could not be stored. A store that
    /// failed is no trouble any more once nothing waits.
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

/// A destination that is not in the config any more, and that no other inherits from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parked {
    /// As its folder says; else the folder's name.
    pub url: String,
    /// Events that wait for it.
    pub events: u64,
    /// What they take, in whole blocks.
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
    /// For how long.
    pub since_seconds: f64,
    /// The last failure, in words.
    pub last_error: Option<String>,
    /// The same for programs: a name that stays, see [`crate::deliver::failure::Code`].
    pub last_error_code: Option<&'static str>,
    /// How long ago that was.
    pub last_error_seconds: Option<f64>,
    /// How long ago an event was acknowledged.
    pub last_success_seconds: Option<f64>,
    /// The status of the last answer, whatever it was to.
    pub last_answer: Option<u16>,
    /// Larger events fail, and smaller ones do not.
    pub limit: Option<Known>,
    /// When the next try may begin, while there is a pause.
    pub next_try_seconds: Option<f64>,
    /// Uploads on their way.
    pub in_flight: u64,
    /// For how long there has been at least one of them.
    pub busy_seconds: Option<f64>,
    /// Events in memory that wait.
    pub queued: u64,
    /// Events in the spool that wait.
    pub backlog: Backlog,
    /// 2xx since the start.
    pub acknowledged: u64,
    /// Made dead letters since the start.
    pub dead: u64,
    /// Given up for newer ones since the start.
    pub evicted: u64,
    /// Let go since the start, for they were older than `bounds.max_age_s`.
    pub expired: u64,
    /// The server of `standby` that gets the events now, if any.
    pub standing_in: Option<String>,
    /// Events go one at a time, the oldest first.
    pub in_order: bool,
    /// What waits in the spool is not sent at this time of the day.
    pub off_hours: bool,
    /// `bounds.bytes_per_second`.
    pub bytes_per_second: Option<u32>,
    /// It gets all events, once in so many seconds.
    pub period_seconds: Option<u64>,
    /// When what waits for that is sent, while something does.
    pub next_round_seconds: Option<f64>,
    /// Tries that came to nothing since the start.
    pub failed_tries: u64,
    /// Whether refusals are an exception or the rule.
    pub last_hour: LastHour,
}

/// What became of a destination's events in the last hour, to five minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LastHour {
    /// 2xx.
    pub acknowledged: u64,
    /// Made dead letters, because the server refused them.
    pub dead: u64,
    /// What the server answered to the last one that it refused, since the start.
    pub last_refusal: Option<String>,
}

impl Destination {
    /// What lane and client know, and the spool.
    pub fn of(lane: &Lane, endpoints: &Endpoints, recent: &Recent, spool: &spool::Status) -> Destination {
        let (client, health, now) = (endpoints.first(), &lane.health, Instant::now());
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
            queued: lane.queue.len(),
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
    /// How many.
    pub events: u64,
    /// What they take, in whole blocks.
    pub bytes: u64,
    /// Of others, that could not be read: they are offered again after the next start.
    pub unreadable: u64,
}

/// One line with everything that balances.
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
