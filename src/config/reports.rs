//! The box's other reports beside the realtime events: all events once a period (`history`), and its state (`monitor`). The keys are
//! those of the box's documented API, with its spelling.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::Url;
use super::fields::Fields;
use super::url::{self, Report};
use crate::body::Format;

/// The key of the destinations of [`History`].
pub const HISTORY_URLS: &str = "history_upload_event_url";
/// The key of the URL of [`Monitor`].
pub const MONITOR_URL: &str = "monitor_server_url";
/// The key of a period.
pub const PERIOD: &str = "reported_peroid";

/// The most destinations of [`History`]. With those of `event_server_url`, and some that were removed, the spool has room for them.
const MOST: usize = 8;
const PERIODS: &str = "seconds, 1 to 86400 (a day)";

/// All events, whatever their score, once a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// At least one; each one's report is [`Report::History`].
    pub urls: Vec<Url>,
    /// False: `reg_pic` is sent as `""`.
    pub with_reg_pic: bool,
    /// How bodies are written.
    pub format: Format,
    /// Between two times at which events are sent.
    pub period: Duration,
}

/// The state report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Where it goes.
    pub url: Url,
    /// Between two of them.
    pub period: Duration,
    /// Sent with each; the values are marked sensitive. Those of the events are for another server.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

const FORMATS: [(&str, Format); 2] = [("json", Format::Json), ("form-data", Format::FormData)];

/// None where the key is not there or null, or its list is empty.
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

/// None where the key is not there or null, or its URL is empty.
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
    let seconds = fields.optional_integer(PERIOD, 1..=86_400, PERIODS);
    Duration::from_secs(seconds.unwrap_or(60))
}
