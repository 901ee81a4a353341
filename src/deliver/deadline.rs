//! How long to wait for a destination. The round-trip time counts as well, because distant, narrow or lossy links take longer.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The longest wait in all, as a multiple: of the response timeout for an answer that arrives slowly, of the progress timeout for
/// a body on a shared narrow link, of the connect timeout for a connection over a busy link.
const TRICKLE: u32 = 6;
/// TCP retransmits a lost segment after about 3, 9 and 21 round trips, so this many without progress do not mean a failure yet.
const ROUND_TRIPS: u32 = 15;

/// How long to wait for progress or an answer, with a round-trip time of `rtt`.
pub fn patience(configured: Duration, rtt: Duration) -> Duration {
    configured.max(rtt * ROUND_TRIPS)
}

/// The longest wait in all, whatever is received meanwhile; `rtt` is how long it took to connect.
pub fn longest(configured: Duration, rtt: Duration) -> Duration {
    patience(configured, rtt) * TRICKLE
}

/// The deadline for a connection to be made. It moves while the destination acknowledges bytes on another connection: the link is
/// busy then, not cut.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Arc<Mutex<Instant>>,
    last: Instant,
    bound: Duration,
}

impl Deadline {
    /// A deadline `bound` from now.
    pub fn new(bound: Duration) -> Deadline {
        let now = Instant::now();
        Deadline { at: Arc::new(Mutex::new(now + bound)), last: now + bound * TRICKLE, bound }
    }

    /// The initial time until the deadline.
    pub const fn bound(&self) -> Duration {
        self.bound
    }

    /// The destination acknowledged bytes at this time.
    pub fn heard(&self, at: Instant) {
        let mut known = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(at + self.bound).min(self.last);
    }

    /// Waits until the deadline has passed.
    pub async fn passed(&self) {
        loop {
            let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
            if at <= Instant::now() {
                return;
            }
            sleep_until(at).await;
        }
    }

    /// Waits for `work` until the deadline.
    pub async fn wait_for<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.passed() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moves_while_the_destination_is_heard_and_not_for_ever() {
        let bound = Duration::from_secs(5);
        let took = async |heard_for: Duration| {
            let (began, deadline) = (Instant::now(), Deadline::new(bound));
            let hear = async {
                while began.elapsed() < heard_for {
                    deadline.heard(Instant::now());
                    sleep(Duration::from_secs(1)).await;
                }
                std::future::pending::<()>().await;
            };
            assert!(deadline.wait_for(hear).await.is_none());
            began.elapsed().as_secs()
        };
        assert_eq!(took(Duration::ZERO).await, 5);
        assert_eq!(took(Duration::from_secs(10)).await, 9 + 5);
        assert_eq!(took(Duration::MAX).await, 5 * u64::from(TRICKLE));
    }
}
