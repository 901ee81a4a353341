//! Decides what the outcome of an attempt means for the destination's health and for the event. `evidence.rs` tells which of the
//! two is at fault.

use std::time::Duration;

use super::Standing;
use super::judge::{Failing, Judge, TOO_MANY, Verdict};
use crate::deliver::core::counters::End;
use crate::deliver::core::health::Condition;
use crate::deliver::core::in_flight::{InFlight, Source};
use crate::deliver::core::retry::RetryState;
use crate::deliver::core::{Notice, Rejection, backoff};
use crate::deliver::failure::Failure;
use crate::deliver::outcome::AttemptOutcome;
use crate::event::EventId;

/// At least this many refusals in a row are needed before the server is at fault instead of the events.
const BROKEN_AFTER: u32 = 5;
/// A refusal before the whole body was sent counts only from this one of the event on (the third); the event is tried again
/// after the earlier ones.
const EARLY_TRIES: u16 = 3;
/// How long an event must have failed while others succeed before it is given up: with an answer, and without one (which also
/// needs twice the tries).
const GIVE_UP_AFTER: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// If a destination acknowledged an event within this time, one failed event does not count as a failure of the destination.
const RECENT: Duration = Duration::from_secs(30);
/// A destination is reliable if so few failures in a row already show that it is at fault: a `Retry-After` then is about the
/// destination, not about one event.
const RELIABLE: u32 = 3;

impl Standing {
    /// Records the outcome of an attempt, and returns what it means for its event.
    pub fn classify(
        &mut self,
        judge: &mut Judge<'_>,
        upload: &InFlight,
        id: EventId,
        outcome: AttemptOutcome,
    ) -> Verdict {
        let failing = |condition, failure, retry_after: Option<Duration>| Failing {
            upload,
            id,
            condition,
            failure,
            retry_after,
            is_asked_for: retry_after.is_some(),
        };
        match outcome {
            AttemptOutcome::Acknowledged => {
                self.succeeded(judge, upload);
                Verdict::Over(End::Acknowledged)
            }
            AttemptOutcome::SourceLost => {
                if !matches!(upload.source, Source::Stored { .. }) {
                    let is_spooled = matches!(upload.source, Source::Spool(_));
                    judge.notices.push(Notice::Lost { lane: judge.lane, event: id, is_spooled });
                }
                Verdict::Over(End::Lost)
            }
            _ if upload.generation != self.health.generation => {
                judge.failures += 1;
                Verdict::Again(None)
            }
            AttemptOutcome::NotBegun { .. } => Verdict::Again(upload.retry),
            AttemptOutcome::Unreachable { failure } => {
                judge.failures += 1;
                let pause = self.pause(judge, Condition::Down);
                self.doubt(judge, Condition::Down, failure);
                self.health.pause(pause, judge.now);
                let retry = upload.retry.map(|retry| match judge.in_order {
                    Some(_) => RetryState { blamed: 0, ..retry },
                    None => retry,
                });
                Verdict::Again(retry)
            }
            AttemptOutcome::Down { failure, retry_after } => {
                self.failed(judge, failing(Condition::Down, failure, retry_after))
            }
            AttemptOutcome::NotNow { failure, retry_after } => {
                let failing = failing(Condition::Down, failure, None);
                let mut verdict = self.failed(judge, Failing { is_asked_for: retry_after.is_some(), ..failing });
                if let (Verdict::Again(Some(retry)), Some(asked)) = (&mut verdict, retry_after) {
                    retry.retry_at = retry.retry_at.max(judge.now + asked);
                }
                verdict
            }
            AttemptOutcome::Misconfigured { failure } => {
                self.failed(judge, failing(Condition::Misconfigured, failure, None))
            }
            AttemptOutcome::Refused { failure } => self.refused(judge, failing(Condition::Refusing, failure, None)),
        }
    }

    fn succeeded(&mut self, judge: &mut Judge<'_>, upload: &InFlight) {
        self.evidence.succeeded(upload.retry.is_none());
        if self.health.succeeded(judge.now) {
            let was = self.health.last_failure.as_ref().map_or(String::new(), |(failure, _)| failure.why.clone());
            judge.notices.push(Notice::UpAgain { lane: judge.lane, was });
        }
    }

    /// Whether the event is at fault: others were acknowledged since it last failed, or since this first try began.
    fn is_at_fault(&self, upload: &InFlight) -> bool {
        self.evidence.acknowledged > upload.retry.map_or(upload.acknowledged, |retry| retry.acknowledged)
    }

