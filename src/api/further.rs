//! Settings that few boxes need; the page edits them as JSON. They are one object, the member `more` of `/api/settings`.
//!
//! Secrets do not leave the box. A proxy's login is shown as [`HIDDEN`]; sent back like this, it keeps its value if the rest of
//! the URL is the same. `sign` names a file: it is neither shown nor changed, and a destination keeps it. The same holds for the
//! headers of the state report.

use serde_json::{Map, Value, json};

use super::error::{ApiError, shortened};
use crate::config::sending::GIVES_UP;
use crate::control::Control;

/// The member of `/api/settings`.
pub const MORE: &str = "more";

/// The keys, each with its default.
fn keys() -> [(&'static str, Value); 12] {
    [
        ("order", json!("any")),
        ("order_gives_up_s", json!(GIVES_UP.as_secs())),
        ("bounds", json!({})),
        ("destinations", json!({})),
        ("proxy", Value::Null),
        ("answers", json!({})),
        ("accept_body", json!({})),
        ("ext_data", json!({})),
        ("top", json!({})),
        ("history", Value::Null),
        ("monitor", Value::Null),
        ("box", json!({})),
    ]
}

const HIDDEN: &str = "***";
const SIGN: &str = "sign";
const HEADERS: &str = "headers";

/// The keys that are written and differ from their default.
pub fn show(control: &Control) -> Value {
    let written = keys().into_iter().filter_map(|(key, default)| {
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

/// The config keys to change for `wanted`, and their values. A key that is missing in `wanted` gets its default.
///
/// # Errors
/// 400: `wanted` is not an object, has an unknown key, or hides the login of a different proxy.
pub fn changes(wanted: Value, control: &Control) -> Result<Vec<(&'static str, Value)>, ApiError> {
    changes_of(wanted, |key| control.written(key))
}

fn changes_of(wanted: Value, written: impl Fn(&str) -> Option<Value>) -> Result<Vec<(&'static str, Value)>, ApiError> {
    let Value::Object(mut wanted) = wanted else {
        return Err(ApiError::invalid("more: an object with further settings"));
    };
    let mut changes = Vec::new();
    for (key, default) in keys() {
        match (wanted.shift_remove(key), written(key)) {
            (Some(value), before) => changes.push((key, restored(key, value, before)?)),
            (None, Some(before)) if before != default => changes.push((key, restored(key, default, Some(before))?)),
            (None, _) => {}
        }
    }
    match wanted.keys().next() {
        None => Ok(changes),
        Some(key) => {
            let names = keys().map(|(key, _)| key).join(", ");
            Err(ApiError::invalid(format!("more.{}: not a setting here; there are {names}", shortened(key))))
        }
    }
}

/// Returns `value` with the hidden parts restored from the value `before`.
fn restored(key: &str, mut value: Value, before: Option<Value>) -> Result<Value, ApiError> {
    if let ("proxy", Some(url)) = (key, value.get_mut("url")) {
        let known = before.as_ref().and_then(|before| before["url"].as_str());
        if let Some(hidden) = url.as_str().filter(|url| url.contains(&format!("://{HIDDEN}@"))) {
            let Some(known) = known.filter(|known| without_login(known) == hidden) else {
                return Err(ApiError::invalid("more.proxy.url: another proxy: write its user and password, too"));
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

    const PROXY: &str = "http://gate:p%40ss@proxy:3128";

    fn written(key: &str) -> Option<Value> {
        match key {
            "proxy" => Some(json!({ "url": PROXY, "no_proxy": ["10.0.0.0/8"] })),
            "destinations" => Some(json!({ "http://a/": { "order": "strict", "sign": { "key_file": "k" } } })),
            "order" => Some(json!("strict")),
            "monitor" => Some(json!({ "reported_peroid": 5, "headers": { "X-Key": "s3cret" } })),
            _ => None,
        }
    }

    #[test]
    fn what_is_shown_has_no_secret_and_comes_back_as_it_was() {
        let proxy = shown("proxy", written("proxy").unwrap());
        let destinations = shown("destinations", written("destinations").unwrap());
        assert_eq!(proxy["url"], "http://***@proxy:3128");
        assert_eq!(destinations, json!({ "http://a/": { "order": "strict" } }));
        let monitor = shown("monitor", written("monitor").unwrap());
        assert_eq!(monitor, json!({ "reported_peroid": 5 }));
        let wanted = json!({ "proxy": proxy, "destinations": destinations, "order": "strict", "monitor": monitor });
        let changed = changes_of(wanted, written).unwrap();
        assert_eq!(changed.len(), 4);
        assert!(changed.iter().all(|(key, value)| Some(value) == written(key).as_ref()), "{changed:?}");
    }

    #[test]
    fn what_is_left_out_has_its_default_again_and_a_signed_destination_stays_signed() {
        let mut changed = changes_of(json!({ "bounds": { "max_age_s": 60 } }), written).unwrap();
        changed.sort_by_key(|(key, _)| *key);
        let expected = [
            ("bounds", json!({ "max_age_s": 60 })),
            ("destinations", json!({ "http://a/": { "sign": { "key_file": "k" } } })),
            ("monitor", Value::Null),
            ("order", json!("any")),
            ("proxy", Value::Null),
        ];
        assert_eq!(changed, expected);
    }

    #[test]
    fn a_login_goes_to_no_other_proxy_and_what_is_unknown_is_named() {
        let refused = |wanted: Value| format!("{:?}", changes_of(wanted, written).unwrap_err());
        assert!(
            refused(json!({ "proxy": { "url": "http://***@other:3128" } })).contains("write its user and password")
        );
        assert!(refused(json!({ "headers": {} })).contains("not a setting here; there are order"));
        assert!(refused(json!(7)).contains("an object"));
        let own = json!({ "proxy": { "url": "http://new:word@other:1" } });
        assert_eq!(changes_of(own.clone(), |_| None).unwrap(), [("proxy", own["proxy"].clone())]);
    }
}
