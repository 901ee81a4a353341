//! The boxes that send their state: the last report of each, its time, and whether the next one is overdue.
//!
//! A box is identified by its serial number, else by its registration code, else by its address. The number of boxes and the
//! bytes of their reports are bounded: beyond the limit, the boxes that have been silent longest are forgotten. Nothing survives
//! a restart, because each box reports again within its period.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sophon_uplink::config::reports::PERIOD_RANGE;
use tokio::time::Instant;

use crate::state_report;

/// The path of state reports.
pub const STATE_PATH: &str = "/SophonFogStatus";

/// Maximum number of boxes.
const MOST: usize = 20_000;
/// Maximum size of all reports, in bytes.
const MOST_BYTES: usize = 128 << 20;
/// Maximum length of a report, in bytes.
const LONGEST: usize = 256 << 10;
/// The period that is assumed for a box that has reported only once and gives none.
const USUAL: Duration = Duration::from_secs(600);
/// Tolerance: a report may be late by half a period plus this.
const LATE: Duration = Duration::from_secs(2);

/// The condition of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Its report is overdue.
    Gone,
    /// The box reports a problem, a camera is offline, or the uplink has trouble.
    Bad,
    Good,
}

/// A valid state report.
pub struct StateReport {
    members: Map<String, Value>,
    bytes: usize,
}

impl StateReport {
    /// Checks a report. The error lists all faults.
    pub fn of(text: &[u8]) -> Result<StateReport, Vec<String>> {
        if text.len() > LONGEST {
            return Err(vec![format!("body: came {} bytes; allowed: at most {LONGEST}", text.len())]);
        }
        Ok(StateReport { members: state_report::check(text)?, bytes: text.len() })
    }

    /// The box's registration code; may be empty.
    #[cfg_attr(not(feature = "jetstream"), allow(dead_code))]
    pub fn registration(&self) -> &str {
        self.members.get("dev_sno").and_then(Value::as_str).unwrap_or_default()
    }

    /// The box's identity; may be empty.
    pub fn name(&self) -> &str {
        let mut names =
            ["gateway_sn", "dev_sno", "gateway_ip"].into_iter().filter_map(|key| self.members.get(key)?.as_str());
        names.find(|name| !name.is_empty()).unwrap_or_default()
    }
}

/// The arrival of a report.
#[derive(Default)]
pub struct Came {
    /// The age of the report.
    pub age: Duration,
    /// RFC 3339.
    pub received_at: String,
    /// Its sequence number in the stream that it came through, if any: a stream may deliver a message again.
    pub sequence: Option<u64>,
}

/// A box's last report.
struct LastReport {
    report: Map<String, Value>,
    bytes: usize,
    received_at: String,
    at: Instant,
    sequence: Option<u64>,
    /// Time between this report and the previous one.
    interval: Option<Duration>,
    count: u64,
}

#[derive(Default)]
struct Known {
    boxes: BTreeMap<String, LastReport>,
    bytes: usize,
}

/// All boxes.
#[derive(Default)]
pub struct Boxes {
    known: Mutex<Known>,
}

impl Boxes {
    /// Stores the report of a box. A report from a stream changes nothing unless it is later in the stream than the known one.
    pub fn take(&self, name: String, report: StateReport, came: Came, now: Instant) {
        let StateReport { members: report, bytes } = report;
        let Came { age, received_at, sequence } = came;
        let at = now.checked_sub(age).unwrap_or(now);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if sequence.is_some() && known.boxes.get(&name).is_some_and(|heard| sequence <= heard.sequence) {
            return;
        }
        let before = known.boxes.remove(&name);
        known.bytes -= before.as_ref().map_or(0, |heard| heard.bytes);
        let interval = before.as_ref().map(|heard| at.saturating_duration_since(heard.at));
        let count = before.map_or(0, |heard| heard.count) + 1;
        known.bytes += bytes;
        known.boxes.insert(name, LastReport { report, bytes, received_at, at, sequence, interval, count });
        while known.boxes.len() > MOST || known.bytes > MOST_BYTES {
            let Some(oldest) = known.boxes.iter().min_by_key(|(_, heard)| heard.at).map(|(name, _)| name.clone())
            else {
                break;
            };
            known.bytes -= known.boxes.remove(&oldest).map_or(0, |heard| heard.bytes);
        }
    }

