//! A server that is up and down as the test says, and keeps account of what it accepted.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use sophon_uplink::ring::producer::Producer;

use super::daemon::Home;
use super::sink::OK;
use super::{Answer, Daemon, Request, RingProducer, Sink, Watched, event, publish};

/// What it does with the next request that came whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Accepts it.
    #[default]
    Up,
    /// 503.
    Failing,
    /// Closes the connection instead of an answer.
    Closing,
    /// Says nothing, until another mood says what.
    Silent,
    /// Says nothing, and closes the connection with the next mood.
    Hanging,
}

/// What tells two pictures apart.
pub type Hash = sha2::digest::Output<Sha256>;

/// The registered picture and the one taken on the spot.
pub type Pictures = [Hash; 2];

/// An event that was answered with 200, so often.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub times: u64,
    /// Of the first time.
    pub pictures: Pictures,
    /// It came with others too.
    pub contradicts_itself: bool,
}

/// Of everything accepted, and how often that was.
#[derive(Default)]
struct Account {
    events: HashMap<String, Accepted>,
    times: u64,
}

pub struct Moody {
    sink: Sink,
    mood: Arc<Watched<Mood>>,
    accepted: Arc<Watched<Account>>,
    /// Sequence numbers of the requests that came whole in this mood, whatever was answered.
    seen: Arc<Watched<Vec<u64>>>,
}

impl Moody {
    /// Up.
    pub fn start() -> Moody {
        let (mood, accepted) = (Arc::<Watched<Mood>>::default(), Arc::<Watched<Account>>::default());
        let (moods, account) = (Arc::clone(&mood), Arc::clone(&accepted));
        let seen = Arc::<Watched<Vec<u64>>>::default();
        let sees = Arc::clone(&seen);
        let sink = Sink::with(move |request, _| {
            if request.body.is_empty() {
                return OK; // only its head came so far
            }
            sees.change(|seen| seen.push(request.sequence()));
            if moods.look(|mood| *mood == Mood::Hanging) {
                moods.wait("another mood", |mood| (*mood != Mood::Hanging).then_some(()));
                return Answer::Close;
            }
            match moods.wait("another mood", |mood| (*mood != Mood::Silent).then_some(*mood)) {
                Mood::Up => {
                    account.change(|account| accept(account, request));
                    OK
                }
                Mood::Failing => Answer::Status(503, ""),
                _ => Answer::Close,
            }
        });
        Moody { sink, mood, accepted, seen }
    }

    pub fn url(&self) -> String {
        self.sink.url()
    }

    pub fn set(&self, mood: Mood) {
        self.seen.change(Vec::clear);
        self.mood.change(|now| *now = mood);
        self.sink.take(); // what came is in the account
    }

    /// A box with events 1 to `count` in the spool for this server, which fails now, and no daemon.
    pub fn backlog(&self, count: usize) -> (Home, RingProducer) {
        let home = Home::new();
        let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
        self.set(Mood::Failing);
        for _ in 0..count {
            publish(&mut recognizer, &event(b"", b""));
        }
        let daemon = Daemon::start(&home, &[self.url()], json!({}));
        home.wait_released();
        let stopped = daemon.terminate();
        assert_eq!((stopped.spooled, stopped.open), (count as u64, 0));
        (home, recognizer)
    }

    /// Waits until `count` requests came in this mood; their sequence numbers, as they came.
    #[track_caller]
    pub fn wait_seen(&self, count: usize) -> Vec<u64> {
        self.seen.wait(&format!("request {count}"), |seen| (seen.len() >= count).then(|| seen.clone()))
    }

    /// Events accepted so far, each counted once.
    pub fn count(&self) -> usize {
        self.accepted.look(|account| account.events.len())
    }

    /// Requests accepted so far.
    pub fn times(&self) -> u64 {
        self.accepted.look(|account| account.times)
    }

    pub fn has(&self, id: &str) -> bool {
        self.accepted.look(|account| account.events.contains_key(id))
    }

    /// Waits until more than `times` requests were accepted.
    #[track_caller]
    pub fn wait_more_than(&self, times: u64) {
        self.accepted.wait("an accepted event", |account| (account.times > times).then_some(()));
    }

    /// Everything accepted so far, by id.
    pub fn account(&self) -> HashMap<String, Accepted> {
        self.accepted.look(|account| account.events.clone())
    }
}

fn accept(account: &mut Account, request: &Request) {
    let json = request.json();
    let hash = |text: &serde_json::Value| Sha256::digest(STANDARD.decode(text.as_str().unwrap_or_default()).unwrap());
    let pictures = [hash(&json["reg_pic"]), hash(&json["ext_data"]["spot_pic"])];
    account.times += 1;
    let known = account.events.entry(request.id().to_owned()).or_insert(Accepted {
        times: 0,
        pictures,
        contradicts_itself: false,
    });
    known.times += 1;
    known.contradicts_itself |= known.pictures != pictures;
}
