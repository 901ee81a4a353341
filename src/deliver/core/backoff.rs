//! How long a lane waits after a failure: exponential with full jitter, so that a thousand boxes do not try again at once.

use std::time::Duration;

/// The longest pause after failures of the network or the server.
pub const DOWN_CAP: Duration = Duration::from_secs(60);
/// The shortest and longest pause for a misconfigured destination, which only an operator can fix.
const MISCONFIGURED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// The upper limit of the first pause.
const BASE: Duration = Duration::from_millis(500);

/// A random pause between zero and `500 ms * 2^(failures - 1)`, at most [`DOWN_CAP`]; never shorter than what the server asked
/// for. `failures` counts from 1.
pub fn after_failure(failures: u32, retry_after: Option<Duration>, random: &mut fastrand::Rng) -> Duration {
    let ceiling = BASE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(DOWN_CAP);
    let jittered = ceiling.mul_f64(random.f64());
    match retry_after {
        Some(asked) => asked + jittered.min(Duration::from_secs(5)),
        None => jittered,
    }
}

/// The longer pause for a destination that answers, but not like a receiver of events.
pub fn after_misconfiguration(failures: u32, random: &mut fastrand::Rng) -> Duration {
    let (shortest, longest) = MISCONFIGURED;
    let ceiling = shortest.saturating_mul(1 << failures.min(8)).min(longest);
    shortest + (ceiling - shortest).mul_f64(random.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_jittered_over_their_whole_range_and_stay_under_the_cap() {
        let mut random = fastrand::Rng::with_seed(7);
        for failures in 1..=40 {
            let ceiling = Duration::from_millis(500).saturating_mul(1 << (failures - 1).min(16)).min(DOWN_CAP);
            let pauses: Vec<_> = (0..400).map(|_| after_failure(failures, None, &mut random)).collect();
            assert!(pauses.iter().all(|pause| *pause <= ceiling));
            assert!(pauses.iter().min().unwrap() < &ceiling.mul_f64(0.1));
            assert!(pauses.iter().max().unwrap() > &ceiling.mul_f64(0.9));
        }
    }

    #[test]
    fn what_the_server_asks_for_is_the_least() {
        let mut random = fastrand::Rng::with_seed(7);
        for failures in 1..20 {
            let pause = after_failure(failures, Some(Duration::from_secs(120)), &mut random);
            assert!((120..=125).contains(&pause.as_secs()));
        }
    }

    #[test]
    fn a_misconfigured_destination_waits_from_half_a_minute_to_five() {
        let mut random = fastrand::Rng::with_seed(7);
        for failures in 1..40 {
            assert!((30..=300).contains(&after_misconfiguration(failures, &mut random).as_secs()));
        }
    }
}
