//! Tests a server before the first event: `sophon-uplink try URL`, and the test events of the API.
//!
//! Test events are sent like every event, with the config's headers, certificates and timeouts. But they bypass rings, threshold,
//! lanes and counters. A series of pictures of growing size, in each format, shows the size from which a server refuses an event,
//! or loses a picture although it answers 2xx. Bisection then finds the limit. [`servers`] knows which product probably has this
//! limit, and the setting.
//!
//! `mod` (the attempts) → [`verdict`] (text, JSON, exit code). [`event`], [`picture`] and [`digests`] depend on neither.

pub mod digests;
pub mod event;
pub mod picture;
pub mod verdict;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::body::Format;
use crate::config::Url;
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
/// Picture sizes of the series, in bytes. Each event has two pictures.
const SIZES: [usize; 4] = [20_000, 300_000, 1_000_000, LARGEST];
/// Bisection ends when the refused size exceeds the accepted size by less than the accepted size divided by this.
const PRECISION: usize = 32;
/// Pause before the single retry of a server that is busy or has closed the connection.
const PAUSE: Duration = Duration::from_millis(500);

/// One test event and its result.
#[derive(Debug)]
pub struct Tried {
    /// The picture.
    pub picture: TestPicture,
    /// Size of the whole request, in bytes.
    pub body_bytes: u64,
    /// The result.
    pub fate: Fate,
    /// The server's answer.
    pub heard: Heard,
    /// Id of the event.
    pub id: EventId,
}

/// The result of a test event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 2xx, with this status and proof.
    Answered(u16, Proof),
    /// No connection to the server.
    Unreachable(Failure),
    /// Every other failure.
    Failed(Failure),
}

/// The result for one format.
#[derive(Debug)]
pub struct Ladder {
    /// The format.
    pub format: Format,
    /// The largest accepted event.
    pub taken: Option<Tried>,
    /// The smallest refused event; none if all were accepted.
    pub refused: Option<Tried>,
    /// The smallest picture that was lost although the server answered 2xx.
    pub lost: Option<TestPicture>,
}

/// The result for a server.
#[derive(Debug)]
pub struct Trial {
    /// The server.
    pub url: Url,
    /// One for each format.
    pub ladders: Vec<Ladder>,
    /// What the server does with an idle connection, and the maximum time of the test.
    pub idle: Option<(Idle, Duration)>,
    /// The validity period of its certificate, with TLS.
    pub validity: Option<Validity>,
}

/// The plan of a trial.
pub struct Plan {
    /// The server.
    pub url: Url,
    /// The formats to try.
    pub formats: Vec<Format>,
    /// Maximum time to watch an idle connection. Zero: no test.
    pub idle: Duration,
}

impl Fate {
    /// Why there was no 2xx; none if there was one.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Fate::Unreachable(failure) | Fate::Failed(failure) => Some(failure),
            Fate::Answered(..) => None,
        }
    }
}

impl Tried {
    /// Whether the server has the event, as far as can be known.
    pub fn is_taken(&self) -> bool {
        matches!(&self.fate, Fate::Answered(_, proof) if !matches!(proof, Proof::Short(_)))
    }

    /// Whether the server itself confirms that it has both complete pictures.
    pub fn is_proven(&self) -> bool {
        matches!(self.fate, Fate::Answered(_, Proof::Whole))
    }

    /// How the server fails to accept the event; none if it accepts it, or if the server was not reached.
    pub fn way(&self) -> Option<Way> {
        match &self.fate {
            Fate::Answered(_, Proof::Short(_)) => Some(Way::Loses),
            Fate::Answered(..) | Fate::Unreachable(_) => None,
            Fate::Failed(failure) => Way::of(failure),
        }
    }
}

impl Ladder {
    /// Products that probably have this limit. Empty if there is no limit, or none is known.
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

/// Tests a server. Calls `say` for each test event.
pub async fn run(setup: &Setup, plan: Plan, say: &dyn Fn(Format, &Tried)) -> Trial {
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
            // Use a new connection for the idle test: the last upload of the series may have broken the old one.
            let tried = send(&client, TestPicture::card(), None).await;
            if tried.is_taken() {
                trial.idle = Some((client.wait_for_close(plan.idle).await, plan.idle));
            }
        }
    }
    trial
}

/// A client that marks every event as a test.
pub fn client(url: Url, mut settings: Settings) -> Client {
    settings.headers.push(event::X_EVENT_TEST);
    Client::listening(url, settings)
}

/// Tries growing sizes until one is refused, then bisects.
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

/// Sends once more if the first failure may have been temporary.
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

/// Sends one test event. Waits for at most `most`, or for the config's timeout.
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
