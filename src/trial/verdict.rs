//! The result of a trial as text, as JSON and as an exit code.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::digests::Proof;
use super::picture::TestPicture;
use super::{Fate, LARGEST, Ladder, Trial, Tried};
use crate::body::Format;
use crate::clock;
use crate::deliver::client::Idle;
use crate::deliver::failure::Code;
use crate::deliver::servers::Way;
use crate::deliver::sizes::Size;
use crate::deliver::tls::Validity;

/// Every tested format accepts every size.
pub const ALL: u8 = 0;
/// Nothing was accepted: the server is not there, or is not a receiver of events.
pub const NOTHING: u8 = 1;
/// Warn if a certificate ends in fewer days.
const WARNING_DAYS: u64 = 30;
/// At least one format accepts only smaller events, or none.
pub const SOME: u8 = 3;

impl Trial {
    /// The exit code of the program.
    pub fn code(&self) -> u8 {
        match () {
            () if self.ladders.iter().all(|ladder| ladder.taken.is_none()) => NOTHING,
            () if self.ladders.iter().all(|ladder| ladder.refused.is_none()) => ALL,
            () => SOME,
        }
    }

    /// The result for programs.
    pub fn to_json(&self) -> Value {
        let names = self.names();
        json!({
            "url": self.url.to_string(),
            "verdict": match self.code() { ALL => "all", SOME => "some", _ => "nothing" },
            "server": names,
            "formats": self.ladders.iter().map(Ladder::to_json).collect::<Vec<_>>(),
            "closes_idle_after_ms": self.idle.and_then(|(idle, _)| match idle {
                Idle::NotKept => Some(0),
                Idle::ClosedAfter(time) => Some(time.as_millis() as u64),
                Idle::Kept => None,
            }),
            "certificate": self.validity.map(|Validity { not_before, not_after }| {
                json!({"not_before": not_before, "not_after": not_after})
            }),
        })
    }

    /// The names that the server gives itself.
    fn names(&self) -> Vec<&str> {
        let tries = self.ladders.iter().flat_map(|ladder| ladder.taken.iter().chain(&ladder.refused));
        let mut names: Vec<_> = tries.flat_map(|tried| tried.heard.names.lines()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn is_unproven(&self) -> bool {
        self.ladders.iter().filter_map(|ladder| ladder.taken.as_ref()).any(|tried| !tried.is_proven())
    }
}

impl Ladder {
    fn to_json(&self) -> Value {
        let taken = self.taken.as_ref();
        json!({
            "format": self.format.name(),
            "takes_picture_bytes": taken.map(|tried| tried.picture.bytes()),
            "takes_body_bytes": taken.map(|tried| tried.body_bytes),
            "proven": taken.map(Tried::is_proven),
            "refuses_picture_bytes": self.refused.as_ref().map(|tried| tried.picture.bytes()),
            "refuses_body_bytes": self.refused.as_ref().map(|tried| tried.body_bytes),
            "loses_picture_bytes": self.lost.map(TestPicture::bytes),
            "status": self.refused.as_ref().and_then(Tried::status),
            "error_code": self.refused.as_ref().and_then(Tried::error_code),
            "why": self.refused.as_ref().map(|tried| tried.fate.to_string()),
            "likely": self.likely(),
        })
    }
}

impl Tried {
    /// The status that the server answered; none without an answer.
    pub fn status(&self) -> Option<u16> {
        match &self.fate {
            Fate::Answered(status, _) => Some(*status),
            fate => fate.failure()?.status,
        }
    }

    /// The reason of the failure, for programs.
    pub fn error_code(&self) -> Option<&'static str> {
        match &self.fate {
            Fate::Answered(_, Proof::Short(_)) => Some(Code::PictureLost.name()),
            fate => Some(fate.failure()?.code.name()),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Answered(status, Proof::Whole) => write!(f, "taken ({status}), the server has both pictures whole"),
            Fate::Answered(status, Proof::Unsaid) => write!(f, "taken ({status})"),
            Fate::Answered(status, Proof::Short(what)) => write!(f, "LOST, the server answered {status}, but {what}"),
            Fate::Unreachable(failure) | Fate::Failed(failure) => write!(f, "not taken, {failure}"),
        }
    }
}

fn picture(tried: &Tried) -> Size {
    Size(tried.picture.bytes() as u64)
}

/// One test event as a line of progress.
pub struct Progress<'a>(pub Format, pub &'a Tried);

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress(format, tried) = self;
        let (pictures, body) = (picture(tried).to_string(), Size(tried.body_bytes));
        write!(f, "{:9}  2 x {pictures:>7} ({body})  {}", format.name(), tried.fate)
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.url)?;
        if !self.names().is_empty() {
            writeln!(f, "  the server calls itself {}", self.names().join(", "))?;
        }
        self.ladders.iter().try_for_each(|ladder| write!(f, "{ladder}"))?;
        if let Some((idle, most)) = self.idle {
            writeln!(f, "  {}", idle_in_words(idle, most))?;
        }
        if let Some(validity) = self.validity {
            writeln!(f, "  {}", validity_in_words(validity, clock::now()))?;
        }
        if self.is_unproven() {
            writeln!(
                f,
                "  A 2xx alone does not prove that a picture has arrived whole. docs/receivers.md says what a receiver may answer to\n  \
                 prove it, and which servers lose pictures behind a 200; of these, nearly all do so with form-data only."
            )?;
        }
        write!(f, "{}", self.advice())
    }
}

