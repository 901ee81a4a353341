//! Settings that few boxes need; the page edits them as JSON. They are one object, the member `more` of `/api/settings`.
//!
//! Secrets do not leave the box. A proxy's login is shown as [`HIDDEN`]; sent back like this, it keeps its value if the rest of
//! the URL is the same. `sign` names a file: it is neither shown nor changed, and a destination keeps it. The same holds for the
//! headers of the state report.

use serde_json::{Map, Value, json};

use super::error::shortened;
use crate::config::ConfigFault;
use crate::config::document::Document;
use crate::control::{Changes, Control};

/// The member of `/api/settings`.
pub const MORE: &str = "more";

/// The keys, each with its default as JSON.
const KEYS: [(&str, &str); 12] = [
    ("order", "\"any\""),
    ("order_gives_up_s", "3600"),
    ("bounds", "{}"),
    ("destinations", "{}"),
    ("proxy", "null"),
    ("answers", "{}"),
    ("accept_body", "{}"),
    ("ext_data", "{}"),
    ("top", "{}"),
    ("history", "null"),
    ("monitor", "null"),
    ("box", "{}"),
];

/// The keys, each with its default.
fn keys() -> impl Iterator<Item = (&'static str, Value)> {
    KEYS.iter().map(|(key, default)| (*key, serde_json::from_str(default).expect("it is JSON")))
}

const HIDDEN: &str = "***";
const SIGN: &str = "sign";
const HEADERS: &str = "headers";

/// The keys that are written and differ from their default.
pub fn show(control: &Control) -> Value {
    let written = keys().filter_map(|(key, default)| {
        let value = control.written(key).filter(|value| *value != default)?;
        Some((key.to_owned(), shown(key, value)))
    });
    Value::Object(written.collect())
}

fn shown(key: &str, mut value: Value) -> Value {
    if let ("proxy", Some(url)) = (key, value.get_mut("url")) {
        *url = url.as_str().map_or(Value::Null, |url| json!(without_login(url)));
    }
    if let ("monitor", Some(members)) = (key, value.as_object_mut()) {
        members.shift_remove(HEADERS);
    }
    if key == "destinations" {
        for options in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
            options.as_object_mut().map(|options| options.shift_remove(SIGN));
        }
    }
    value
}

/// A URL with its user and password, if any, hidden.
fn without_login(url: &str) -> String {
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, host)))) => format!("{scheme}://{HIDDEN}@{host}"),
        _ => url.to_owned(),
    }
}

/// The config keys to change for `wanted`, and their values. A key that is missing in `wanted` gets its default. A key that
/// `wanted` has as it is in force stays as it is in the `present` document: somebody may have edited the file.
///
/// # Errors
/// `wanted` is not an object, has an unknown key, or hides the login of a different proxy.
pub fn changes(wanted: Value, present: &Document, in_force: &Document) -> Result<Changes, ConfigFault> {
    let Value::Object(mut wanted) = wanted else { return Err(fault("", "an object with further settings")) };
    let mut changes = Vec::new();
    for (key, default) in keys() {
        let value = wanted.shift_remove(key).unwrap_or_else(|| default.clone());
        if value != in_force.get(key).map_or(default, |value| shown(key, value)) {
            changes.push((key, restored(key, value, present.get(key))?));
        }
    }
    match wanted.keys().next() {
        None => Ok(changes),
        Some(key) => {
            let names = KEYS.map(|(key, _)| key).join(", ");
            Err(fault(&format!(".{}", shortened(key)), &format!("not a setting here; there are {names}")))
        }
    }
}

/// What is wrong with a member of [`MORE`].
fn fault(member: &str, allowed: &str) -> ConfigFault {
    ConfigFault { key: format!("{MORE}{member}"), value: None, allowed: allowed.into() }
}

