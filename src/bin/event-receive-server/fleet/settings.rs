//! Checks the settings of the stream and its server. A setting that could lose acknowledged events is a fault, and a gateway with a
//! fault accepts nothing. Other unwise settings are warnings. Each message says what to do.
//!
//! `sync_interval` cannot be checked here: only the server's own config shows it (docs/fleet.md).

use super::info::Config;
use super::message::ROOT;

/// The oldest server that can make an acknowledged message durable on each node (`sync_interval: always`).
const OLDEST: (u64, u64) = (2, 10);
/// The largest event of a box, two pictures of 4 MiB as base64, with headers.
const LARGEST: i64 = 12 << 20;
/// A box may come back after this, in seconds.
const LONG_OUTAGE: i64 = 72 * 3600;
const NANOSECONDS: i64 = 1_000_000_000;

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub struct Findings {
    pub faults: Vec<String>,
    pub warnings: Vec<String>,
}

/// Looks at the stream, and at what its server takes in a message, in bytes.
pub fn check(config: &Config, max_payload: usize) -> Findings {
    let mut faults = Vec::new();
    let mut fault = |is: bool, text: String| faults.extend(is.then_some(text));
    let set = |what: &str, is: &str, so: &str, to: &str| format!("{what} is {is}: {so}; set {to}");
    let Config { storage, retention, discard, max_age, duplicate_window: window, .. } = config;
    fault(
        storage != "file",
        set("storage", storage, "a restart would lose what was acknowledged", "\"storage\":\"file\""),
    );
    fault(
        retention != "limits",
        set(
            "retention",
            retention,
            "ids of consumed messages would be forgotten, and events be there twice",
            "\"retention\":\"limits\"",
        ),
    );
    fault(
        discard != "new",
        set("discard", discard, "a full stream would lose its oldest events silently", "\"discard\":\"new\""),
    );
    fault(
        config.max_msgs_per_subject > 0 && !config.discard_new_per_subject,
        set(
            "max_msgs_per_subject",
            &config.max_msgs_per_subject.to_string(),
            "a box's oldest events would be lost silently",
            "it to -1",
        ),
    );
    fault(
        *max_age > 0 && max_age < window,
        set(
            "max_age",
            &seconds(*max_age),
            &format!("the duplicate_window of {} shrinks to it", seconds(*window)),
            "it to the window at least",
        ),
    );
    fault(
        config.persist_mode == "async",
        set(
            "persist_mode",
            "async",
            "events would be acknowledged before they are on the disk",
            "\"persist_mode\":\"default\"",
        ),
    );
    fault(config.no_ack, set("no_ack", "true", "the stream acknowledges nothing", "\"no_ack\":false"));
    fault(config.sealed, "the stream is sealed: it takes nothing; make another".into());
    fault(
        config.mirror.is_some(),
        "the stream is a mirror: it takes nothing from here; name the one that it mirrors".into(),
    );
    let kinds = ["realtime", "history", "status"].map(|kind| format!("{ROOT}.box.{kind}"));
    let takes = |subject: &String| config.subjects.iter().any(|pattern| matches(pattern, subject));
    let subjects = config.subjects.join(", ");
    fault(
        !kinds.iter().all(takes),
        set("subjects", &subjects, "not every event would be taken", &format!("\"subjects\":[\"{ROOT}.>\"]")),
    );
    Findings { faults, warnings: warnings(config, max_payload) }
}

fn warnings(config: &Config, max_payload: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |is: bool, text: String| warnings.extend(is.then_some(text));
    let Config { num_replicas, max_msg_size, duplicate_window, max_age, .. } = config;
    warn(
        *num_replicas == 1,
        "the stream has one copy (num_replicas 1): a server that dies takes it along, and one that loses its power keeps what was \
         acknowledged only with sync_interval: always in its config, which cannot be seen from here; three copies are better"
            .into(),
    );
    warn(*num_replicas == 2, "the stream has two copies: both must be there; set \"num_replicas\":3".into());
    warn(
        *duplicate_window < LONG_OUTAGE * NANOSECONDS,
        format!(
            "duplicate_window is {}: a box that sends an event again after that has it there twice, unless consumers know its id; \
             set 72 h or more, and max_age with it",
            seconds(*duplicate_window)
        ),
    );
    warn(
        *max_age <= 0 && config.max_bytes <= 0 && config.max_msgs <= 0,
        "the stream has no limit but the disk: set max_bytes".into(),
    );
    let small = |what: &str, bytes: i64, to: &str| {
        format!(
            "{what} is {bytes} bytes: larger events are refused with 413, and two pictures of 4 MiB make 11.2 MB; set {to}"
        )
    };
    warn(
        (max_payload as i64) < LARGEST,
        small("max_payload", max_payload as i64, "max_payload: 16MB in the servers' config"),
    );
    warn(
        (1..LARGEST).contains(max_msg_size),
        small("max_msg_size", *max_msg_size, "\"max_msg_size\":12582912 or more"),
    );
    warnings
}

