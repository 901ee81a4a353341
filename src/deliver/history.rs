//! Statistics of deliveries: the last hour by minutes, for a plot, and a histogram since the start, for Prometheus.
//!
//! No timer is needed: the minutes are a ring buffer, and a minute is cleared when its slot is used again.

use std::cell::RefCell;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The number of minutes that are kept.
const MINUTES: usize = 60;
/// Upper bounds of the histogram's buckets, in seconds. A longer duration counts only in the total.
pub const BOUNDS: [f64; 8] = [0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0];

/// Deliveries, and how long the last attempt of each took: from its beginning (with a new connection and the signature, if any)
/// to the end of the answer.
#[derive(Debug)]
pub struct History {
    began: Instant,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    /// The last minute since `began` that was used.
    newest: usize,
    minutes: [Minute; MINUTES],
    histogram: Histogram,
}

impl Default for State {
    fn default() -> State {
        State { newest: 0, minutes: [Minute::default(); MINUTES], histogram: Histogram::default() }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    delivered: u32,
    milliseconds: f32,
}

/// The histogram since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Deliveries per bucket: at most its bound of [`BOUNDS`], and more than the bound before.
    pub buckets: [u64; BOUNDS.len()],
    /// All deliveries.
    pub count: u64,
    /// The sum of their durations, in seconds.
    pub sum: f64,
}

/// The last hour by minutes, the oldest first; the last minute is not over yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastHour {
    /// Deliveries per minute.
    pub delivered: Vec<u32>,
    /// Their mean duration in milliseconds; none if there were none.
    pub mean_ms: Vec<Option<f32>>,
}

impl Default for History {
    fn default() -> History {
        History { began: Instant::now(), state: RefCell::default() }
    }
}

impl History {
    /// An event was acknowledged after `took`.
    pub fn delivered(&self, took: Duration) {
        let state = &mut *self.state.borrow_mut();
        let minute = state.minute(self.began.elapsed());
        minute.delivered += 1;
        minute.milliseconds += took.as_secs_f32() * 1000.0;
        state.histogram.count += 1;
        state.histogram.sum += took.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            state.histogram.buckets[bucket] += 1;
        }
    }

    /// The last hour.
    pub fn last_hour(&self) -> LastHour {
        let state = &mut *self.state.borrow_mut();
        state.minute(self.began.elapsed());
        let minutes = (1..=MINUTES).map(|ago| state.minutes[(state.newest + ago) % MINUTES]);
        let (delivered, mean_ms) = minutes
            .map(|minute| {
                let mean = minute.milliseconds / minute.delivered as f32;
                (minute.delivered, (minute.delivered > 0).then_some((mean * 10.0).round() / 10.0))
            })
            .unzip();
        LastHour { delivered, mean_ms }
    }

    /// The histogram since the start.
    pub fn histogram(&self) -> Histogram {
        self.state.borrow().histogram
    }
}

impl State {
    /// The minute of `now`; clears the minutes since the last used one.
    fn minute(&mut self, now: Duration) -> &mut Minute {
        let number = (now.as_secs() / 60) as usize;
        for passed in (self.newest + 1..=number).rev().take(MINUTES) {
            self.minutes[passed % MINUTES] = Minute::default();
        }
        self.newest = self.newest.max(number);
        &mut self.minutes[self.newest % MINUTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(state: &mut State, minutes: u64, count: u32) {
        state.minute(Duration::from_secs(minutes * 60)).delivered += count;
    }

    #[test]
    fn an_hour_later_nothing_is_left_of_a_minute() {
        let mut state = State::default();
        after(&mut state, 0, 1);
        after(&mut state, 1, 2);
        after(&mut state, 59, 3);
        assert_eq!(state.minutes.iter().map(|minute| minute.delivered).sum::<u32>(), 6);
        after(&mut state, 60, 4);
        assert_eq!(state.minutes[0].delivered, 4, "in the place of the first");
        assert_eq!(state.minutes.iter().map(|minute| minute.delivered).sum::<u32>(), 9);
        after(&mut state, 500, 5);
        assert_eq!(state.minutes.iter().map(|minute| minute.delivered).sum::<u32>(), 5);
    }

    #[test]
    fn the_newest_minute_is_last_and_each_delivery_is_in_one_bucket() {
        let history = History::default();
        [3, 7, 7, 600_000].map(Duration::from_millis).into_iter().for_each(|took| history.delivered(took));
        let hour = history.last_hour();
        assert_eq!((hour.delivered.len(), hour.delivered[MINUTES - 1], hour.delivered[0]), (MINUTES, 4, 0));
        assert_eq!((hour.mean_ms[MINUTES - 1], hour.mean_ms[0]), (Some(150_004.3), None));
        let histogram = history.histogram();
        assert_eq!((histogram.count, &histogram.buckets[..3]), (4, &[1, 2, 0][..]));
        assert_eq!(histogram.buckets.iter().sum::<u64>(), 3, "ten minutes are beyond every bound");
        assert!((histogram.sum - 600.017).abs() < 1e-6);
    }
}
