//! `answers` and `accept_body`: what a destination's answers mean if they differ from HTTP's usual meaning.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::fields::{Fields, named};

/// Maximum number of rules in `accept_body`.
const MOST: usize = 8;

/// The meaning of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The server has the event.
    Accept,
    /// The server cannot take it now: the event is tried again.
    Retry,
    /// The server refuses the event: it becomes a dead letter.
    Refuse,
}

/// Statuses with a meaning other than the default. A single status takes precedence over its class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(Vec<(RangeInclusive<u16>, Meaning)>);

impl Answers {
    pub(super) fn take(mut fields: Fields<'_>) -> Answers {
        let kinds = [("accept", Meaning::Accept), ("retry", Meaning::Retry), ("refuse", Meaning::Refuse)];
        let mut rules: Vec<(RangeInclusive<u16>, Meaning)> = Vec::new();
        for (key, meaning) in kinds {
            let statuses = fields.list(
                key,
                "a list of statuses, such as 409, and of classes, such as \"5xx\"",
                0..=100,
                |value, _| {
                    statuses(value).ok_or_else(|| super::fields::Refused {
                        shown: true,
                        allowed: "a status from 200 to 599, or \"2xx\" to \"5xx\"".into(),
                    })
                },
            );
            for range in statuses.unwrap_or_default() {
                if rules.iter().any(|(known, _)| *known == range) {
                    fields.fault(key, None, &format!("{} is in another list, too", name(&range)));
                }
                rules.push((range, meaning));
            }
        }
        fields.end();
        Answers(rules)
    }

    /// The meaning of an answer with this status; none: the default meaning.
    pub fn meaning(&self, status: u16) -> Option<Meaning> {
        let rules = self.0.iter().filter(|(range, _)| range.contains(&status));
        // The narrowest range wins: a status before its class.
        rules.min_by_key(|(range, _)| range.end() - range.start()).map(|(_, meaning)| *meaning)
    }
}

fn statuses(value: &Value) -> Option<RangeInclusive<u16>> {
    let class = |text: &str| text.strip_suffix("xx").filter(|digit| digit.len() == 1)?.parse::<u16>().ok();
    match value {
        Value::Number(number) => number.as_u64().filter(|status| (200..=599).contains(status)).map(|status| {
            let status = status as u16;
            status..=status
        }),
        Value::String(text) => {
            class(text).filter(|class| (2..=5).contains(class)).map(|class| class * 100..=class * 100 + 99)
        }
        _ => None,
    }
}

fn name(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() { range.start().to_string() } else { format!("{}xx", range.start() / 100) }
}

/// The values that a 2xx body must contain to be an acknowledgement: one for each JSON pointer (RFC 6901).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptBody(Vec<(String, Value)>);

impl AcceptBody {
    pub(super) fn take(fields: &mut Fields<'_>) -> AcceptBody {
        const KEY: &str = "accept_body";
        let written =
            fields.map(KEY, "an object of at most 8 JSON pointers, such as \"/code\", and the value of each", MOST);
        for pointer in written.keys().filter(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            fields.fault(&format!("{KEY}.{}", named(pointer)), None, "a JSON pointer, which begins with /");
        }
        AcceptBody(written.into_iter().collect())
    }

    /// Whether there are no rules.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks a body against the rules.
    ///
    /// # Errors
    /// Says in words which rule the body breaks.
    pub fn check(&self, body: &[u8]) -> Result<(), String> {
        let said: Value = serde_json::from_slice(body).map_err(|_| String::from("it is no JSON"))?;
        for (pointer, wanted) in &self.0 {
            match said.pointer(pointer) {
                None => return Err(format!("it has no {pointer}")),
                Some(found) if is_same(found, wanted) => {}
                Some(found) => return Err(format!("{pointer} is {} and not {wanted}", super::fields::shown(found))),
            }
        }
        Ok(())
    }
}

/// 0 and 0.0 are the same number.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| other.as_f64() == Some(number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_judged_by_every_pointer() {
        let rules = AcceptBody(vec![("/code".into(), json!(0)), ("/data/ok".into(), json!(true))]);
        let said = |body: &str| rules.check(body.as_bytes()).err().unwrap_or_default();
        assert_eq!(said(r#"{"code": 0, "data": {"ok": true, "more": 1}}"#), "");
        assert_eq!(said(r#"{"code": 0.0, "data": {"ok": true}}"#), "");
        assert_eq!(said(r#"{"code": 500, "data": {"ok": true}}"#), "/code is 500 and not 0");
        assert_eq!(said(r#"{"code": "0", "data": {"ok": true}}"#), "/code is \"0\" and not 0");
        assert_eq!(said(r#"{"code": 0}"#), "it has no /data/ok");
        assert_eq!(said("<html>log in</html>"), "it is no JSON");
        assert_eq!(said(""), "it is no JSON");
    }
}
