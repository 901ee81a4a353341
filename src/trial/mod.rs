//! Trying a server before the first event: `sophon-uplink try URL`, and the test events of the API.
//!
//! Test events go out as every event does, with the config's headers, certificates and timeouts, but past rings, threshold, lanes and
//! counters. A ladder of pictures, small to large and in each format, shows from which size on a server refuses an event, or loses
//! a picture behind a 2xx; halving then finds the limit. [`servers`] knows whose limit it likely is, and the setting.
//!
//! `mod` (the tries) → [`verdict`] (words, JSON, exit code); [`event`], [`picture`] and [`digests`] know nothing of either.

pub mod digests;
pub mod event;
pub mod picture;
pub mod verdict;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::body::Format;
use crate::config::{Config, ConfigFault, Url};
use crate::deliver::answer::Heard;
use crate::deliver::client::{Client, Idle, Settings, Upload};
use crate::deliver::failure::{Code, Failure};
use crate::deliver::outcome::AttemptOutcome;
use crate::deliver::servers::{self, Likely, Seen, Way};
use crate::deliver::setup::Setup;
use crate::deliver::tls::Validity;
use crate::event::EventId;
use digests::Proof;
use picture::TestPicture;

/// The largest picture that a recognizer should publish, in bytes.
pub const LARGEST: usize = 4 << 20;
/// The pictures of the ladder, in bytes; each event has two.
const SIZES: [usize; 4] = [20_000, 300_000, 1_000_000, LARGEST];
/// Halving ends where what is refused is larger than what is taken by less than a part of this many.
const PRECISION: usize = 32;
/// A server that is busy, or closes once, is asked once more after this.
const PAUSE: Duration = Duration::from_millis(500);

/// One test event and what became of it.
#[derive(Debug)]
pub struct Tried {
    /// Its size.
    pub picture: TestPicture,
    /// Of the whole request, in bytes.
    pub body_bytes: u64,
    /// What became of it.
    pub fate: Fate,
    /// What the server said.
    pub heard: Heard,
    /// Of the event.
    pub id: EventId,
}

/// What became of a test event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 2xx, with this status and proof.
    Answered(u16, Proof),
    /// There is no connection to the server.
    Unreachable(Failure),
    /// Everything else.
    Failed(Failure),
}

/// What was found in one format.
#[derive(Debug)]
pub struct Ladder {
    /// The format.
    pub format: Format,
    /// The largest that was taken.
    pub taken: Option<Tried>,
    /// The smallest that was not; none where all were.
    pub refused: Option<Tried>,
    /// The smallest that was answered 2xx and lost.
    pub lost: Option<TestPicture>,
}

/// What was found of a server.
#[derive(Debug)]
pub struct Trial {
    /// Where.
    pub url: Url,
    /// One for each format.
    pub ladders: Vec<Ladder>,
    /// What becomes of an idle connection, and how long it was waited for at most.
    pub idle: Option<(Idle, Duration)>,
    /// When its certificate is valid, over TLS.
    pub validity: Option<Validity>,
}

/// What to try.
pub struct Plan {
    /// Where.
    pub url: Url,
    /// In these formats.
    pub formats: Vec<Format>,
    /// How long an idle connection is watched at most; zero: it is not.
    pub idle: Duration,
}

impl Fate {
    /// Why there was no 2xx; none where there was.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Fate::Unreachable(failure) | Fate::Failed(failure) => Some(failure),
            Fate::Answered(..) => None,
        }
    }
}

impl Tried {
    /// The server has the event, for all that one can know.
    pub fn is_taken(&self) -> bool {
        matches!(&self.fate, Fate::Answered(_, proof) if !matches!(proof, Proof::Short(_)))
    }

    /// The server says itself that it has both pictures whole.
    pub fn is_proven(&self) -> bool {
        matches!(self.fate, Fate::Answered(_, Proof::Whole))
    }

    /// In which way the server does not take it; none where it does, or where nothing is known of the server.
    pub fn way(&self) -> Option<Way> {
        match &self.fate {
            Fate::Answered(_, Proof::Short(_)) => Some(Way::Loses),
            Fate::Answered(..) | Fate::Unreachable(_) => None,
            Fate::Failed(failure) => Way::of(failure),
        }
    }
}

impl Ladder {
    /// Whose limit it likely is; nothing where there is none, or nothing is known.
    pub fn likely(&self) -> Vec<Likely> {
        let Some(refused) = &self.refused else { return Vec::new() };
        let Some(way) = refused.way() else { return Vec::new() };
        let field = |tried: &Tried| tried.picture.bytes().div_ceil(3) as u64 * 4;
        let (body, taken_field) = self.taken.as_ref().map_or((0, 0), |taken| (taken.body_bytes, field(taken)));
        let said =
            self.taken.iter().chain([refused]).map(|tried| tried.heard.said()).collect::<String>().to_lowercase();
        servers::find(&Seen {
            format: self.format,
            way,
            body: (body, refused.body_bytes),
            field: (taken_field, field(refused)),
            said: &said,
        })
    }
}

