//! Learns from a destination's answers how large its events may be, so that the status shows the limit, and not only that large
//! events fail.
//!
//! Evidence of a limit is an event that is larger than all accepted ones and is refused in a way that may be about its size.
//! One 413 is enough if any smaller event was accepted. In other cases `SIGNS` such refusals are needed, and a smaller event
//! must be accepted after the first of them; otherwise the server may refuse all events. A larger event that is accepted ends
//! the limit.

use std::fmt;

use serde::Serialize;

use super::servers::{self, Likely, Seen, Way};
use crate::body::Format;

/// How many larger events have to be refused before their size is taken for the reason.
const SIGNS: u32 = 3;

/// The size of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSize {
    /// The length of the request's body, in bytes.
    pub body: u64,
    /// The length of the larger picture in base64, in bytes.
    pub field: u64,
}

/// What was observed of a destination in one format.
#[derive(Debug, Default)]
pub struct Sizes {
    /// The largest accepted event.
    taken: EventSize,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    /// The smallest refused event.
    size: EventSize,
    way: Way,
    /// The server's headers and answer, in lower case.
    said: String,
    count: u32,
    /// Whether a smaller event was accepted after the first refusal.
    has_passed: bool,
}

/// The size limit of a destination, as observed, for the status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Known {
    /// `json` or `form-data`.
    pub format: &'static str,
    /// The largest accepted body, in bytes.
    pub takes_body_bytes: u64,
    /// The smallest refused body, in bytes.
    pub refuses_body_bytes: u64,
    /// The status of the refusal; none if the server closed the connection.
    pub status: Option<u16>,
    /// The software that likely sets this limit.
    pub likely: Vec<Likely>,
}

impl Sizes {
    /// An event was accepted.
    pub fn took(&mut self, size: EventSize) {
        if size.body > self.taken.body {
            self.taken = size;
        }
        self.refused.take_if(|refused| refused.size.body <= size.body);
        if let Some(refused) = &mut self.refused {
            refused.has_passed = true;
        }
    }

    /// An event was refused in this way; `said` gives the server's headers and answer.
    pub fn refused(&mut self, size: EventSize, way: Way, said: impl FnOnce() -> String) {
        if !may_be_for_size(way) {
            return;
        }
        if size.body <= self.taken.body {
            if way != Way::Status(413) {
                return;
            }
            self.taken = EventSize::default(); // the limit has been lowered
        }
        match &mut self.refused {
            Some(refused) if refused.way == way => {
                refused.count += 1;
                if size.body < refused.size.body {
                    refused.size = size;
                }
            }
            other => *other = Some(Refused { size, way, said: said().to_lowercase(), count: 1, has_passed: false }),
        }
    }

    /// The limit, if there is one.
    pub fn known(&self, format: Format) -> Option<Known> {
        let refused = self.refused.as_ref()?;
        let is_certain = refused.way == Way::Status(413) || refused.count >= SIGNS && refused.has_passed;
        if !is_certain || self.taken.body == 0 {
            return None;
        }
        let likely = servers::find(&Seen {
            format,
            way: refused.way,
            body: (self.taken.body, refused.size.body),
            field: (self.taken.field, refused.size.field),
            said: &refused.said,
        });
        Some(Known {
            format: format.name(),
            takes_body_bytes: self.taken.body,
            refuses_body_bytes: refused.size.body,
            status: if let Way::Status(status) = refused.way { Some(status) } else { None },
            likely,
        })
    }
}

const fn may_be_for_size(way: Way) -> bool {
    matches!(way, Way::Closes | Way::Loses | Way::Status(400 | 403 | 413 | 422 | 500))
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (takes, refuses) = (Size(self.takes_body_bytes), Size(self.refuses_body_bytes));
        write!(f, "for {}, it accepts requests of {takes} and refuses requests of {refuses}", self.format)?;
        for (index, likely) in self.likely.iter().take(2).enumerate() {
            let before = if index == 0 { "; the setting may be, for " } else { ", or for " };
            write!(f, "{before}{}: {}", likely.row.server, likely.row.setting)?;
        }
        Ok(())
    }
}

/// A size for people, with three digits at most.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ ..1_000 => write!(f, "{bytes} bytes"),
            bytes @ 1_000..10_000 => write!(f, "{:.1} kB", bytes as f64 / 1e3),
            bytes @ 10_000..999_500 => write!(f, "{:.0} kB", bytes as f64 / 1e3),
            bytes => write!(f, "{:.1} MB", bytes as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn of(body: u64) -> EventSize {
        EventSize { body, field: body / 2 }
    }

    fn limit(sizes: &Sizes) -> Option<(u64, u64)> {
        sizes.known(Format::Json).map(|known| (known.takes_body_bytes, known.refuses_body_bytes))
    }

    #[test]
    fn a_413_is_a_limit_at_once_where_smaller_events_are_taken() {
        let mut sizes = Sizes::default();
        sizes.refused(of(3_000_000), Way::Status(413), || "nginx/1.22.1".into());
        assert_eq!(limit(&sizes), None, "nothing is known of smaller ones");
        sizes.took(of(900_000));
        sizes.refused(of(1_100_000), Way::Status(413), String::new);
        assert_eq!(limit(&sizes), Some((900_000, 1_100_000)));
        let words = sizes.known(Format::Json).unwrap().to_string();
        assert_eq!(
            words,
            "for json, it accepts requests of 900 kB and refuses requests of 1.1 MB; the setting may be, for nginx: client_max_body_size 32m;"
        );
        sizes.took(of(2_000_000));
        assert_eq!(limit(&sizes), None, "somebody has raised it");
        sizes.refused(of(800_000), Way::Status(413), String::new);
        sizes.took(of(700_000));
        assert_eq!(limit(&sizes), Some((700_000, 800_000)), "and lowered it");
    }

    #[test]
    fn other_ways_are_a_limit_only_where_smaller_events_pass_meanwhile() {
        for way in [Way::Status(400), Way::Status(403), Way::Status(422), Way::Status(500), Way::Closes, Way::Loses] {
            let mut sizes = Sizes::default();
            sizes.took(of(500_000));
            for _ in 0..SIGNS {
                sizes.refused(of(2_000_000), way, String::new);
            }
            assert_eq!(limit(&sizes), None, "{way:?}: the server may be out of order");
            sizes.took(of(400_000));
            assert_eq!(limit(&sizes), Some((500_000, 2_000_000)), "{way:?}");
            let mut few = Sizes::default();
            for _ in 1..SIGNS {
                few.refused(of(2_000_000), way, String::new);
                few.took(of(500_000));
            }
            assert_eq!(limit(&few), None, "{way:?}: too few");
            few.refused(of(3_000_000), way, String::new);
            assert_eq!(limit(&few), Some((500_000, 2_000_000)), "{way:?}");
            sizes.took(of(2_000_000));
            assert_eq!(limit(&sizes), None, "{way:?}: it was not for the size");
        }
    }

    #[test]
    fn failures_of_small_events_and_of_the_network_are_no_signs() {
        let mut sizes = Sizes::default();
        sizes.took(of(500_000));
        for way in [Way::Status(401), Way::Status(404), Way::Status(429), Way::Status(503)] {
            for _ in 0..=SIGNS {
                sizes.refused(of(900_000), way, String::new);
                sizes.took(of(100_000));
            }
            assert_eq!(limit(&sizes), None, "{way:?}");
        }
        for _ in 0..=SIGNS {
            sizes.refused(of(300_000), Way::Status(500), String::new);
            sizes.took(of(100_000));
        }
        assert_eq!(limit(&sizes), None, "smaller than what was taken");
    }
}
