//! The config file as it was written. Changing one key leaves every other key unchanged, to the last digit.

use hyper::body::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::text;
use crate::event::members;

/// The members of the file's object in their order, each with its original text.
#[derive(Clone, Debug)]
pub struct Document(Vec<(String, Box<RawValue>)>);

impl Document {
    /// Parses a file's text.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub fn parse(bytes: &[u8]) -> Result<Document, String> {
        let text = text::of(bytes)?;
        if text.trim().is_empty() {
            return Err("it is empty".into());
        }
        members(text).map(Document).map_err(|error| error.to_string())
    }

    /// A key's value; none if the key is not written.
    pub fn get(&self, key: &str) -> Option<Value> {
        let (_, raw) = self.0.iter().find(|(name, _)| name == key)?;
        serde_json::from_str(raw.get()).ok()
    }

    /// Returns the document with some keys changed. Known keys keep their positions; new ones are added at the end.
    #[must_use]
    pub fn with(&self, changes: &[(&'static str, Value)]) -> Document {
        let mut changed = self.clone();
        for (key, value) in changes {
            let raw = serde_json::value::to_raw_value(value).expect("a value is JSON");
            match changed.0.iter_mut().find(|(name, _)| name == key) {
                Some((_, place)) => *place = raw,
                None => changed.0.push(((*key).to_owned(), raw)),
            }
        }
        changed
    }

    /// The text with one key per line.
    pub fn text(&self) -> Bytes {
        let mut text = String::from("{");
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            text.push_str(&format!("{comma}\n  {}: {}", Value::from(key.as_str()), value.get()));
        }
        text.push_str("\n}\n");
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_leaves_every_other_key_as_it_was_written() {
        let written =
            "{ \"threshold\": 0.70000000000000000001,\n \"tls\" : {\n   \"ca_file\": null },\"content-type\":\"json\"}";
        let document = Document::parse(written.as_bytes()).unwrap();
        let changed =
            document.with(&[("content-type", json!("form-data")), ("event_server_url", json!(["http://a/"]))]);
        assert_eq!(
            changed.text(),
            "{\n  \"threshold\": 0.70000000000000000001,\n  \"tls\": {\n   \"ca_file\": null },\n  \"content-type\": \"form-data\",\n  \
             \"event_server_url\": [\"http://a/\"]\n}\n"
        );
        assert_eq!(Document::parse(&changed.text()).unwrap().text(), changed.text());
        assert_eq!(changed.get("event_server_url"), Some(json!(["http://a/"])));
        assert_eq!(changed.get("rings"), None);
    }

    #[test]
    fn what_is_no_object_is_no_document() {
        for text in ["", " \n", "[]", "{", "{}x", "null", "\u{feff}"] {
            assert!(Document::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Document::parse(b"{\"a\":\"\xff\"}").is_err());
        assert_eq!(
            Document::parse("\u{feff}{\"a\": 1}".as_bytes()).unwrap().text(),
            "{\n  \"a\": 1\n}\n",
            "a mark is not kept"
        );
    }
}
