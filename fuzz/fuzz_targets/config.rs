//! Parses a config file of arbitrary bytes. Either it is accepted, within the promised limits, or every fault is named without a
//! secret. Changing one key changes only this key.
#![no_main]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sophon_uplink::body::Format;
use sophon_uplink::config::document::Document;
use sophon_uplink::config::{Config, Url, is_forbidden_address};

const PATH: &str = "/etc/uplink.json";

fn checked(text: &[u8]) -> Result<Config, String> {
    Config::of_text(text, Path::new(PATH)).map_err(|error| {
        assert!(!error.faults.is_empty());
        assert!(error.faults.iter().all(|fault| !fault.key.is_empty() && !fault.allowed.is_empty()));
        let said = error.to_string();
        // Each fault is on one line, so no key or value can look like another line of the log.
        assert_eq!(said.lines().count(), 1 + error.faults.len(), "{said}");
        assert!(error.faults.iter().all(|fault| fault.to_string().len() < 1000), "{said}");
        assert!(!said.contains(|letter: char| letter.is_control() && letter != '\n'), "{said:?}");
        said
    })
}

/// What every accepted config satisfies.
fn check_bounds(config: &Config) {
    assert!((1..=16).contains(&config.rings.len()) && config.event_server_url.len() <= 16);
    assert!(config.rings.iter().all(|path| path.is_absolute()) && config.spool.dir.is_absolute());
    assert!(config.threshold.0.is_finite());
    let times = [config.timeouts.connect, config.timeouts.progress, config.timeouts.response];
    assert!(times.iter().all(|time| (Duration::from_millis(100)..=Duration::from_secs(600)).contains(time)));
    assert!((1 << 20..=1 << 40).contains(&config.spool.max_bytes) && config.spool.min_free_bytes <= 1 << 40);
    assert!(config.headers.iter().all(|(name, value)| value.is_sensitive() && name.as_str() != "content-length"));
    assert_eq!(config.tls.client_cert_file.is_some(), config.tls.client_key_file.is_some());
    for (index, url) in config.event_server_url.iter().enumerate() {
        let again = Url::parse(&url.identity()).expect("what was taken once");
        assert_eq!(again.identity(), url.identity());
        assert!(!config.event_server_url[..index].contains(url));
        let host = url.uri().host().expect("a destination has a host");
        let address = host.trim_start_matches('[').trim_end_matches(']').parse();
        assert!(!address.is_ok_and(is_forbidden_address), "{host}");
        let target = url.target().to_string();
        assert!(!url.authority().contains('@') && target.starts_with('/'));
        assert!(
            target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte)),
            "{target}"
        );
    }
}

/// Checks that no message contains a header's value, unless it occurs elsewhere in the file too.
fn check_secrets(text: &str, said: &str) {
    let written: Value = serde_json::from_str(text).unwrap_or_default();
    for secret in written["headers"].as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str()) {
        if secret.len() >= 12 && text.matches(secret).count() == 1 {
            assert!(!said.contains(secret), "{secret:?} in {said}");
        }
    }
}

/// Parsing and writing the file again keeps its meaning, except that repeated keys occur once. Changing a key changes only the
/// meaning of that key.
fn check_edits(text: &[u8], before: &Result<Config, String>) {
    let Ok(document) = Document::parse(text) else { return assert!(before.is_err()) };
    let written = document.text();
    assert_eq!(Document::parse(&written).expect("ours").text(), written);
    let again = checked(&written);
    if !before.as_ref().is_err_and(|said| said.contains("this key is there twice in one object")) {
        assert_eq!(again.as_ref().ok(), before.as_ref().ok());
    }
    let changed = document.with(&[("content-type", json!("form-data"))]);
    assert_eq!(changed.get("content-type"), Some(json!("form-data")));
    if let Ok(mut expected) = again {
        expected.body.format = Format::FormData;
        assert_eq!(checked(&changed.text()), Ok(expected));
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let config = checked(bytes);
    match &config {
        Ok(config) => check_bounds(config),
        Err(said) => check_secrets(&String::from_utf8_lossy(bytes), said),
    }
    check_edits(bytes, &config);
});
