//! The state of a configured ring apart from its records: whether its name still belongs to its file, whether its recognizer is
//! alive, and when the last event came.
//!
//! A recognizer is alive while it holds its lock. If the lock is free, the header distinguishes two cases: a recognizer that
//! closes the ring removes its pid, one that dies cannot. If no recognizer ever ran, there is no ring: a boot leaves none.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::rate_limited::RateLimited;
use crate::ring::file::{Naming, OpenError, RingFile, Side};
use crate::ring::inspect::RingState;
use crate::status;

/// The state of a ring's recognizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognizer {
    /// There is no ring: no recognizer has created it yet.
    Absent,
    /// It has the ring open.
    Alive,
    /// It has closed the ring.
    Closed,
    /// It ended without closing the ring.
    Died,
}

impl Recognizer {
    /// Its name in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Recognizer::Absent => "absent",
            Recognizer::Alive => "alive",
            Recognizer::Closed => "closed",
            Recognizer::Died => "died",
        }
    }
}

/// A configured ring.
#[derive(Debug)]
pub struct RingWatch {
    /// The path, as in the config.
    pub path: PathBuf,
    /// Limits messages about the ring.
    pub log_limiter: RateLimited,
    /// The file that is being read.
    file: RefCell<Option<Arc<RingFile>>>,
    /// What the path named at the last check.
    naming: Cell<Naming>,
    recognizer: Cell<Recognizer>,
    since: Cell<Instant>,
    last_event: Cell<Option<Instant>>,
}

impl RingWatch {
    /// A ring that is not being read yet.
    pub fn new(path: PathBuf) -> RingWatch {
        RingWatch {
            path,
            log_limiter: RateLimited::new(3),
            file: RefCell::default(),
            naming: Cell::new(Naming::This),
            recognizer: Cell::new(Recognizer::Absent),
            since: Cell::new(Instant::now()),
            last_event: Cell::new(None),
        }
    }

    /// Sets the file that is being read; none: no file.
    pub fn reads(&self, file: Option<&Arc<RingFile>>) {
        self.file.replace(file.cloned());
        self.naming.set(Naming::This);
        match file {
            Some(file) => drop(self.look(file)),
            None => self.set(Recognizer::Absent),
        }
    }

    /// Whether this file is being read.
    pub fn is_reading(&self, inode: (u64, u64)) -> bool {
        self.file.borrow().as_ref().is_some_and(|file| file.inode() == inode)
    }

    /// Records that an event came.
    pub fn event_came(&self) {
        self.last_event.set(Some(Instant::now()));
    }

    /// Checks the name and the recognizer, and logs changes. Returns what the path names. Costs two system calls.
    pub fn look(&self, file: &RingFile) -> Naming {
        let (path, before) = (self.path.display(), self.recognizer.get());
        let pid = file.holder(Side::Producer);
        self.set(match pid {
            Some(_) => Recognizer::Alive,
            None if file.was_closed() => Recognizer::Closed,
            None => Recognizer::Died,
        });
        match (before, self.recognizer.get()) {
            (Recognizer::Alive, Recognizer::Closed) => {
                self.log_limiter.say(|more| info!(ring = %path, "the recognizer has closed the ring{more}"));
            }
            (Recognizer::Alive, Recognizer::Died) => {
                self.log_limiter.say(|more| warn!(ring = %path, "the recognizer has died: no event comes until it is started again{more}"));
            }
            (Recognizer::Closed | Recognizer::Died, Recognizer::Alive) => {
                self.log_limiter.say(|more| info!(ring = %path, pid, "the ring has a recognizer again{more}"));
            }
            _ => {}
        }
        let naming = file.naming(&self.path);
        if self.naming.replace(naming) != Naming::Nothing && naming == Naming::Nothing && pid.is_some() {
            self.log_limiter.say(|more| {
                warn!(ring = %path, "the ring's file was removed while both sides still use it; {REMOVED}{more}");
            });
        }
        naming
    }

    fn set(&self, recognizer: Recognizer) {
        if self.recognizer.replace(recognizer) != recognizer {
            self.since.set(Instant::now());
        }
    }

    /// Whether the recognizer had the ring open at the last check.
    pub fn has_recognizer(&self) -> bool {
        self.recognizer.get() == Recognizer::Alive
    }

    /// The status of the ring.
    pub fn status(&self) -> status::Ring {
        let file = self.file.borrow().clone();
        let state = file.as_ref().map_or_else(|| RingState::of(&self.path), |file| Ok(self.state_of(file)));
        if let (None, Ok(RingState { producer: Some(_), .. })) = (&file, &state) {
            self.set(Recognizer::Alive); // for a ring that another process reads
        }
        let is_removed = file.is_some_and(|file| self.look(&file) == Naming::Nothing);
        let is_lost_to_its_recognizer = is_removed && self.has_recognizer();
        let removed = || format!("{} was removed while its recognizer uses it: {REMOVED}", self.path.display());
        status::Ring {
            path: self.path.clone(),
            problem: state.as_ref().err().map(ToString::to_string).or_else(|| is_lost_to_its_recognizer.then(removed)),
            is_missing: matches!(state, Err(OpenError::Missing(_))),
            state: state.ok(),
            is_removed: is_lost_to_its_recognizer,
            recognizer: self.recognizer.get().name(),
            recognizer_seconds: self.since.get().elapsed().as_secs_f64(),
            last_event_seconds: self.last_event.get().map(|moment| moment.elapsed().as_secs_f64()),
        }
    }

    /// The state of a ring that this process reads. A process does not see its own lock, so the consumer is filled in here.
    fn state_of(&self, file: &RingFile) -> RingState {
        RingState { consumer: Some(std::process::id()), ..file.state(&self.path) }
    }

    /// Logs why the ring cannot be used.
    pub fn log_problem(&self, error: &OpenError) {
        let path: &Path = &self.path;
        match error {
            OpenError::Missing(_) => {}
            error => self.log_limiter.say(|more| warn!(ring = %path.display(), "waiting: {error}{more}")),
        }
    }
}

/// What a removed file means, and what to do.
const REMOVED: &str = "a recognizer with the header of this release makes a new one with its next event; restart any other, or its events are lost when this program ends";
