//! Limits the bytes per second over all connections that share a bound. Bytes are sent in small pieces, each followed by a pause,
//! so that other users of the link can send in between.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A piece is what the rate allows in this time, ...
const PIECE: Duration = Duration::from_millis(100);
/// ... but not less than a segment, in bytes.
const LEAST: usize = 1460;

/// A connection that sent the last piece waits this much longer than the others that share the limit.
pub const OTHERS_FIRST: Duration = Duration::from_millis(2);
/// A sender loses nothing if it comes at most this much later than it could: more than [`OTHERS_FIRST`], because timers are late.
const LATE: Duration = Duration::from_millis(10);

/// A rate limit, in bytes a second.
#[derive(Debug)]
pub struct Rate {
    per_second: u32,
    /// The time until which the bytes sent so far use up the rate.
    paid_at: Mutex<Instant>,
}

impl Rate {
    /// A limit of which nothing is used yet.
    pub fn new(bytes_per_second: u32) -> Rate {
        Rate { per_second: bytes_per_second.max(1), paid_at: Mutex::new(Instant::now()) }
    }

    /// How many of `wanted` bytes may be sent now.
    ///
    /// # Errors
    /// No byte may be sent: when to try again.
    pub fn allowed(&self, wanted: usize, now: Instant) -> Result<usize, Instant> {
        let paid_at = *self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = (f64::from(self.per_second) * PIECE.as_secs_f64()) as usize;
        if paid_at > now { Err(paid_at) } else { Ok(wanted.min(piece.max(LEAST))) }
    }

    /// Records that bytes were sent.
    pub fn pay(&self, bytes: usize, now: Instant) {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = now.checked_sub(LATE).unwrap_or(now);
        *paid_at = (*paid_at).max(from) + Duration::from_secs_f64(bytes as f64 / f64::from(self.per_second));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_wanted_no_more_goes_out_than_is_allowed() {
        let seed = fastrand::u64(..);
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        // A sender whose timer is late gets as much.
        let rates = [1000, 50_000, 1_000_000].into_iter();
        for (per_second, late_ms) in rates.flat_map(|rate| [0, 3].map(|late_ms| (rate, late_ms))) {
            let began = Instant::now();
            let rate = Rate::new(per_second);
            let (mut now, mut gone) = (began, 0);
            while now < began + Duration::from_secs(600) {
                match rate.allowed(random.usize(1..200_000), now) {
                    Ok(bytes) => {
                        rate.pay(bytes, now);
                        gone += bytes;
                    }
                    Err(at) => now = at + Duration::from_millis(late_ms),
                }
            }
            let most = f64::from(per_second) * (now - began).as_secs_f64();
            assert!((0.99..=1.01).contains(&(gone as f64 / most)), "{gone} bytes of {most}");
        }
    }
}
