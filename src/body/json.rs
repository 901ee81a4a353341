//! The event as one JSON object, keys in the order that the README gives.

use std::io::Write as _;

use serde_json::value::RawValue;

use super::{BodyOptions, Template, TimestampUnit, Writer};
use crate::event::Event;

pub(super) fn template(event: &Event, options: BodyOptions) -> Template {
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
    writer.text.extend_from_slice(timestamp(event, options).as_bytes());
    open_member(&mut writer, b',', "score");
    writer.text.extend_from_slice(score(event).as_bytes());
    open_member(&mut writer, b',', "ext_data");
    ext_data(&mut writer, event);
    writer.text.push(b'}');
    writer.finish("application/json".into())
}

/// `ext_data` as a JSON object: what the event has of the table, then the further members of ext_json, and spot_pic last.
pub(super) fn ext_data(writer: &mut Writer, event: &Event) {
    let mut separator = b'{';
    let mut member = |writer: &mut Writer, key: &str| {
        open_member(writer, separator, key);
        separator = b',';
    };
    if let Some(device_ip) = &event.device_ip {
        member(writer, "device_ip");
        string(writer, device_ip);
    }
    if let Some(person_type) = event.person_type {
        member(writer, "person_type");
        let _ = write!(writer.text, "{person_type}");
    }
    if let Some(device_type) = event.device_type {
        member(writer, "device_type");
        let _ = write!(writer.text, "\"{device_type}\"");
    }
    for (key, value) in &event.ext {
        member(writer, key);
        raw(writer, value);
    }
    if !event.spot_pic.is_empty() {
        member(writer, "spot_pic");
        writer.text.push(b'"');
        writer.picture(&event.spot_pic);
        writer.text.push(b'"');
    }
    if separator == b'{' {
        writer.text.push(b'{');
    }
    writer.text.push(b'}');
}

/// `timestamp` in the unit that is configured; seconds are rounded down.
pub(super) fn timestamp(event: &Event, options: BodyOptions) -> String {
    match options.timestamp_unit {
        TimestampUnit::Seconds => event.timestamp_ms.div_euclid(1000).to_string(),
        TimestampUnit::Milliseconds => event.timestamp_ms.to_string(),
    }
}

/// The shortest decimal that reads back as the same f32; finite, as events are.
pub(super) fn score(event: &Event) -> String {
    serde_json::to_string(&event.score).expect("a finite number is JSON")
}

fn open_member(writer: &mut Writer, separator: u8, key: &str) {
    writer.text.push(separator);
    string(writer, key);
    writer.text.push(b':');
}

fn string(writer: &mut Writer, text: &str) {
    serde_json::to_writer(&mut writer.text, text).expect("a Vec takes everything");
}

fn raw(writer: &mut Writer, value: &RawValue) {
    writer.text.extend_from_slice(value.get().as_bytes());
}