    /// All boxes as JSON: first those that are gone, then those with problems.
    pub fn json(&self, now: Instant) -> String {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut boxes: Vec<(State, &String, &LastReport)> =
            known.boxes.iter().map(|(name, heard)| (heard.state(now), name, heard)).collect();
        boxes.sort_by_key(|(state, name, _)| (*state, name.as_str()));
        let count = |wanted: State| boxes.iter().filter(|(state, ..)| *state == wanted).count();
        let counts = json!({"gone": count(State::Gone), "bad": count(State::Bad), "good": count(State::Good)});
        let shown: Vec<Value> = boxes.into_iter().map(|(state, name, heard)| heard.shown(state, name, now)).collect();
        json!({"counts": counts, "boxes": shown}).to_string()
    }
}

impl LastReport {
    fn uplink(&self, key: &str) -> Option<&Value> {
        self.report.get("sophon_uplink")?.get(key)
    }

    /// As the report says. One that no uplink can have is ignored.
    fn period(&self) -> Option<Duration> {
        let said =
            self.uplink("period_seconds").and_then(Value::as_u64).filter(|seconds| PERIOD_RANGE.contains(seconds));
        said.map(Duration::from_secs).or(self.interval)
    }

    fn state(&self, now: Instant) -> State {
        let period = self.period().unwrap_or(USUAL);
        if now.saturating_duration_since(self.at) > period + period / 2 + LATE {
            return State::Gone;
        }
        let ext_data = self.report.get("gateway_ext_data");
        let is_bad = ext_data.and_then(|ext_data| ext_data.get("status")).is_some_and(|status| status == "-1");
        let mut devices = self.report.get("sub_devices").and_then(Value::as_array).into_iter().flatten();
        let has_trouble = self.uplink("last_error_code").is_some_and(|code| !code.is_null());
        let is_offline = |device: &Value| device.get("ep_status").is_some_and(|status| status == "offline");
        if is_bad || has_trouble || devices.any(is_offline) { State::Bad } else { State::Good }
    }

