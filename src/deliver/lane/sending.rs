//! A lane's uploads, out of memory and out of the spool, and what becomes of their events.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::places::Sending;
use super::{Hold, Lane, Phase, Verdict, Waiting};
use crate::deliver::client::Upload;
use crate::deliver::delivery::{End, Landed};
use crate::deliver::record::Relocatable;
use crate::event::Event;
use crate::ring::mapping::PictureSource as _;
use crate::spool::ReadError;

/// After the spool could not open an event for want of something.
const SHORTAGE: Duration = Duration::from_secs(1);

/// After an upload out of the backlog, while there are live events, it rests for so many times what that took, so that few live events
/// meet one; and no longer than this.
const REST: (u32, Duration) = (8, Duration::from_millis(50));

impl Lane {
    pub(super) async fn send_live(self: Rc<Self>, waiting: Waiting, sending: Sending) {
        let Waiting { delivery, hold } = waiting;
        let generation = self.health.borrow().generation;
        let outcome = self.client.send(&delivery.upload, Some(sending)).await;
        self.places.give_back();
        let verdict = self.judge(outcome, hold, generation, &delivery.upload.event);
        let (end, hold) = match &verdict {
            Verdict::Over(end) => (Some(*end), Hold::default()),
            Verdict::Again(hold) => (None, *hold),
        };
        match delivery.land(&self, end, hold) {
            Landed::Storing => {}
            Landed::Spooled(counter) => self.settle_spooled(counter, &verdict),
            Landed::Here => match end {
                Some(End::Refused) => {
                    delivery.condemn(&self);
                    self.spooler.add(delivery);
                }
                Some(end) => delivery.end(&self, end),
                None => {
                    delivery.queue(&self);
                    self.put(delivery, hold);
                }
            },
        }
        self.changed.notify_one();
    }

    pub(super) async fn send_backlog(self: Rc<Self>, sending: Sending) {
        let began = Instant::now();
        let picked = self.pick().await;
        self.is_picking.set(false);
        self.changed.notify_one();
        // What happened while the disk was read may have changed our mind.
        let (is_open, is_up, is_paused) = {
            let health = self.health.borrow();
            let is_paused = health.paused_until().is_some() || health.waits().is_some();
            (matches!(*self.phase.borrow(), Phase::Open), health.is_up(), is_paused)
        };
        let may_start = is_open && !is_paused && (is_up || self.in_flight() == 1);
        if let Some((counter, upload)) = picked {
            let generation = self.health.borrow().generation;
            let hold = self.backlog.borrow().hold_of(counter);
            let verdict = if may_start {
                let outcome = self.client.send(&upload, Some(sending)).await;
                self.judge(outcome, hold, generation, &upload.event)
            } else {
                Verdict::Again(hold)
            };
            self.settle_spooled(counter, &verdict);
        }
        if self.is_live() {
            let rest = (began.elapsed() * REST.0).min(REST.1);
            self.backlog.borrow_mut().rest_until(Instant::now() + rest);
        }
        self.places.give_back();
        self.backlog_in_flight.set(self.backlog_in_flight.get() - 1);
        self.changed.notify_one();
    }

    /// Takes the oldest event out of the spool that can be sent now.
    pub(super) async fn pick(&self) -> Option<(u64, Upload)> {
        let (destination, url) = (self.destination(), self.url());
        loop {
            let pick = self.backlog.borrow().pick(!self.health.borrow().is_up());
            let asked = pick.clone();
            let opened = self.spooler.worker.call(move |spool| asked.open(spool, destination)).await;
            let Some((counter, opened)) = opened else {
                self.backlog.borrow_mut().found_nothing(&pick);
                return None;
            };
            self.backlog.borrow_mut().found(&pick, counter);
            let complaint = match opened {
                Ok(record) => match Event::from_record(&record, &record.frame, record.id.ring) {
                    // What was read may be zeros for want of the file.
                    _ if record.lend(0..0, &mut |_| ()).is_err() => {
                        self.spooler.worker.call(move |spool| spool.skip(destination, counter)).await;
                        format!("the spooled event {} cannot be read any more", record.id)
                    }
                    Ok(event) => {
                        let source = Arc::new(Relocatable::new(Arc::new(record)));
                        return Some((counter, Upload { event, source }));
                    }
                    Err(malformed) => {
                        let event = record.id;
                        let moved = self.spooler.worker.call(move |spool| spool.set_aside(destination, counter)).await;
                        format!(
                            "the spooled event {event} is no event and was set aside: {malformed}{}",
                            fault(moved.err())
                        )
                    }
                },
                Err(ReadError::Shortage(fault)) => {
                    self.backlog.borrow_mut().rest_until(Instant::now() + SHORTAGE);
                    self.complaints.say(|more| warn!(%url, "{fault}: the spool is read later{more}"));
                    return None;
                }
                Err(ReadError::Gone) => continue,
                Err(error) => {
                    if matches!(error, ReadError::Locked { in_use: None, .. }) {
                        self.spooler.look_for_key();
                    }
                    error.to_string()
                }
            };
            self.backlog.borrow_mut().is_gone(counter);
            self.complaints.say(|more| warn!(%url, "{complaint}{more}"));
        }
    }

    /// The way of an event that is in the spool is over, or begins anew: the spool does what follows.
    pub(super) fn settle_spooled(self: &Rc<Self>, counter: u64, verdict: &Verdict) {
        let end = match verdict {
            Verdict::Again(hold) => return self.is_back_in_spool(counter, *hold),
            Verdict::Over(end) => *end,
        };
        let destination = self.destination();
        let reason = self.refusal(1 + self.backlog.borrow().hold_of(counter).failures);
        let done = self.spooler.worker.call(move |spool| match end {
            End::Acknowledged => spool.delivered(destination, counter).map(drop),
            End::Refused => spool.to_dead(destination, counter, &reason).map(drop),
            End::Lost | End::Evicted => {
                spool.skip(destination, counter);
                Ok(())
            }
        });
        self.backlog.borrow_mut().is_gone(counter);
        let lane = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if let Err(fault) = done.await {
                lane.complaints.say(|more| warn!(url = %lane.url(), "{fault}{more}"));
            }
        });
    }
}

fn fault(error: Option<impl std::fmt::Display>) -> String {
    error.map_or(String::new(), |error| format!(" ({error})"))
}
