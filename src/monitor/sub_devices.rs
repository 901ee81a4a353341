//! The cameras of the box. Only the recognizer knows them: it writes a small JSON file, preferably on tmpfs, and renames it into
//! place. The file is read and checked for each report; the report contains its faults.
//!
//! docs/recognizers.md has the members of a camera.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

/// Maximum length of the file, in bytes.
const LONGEST: u64 = 64 * 1024;
/// Maximum number of devices.
const MOST: usize = 64;

/// Reads the file.
///
/// # Errors
/// The file's fault.
pub fn read(path: &Path) -> Result<Vec<Value>, String> {
    let named = |why: String| format!("box.sub_devices_file {}: {why}", path.display());
    let mut text = String::new();
    let found = std::fs::metadata(path).map_err(|error| named(error.to_string()))?;
    if !found.is_file() {
        return Err(named("it is not a regular file".into()));
    }
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    read.map_err(|error| named(error.to_string()))?;
    if text.len() as u64 > LONGEST {
        return Err(named(format!("it is larger than {LONGEST} bytes")));
    }
    checked(&text).map_err(named)
}

fn checked(text: &str) -> Result<Vec<Value>, String> {
    let devices: Vec<Value> =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON list of objects: {error}"))?;
    if devices.len() > MOST {
        return Err(format!("it has {} devices, more than {MOST}", devices.len()));
    }
    for (index, device) in devices.iter().enumerate() {
        if let Some(why) = fault(device) {
            return Err(format!("[{index}].{why}"));
        }
    }
    Ok(devices)
}

/// The fault of a device, if any.
fn fault(device: &Value) -> Option<String> {
    let is_text = |key: &str| device.get(key).is_some_and(Value::is_string);
    let is_one_of = |key: &str, allowed: &[&str]| {
        device.get(key).and_then(Value::as_str).is_some_and(|value| allowed.contains(&value))
    };
    let ext_data =
        |key: &str| device.get("ep_ext_data").and_then(|ext_data| ext_data.get(key)).is_some_and(Value::is_string);
    let checks = [
        (device.is_object(), "", "an object is wanted"),
        (is_text("ep_id"), "ep_id", "a text is wanted"),
        (is_text("ep_ip"), "ep_ip", "a text is wanted"),
        (is_one_of("ep_status", &["online", "offline"]), "ep_status", "\"online\" or \"offline\" is wanted"),
        (is_one_of("ep_type", &["0", "1", "2", "3", "4"]), "ep_type", "\"0\" to \"4\" is wanted"),
        (ext_data("sw_version"), "ep_ext_data.sw_version", "a text is wanted"),
        (ext_data("group_name"), "ep_ext_data.group_name", "a text is wanted"),
        (device.get("ep_name").is_none() || is_text("ep_name"), "ep_name", "a text is wanted"),
        (device.get("ep_location").is_none() || is_text("ep_location"), "ep_location", "a text is wanted"),
    ];
    let wrong = checks.into_iter().find(|(is_good, _, _)| !is_good);
    wrong.map(|(_, key, wanted)| format!("{key}: {wanted}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn camera() -> Value {
        json!({
            "ep_id": "AKOPKKKKK__192.168.1.25", "ep_ip": "192.168.1.25", "ep_status": "online", "ep_type": "1",
            "ep_ext_data": {"sw_version": "1.2", "group_name": "East"}, "ep_name": "Gate 1", "lens": 2.8
        })
    }

    #[test]
    fn devices_go_along_as_they_are_and_a_fault_is_named() {
        let cameras = json!([camera(), camera()]);
        assert_eq!(checked(&cameras.to_string()), Ok(vec![camera(), camera()]));
        assert_eq!(checked("[]"), Ok(Vec::new()));
        let with = |key: &str, value: Value| {
            let mut camera = camera();
            camera[key] = value;
            checked(&json!([self::camera(), camera]).to_string()).unwrap_err()
        };
        for (key, value) in [
            ("ep_id", json!(7)),
            ("ep_ip", json!(null)),
            ("ep_status", json!("on")),
            ("ep_type", json!(1)),
            ("ep_ext_data", json!({"sw_version": "1"})),
            ("ep_name", json!(1)),
            ("ep_location", json!([])),
        ] {
            let said = with(key, value);
            assert!(said.starts_with(&format!("[1].{key}")) && said.contains("wanted"), "{said}");
        }
        for wrong in ["", "{}", "[1", "[7]"] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
        assert!(checked(&json!(vec![camera(); MOST]).to_string()).is_ok());
        assert!(checked(&json!(vec![camera(); MOST + 1]).to_string()).unwrap_err().contains("65 devices"));
    }

    #[test]
    fn a_file_that_is_none_or_too_large_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.json");
        assert!(read(&path).unwrap_err().contains("No such file"));
        assert!(read(folder.path()).unwrap_err().contains("regular file"));
        std::fs::write(&path, json!([camera()]).to_string()).unwrap();
        assert_eq!(read(&path), Ok(vec![camera()]));
        std::fs::write(&path, " ".repeat(LONGEST as usize + 1)).unwrap();
        assert!(read(&path).unwrap_err().contains("larger than 65536 bytes"));
        std::fs::write(&path, b"[\xFF]").unwrap();
        assert!(read(&path).is_err());
    }
}
