//! Whether the wall clock can be right: a box without a battery starts in 1970 until somebody, or NTP, sets the time.
//!
//! The clock matters for printed times, for signatures and for the validity of certificates. So TLS and signed uploads wait until
//! the clock is set; nothing else does.

use std::time::{Duration, SystemTime};

/// Lower limit for the build time, whatever the build says: 2026-01-01, in seconds of Unix time.
const FLOOR: u64 = 1_767_225_600;
/// How far the clock of a box may lag behind the clock of the build machine, in seconds.
const LAG: u64 = 24 * 3600;

/// The build time, in seconds of Unix time: the build's `SOURCE_DATE_EPOCH`, so that the same sources give the same bytes.
const BUILT_AT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(epoch) => match u64::from_str_radix(epoch, 10) {
        Ok(seconds) if seconds > FLOOR => seconds,
        Ok(_) => FLOOR,
        Err(_) => panic!("SOURCE_DATE_EPOCH is not a number of seconds"),
    },
    None => FLOOR,
};

/// The message while something waits for the clock, with what to do.
pub const NOT_SET: &str = "the box's clock is not set, so certificates cannot be checked and signatures cannot be dated: set the time (NTP, or date -s); uploads over TLS and signed uploads wait for it";

/// The last second of the year 9999: the last date that is printed.
const END_OF_TIME: u64 = 253_402_300_799;

/// The wall clock, in seconds of Unix time; 0 before 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Formats a time in seconds of Unix time as a date. Accepts every value: damaged files and foreign certificates contain wild
/// ones.
pub fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(END_OF_TIME)))
}

/// How long ago a time in seconds of Unix time was; none if unknown, because the clock was not set then or is not set now.
pub fn age(seconds: i64) -> Option<Duration> {
    let was_set = u64::try_from(seconds).ok().filter(|seconds| *seconds >= FLOOR)?;
    is_set().then(|| now().checked_sub(was_set).map(Duration::from_secs)).flatten()
}

/// False if the time is before the program was built.
pub fn is_set() -> bool {
    now() >= BUILT_AT - LAG
}
