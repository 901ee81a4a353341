//! Checks an event against the documented table. Names every fault: the key, the value that came, and what is allowed.
//!
//! | key | type | allowed |
//! | --- | --- | --- |
//! | identity_id, identity_name, group_name | string | any; required |
//! | reg_pic | base64 | a JPEG or `""`; required |
//! | timestamp | int | int32 seconds, or milliseconds (see `timestamp`); required |
//! | score | float | finite; required |
//! | ext_data | object | required |
//! | ext_data.device_ip | string | any |
//! | ext_data.spot_pic | base64 | a JPEG or `""` |
//! | ext_data.person_type | int | 1 to 5 |
//! | ext_data.device_type | string | "0" to "4" |
//!
//! Further members are checked as `dialect.rs` says and stored unchanged. Names of members next to ext_data that no dialect has
//! are recorded.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;
use sophon_uplink::event::Place;
use sophon_uplink::serve::text::quoted;

use crate::dialect::{self, Kind, Report};
use crate::fields::{FieldValue, key_of};
use crate::json::{Members, on_one_line, shortened};
use crate::picture::{self, Picture};

/// The keys that every event has, without the members of ext_data.
const TABLE: [&str; 7] = ["identity_id", "identity_name", "group_name", "reg_pic", "timestamp", "score", "ext_data"];
/// Maximum number of faults that are listed; further ones are only counted.
const MAX_FAULTS: usize = 50;
/// Range of timestamps that are read as milliseconds: from 2001-09-09 to the year 9999.
const MILLISECONDS: std::ops::RangeInclusive<i64> = 1_000_000_000_000..=253_402_300_799_999;

/// A checked event, with its pictures decoded.
#[derive(Debug, Default)]
pub struct Event {
    pub identity_id: String,
    pub identity_name: String,
    pub group_name: String,
    /// `None` stands for `""`.
    pub reg_pic: Option<Picture>,
    pub timestamp: i64,
    pub score: f64,
    /// The report that it came in.
    pub report: Report,
    /// Further members next to ext_data, in their order.
    pub top: Vec<(String, Kept)>,
    /// The members of ext_data, in their order.
    pub ext_data: Vec<(String, Kept)>,
    /// Pictures with names other than reg_pic and spot_pic.
    pub named: Vec<Named>,
    /// `None` stands for `""` and for a missing spot_pic.
    pub spot_pic: Option<Picture>,
    /// Names of keys that the table does not have.
    pub unknown_keys: Vec<String>,
}

/// A member's value.
#[derive(Debug)]
pub enum Kept {
    /// The value, unchanged.
    Json(Box<RawValue>),
    /// [`Event::spot_pic`].
    Spot,
    /// The index of a picture in [`Event::named`]; none for `""`.
    Picture(Option<usize>),
}

/// A picture with its own name.
#[derive(Debug)]
pub struct Named {
    pub place: Place,
    pub name: String,
    pub picture: Picture,
}

/// Identifies one of an event's pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    Reg,
    Spot,
    Named(Place, String),
}

impl Which {
    /// Its name in an event.
    pub fn name(&self) -> &str {
        match self {
            Which::Reg => "reg_pic",
            Which::Spot => "spot_pic",
            Which::Named(_, name) => name,
        }
    }
}

impl Event {
    /// Its pictures.
    pub fn pictures(&self) -> impl Iterator<Item = (Which, &Picture)> {
        let reg = self.reg_pic.iter().map(|picture| (Which::Reg, picture));
        let spot = self.spot_pic.iter().map(|picture| (Which::Spot, picture));
        let named = |named: &Named| Which::Named(named.place, named.name.clone());
        reg.chain(spot).chain(self.named.iter().map(move |one| (named(one), &one.picture)))
    }
}

/// Checks the fields of an event of a report. The error lists all faults.
pub fn check(fields: &[(String, FieldValue)], report: Report) -> Result<Event, Vec<String>> {
    let mut check = Check { fields, faults: Vec::new() };
    let mut event = Event {
        identity_id: check.text("identity_id").unwrap_or_default().into_owned(),
        identity_name: check.text("identity_name").unwrap_or_default().into_owned(),
        group_name: check.text("group_name").unwrap_or_default().into_owned(),
        reg_pic: check.reg_pic(report),
        timestamp: check.timestamp().unwrap_or_default(),
        score: check.score().unwrap_or_default(),
        report,
        ..Event::default()
    };
    check.ext_data(&mut event);
    check.top(&mut event);
    let is_picture = |key: &str| event.named.iter().any(|named| named.place == Place::Top && named.name == key);
    let is_known = |key: &str| dialect::is_documented_at_top(key) || is_picture(key);
    let unknown = event.top.iter().filter(|(key, _)| !is_known(key));
    event.unknown_keys = unknown.map(|(key, _)| key_of(key)).take(MAX_FAULTS).collect();
    unless_faulty(event, check.faults)
}

