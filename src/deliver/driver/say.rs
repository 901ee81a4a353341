//! Log messages about deliveries.

use tracing::{info, warn};

use super::Driver;
use crate::deliver::core::{LaneId, Notice};
use crate::rate_limited::More;

impl Driver {
    pub(super) fn say(&self, notice: Notice) {
        match notice {
            Notice::NotDelivered { lane, why } => {
                let url = self.url(lane);
                self.change(lane, |more| warn!(url, "not delivered, trying again: {why}{more}"));
            }
            Notice::NotTaken { lane, event, why } => {
                self.log_problem(lane, &format!("{event}: not taken, trying again: {why}"))
            }
            Notice::Rejected { lane, event, why } => {
                if let Some(one) = self.destination(lane) {
                    one.recent.refused(&why);
                }
                self.log_problem(lane, &format!("{event} became a dead letter: {why}"));
            }
            Notice::Lost { lane, event, is_spooled: false } => {
                let why =
                    "its pictures are gone: the ring's file was truncated under it, or the recognizer wrote over it";
                self.log_problem(lane, &format!("{event}: {why}"));
            }
            Notice::Lost { lane, event, is_spooled: true } => {
                let why = "its file in the spool cannot be read; it stays, and is tried again after a restart: check the disk";
                self.log_problem(lane, &format!("{event}: {why}"));
            }
            Notice::GaveUp { lane, is_rejected: true } => {
                self.log_problem(lane, "an event was given up: it was refused, and cannot be kept as a dead letter");
            }
            Notice::GaveUp { lane, is_rejected: false } => {
                self.log_problem(lane, "an event was given up: the ring needs its room, and the spool cannot take it");
            }
            Notice::UpAgain { lane, was } => {
                let url = self.url(lane);
                self.change(lane, |more| info!(url, "up again (was: {was}){more}"));
            }
            Notice::Waits { lane, lack } => warn!(url = self.url(lane), "{}", lack.why()),
            Notice::WaitsNoMore { lane, lacked } => info!(url = self.url(lane), "{}", lacked.over()),
            Notice::Removed { lane, heirs } if heirs.is_empty() => {
                warn!(
                    url = self.url(lane),
                    "removed, and no destination was added: its waiting events stay in the spool until one is added"
                );
            }
            Notice::Removed { lane, heirs } => {
                let heirs: Vec<String> = heirs.into_iter().map(|heir| self.url(heir)).collect();
                info!(url = self.url(lane), "removed: its waiting events go to {}", heirs.join(", "));
            }
            Notice::SpoolFails(why) => {
                self.log_limiter.say(|more| warn!("{why}: events stay in the ring, uploads go on{more}"));
            }
            Notice::SpoolWorks(was) => self.log_limiter.say(|more| info!("the spool works again (was: {was}){more}")),
        }
    }

    /// Logs that a destination's condition changed, rate-limited.
    #[track_caller]
    fn change(&self, lane: LaneId, message: impl FnOnce(More)) {
        if let Some(one) = self.destination(lane) {
            one.changes.say(message);
        }
    }

    /// Logs a problem of a destination, rate-limited.
    #[track_caller]
    pub(super) fn log_problem(&self, lane: LaneId, what: &str) {
        let url = self.url(lane);
        match self.destination(lane) {
            Some(one) => one.log_limiter.say(|more| warn!(%url, "{what}{more}")),
            None => self.log_limiter.say(|more| warn!("{what}{more}")),
        }
    }

    fn url(&self, lane: LaneId) -> String {
        self.destination(lane).map_or(String::new(), |one| one.endpoints.first().url().to_string())
    }
}
