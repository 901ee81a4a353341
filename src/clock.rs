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
pub const NOT_SET: &str = "the box's clock is not set, so that no certificate can be judged and no signature dated: set the time (NTP, or date -s); uploads over TLS, and signed ones, wait for it";

/// The last second of the year 9999, the last that a date is printed of.
const END_OF_TIME: u64 = 253_402_300_799;

/// The wall clock, in seconds of Unix time; 0 before 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// A time in seconds of Unix time as a date, whatever it is: damaged files and strangers' certificates tell some.
pub fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(END_OF_TIME)))
}

/// How long ago a time in seconds of Unix time was; none where that cannot be told, for the clock was not set then or is not now.
pub fn age(seconds: i64) -> Option<Duration> {
    let was_set = u64::try_from(seconds).ok().filter(|seconds| *seconds >= FLOOR)?;
    is_set().then(|| now().checked_sub(was_set).map(Duration::from_secs)).flatten()
}

/// False: the time is before the program was built.
pub fn is_set() -> bool {
    now() >= BUILT_AT - LAG
}
