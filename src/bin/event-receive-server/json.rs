//! JSON in its original text: the members of an object, with unchanged values.
//!
//! Values are kept as text and not as numbers and maps. So the stored text equals the text that was sent, to the last digit of a
//! float, and a body of tens of megabytes is not copied into a tree. Every walk is bounded, and none recurses.

use serde::Deserialize;
use serde::de::{DeserializeSeed as _, Deserializer};
use serde_json::value::RawValue;
use sophon_uplink::serve::{body, text};

/// More than any event has. An object with millions of members would be much larger in memory than on the wire.
const MAX_MEMBERS: usize = 1000;
/// More than the nesting of any event. Programs that read events.jsonl use recursive parsers.
const MAX_DEPTH: usize = 64;

/// The members of an object in their order, including repeated names.
pub struct Members<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        body::Members::at_most(MAX_MEMBERS, ("an object", "more than 1000 members"))
            .deserialize(deserializer)
            .map(Members)
    }
}

/// The value without white space between its tokens, so that it fits on one line; `None` if it nests too deep.
pub fn on_one_line(value: &RawValue) -> Option<Box<RawValue>> {
    let mut line = String::with_capacity(value.get().len());
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for letter in value.get().chars() {
        match letter {
            _ if in_string => {
                in_string = escaped || letter != '"';
                escaped = letter == '\\' && !escaped;
            }
            ' ' | '\t' | '\r' | '\n' => continue,
            '"' => in_string = true,
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return None;
        }
        line.push(letter);
    }
    RawValue::from_string(line).ok()
}

/// At most 40 characters of a text, quoted, with its length if it was cut: for messages and logs.
pub fn shortened(text: &str) -> String {
    text::shortened(text, 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn members_keep_order_repetitions_and_digits() {
        let Members(members) = serde_json::from_str(r#"{"b": 0.10000000000000000001, "a":1, "b":"x"}"#).unwrap();
        let seen: Vec<_> = members.iter().map(|(key, value)| (key.as_str(), value.get())).collect();
        assert_eq!(seen, [("b", "0.10000000000000000001"), ("a", "1"), ("b", "\"x\"")]);
    }

    #[test]
    fn an_object_of_too_many_members_is_refused() {
        let object = |count: usize| format!("{{{}}}", vec!["\"a\":1"; count].join(","));
        assert!(serde_json::from_str::<Members>(&object(MAX_MEMBERS)).is_ok());
        assert!(serde_json::from_str::<Members>(&object(MAX_MEMBERS + 1)).is_err());
    }

    #[test]
    fn white_space_goes_but_not_that_of_strings() {
        let line = on_one_line(raw("{ \"a b\" : [ 1 ,\n 2 ],\t\"c\\\" \\\\\" : \" }{ \" }")).unwrap();
        assert_eq!(line.get(), "{\"a b\":[1,2],\"c\\\" \\\\\":\" }{ \"}");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(on_one_line(raw(&nested(MAX_DEPTH))).is_some());
        assert!(on_one_line(raw(&nested(MAX_DEPTH + 1))).is_none());
        assert!(on_one_line(raw(&nested(100_000))).is_none());
    }

    #[test]
    fn long_texts_are_shortened_between_characters() {
        assert_eq!(shortened("a\nb"), r#""a\nb""#);
        assert_eq!(shortened(&"张".repeat(50)), format!("\"{}\"… (150 bytes)", "张".repeat(40)));
    }
}
