//! What is known of a ring of the config beside its records: whether its name still names it, whether its recognizer lives, when the
//! last event came.
//!
//! A recognizer is alive while it holds its lock. Where the lock is free, the header tells the two ends apart: one that closes the ring
//! takes its pid out of it, one that dies cannot. One that never came leaves no ring at all: after a boot there is none.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::rate_limited::RateLimited;
use crate::ring::file::{Naming, OpenError, RingFile, Side};
use crate::ring::inspect::RingState;
use crate::status;

/// How the recognizer of a ring fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognizer {
    /// There is no ring: none has made it yet.
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

/// A ring of the config.
#[derive(Debug)]
pub struct RingWatch {
    /// As in the config.
    pub path: PathBuf,
    /// Messages about it.
    pub log_limiter: RateLimited,
    /// What is being read.
    file: RefCell<Option<Arc<RingFile>>>,
    /// What the path named at the last look.
    naming: Cell<Naming>,
    recognizer: Cell<Recognizer>,
    since: Cell<Instant>,
    last_event: Cell<Option<Instant>>,
}

impl RingWatch {
    /// Of a ring that is not read yet.
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

    /// The file is being read from now on; none: it is not any more.
    pub fn reads(&self, file: Option<&Arc<RingFile>>) {
        self.file.replace(file.cloned());
        self.naming.set(Naming::This);
        match file {
            Some(file) => drop(self.look(file)),
            None => self.set(Recognizer::Absent),
        }
    }

    /// Whether it is this file that is being read.
    pub fn is_reading(&self, inode: (u64, u64)) -> bool {
        self.file.borrow().as_ref().is_some_and(|file| file.inode() == inode)
    }

    /// An event came.
    pub fn event_came(&self) {
        self.last_event.set(Some(Instant::now()));
    }

    /// Looks at the name and at the recognizer, says what is new, and returns what the path names. Costs two system calls.
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
                self.log_limiter.say(|more| info!(ring = %path, "its recognizer has closed it{more}"));
            }
            (Recognizer::Alive, Recognizer::Died) => {
                self.log_limiter.say(|more| warn!(ring = %path, "its recognizer has died: no event comes until it is started again{more}"));
            }
            (Recognizer::Closed | Recognizer::Died, Recognizer::Alive) => {
                self.log_limiter.say(|more| info!(ring = %path, pid, "it has a recognizer again{more}"));
            }
            _ => {}
        }
        let naming = file.naming(&self.path);
        if self.naming.replace(naming) != Naming::Nothing && naming == Naming::Nothing && pid.is_some() {
            self.log_limiter.say(|more| {
                warn!(ring = %path, "its file was removed while its recognizer uses it: read on; {REMOVED}{more}");
            });
        }
        naming
    }

    fn set(&self, recognizer: Recognizer) {
        if self.recognizer.replace(recognizer) != recognizer {
            self.since.set(Instant::now());
        }
    }

    /// Whether the recognizer has the ring open, as of the last look.
    pub fn has_recognizer(&self) -> bool {
        self.recognizer.get() == Recognizer::Alive
    }

    /// Everything of it.
    pub fn status(&self) -> status::Ring {
        let file = self.file.borrow().clone();
        let state = file.as_ref().map_or_else(|| RingState::of(&self.path), |file| Ok(self.state_of(file)));
        if let (None, Ok(RingState { producer: Some(_), .. })) = (&file, &state) {
            self.set(Recognizer::Alive); // of a ring that is not ours to read
        }
        let is_removed = file.is_some_and(|file| self.look(&file) == Naming::Nothing);
        let removed = || format!("{} was removed while its recognizer uses it: {REMOVED}", self.path.display());
        status::Ring {
            path: self.path.clone(),
            problem: state.as_ref().err().map(ToString::to_string).or_else(|| is_removed.then(removed)),
            is_missing: matches!(state, Err(OpenError::Missing(_))),
            state: state.ok(),
            is_removed,
            recognizer: self.recognizer.get().name(),
            recognizer_seconds: self.since.get().elapsed().as_secs_f64(),
            last_event_seconds: self.last_event.get().map(|moment| moment.elapsed().as_secs_f64()),
        }
    }

    /// A process does not see its own lock, and the consumer is this one.
    fn state_of(&self, file: &RingFile) -> RingState {
        RingState { consumer: Some(std::process::id()), ..file.state(&self.path) }
    }

    /// What is said where the ring cannot be used; where another entry of the config is this very ring, that.
    pub fn complain(&self, error: &OpenError) {
        let path: &Path = &self.path;
        match error {
            OpenError::Missing(_) => {}
            error => self.log_limiter.say(|more| warn!(ring = %path.display(), "waiting: {error}{more}")),
        }
    }
}

/// What that means, and what to do.
const REMOVED: &str = "a recognizer with the header of this release makes a new one with its next event; restart any other, or its events are lost when this program ends";
