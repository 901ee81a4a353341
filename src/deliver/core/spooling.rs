//! From memory to the spool: which events are to be written, oldest first, and when.
//!
//! One event is written once for all destinations that lack it; one that comes to need it later shares the file. Where the spool
//! cannot be used, events stay where they are, in the ring, and uploads go on.
//!
//! Events go to the flash in groups: what waits is written when the first of it has waited for the window, when it is a full group, when
//! the ring needs its room, or when the process ends, whichever comes first. An event's own file costs the flash two or three times what
//! is in it; a group's, little more than that. Meanwhile they are in the ring, as safe as all that is there.

use std::time::{Duration, Instant};

use super::queue::RunSet;
use crate::spool::group;

/// Events of a full group, which are written together: the disk is busy with them for a while, and whoever wants to read waits.
pub const BATCH: usize = group::MOST;
/// A group of so many bytes is full.
pub const GROUP_BYTES: u64 = 4 << 20;
/// An event that is to be stored waits so long for the uploads that it came with, at least: its write is not to take the processor from
/// them. It is in the ring meanwhile.
const LINGER: Duration = Duration::from_millis(10);
/// Pauses between tries while the spool cannot be used.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Decides what is written when.
#[derive(Debug, Default)]
pub struct Writer {
    /// There may be something to write of these events.
    waiting: RunSet,
    /// What these take in the ring.
    bytes: u64,
    /// How long the first of a group waits for the others.
    window: Duration,
    /// When what waits is to be written; none where nothing does.
    write_at: Option<Instant>,
    /// Nothing is written before, unless there is no time to lose.
    rests_until: Option<Instant>,
    /// The ring or the end of the process waits for what is to be written.
    hurry: bool,
    /// The spool is at it.
    pub is_writing: bool,
    /// The spool is being looked at.
    pub is_repairing: bool,
    /// Events of removed destinations are being moved.
    is_settling: bool,
    /// When what waits for removed destinations is to be moved to their heirs.
    settle_at: Option<Instant>,
    trouble: Option<Trouble>,
}

/// Why nothing can be written.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// In words.
    pub why: String,
    /// What has to come first.
    pub needs: Needs,
    pause: Duration,
    until: Instant,
}

/// What has to be done before anything can be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: another event may be stored.
    Nothing,
    /// Its folders have to be listed.
    Opening,
    /// There was no key to seal with.
    Key,
}

impl Writer {
    /// How long the first event of a group waits for the others from now on.
    pub fn set_window(&mut self, window: Duration, now: Instant) {
        self.window = window;
        self.write_by(now + window.max(LINGER));
    }

    /// There may be something to write of this event, which takes so many bytes in the ring.
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

    /// There is no time to lose, until everything is written.
    pub fn hurry(&mut self, now: Instant) {
        self.hurry = true;
        self.write_by(now);
    }

    /// The last event that may have something to write.
    pub fn last(&self) -> Option<u64> {
        self.waiting.last()
    }

    /// The next event that may have something to write; `length` says what one takes in the ring.
    pub fn take(&mut self, length: impl Fn(u64) -> u32) -> Option<u64> {
        let first = self.waiting.first();
        match first {
            Some(event) => self.forget(event, length(event)),
            None => self.hurry = false,
        }
        first
    }

    /// Nothing is to be written of this event any more.
    pub fn forget(&mut self, event: u64, length: u32) {
        if self.waiting.remove(event) {
            self.bytes = self.bytes.saturating_sub(length.into());
        }
        if self.waiting.is_empty() {
            self.write_at = None;
        }
    }

    /// Something was written, or could not be: others have the disk and the processor before the next round.
    pub fn rest(&mut self, now: Instant) {
        self.rests_until = Some(now + LINGER);
        self.hurry &= !self.waiting.is_empty();
    }

    /// Whether something is to be written now.
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

    /// What has to be done first, if its time has come.
    pub fn repair(&self, now: Instant) -> Option<Needs> {
        let trouble =
            self.trouble.as_ref().filter(|trouble| trouble.until <= now && trouble.needs != Needs::Nothing)?;
        (!self.is_writing && !self.is_repairing).then_some(trouble.needs)
    }

    /// When there is something to do next; `blocked`: nothing can be settled before something else is written.
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

    /// Why nothing can be written just now.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Whether a try failed that began after the last [`Writer::try_now`].
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.until > now)
    }

    /// Where something failed, the folders have to be listed first; false where nothing did.
    pub fn needs_opening(&mut self) -> bool {
        self.trouble.as_mut().map(|trouble| trouble.needs = Needs::Opening).is_some()
    }

    /// Tries again at once, whatever failed before.
    pub fn try_now(&mut self, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            trouble.until = now;
        }
        self.write_by(now);
    }

    /// Something was written; why it could not be before, if it could not.
    pub fn works(&mut self) -> Option<String> {
        self.trouble.take().map(|trouble| trouble.why)
    }

    /// Nothing waits to be written any more: what failed last is no trouble now, and the next event will show whether it still would be.
    /// A spool that cannot be used at all says so itself.
    pub fn forget_trouble(&mut self) {
        if self.is_idle() && self.trouble.as_ref().is_some_and(|trouble| trouble.needs == Needs::Nothing) {
            self.trouble = None;
        }
    }

    /// Nothing could be written; true when that is news.
    pub fn fails(&mut self, why: &str, needs: Needs, now: Instant) -> bool {
        // Several events of one batch are one failure.
        let longer = |trouble: &Trouble| if trouble.until > now { trouble.pause } else { trouble.pause * 2 };
        let pause = self.trouble.as_ref().map_or(PAUSES.0, |trouble| longer(trouble).min(PAUSES.1));
        let is_news = self.trouble.as_ref().is_none_or(|trouble| trouble.why != why);
        self.trouble = Some(Trouble { why: why.to_owned(), needs, pause, until: now + pause });
        is_news
    }

    /// There may be something in the spool for a destination that was removed, or was put back.
    pub fn settle(&mut self, now: Instant) {
        self.settle_at = Some(now);
        self.try_now(now);
    }

    /// Whether something may still be moved.
    pub fn may_move(&self) -> bool {
        self.is_settling || self.settle_at.is_some()
    }

    /// What was to be moved was, or could not be.
    pub fn settled(&mut self) {
        self.is_settling = false;
    }

    /// It could not be done now.
    pub fn settle_later(&mut self, now: Instant) {
        self.settle_at = Some(now + PAUSES.1);
    }

    /// Whether it is time to do so; then it is being done.
    pub fn begin_to_settle(&mut self, now: Instant) -> bool {
        let is_due = !self.is_settling && self.settle_at.is_some_and(|moment| moment <= now);
        if is_due {
            (self.settle_at, self.is_settling) = (None, true); // whoever comes meanwhile says so
        }
        is_due
    }

    /// Whether nothing waits to be written.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_writing
    }
}
