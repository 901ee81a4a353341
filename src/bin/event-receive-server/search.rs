//! The search for events by person, box and time. The parameters of `/api/events` and `/api/stream`:
//!
//! | parameter | what it takes |
//! | --- | --- |
//! | person | events whose identity_name or identity_id contains this text |
//! | box | events of boxes whose name contains this text: the name by the gateway, else ext_data.dev_sno, else the event's id |
//! | from, to | events not earlier, not later than this time: Unix time in seconds or milliseconds, as in events |
//!
//! An event must match all parameters. Upper and lower case are the same. The search compares with keys that were stored when the
//! event arrived ([`Keys`]), so it reads no event again.

use serde::Deserialize;
use serde_json::Value;

use crate::json::shortened;

/// The number of events in an answer: by default, and at most.
const USUAL_LIMIT: usize = 50;
const MOST: usize = 1000;
/// Times from here on are milliseconds, see `event`.
const MILLISECONDS_FROM: i64 = 1_000_000_000_000;
/// The longest text, in bytes.
const LONGEST: usize = 256;

/// A search; the default finds everything.
#[derive(Debug, Default, PartialEq)]
pub struct Search {
    /// In lower case, like all texts here.
    person: Option<String>,
    box_name: Option<String>,
    /// In Unix milliseconds, both included.
    from: Option<i64>,
    to: Option<i64>,
}

/// The keys by which an event is found.
#[derive(Debug, Default, PartialEq)]
pub struct Keys {
    name: String,
    number: String,
    box_name: String,
    /// In Unix milliseconds.
    time: i64,
}

/// The part of a record that its keys come from.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    id: String,
    r#box: Option<String>,
    identity_id: String,
    identity_name: String,
    timestamp: i64,
    ext_data: ExtData,
}

#[derive(Default, Deserialize)]
struct ExtData {
    dev_sno: Option<Value>,
}

/// The limit and the search of a request's query. Ignores parameters with other names.
pub fn asked(query: &str) -> Result<(usize, Search), String> {
    let (mut limit, mut search) = (USUAL_LIMIT, Search::default());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if search.set(&name, &value)? || name != "limit" {
            continue;
        }
        let number = value.parse().ok().filter(|number| *number <= MOST);
        limit =
            number.ok_or_else(|| format!("{name}: came {}; allowed: a number from 0 to {MOST}", shortened(&value)))?;
    }
    Ok((limit, search))
}