    /// The event was refused. Too many refusals in a row mean that the server is at fault.
    fn refused(&mut self, judge: &mut Judge<'_>, failing: Failing<'_>) -> Verdict {
        if failing.is_early() && failing.upload.retry.is_none_or(|retry| retry.early + 1 < EARLY_TRIES) {
            return self.failed(judge, Failing { condition: Condition::Down, ..failing });
        }
        self.health.refusals += 1;
        let allowed = if self.evidence.is_known() { self.evidence.patience().max(BROKEN_AFTER) } else { BROKEN_AFTER };
        if self.health.refusals < allowed || self.is_at_fault(failing.upload) {
            if self.is_at_fault(failing.upload) {
                self.evidence.failed_alone(failing.upload.retry.is_none());
            } else if self.is_another(failing.upload) {
                self.evidence.failed();
            }
            self.health.note(failing.failure.clone(), judge.now);
            return Verdict::Over(self.reject(judge, &failing, failing.failure.why.clone()));
        }
        let why = format!(
            "{} to {} events in a row: check the server, nothing more is given up",
            failing.failure.why, self.health.refusals
        );
        self.failed(judge, Failing { failure: Failure { why, ..failing.failure }, ..failing })
    }

    fn reject(&self, judge: &mut Judge<'_>, failing: &Failing<'_>, reason: String) -> End {
        judge.notices.push(Notice::Rejected { lane: judge.lane, event: failing.id, why: reason.clone() });
        let tries = failing.upload.retry.map_or(0, |retry| retry.tries) + 1;
        End::Rejected(Rejection { status: failing.failure.status, reason, tries })
    }

    /// An attempt failed after the server had been reached.
    fn failed(&mut self, judge: &mut Judge<'_>, failing: Failing<'_>) -> Verdict {
        judge.failures += 1;
        if self.is_at_fault(failing.upload) {
            return self.failed_alone(judge, failing);
        }
        let Failing { upload, condition, .. } = failing;
        let is_usual = self.evidence.is_usual();
        let is_another = self.is_another(upload);
        if is_another {
            self.evidence.failed();
        }
        let is_conclusive = is_another && self.evidence.is_conclusive();
        let is_believed = !is_usual || is_conclusive || self.evidence.patience() <= RELIABLE;
        let is_asked = failing.retry_after.filter(|_| is_believed || failing.failure.status == Some(TOO_MANY));
        let is_recent = self.health.last_success.is_some_and(|moment| moment + RECENT > judge.now);
        let own_condition = match () {
            () if is_conclusive || is_asked.is_some() => {
                let pause = self.pause(judge, condition);
                self.doubt(judge, condition, failing.failure.clone());
                match is_asked {
                    Some(asked) => {
                        let pause = backoff::after_failure(self.health.pauses + 1, Some(asked), judge.random);
                        self.health.pause_as_asked(pause, judge.now);
                    }
                    None => self.health.pause(pause, judge.now),
                }
                self.evidence.pauses();
                condition
            }
            () if upload.retry.is_some() && !(is_recent && self.health.is_up() && self.evidence.is_usual()) => {
                let pause = self.pause(judge, condition);
                self.doubt(judge, condition, failing.failure.clone());
                self.health.pause_retries(pause, judge.now);
                condition
            }
            () if is_usual && self.health.is_up() => {
                self.not_taken(judge, &failing);
                Condition::Down
            }
            () => {
                self.doubt(judge, condition, failing.failure.clone());
                condition
            }
        };
        let retry = self.retry(judge, &failing, own_condition);
        match self.stops_others_too_long(&failing, retry, judge) {
            Some(reason) => Verdict::Over(self.reject(judge, &failing, reason)),
            None => Verdict::Again(Some(retry)),
        }
    }

    /// In strict order: the reason to give up an event that has stopped the others for too long, if it has.
    fn stops_others_too_long(&self, failing: &Failing<'_>, retry: RetryState, judge: &Judge<'_>) -> Option<String> {
        let most = judge.in_order.filter(|most| !most.is_zero())?;
        let is_too_long = u32::from(retry.blamed) >= BROKEN_AFTER && retry.age(judge.now) >= most;
        is_too_long.then(|| {
            format!(
                "it stopped the events behind it for {} s, and order_gives_up_s is {}: {}",
                retry.age(judge.now).as_secs(),
                most.as_secs(),
                failing.failure.why
            )
        })
    }

