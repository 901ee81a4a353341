//! Writes an event as multipart/form-data (RFC 7578): a part for each top-level key, with ext_data as one JSON object.
//!
//! No part has a Content-Type or a file name, because web frameworks pass such parts to the application as plain fields. The
//! boundary is derived from the event's id, so the bytes of an event are the same over retries and restarts.

use super::constants::{Constants, Member};
use super::json::{ext_data, timestamp};
use super::{BodyOptions, Template, Writer};
use crate::event::{Event, NamedPicture, Place};

pub(super) fn template(event: &Event, options: BodyOptions, constants: &Constants) -> Template {
    let top: Vec<(String, String)> = event.top.iter().map(|(key, value)| (name(key), text(value.get()))).collect();
    let mut form = Form { writer: Writer::new(1024), boundary: boundary(event, &top, constants) };
    form.part("identity_id", &event.identity_id);
    form.part("identity_name", &event.identity_name);
    form.part("group_name", &event.group_name);
    form.part("reg_pic", "");
    if options.with_reg_pic {
        form.writer.picture(&event.reg_pic);
    }
    form.part("timestamp", &timestamp(event, options).to_string());
    form.part("score", &serde_json::to_string(&event.score).expect("a finite number is JSON"));
    for (name, text) in &top {
        form.part(name, text);
    }
    for Member { key, text, .. } in constants.top_beside(event) {
        form.part(key, text);
    }
    for NamedPicture { name, range, .. } in event.pictures_at(Place::Top) {
        form.part(name, "");
        form.writer.picture(range);
    }
    form.part("ext_data", "");
    ext_data(&mut form.writer, event, constants);
    form.finish()
}

/// A key as a part's name, escaped as browsers do.
fn name(key: &str) -> String {
    key.replace('\r', "%0D").replace('\n', "%0A").replace('"', "%22")
}

/// A JSON value as the text of a field: a string without its quotes, everything else as written.
fn text(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}

struct Form {
    writer: Writer,
    boundary: String,
}

impl Form {
    /// Ends the part before and begins a new one with `value`; what is written next belongs to it.
    fn part(&mut self, name: &str, value: &str) {
        let text = &mut self.writer.text;
        let line = if text.is_empty() { "" } else { "\r\n" };
        let head = format!("{line}--{}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n", self.boundary);
        text.extend_from_slice(head.as_bytes());
        text.extend_from_slice(value.as_bytes());
    }

    fn finish(mut self) -> Template {
        self.writer.text.extend_from_slice(format!("\r\n--{}--\r\n", self.boundary).as_bytes());
        self.writer.finish(format!("multipart/form-data; boundary={}", self.boundary).into())
    }
}

/// The boundary: `sophon-` and the event's id (at most 60 characters of the 70 that RFC 2046 allows). If a text of the event
/// contains that, a number is appended. Pictures cannot contain it: base64 has no `-`.
fn boundary(event: &Event, top: &[(String, String)], constants: &Constants) -> String {
    let texts = [&event.identity_id, &event.identity_name, &event.group_name].into_iter().chain(&event.device_ip);
    let ext = event.ext.iter().flat_map(|(key, value)| [key.as_str(), value.get()]);
    let top = top.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]);
    let names = event.pictures.iter().map(|picture| picture.name.as_str());
    let texts = texts.map(String::as_str).chain(ext).chain(top).chain(names);
    let texts: Vec<&str> = texts.chain(constants.texts()).collect();
    let id = format!("sophon-{}", event.id);
    let candidates = std::iter::once(id.clone()).chain((1u32..).map(|number| format!("{id}-{number}")));
    // The texts can contain only finitely many candidates.
    candidates
        .into_iter()
        .find(|candidate| !texts.iter().any(|text| text.contains(candidate.as_str())))
        .expect("infinitely many")
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::event::EventId;
    use crate::ring::file::RingId;

    const ID: &str = "sophon-07070707070707070707070707070707-18446744073709551615";

    fn event(name: &str, ext: &str) -> Event {
        Event {
            id: EventId { ring: RingId([7; 16]), sequence: u64::MAX },
            identity_id: "7".into(),
            identity_name: name.into(),
            group_name: String::new(),
            device_ip: None,
            top: Vec::new(),
            ext: vec![("key".into(), RawValue::from_string(ext.into()).unwrap())],
            timestamp_ms: 0,
            score: 0.5,
            person_type: None,
            device_type: None,
            reg_pic: 0..0,
            spot_pic: 0..0,
            pictures: Vec::new(),
            mended: Vec::new(),
        }
    }

    fn boundary_of(event: &Event) -> String {
        boundary(event, &[], &Constants::default())
    }

    #[test]
    fn the_boundary_is_the_events_id_and_another_one_where_a_text_has_that_in_it() {
        assert_eq!(boundary_of(&event("x", "1")), ID);
        assert!(ID.len() <= 60, "RFC 2046 allows 70 with the number behind it");
        assert_eq!(boundary_of(&event(&format!("\r\n--{ID}--"), "1")), format!("{ID}-1"));
        assert_eq!(boundary_of(&event("x", &format!("[\"{ID}\"]"))), format!("{ID}-1"));
        assert_eq!(boundary_of(&event(&format!("{ID}-1"), &format!("\"{ID}-2\""))), format!("{ID}-3"));
        let of_a_key = Event { ext: vec![(ID.into(), RawValue::NULL.to_owned())], ..event("x", "1") };
        assert_eq!(boundary_of(&of_a_key), format!("{ID}-1"));
        for text in ["identity_id", "group_name", "device_ip"] {
            let mut hostile = event("x", "1");
            match text {
                "identity_id" => hostile.identity_id = ID.into(),
                "group_name" => hostile.group_name = ID.into(),
                _ => hostile.device_ip = Some(ID.into()),
            }
            assert_eq!(boundary_of(&hostile), format!("{ID}-1"), "{text}");
        }
    }
}