/// Why a server of this version cannot be used.
pub fn version_fault(version: &str) -> Option<String> {
    let mut numbers = version.split(['.', '-']).map(|text| text.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (found < OLDEST).then(|| {
        format!(
            "nats-server {version} is too old: it has no sync_interval: always, without which a power cut loses what was acknowledged; \
             use 2.10 or later"
        )
    })
}

/// Whether a pattern of subjects has this one.
fn matches(pattern: &str, subject: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(pattern), Some(token)) if pattern == "*" || pattern == token => {}
            _ => return false,
        }
    }
}

fn seconds(nanoseconds: i64) -> String {
    format!("{} s", nanoseconds / NANOSECONDS)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(changes: Value) -> Config {
        let mut config = json!({
            "subjects": ["events.>"], "retention": "limits", "storage": "file", "num_replicas": 3, "max_msgs": -1, "max_bytes": 1 << 30,
            "max_age": 259_200_000_000_000_i64, "max_msg_size": 12_582_912, "max_msgs_per_subject": -1, "discard": "new",
            "duplicate_window": 259_200_000_000_000_i64, "something": {"new": true}
        });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn a_stream_as_it_should_be_has_no_findings() {
        assert_eq!(check(&config(json!({})), 16 << 20), Findings::default());
        assert_eq!(
            check(&config(json!({"subjects": ["a", "events.*.>"], "max_age": 0})), 16 << 20),
            Findings::default()
        );
    }

    #[test]
    fn each_setting_that_would_lose_or_double_an_event_is_a_fault_that_says_what_to_do() {
        for (changes, named) in [
            (json!({"storage": "memory"}), "storage is memory"),
            (json!({"retention": "workqueue"}), "retention is workqueue"),
            (json!({"retention": "interest"}), "retention is interest"),
            (json!({"discard": "old"}), "discard is old"),
            (json!({"max_msgs_per_subject": 5}), "max_msgs_per_subject is 5"),
            (json!({"max_age": 60_000_000_000_i64}), "max_age is 60 s: the duplicate_window of 259200 s"),
            (json!({"persist_mode": "async"}), "persist_mode is async"),
            (json!({"no_ack": true}), "no_ack is true"),
            (json!({"sealed": true}), "sealed"),
            (json!({"mirror": {"name": "X"}}), "mirror"),
            (json!({"subjects": ["events.*.realtime", "ev.>"]}), "subjects is events.*.realtime, ev.>"),
        ] {
            let found = check(&config(changes), 16 << 20);
            assert!(found.faults.len() == 1 && found.faults[0].contains(named), "{named}: {found:?}");
            assert!(found.warnings.is_empty(), "{found:?}");
        }
        let per_subject = json!({"max_msgs_per_subject": 5, "discard_new_per_subject": true});
        assert!(check(&config(per_subject), 16 << 20).faults.is_empty());
        let unsaid: Config = serde_json::from_value(json!({"subjects": [">"]})).unwrap();
        assert!(check(&unsaid, 16 << 20).faults[0].contains("discard is old"));
    }

    #[test]
    fn what_is_worth_knowing_is_a_warning() {
        for (changes, max_payload, named) in [
            (json!({"num_replicas": 1}), 16 << 20, "one copy"),
            (json!({"num_replicas": 2}), 16 << 20, "two copies"),
            (json!({"duplicate_window": 120_000_000_000_i64}), 16 << 20, "duplicate_window is 120 s"),
            (json!({"max_bytes": -1, "max_age": 0}), 16 << 20, "no limit but the disk"),
            (json!({}), 1 << 20, "max_payload is 1048576 bytes"),
            (json!({"max_msg_size": 65536}), 16 << 20, "max_msg_size is 65536 bytes"),
        ] {
            let found = check(&config(changes), max_payload);
            assert!(found.warnings.len() == 1 && found.warnings[0].contains(named), "{named}: {found:?}");
            assert!(found.faults.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn an_old_server_is_refused_by_its_version() {
        for old in ["2.9.10", "2.2.0", "1.4.1", "", "x"] {
            assert!(version_fault(old).expect(old).contains(&format!("nats-server {old} is too old")));
        }
        for new in ["2.10.0", "2.15.1", "2.12.0-beta.1", "3.0.0"] {
            assert_eq!(version_fault(new), None, "{new}");
        }
    }
}
