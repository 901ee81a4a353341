//! One report: the members of the box's documentation, and our own under `sophon_uplink`.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::machine::{self, Machine};
use super::{Sender, sub_devices};
use crate::config::this_box;
use crate::health;
use crate::status::{Destination, Status};

#[derive(Serialize)]
struct Report<'a> {
    gateway_ip: String,
    gateway_name: String,
    gateway_status: &'static str,
    gateway_sn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev_sno: Option<&'a str>,
    gateway_ext_data: ExtData,
    sub_devices: Vec<Value>,
    sophon_uplink: Uplink,
}

/// Members that cannot be read are left out.
#[derive(Serialize)]
struct ExtData {
    sw_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_use: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_size: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_use: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_size: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_use: Option<f64>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_desc: Option<String>,
}

/// Members that the documentation does not have.
#[derive(Serialize)]
struct Uplink {
    version: &'static str,
    period_seconds: u64,
    uptime_seconds: u64,
    delivered: u64,
    backlog: u64,
    dead_letters: u64,
    /// Events that the rings refused because they were full.
    dropped: u64,
    /// Deliveries (an event for one destination) that were lost.
    lost: u64,
    destinations_up: usize,
    destinations: usize,
    last_error_code: Option<&'static str>,
    rings: Vec<Ring>,
}

#[derive(Serialize)]
struct Ring {
    recognizer: &'static str,
    used_percent: Option<u64>,
    published: Option<u64>,
    dropped: Option<u64>,
    last_event_seconds: Option<u64>,
}

/// The report as JSON. `address` is the local address of the connection.
pub(super) fn text(
    address: Option<IpAddr>,
    sender: &Sender,
    period: Duration,
    machine: &mut Machine,
    status: &Status,
) -> Vec<u8> {
    let devices = sender.this_box.sub_devices_file.as_deref().map_or(Ok(Vec::new()), sub_devices::read);
    let (sub_devices, fault) = devices.map_or_else(|why| (Vec::new(), Some(why)), |devices| (devices, None));
    let mut problems = health::problems(status);
    problems.extend(fault);
    let report = Report {
        gateway_ip: address.map_or(String::new(), |address| address.to_string()),
        gateway_name: sender.this_box.name().unwrap_or_default(),
        gateway_status: "online",
        gateway_sn: sender.this_box.serial().unwrap_or_default(),
        dev_sno: sender.this_box.dev_sno.as_deref(),
        gateway_ext_data: ext_data(sender, machine, &problems),
        sub_devices,
        sophon_uplink: uplink(status, period),
    };
    serde_json::to_vec(&report).expect("a report is JSON")
}

fn ext_data(sender: &Sender, machine: &mut Machine, problems: &[String]) -> ExtData {
    let (memory, disk) = (machine::memory(), machine::disk(&sender.spool));
    ExtData {
        sw_version: env!("CARGO_PKG_VERSION"),
        gateway_mac: this_box::mac(),
        cpu_use: machine.cpu_percent(),
        memory_size: memory.map(|memory| memory.size),
        memory_use: memory.map(|memory| memory.percent),
        disk_size: disk.map(|disk| disk.size),
        disk_use: disk.map(|disk| disk.percent),
        status: if problems.is_empty() { "0" } else { "-1" },
        status_desc: (!problems.is_empty()).then(|| problems.join("; ")),
    }
}

fn uplink(status: &Status, period: Duration) -> Uplink {
    let is_up = |one: &&Destination| one.state == "up";
    let failing = status.destinations.iter().filter(|one| !is_up(one));
    let last = failing.min_by_key(|one| one.last_error_seconds.map_or(u64::MAX, |seconds| seconds as u64));
    let shares = &status.shares;
    let states = status.rings.iter().filter_map(|ring| ring.state.as_ref());
    Uplink {
        version: status.version,
        period_seconds: period.as_secs(),
        uptime_seconds: status.uptime_seconds as u64,
        delivered: shares.acknowledged,
        backlog: shares.open + shares.spooled,
        dead_letters: status.spool.dead_letters,
        dropped: states.map(|state| state.dropped).sum(),
        lost: shares.evicted + shares.vanished + shares.expired + shares.quarantined + shares.refused + shares.lost,
        destinations_up: status.destinations.iter().filter(is_up).count(),
        destinations: status.destinations.len(),
        last_error_code: last.and_then(|one| one.last_error_code),
        rings: status.rings.iter().map(ring).collect(),
    }
}

fn ring(ring: &crate::status::Ring) -> Ring {
    let state = ring.state.as_ref();
    Ring {
        recognizer: ring.recognizer,
        used_percent: state.map(|state| 100 * state.used / state.capacity.max(1)),
        published: state.map(|state| state.published),
        dropped: state.map(|state| state.dropped),
        last_event_seconds: ring.last_event_seconds.map(|seconds| seconds as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_that_no_destination_gets_is_lost() {
        let mut status = super::super::tests::idle();
        let shares = &mut status.shares;
        let lost = [
            &mut shares.evicted,
            &mut shares.vanished,
            &mut shares.quarantined,
            &mut shares.refused,
            &mut shares.lost,
            &mut shares.expired,
        ];
        lost.into_iter().enumerate().for_each(|(bit, share)| *share = 1 << bit);
        assert_eq!(uplink(&status, Duration::from_secs(60)).lost, 0b111111);
    }
}