/// Tries a server; `say` hears of each test event.
///
/// # Errors
/// A certificate file of the config that does not do.
pub async fn run(config: &Config, plan: Plan, say: &dyn Fn(Format, &Tried)) -> Result<Trial, ConfigFault> {
    let setup = Setup::read(config)?;
    let mut trial = Trial { url: plan.url.clone(), ladders: Vec::new(), idle: None, validity: None };
    for format in plan.formats {
        let client = client(plan.url.clone(), setup.for_trial(&plan.url, format));
        let ladder = climb(&client, say).await;
        let is_answered = ladder.taken.is_some();
        let is_there = ladder.refused.as_ref().is_none_or(|tried| !matches!(tried.fate, Fate::Unreachable(_)));
        trial.ladders.push(ladder);
        trial.validity = client.validity();
        if !is_there {
            break;
        }
        if is_answered && trial.idle.is_none() && !plan.idle.is_zero() {
            // A connection that is new to idleness: the last upload of the ladder may have broken one off.
            let tried = send(&client, TestPicture::card(), None).await;
            if tried.is_taken() {
                trial.idle = Some((client.wait_for_close(plan.idle).await, plan.idle));
            }
        }
    }
    Ok(trial)
}

/// A client whose every event is marked as a test.
pub fn client(url: Url, mut settings: Settings) -> Client {
    settings.headers.push(event::X_EVENT_TEST);
    Client::listening(url, settings)
}

/// From the smallest to the first that is not taken, and back by halves.
async fn climb(client: &Client, say: &dyn Fn(Format, &Tried)) -> Ladder {
    let format = client.body_options().format;
    let mut ladder = Ladder { format, taken: None, refused: None, lost: None };
    let note = async |ladder: &mut Ladder, picture: TestPicture| {
        let tried = send_twice(client, picture).await;
        say(format, &tried);
        let smallest = ladder.lost.is_none_or(|lost| picture.bytes() < lost.bytes());
        if tried.way() == Some(Way::Loses) && smallest {
            ladder.lost = Some(picture);
        }
        let place = if tried.is_taken() { &mut ladder.taken } else { &mut ladder.refused };
        *place = Some(tried);
    };
    for size in SIZES {
        note(&mut ladder, TestPicture::of(size)).await;
        if ladder.refused.is_some() {
            break;
        }
    }
    let is_answer = |refused: &Tried| refused.way().is_some();
    if ladder.taken.is_none() && ladder.refused.as_ref().is_some_and(is_answer) {
        note(&mut ladder, TestPicture::card()).await;
    }
    while let (Some(taken), Some(refused)) = (&ladder.taken, &ladder.refused) {
        let (low, high) = (taken.picture.bytes(), refused.picture.bytes());
        if high - low <= low / PRECISION + 64 {
            break;
        }
        note(&mut ladder, TestPicture::of(low.midpoint(high))).await;
    }
    ladder
}

/// Once more where the first failure may have been chance.
async fn send_twice(client: &Client, picture: TestPicture) -> Tried {
    let first = send(client, picture, None).await;
    let Fate::Failed(failure) = &first.fate else { return first };
    let may_be_chance = failure.status.is_none_or(|status| matches!(status, 408 | 425 | 429 | 500..));
    if !may_be_chance {
        return first;
    }
    tokio::time::sleep(PAUSE).await;
    send(client, picture, None).await
}

/// Sends one test event, and waits for `most`, or as long as the config says.
pub async fn send(client: &Client, picture: TestPicture, most: Option<Duration>) -> Tried {
    let event = event::event(picture);
    let body_bytes = client.template(&event).length();
    let upload = Upload { event: Rc::new(event), source: Arc::new(picture) };
    let outcome = match most {
        None => client.send(&upload, None).await.0,
        Some(most) => match tokio::time::timeout(most, client.send(&upload, None)).await {
            Ok((outcome, _)) => outcome,
            Err(_) => {
                AttemptOutcome::down(Failure::new(Code::NoAnswer, format!("no answer within {} s", most.as_secs())))
            }
        },
    };
    let heard = client.heard();
    let fate = match outcome {
        AttemptOutcome::Acknowledged => {
            let proof = digests::judge(&heard.words, picture, client.body_options().with_reg_pic);
            Fate::Answered(client.last_answer().unwrap_or(200), proof)
        }
        AttemptOutcome::Unreachable { failure } => Fate::Unreachable(failure),
        outcome => Fate::Failed(outcome.failure().cloned().expect("a test picture is not lost")),
    };
    Tried { picture, body_bytes, fate, heard, id: upload.event.id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_climbs_the_same_ladder() {
        const PAGE: &str = include_str!("../api/page/uplink.js");
        let ladder = SIZES.map(|bytes| bytes.to_string()).join(", ");
        assert!(PAGE.contains(&format!("const LARGE = [{ladder}];")), "{ladder}");
    }
}
