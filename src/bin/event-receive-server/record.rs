//! An event as stored and shown: one line of JSON. Each picture is replaced by `{"file","sha256","bytes"}`.

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sophon_uplink::event::Place;

use crate::dialect::Report;
use crate::event::{Event, Kept, Which};
use crate::picture::{Picture, sha256_hex};
use crate::search::Keys;

/// A received event, before it is known whether it is new.
pub struct Arrival {
    /// The value of X-Event-Id, or the SHA-256 of the body.
    pub id: String,
    /// The box, if a gateway named it.
    pub box_name: Option<String>,
    /// RFC 3339.
    pub received_at: String,
    /// `json` or `form-data`.
    pub format: &'static str,
    /// Its content.
    pub event: Event,
}

/// A stored event, as shown.
pub struct Record {
    /// The event's id.
    pub id: String,
    /// Its line of events.jsonl, without the line break.
    pub json: Bytes,
    /// The pictures, if they are not stored as files.
    pub pictures: Vec<(Which, Bytes)>,
    /// What a search finds it by.
    pub keys: Keys,
}

impl Record {
    /// The record of a line.
    pub fn new(id: String, json: Bytes, pictures: Vec<(Which, Bytes)>) -> Record {
        let keys = Keys::of(&json);
        Record { id, json, pictures, keys }
    }

    /// Its size in memory.
    pub fn size(&self) -> usize {
        let pictures = self.pictures.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        self.id.len() + self.json.len() + pictures
    }
}

/// The part of a picture's file name that comes from the event's id: the id if it is safe as a file name, otherwise its hash. A
/// safe id has no underscore, so no id can take the name of another one.
pub fn file_stem(id: &str) -> String {
    let safe = id.len() <= 100 && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if safe { id.to_string() } else { format!("sha256_{}", sha256_hex(id.as_bytes())) }
}

/// The name of a picture's file, relative to the store's folder. Names from a sender are used only if they are safe.
pub fn picture_file(id: &str, which: &Which) -> String {
    let stem = file_stem(id);
    match which {
        Which::Reg => format!("pictures/{stem}-reg.jpg"),
        Which::Spot => format!("pictures/{stem}-spot.jpg"),
        Which::Named(place, name) => format!("pictures/{stem}_{}_{}.jpg", place.name(), safe_name(name)),
    }
}

fn safe_name(name: &str) -> String {
    let is_safe = (1..=64).contains(&name.len())
        && !name.starts_with("sha256_")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_safe { name.to_owned() } else { format!("sha256_{}", sha256_hex(name.as_bytes())) }
}

/// The line of an event. `files` says whether its pictures are stored as files.
pub fn line(arrival: &Arrival, files: bool) -> String {
    let Arrival { id, box_name, received_at, format, event } = arrival;
    let members = |members, place| KeptMembers { members, event, place, id, files };
    let named = event.named.iter().map(|named| [named.place.name(), named.name.as_str()]);
    let line = Line {
        id,
        r#box: box_name.as_deref(),
        received_at,
        format,
        identity_id: &event.identity_id,
        identity_name: &event.identity_name,
        group_name: &event.group_name,
        reg_pic: PictureNote::of(event.reg_pic.as_ref(), Which::Reg, id, files),
        timestamp: event.timestamp,
        score: event.score,
        ext_data: members(&event.ext_data, Place::ExtData),
        top: (!event.top.is_empty()).then(|| members(&event.top, Place::Top)),
        pictures: named.collect(),
        report: (event.report != Report::RealTime).then(|| event.report.name()),
        unknown_keys: &event.unknown_keys,
    };
    serde_json::to_string(&line).expect("a record has nothing that JSON cannot hold")
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#box: Option<&'a str>,
    received_at: &'a str,
    format: &'a str,
    identity_id: &'a str,
    identity_name: &'a str,
    group_name: &'a str,
    reg_pic: PictureNote<'a>,
    timestamp: i64,
    score: f64,
    ext_data: KeptMembers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<KeptMembers<'a>>,
    /// Place and name of each picture except reg_pic and spot_pic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pictures: Vec<[&'a str; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'static str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unknown_keys: &'a [String],
}

