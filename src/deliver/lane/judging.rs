//! What a try means: for the destination's health, and for the event.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Hold, Lane, Verdict};
use crate::deliver::backoff;
use crate::deliver::delivery::End;
use crate::deliver::failure::Failure;
use crate::deliver::health::Condition;
use crate::deliver::outcome::Outcome;
use crate::event::Event;
use crate::readiness;

/// This many refusals in a row are the server's fault, not the events'.
const BROKEN_AFTER: u32 = 5;

impl Lane {
    /// Takes note of what became of a try, and says what that means for its event.
    pub(super) fn judge(&self, outcome: Outcome, hold: Hold, generation: u64, event: &Event) -> Verdict {
        let is_current = generation == self.health.borrow().generation;
        match outcome {
            Outcome::Acknowledged => {
                self.recent.acknowledged();
                self.succeeded();
                Verdict::Over(End::Acknowledged)
            }
            Outcome::SourceLost => {
                let (event, url) = (event.id, self.url());
                self.complaints
                    .say(|more| warn!(%event, %url, "lost: the file with its pictures was truncated under it{more}"));
                Verdict::Over(End::Lost)
            }
            _ if !is_current => {
                self.count(|counters| &counters.failures);
                Verdict::Again(Hold::default())
            }
            Outcome::Refused { failure } => self.refused(failure, hold, event),
            Outcome::Unreachable { failure } => {
                let pause = self.pause(None);
                self.failed(Condition::Down, failure, pause);
                Verdict::Again(hold)
            }
            Outcome::Down { failure, retry_after } => {
                let pause = self.pause(retry_after);
                self.failed(Condition::Down, failure, pause);
                Verdict::Again(self.held(hold, pause))
            }
            Outcome::Misconfigured { failure } => {
                let failures = self.health.borrow().failures + 1;
                let pause = backoff::after_misconfiguration(failures, &mut self.random.borrow_mut());
                self.failed(Condition::Misconfigured, failure, pause);
                Verdict::Again(self.held(hold, pause))
            }
        }
    }

    /// How long a destination that fails is left alone.
    fn pause(&self, retry_after: Option<Duration>) -> Duration {
        let failures = self.health.borrow().failures + 1;
        backoff::after_failure(failures, retry_after, &mut self.random.borrow_mut())
    }

    /// What is known of an event after one more failure: it waits for a while of its own after the lane's pause.
    fn held(&self, hold: Hold, pause: Duration) -> Hold {
        let failures = hold.failures + 1;
        let own = backoff::after_failure(failures, None, &mut self.random.borrow_mut());
        let generation = self.health.borrow().generation;
        Hold { failures, not_before: Some(Instant::now() + pause + own), generation }
    }

    fn succeeded(&self) {
        let mut health = self.health.borrow_mut();
        self.probed.set(0);
        self.backlog.borrow_mut().forget_probes();
        if health.succeeded() {
            let why = health.last_failure.as_ref().map_or("", |(failure, _)| &failure.why);
            info!(url = %self.url(), "up again (was: {why})");
        }
    }

    /// One event is refused, but not one after another: then it must be the server.
    fn refused(&self, failure: Failure, hold: Hold, event: &Event) -> Verdict {
        let refusals = {
            let mut health = self.health.borrow_mut();
            health.refusals += 1;
            health.last_failure = Some((failure.clone(), Instant::now()));
            health.last_refusal = Some((self.client.last_answer(), failure.why.clone()));
            health.refusals
        };
        if refusals >= BROKEN_AFTER {
            let why =
                format!("{failure} to {BROKEN_AFTER} events in a row: check the server, nothing more is given up");
            let failure = Failure { why, ..failure };
            let pause = backoff::after_misconfiguration(refusals - BROKEN_AFTER, &mut self.random.borrow_mut());
            self.failed(Condition::Refusing, failure, pause);
            return Verdict::Again(self.held(hold, 2 * pause));
        }
        self.recent.refused(&failure.why);
        let (event, url) = (event.id, self.url());
        self.complaints.say(|more| warn!(%event, %url, "{failure}: a dead letter now{more}"));
        Verdict::Over(End::Refused)
    }

    /// The destination does not work: nothing starts for a while, and what is queued goes to the spool.
    fn failed(&self, condition: Condition, failure: Failure, pause: Duration) {
        self.count(|counters| &counters.failures);
        let is_news = self.health.borrow_mut().failed(condition, &failure, pause);
        if is_news {
            warn!(url = %self.url(), "not delivered, trying again: {failure}");
        }
        self.spool_queue();
    }

    fn spool_queue(&self) {
        self.queue.borrow().iter().for_each(|waiting| self.spooler.add(Rc::clone(&waiting.delivery)));
    }

    /// Whether the destination needs what the box does not have yet; takes note of when that begins and when it ends.
    pub(super) fn waits_for_box(&self) -> bool {
        let lack = self.url().is_tls().then(readiness::of_tls).flatten();
        let lacked = self.health.borrow().waits();
        if let Some(lack) = lack {
            if self.health.borrow_mut().wait_for(lack) {
                warn!(url = %self.url(), "{}", lack.why());
                self.spool_queue();
            }
        } else if let Some(lacked) = lacked {
            self.health.borrow_mut().begin_anew();
            info!(url = %self.url(), "{}", lacked.over());
        }
        lack.is_some()
    }
}
