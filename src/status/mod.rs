//! The state of the running uplink, as shown by `GET /api/status`, `sophon-uplink status`, the metrics, and one log line at the
//! stop.
//!
//! A *delivery* is one event for one destination; the JSON calls them `shares`. The counts balance: the deliveries that came
//! equal those that ended plus those that are still here. [`Shares`] says for each count which of these it is.

mod destination;
mod spool;

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

pub use destination::{Backlog, Destination};
pub use spool::{Parked, Spool};

use crate::deliver::core::counters::Counters;
use crate::ring::inspect::RingState;
use crate::spool::Tally;

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
    /// Ended: kept as a dead letter, because the server refused it, or takes others and not this one.
    pub dead: u64,
    /// Ended: dropped, because it waited in the spool for longer than the config allows.
    pub expired: u64,
    /// Ended: evicted from the spool for newer events, or given up because the ring needed the room and the spool could not
    /// take the event.
    pub evicted: u64,
    /// Ended: damaged in the spool, and moved to quarantine.
    pub quarantined: u64,
    /// Ended: somebody else removed it from the spool.
    pub vanished: u64,
    /// Ended: refused by the server, and could not be kept as a dead letter.
    pub refused: u64,
    /// Ended: the event or its pictures were lost, because the ring's file was truncated or the recognizer wrote over it.
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
    /// Whether its file was removed while its recognizer uses it: nobody else can find it.
    pub is_removed: bool,
    /// `alive`, `closed` (it ended in order), `died`, or `absent` (no ring is being read).
    pub recognizer: &'static str,
    /// Duration of this state.
    pub recognizer_seconds: f64,
    /// Time since the last event; none if there was none since the start.
    pub last_event_seconds: Option<f64>,
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