/// The note about a picture; `""` if there is none.
struct PictureNote<'a> {
    picture: Option<&'a Picture>,
    file: Option<String>,
}

impl<'a> PictureNote<'a> {
    /// The note about a picture of the event `id`. `files` says whether it is stored as a file.
    fn of(picture: Option<&'a Picture>, which: Which, id: &str, files: bool) -> PictureNote<'a> {
        PictureNote { picture, file: files.then(|| picture_file(id, &which)) }
    }
}

impl Serialize for PictureNote<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(picture) = self.picture else {
            return serializer.serialize_str("");
        };
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("file", &self.file)?;
        map.serialize_entry("sha256", &picture.sha256)?;
        map.serialize_entry("bytes", &picture.bytes.len())?;
        map.end()
    }
}

/// Members, with notes in place of the pictures.
struct KeptMembers<'a> {
    members: &'a [(String, Kept)],
    event: &'a Event,
    place: Place,
    id: &'a str,
    files: bool,
}

impl Serialize for KeptMembers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let note = |picture, which| PictureNote::of(picture, which, self.id, self.files);
        let mut map = serializer.serialize_map(Some(self.members.len()))?;
        for (name, value) in self.members {
            match value {
                Kept::Json(value) => map.serialize_entry(name, value)?,
                Kept::Spot => map.serialize_entry(name, &note(self.event.spot_pic.as_ref(), Which::Spot))?,
                Kept::Picture(index) => {
                    let picture = index.map(|index| &self.event.named[index].picture);
                    map.serialize_entry(name, &note(picture, Which::Named(self.place, name.clone())))?;
                }
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_safe_id_becomes_a_file_name() {
        assert_eq!(file_stem("0123456789abcdef-7"), "0123456789abcdef-7");
        let long = "a".repeat(101);
        for id in ["", "../../etc/passwd", "a/b", "a.b", "a_b", "a b", "é", long.as_str()] {
            let stem = file_stem(id);
            assert!(stem.starts_with("sha256_") && stem.len() == 71, "{id}: {stem}");
        }
    }

    #[test]
    fn the_line_has_every_field_in_its_order_and_no_picture() {
        let body = r#"{"identity_id":"7","identity_name":"a\nb","group_name":"g","reg_pic":"/9j/4A==","timestamp":1,
                       "score":0.8700000047683716,"ext_data":{"x":[1, 2.50],"spot_pic":"","person_type":2},"more":null}"#;
        let crate::json::Members(members) = serde_json::from_str(body).unwrap();
        let fields: Vec<_> =
            members.into_iter().map(|(key, value)| (key, crate::fields::FieldValue::Json(value))).collect();
        let event = crate::event::check(&fields, Report::RealTime).unwrap();
        let arrival = Arrival { id: "a-1".into(), box_name: None, received_at: "now".into(), format: "json", event };
        let sha256 = sha256_hex(b"\xFF\xD8\xFF\xE0");
        assert_eq!(
            line(&arrival, true),
            format!(
                "{{\"id\":\"a-1\",\"received_at\":\"now\",\"format\":\"json\",\"identity_id\":\"7\",\"identity_name\":\"a\\nb\",\
                 \"group_name\":\"g\",\"reg_pic\":{{\"file\":\"pictures/a-1-reg.jpg\",\"sha256\":\"{sha256}\",\"bytes\":4}},\
                 \"timestamp\":1,\"score\":0.8700000047683716,\
                 \"ext_data\":{{\"x\":[1,2.50],\"spot_pic\":\"\",\"person_type\":2}},\"top\":{{\"more\":null}},\"unknown_keys\":[\"more\"]}}"
            )
        );
        assert!(line(&arrival, false).contains("\"file\":null"));
        let of_a_gateway = Arrival { box_name: Some("gate 1".into()), ..arrival };
        assert!(line(&of_a_gateway, false).starts_with("{\"id\":\"a-1\",\"box\":\"gate 1\",\"received_at\""));
    }
}
