//! Runs random histories of answers, spool failures, reloads and full rings, and checks the invariants that hold in all of them.
//!
//! [`history`] generates histories and shrinks one that fails. [`world`] simulates everything outside the core, and checks the
//! invariants at every step. [`fairness`] measures what a bad event or a failing destination costs the others. [`promises`] has
//! short tests for what a random history rarely reaches. `MODEL_HISTORIES` sets the number of histories, `MODEL_SEED` repeats
//! one.

mod fairness;
mod history;
mod promises;
mod world;

use std::time::Duration;

use history::History;
use world::servers::{Answer, Mode};

/// The response timeout of all destinations.
const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn whatever_happens_every_delivery_comes_to_its_end_once_and_none_holds_up_another() {
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = read("MODEL_HISTORIES").unwrap_or(1000);
    let first = read("MODEL_SEED").unwrap_or_else(|| fastrand::u64(..1 << 40));
    let count = if std::env::var_os("MODEL_SEED").is_some() && read("MODEL_HISTORIES").is_none() { 1 } else { count };
    println!("MODEL_SEED={first} and the {count} from it on");
    let began = std::time::Instant::now();
    std::panic::set_hook(Box::new(|_| ())); // a failure is reported below
    for number in 0..count {
        let history = History::random(first.wrapping_add(number));
        if history.run().is_err() {
            let seed = history.seed;
            let shrunk = history.shrunk();
            let why = shrunk.run().unwrap_err();
            let _ = std::panic::take_hook();
            let steps: String = shrunk.steps.iter().map(|(pause, step)| format!("  {pause} ms: {step:?}\n")).collect();
            panic!("MODEL_SEED={seed}: {why}\n{steps}");
        }
        if number % 100_000 == 99_999 {
            println!("{} of {count} histories, {} s", number + 1, began.elapsed().as_secs());
        }
    }
    let _ = std::panic::take_hook();
}