/// The checked value, or the faults found in it.
pub fn unless_faulty<T>(checked: T, mut faults: Vec<String>) -> Result<T, Vec<String>> {
    if faults.len() > MAX_FAULTS {
        let more = faults.split_off(MAX_FAULTS).len();
        faults.push(format!("and {more} more"));
    }
    if faults.is_empty() { Ok(checked) } else { Err(faults) }
}

/// The fields to check, and the faults found so far.
struct Check<'a> {
    fields: &'a [(String, FieldValue<'a>)],
    faults: Vec<String>,
}

impl<'a> Check<'a> {
    fn fault(&mut self, key: &str, came: &str, allowed: &str) {
        self.faults.push(format!("{key}: came {came}; allowed: {allowed}"));
    }

    /// The single value of a required key.
    fn required(&mut self, key: &str, allowed: &str) -> Option<FieldValue<'a>> {
        let mut values = self.fields.iter().filter(|(name, _)| name == key).map(|(_, value)| *value);
        let (first, more) = (values.next(), values.count());
        if first.is_none() {
            self.faults.push(format!("{key}: missing; allowed: {allowed}"));
        }
        if more > 0 {
            self.fault(key, &format!("{} times", more + 1), "once");
        }
        first
    }

    fn text(&mut self, key: &str) -> Option<Cow<'a, str>> {
        const ALLOWED: &str = "a string";
        let value = self.required(key, ALLOWED)?;
        let text = string(value);
        if text.is_none() {
            self.fault(key, &described(value), ALLOWED);
        }
        text
    }

    fn reg_pic(&mut self, report: Report) -> Option<Picture> {
        if report == Report::History && !self.fields.iter().any(|(key, _)| key == "reg_pic") {
            return None; // the picture may be switched off in the history
        }
        let value = self.required("reg_pic", picture::ALLOWED)?;
        self.picture("reg_pic", value)
    }

    fn picture(&mut self, key: &str, value: FieldValue<'a>) -> Option<Picture> {
        let decoded = match string(value) {
            Some(text) => picture::decode(&text),
            None => Err(described(value)),
        };
        decoded.unwrap_or_else(|came| {
            self.fault(key, &came, picture::ALLOWED);
            None
        })
    }

    /// The documentation says seconds that fit an int32. Some boxes in the field send milliseconds, and clouds expect them, so
    /// these are accepted too. Values between and beyond these ranges, such as microseconds, are faults.
    fn timestamp(&mut self) -> Option<i64> {
        const ALLOWED: &str = "an integer: Unix time in seconds (int32), or in milliseconds";
        let value = self.required("timestamp", ALLOWED)?;
        let number = number(value).and_then(|text| text.parse::<i64>().ok());
        let number = number.filter(|number| i32::try_from(*number).is_ok() || MILLISECONDS.contains(number));
        if number.is_none() {
            self.fault("timestamp", &described(value), ALLOWED);
        }
        number
    }

    fn score(&mut self) -> Option<f64> {
        const ALLOWED: &str = "a finite number";
        let value = self.required("score", ALLOWED)?;
        let score = number(value).and_then(|text| text.parse::<f64>().ok()).filter(|score| score.is_finite());
        if score.is_none() {
            self.fault("score", &described(value), ALLOWED);
        }
        score
    }

    fn ext_data(&mut self, event: &mut Event) {
        const ALLOWED: &str = "a JSON object";
        let Some(value) = self.required("ext_data", ALLOWED) else {
            return;
        };
        let json = match value {
            FieldValue::Json(raw) => raw.get(),
            FieldValue::Text(text) => text,
        };
        let members = match serde_json::from_str::<Members>(json) {
            Ok(Members(members)) => members,
            Err(error) => return self.fault("ext_data", &format!("{} ({error})", described(value)), ALLOWED),
        };
        let mut seen = HashSet::new();
        for (name, value) in members {
            let key = format!("ext_data.{}", key_of(&name));
            if !seen.insert(name.clone()) {
                self.fault(&key, "more than once", "once");
            }
            let kept = if name == "spot_pic" {
                event.spot_pic = self.picture(&key, FieldValue::Json(value));
                Some(Kept::Spot)
            } else {
                self.member(&name, &key, value);
                self.further(Place::ExtData, &name, &key, FieldValue::Json(value), &mut event.named)
            };
            event.ext_data.extend(kept.map(|kept| (name, kept)));
        }
        for name in event.report.required().iter().filter(|name| !seen.contains(**name)) {
            let allowed = if name.ends_with("_info") { "an object, if only {}" } else { "a string" };
            self.faults.push(format!("ext_data.{name}: missing; allowed: {allowed}"));
        }
    }

    /// Checks the members next to ext_data that the table does not have.
    fn top(&mut self, event: &mut Event) {
        let mut seen = HashSet::new();
        for (name, value) in self.fields.iter().filter(|(name, _)| !TABLE.contains(&name.as_str())) {
            let key = key_of(name);
            if !seen.insert(name) {
                self.fault(&key, "more than once", "once");
                continue;
            }
            let kept = self.further(Place::Top, name, &key, *value, &mut event.named);
            event.top.extend(kept.map(|kept| (name.clone(), kept)));
        }
    }

    /// Checks a member that at most one dialect has. Returns none if it is wrong.
    fn further(
        &mut self,
        place: Place,
        name: &str,
        key: &str,
        value: FieldValue<'a>,
        named: &mut Vec<Named>,
    ) -> Option<Kept> {
        let text = string(value);
        let kind = dialect::kind(place, name, text.as_deref());
        if kind == Kind::Picture {
            let faults = self.faults.len();
            let picture = self.picture(key, value);
            let index = picture.map(|picture| {
                named.push(Named { place, name: name.to_owned(), picture });
                named.len() - 1
            });
            return (faults == self.faults.len()).then_some(Kept::Picture(index));
        }
        // In a form an object is text.
        let parsed = match value {
            FieldValue::Text(text) if kind == Kind::Object => {
                serde_json::from_str::<&RawValue>(text).ok().map(FieldValue::Json)
            }
            value => Some(value),
        };
        let is_good = match (kind, parsed) {
            (Kind::Text, _) => text.is_some(),
            (Kind::Object, Some(FieldValue::Json(raw))) => dialect::is_object(raw),
            (Kind::Object, _) => false,
            _ => true,
        };
        if !is_good {
            self.fault(key, &described(value), if kind == Kind::Text { "a string" } else { "an object" });
            return None;
        }
        let line = match parsed? {
            FieldValue::Json(raw) => on_one_line(raw),
            FieldValue::Text(text) => RawValue::from_string(quoted(text)).ok(),
        };
        if line.is_none() {
            self.fault(key, "a value that nests deeper than 64", "less");
        }
        line.map(Kept::Json)
    }

    /// Checks a member of ext_data that is in the table and is not a picture.
    fn member(&mut self, name: &str, key: &str, raw: &'a RawValue) {
        let value = FieldValue::Json(raw);
        let (good, allowed) = match name {
            "device_ip" => (string(value).is_some(), "a string"),
            "person_type" => (["1", "2", "3", "4", "5"].contains(&raw.get()), "an integer from 1 to 5"),
            "device_type" => {
                let type_ = string(value);
                (
                    type_.is_some_and(|type_| ["0", "1", "2", "3", "4"].contains(&&*type_)),
                    "a string from \"0\" to \"4\"",
                )
            }
            _ => return,
        };
        if !good {
            let hint = if raw.get() == "null" { ", or no member at all" } else { "" };
            self.fault(key, &described(value), &format!("{allowed}{hint}"));
        }
    }
}

