//! The state of an event that failed, which helps to tell whether the event or the destination caused the failures.

use std::time::{Duration, Instant};

/// An event's failed attempts at one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryState {
    /// How many there were, not counting those under an older config and those without a connection.
    pub tries: u32,
    /// Of these: how many the server refused before it had the whole body.
    pub early: u16,
    /// How many count against the event: those since the last answer with `Retry-After`; in strict order also since the last
    /// failure that was about the server only.
    pub blamed: u16,
    /// When the first attempt failed; in strict order: the first that counts against the event.
    pub first_failed: Instant,
    /// Other events go first until then.
    pub retry_at: Instant,
    /// How many events the destination had acknowledged when the last attempt failed.
    pub acknowledged: u64,
    /// The last row of failures that it was counted in.
    pub row: u64,
    /// The generation of the configuration under which it failed; the failures do not count under another one.
    pub generation: u64,
}

impl RetryState {
    /// For how long it has been failing.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.first_failed)
    }
}
