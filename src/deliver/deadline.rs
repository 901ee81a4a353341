//! How long is waited for what a destination does, where its way decides that as well: far away, narrow or lossy links take their time.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// An answer that trickles in may take this many times the response timeout in all; a body that shares a narrow link, the progress timeout;
/// a connection over a busy one, the connect timeout.
const TRICKLE: u32 = 6;
/// TCP repeats what was lost after about 3, 9 and 21 round trips: so many without a movement are no sign yet.
const ROUND_TRIPS: u32 = 15;

/// How long a body may stand still, or an answer be waited for, on a way whose round trip takes `rtt`.
pub fn patience(configured: Duration, rtt: Duration) -> Duration {
    configured.max(rtt * ROUND_TRIPS)
}

/// How long it may at the most, whatever is heard meanwhile; `rtt` is how long it took to connect.
pub fn longest(configured: Duration, rtt: Duration) -> Duration {
    patience(configured, rtt) * TRICKLE
}

/// Until when a connection is waited for. It moves while the destination acknowledges bytes on another one: then its link is busy, and not
/// cut.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Arc<Mutex<Instant>>,
    last: Instant,
    bound: Duration,
}

impl Deadline {
    /// `bound` from now.
    pub fn new(bound: Duration) -> Deadline {
        let now = Instant::now();
        Deadline { at: Arc::new(Mutex::new(now + bound)), last: now + bound * TRICKLE, bound }
    }

    /// How long it is at first.
    pub const fn bound(&self) -> Duration {
        self.bound
    }

    /// The destination acknowledged bytes then.
    pub fn heard(&self, at: Instant) {
        let mut known = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(at + self.bound).min(self.last);
    }

    /// Waits for it.
    pub async fn passed(&self) {
        loop {
            let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
            if at <= Instant::now() {
                return;
            }
            sleep_until(at).await;
        }
    }

    /// Waits for `work` until then.
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