    fn shown(&self, state: State, name: &str, now: Instant) -> Value {
        json!({
            "box": name,
            "state": state,
            "received_at": self.received_at,
            "heard_seconds": now.saturating_duration_since(self.at).as_secs(),
            "period_seconds": self.period().map(|period| period.as_secs()),
            "reports": self.count,
            "report": self.report,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(serial: &str, more: Value) -> StateReport {
        StateReport::of(&text(serial, more)).unwrap()
    }

    fn text(serial: &str, more: Value) -> Vec<u8> {
        let mut report = json!({
            "gateway_ip": "10.0.0.2", "gateway_name": "East", "gateway_status": "online", "gateway_sn": serial,
            "gateway_ext_data": {}, "sub_devices": []
        });
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        report.to_string().into_bytes()
    }

    fn take(boxes: &Boxes, report: StateReport, now: Instant) {
        boxes.take(report.name().to_owned(), report, Came::default(), now);
    }

    fn states(boxes: &Boxes, now: Instant) -> Vec<(String, String)> {
        let all: Value = serde_json::from_str(&boxes.json(now)).unwrap();
        let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        all["boxes"].as_array().unwrap().iter().map(|one| (text(one, "box"), text(one, "state"))).collect()
    }

    #[test]
    fn what_is_wrong_comes_first_and_a_box_is_gone_after_its_period() {
        let (boxes, began) = (Boxes::default(), Instant::now());
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let take = |report: StateReport, seconds: u64| take(&boxes, report, at(seconds));
        let ours = |period: u64| json!({"sophon_uplink": {"period_seconds": period, "last_error_code": null}});
        take(report("a", ours(60)), 0);
        take(report("b", ours(10)), 0);
        take(report("c", json!({"gateway_ext_data": {"status": "-1"}})), 0);
        let offline = json!({"ep_id": "", "ep_ip": "", "ep_status": "offline", "ep_type": "1",
                             "ep_ext_data": {"sw_version": "", "group_name": ""}});
        take(report("d", json!({"sub_devices": [offline]})), 0);
        take(report("e", json!({"sophon_uplink": {"period_seconds": 60, "last_error_code": "connect_refused"}})), 0);
        let named = |now| states(&boxes, now).into_iter().map(|(name, state)| name + ":" + &state).collect::<Vec<_>>();
        assert_eq!(named(at(17)), ["c:bad", "d:bad", "e:bad", "a:good", "b:good"]);
        assert_eq!(named(at(18)), ["b:gone", "c:bad", "d:bad", "e:bad", "a:good"]);
        // Without a period, the time between two reports counts; before the second report, ten minutes.
        take(report("c", json!({})), 20);
        assert_eq!(named(at(52))[..2], ["b:gone", "d:bad"]);
        assert_eq!(named(at(53))[..2], ["b:gone", "c:gone"]);
        take(report("b", ours(10)), 100);
        assert_eq!(named(at(100))[..2], ["a:gone", "c:gone"]);
        assert_eq!(named(at(903)), ["a:gone", "b:gone", "c:gone", "d:gone", "e:gone"]);
    }

    #[test]
    fn a_period_that_no_uplink_has_counts_as_none() {
        let (boxes, began) = (Boxes::default(), Instant::now());
        for period in
            [json!(0), json!(86_401), json!(u64::MAX / 2), json!(u64::MAX), json!(-1), json!(1e300), json!("5")]
        {
            let name = period.to_string();
            take(&boxes, report(&name, json!({"sophon_uplink": {"period_seconds": period}})), began);
        }
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let all_are = |state: &str, now| states(&boxes, now).into_iter().all(|(_, is)| is == state);
        assert!(all_are("good", at(900)) && all_are("gone", at(903)));
        take(&boxes, report("null", json!({"sophon_uplink": null})), at(903));
        assert_eq!(states(&boxes, at(903)).last().unwrap(), &("null".to_owned(), "good".to_owned()));
    }

    #[test]
    fn a_box_is_one_row_and_those_not_heard_of_are_forgotten_first() {
        let (boxes, began) = (Boxes::default(), Instant::now());
        for number in 0..MOST + 10 {
            let report = report(&format!("{number:06}"), json!({}));
            take(&boxes, report, began + Duration::from_millis(number as u64));
        }
        let names = states(&boxes, began + Duration::from_secs(21));
        assert_eq!((names.len(), names[0].0.as_str()), (MOST, "000010"));
        take(&boxes, report("000010", json!({})), began);
        assert_eq!(states(&boxes, began).len(), MOST);
        let large = "x".repeat(LONGEST);
        assert!(StateReport::of(&text("a", json!({"more": large}))).err().unwrap()[0].contains("bytes"));
        let known = boxes.known.lock().unwrap();
        assert_eq!(known.bytes, known.boxes.values().map(|heard| heard.bytes).sum::<usize>());
    }

    #[test]
    fn a_report_that_comes_again_or_late_changes_nothing_and_an_old_one_is_old() {
        let (boxes, now) = (Boxes::default(), Instant::now());
        let came = |seconds: u64, sequence: u64| Came {
            age: Duration::from_secs(seconds),
            sequence: Some(sequence),
            ..Came::default()
        };
        let take = |name: &str, seconds, sequence, more| {
            boxes.take(name.to_owned(), report("says another name", more), came(seconds, sequence), now);
        };
        let minutely = || json!({"sophon_uplink": {"period_seconds": 60, "last_error_code": null}});
        take("old", 93, 1, minutely());
        take("new", 92, 2, minutely());
        take("late", 1, 4, minutely());
        take("late", 30, 3, json!({"gateway_ext_data": {"status": "-1"}}));
        take("late", 1, 4, json!({"gateway_ext_data": {"status": "-1"}}));
        let named: Vec<_> = states(&boxes, now).into_iter().map(|(name, state)| name + ":" + &state).collect();
        assert_eq!(named, ["old:gone", "late:good", "new:good"]);
    }

    #[test]
    fn a_box_without_a_serial_number_is_known_by_another_name() {
        let boxes = Boxes::default();
        let now = Instant::now();
        take(&boxes, report("", json!({"dev_sno": "D"})), now);
        take(&boxes, report("", json!({})), now);
        assert_eq!(states(&boxes, now).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["10.0.0.2", "D"]);
    }
}
