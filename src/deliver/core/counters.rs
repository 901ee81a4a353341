//! What became of a lane's deliveries, as counted in memory.

/// Counts of deliveries: `entered` equals the sum of the other counts (without `failures`) plus the open deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entered the lane.
    pub entered: u64,
    /// Acknowledged with a 2xx.
    pub acknowledged: u64,
    /// Written to the spool, which counts them from there on.
    pub spooled: u64,
    /// The server refused the event, and it could not be kept as a dead letter.
    pub refused: u64,
    /// The event or its pictures are no longer available: the ring's file was truncated, or the recognizer wrote over it.
    pub lost: u64,
    /// The ring needed the event's room, and the spool could not take it.
    pub evicted: u64,
    /// The destination was removed from the config, and its heirs have the event.
    pub handed_over: u64,
    /// Failed attempts; they do not end a delivery.
    pub failures: u64,
}

impl Counters {
    /// The sum of both, field by field.
    pub fn plus(self, other: &Counters) -> Counters {
        Counters {
            entered: self.entered + other.entered,
            acknowledged: self.acknowledged + other.acknowledged,
            spooled: self.spooled + other.spooled,
            refused: self.refused + other.refused,
            lost: self.lost + other.lost,
            evicted: self.evicted + other.evicted,
            handed_over: self.handed_over + other.handed_over,
            failures: self.failures + other.failures,
        }
    }
}

/// How a delivery can end in memory, other than by being stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Acknowledged with a 2xx.
    Acknowledged,
    /// The server refused it: it becomes a dead letter.
    Rejected(super::Rejection),
    /// Its pictures are no longer available.
    Lost,
    /// The ring needs its room, and the spool cannot take it.
    Evicted,
}
