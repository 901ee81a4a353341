//! Decides when events are written from memory to the spool, the oldest first.
//!
//! An event is written once for all destinations that lack it; a destination that comes to need it later shares the file. While
//! the spool cannot be used, events stay in the ring, and uploads go on.
//!
//! Events are written to the flash in groups. A group is written when its first event has waited for the window, when it is full,
//! when the ring needs the room, or when the process ends, whichever comes first. A file of its own costs the flash two or three
//! times the size of the event; in a group the cost is little more than the size. Until then the events are in the ring, as safe
//! as all others there.

use std::time::{Duration, Instant};

use super::queue::RunSet;
use crate::spool::group;

/// The most events of a group. They are written together, and reads from the disk wait meanwhile.
pub const BATCH: usize = group::MOST;
/// A group of this many bytes is full.
pub const GROUP_BYTES: u64 = 4 << 20;
/// The least time that an event waits before it is written (except in a hurry), so that the write does not take the processor
/// from the uploads of the same event. It is in the ring meanwhile.
const LINGER: Duration = Duration::from_millis(10);
/// The shortest and the longest pause between attempts while the spool cannot be used.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Decides which events are written, and when.
#[derive(Debug, Default)]
pub struct Writer {
    /// Events that may have to be written.
    waiting: RunSet,
    /// The length of these events in the ring.
    bytes: u64,
    /// How long the first event of a group waits for others.
    window: Duration,
    /// When the waiting events are to be written; none if there are none.
    write_at: Option<Instant>,
    /// Nothing is written before this, except in a hurry.
    rests_until: Option<Instant>,
    /// Whether the ring or the end of the process waits for the write.
    hurry: bool,
    /// Whether the spool is writing.
    pub is_writing: bool,
    /// Whether the spool is being opened, or its key looked for.
    pub is_repairing: bool,
    /// Whether events of removed destinations are being moved.
    is_settling: bool,
    /// When the events of removed destinations are to be moved to the heirs.
    settle_at: Option<Instant>,
    trouble: Option<Trouble>,
}

/// Why events cannot be written.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The reason, as text.
    pub why: String,
    /// What has to be done first.
    pub needs: Needs,
    pause: Duration,
    until: Instant,
}

/// What has to be done before events can be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: the next write may succeed.
    Nothing,
    /// The spool has to be opened: its folders have to be listed.
    Opening,
    /// The key for sealing has to be found.
    Key,
}

impl Writer {
    /// Sets how long the first event of a group waits for others.
    pub fn set_window(&mut self, window: Duration, now: Instant) {
        self.window = window;
        self.write_by(now + window.max(LINGER));
    }

    /// An event of `length` bytes in the ring may have to be written.
    pub fn add(&mut self, event: u64, length: u32, now: Instant) {
        if !self.waiting.insert(event) {
            return;
        }
        self.bytes += u64::from(length);
        self.write_at.get_or_insert(now + self.window.max(LINGER));
        if self.hurry {
            self.write_by(now);
        } else if self.waiting.len() >= BATCH as u64 || self.bytes >= GROUP_BYTES {
            self.write_by(now + LINGER);
        }
    }

    fn write_by(&mut self, moment: Instant) {
        self.write_at = self.write_at.map(|other| other.min(moment));
    }

    /// Writes without delay until everything is written.
    pub fn hurry(&mut self, now: Instant) {
        self.hurry = true;
        self.write_by(now);
    }

    /// The last event that may have to be written.
    pub fn last(&self) -> Option<u64> {
        self.waiting.last()
    }

    /// Takes the next event that may have to be written; `length` gives an event's length in the ring.
    pub fn take(&mut self, length: impl Fn(u64) -> u32) -> Option<u64> {
        let first = self.waiting.first();
        match first {
            Some(event) => self.forget(event, length(event)),
            None => self.hurry = false,
        }
        first
    }

    /// The event does not have to be written any more.
    pub fn forget(&mut self, event: u64, length: u32) {
        if self.waiting.remove(event) {
            self.bytes = self.bytes.saturating_sub(length.into());
        }
        if self.waiting.is_empty() {
            self.write_at = None;
        }
    }

    /// A write ended, with or without success: pauses, so that others get the disk and the processor.
    pub fn rest(&mut self, now: Instant) {
        self.rests_until = Some(now + LINGER);
        self.hurry &= !self.waiting.is_empty();
    }

