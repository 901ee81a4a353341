//! Time as this machine lets it pass: for what is promised in seconds, on a machine whose cores are all busy.
//!
//! A thread naps and counts its naps. What keeps the measured program waiting for a core or for its timers keeps the naps
//! waiting, too: so a promise of 2 s is held to the length of 2 s of naps in the same run, not to the clock on the wall.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const NAP: Duration = Duration::from_millis(5);

/// Counts from its start until it is dropped.
pub struct Naps(Arc<AtomicU32>);

impl Naps {
    pub fn start() -> Naps {
        let taken = Arc::new(AtomicU32::new(0));
        let counted = Arc::downgrade(&taken);
        thread::spawn(move || {
            while let Some(taken) = counted.upgrade() {
                thread::sleep(NAP);
                taken.fetch_add(1, Ordering::SeqCst);
            }
        });
        Naps(taken)
    }

    /// How much time the naps had.
    pub fn passed(&self) -> Duration {
        NAP * self.0.load(Ordering::SeqCst)
    }
}
