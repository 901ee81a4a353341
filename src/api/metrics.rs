//! `GET /metrics`: the status in Prometheus's text format. docs/api.md has the table.
//!
//! There are few labels: a ring's file, a destination's position in the config and its server. These metrics need no token, so
//! they contain no secret.

use crate::deliver::history::{BOUNDS, Histogram};
use crate::health::{problems, server};
use crate::serve::exposition::Text;
use crate::status::{Destination, Ring, Status};

/// The metrics as text.
pub fn text(status: &Status, uploads: &Histogram) -> String {
    let mut text = Text::new("sophon_uplink_");
    process(&mut text, status);
    events(&mut text, status);
    rings(&mut text, status);
    storage(&mut text, status);
    destinations(&mut text, &status.destinations);
    text.histogram(
        "upload_duration_seconds",
        "Uploads that were acknowledged: from the request to the answer.",
        BOUNDS.into_iter().zip(uploads.buckets),
        (uploads.count, uploads.sum),
    );
    text.finish()
}

fn process(text: &mut Text, status: &Status) {
    text.family("build_info", "gauge", "The program's version.");
    text.sample("build_info", &[("version", status.version)], 1);
    text.one("uptime_seconds", "gauge", "Time since the start.", status.uptime_seconds);
    text.one(
        "healthy",
        "gauge",
        "1 while events make progress, as /healthz says.",
        u8::from(problems(status).is_empty()),
    );
    text.one(
        "clock_is_set",
        "gauge",
        "0: the box's clock is before the program was built.",
        u8::from(status.clock_is_set),
    );
    text.one(
        "randomness_is_ready",
        "gauge",
        "0: the kernel has no random numbers yet.",
        u8::from(status.randomness_is_ready),
    );
}

fn events(text: &mut Text, status: &Status) {
    let events = &status.events;
    text.one("events_read_total", "counter", "Events taken out of the rings.", events.read);
    text.one("events_filtered_total", "counter", "Events below the threshold.", events.filtered);
    text.one("events_malformed_total", "counter", "Events that cannot be read.", events.malformed);
    text.one(
        "events_mended_total",
        "counter",
        "Events that the uplink repaired, or that a receiver may refuse; the log says why.",
        status.events_mended,
    );
    let shares = &status.shares;
    text.family("deliveries_total", "counter", "Deliveries (an event for one destination) that came to an end.");
    for (outcome, count) in [
        ("acknowledged", shares.acknowledged),
        ("dead", shares.dead),
        ("expired", shares.expired),
        ("evicted", shares.evicted),
        ("quarantined", shares.quarantined),
        ("vanished", shares.vanished),
        ("refused", shares.refused),
        ("lost", shares.lost),
        ("handed_over", shares.handed_over),
    ] {
        text.sample("deliveries_total", &[("outcome", outcome)], count);
    }
    text.family("deliveries_waiting", "gauge", "Deliveries that are still to be made.");
    text.sample("deliveries_waiting", &[("place", "memory")], shares.open);
    text.sample("deliveries_waiting", &[("place", "spool")], shares.spooled);
}

fn rings(text: &mut Text, status: &Status) {
    text.one("rings_corrupt_total", "counter", "Times that a ring was found corrupt.", status.rings_corrupt);
    let paths: Vec<_> = status.rings.iter().map(|ring| ring.path.display().to_string()).collect();
    let mut family = |name: &str, kind, help, value: fn(&Ring) -> Option<f64>| {
        text.family(name, kind, help);
        for (ring, path) in status.rings.iter().zip(&paths) {
            if let Some(value) = value(ring) {
                text.sample(name, &[("ring", path)], value);
            }
        }
    };
    family("ring_capacity_bytes", "gauge", "Room for records.", |ring| Some(ring.state.as_ref()?.capacity as f64));
    family("ring_used_bytes", "gauge", "Bytes published and not released.", |ring| {
        Some(ring.state.as_ref()?.used as f64)
    });
    family("ring_dropped_events_total", "counter", "Events refused because the ring was full.", |ring| {
        Some(ring.state.as_ref()?.dropped as f64)
    });
    family("ring_recognizer_alive", "gauge", "0: no recognizer has it open.", |ring| {
        Some(f64::from(ring.recognizer == "alive"))
    });
    family("ring_recognizer_died", "gauge", "1: its recognizer ended without closing it.", |ring| {
        Some(f64::from(ring.recognizer == "died"))
    });
    family("ring_removed", "gauge", "1: its file was removed while its recognizer uses it.", |ring| {
        Some(f64::from(ring.is_removed))
    });
    family(
        "ring_last_event_seconds",
        "gauge",
        "How long ago an event came; none since the start: no sample.",
        |ring| ring.last_event_seconds,
    );
}

