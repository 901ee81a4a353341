//! One attempt on a connection: the request, and what its answer means.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;

use hyper::Response;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use tokio::time::Instant;
use tracing::warn;

use super::connection::{Connection, note_unsolicited};
use super::{Client, Upload};
use crate::body::Sent;
use crate::body::encoder;
use crate::config::answers::AcceptBody;
use crate::deliver::answer::{DRAIN_LIMIT, Heard, answer_in_time, drain};
use crate::deliver::failure::{Code, Early, Failure};
use crate::deliver::head::State;
use crate::deliver::link::Turn;
use crate::deliver::outcome::AttemptOutcome;
use crate::deliver::permit::BodyPermit;
use crate::deliver::progress::{Begun, Progress};
use crate::deliver::servers::Way;
use crate::deliver::sizes::EventSize;
use crate::deliver::transport::{self, describe};
use crate::picture::Lost;

/// How many bytes of an answer's body are kept for people to read.
const KEPT_BYTES: usize = 1024;

/// The result of one request on a connection.
pub(super) enum Try {
    Outcome(AttemptOutcome),
    /// The reused connection was closed while the request was in transit.
    Stale,
}

impl Client {
    pub(super) async fn exchange(
        &self,
        mut connection: Connection,
        reused: bool,
        upload: &Upload,
        permit: Option<BodyPermit>,
        turn: Option<Turn>,
    ) -> Try {
        self.heard.take();
        let sent = Sent::default();
        let template = self.template(&upload.event);
        let length = template.length();
        let mut request = self.request(Some(upload.event.id), Arc::clone(&upload.source), template, &sent);
        if self.settings.borrow().sign.is_some() {
            match Box::pin(self.signature(upload)).await {
                Ok(signature) => request.headers_mut().extend(signature.map(|(name, value)| (Some(name), value))),
                Err(Lost) => return Try::Outcome(AttemptOutcome::SourceLost),
            }
        }
        let read_before = connection.progress.read();
        let timeouts = self.settings.borrow().timeouts;
        connection.requests_left -= 1;
        // A new TLS connection may receive session tickets at any time.
        let begins = reused || !connection.is_tls;
        connection.progress.begin(Begun { sent, length, permit, turn, begins }, &self.link);
        let answer = {
            let answer = pin!(connection.sender.send_request(request));
            answer_in_time(answer, &connection.progress, timeouts).await
        };
        connection.progress.end();
        let peer = connection.peer;
        let mut tried = match answer {
            Ok(Ok(response)) => {
                // The state when the answer came: the rest of the body may have been acknowledged since.
                let early = connection.progress.early();
                Try::Outcome(self.finish(connection, response, early).await)
            }
            Ok(Err(error)) if error.source().is_some_and(|cause| cause.is::<Lost>()) => {
                Try::Outcome(AttemptOutcome::SourceLost)
            }
            Ok(Err(error)) if reused && connection.progress.read() == read_before => {
                note_unsolicited(&error, &self.unsolicited_response, &self.url);
                Try::Stale
            }
            Ok(Err(error)) => Try::Outcome(match connection.progress.status() {
                // If hyper cannot parse the head, the status counts, but there is no body that could be checked.
                Some(status) if error.is_parse() || transport::is_oversize(&error) => {
                    self.last_answer.set(Some(status));
                    match self.judge(status, &HeaderMap::new(), connection.progress.early()) {
                        (outcome, None) => outcome,
                        (_, Some(_)) => AttemptOutcome::not_accepted(status, "it cannot be read"),
                    }
                }
                _ => AttemptOutcome::down(broken(&error, &connection.progress)),
            }),
            Err(failure) => Try::Outcome(AttemptOutcome::down(failure)),
        };
        if let (Try::Outcome(outcome), Some(peer)) = (&tried, peer) {
            let is_answer = outcome.failure().is_none_or(|failure| failure.code.is_answer());
            self.memory.note(peer, is_answer);
        }
        if let (Try::Outcome(outcome), false) = (&mut tried, self.is_listening) {
            let larger = upload.event.picture_sizes().max().unwrap_or_default();
            self.learn(EventSize { body: length, field: encoder::encoded_len(larger) }, outcome);
        }
        tried
    }

