//! `ext_data`, `top` and `box`: members that are the same in every event of a box, and the sources of the box's own names.

use serde_json::{Map, Value};

use super::ConfigFault;
use super::fields::{Fields, named};
use super::this_box::{self, ThisBox};
use crate::body::constants::{Constants, Member};
use crate::event::TOP_KEYS;

/// Keys of ext_data that only a recognizer can know.
const RECOGNIZERS_OWN: [&str; 3] = ["spot_pic", "person_type", "device_type"];
/// Maximum number of members of each.
const MOST: usize = 32;
/// Maximum length of a value as JSON, in bytes.
const LONGEST: usize = 4096;

/// The members as written in the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    top: Map<String, Value>,
    ext_data: Map<String, Value>,
    this_box: ThisBox,
}

/// A name in `${…}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Hostname,
    Mac,
    Serial,
}

impl Written {
    /// Takes the keys from the file's fields.
    pub(super) fn take(fields: &mut Fields<'_>, this_box: &ThisBox) -> Written {
        let top = members(fields, "top", &TOP_KEYS);
        let ext_data = members(fields, "ext_data", &RECOGNIZERS_OWN);
        let texts = top.values().chain(ext_data.values()).map(Value::to_string).collect::<String>();
        if texts.contains("${serial}") && !this_box.has_serial() {
            fields.fault("box.serial_file", None, "it is missing: ${serial} is the text of that file, or box.serial");
        }
        Written { top, ext_data, this_box: this_box.clone() }
    }

    /// Replaces each `${…}` with its value on this box.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn read(&self) -> Result<Constants, ConfigFault> {
        let all = |members: &Map<String, Value>| {
            let read = members.iter().map(|(key, value)| Ok(Member::new(key.clone(), &self.filled_in(value)?)));
            read.collect::<Result<Vec<_>, ConfigFault>>()
        };
        let mut ext_data = all(&self.ext_data)?;
        let device_ip = ext_data.iter().position(|member| member.key == "device_ip");
        let device_ip = device_ip.map(|place| ext_data.remove(place).text);
        Ok(Constants { top: all(&self.top)?, ext_data, device_ip })
    }

    fn filled_in(&self, value: &Value) -> Result<Value, ConfigFault> {
        Ok(match value {
            Value::String(text) => Value::String(self.filled_in_text(text)?),
            Value::Array(items) => items.iter().map(|item| self.filled_in(item)).collect::<Result<_, _>>()?,
            Value::Object(members) => {
                let filled = members.iter().map(|(key, value)| Ok((key.clone(), self.filled_in(value)?)));
                Value::Object(filled.collect::<Result<_, ConfigFault>>()?)
            }
            other => other.clone(),
        })
    }

    fn filled_in_text(&self, text: &str) -> Result<String, ConfigFault> {
        let mut filled = String::new();
        for piece in pieces(text) {
            match piece {
                Ok(text) => filled.push_str(text),
                Err(name) => filled.push_str(&self.value_of(Name::of(name).expect("it was checked"))?),
            }
        }
        Ok(filled)
    }

    fn value_of(&self, name: Name) -> Result<String, ConfigFault> {
        match name {
            Name::Serial => self.this_box.serial(),
            Name::Hostname => this_box::hostname(),
            Name::Mac => Ok(this_box::mac().unwrap_or_default()),
        }
    }
}

impl Name {
    fn of(name: &str) -> Option<Name> {
        let all = [("hostname", Name::Hostname), ("mac", Name::Mac), ("serial", Name::Serial)];
        all.into_iter().find(|(known, _)| *known == name).map(|(_, name)| name)
    }
}

/// Splits a text: literal pieces are `Ok`, names in `${…}` are `Err`.
fn pieces(text: &str) -> Vec<Result<&str, &str>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, (name, after))) =
        rest.split_once("${").and_then(|(before, after)| Some((before, after.split_once('}')?)))
    {
        pieces.extend([Ok(before), Err(name)]);
        rest = after;
    }
    pieces.push(Ok(rest));
    pieces
}

/// Reads an object whose members go into every event.
fn members(fields: &mut Fields<'_>, key: &str, forbidden: &[&str]) -> Map<String, Value> {
    let allowed = "an object of at most 32 members";
    let written = fields.map(key, allowed, MOST);
    for (name, value) in &written {
        let place = format!("{key}.{}", named(name));
        let is_name = (1..=64).contains(&name.len())
            && !name.contains(|letter: char| letter.is_control() || "\"\\".contains(letter));
        if !is_name {
            fields.fault(&place, None, "a name of 1 to 64 bytes without quotes, backslashes and control characters");
        } else if forbidden.contains(&name.as_str()) {
            fields.fault(&place, None, "it comes from the event itself");
        } else if name == "device_ip" && key == "ext_data" && !value.is_string() {
            fields.fault(&place, Some(value), "a text");
        } else if value.to_string().len() > LONGEST {
            fields.fault(&place, None, "a value of at most 4096 bytes as JSON");
        }
        check_names(fields, &place, value);
    }
    written
}

/// Checks that every name in `${…}` is known.
fn check_names(fields: &mut Fields<'_>, place: &str, value: &Value) {
    match value {
        Value::String(text) => {
            for name in pieces(text).into_iter().filter_map(Result::err).filter(|name| Name::of(name).is_none()) {
                let value = Value::from(format!("${{{name}}}"));
                fields.fault(place, Some(&value), "${hostname}, ${mac} and ${serial} are known");
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check_names(fields, place, item)),
        Value::Object(members) => members.values().for_each(|member| check_names(fields, place, member)),
        _ => {}
    }
}