fn storage(text: &mut Text, status: &Status) {
    let spool = &status.spool;
    text.one("spool_usable", "gauge", "0: events cannot be stored.", u8::from(spool.is_usable));
    text.one("spool_bytes", "gauge", "Size of events, dead letters and quarantined files.", spool.bytes);
    text.one("spool_limit_bytes", "gauge", "The most that it may take.", spool.max_bytes);
    text.one("spool_dead_letters", "gauge", "Refused events that are kept.", spool.dead_letters);
    text.one(
        "spool_dead_letters_evicted_total",
        "counter",
        "Refused events that were kept, and given up for want of room.",
        spool.dead_letters_evicted,
    );
    text.one(
        "spool_parked_events",
        "gauge",
        "Events that wait for destinations that are not in the config any more.",
        spool.parked.iter().map(|parked| parked.events).sum::<u64>(),
    );
    text.one("spool_locked_events", "gauge", "Spooled events that another key opens.", spool.locked);
    text.one("spool_written_bytes_total", "counter", "Written to the disk since the start.", spool.bytes_written);
}

fn destinations(text: &mut Text, destinations: &[Destination]) {
    let places: Vec<_> = (1..=destinations.len()).map(|place| place.to_string()).collect();
    let mut family = |name: &str, kind, help, value: fn(&Destination) -> f64| {
        text.family(name, kind, help);
        for (destination, place) in destinations.iter().zip(&places) {
            let labels = [
                ("destination", place.as_str()),
                ("server", server(&destination.url)),
                ("report", "history"), // only these get the label: other series keep the labels they always had
            ];
            let is_history = destination.period_seconds.is_some();
            text.sample(name, if is_history { &labels } else { &labels[..2] }, value(destination));
        }
    };
    family("destination_up", "gauge", "1 while deliveries succeed.", |destination| {
        f64::from(destination.state == "up")
    });
    family("destination_waits_for_clock", "gauge", "1: it needs TLS, and the box's clock is not set.", |destination| {
        f64::from(destination.state == "clock not set")
    });
    family(
        "destination_waits_for_randomness",
        "gauge",
        "1: it needs TLS, and the kernel has no random numbers yet.",
        |destination| f64::from(destination.state == "randomness not ready"),
    );
    family("destination_state_seconds", "gauge", "For how long it has been up, or not.", |destination| {
        destination.since_seconds
    });
    family(
        "destination_waiting_events",
        "gauge",
        "Events that wait for it, in memory and in the spool.",
        |destination| (destination.in_flight + destination.queued + destination.backlog.events) as f64,
    );
    family("destination_spooled_bytes", "gauge", "What its events take in the spool.", |destination| {
        destination.backlog.bytes as f64
    });
    family("destination_acknowledged_total", "counter", "Events it acknowledged.", |destination| {
        destination.acknowledged as f64
    });
    family("destination_failed_tries_total", "counter", "Tries that came to nothing.", |destination| {
        destination.failed_tries as f64
    });
    family("destination_evicted_total", "counter", "Events given up for newer ones.", |destination| {
        destination.evicted as f64
    });
    family("destination_dead_total", "counter", "Events it refused.", |destination| destination.dead as f64);
    family("destination_dead_last_hour", "gauge", "Events that it refused in the last hour.", |destination| {
        destination.last_hour.dead as f64
    });
    family(
        "destination_acknowledged_last_hour",
        "gauge",
        "Events that it acknowledged in the last hour.",
        |destination| destination.last_hour.acknowledged as f64,
    );
}
