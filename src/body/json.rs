//! Writes an event as one JSON object, with the keys in the order of docs/integrators.md.
//!
//! The text is pure ASCII, like that of the box's own reporter: every other character is a `\uXXXX` escape, also in ext_json. A
//! server that reads the body as ISO-8859-1 would otherwise corrupt UTF-8 and still answer 200.

use std::io::{self, Write};
use std::ops::Range;

use serde::Serialize as _;
use serde_json::ser::Formatter;
use serde_json::value::RawValue;

use super::constants::{Constants, Member};
use super::{BodyOptions, Template, TimestampUnit, Writer};
use crate::event::{Event, NamedPicture, Place};

pub(super) fn template(event: &Event, options: BodyOptions, constants: &Constants) -> Template {
    let mut writer = Writer::new(512);
    open_member(&mut writer, b'{', "identity_id");
    string(&mut writer, &event.identity_id);
    open_member(&mut writer, b',', "identity_name");
    string(&mut writer, &event.identity_name);
    open_member(&mut writer, b',', "group_name");
    string(&mut writer, &event.group_name);
    open_member(&mut writer, b',', "reg_pic");
    writer.text.push(b'"');
    if options.with_reg_pic {
        writer.picture(&event.reg_pic);
    }
    writer.text.push(b'"');
    open_member(&mut writer, b',', "timestamp");
    write!(writer.text, "{}", timestamp(event, options)).expect("writing to a Vec");
    open_member(&mut writer, b',', "score");
    // The shortest decimal that reads back as the same f32.
    serde_json::to_writer(&mut writer.text, &event.score).expect("a finite number is JSON");
    for (key, value) in &event.top {
        member(&mut writer, b',', key, value);
    }
    for Member { key, json, .. } in constants.top_beside(event) {
        member(&mut writer, b',', key, json);
    }
    for NamedPicture { name, range, .. } in event.pictures_at(Place::Top) {
        picture(&mut writer, b',', name, range);
    }
    open_member(&mut writer, b',', "ext_data");
    ext_data(&mut writer, event, constants);
    writer.text.push(b'}');
    writer.finish("application/json".into())
}

/// Writes `ext_data` as a JSON object: the event's standard fields, the other members of ext_json and of the config, and the
/// pictures, with spot_pic last.
pub(super) fn ext_data(writer: &mut Writer, event: &Event, constants: &Constants) {
    let mut separator = b'{';
    let mut next = || std::mem::replace(&mut separator, b',');
    if let Some(device_ip) = event.device_ip.as_ref().or(constants.device_ip.as_ref()) {
        open_member(writer, next(), "device_ip");
        string(writer, device_ip);
    }
    if let Some(person_type) = event.person_type {
        open_member(writer, next(), "person_type");
        let _ = write!(writer.text, "{person_type}");
    }
    if let Some(device_type) = event.device_type {
        open_member(writer, next(), "device_type");
        let _ = write!(writer.text, "\"{device_type}\"");
    }
    for (key, value) in &event.ext {
        member(writer, next(), key, value);
    }
    for Member { key, json, .. } in constants.ext_data_beside(event) {
        member(writer, next(), key, json);
    }
    for NamedPicture { name, range, .. } in event.pictures_at(Place::ExtData) {
        picture(writer, next(), name, range);
    }
    if !event.spot_pic.is_empty() {
        picture(writer, next(), "spot_pic", &event.spot_pic);
    }
    if next() == b'{' {
        writer.text.push(b'{');
    }
    writer.text.push(b'}');
}

/// `timestamp` in the configured unit; seconds are rounded down.
pub(super) fn timestamp(event: &Event, options: BodyOptions) -> i64 {
    match options.timestamp_unit {
        TimestampUnit::Seconds => event.timestamp_ms.div_euclid(1000),
        TimestampUnit::Milliseconds => event.timestamp_ms,
    }
}

/// A picture that is not empty; its name needs no escaping.
fn picture(writer: &mut Writer, separator: u8, name: &str, range: &Range<usize>) {
    open_member(writer, separator, name);
    writer.text.push(b'"');
    writer.picture(range);
    writer.text.push(b'"');
}

/// Begins a member. `key` is one of ours or a picture's name, which need no escaping.
fn open_member(writer: &mut Writer, separator: u8, key: &str) {
    writer.text.extend_from_slice(&[separator, b'"']);
    writer.text.extend_from_slice(key.as_bytes());
    writer.text.extend_from_slice(b"\":");
}

/// A member with any key.
fn member(writer: &mut Writer, separator: u8, key: &str, value: &RawValue) {
    writer.text.push(separator);
    string(writer, key);
    writer.text.push(b':');
    raw(writer, value);
}

fn string(writer: &mut Writer, text: &str) {
    let mut serializer = serde_json::Serializer::with_formatter(&mut writer.text, AsciiFormatter);
    text.serialize(&mut serializer).expect("writing to a Vec");
}

/// A value as the recognizer wrote it. JSON has non-ASCII characters only inside strings.
fn raw(writer: &mut Writer, value: &RawValue) {
    ascii(&mut writer.text, value.get()).expect("writing to a Vec");
}

struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        ascii(writer, fragment)
    }
}

/// Writes a part of JSON. Characters beyond ASCII become escapes, those beyond U+FFFF a surrogate pair (RFC 8259 section 7).
fn ascii<W: ?Sized + Write>(writer: &mut W, text: &str) -> io::Result<()> {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| !byte.is_ascii()) {
        let (before, after) = rest.split_at(at);
        writer.write_all(before.as_bytes())?;
        let mut characters = after.chars();
        let mut units = [0; 2];
        for unit in characters.next().map_or(&mut [][..], |character| character.encode_utf16(&mut units)) {
            write!(writer, "\\u{unit:04x}")?;
        }
        rest = characters.as_str();
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut writer = Writer::new(0);
        string(&mut writer, text);
        String::from_utf8(writer.text).unwrap()
    }

    #[test]
    fn every_character_is_ascii_and_reads_back_as_it_was() {
        for character in (0..=0x10FFFF).filter_map(char::from_u32) {
            let text = String::from_iter(['a', character, 'z']);
            let json = written(&text);
            assert!(json.is_ascii(), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        assert_eq!(written("李雷 😀\n"), r#""\u674e\u96f7 \ud83d\ude00\n""#, "as Python's json.dumps writes it");
    }

    #[test]
    fn ext_json_keeps_its_numbers_and_its_spaces_and_becomes_ascii() {
        let value: Box<RawValue> = serde_json::from_str(r#"{"质量": [1.2300, 1e-7, "é\u00e9"] }"#).unwrap();
        let mut writer = Writer::new(0);
        raw(&mut writer, &value);
        let text = String::from_utf8(writer.text).unwrap();
        assert_eq!(text, r#"{"\u8d28\u91cf": [1.2300, 1e-7, "\u00e9\u00e9"] }"#);
    }
}
