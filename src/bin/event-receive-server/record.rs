//! An event as it is kept and shown: one line of JSON, with each picture as `{"file","sha256","bytes"}` in its place.

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::event::Event;
use crate::picture::{Picture, sha256_hex};

/// An event that came in, before it is known whether it is a new one.
pub struct Arrival {
    /// What X-Event-Id said, or the SHA-256 of the body.
    pub id: String,
    /// RFC 3339.
    pub received_at: String,
    /// `json` or `form-data`.
    pub format: &'static str,
    /// What it says.
    pub event: Event,
}

/// A kept event, as it is shown.
pub struct Record {
    /// The event's id.
    pub id: String,
    /// Its line of events.jsonl, without the line break.
    pub json: Bytes,
    /// The pictures, where they are not kept in files.
    pub reg_pic: Option<Bytes>,
    pub spot_pic: Option<Bytes>,
}

impl Record {
    /// The memory that it takes.
    pub fn size(&self) -> usize {
        let picture = |picture: &Option<Bytes>| picture.as_ref().map_or(0, Bytes::len);
        self.id.len() + self.json.len() + picture(&self.reg_pic) + picture(&self.spot_pic)
    }
}

/// The part of a picture's file name that comes from the event's id: the id itself where it is safe as a name, else its hash.
/// No safe id has an underscore, so no id can take the name of another.
pub fn file_stem(id: &str) -> String {
    let safe = id.len() <= 100 && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if safe { id.to_string() } else { format!("sha256_{}", sha256_hex(id.as_bytes())) }
}

/// The name of a picture's file, relative to the store's folder; `which` is `reg` or `spot`.
pub fn picture_file(id: &str, which: &str) -> String {
    format!("pictures/{}-{which}.jpg", file_stem(id))
}

/// The line of an event. `files` says whether its pictures are kept as files.
pub fn line(arrival: &Arrival, files: bool) -> String {
    let Arrival { id, received_at, format, event } = arrival;
    let picture = |picture, which| PictureNote { picture, file: files.then(|| picture_file(id, which)) };
    let line = Line {
        id,
        received_at,
        format,
        identity_id: &event.identity_id,
        identity_name: &event.identity_name,
        group_name: &event.group_name,
        reg_pic: picture(event.reg_pic.as_ref(), "reg"),
        timestamp: event.timestamp,
        score: event.score,
        ext_data: ExtData { event, spot_pic: picture(event.spot_pic.as_ref(), "spot") },
        unknown_keys: &event.unknown_keys,
    };
    serde_json::to_string(&line).expect("a record has nothing that JSON cannot hold")
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    received_at: &'a str,
    format: &'a str,
    identity_id: &'a str,
    identity_name: &'a str,
    group_name: &'a str,
    reg_pic: PictureNote<'a>,
    timestamp: i64,
    score: f64,
    ext_data: ExtData<'a>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unknown_keys: &'a [String],
}

/// What is said of a picture; `""` where there is none.
struct PictureNote<'a> {
    picture: Option<&'a Picture>,
    file: Option<String>,
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

/// ext_data with the note of spot_pic where the picture stood.
struct ExtData<'a> {
    event: &'a Event,
    spot_pic: PictureNote<'a>,
}

impl Serialize for ExtData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.event.ext_data.len()))?;
        for (name, value) in &self.event.ext_data {
            match value {
                Some(value) => map.serialize_entry(name, value)?,
                None => map.serialize_entry(name, &self.spot_pic)?,
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
        let fields: Vec<_> = members.into_iter().map(|(key, value)| (key, crate::fields::Given::Json(value))).collect();
        let event = crate::event::check(&fields).unwrap();
        let arrival = Arrival { id: "a-1".into(), received_at: "now".into(), format: "json", event };
        let sha256 = sha256_hex(b"\xFF\xD8\xFF\xE0");
        assert_eq!(
            line(&arrival, true),
            format!(
                "{{\"id\":\"a-1\",\"received_at\":\"now\",\"format\":\"json\",\"identity_id\":\"7\",\"identity_name\":\"a\\nb\",\
                 \"group_name\":\"g\",\"reg_pic\":{{\"file\":\"pictures/a-1-reg.jpg\",\"sha256\":\"{sha256}\",\"bytes\":4}},\
                 \"timestamp\":1,\"score\":0.8700000047683716,\
                 \"ext_data\":{{\"x\":[1,2.50],\"spot_pic\":\"\",\"person_type\":2}},\"unknown_keys\":[\"more\"]}}"
            )
        );
        assert!(line(&arrival, false).contains("\"file\":null"));
    }
}
