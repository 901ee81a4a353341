//! `ext_data`, `top` and `box`: what is the same in every event of a box, and where its own names come from.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::Fault;
use super::fields::{Fields, named};
use crate::body::constants::{Constants, Member};
use crate::event::TOP_KEYS;

/// Keys of ext_data that only a recognizer can know.
const RECOGNIZERS_OWN: [&str; 3] = ["spot_pic", "person_type", "device_type"];
/// The most members of each.
const MOST: usize = 32;
/// The longest value, as JSON, in bytes.
const LONGEST: usize = 4096;
/// A serial number is no longer, in bytes.
const LONGEST_SERIAL: usize = 128;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    top: Map<String, Value>,
    ext_data: Map<String, Value>,
    serial_file: Option<PathBuf>,
}

/// What `${…}` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Hostname,
    Mac,
    Serial,
}

impl Written {
    /// Takes the keys out of the file's.
    pub(super) fn take(fields: &mut Fields<'_>) -> Written {
        let top = members(fields, "top", &TOP_KEYS);
        let ext_data = members(fields, "ext_data", &RECOGNIZERS_OWN);
        let mut of_box = fields.object("box");
        let serial_file = of_box.optional_path("serial_file");
        of_box.end();
        let texts = top.values().chain(ext_data.values()).map(Value::to_string).collect::<String>();
        if texts.contains("${serial}") && serial_file.is_none() {
            fields.fault("box.serial_file", None, "it is missing: ${serial} is the text of that file");
        }
        Written { top, ext_data, serial_file }
    }

    /// Puts in what `${…}` stands for on this box.
    ///
    /// # Errors
    /// A file that does not do.
    pub fn read(&self) -> Result<Constants, Fault> {
        let all = |members: &Map<String, Value>| {
            let read = members.iter().map(|(key, value)| Ok(Member::new(key.clone(), &self.filled_in(value)?)));
            read.collect::<Result<Vec<_>, Fault>>()
        };
        let mut ext_data = all(&self.ext_data)?;
        let device_ip = ext_data.iter().position(|member| member.key == "device_ip");
        let device_ip = device_ip.map(|place| ext_data.remove(place).text);
        Ok(Constants { top: all(&self.top)?, ext_data, device_ip })
    }

    fn filled_in(&self, value: &Value) -> Result<Value, Fault> {
        Ok(match value {
            Value::String(text) => Value::String(self.filled_in_text(text)?),
            Value::Array(items) => items.iter().map(|item| self.filled_in(item)).collect::<Result<_, _>>()?,
            Value::Object(members) => {
                let filled = members.iter().map(|(key, value)| Ok((key.clone(), self.filled_in(value)?)));
                Value::Object(filled.collect::<Result<_, Fault>>()?)
            }
            other => other.clone(),
        })
    }

    fn filled_in_text(&self, text: &str) -> Result<String, Fault> {
        let mut filled = String::new();
        for piece in pieces(text) {
            match piece {
                Ok(text) => filled.push_str(text),
                Err(name) => filled.push_str(&self.value_of(Name::of(name).expect("it was checked"))?),
            }
        }
        Ok(filled)
    }

    fn value_of(&self, name: Name) -> Result<String, Fault> {
        let of_file = |key: &str, path: &std::path::Path| {
            let fault = |why: String| Fault {
                key: key.into(),
                value: None,
                allowed: format!("a file with one line of text: {}: {why}", path.display()),
            };
            let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
            let text = text.trim_matches(['\0', ' ', '\t', '\r', '\n']).to_owned();
            let is_good = (1..=LONGEST_SERIAL).contains(&text.len()) && !text.chars().any(char::is_control);
            if is_good { Ok(text) } else { Err(fault(format!("it has not 1 to {LONGEST_SERIAL} bytes of plain text"))) }
        };
        match (name, &self.serial_file) {
            (Name::Serial, Some(path)) => of_file("box.serial_file", path),
            (Name::Serial, None) => unreachable!("it was checked"),
            (Name::Hostname, _) => of_file("${hostname}", "/proc/sys/kernel/hostname".as_ref()),
            (Name::Mac, _) => Ok(mac().unwrap_or_default()),
        }
    }
}

impl Name {
    fn of(name: &str) -> Option<Name> {
        let all = [("hostname", Name::Hostname), ("mac", Name::Mac), ("serial", Name::Serial)];
        all.into_iter().find(|(known, _)| *known == name).map(|(_, name)| name)
    }
}

/// A text in pieces: those that stand as they are, and names in `${…}` as errors.
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

/// The address of the interface that the default route leads through; else of the first one by name that has one. Empty where none has.
fn mac() -> Option<String> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let mut routes = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default = routes.find(|words| words.get(1) == Some(&"00000000")).map(|words| words[0].to_owned());
    let others = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut others: Vec<_> = others.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    others.sort_unstable();
    let address = |name: String| {
        let address = fs::read_to_string(format!("/sys/class/net/{name}/address")).ok()?.trim().to_owned();
        (!address.is_empty() && address != "00:00:00:00:00:00").then_some(address)
    };
    default.into_iter().chain(others).find_map(address)
}

/// An object whose members go into every event.
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

/// Every name in `${…}` is one that is known.
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