impl Trial {
    fn advice(&self) -> String {
        let largest = Size(LARGEST as u64);
        let takes_all = |format| self.ladders.iter().any(|ladder| ladder.format == format && ladder.refused.is_none());
        match self.code() {
            ALL => format!("Good: pictures of up to {largest} are taken."),
            NOTHING => "Nothing was taken: see above what to set right.".into(),
            _ if takes_all(Format::Json) => {
                "Send JSON (\"content-type\": \"json\"), or raise the limit and try again.".into()
            }
            _ => "Larger pictures will be refused or lost: raise the limit and try again.".into(),
        }
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.format.name();
        match (&self.taken, &self.refused) {
            (_, None) => writeln!(f, "  {name}: every size is taken"),
            (None, Some(refused)) => {
                writeln!(f, "  {name}: nothing is taken; of {}: {}", picture(refused), refused.fate)
            }
            (Some(taken), Some(refused)) => writeln!(
                f,
                "  {name}: pictures of up to {} are taken (requests of {}); of {} ({}): {}",
                picture(taken),
                Size(taken.body_bytes),
                picture(refused),
                Size(refused.body_bytes),
                refused.fate
            ),
        }?;
        let is_lost = |refused: &&Tried| refused.way() == Some(Way::Loses);
        if let (Some(lost), None) = (self.lost, self.refused.as_ref().filter(is_lost)) {
            writeln!(f, "  {name}: pictures of {} are LOST behind a 2xx", Size(lost.bytes() as u64))?;
        }
        self.likely().iter().try_for_each(|likely| {
            let sure = if likely.is_named { "set" } else { "if it is this, set" };
            writeln!(f, "    {}: {sure} {}", likely.row.server, likely.row.setting)
        })
    }
}

fn validity_in_words(Validity { not_before, not_after }: Validity, now: u64) -> String {
    const DAY: u64 = 24 * 3600;
    let left = match not_after.saturating_sub(now) / DAY {
        _ if not_after <= now => "it has expired: renew it".to_owned(),
        days if days < WARNING_DAYS => format!("{days} days from now: renew it"),
        days => format!("{days} days from now"),
    };
    format!("its certificate is valid from {} until {} ({left})", clock::date(not_before), clock::date(not_after))
}

fn idle_in_words(idle: Idle, most: Duration) -> String {
    match idle {
        Idle::NotKept => "the server closes the connection after each answer: each event costs a new one".into(),
        Idle::ClosedAfter(time) => format!("the server closes an idle connection after {:.1} s", time.as_secs_f64()),
        Idle::Kept => format!("the server keeps an idle connection for more than {} s", most.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_to_be_renewed() {
        const DAY: u64 = 24 * 3600;
        let validity = Validity { not_before: 0, not_after: 100 * DAY };
        for (now, told) in [
            (70, "30 days from now"),
            (71, "29 days from now: renew it"),
            (100, "it has expired: renew it"),
            (200, "it has expired: renew it"),
        ] {
            let words = validity_in_words(validity, now * DAY);
            assert!(words.ends_with(&format!(" ({told})")), "{words}");
        }
    }
}
