//! What is known of an event that failed, and what it says about whose fault that was.

use std::time::{Duration, Instant};

/// An event's failed tries at one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryState {
    /// How many there were, those under an older config and those without a connection aside.
    pub tries: u32,
    /// Of these: the server refused it before it had all of it.
    pub early: u32,
    /// When the first of them failed.
    pub first_failed: Instant,
    /// Others go first until then.
    pub retry_at: Instant,
    /// Events that the destination had acknowledged when the last try failed.
    pub acknowledged: u64,
    /// The run of failures that it was counted in last.
    pub run: u64,
    /// The configuration under which it failed: of another one it says nothing.
    pub generation: u64,
}

impl RetryState {
    /// For how long it has been failing.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.first_failed)
    }
}
