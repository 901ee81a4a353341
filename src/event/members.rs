//! JSON members that the recognizer adds to an event: how they are read, and which are sent.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The documented keys of an event at the top level. Every event has all of them, so no other member may use these names.
pub const TOP_KEYS: [&str; 7] =
    ["identity_id", "identity_name", "group_name", "reg_pic", "timestamp", "score", "ext_data"];
/// The documented keys of an event in `ext_data`.
pub const EXT_DATA_KEYS: [&str; 4] = ["device_ip", "person_type", "device_type", "spot_pic"];
/// Why a member with a picture's name is left out.
const A_PICTURE: &str = "a picture goes out from its own place in the ring only";

/// A key and its value as written: numbers keep their digits.
pub type Member = (String, Box<RawValue>);

/// Whether a member of top_json is sent unchanged. The documented keys come from the event itself.
pub(super) fn keep_at_top(key: &str, json: &str) -> Result<bool, String> {
    let [_]: [Value; 1] = serde_json::from_str(&format!("[{json}]")).map_err(|error| error.to_string())?;
    if TOP_KEYS.contains(&key) { Err("the event's own value goes out".into()) } else { Ok(true) }
}

/// Refuses a member with the same name as a picture.
pub(super) fn keep_beside_pictures<'a>(key: &str, mut names: impl Iterator<Item = &'a str>) -> Result<bool, String> {
    if names.any(|name| name == key) { Err(A_PICTURE.into()) } else { Ok(true) }
}

/// Whether a member of ext_json is sent unchanged. A member with a key of the contract's table is not: if the event itself has no
/// such value and the type is right, it supplies the value.
pub(super) fn keep_in_ext_data(
    key: &str,
    json: &str,
    device_ip: &mut Option<String>,
    person_type: &mut Option<i32>,
    device_type: &mut Option<i32>,
) -> Result<bool, String> {
    // Refuse what no parser accepts (a lone surrogate, a number beyond f64, endless nesting): it would cost the whole event.
    // Parse it at the depth that it will have in a body.
    let [[value]]: [[Value; 1]; 1] = serde_json::from_str(&format!("[[{json}]]")).map_err(|error| error.to_string())?;
    let is_table_key = EXT_DATA_KEYS.contains(&key);
    if !is_table_key || value.is_null() {
        return Ok(!is_table_key); // null in the table means the same as a missing key
    }
    match key {
        "device_ip" => {
            let given = value.as_str().ok_or("it is no string")?;
            device_ip.get_or_insert_with(|| given.to_owned());
        }
        "person_type" => {
            let given = value.as_i64().filter(|kind| (1..=5).contains(kind)).ok_or("it is no number from 1 to 5")?;
            person_type.get_or_insert(given as i32);
        }
        "device_type" => {
            let known = |kind: &str| ["0", "1", "2", "3", "4"].iter().position(|known| *known == kind);
            let given = value.as_str().and_then(known).ok_or("it is no string from \"0\" to \"4\"")?;
            device_type.get_or_insert(given as i32);
        }
        _ => return Err(A_PICTURE.into()),
    }
    Ok(false)
}

/// The members of a JSON object. Of several with the same key, the last one wins, as in most parsers.
pub(crate) fn members(json: &str) -> serde_json::Result<Vec<Member>> {
    let mut members = all_members(json)?;
    let last: HashMap<_, _> = members.iter().enumerate().map(|(index, (key, _))| (key.clone(), index)).collect();
    let mut index = 0..;
    members.retain(|(key, _)| index.next() == last.get(key).copied());
    Ok(members)
}

/// The members of a JSON object, including repeated keys.
pub(crate) fn all_members(json: &str) -> serde_json::Result<Vec<Member>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<Member>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry::<String, Box<RawValue>>()? {
                members.push(member);
            }
            Ok(members)
        }
    }

    if json.is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    let members = parser.deserialize_map(Members)?;
    parser.end()?;
    Ok(members)
}
