//! A checked record as a typed event.
//!
//! What `sophon_ring_publish` would have refused makes a record malformed: it cannot come from a correct recognizer. What the
//! header cannot know is mended instead, because an event is worth more than its decoration: invalid UTF-8 becomes U+FFFD, a text
//! beyond all measure is cut off between two characters, and what of ext_json cannot go out is left out. Each is said ([`Mended`]).

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
/// How the log calls it.
const EXT_JSON: &str = "ext_json";

/// What an event is called everywhere and for ever: `X-Event-Id`.
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
    /// What was mended of it, for the log: at most two of each text.
    pub mended: Vec<Mended>,
}

/// What an event's receivers do not get as the recognizer wrote it. Its text holds nothing of the event but keys and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// Of what: the name of a field.
    pub field: &'static str,
    /// In what way.
    pub how: How,
    /// The rest of the sentence that begins with `field`.
    pub what: String,
}

/// The kinds of mending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// What is not UTF-8 became U+FFFD.
    Decoded,
    /// A part was cut off or left out.
    Shortened,
    /// Nothing was changed, and yet a receiver may not take it.
    OutOfRange,
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.what)
    }
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
        let mut texts = Texts { words, sections: &sections, mended: Vec::new() };
        let mut device_ip = Some(texts.take(section::DEVICE_IP, "device_ip")).filter(|ip| !ip.is_empty());
        let mut ext = texts.members();
        let mut left_out = Vec::new();
        ext.retain(|(key, value)| {
            let kept = keep(key, value.get(), &mut device_ip, &mut person_type, &mut device_type);
            kept.unwrap_or_else(|why| {
                left_out.push((key.clone(), why));
                false
            })
        });
        texts.note_left_out(&left_out);
        texts.note_timestamp(header.timestamp_ms);
        let picture = |kind: u32| sections[kind as usize].clone().unwrap_or(0..0);
        Ok(Event {
            id: EventId { ring, sequence: header.sequence },
            identity_id: texts.take(section::IDENTITY_ID, "identity_id"),
            identity_name: texts.take(section::IDENTITY_NAME, "identity_name"),
            group_name: Some(texts.take(section::GROUP_NAME, "group_name"))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| texts.take(section::GROUP_ID, "group_id")),
            device_ip,
            ext,
            timestamp_ms: header.timestamp_ms,
            score: header.score,
            person_type,
            device_type,
            reg_pic: picture(section::REG_PIC),
            spot_pic: picture(section::SPOT_PIC),
            mended: texts.mended,
        })
    }
}

/// Takes a record's texts out of it, and notes what had to be mended.
struct Texts<'a, W> {
    words: &'a W,
    sections: &'a Sections,
    mended: Vec<Mended>,
}

impl<W: Words> Texts<'_, W> {
    /// A text of at most [`MAX_TEXT`] bytes, cut off between two characters.
    fn take(&mut self, kind: u32, field: &'static str) -> String {
        let Some(range) = self.sections[kind as usize].clone() else { return String::new() };
        let length = range.len();
        // The whole of the character that may stand across the limit.
        let read = range.start..range.end.min(range.start + MAX_TEXT + 3);
        let mut text = self.decode(read, field);
        if length > MAX_TEXT || text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            self.note(field, How::Shortened, format!("was cut off: {end} of its {length} bytes go out"));
        }
        text
    }

    /// The members of ext_json; none where it is too long or no JSON object.
    fn members(&mut self) -> Vec<(String, Box<RawValue>)> {
        let Some(range) = self.sections[section::EXT_JSON as usize].clone() else { return Vec::new() };
        let why = if range.len() > MAX_EXT_JSON {
            format!("{} bytes, more than {MAX_EXT_JSON}", range.len())
        } else {
            match members(&self.decode(range, EXT_JSON)) {
                Ok(members) => return members,
                Err(error) if error.is_data() => "it is no JSON object".into(), // the error's text would have its content
                Err(error) => error.to_string(),
            }
        };
        self.note(EXT_JSON, How::Shortened, format!("left out: {why}"));
        Vec::new()
    }

    fn note_left_out(&mut self, members: &[(String, String)]) {
        let Some((key, why)) = members.first() else { return };
        let key: String = key.chars().take(40).collect();
        let more = if members.len() > 1 { format!(" (and {} members more)", members.len() - 1) } else { String::new() };
        self.note("a member of ext_json", How::Shortened, format!("was left out: {key:?}: {why}{more}"));
    }

    /// Receivers may keep the seconds in 32 bits, as the documentation says.
    fn note_timestamp(&mut self, milliseconds: i64) {
        let seconds = milliseconds.div_euclid(1000);
        if i32::try_from(seconds).is_err() {
            let what = format!(
                "{seconds} s goes out and does not fit into 32 bits: timestamp_ms is {milliseconds}, and counts milliseconds since 1970"
            );
            self.note("timestamp", How::OutOfRange, what);
        }
    }

    fn decode(&mut self, range: Range<usize>, field: &'static str) -> String {
        String::from_utf8(bytes(self.words, range)).unwrap_or_else(|error| {
            let what = "is not UTF-8 (GBK?): what cannot be read became U+FFFD".into();
            self.note(field, How::Decoded, what);
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    }

    fn note(&mut self, field: &'static str, how: How, what: String) {
        self.mended.push(Mended { field, how, what });
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
    let is_table_key = ["device_ip", "person_type", "device_type", "spot_pic"].contains(&key);
    if !is_table_key || value.is_null() {
        return Ok(!is_table_key); // null in the table is as good as nothing
    }
    match key {
        "device_ip" => {
            let given = value.as_str().ok_or("it is no string")?;
            device_ip.get_or_insert_with(|| given.to_owned());
        }
        "person_type" => {
            let given = value.as_i64().filter(|kind| (1..=5).contains(kind)).ok_or("it is no number from 1 to 5")?;
            person_type.get_or_insert(given as i32);
        }
        "device_type" => {
            let known = |kind: &str| ["0", "1", "2", "3", "4"].iter().position(|known| *known == kind);
            let given = value.as_str().and_then(known).ok_or("it is no string from \"0\" to \"4\"")?;
            device_type.get_or_insert(given as i32);
        }
        _ => return Err("a picture goes out from its own place in the ring only".into()),
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

/// Copies bytes out.
fn bytes(words: &impl Words, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; aligned(range.len())];
    for (word, at) in bytes.as_chunks_mut().0.iter_mut().zip((range.start..).step_by(ALIGN)) {
        *word = words.word(at).to_le_bytes();
    }
    bytes.truncate(range.len());
    bytes
}

/// The members of a JSON object with their values as they were written: numbers keep their digits. The last of several with the
/// same key wins, as in most parsers.
pub(crate) fn members(json: &str) -> serde_json::Result<Vec<(String, Box<RawValue>)>> {
    let mut members = all_members(json)?;
    let last: HashMap<_, _> = members.iter().enumerate().map(|(index, (key, _))| (key.clone(), index)).collect();
    let mut index = 0..;
    members.retain(|(key, _)| index.next() == last.get(key).copied());
    Ok(members)
}

/// The same with every one of those that have the same key.
pub(crate) fn all_members(json: &str) -> serde_json::Result<Vec<(String, Box<RawValue>)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry::<String, Box<RawValue>>()? {
                members.push(member);
            }
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
