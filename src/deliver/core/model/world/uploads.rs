//! Uploads in flight, and the actions that the core decides on.

use std::time::Duration;

use super::servers::{Answer, Mode};
use super::spool::Call;
use super::{Later, OVER_TLS, TIMEOUT, Token, Upload, World, id_of};
use crate::deliver::core::{Effect, Input, LaneId, UploadId};
use crate::deliver::outcome::AttemptOutcome;

impl World {
    pub(super) fn begin(&mut self, lane: LaneId, id: UploadId, event: u64, counter: Option<u64>) {
        let server = self.lanes[&lane];
        let state = &mut self.servers[server];
        assert!(
            state.asked_until.is_none_or(|until| until <= self.now),
            "an upload begins in a pause that was asked for"
        );
        assert!(self.lack.is_none() || server != OVER_TLS, "an upload over TLS begins without a clock");
        *state.tries.entry(event).or_default() += 1;
        let has_it = state.acknowledged.get(&event).is_some_and(|(_, before)| *before == lane);
        assert!(!has_it, "event {event} is sent again to {server}");
        let twice = self.uploads.values().any(|upload| upload.lane == lane && upload.event == event);
        assert!(!twice, "event {event} is on its way to {server} twice");
        self.check_order(server, event);
        let is_backlog = counter.is_some();
        assert!(
            !(is_backlog && self.off_hours[server]),
            "an event of the backlog begins outside its hours, at {server}"
        );
        let state = &mut self.servers[server];
        let is_bad = self.events[event as usize].bad & 1 << server != 0;
        let answer = match state.mode {
            _ if is_bad => state.bad,
            Mode::Well => Answer::Ok,
            Mode::All(answer) => answer,
            Mode::Some(percent, answer) => {
                if self.random.u8(..100) < percent {
                    answer
                } else {
                    Answer::Ok
                }
            }
        };
        let delay = match answer {
            Answer::Silence => TIMEOUT,
            _ => state.delay,
        };
        let is_stale = std::mem::take(&mut state.stale) > 0;
        let ends_at = self.now + delay;
        self.uploads.insert(
            id,
            Upload {
                generation: state.generation,
                lane,
                server,
                event,
                in_ring: counter.is_none(),
                counter,
                has_body: true,
                answer,
                ends_at,
                is_stale,
            },
        );
        let held = self.core.lane(lane).unwrap();
        assert!(held.standing.is_up() || held.limit.in_flight() == 1, "two probes at once");
        if is_stale {
            return self.later(delay / 2, Later::Again(id));
        }
        if !matches!(answer, Answer::Early(_)) {
            self.later(delay.min(Duration::from_millis(2)) / 2, Later::BodyGone(id));
        }
        self.later(delay, Later::End(id));
    }

    pub(super) fn end(&mut self, id: UploadId) {
        let Some(upload) = self.uploads.remove(&id) else { return };
        if upload.has_body {
            self.input(Input::BodyGone(upload.lane, id));
        }
        if upload.answer == Answer::SourceLost {
            self.lost.insert((upload.server, upload.event));
        }
        let server = &mut self.servers[upload.server];
        if upload.answer == Answer::Ok {
            // A destination that was removed and came back as an heir may get an event again.
            let before = server.acknowledged.insert(upload.event, (self.now, upload.lane));
            let is_new = before.is_none_or(|(_, lane)| lane != upload.lane);
            assert!(is_new, "event {} was acknowledged twice by {}", upload.event, upload.server);
        }
        let is_current = server.lane == Some(upload.lane) && server.generation == upload.generation;
        let event_id = id_of(upload.event);
        let outcome = upload.answer.outcome();
        let took = Duration::from_millis(1);
        if let (AttemptOutcome::Down { failure, retry_after: Some(asked) }, true) = (&outcome, is_current) {
            let asked_until = self.now + *asked;
            self.input(Input::Ended { lane: upload.lane, upload: id, id: event_id, outcome: outcome.clone(), took });
            if failure.status == Some(429) && !(self.lack.is_some() && upload.server == OVER_TLS) {
                self.servers[upload.server].asked_until = Some(asked_until);
            }
            return;
        }
        self.input(Input::Ended { lane: upload.lane, upload: id, id: event_id, outcome, took });
    }

    pub(super) fn perform(&mut self, effects: Vec<Effect<Token>>) {
        for effect in effects {
            match effect {
                Effect::Release(token) => self.release(&token),
                Effect::Upload(lane, id, event) => {
                    let event = self.core.held(event).expect("it is held").number;
                    self.begin(lane, id, event, None);
                }
                Effect::UploadPicked(lane, id) => {
                    let upload = self.uploads.remove(&id).expect("it was picked");
                    self.begin(lane, id, upload.event, upload.counter);
                }
                Effect::Forget(id) => drop(self.uploads.remove(&id)),
                Effect::Abort(id) => {
                    if let Some(upload) = self.uploads.get_mut(&id) {
                        upload.answer = Answer::Reset;
                    }
                    self.later(Duration::ZERO, Later::End(id));
                }
                Effect::Body(id, may_go) => {
                    let Some(upload) = self.uploads.get_mut(&id) else { continue };
                    assert!(upload.is_stale, "a body for who does not wait");
                    upload.is_stale = false;
                    if may_go {
                        let server = &self.servers[upload.server];
                        assert_eq!(
                            server.lane,
                            Some(upload.lane),
                            "a request of a removed destination is sent once more"
                        );
                        let asked = server.asked_until;
                        assert!(asked.is_none_or(|until| until <= self.now), "a request is sent once more in a pause");
                        upload.has_body = true;
                        let delay = upload.ends_at.saturating_duration_since(self.now);
                        self.later(delay / 2, Later::BodyGone(id));
                        self.later(delay, Later::End(id));
                    } else {
                        upload.answer = Answer::NotBegun;
                        self.later(Duration::ZERO, Later::End(id));
                    }
                }
                Effect::Pick(lane, id, to, wanted) => self.call(Call::Pick(lane, id, to, wanted)),
                Effect::Spooled(_, to, counter, fate) => self.call(Call::Fate(to, counter, fate)),
                Effect::Write(jobs) => self.call(Call::Write(jobs)),
                Effect::Repair(needs) => self.call(Call::Repair(needs)),
                Effect::Settle => self.call(Call::Settle),
                Effect::Retire(_) | Effect::Removed(_) | Effect::Say(_) => {}
            }
        }
    }

    pub(super) fn done(&mut self, what: Later) {
        match what {
            Later::BodyGone(id) => {
                if let Some(upload) = self.uploads.get_mut(&id) {
                    upload.has_body = false;
                    let lane = upload.lane;
                    self.input(Input::BodyGone(lane, id));
                }
            }
            Later::Again(id) => {
                let Some(upload) = self.uploads.get_mut(&id) else { return };
                upload.has_body = false;
                let lane = upload.lane;
                self.input(Input::BodyGone(lane, id));
                self.input(Input::BodyWanted(lane, id));
            }
            Later::End(id) => self.end(id),
            Later::Spool(call) => self.spool(call),
        }
    }
}
