//! Checks a box's state report against the documented table. Names every fault, as for an event.
//!
//! | key | in | type |
//! | --- | --- | --- |
//! | gateway_ip, gateway_name, gateway_status, gateway_sn | top | string, required |
//! | dev_sno | top | string |
//! | gateway_ext_data | top | object, required |
//! | sw_version, sdk_version, gateway_mac, status_desc | gateway_ext_data | string |
//! | status | gateway_ext_data | "0" or "-1" |
//! | cpu_use, memory_size, memory_use, disk_size, disk_use | gateway_ext_data | number |
//! | sub_devices | top | list of objects, required |
//! | ep_id, ep_ip | sub_devices | string, required |
//! | ep_status, ep_type | sub_devices | "online" or "offline", "0" to "4"; required |
//! | ep_ext_data | sub_devices | object with the strings sw_version and group_name, required |
//! | ep_name, ep_location | sub_devices | string |

use serde_json::{Map, Value};

use crate::event::unless_faulty;
use crate::fields::key_of;
use crate::json::shortened;

/// The required type of a value.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Object,
    List,
    OneOf(&'static [&'static str]),
}

type Rules = &'static [(&'static str, bool, Kind)];

const TOP: Rules = &[
    ("gateway_ip", true, Kind::Text),
    ("gateway_name", true, Kind::Text),
    ("gateway_status", true, Kind::Text),
    ("gateway_sn", true, Kind::Text),
    ("dev_sno", false, Kind::Text),
    ("gateway_ext_data", true, Kind::Object),
    ("sub_devices", true, Kind::List),
];
const GATEWAY: Rules = &[
    ("sw_version", false, Kind::Text),
    ("sdk_version", false, Kind::Text),
    ("gateway_mac", false, Kind::Text),
    ("cpu_use", false, Kind::Number),
    ("memory_size", false, Kind::Number),
    ("memory_use", false, Kind::Number),
    ("disk_size", false, Kind::Number),
    ("disk_use", false, Kind::Number),
    ("status", false, Kind::OneOf(&["0", "-1"])),
    ("status_desc", false, Kind::Text),
];
const DEVICE: Rules = &[
    ("ep_id", true, Kind::Text),
    ("ep_ip", true, Kind::Text),
    ("ep_status", true, Kind::OneOf(&["online", "offline"])),
    ("ep_type", true, Kind::OneOf(&["0", "1", "2", "3", "4"])),
    ("ep_ext_data", true, Kind::Object),
    ("ep_name", false, Kind::Text),
    ("ep_location", false, Kind::Text),
];
const DEVICE_EXT: Rules = &[("sw_version", true, Kind::Text), ("group_name", true, Kind::Text)];

/// Checks a report. The error lists all faults.
pub fn check(text: &[u8]) -> Result<Map<String, Value>, Vec<String>> {
    let report = match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(report)) => report,
        Ok(_) => return Err(vec!["body: came no JSON object; allowed: one JSON object".into()]),
        Err(error) => return Err(vec![format!("body: came no JSON object: {error}; allowed: one JSON object")]),
    };
    let mut faults = Vec::new();
    follow(&report, "", TOP, &mut faults);
    if let Some(Value::Object(ext_data)) = report.get("gateway_ext_data") {
        follow(ext_data, "gateway_ext_data.", GATEWAY, &mut faults);
    }
    for (index, device) in report.get("sub_devices").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let place = format!("sub_devices[{index}]");
        let Value::Object(device) = device else {
            faults.push(format!("{place}: came {}; allowed: an object", described(device)));
            continue;
        };
        follow(device, &format!("{place}."), DEVICE, &mut faults);
        if let Some(Value::Object(ext_data)) = device.get("ep_ext_data") {
            follow(ext_data, &format!("{place}.ep_ext_data."), DEVICE_EXT, &mut faults);
        }
    }
    unless_faulty(report, faults)
}

fn follow(members: &Map<String, Value>, prefix: &str, rules: Rules, faults: &mut Vec<String>) {
    for (key, is_required, kind) in rules {
        let name = format!("{prefix}{}", key_of(key));
        match members.get(*key) {
            None if *is_required => faults.push(format!("{name}: missing; allowed: {}", kind.allowed())),
            Some(value) if !kind.takes(value) => {
                faults.push(format!("{name}: came {}; allowed: {}", described(value), kind.allowed()));
            }
            _ => {}
        }
    }
}

impl Kind {
    fn takes(self, value: &Value) -> bool {
        match self {
            Kind::Text => value.is_string(),
            Kind::Number => value.is_number(),
            Kind::Object => value.is_object(),
            Kind::List => value.is_array(),
            Kind::OneOf(allowed) => value.as_str().is_some_and(|text| allowed.contains(&text)),
        }
    }

    fn allowed(self) -> String {
        match self {
            Kind::Text => "a string".into(),
            Kind::Number => "a number".into(),
            Kind::Object => "an object".into(),
            Kind::List => "a list of objects".into(),
            Kind::OneOf(allowed) => allowed.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" or "),
        }
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the string {}", shortened(text)),
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        Value::Number(number) => format!("the number {number}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Value {
        json!({
            "gateway_ip": "10.0.0.2", "gateway_name": "East", "gateway_status": "online", "gateway_sn": "SN-1",
            "gateway_ext_data": {"sw_version": "1", "cpu_use": 3.5, "status": "0"},
            "sub_devices": [{"ep_id": "a", "ep_ip": "b", "ep_status": "online", "ep_type": "1",
                             "ep_ext_data": {"sw_version": "1", "group_name": "g"}}],
            "more": {"of": ["any kind"]}
        })
    }

    fn faults(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut report = report();
        change(&mut report);
        check(report.to_string().as_bytes()).err().unwrap_or_default()
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        assert_eq!(faults(|_| ()), Vec::<String>::new());
        for key in ["gateway_ip", "gateway_name", "gateway_status", "gateway_sn", "gateway_ext_data", "sub_devices"] {
            let said = faults(|report| drop(report.as_object_mut().unwrap().remove(key)));
            assert!(said.len() == 1 && said[0].starts_with(&format!("{key}: missing")), "{said:?}");
            assert!(faults(|report| report[key] = json!(null))[0].starts_with(&format!("{key}: came null")));
        }
        for (place, value) in [("status", json!("1")), ("cpu_use", json!("3")), ("gateway_mac", json!(1))] {
            let said = faults(|report| report["gateway_ext_data"][place] = value.clone());
            assert!(said[0].starts_with(&format!("gateway_ext_data.{place}: came")), "{said:?}");
        }
        for key in ["ep_id", "ep_ip", "ep_status", "ep_type", "ep_ext_data"] {
            let said = faults(|report| drop(report["sub_devices"][0].as_object_mut().unwrap().remove(key)));
            assert!(said[0].starts_with(&format!("sub_devices[0].{key}: missing")), "{said:?}");
        }
        let said = faults(|report| report["sub_devices"] = json!([report["sub_devices"][0], 7, {"ep_status": "on"}]));
        let begins = |text: &str| said.iter().any(|fault| fault.starts_with(text));
        assert!(
            begins("sub_devices[1]: came the number 7") && begins("sub_devices[2].ep_status: came the string \"on\"")
        );
        assert!(faults(|report| report["sub_devices"] = json!(vec![1; 100])).last().unwrap().contains("and 50 more"));
        for body in ["", "[]", "{", "7"] {
            assert!(check(body.as_bytes()).unwrap_err()[0].starts_with("body: came no JSON object"));
        }
    }
}
