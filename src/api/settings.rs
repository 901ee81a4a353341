//! `GET` and `POST /api/settings`: what the page's form shows and changes. A call may contain any of the keys; the others stay.

use serde_json::{Value, json};

use super::documented::{format_name, url_list};
use super::error::{ApiError, shortened};
use super::further::{self, MORE};
use super::read::Fields;
use crate::body::TimestampUnit;
use crate::control::{Changes, Control, MakeChanges};

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

/// How a call changes the config, and the revision that it applies to. The config checks the values. A revision alone changes
/// nothing, but every destination is tried at once.
///
/// # Errors
/// 400: not JSON, no key, or a key that the page may not change.
pub fn changes(fields: Fields) -> Result<(MakeChanges, Option<String>), ApiError> {
    let Call { mut changes, more, revision } = Call::of(fields)?;
    let make: MakeChanges = Box::new(|present, in_force| {
        if let Some(more) = more {
            changes.extend(further::changes(more, present, in_force)?);
        }
        Ok(changes)
    });
    Ok((make, revision))
}

/// The members of a call.
#[derive(Debug, PartialEq)]
struct Call {
    changes: Changes,
    more: Option<Value>,
    revision: Option<String>,
}

impl Call {
    fn of(fields: Fields) -> Result<Call, ApiError> {
        let Fields::Json(mut members) = fields else {
            return Err(ApiError::invalid("the settings are sent as application/json"));
        };
        if members.is_empty() {
            return Err(ApiError::invalid(format!("no key is given; there are {}, {MORE}", KEYS.join(", "))));
        }
        let known = |key: String| {
            let error = || {
                ApiError::invalid(format!("{}: not a setting; there are {}, {MORE}", shortened(&key), KEYS.join(", ")))
            };
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
        Ok(Call { changes: members.into_iter().map(read).collect::<Result<_, _>>()?, more, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pages_keys_can_be_changed() {
        let call = |members: &[(&str, Value)]| {
            let members = members.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
            Call::of(Fields::Json(members)).map(|Call { changes, more, revision }| (changes, more, revision))
        };
        let threshold = vec![("threshold", json!(0.5))];
        let revision = Some("a".to_owned());
        assert_eq!(call(&[("threshold", json!(0.5))]), Ok((threshold.clone(), None, None)));
        assert_eq!(
            call(&[("threshold", json!(0.5)), ("revision", json!("a"))]),
            Ok((threshold, None, revision.clone()))
        );
        assert_eq!(call(&[("revision", json!("a"))]), Ok((vec![], None, revision)));
        assert!(call(&[("revision", json!(1))]).is_err());
        for key in ["headers", "tls", "api", "spool", "rings", "timeouts_ms", "x", ""] {
            assert!(call(&[("threshold", json!(0.5)), (key, json!({}))]).is_err(), "{key}");
        }
        let one = call(&[("event_server_url", json!([" http://a/\n"]))]);
        assert_eq!(one, Ok((vec![("event_server_url", json!(["http://a/"]))], None, None)));
        assert_eq!(call(&[("more", json!({ "order": "any" }))]), Ok((vec![], Some(json!({ "order": "any" })), None)));
        assert!(call(&[]).is_err());
        assert!(Call::of(Fields::Form(vec![("threshold".into(), "1".into())])).is_err());
    }
}
