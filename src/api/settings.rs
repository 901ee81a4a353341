//! `GET` and `POST /api/settings`: what the page's form shows and changes. A call may contain any of the keys; the others stay.

use serde_json::{Value, json};

use super::documented::{format_name, url_list};
use super::error::{ApiError, shortened};
use super::further::{self, MORE};
use super::read::Fields;
use crate::body::TimestampUnit;
use crate::control::Control;

const KEYS: [&str; 5] = ["event_server_url", "real_need_reg_pic", "content-type", "threshold", "timestamp_unit"];

/// The member of a call with the revision that it applies to.
const REVISION: &str = "revision";

/// The settings in force, and their revision.
pub fn show(control: &Control) -> Value {
    let config = control.config();
    json!({REVISION: control.revision(), "data": {
        "event_server_url": control.written("event_server_url").unwrap_or_else(|| json!([])),
        "real_need_reg_pic": config.body.with_reg_pic,
        "content-type": format_name(config.body.format),
        "threshold": control.written("threshold").unwrap_or_else(|| json!(0.0)),
        "timestamp_unit": match config.body.timestamp_unit {
            TimestampUnit::Seconds => "s",
            TimestampUnit::Milliseconds => "ms",
        },
        MORE: further::show(control),
    }})
}

/// Config keys and their new values.
pub type Changes = Vec<(&'static str, Value)>;

/// The config keys that a call changes, and the revision that it applies to. The config checks their values. A revision alone
/// changes nothing, but every destination is tried at once.
///
/// # Errors
/// 400: not JSON, no key, or a key that the page may not change.
pub fn changes(fields: Fields, control: &Control) -> Result<(Changes, Option<String>), ApiError> {
    changes_of(fields, |more| further::changes(more, control))
}

fn changes_of(
    fields: Fields,
    further: impl FnOnce(Value) -> Result<Changes, ApiError>,
) -> Result<(Changes, Option<String>), ApiError> {
    let Fields::Json(mut members) = fields else {
        return Err(ApiError::invalid("the settings are sent as application/json"));
    };
    if members.is_empty() {
        return Err(ApiError::invalid(format!("no key is given; there are {}, {MORE}", KEYS.join(", "))));
    }
    let known = |key: String| {
        let error =
            || ApiError::invalid(format!("{}: not a setting; there are {}, {MORE}", shortened(&key), KEYS.join(", ")));
        KEYS.into_iter().find(|known| *known == key).ok_or_else(error)
    };
    let revision = members.iter().position(|(key, _)| key == REVISION).map(|index| members.remove(index).1);
    let more = members.iter().position(|(key, _)| key == MORE).map(|index| members.remove(index).1);
    let revision = match revision {
        None => None,
        Some(Value::String(revision)) => Some(revision),
        Some(_) => return Err(ApiError::invalid("revision: the text that GET /api/settings gives")),
    };
    let read = |(key, value)| match known(key)? {
        key if key == KEYS[0] => Ok((key, url_list(key, value)?)),
        key => Ok((key, value)),
    };
    let mut changes: Changes = members.into_iter().map(read).collect::<Result<_, _>>()?;
    changes.extend(more.map(further).transpose()?.unwrap_or_default());
    Ok((changes, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pages_keys_can_be_changed() {
        let call = |members: &[(&str, Value)]| {
            let members = members.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
            changes_of(Fields::Json(members), |more| Ok(vec![("order", more)]))
        };
        let threshold = vec![("threshold", json!(0.5))];
        assert_eq!(call(&[("threshold", json!(0.5))]), Ok((threshold.clone(), None)));
        assert_eq!(call(&[("threshold", json!(0.5)), ("revision", json!("a"))]), Ok((threshold, Some("a".into()))));
        assert_eq!(call(&[("revision", json!("a"))]), Ok((vec![], Some("a".into()))));
        assert!(call(&[("revision", json!(1))]).is_err());
        for key in ["headers", "tls", "api", "spool", "rings", "timeouts_ms", "x", ""] {
            assert!(call(&[("threshold", json!(0.5)), (key, json!({}))]).is_err(), "{key}");
        }
        let one = call(&[("event_server_url", json!([" http://a/\n"]))]);
        assert_eq!(one, Ok((vec![("event_server_url", json!(["http://a/"]))], None)));
        assert_eq!(call(&[("more", json!("strict"))]), Ok((vec![("order", json!("strict"))], None)));
        assert!(call(&[]).is_err());
        assert!(changes_of(Fields::Form(vec![("threshold".into(), "1".into())]), |_| Ok(vec![])).is_err());
    }
}
