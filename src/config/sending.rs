//! `order`, `standby`, `bounds`: options of a destination that change how its events are sent. By default they are sent in
//! parallel and as soon as possible.

use std::str::FromStr;
use std::time::Duration;

use super::fields::Fields;
use super::{Url, url};

/// The order in which a destination gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Several at once; live events before those in the spool.
    Any,
    /// One at a time, the oldest first.
    Strict,
}

/// Limits for a link that is paid by the byte or shared with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Events that wait in the spool for longer are dropped.
    pub max_age: Option<Duration>,
    /// Average number of bytes sent per second, at most.
    pub bytes_per_second: Option<u32>,
    /// The hours in which the events of the spool are sent.
    pub backlog_hours: Option<Hours>,
}

/// A part of each day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Begin and end, in seconds of a day in UTC. They differ; the end may be the lower one.
    from: u64,
    until: u64,
}

const DAY: u64 = 86_400;
const HOURS: &str = "a part of the day and its distance from UTC, such as \"22:00-06:00+08:00\"";
const MOST_SECONDS: u64 = 10 * 366 * DAY;

/// Maximum number of standby servers of a destination.
const MOST_STANDBY: usize = 4;

/// Default for how long an event that its server does not take may delay the events after it.
pub const GIVES_UP: Duration = Duration::from_secs(3600);

pub(super) fn order(fields: &mut Fields<'_>) -> Option<Order> {
    let choices = [("any", Some(Order::Any)), ("strict", Some(Order::Strict))];
    fields.one_of("order", None, &choices)
}

pub(super) fn gives_up(fields: &mut Fields<'_>) -> Option<Duration> {
    let allowed = "seconds, 0 (never) to 316224000 (ten years)";
    fields.optional_integer("order_gives_up_s", 0..=MOST_SECONDS, allowed).map(Duration::from_secs)
}

pub(super) fn standby(fields: &mut Fields<'_>) -> Vec<Url> {
    let allowed = "a list of at most 4 different http or https URLs";
    fields.list("standby", allowed, 0..=MOST_STANDBY, url::from_value).unwrap_or_default()
}

pub(super) fn bounds(mut fields: Fields<'_>) -> Bounds {
    let max_age = fields.optional_integer("max_age_s", 60..=MOST_SECONDS, "seconds, 60 to 316224000 (ten years)");
    let rate = fields.optional_integer("bytes_per_second", 1000..=1_000_000_000, "bytes a second, 1000 to 1000000000");
    let backlog_hours = fields.optional_parsed("backlog_hours", HOURS);
    fields.end();
    Bounds { max_age: max_age.map(Duration::from_secs), bytes_per_second: rate.map(|rate| rate as u32), backlog_hours }
}

impl FromStr for Hours {
    type Err = ();

    fn from_str(text: &str) -> Result<Hours, ()> {
        let (from, rest) = text.split_once('-').ok_or(())?;
        let at = rest.find(['+', '-', 'Z']).ok_or(())?;
        let (until, zone) = rest.split_at(at);
        let east = match zone.split_at(1) {
            ("Z", "") => 0,
            ("+", zone) => time(zone)?,
            ("-", zone) => DAY - time(zone)?,
            _ => return Err(()),
        };
        let in_utc = |time: u64| (time + DAY - east % DAY) % DAY;
        let (from, until) = (in_utc(time(from)?), in_utc(time(until)?));
        (from != until).then_some(Hours { from, until }).ok_or(())
    }
}

/// Converts `hh:mm` to seconds.
fn time(text: &str) -> Result<u64, ()> {
    let (hours, minutes) = text.split_once(':').ok_or(())?;
    let number = |text: &str, below: u64| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse::<u64>().ok()).flatten();
        number.filter(|number| *number < below).ok_or(())
    };
    Ok(number(hours, 24)? * 3600 + number(minutes, 60)? * 60)
}

impl Hours {
    /// Whether `unix_time` (seconds) lies in these hours, and for how many more seconds that stays so.
    pub fn at(&self, unix_time: u64) -> (bool, u64) {
        let now = unix_time % DAY;
        let until = |time: u64| (time + DAY - now - 1) % DAY + 1;
        let (begins, ends) = (until(self.from), until(self.until));
        (ends < begins, begins.min(ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_a_part_of_the_day_in_any_zone() {
        let hours = |text: &str| text.parse::<Hours>();
        let midnight = 20_000 * DAY;
        // 22:00 to 06:00 in Beijing is 14:00 to 22:00 in UTC.
        let night = hours("22:00-06:00+08:00").unwrap();
        for (hour, expected) in
            [(0, (false, 14)), (13, (false, 1)), (14, (true, 8)), (21, (true, 1)), (22, (false, 16))]
        {
            let (is_open, seconds) = night.at(midnight + hour * 3600);
            assert_eq!((is_open, seconds / 3600), expected, "{hour}");
        }
        assert_eq!(night.at(midnight + 22 * 3600 - 1), (true, 1));
        for (text, same) in [
            ("22:00-06:00Z", "02:00-10:00+04:00"),
            ("22:00-06:00Z", "14:30-22:30-07:30"),
            ("22:00-06:00Z", "22:00-06:00+00:00"),
        ] {
            assert_eq!(hours(text), hours(same), "{same}");
        }
        for wrong in [
            "",
            "22:00",
            "22:00-06:00",
            "22-06Z",
            "24:00-06:00Z",
            "22:60-06:00Z",
            "06:00-06:00Z",
            "2:00-06:00Z",
            "22:00-06:00+8",
            "22:00-06:00Z+08:00",
            "22:00-+6:00Z",
        ] {
            assert_eq!(hours(wrong), Err(()), "{wrong}");
        }
    }
}
