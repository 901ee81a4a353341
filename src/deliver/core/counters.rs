//! What became of the deliveries of a lane, as far as memory knows.

/// Counts of deliveries: `entered` is the sum of the rest, failures aside, and of what is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Given to the lane.
    pub entered: u64,
    /// 2xx.
    pub acknowledged: u64,
    /// Written into the spool; it counts on from there.
    pub spooled: u64,
    /// The server did not want the event, and it could not be kept as a dead letter.
    pub refused: u64,
    /// The event's pictures went away (the ring's file was truncated).
    pub lost: u64,
    /// The ring needed the event's room, and the spool could not take it.
    pub evicted: u64,
    /// The destination was removed from the config: those that were added have it.
    pub handed_over: u64,
    /// Tries that came to nothing; not the end of an event.
    pub failures: u64,
}

impl Counters {
    /// The sum of both.
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

/// How a delivery's way in memory can end but for the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// 2xx.
    Acknowledged,
    /// The server does not want it: to be kept as a dead letter.
    Rejected(super::Rejection),
    /// Its pictures went away.
    Lost,
    /// The ring needs its room, and the spool cannot take it.
    Evicted,
}
