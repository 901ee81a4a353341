//! Reads a JSON object key by key. Keys that are left at the end are unknown, and are faults.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::reports::HISTORY_URLS;
use super::{ConfigFault, Url};

/// Headers that the uplink sets itself; a config must not contain them.
#[rustfmt::skip]
const RESERVED_HEADERS: [&str; 15] = [
    "connection", "content-encoding", "content-length", "content-type", "expect", "host", "idempotency-key", "keep-alive",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-event-id",
];

/// Ends of keys whose values are not shown if they have the wrong type: they may contain a header, a URL or a key, and so a
/// secret.
#[rustfmt::skip]
const MAY_BE_SECRET: [&str; 10] = [
    "headers", "event_server_url", "proxy", "history", HISTORY_URLS, "monitor", "destinations", "standby", "tls", "sign",
];

/// Whether the value of this key or object may be a secret. The name of a destination's object ends with its quoted URL.
fn may_be_secret(name: &str) -> bool {
    name.ends_with('"') || MAY_BE_SECRET.iter().any(|end| name.ends_with(end))
}

pub(super) struct Fields<'a> {
    /// Comes before each key, for example `tls.`; empty at the top.
    prefix: String,
    members: Map<String, Value>,
    folder: &'a Path,
    faults: &'a mut Vec<ConfigFault>,
}

