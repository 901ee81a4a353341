//! What a lane counts, and what is told of it.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tracing::warn;

use super::{Lane, LaneCounters};
use crate::deliver::delivery::End;
use crate::spool::DeadLetterReason;
use crate::{spool, status};

impl Lane {
    /// Everything of it, with what the spool knows.
    pub fn status(&self, spool: &spool::Status) -> status::Destination {
        let health = self.health.borrow();
        let here = spool.destinations.iter().find(|known| known.destination == self.destination());
        let tally = here.map_or(spool::Tally::default(), |here| here.tally);
        let ago = |moment: Instant| moment.elapsed().as_secs_f64();
        let pause = health.paused_until().map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64());
        status::Destination {
            url: self.url().to_string(),
            state: health.condition.name(),
            since_seconds: ago(health.since),
            last_error: health.last_failure.as_ref().map(|(failure, _)| failure.why.clone()),
            last_error_code: health.last_failure.as_ref().map(|(failure, _)| failure.code.name()),
            last_error_seconds: health.last_failure.as_ref().map(|(_, moment)| ago(*moment)),
            last_success_seconds: health.last_success.map(ago),
            last_answer: self.client.last_answer(),
            next_try_seconds: pause,
            in_flight: self.in_flight() as u64,
            busy_seconds: self.places.busy_since().map(ago),
            queued: self.queue.borrow().len() as u64,
            backlog: here.map_or(status::Backlog::default(), |here| status::Backlog {
                events: here.waiting,
                bytes: here.bytes,
                unreadable: here.stuck,
            }),
            acknowledged: self.counters.acknowledged.get() + tally.delivered,
            dead: tally.dead,
            evicted: self.counters.evicted.get() + tally.evicted,
            failed_tries: self.counters.failures.get(),
            last_hour: self.recent.last_hour(),
        }
    }

    /// Why an event that was just refused, after so many tries, is a dead letter.
    pub fn refusal(&self, tries: u32) -> DeadLetterReason {
        let (status, reason) = self.health.borrow().last_refusal.clone().unwrap_or_default();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        DeadLetterReason { status, reason, tries, at }
    }

    /// A share's way in memory is over.
    pub fn count_end(&self, end: End) {
        match end {
            End::Acknowledged => self.count(|counters| &counters.acknowledged),
            End::Lost => self.count(|counters| &counters.lost),
            End::Refused => {
                self.gave_up(|counters| &counters.refused, "it was refused, and cannot be kept as a dead letter")
            }
            End::Evicted => self
                .gave_up(|counters| &counters.evicted, "the ring needs its room, and it does not fit into the spool"),
        }
    }

    fn gave_up(&self, counter: impl Fn(&LaneCounters) -> &Cell<u64>, why: &str) {
        self.count(counter);
        let url = self.url();
        self.complaints.say(|more| warn!(%url, "an event was given up: {why}{more}"));
    }

    /// A share is in the spool.
    pub fn count_spooled(&self) {
        self.count(|counters| &counters.spooled);
    }

    /// A share is other lanes'.
    pub fn count_handed_over(&self) {
        self.count(|counters| &counters.handed_over);
    }

    pub(super) fn count(&self, counter: impl Fn(&LaneCounters) -> &Cell<u64>) {
        for counters in [&self.counters, &*self.totals] {
            let counter = counter(counters);
            counter.set(counter.get() + 1);
        }
    }
}
