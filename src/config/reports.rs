//! The box's other reports: all events once per period (`history`) and the box's state (`monitor`). The keys and their spelling
//! are those of the box's documented API.

use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::Url;
use super::fields::Fields;
use super::url::{self, Report};
use crate::body::Format;

/// Key of the destinations of [`History`].
pub const HISTORY_URLS: &str = "history_upload_event_url";
/// Key of the URL of [`Monitor`].
pub const MONITOR_URL: &str = "monitor_server_url";
/// Key of a period.
pub const PERIOD: &str = "reported_peroid";

/// Maximum number of destinations of [`History`]. The spool has room for these, those of `event_server_url` and some removed
/// ones.
const MOST: usize = 8;
/// The range of a period, in seconds.
pub const PERIOD_RANGE: RangeInclusive<u64> = 1..=86_400;
const PERIODS: &str = "seconds, 1 to 86400 (a day)";

/// The report of all events, whatever their score, once per period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// At least one URL; each reports as [`Report::History`].
    pub urls: Vec<Url>,
    /// If false, `reg_pic` is sent as `""`.
    pub with_reg_pic: bool,
    /// How bodies are written.
    pub format: Format,
    /// Time between two rounds of sending.
    pub period: Duration,
}

/// The state report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The URL.
    pub url: Url,
    /// Time between two reports.
    pub period: Duration,
    /// Headers of each report. The values are marked as sensitive. The headers of events are not used: they are for another
    /// server.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

const FORMATS: [(&str, Format); 2] = [("json", Format::Json), ("form-data", Format::FormData)];

/// None if the key is missing or null, or its list is empty.
pub(super) fn history(fields: &mut Fields<'_>) -> Option<History> {
    fields.take_null("history");
    let mut fields = fields.optional_object("history")?;
    let allowed = "a list of at most 8 different http or https URLs";
    let urls = fields.required_list(HISTORY_URLS, allowed, 0..=MOST, url::from_value);
    let history = History {
        urls: urls.into_iter().map(|url| url.with_report(Report::History)).collect(),
        with_reg_pic: fields.boolean("history_need_reg_pic", true),
        format: fields.one_of("content-type", Format::Json, &FORMATS),
        period: period(&mut fields),
    };
    fields.end();
    Some(history).filter(|history| !history.urls.is_empty())
}

/// None if the key is missing or null, or its URL is empty.
pub(super) fn monitor(fields: &mut Fields<'_>) -> Option<Monitor> {
    fields.take_null("monitor");
    let mut fields = fields.optional_object("monitor")?;
    let folder = std::path::Path::new("");
    let allowed = "\"\", or an http or https URL";
    let url = fields.secret(MONITOR_URL, allowed, |value| match value {
        Value::String(text) if text.trim().is_empty() => Some(None),
        value => url::from_value(value, folder).ok().map(Some),
    });
    fields.one_of("content-type", (), &[("json", ())]);
    let (period, headers) = (period(&mut fields), fields.headers("headers"));
    fields.end();
    Some(Monitor { url: url??, period, headers })
}

fn period(fields: &mut Fields<'_>) -> Duration {
    if !fields.has(PERIOD) {
        fields.fault(PERIOD, None, &format!("it is missing; {PERIODS}"));
    }
    let seconds = fields.optional_integer(PERIOD, PERIOD_RANGE, PERIODS);
    Duration::from_secs(seconds.unwrap_or(60))
}
