//! A checked record as a typed event.
//!
//! What `sophon_ring_publish` would have refused makes a record malformed: it cannot come from a correct recognizer. What the
//! header cannot know is mended instead, because an event is worth more than its decoration: invalid UTF-8 becomes U+FFFD, a text
//! beyond all measure is cut off, and what of ext_json is not JSON is left out and said.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::ring::Words;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use crate::ring::layout::{ALIGN, EVENT_HEADER, SECTION_HEADER, aligned, high, low, section};

/// An ext_json that is longer is left out, in bytes.
const MAX_EXT_JSON: usize = 256 * 1024;
/// Another text that is longer is cut off, in bytes: nobody is called that.
const MAX_TEXT: usize = 4096;

/// What an event is called everywhere and for ever: `X-Event-Id` (CONTRACT section 1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EventId {
    /// Of the ring that it came through.
    pub ring: RingId,
    /// Its number there, from 1.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ring, self.sequence)
    }
}

/// An event as the recognizer meant it. Its pictures stay where they are: the ranges are offsets in the data area.
#[derive(Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// The person's number.
    pub identity_id: String,
    /// The person's name.
    pub identity_name: String,
    /// The group's name, or its id where it has no name.
    pub group_name: String,
    /// The device's address, where it is reported.
    pub device_ip: Option<String>,
    /// Further members of ext_data, in the order of ext_json, each key once.
    pub ext: Vec<(String, Box<RawValue>)>,
    /// Unix epoch, UTC.
    pub timestamp_ms: i64,
    /// Finite.
    pub score: f32,
    /// 1..=5, where it is reported.
    pub person_type: Option<i32>,
    /// 0..=4, where it is reported.
    pub device_type: Option<i32>,
    /// Empty where there is none.
    pub reg_pic: Range<usize>,
    /// Empty where there is none.
    pub spot_pic: Range<usize>,
    /// Why ext_json was left out, where it was.
    pub ext_fault: Option<String>,
}

/// A record whose frame is good and whose inside is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Where the sections of a record lie, by kind.
type Sections = [Option<Range<usize>>; section::KNOWN as usize];

impl Event {
    /// What it takes in memory, about, in bytes.
    pub fn weight(&self) -> usize {
        let texts = [&self.identity_id, &self.identity_name, &self.group_name].map(String::len).iter().sum::<usize>();
        let ext = self.ext.iter().map(|(key, value)| 64 + key.len() + value.get().len()).sum::<usize>();
        size_of::<Event>() + texts + ext
    }

    /// Takes the event out of the record at `frame`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn from_record(words: &impl Words, frame: &Frame, ring: RingId) -> Result<Event, Malformed> {
        let header = frame.header;
        if !header.score.is_finite() {
            return Err(Malformed(format!("its score is {}", header.score)));
        }
        let mut person_type = in_range("person_type", header.person_type, 0, 1..=5)?;
        let mut device_type = in_range("device_type", header.device_type, -1, 0..=4)?;
        let sections = sections(words, frame.offset + EVENT_HEADER..frame.offset + header.length as usize)?;
        let text = |kind: u32| {
            let most = if kind == section::EXT_JSON { MAX_EXT_JSON } else { MAX_TEXT };
            sections[kind as usize].clone().map_or(String::new(), |range| text(words, range, most))
        };
        let mut device_ip = Some(text(section::DEVICE_IP)).filter(|ip| !ip.is_empty());
        let picture = |kind: u32| sections[kind as usize].clone().unwrap_or(0..0);
        let ext_len = sections[section::EXT_JSON as usize].as_ref().map_or(0, Range::len);
        let (mut ext, mut ext_fault) = match members(&text(section::EXT_JSON)) {
            _ if ext_len > MAX_EXT_JSON => (Vec::new(), Some(format!("{ext_len} bytes, more than {MAX_EXT_JSON}"))),
            Ok(members) => (members, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        ext.retain(|(key, value)| {
            let kept = keep(key, value.get(), &mut device_ip, &mut person_type, &mut device_type);
            kept.unwrap_or_else(|why| {
                ext_fault = Some(format!("its member {key:.40}: {why}"));
                false
            })
        });
        Ok(Event {
            id: EventId { ring, sequence: header.sequence },
            identity_id: text(section::IDENTITY_ID),
            identity_name: text(section::IDENTITY_NAME),
            group_name: Some(text(section::GROUP_NAME))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| text(section::GROUP_ID)),
            device_ip,
            ext,
            timestamp_ms: header.timestamp_ms,
            score: header.score,
            person_type,
            device_type,
            reg_pic: picture(section::REG_PIC),
            spot_pic: picture(section::SPOT_PIC),
            ext_fault,
        })
    }
}

