//! The event as multipart/form-data (RFC 7578): a part for each top-level key, ext_data as one JSON object.
//!
//! No part has a Content-Type or a file name: web frameworks give such parts to the application as plain fields.

use std::sync::LazyLock;

use super::json::{ext_data, score, timestamp};
use super::{BodyOptions, Template, Writer};
use crate::event::Event;

/// 128 random bits a process: no text of an event contains it but by guessing it.
static BOUNDARY: LazyLock<String> = LazyLock::new(|| {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the kernel has random numbers");
    format!("sophon-{:032x}", u128::from_ne_bytes(random))
});

pub(super) fn template(event: &Event, options: BodyOptions) -> Template {
    let mut writer = Writer::new(1024);
    part(&mut writer, "identity_id", &event.identity_id);
    part(&mut writer, "identity_name", &event.identity_name);
    part(&mut writer, "group_name", &event.group_name);
    part(&mut writer, "reg_pic", "");
    if options.with_reg_pic {
        writer.picture(&event.reg_pic);
    }
    part(&mut writer, "timestamp", &timestamp(event, options));
    part(&mut writer, "score", &score(event));
    part(&mut writer, "ext_data", "");
    ext_data(&mut writer, event);
    writer.text.extend_from_slice(format!("\r\n--{}--\r\n", *BOUNDARY).as_bytes());
    writer.finish(format!("multipart/form-data; boundary={}", *BOUNDARY))
}

/// Ends the part before and begins this one with `value`; what is written next belongs to it.
fn part(writer: &mut Writer, name: &str, value: &str) {
    let line = if writer.text.is_empty() && writer.cuts.is_empty() { "" } else { "\r\n" };
    let head = format!("{line}--{}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n", *BOUNDARY);
    writer.text.extend_from_slice(head.as_bytes());
    writer.text.extend_from_slice(value.as_bytes());
}