    /// An attempt failed while other events succeeded.
    fn failed_alone(&mut self, judge: &mut Judge<'_>, failing: Failing<'_>) -> Verdict {
        self.evidence.failed_alone(failing.upload.retry.is_none());
        let Failure { why, status, .. } = &failing.failure;
        if *status == Some(TOO_MANY) {
            let asked = failing.retry_after.unwrap_or_else(|| self.pause(judge, Condition::Down));
            self.doubt(judge, Condition::Down, failing.failure.clone());
            self.health.pause_as_asked(asked, judge.now);
            return Verdict::Again(Some(self.retry(judge, &failing, Condition::Down)));
        }
        let mut retry = self.retry(judge, &failing, Condition::Down);
        if failing.is_asked_for {
            // The server names the earliest moment. The pauses of this event grow nevertheless.
            let own = backoff::after_failure(retry.tries, None, judge.random);
            retry.retry_at = retry.retry_at.max(judge.now + own);
        }
        let (tries, age) = match status {
            Some(_) => (self.evidence.tries(), GIVE_UP_AFTER.0),
            None => (2 * self.evidence.tries(), GIVE_UP_AFTER.1),
        };
        if u32::from(retry.blamed) >= tries && retry.age(judge.now) >= age {
            let (last, guess) = match status {
                Some(status) => (format!("with {status}"), "a firewall or a size limit"),
                None => ("without an answer".into(), "does it crash the server"),
            };
            let tries = retry.tries;
            let reason = format!(
                "this event failed {tries} times, the last time {last}, and the server takes others: {guess}? ({why})"
            );
            return Verdict::Over(self.reject(judge, &failing, reason));
        }
        self.not_taken(judge, &failing);
        Verdict::Again(Some(retry))
    }

    /// Whether an event has not been counted in the current row of failures.
    fn is_another(&self, upload: &InFlight) -> bool {
        upload.retry.is_none_or(|retry| retry.row != self.evidence.row())
    }

    /// The event's state after one more failure, with the time of its next attempt.
    fn retry(&self, judge: &mut Judge<'_>, failing: &Failing<'_>, condition: Condition) -> RetryState {
        let before = failing.upload.retry;
        let tries = before.map_or(0, |retry| retry.tries) + 1;
        let is_strict = judge.in_order.is_some();
        let blamed = match before.map_or(0, |retry| retry.blamed) {
            _ if failing.is_asked_for => 0,
            _ if is_strict && failing.is_about_server() => 0,
            blamed => blamed.saturating_add(1),
        };
        let first = before.filter(|retry| !is_strict || retry.blamed > 0).map_or(judge.now, |retry| retry.first_failed);
        let pause = match condition {
            Condition::Misconfigured | Condition::Refusing => backoff::after_misconfiguration(tries, judge.random),
            _ => backoff::after_failure(tries, failing.retry_after, judge.random),
        };
        RetryState {
            tries,
            early: before.map_or(0, |retry| retry.early).saturating_add(u16::from(failing.is_early())),
            blamed,
            first_failed: first,
            retry_at: judge.now + pause,
            acknowledged: self.evidence.acknowledged,
            row: self.evidence.row(),
            generation: self.health.generation,
        }
    }

    /// The pause for a destination that fails.
    fn pause(&self, judge: &mut Judge<'_>, condition: Condition) -> Duration {
        let pauses = self.health.pauses + 1;
        match condition {
            Condition::Misconfigured => backoff::after_misconfiguration(pauses, judge.random),
            Condition::Refusing => backoff::after_misconfiguration(pauses - 1, judge.random),
            _ => backoff::after_failure(pauses, None, judge.random),
        }
    }

    fn doubt(&mut self, judge: &mut Judge<'_>, condition: Condition, failure: Failure) {
        let why = failure.why.clone();
        judge.is_doubted = true;
        if self.health.doubt(condition, failure, judge.now) {
            judge.notices.push(Notice::NotDelivered { lane: judge.lane, why });
        }
    }

    fn not_taken(&mut self, judge: &mut Judge<'_>, failing: &Failing<'_>) {
        self.health.note(failing.failure.clone(), judge.now);
        let why = failing.failure.why.clone();
        judge.notices.push(Notice::NotTaken { lane: judge.lane, event: failing.id, why });
    }
}
