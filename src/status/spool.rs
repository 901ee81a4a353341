//! The spool in the status.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config;
use crate::spool::{self, State};

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
    /// Size of events, dead letters and quarantined files, in whole blocks.
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
