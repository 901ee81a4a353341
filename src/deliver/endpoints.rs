//! A destination's own server, and its standby servers (`standby`).
//!
//! An event goes to the server in use. If that server does not work, the event goes to the next one within the same attempt.
//! While a standby server is in use, one event goes to the first server at growing intervals; when the first server takes it, it
//! is in use again. So a server that is down costs the time of one attempt now and then, and no event is lost. If the first
//! server took an event but its answer was lost, the next server gets the event too, with the same `X-Event-Id`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::client::{Client, Settings, Upload};
use super::outcome::AttemptOutcome;
use super::permit::BodyPermit;
use crate::config::Url;

/// The pause between two checks of the first server while another one is in use: the first pause, which doubles, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));

/// Chooses the server to use.
#[derive(Debug, Default)]
struct Choice {
    in_use: usize,
    /// While another server is in use: when the first one is checked again, and the pause after that.
    look: Option<(Instant, Duration)>,
}

impl Choice {
    /// The order in which to try `count` servers for an event.
    fn order(&mut self, count: usize, now: Instant) -> impl Iterator<Item = usize> + use<> {
        let first = match self.look {
            Some((at, pause)) if at <= now => {
                self.look = Some((now + pause, (pause * 2).min(LOOKS.1))); // other events do not check it meanwhile
                0
            }
            _ => self.in_use.min(count - 1),
        };
        (first..count).chain(0..first)
    }

    /// A server took an event for which `tried_first` was tried first. Returns whether another one was in use before.
    fn works(&mut self, server: usize, tried_first: usize, now: Instant) -> bool {
        if server != 0 && server == tried_first {
            return false; // it was in use when the attempt began; meanwhile the first server may be in use again
        }
        let is_other = self.in_use != server;
        self.in_use = server;
        match server {
            0 => self.look = None,
            _ if self.look.is_none() => self.look = Some((now + LOOKS.0, LOOKS.0 * 2)),
            _ => {}
        }
        is_other
    }
}

/// A destination's servers.
pub struct Endpoints {
    first: Rc<Client>,
    standby: RefCell<Vec<Rc<Client>>>,
    /// The choice under the config in force. An attempt that began under an older config changes only the choice of that config.
    choice: RefCell<Rc<RefCell<Choice>>>,
}

impl Endpoints {
    /// Endpoints without connections.
    pub fn new(url: Url, settings: Settings) -> Endpoints {
        let standby = settings.standby.clone();
        let first = Rc::new(Client::new(url, settings));
        let endpoints = Endpoints { first, standby: RefCell::default(), choice: RefCell::default() };
        endpoints.stand_by(standby);
        endpoints
    }

    /// The destination's own server.
    pub fn first(&self) -> &Rc<Client> {
        &self.first
    }

    /// The standby server in use, if any.
    pub fn standing_in(&self) -> Option<Rc<Client>> {
        let in_use = self.choice.borrow().borrow().in_use;
        self.standby.borrow().get(in_use.checked_sub(1)?).cloned()
    }

    /// Applies other settings from the next attempt on; the destination's own server is tried first.
    pub fn configure(&self, settings: Settings) {
        let standby = settings.standby.clone();
        self.first.configure(settings);
        self.stand_by(standby);
        self.choice.take();
    }

    /// Keeps the clients of servers that stay. The others start no request any more, also none of an attempt that is under way.
    fn stand_by(&self, wanted: Vec<(Url, Settings)>) {
        let known = self.standby.take();
        let is_wanted = |client: &&Rc<Client>| wanted.iter().any(|(url, _)| url == client.url());
        known.iter().filter(|client| !is_wanted(client)).for_each(|client| client.retire());
        let clients =
            wanted.into_iter().map(|(url, settings)| match known.iter().find(|client| *client.url() == url) {
                Some(client) => {
                    client.configure(settings);
                    Rc::clone(client)
                }
                None => Rc::new(Client::new(url, settings)),
            });
        self.standby.replace(clients.collect());
    }

    /// Starts no request any more on any server; the lane grants no permits any more either.
    pub fn retire(&self) {
        self.first.retire();
        self.standby.borrow().iter().for_each(|client| client.retire());
    }

    /// Drops connections that have been idle for too long. Returns when the next one will be, if any is left.
    pub fn drop_idle(&self) -> Option<Instant> {
        let standby = self.standby.borrow();
        [&self.first].into_iter().chain(&*standby).filter_map(|client| client.drop_idle()).min()
    }

    /// Makes one attempt to deliver `upload`. Returns the outcome, and how long the last attempt took.
    pub async fn send(&self, upload: &Upload, permit: BodyPermit) -> (AttemptOutcome, Duration) {
        if self.standby.borrow().is_empty() {
            return self.first.send(upload, Some(permit)).await;
        }
        self.send_to_any(upload, permit).await
    }

