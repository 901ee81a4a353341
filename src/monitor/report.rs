//! One report: the members of the box's documentation, and ours under `sophon_uplink`.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::machine::{self, Machine};
use super::{Sender, sub_devices};
use crate::config::this_box;
use crate::health;
use crate::status::Status;

/// The report as JSON; `address` is where the connection goes out from.
pub(super) fn text(
    address: Option<IpAddr>,
    sender: &Sender,
    period: Duration,
    machine: &mut Machine,
    status: &Status,
) -> Vec<u8> {
    let devices = sender.this_box.sub_devices_file.as_deref().map_or(Ok(Vec::new()), sub_devices::read);
    let (devices, fault) = devices.map_or_else(|why| (Vec::new(), Some(why)), |devices| (devices, None));
    let problems: Vec<String> = health::problems(status).into_iter().chain(fault).collect();
    let mut report = json!({
        "gateway_ip": address.map_or(String::new(), |address| address.to_string()),
        "gateway_name": sender.this_box.name().unwrap_or_default(),
        "gateway_status": "online",
        "gateway_sn": sender.this_box.serial().unwrap_or_default(),
    });
    if let Some(dev_sno) = &sender.this_box.dev_sno {
        report["dev_sno"] = dev_sno.as_str().into();
    }
    report["gateway_ext_data"] = ext_data(sender, machine, &problems);
    report["sub_devices"] = devices.into();
    report["sophon_uplink"] = uplink(status, period);
    serde_json::to_vec(&report).expect("a value is JSON")
}

fn ext_data(sender: &Sender, machine: &mut Machine, problems: &[String]) -> Value {
    let mut members = Map::new();
    let mut add = |key: &str, value: Option<Value>| members.extend(value.map(|value| (key.to_owned(), value)));
    add("sw_version", Some(env!("CARGO_PKG_VERSION").into()));
    add("gateway_mac", this_box::mac().map(Value::from));
    add("cpu_use", machine.cpu_percent().map(Value::from));
    let memory = machine::memory();
    add("memory_size", memory.map(|memory| memory.size.into()));
    add("memory_use", memory.map(|memory| memory.percent.into()));
    let disk = machine::disk(&sender.spool);
    add("disk_size", disk.map(|disk| disk.size.into()));
    add("disk_use", disk.map(|disk| disk.percent.into()));
    add("status", Some(if problems.is_empty() { "0" } else { "-1" }.into()));
    add("status_desc", (!problems.is_empty()).then(|| problems.join("; ").into()));
    members.into()
}

/// What the documentation has no member for.
fn uplink(status: &Status, period: Duration) -> Value {
    let failing = status.destinations.iter().filter(|one| one.state != "up");
    let last = failing.min_by(|one, other| {
        let seconds = |one: &crate::status::Destination| one.last_error_seconds.unwrap_or(f64::MAX);
        seconds(one).total_cmp(&seconds(other))
    });
    let rings = status.rings.iter().map(|ring| {
        let state = ring.state.as_ref();
        json!({
            "recognizer": ring.recognizer,
            "used_percent": state.map(|state| 100 * state.used / state.capacity.max(1)),
            "published": state.map(|state| state.published),
            "dropped": state.map(|state| state.dropped),
            "last_event_seconds": ring.last_event_seconds.map(f64::round),
        })
    });
    json!({
        "version": status.version,
        "period_seconds": period.as_secs(),
        "uptime_seconds": status.uptime_seconds.round(),
        "delivered": status.shares.acknowledged,
        "backlog": status.shares.open + status.shares.spooled,
        "dead_letters": status.spool.dead_letters,
        "dropped": status.rings.iter().filter_map(|ring| ring.state.as_ref()).map(|state| state.dropped).sum::<u64>(),
        "lost": status.shares.evicted + status.shares.vanished + status.shares.quarantined + status.shares.lost,
        "destinations_up": status.destinations.iter().filter(|one| one.state == "up").count(),
        "destinations": status.destinations.len(),
        "last_error_code": last.and_then(|one| one.last_error_code),
        "rings": rings.collect::<Vec<_>>(),
    })
}