/// Whether a member of ext_json goes out as it is. One that has a key of the contract's table fills in what the event itself does
/// not have, where its type is right, and is gone either way.
fn keep(
    key: &str,
    json: &str,
    device_ip: &mut Option<String>,
    person_type: &mut Option<i32>,
    device_type: &mut Option<i32>,
) -> Result<bool, String> {
    // What no parser would take (a lone surrogate, a number beyond f64, nesting without end) would cost the whole event. It is
    // parsed at the depth at which it will stand in a body.
    let [[value]]: [[Value; 1]; 1] = serde_json::from_str(&format!("[[{json}]]")).map_err(|error| error.to_string())?;
    match key {
        "device_ip" => *device_ip = device_ip.take().or_else(|| value.as_str().map(String::from)),
        "person_type" => {
            let given = value.as_i64().filter(|kind| (1..=5).contains(kind));
            *person_type = person_type.or(given.map(|kind| kind as i32));
        }
        "device_type" => {
            let given =
                value.as_str().and_then(|kind| ["0", "1", "2", "3", "4"].iter().position(|known| *known == kind));
            *device_type = device_type.or(given.map(|kind| kind as i32));
        }
        "spot_pic" => {}
        _ => return Ok(true),
    }
    Ok(false)
}

/// `value` unless it is `none`, which means not reported.
fn in_range(
    name: &str,
    value: i32,
    none: i32,
    allowed: std::ops::RangeInclusive<i32>,
) -> Result<Option<i32>, Malformed> {
    match value {
        value if value == none => Ok(None),
        value if allowed.contains(&value) => Ok(Some(value)),
        value => Err(Malformed(format!("its {name} is {value}"))),
    }
}

/// Walks the sections in `area`, which they must fill exactly. Each section's header is read once.
fn sections(words: &impl Words, area: Range<usize>) -> Result<Sections, Malformed> {
    let mut found: Sections = Default::default();
    let mut at = area.start;
    while at < area.end {
        let header = words.word(at);
        let (kind, length) = (low(header), high(header) as usize);
        let content = at + SECTION_HEADER;
        if length > area.end - content {
            return Err(Malformed(format!(
                "its section of kind {kind} overruns it by {} bytes",
                length - (area.end - content)
            )));
        }
        if kind != section::FILLER && kind < section::KNOWN {
            if found[kind as usize].is_some() {
                return Err(Malformed(format!("it has two sections of kind {kind}")));
            }
            found[kind as usize] = Some(content..content + length);
        }
        at = content + aligned(length);
    }
    Ok(found)
}

/// Copies a text out, mending what is not UTF-8 and cutting off what is too long.
fn text(words: &impl Words, range: Range<usize>, most: usize) -> String {
    let range = range.start..range.end.min(range.start + most);
    let mut bytes = Vec::with_capacity(aligned(range.len()));
    for at in (range.start..range.end).step_by(ALIGN) {
        bytes.extend_from_slice(&words.word(at).to_le_bytes());
    }
    bytes.truncate(range.len());
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The members of a JSON object with their values as they were written: numbers keep their digits. The last of several with the
/// same key wins, as in most parsers.
pub(crate) fn members(json: &str) -> serde_json::Result<Vec<(String, Box<RawValue>)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            let mut last = HashMap::new();
            while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                last.insert(key.clone(), members.len());
                members.push((key, value));
            }
            let mut index = 0..;
            members.retain(|(key, _)| index.next() == last.get(key).copied());
            Ok(members)
        }
    }

    if json.is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    let members = parser.deserialize_map(Members)?;
    parser.end()?;
    Ok(members)
}