    async fn send_to_any(&self, upload: &Upload, permit: BodyPermit) -> (AttemptOutcome, Duration) {
        let clients: Vec<Rc<Client>> =
            [Rc::clone(&self.first)].into_iter().chain(self.standby.borrow().iter().cloned()).collect();
        let choice = Rc::clone(&self.choice.borrow());
        let order = choice.borrow_mut().order(clients.len(), Instant::now());
        let (mut permit, mut last, mut order) = (Some(permit), None, order.peekable());
        let tried_first = *order.peek().expect("at least one server");
        for server in order {
            let Some(next) = permit.take() else { break };
            let more = next.again();
            let (outcome, took) = clients[server].send(upload, Some(next)).await;
            if !is_servers(&outcome) {
                let is_taken = outcome == AttemptOutcome::Acknowledged;
                if is_taken && choice.borrow_mut().works(server, tried_first, Instant::now()) {
                    self.say(server, clients[server].url(), last.as_ref());
                }
                return (outcome, took);
            }
            last = Some((outcome, took));
            permit = more.permit().await;
        }
        last.expect("at least one server")
    }

    fn say(&self, server: usize, url: &Url, why: Option<&(AttemptOutcome, Duration)>) {
        let first = self.first.url();
        let why = why.and_then(|(outcome, _)| outcome.failure()).map_or(String::new(), ToString::to_string);
        match server {
            0 => info!(url = %first, "in use again"),
            _ => warn!(url = %first, "{url} stands in: {why}"),
        }
    }
}

/// Whether the outcome says that another server should be tried.
fn is_servers(outcome: &AttemptOutcome) -> bool {
    matches!(
        outcome,
        AttemptOutcome::Unreachable { .. } | AttemptOutcome::Down { .. } | AttemptOutcome::Misconfigured { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn whatever_servers_do_an_event_comes_to_one_that_works_and_the_first_one_is_used_soon_after_it_does() {
        let seed = fastrand::u64(..);
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let (count, began) = (random.usize(1..=5), Instant::now());
            let (mut choice, mut works) = (Choice::default(), vec![true; count]);
            let (mut now, mut first_works_since) = (began, began);
            for _ in 0..200 {
                now += Duration::from_millis(random.u64(1..60_000));
                if random.u8(..8) == 0 {
                    let server = random.usize(..count);
                    works[server] = random.bool();
                    first_works_since = if server == 0 { now } else { first_works_since };
                }
                let order: Vec<usize> = choice.order(count, now).collect();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert!(sorted.iter().copied().eq(0..count), "each is tried once: {order:?}");
                let Some(server) = order.iter().copied().find(|server| works[*server]) else { continue };
                choice.works(server, order[0], now);
                let is_long_ago = now >= first_works_since + LOOKS.1 + Duration::from_secs(60);
                assert!(server == 0 || !works[0] || !is_long_ago, "SEED={seed}: {choice:?} at {:?}", now - began);
            }
        }
    }

    #[test]
    fn the_first_server_is_used_again_when_it_takes_an_event_and_asked_less_and_less_often_meanwhile() {
        let (mut choice, began) = (Choice::default(), Instant::now());
        assert!(choice.order(3, began).eq([0, 1, 2]));
        assert!(choice.works(1, 0, began), "another one than before");
        let mut looks = Vec::new();
        for second in 0..1200 {
            let mut order = choice.order(3, began + second * SECOND);
            let first = order.next().unwrap();
            if first == 0 {
                looks.push(second);
                assert!(order.eq([1, 2]));
            } else {
                assert!(choice.order(3, began + second * SECOND).eq([1, 2, 0]));
            }
            assert!(!choice.works(1, first, began + second * SECOND));
        }
        assert_eq!(looks, [15, 45, 105, 225, 465, 765, 1065]);
        assert!(choice.works(0, 0, began + 1200 * SECOND));
        assert!(choice.order(3, began + 1200 * SECOND).eq([0, 1, 2]));
        assert!(
            choice.works(2, 0, began + 1200 * SECOND) && choice.order(1, began).eq([0]),
            "there are fewer servers now"
        );
    }

    #[test]
    fn a_late_answer_of_a_server_that_stood_in_does_not_put_it_in_use_again() {
        let (mut choice, began) = (Choice::default(), Instant::now());
        assert!(choice.works(1, 0, began));
        let on_its_way = choice.order(2, began).next().unwrap();
        assert!(choice.works(0, 0, began + 20 * SECOND));
        assert!(!choice.works(1, on_its_way, began + 21 * SECOND));
        assert!(choice.order(2, began + 22 * SECOND).eq([0, 1]));
    }
}