    /// Whether a write is due.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.is_writing
            && !self.is_repairing
            && self.write_moment().is_some_and(|moment| moment <= now)
            && self.can_write(now)
    }

    fn write_moment(&self) -> Option<Instant> {
        let rests_until = self.rests_until.filter(|_| !self.hurry);
        self.write_at.into_iter().chain(self.write_at.and(rests_until)).max()
    }

    fn can_write(&self, now: Instant) -> bool {
        self.trouble.as_ref().is_none_or(|trouble| trouble.until <= now && trouble.needs == Needs::Nothing)
    }

    /// What has to be done first, if it is due.
    pub fn repair(&self, now: Instant) -> Option<Needs> {
        let trouble =
            self.trouble.as_ref().filter(|trouble| trouble.until <= now && trouble.needs != Needs::Nothing)?;
        (!self.is_writing && !self.is_repairing).then_some(trouble.needs)
    }

    /// When the writer has to run next; `blocked`: a write has to come before the next move to heirs.
    pub fn next_timer(&self, blocked: bool) -> Option<Instant> {
        let settle = self.settle_at.filter(|_| !self.is_settling && !blocked);
        if self.is_writing || self.is_repairing {
            return settle;
        }
        let write = match &self.trouble {
            Some(trouble) if trouble.needs != Needs::Nothing => Some(trouble.until),
            Some(trouble) => self.write_moment().map(|moment| moment.max(trouble.until)),
            None => self.write_moment(),
        };
        write.into_iter().chain(settle).min()
    }

    /// Why events cannot be written at present.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Whether an attempt failed that began after the last [`Writer::try_now`].
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.until > now)
    }

    /// If a write failed, the spool has to be opened first. Returns false if none failed.
    pub fn needs_opening(&mut self) -> bool {
        self.trouble.as_mut().map(|trouble| trouble.needs = Needs::Opening).is_some()
    }

    /// Makes the next attempt at once, even after a failure.
    pub fn try_now(&mut self, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            trouble.until = now;
        }
        self.write_by(now);
    }

    /// A write succeeded. Returns the reason of the failures before it, if any.
    pub fn works(&mut self) -> Option<String> {
        self.trouble.take().map(|trouble| trouble.why)
    }

    /// Forgets a failed write once no event waits: the next event will show whether writes still fail. A spool that cannot be
    /// used at all reports that separately.
    pub fn forget_trouble(&mut self) {
        if self.is_idle() && self.trouble.as_ref().is_some_and(|trouble| trouble.needs == Needs::Nothing) {
            self.trouble = None;
        }
    }

    /// A write failed. Returns true if the reason is new.
    pub fn fails(&mut self, why: &str, needs: Needs, now: Instant) -> bool {
        // Several failures of one batch count as one.
        let longer = |trouble: &Trouble| if trouble.until > now { trouble.pause } else { trouble.pause * 2 };
        let pause = self.trouble.as_ref().map_or(PAUSES.0, |trouble| longer(trouble).min(PAUSES.1));
        let is_news = self.trouble.as_ref().is_none_or(|trouble| trouble.why != why);
        self.trouble = Some(Trouble { why: why.to_owned(), needs, pause, until: now + pause });
        is_news
    }

    /// The spool may have events for a destination that was removed, or was added again.
    pub fn settle(&mut self, now: Instant) {
        self.settle_at = Some(now);
        self.try_now(now);
    }

    /// Whether events may still be moved.
    pub fn may_move(&self) -> bool {
        self.is_settling || self.settle_at.is_some()
    }

    /// A move ended, with or without success.
    pub fn settled(&mut self) {
        self.is_settling = false;
    }

    /// The move failed; tries again later.
    pub fn settle_later(&mut self, now: Instant) {
        self.settle_at = Some(now + PAUSES.1);
    }

    /// Whether a move is due; if so it counts as begun.
    pub fn begin_to_settle(&mut self, now: Instant) -> bool {
        let is_due = !self.is_settling && self.settle_at.is_some_and(|moment| moment <= now);
        if is_due {
            (self.settle_at, self.is_settling) = (None, true); // `settle` is called again for events that come meanwhile
        }
        is_due
    }

    /// Whether no event waits to be written.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_writing
    }
}
