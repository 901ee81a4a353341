//! Whether the wall clock can be right: a box without a battery starts in 1970 until somebody, or NTP, sets it.
//!
//! Two things depend on it: what is printed, and whether certificates are valid. So TLS waits until it is set; nothing else does.

use std::time::{Duration, SystemTime};

/// No program is older, whatever its build says: 2026-01-01, in seconds of Unix time.
const FLOOR: u64 = 1_767_225_600;
/// The clock of a box may lag behind that of who built the program, in seconds.
const LAG: u64 = 24 * 3600;

/// When the program was built, in seconds of Unix time: the build's `SOURCE_DATE_EPOCH`, so that the same sources give the same bytes.
const BUILT_AT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(epoch) => match u64::from_str_radix(epoch, 10) {
        Ok(seconds) if seconds > FLOOR => seconds,
        Ok(_) => FLOOR,
        Err(_) => panic!("SOURCE_DATE_EPOCH is not a number of seconds"),
    },
    None => FLOOR,
};

/// What is said where something waits for it, and what to do.
pub const NOT_SET: &str = "the box's clock is not set, so that no certificate can be judged: set the time (NTP, or date -s); uploads over TLS wait for it";

/// False: the time is before the program was built.
pub fn is_set() -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    now.as_secs() >= BUILT_AT - LAG
}