/// The text of a JSON string or of a form's part. Borrowed unless it was written with escapes.
fn string<'a>(value: FieldValue<'a>) -> Option<Cow<'a, str>> {
    match value {
        FieldValue::Text(text) => Some(Cow::Borrowed(text)),
        FieldValue::Json(raw) => {
            let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
            if inner.contains('\\') {
                serde_json::from_str(raw.get()).ok().map(Cow::Owned)
            } else {
                Some(Cow::Borrowed(inner))
            }
        }
    }
}

/// The text of a JSON number or of a form's part; not parsed yet.
fn number<'a>(value: FieldValue<'a>) -> Option<&'a str> {
    match value {
        FieldValue::Text(text) => Some(text),
        FieldValue::Json(raw) => {
            Some(raw.get()).filter(|text| text.starts_with(|first: char| first == '-' || first.is_ascii_digit()))
        }
    }
}

/// A value as messages show it.
fn described(value: FieldValue) -> String {
    match value {
        FieldValue::Text(text) => format!("the text {}", shortened(text)),
        FieldValue::Json(raw) => match raw.get().as_bytes().first() {
            Some(b'"') => match string(value) {
                Some(text) => format!("the string {}", shortened(&text)),
                None => "a string with half a surrogate pair".into(),
            },
            Some(b'{') => "an object".into(),
            Some(b'[') => "a list".into(),
            Some(b't' | b'f' | b'n') => raw.get().into(),
            _ => format!("the number {}", raw.get().chars().take(40).collect::<String>()),
        },
    }
}