/// Returns `value` with the hidden parts restored from the value `before`.
fn restored(key: &str, mut value: Value, before: Option<Value>) -> Result<Value, ConfigFault> {
    if let ("proxy", Some(url)) = (key, value.get_mut("url")) {
        let known = before.as_ref().and_then(|before| before["url"].as_str());
        if let Some(hidden) = url.as_str().filter(|url| url.contains(&format!("://{HIDDEN}@"))) {
            let Some(known) = known.filter(|known| without_login(known) == hidden) else {
                return Err(fault(".proxy.url", "another proxy: write its user and password, too"));
            };
            *url = json!(known);
        }
    } else if let ("monitor", Some(members)) = (key, value.as_object_mut()) {
        if let Some(headers) = before.as_ref().and_then(|before| before.get(HEADERS)) {
            members.entry(HEADERS).or_insert_with(|| headers.clone());
        }
    } else if let ("destinations", Some(Value::Object(before)), Some(destinations)) =
        (key, before, value.as_object_mut())
    {
        for (url, options) in before {
            if let Some(sign) = options.get(SIGN)
                && let Some(options) = destinations.entry(url).or_insert_with(|| json!({})).as_object_mut()
            {
                options.entry(SIGN).or_insert_with(|| sign.clone());
            }
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sending::GIVES_UP;
    use crate::config::{Config, Url};

    #[test]
    fn the_defaults_are_those_of_the_config() {
        let written = Value::Object(keys().map(|(key, default)| (key.to_owned(), default)).collect());
        let config = |mut written: Value| {
            written["event_server_url"] = json!([]);
            Config::check(written, "/".as_ref()).unwrap()
        };
        let [written, empty] = [written, json!({})].map(config);
        let url = Url::parse("http://a/").unwrap();
        let gives_up = |config: &Config| config.options_of(&url).order_gives_up.unwrap_or(GIVES_UP);
        assert_eq!(gives_up(&written), gives_up(&empty));
        assert_eq!((written.proxy, written.history, written.monitor), (None, None, None));
        assert_eq!((written.constants, written.this_box), (empty.constants, empty.this_box));
    }

    const WRITTEN: &str = r#"{"order": "strict", "proxy": {"url": "http://gate:p%40ss@proxy:3128", "no_proxy": ["10.0.0.0/8"]},
        "destinations": {"http://a/": {"order": "strict", "sign": {"key_file": "k"}}},
        "monitor": {"reported_peroid": 5, "headers": {"X-Key": "s3cret"}}}"#;

    fn written() -> Document {
        Document::parse(WRITTEN.as_bytes()).unwrap()
    }

    /// What the page gets of the written document.
    fn shown_document() -> Value {
        let keys = ["order", "proxy", "destinations", "monitor"];
        Value::Object(keys.map(|key| (key.to_owned(), shown(key, written().get(key).unwrap()))).into_iter().collect())
    }

    fn sorted(wanted: Value, present: &Document) -> Changes {
        let mut changed = changes(wanted, present, &written()).unwrap();
        changed.sort_by_key(|(key, _)| *key);
        changed
    }

    #[test]
    fn what_is_shown_has_no_secret_and_changes_nothing_if_it_comes_back() {
        let mut shown = shown_document();
        assert_eq!(shown["proxy"]["url"], "http://***@proxy:3128");
        assert_eq!(shown["destinations"], json!({ "http://a/": { "order": "strict" } }));
        assert_eq!(shown["monitor"], json!({ "reported_peroid": 5 }));
        assert_eq!(changes(shown.clone(), &written(), &written()), Ok(vec![]));
        // What is hidden keeps its value when something beside it changes.
        shown["proxy"]["no_proxy"] = json!([]);
        shown["destinations"]["http://a/"]["order"] = json!("any");
        shown["monitor"]["reported_peroid"] = json!(6);
        let expected = [
            ("destinations", json!({ "http://a/": { "order": "any", "sign": { "key_file": "k" } } })),
            ("monitor", json!({ "reported_peroid": 6, "headers": { "X-Key": "s3cret" } })),
            ("proxy", json!({ "url": "http://gate:p%40ss@proxy:3128", "no_proxy": [] })),
        ];
        assert_eq!(sorted(shown, &written()), expected);
    }

    #[test]
    fn what_is_left_out_has_its_default_again_and_a_signed_destination_stays_signed() {
        let expected = [
            ("bounds", json!({ "max_age_s": 60 })),
            ("destinations", json!({ "http://a/": { "sign": { "key_file": "k" } } })),
            ("monitor", Value::Null),
            ("order", json!("any")),
            ("proxy", Value::Null),
        ];
        assert_eq!(sorted(json!({ "bounds": { "max_age_s": 60 } }), &written()), expected);
    }

    #[test]
    fn what_somebody_has_written_into_the_file_meanwhile_stays() {
        let by_hand = WRITTEN.replace("s3cret", "n3w").replace("p%40ss", "n3w").replace("\"k\"", "\"n3w\"");
        let by_hand = by_hand.replacen("strict", "any", 1).replacen('{', "{\"bounds\": {\"max_age_s\": 60}, ", 1);
        let present = Document::parse(by_hand.as_bytes()).unwrap();
        let mut wanted = shown_document();
        assert_eq!(sorted(wanted.clone(), &present), [], "neither order nor bounds");
        wanted["proxy"]["no_proxy"] = json!([]);
        wanted["destinations"]["http://a/"] = json!({});
        wanted["monitor"]["reported_peroid"] = json!(6);
        let expected = [
            ("destinations", json!({ "http://a/": { "sign": { "key_file": "n3w" } } })),
            ("monitor", json!({ "reported_peroid": 6, "headers": { "X-Key": "n3w" } })),
            ("proxy", json!({ "url": "http://gate:n3w@proxy:3128", "no_proxy": [] })),
        ];
        assert_eq!(sorted(wanted, &present), expected);
    }

    #[test]
    fn a_login_goes_to_no_other_proxy_and_what_is_unknown_is_named() {
        let refused = |wanted: Value| changes(wanted, &written(), &written()).unwrap_err().to_string();
        assert!(
            refused(json!({ "proxy": { "url": "http://***@other:3128" } })).contains("write its user and password")
        );
        assert!(refused(json!({ "headers": {} })).contains("not a setting here; there are order"));
        assert!(refused(json!(7)).contains("an object"));
        let own = json!({ "proxy": { "url": "http://new:word@other:1" } });
        let empty = Document::parse(b"{}").unwrap();
        assert_eq!(changes(own.clone(), &empty, &empty).unwrap(), [("proxy", own["proxy"].clone())]);
    }
}