impl Keys {
    /// The keys of a record's line; empty ones if the line is no record.
    pub fn of(line: &[u8]) -> Keys {
        let Line { id, r#box, identity_id, identity_name, timestamp, ext_data } =
            serde_json::from_slice(line).unwrap_or_default();
        let said = ext_data.dev_sno.as_ref().and_then(Value::as_str).filter(|name| !name.is_empty());
        let box_name = r#box.as_deref().or(said).unwrap_or(&id);
        Keys {
            name: identity_name.to_lowercase(),
            number: identity_id.to_lowercase(),
            box_name: box_name.to_lowercase(),
            time: milliseconds(timestamp),
        }
    }
}

impl Search {
    /// Takes a parameter of a request; whether it is one of a search. The error says what is allowed.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        // An empty field of a form asks for nothing.
        match name {
            "person" => self.person = text(name, value)?,
            "box" => self.box_name = text(name, value)?,
            "from" => self.from = time(name, value)?,
            "to" => self.to = time(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether an event with these keys is asked for.
    pub fn finds(&self, keys: &Keys) -> bool {
        let has = |wanted: &Option<String>, texts: &[&String]| {
            wanted.as_ref().is_none_or(|wanted| texts.iter().any(|text| text.contains(wanted)))
        };
        has(&self.person, &[&keys.name, &keys.number])
            && has(&self.box_name, &[&keys.box_name])
            && self.from.is_none_or(|from| keys.time >= from)
            && self.to.is_none_or(|to| keys.time <= to)
    }
}

fn text(name: &str, value: &str) -> Result<Option<String>, String> {
    let value = value.trim();
    if value.len() > LONGEST {
        return Err(format!("{name}: came {}; allowed: at most {LONGEST} bytes", shortened(value)));
    }
    Ok(Some(value.to_lowercase()).filter(|text| !text.is_empty()))
}

fn time(name: &str, value: &str) -> Result<Option<i64>, String> {
    let value = value.trim();
    if value.is_empty() {
        return Ok(None);
    }
    let number: Result<i64, _> = value.parse();
    let wrong = |_| {
        format!("{name}: came {}; allowed: Unix time, a whole number of seconds or of milliseconds", shortened(value))
    };
    number.map(|number| Some(milliseconds(number))).map_err(wrong)
}

/// Of a time that is in seconds or in milliseconds.
fn milliseconds(time: i64) -> i64 {
    if time.saturating_abs() >= MILLISECONDS_FROM { time } else { time * 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"id":"ring-7","identity_id":"A17","identity_name":"Łi LEI","timestamp":1700000000,"ext_data":{"dev_sno":"Gate 1"}}"#;

    fn search(parameters: &[(&str, &str)]) -> Result<Search, String> {
        let mut search = Search::default();
        for (name, value) in parameters {
            assert!(search.set(name, value)?, "{name}");
        }
        Ok(search)
    }

    #[test]
    fn an_event_is_found_by_person_box_and_time_and_by_all_of_them_together() {
        let keys = Keys::of(LINE.as_bytes());
        for (parameters, is_found) in [
            (&[][..], true),
            (&[("person", "łi")], true),
            (&[("person", " lei ")], true),
            (&[("person", "a17")], true),
            (&[("person", "Gate")], false),
            (&[("box", "gate 1")], true),
            (&[("box", "ring")], false),
            (&[("from", "1700000000"), ("to", "1700000000")], true),
            (&[("from", "1700000001")], false),
            (&[("from", "1700000000001")], false),
            (&[("to", "1699999999999")], false),
            (&[("to", "")], true),
            (&[("person", "lei"), ("box", "gate"), ("from", "1"), ("to", "1700000000000")], true),
            (&[("person", "lei"), ("box", "gate 2")], false),
            (&[("person", "mei"), ("box", "gate")], false),
        ] {
            assert_eq!(search(parameters).unwrap().finds(&keys), is_found, "{parameters:?}");
        }
    }

    #[test]
    fn the_box_is_what_the_gateway_says_then_what_it_says_itself_then_part_of_the_id() {
        let of = |line: &str| Keys::of(line.as_bytes()).box_name;
        assert_eq!(of(&LINE.replacen('{', r#"{"box":"East",""#, 1).replace(r#","""#, r#",""#)), "east");
        assert_eq!(of(LINE), "gate 1");
        assert_eq!(of(r#"{"id":"ring-7","ext_data":{"dev_sno":""}}"#), "ring-7");
        assert_eq!(of(r#"{"id":"ring-7","ext_data":{"dev_sno":17}}"#), "ring-7");
        assert_eq!(Keys::of(b"no record"), Keys::default());
    }

    #[test]
    fn a_query_says_how_many_and_which() {
        let person = search(&[("person", "li lei")]).unwrap();
        assert_eq!(asked("limit=3&person=Li%20Lei&x=y&box="), Ok((3, person)));
        assert_eq!(asked(""), Ok((50, Search::default())));
        for (query, named) in [("limit=1001", "limit: came"), ("limit=-1", "limit: came"), ("from=x", "from: came")] {
            assert!(asked(query).expect_err(query).starts_with(named));
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let long = "x".repeat(257);
        for (name, value) in [("person", long.as_str()), ("box", &long), ("from", "yesterday"), ("to", "1.5")] {
            let fault = search(&[(name, value)]).expect_err(name);
            assert!(fault.starts_with(&format!("{name}: came ")), "{fault}");
        }
        assert_eq!(Search::default().set("limit", "1"), Ok(false));
        assert!(Search::default().set("from", "9223372036854775807").is_ok());
        assert!(Search::default().set("from", "-9223372036854775808").is_ok());
    }
}