    /// Records the size of an event that was accepted or refused. If the event exceeds the server's limit, the failure says so.
    fn learn(&self, size: EventSize, outcome: &mut AttemptOutcome) {
        if *outcome == AttemptOutcome::Acknowledged {
            return self.sizes.borrow_mut().took(size);
        }
        let Some(way) = outcome.failure().and_then(Way::of) else { return };
        let was_known = self.limit().is_some();
        self.sizes.borrow_mut().refused(size, way, || self.heard.borrow().said());
        let Some(limit) = self.limit().filter(|limit| size.body >= limit.refuses_body_bytes) else { return };
        if !was_known {
            warn!(url = %self.url, "the server has a limit: {limit}");
        }
        if let Some(failure) = outcome.failure_mut() {
            failure.why = format!("{}; {limit}", failure.why);
        }
    }

    /// Classifies an answer by its status and the config. Also returns the rule for its body, if one still has to be checked.
    fn judge(&self, status: u16, headers: &HeaderMap, early: Option<Early>) -> (AttemptOutcome, Option<AcceptBody>) {
        let settings = self.settings.borrow();
        let mut outcome = AttemptOutcome::of_answer(status, headers, early);
        let answers = settings.options.answers.as_ref();
        if let Some(meaning) = answers.and_then(|answers| answers.meaning(status)) {
            outcome = outcome.meaning(meaning, status, early, headers);
        }
        let proxy = self.forward_proxy(&settings).filter(|_| status == 401);
        if let (Some(failure), Some(proxy)) = (outcome.failure_mut(), proxy) {
            // tinyproxy answers a wrong password this way.
            failure.why = format!("{}, and user and password in proxy.url: {proxy} may have answered", failure.why);
        }
        let rule = settings.options.accept_body.as_ref();
        let rule = rule.filter(|rule| !rule.is_empty() && outcome == AttemptOutcome::Acknowledged).cloned();
        (outcome, rule)
    }

    /// Classifies an answer, and keeps the connection if it can be reused.
    async fn finish(
        &self,
        mut connection: Connection,
        response: Response<Incoming>,
        early: Option<Early>,
    ) -> AttemptOutcome {
        let (head, body) = response.into_parts();
        self.last_answer.set(Some(head.status.as_u16()));
        let (mut outcome, rule) = self.judge(head.status.as_u16(), &head.headers, early);
        let is_kept = self.is_listening || outcome != AttemptOutcome::Acknowledged;
        let kept = match is_kept {
            _ if rule.is_some() => DRAIN_LIMIT,
            true => KEPT_BYTES,
            false => 0,
        };
        let mut words = Vec::new();
        let is_read = (early.is_none() || self.is_listening) && drain(body, &mut words, kept).await;
        if let Some(rule) = rule {
            let checked =
                if is_read { rule.check(&words) } else { Err("it does not end in time, or in 64 KiB".into()) };
            if let Err(why) = checked {
                outcome = AttemptOutcome::not_accepted(head.status.as_u16(), &why);
            }
        }
        if is_kept || outcome != AttemptOutcome::Acknowledged {
            words.truncate(KEPT_BYTES);
            self.heard.replace(Heard::new(&head.headers, words));
        }
        if early.is_some() {
            return outcome;
        }
        let current = connection.generation == self.generation.get();
        if current
            && is_read
            && connection.requests_left > 0
            && Instant::now() < connection.ends_at
            && connection.sender.ready().await.is_ok()
            && !self.avoids_reuse()
        {
            connection.idle_since = Instant::now();
            self.idle.borrow_mut().push(connection);
        }
        outcome
    }
}

/// The failure of a connection that ended, or received something other than an answer.
pub(in crate::deliver) fn broken(error: &hyper::Error, progress: &Progress) -> Failure {
    let code = match () {
        () if transport::is_unsolicited(error) => Code::UnsolicitedResponse,
        () if error.is_parse_too_large() || progress.head_state() == State::TooLarge => Code::AnswerTooLarge,
        () if error.is_parse() => Code::BadAnswer,
        () if progress.is_sent() => Code::ClosedWithoutAnswer,
        () => Code::Interrupted,
    };
    describe(error, code)
}
