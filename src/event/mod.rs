//! Converts a checked record to a typed event.
//!
//! A record that `sophon_ring_publish` would have refused is malformed: no correct recognizer writes it. Faults that the C header
//! cannot detect are repaired instead, because an event matters more than a flawed text. Invalid UTF-8 becomes U+FFFD. A text
//! that is far too long is cut off between two characters. Members of JSON objects that cannot be sent are left out. Each repair
//! is logged ([`Mended`]).
//!
//! ```text
//!  sections.rs   where the parts of a record lie
//!  texts.rs      its texts
//!  members.rs    the members of its JSON objects
//!  pictures.rs   its named pictures
//! ```

mod members;
mod pictures;
mod sections;
mod texts;

use std::fmt;
use std::ops::Range;

pub use members::{EXT_DATA_KEYS, Member, TOP_KEYS};
pub(crate) use members::{all_members, members};
pub use pictures::{NamedPicture, Place, is_name};

use crate::ring::Words;
use crate::ring::consumer::Frame;
use crate::ring::file::RingId;
use crate::ring::layout::{EVENT_HEADER, section};
use texts::Texts;

/// The permanent id of an event, in every place: `X-Event-Id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EventId {
    /// Id of the ring that it came through.
    pub ring: RingId,
    /// Its number in that ring, from 1.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ring, self.sequence)
    }
}

/// An event. Its pictures stay in the ring: the ranges are offsets in the data area.
#[derive(Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// The person's number.
    pub identity_id: String,
    /// The person's name.
    pub identity_name: String,
    /// The group's name, or its id if it has no name.
    pub group_name: String,
    /// The device's address, if reported.
    pub device_ip: Option<String>,
    /// Further members at the top level, in the order of top_json; each key occurs once.
    pub top: Vec<Member>,
    /// Further members of ext_data, in the order of ext_json; each key occurs once.
    pub ext: Vec<Member>,
    /// Milliseconds since the Unix epoch, UTC.
    pub timestamp_ms: i64,
    /// A finite number.
    pub score: f32,
    /// 1..=5, if reported.
    pub person_type: Option<i32>,
    /// 0..=4, if reported.
    pub device_type: Option<i32>,
    /// Empty if there is none.
    pub reg_pic: Range<usize>,
    /// Empty if there is none.
    pub spot_pic: Range<usize>,
    /// Further pictures. None is empty, and no two at the same place have the same name.
    pub pictures: Vec<NamedPicture>,
    /// Repairs, for the log: at most two for each text.
    pub mended: Vec<Mended>,
}

/// A difference between the event as written and as sent, or a value that a receiver may refuse. The text contains nothing of
/// the event except keys and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The name of the field.
    pub field: &'static str,
    /// The kind of repair.
    pub how: How,
    /// The rest of the sentence that begins with `field`.
    pub what: String,
}

/// The kinds of repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Invalid UTF-8 became U+FFFD.
    Decoded,
    /// A part was cut off or left out.
    Shortened,
    /// Nothing was changed, but a receiver may refuse it.
    OutOfRange,
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.what)
    }
}

/// A record with a valid frame and invalid content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Event {
    /// Approximate size in memory, in bytes.
    pub fn weight(&self) -> usize {
        let texts = [&self.identity_id, &self.identity_name, &self.group_name].map(String::len).iter().sum::<usize>();
        let members = self.top.iter().chain(&self.ext);
        let members = members.map(|(key, value)| 64 + key.len() + value.get().len()).sum::<usize>();
        let names = self.pictures.iter().map(|picture| size_of::<NamedPicture>() + picture.name.len()).sum::<usize>();
        size_of::<Event>() + texts + members + names
    }

    /// The size of each picture, in bytes.
    pub fn picture_sizes(&self) -> impl Iterator<Item = usize> {
        [self.reg_pic.len(), self.spot_pic.len()].into_iter().chain(self.pictures.iter().map(|named| named.range.len()))
    }

    /// Its named pictures at a place.
    pub fn pictures_at(&self, place: Place) -> impl Iterator<Item = &NamedPicture> {
        self.pictures.iter().filter(move |picture| picture.place == place)
    }

    /// Reads the event from the record at `frame`.
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
        let area = frame.offset + EVENT_HEADER..frame.offset + header.length as usize;
        let mut sections = sections::Sections::default();
        sections::find(words, area, &mut sections)?;
        let pictures = pictures::named(words, &sections)?;
        let names = |place| pictures.iter().filter(move |named| named.place == place).map(|named| named.name.as_str());
        let mut texts = Texts { words, sections: &sections, mended: Vec::new() };
        let mut device_ip = Some(texts.take(section::DEVICE_IP, "device_ip")).filter(|ip| !ip.is_empty());
        let mut ext = texts.members(section::EXT_JSON, "ext_json");
        texts.retain(&mut ext, "a member of ext_json", |key, json| {
            members::keep_beside_pictures(key, names(Place::ExtData))?;
            members::keep_in_ext_data(key, json, &mut device_ip, &mut person_type, &mut device_type)
        });
        let mut top = texts.members(section::TOP_JSON, "top_json");
        texts.retain(&mut top, "a member of top_json", |key, json| {
            members::keep_beside_pictures(key, names(Place::Top))?;
            members::keep_at_top(key, json)
        });
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
            top,
            ext,
            timestamp_ms: header.timestamp_ms,
            score: header.score,
            person_type,
            device_type,
            reg_pic: picture(section::REG_PIC),
            spot_pic: picture(section::SPOT_PIC),
            pictures,
            mended: texts.mended,
        })
    }
}

/// `value`, or none if it is `none`: not reported.
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