impl<'a> Fields<'a> {
    pub fn of(name: &str, value: Value, folder: &'a Path, faults: &'a mut Vec<ConfigFault>) -> Fields<'a> {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
        let members = match value {
            Value::Object(members) => members,
            other => {
                let value = (!may_be_secret(name)).then(|| shown(&other));
                faults.push(ConfigFault { key: name.into(), value, allowed: "a JSON object".into() });
                Map::new()
            }
        };
        Fields { prefix, members, folder, faults }
    }

    /// Records a fault of a key. Pass `value` only if it cannot be a secret.
    pub fn fault(&mut self, key: &str, value: Option<&Value>, allowed: &str) {
        let value = value.filter(|_| !may_be_secret(key));
        let key = format!("{}{key}", self.prefix);
        self.faults.push(ConfigFault { key, value: value.map(shown), allowed: allowed.into() });
    }

    /// Records a fault for every key that was not taken.
    pub fn end(mut self) {
        for (key, _) in std::mem::take(&mut self.members) {
            self.fault(&named(&key), None, "this key is not known; see the config file in docs/operators.md");
        }
    }

    /// Takes an optional value; a wrong one is a fault.
    pub fn take<T>(&mut self, key: &str, allowed: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.members.shift_remove(key)?;
        let read = read(&value);
        if read.is_none() {
            self.fault(key, Some(&value), allowed);
        }
        read
    }

    pub fn boolean(&mut self, key: &str, default: bool) -> bool {
        self.take(key, "true or false", Value::as_bool).unwrap_or(default)
    }

    pub fn integer(&mut self, key: &str, default: u64, range: RangeInclusive<u64>, allowed: &str) -> u64 {
        self.optional_integer(key, range, allowed).unwrap_or(default)
    }

    pub fn optional_integer(&mut self, key: &str, range: RangeInclusive<u64>, allowed: &str) -> Option<u64> {
        self.take(key, allowed, |value| value.as_u64().filter(|number| range.contains(number)))
    }

    pub fn finite(&mut self, key: &str, default: f32) -> f32 {
        let finite = |value: &Value| value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        self.take(key, "a number", finite).unwrap_or(default)
    }

    pub fn one_of<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let choose = |value: &Value| choices.iter().find(|(name, _)| value == name).map(|(_, choice)| *choice);
        self.take(key, &names.join(" or "), choose).unwrap_or(default)
    }

    pub fn parsed<T: std::str::FromStr>(&mut self, key: &str, default: T, allowed: &str) -> T {
        self.optional_parsed(key, allowed).unwrap_or(default)
    }

    pub fn optional_parsed<T: std::str::FromStr>(&mut self, key: &str, allowed: &str) -> Option<T> {
        self.take(key, allowed, |value| value.as_str()?.trim().parse().ok())
    }

    pub fn path(&mut self, key: &str, default: &str) -> PathBuf {
        let folder = self.folder;
        self.take(key, "a path", |value| path(value, folder).ok()).unwrap_or_else(|| default.into())
    }

    /// Whether a key is null; if so, takes it.
    pub fn take_null(&mut self, key: &str) -> bool {
        let is_null = self.members.get(key).is_some_and(Value::is_null);
        if is_null {
            self.members.shift_remove(key);
        }
        is_null
    }

    /// Takes a required value that is never shown.
    pub fn secret<T>(&mut self, key: &str, allowed: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let read = self.members.shift_remove(key).and_then(|value| read(&value));
        if read.is_none() {
            self.fault(key, None, allowed);
        }
        read
    }

    /// Takes the name of a header that the uplink does not set itself.
    pub fn header_name(&mut self, key: &str, default: HeaderName) -> HeaderName {
        let read = |value: &Value| {
            HeaderName::try_from(value.as_str()?).ok().filter(|name| !RESERVED_HEADERS.contains(&name.as_str()))
        };
        self.take(key, "the name of a header that the uplink does not set itself", read).unwrap_or(default)
    }

    /// Null means the same as a missing key.
    pub fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        self.take_null(key);
        let folder = self.folder;
        self.take(key, "null or a path", |value| path(value, folder).ok())
    }

    pub fn object<'b>(&'b mut self, key: &str) -> Fields<'b> {
        let value = self.members.shift_remove(key).unwrap_or_else(|| Value::Object(Map::new()));
        Fields::of(&format!("{}{key}", self.prefix), value, self.folder, self.faults)
    }

    /// Takes an object without interpreting it. It has at most `most` members.
    pub fn map(&mut self, key: &str, allowed: &str, most: usize) -> Map<String, Value> {
        let is_good = |value: &Value| value.as_object().filter(|members| members.len() <= most).cloned();
        self.take(key, allowed, is_good).unwrap_or_default()
    }

    /// Takes an optional object. Returns none, and records a fault, if the value is not an object.
    pub fn optional_object<'b>(&'b mut self, key: &str) -> Option<Fields<'b>> {
        let is_object = self.members.get(key)?.is_object();
        let fields = self.object(key);
        is_object.then_some(fields)
    }

    pub fn has(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    /// Takes an object that contains one object per URL.
    pub fn by_url<T>(&mut self, key: &str, is_tls: bool, read: impl Fn(&mut Fields<'_>) -> T) -> Vec<(Url, T)> {
        let urls = if is_tls { "https URLs" } else { "URLs" };
        let allowed = format!("an object of {urls}, each as in event_server_url, with an object for each");
        let written = self.take(key, &allowed, |value| value.as_object().cloned()).unwrap_or_default();
        let mut found: Vec<(Url, T)> = Vec::new();
        for (index, (text, value)) in written.into_iter().enumerate() {
            // Do not show the text: it may contain a password or a token.
            let place = format!("{key}[{index}]");
            match Url::parse(&text) {
                Err(allowed) => self.fault(&place, None, &allowed),
                Ok(url) if is_tls && !url.is_tls() => self.fault(&place, None, "a URL that begins with https://"),
                Ok(url) if found.iter().any(|(known, _)| *known == url) => {
                    self.fault(&place, None, "it is there twice")
                }
                Ok(url) => {
                    let name = format!("{}{key}.\"{url}\"", self.prefix);
                    let mut fields = Fields::of(&name, value, self.folder, self.faults);
                    let entry = read(&mut fields);
                    fields.end();
                    found.push((url, entry));
                }
            }
        }
        found
    }

    pub fn required_list<T: PartialEq>(
        &mut self,
        key: &str,
        allowed: &str,
        count: RangeInclusive<usize>,
        item: impl Fn(&Value, &Path) -> Result<T, Refused>,
    ) -> Vec<T> {
        if !self.members.contains_key(key) {
            self.fault(key, None, &format!("it is missing; {allowed}"));
        }
        self.list(key, allowed, count, item).unwrap_or_default()
    }

    /// Takes a list. Faults name the item. Returns none if the key is missing.
    pub fn list<T: PartialEq>(
        &mut self,
        key: &str,
        allowed: &str,
        count: RangeInclusive<usize>,
        item: impl Fn(&Value, &Path) -> Result<T, Refused>,
    ) -> Option<Vec<T>> {
        let values =
            self.take(key, allowed, |value| value.as_array().filter(|list| count.contains(&list.len())).cloned())?;
        let mut items = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match item(value, self.folder) {
                Ok(item) if items.contains(&item) => self.fault(&key, None, "it is there twice"),
                Ok(item) => items.push(item),
                Err(Refused { shown: true, allowed }) => self.fault(&key, Some(value), &allowed),
                Err(Refused { shown: false, allowed }) => self.fault(&key, None, &allowed),
            }
        }
        Some(items)
    }

    /// Takes headers. Names are checked and may be shown; values are secrets.
    pub fn headers(&mut self, key: &str) -> Vec<(HeaderName, HeaderValue)> {
        let is_object = |value: &Value| value.as_object().cloned();
        let written = self.take(key, "an object of header names and values", is_object).unwrap_or_default();
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (name, value) in written {
            // A malformed name may be a whole header, with its value.
            let shown = name.split([':', ' ', '=']).next().unwrap_or_default();
            let key = format!("{key}.{}", named(shown));
            let parsed = HeaderName::try_from(name.as_str()).ok();
            let secret = value.as_str().and_then(|value| HeaderValue::try_from(value).ok());
            match (parsed, secret) {
                (None, _) => self.fault(&key, None, "the name is not a header name"),
                (Some(name), _) if RESERVED_HEADERS.contains(&name.as_str()) => {
                    self.fault(&key, None, "this header is not allowed here: the uplink controls it");
                }
                (Some(name), _) if headers.iter().any(|(known, _)| *known == name) => {
                    self.fault(&key, None, "it is there twice");
                }
                (Some(_), None) => self.fault(&key, None, "the value must be text without control characters"),
                (Some(name), Some(mut value)) => {
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
            }
        }
        headers
    }
}

/// Why an item of a list is refused.
pub(super) struct Refused {
    /// Whether the item may be shown. A URL with a password may not.
    pub shown: bool,
    pub allowed: String,
}

pub(super) fn path(value: &Value, folder: &Path) -> Result<PathBuf, Refused> {
    match value.as_str() {
        Some(path) if !path.is_empty() && !path.contains('\0') => Ok(folder.join(path)),
        _ => Err(Refused { shown: true, allowed: "a path".into() }),
    }
}

/// A key that a person chose, for use in a message. Quoted unless it is a plain word, so that it cannot look like a log line or
/// like nothing.
pub(super) fn named(key: &str) -> String {
    let is_plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { shorten(key) } else { shown(&Value::from(key)) }
}

/// A value, for use in a message.
pub(super) fn shown(value: &Value) -> String {
    shorten(&value.to_string())
}

/// Removes control characters: JSON allows those from U+007F on in a text, and a terminal may act on them.
fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    let visible = |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    let more = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    text.chars().take(MOST).map(visible).chain(more.chars()).collect()
}
