//! What a gateway counts, for Prometheus and for the log; docs/fleet.md has the table.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sophon_uplink::rate_limited::RateLimited;
use sophon_uplink::serve::exposition::Text;
use tracing::{error, warn};

use super::engine::Engine;
use super::outcome::Trouble;
use crate::error::ApiError;
use crate::store::Budget;

/// Upper bounds of the times of acks, in seconds.
const BOUNDS: [f64; 10] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 2.0, 8.0];

/// See the module.
pub struct Metrics {
    published: AtomicU64,
    duplicates: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    alarms: Mutex<BTreeMap<&'static str, u64>>,
    acks: Mutex<Acks>,
    log_limiter: Mutex<RateLimited>,
}

/// How long acks took.
#[derive(Default)]
struct Acks {
    /// Each counts those up to its bound and above the one before.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            published: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            refused: Mutex::default(),
            alarms: Mutex::default(),
            acks: Mutex::default(),
            log_limiter: Mutex::new(RateLimited::new(3)),
        }
    }
}

impl Metrics {
    /// Counts an ack, that of a duplicate too.
    pub fn acknowledged(&self, duplicate: bool, took: Duration) {
        let counter = if duplicate { &self.duplicates } else { &self.published };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut acks = lock(&self.acks);
        acks.count += 1;
        acks.seconds += took.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            acks.buckets[bucket] += 1;
        }
    }

    /// Counts what was not taken. What a sender can cause as often as it likes fills no log.
    pub fn refused(&self, refusal: &ApiError) {
        let reason = if refusal.incomplete { "incomplete" } else { refusal.reason };
        *lock(&self.refused).entry(reason).or_default() += 1;
        let (status, errors) = (refusal.status.as_u16(), refusal.errors.join("; "));
        lock(&self.log_limiter).say_of((reason, 0), |more| warn!("answered {status} ({reason}): {errors}{more}"));
    }

    /// Counts what somebody has to look at.
    pub fn alarm(&self, trouble: &Trouble) {
        *lock(&self.alarms).entry(trouble.reason).or_default() += 1;
        let text = &trouble.text;
        lock(&self.log_limiter).say_of((trouble.reason, 1), |more| error!("ALARM: {text}{more}"));
    }

    /// The page.
    pub fn text(&self, budget: Budget, engine: &Engine) -> String {
        let mut text = Text::new("sophon_gateway_");
        let state = engine.state();
        text.family("build_info", "gauge", "The program's version.");
        text.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.one("ready", "gauge", "1 while all is well, as /healthz says.", u8::from(engine.fault().is_none()));
        text.one(
            "stream_fullness_ratio",
            "gauge",
            "How full the stream is, in bytes or messages, whichever limit is nearer.",
            state.fullness,
        );
        text.one("stream_copies", "gauge", "Number of copies that the stream should have.", state.copies.all);
        text.one("stream_copies_current", "gauge", "Copies of the stream that are complete.", state.copies.current);
        text.one(
            "published_total",
            "counter",
            "Messages that the stream has acknowledged as new.",
            self.published.load(Ordering::Relaxed),
        );
        text.one(
            "duplicates_total",
            "counter",
            "Messages that the stream already had.",
            self.duplicates.load(Ordering::Relaxed),
        );
        let by_reason = |text: &mut Text, name: &str, help: &str, counts: &BTreeMap<&str, u64>| {
            text.family(name, "counter", help);
            for (reason, count) in counts {
                text.sample(name, &[("reason", reason)], count);
            }
        };
        by_reason(&mut text, "refused_total", "Requests that were not answered with 200.", &lock(&self.refused));
        by_reason(&mut text, "alarms_total", "Faults that need a person.", &lock(&self.alarms));
        text.one("in_flight_bytes", "gauge", "Size of the bodies in memory.", budget.used);
        text.one("in_flight_limit_bytes", "gauge", "Limit of the bodies in memory.", budget.limit);
        let acks = lock(&self.acks);
        let (help, buckets) =
            ("Time from the end of a body to the stream's acknowledgement.", BOUNDS.into_iter().zip(acks.buckets));
        text.histogram("ack_seconds", help, buckets, (acks.count, acks.seconds));
        text.finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
