//! The configuration file. Checking turns the written text into a checked config, or into a list of all its faults.
//!
//! ```text
//!  bytes ──▶ text ──serde_json──▶ Value ──[`Fields`], one take per key──▶ Config
//!                                           └── faults: key, value, what is allowed
//! ```
//!
//! Nothing falls back to a default silently. A wrong value is a fault even if the key has a default, and so is an unknown key.
//! Checking does no I/O. Values of `headers` are secrets and never appear in a fault.

pub mod answers;
pub mod constants;
pub mod document;
mod fault;
mod fields;
mod idn;
mod objects;
pub mod proxy;
mod repeated;
pub mod reports;
mod rings;
pub mod save;
pub mod sending;
pub mod text;
pub mod this_box;
mod url;

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::body::{BodyOptions, Format, TimestampUnit};
pub use fault::{ConfigError, ConfigFault};
use fields::Fields;
pub use objects::{Api, Options, Sign, Spool, Timeouts, TlsFiles};
use objects::{api, health, options, privileges, spool, timeouts, tls};
use proxy::Proxy;
use reports::{History, Monitor};
use this_box::ThisBox;
pub use url::{Report, Url, is_forbidden_address, without_brackets};

/// Path of the file on a box.
pub const DEFAULT_PATH: &str = "/system/data/sophon_gate/config/sophon-uplink.json";

/// Where the API listens by default.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5555);

/// The folder of the file at `path`.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Rings to attach to; at least one.
    pub rings: Vec<PathBuf>,
    /// Each of these gets every event whose score reaches the threshold; see [`Config::destinations`].
    pub event_server_url: Vec<Url>,
    /// How bodies are written.
    pub body: BodyOptions,
    /// Events with a lower score are not sent. Scores are compared as f32, because recognizers use f32.
    pub threshold: Threshold,
    /// The proxy for destinations.
    pub proxy: Option<Arc<Proxy>>,
    /// Members that every event of this box gets.
    pub constants: constants::Written,
    /// The report of all events, once per period.
    pub history: Option<History>,
    /// The state report.
    pub monitor: Option<Monitor>,
    /// The names of this box.
    pub this_box: ThisBox,
    /// Options for every destination.
    pub options: Options,
    /// Options of some destinations, instead of `options`. As in `tls_destinations`, a URL need not be in `event_server_url`.
    pub own_options: Vec<(Url, Options)>,
    /// Headers of every request. The values are marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Certificate files.
    pub tls: TlsFiles,
    /// Certificate files of some destinations, instead of `tls`. A URL need not be in `event_server_url`: if the API removes a
    /// destination and adds it again, it has its files again.
    pub tls_destinations: Vec<(Url, TlsFiles)>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Stores events for a destination that is down.
    pub spool: Spool,
    /// The local HTTP API.
    pub api: Api,
    /// A longer time without an event is unhealthy. Zero: no limit.
    pub max_silence: Duration,
    /// Whether a system call that the uplink does not need ends the process.
    pub seccomp: bool,
}

/// A finite f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold(pub f32);

impl Eq for Threshold {} // never NaN

/// Maximum size of a configuration file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault; a file that cannot be read or is not JSON is one fault.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let bytes = read_file(path).map_err(|error| whole(path, format!("it cannot be read: {error}")))?;
        Config::of_text(&bytes, path)
    }

    /// Checks `text`, the present or the future content of the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn of_text(text: &[u8], path: &Path) -> Result<Config, ConfigError> {
        let text = text::of(text).map_err(|why| whole(path, why))?;
        let value = serde_json::from_str(text).map_err(|error| whole(path, format!("it is not JSON: {error}")))?;
        let checked = Config::check(value, folder_of(path));
        let repeated = repeated::keys(text);
        match checked {
            Ok(config) if repeated.is_empty() => Ok(config),
            checked => {
                let faults = checked.err().into_iter().flatten().chain(repeated).collect();
                Err(ConfigError { path: path.to_owned(), faults })
            }
        }
    }

    /// Checks the written value; relative paths start at `folder`.
    ///
    /// # Errors
    /// Every fault.
    pub fn check(written: Value, folder: &Path) -> Result<Config, Vec<ConfigFault>> {
        if !written.is_object() {
            return Err(vec![ConfigFault {
                key: "the file".into(),
                value: None,
                allowed: "it must hold a JSON object".into(),
            }]);
        }
        let mut faults = Vec::new();
        let mut fields = Fields::of("", written, folder, &mut faults);
        let (tls, tls_destinations) = tls(fields.object("tls"));
        let this_box = ThisBox::take(&mut fields);
        let constants = constants::Written::take(&mut fields, &this_box);
        let own_options = fields.by_url("destinations", false, |fields| {
            let standby = sending::standby(fields);
            Options { standby, ..options(fields) }
        });
        let config = Config {
            rings: fields
                .list("rings", "a list of 1 to 16 different paths", 1..=16, fields::path)
                .unwrap_or_else(|| vec![PathBuf::from("/dev/shm/sophonfog.events")]),
            event_server_url: fields.required_list(
                "event_server_url",
                "a list of at most 16 different http or https URLs",
                0..=16,
                url::from_value,
            ),
            body: BodyOptions {
                with_reg_pic: fields.boolean("real_need_reg_pic", true),
                format: fields.one_of(
                    "content-type",
                    Format::Json,
                    &[("json", Format::Json), ("form-data", Format::FormData)],
                ),
                timestamp_unit: fields.one_of(
                    "timestamp_unit",
                    TimestampUnit::Seconds,
                    &[("s", TimestampUnit::Seconds), ("ms", TimestampUnit::Milliseconds)],
                ),
            },
            threshold: Threshold(fields.finite("threshold", 0.0)),
            proxy: Proxy::take(&mut fields).map(Arc::new),
            constants,
            history: reports::history(&mut fields),
            monitor: reports::monitor(&mut fields),
            this_box,
            options: options(&mut fields),
            own_options,
            headers: fields.headers("headers"),
            tls,
            tls_destinations,
            timeouts: timeouts(fields.object("timeouts_ms")),
            spool: spool(fields.object("spool")),
            api: api(fields.object("api")),
            max_silence: health(fields.object("health")),
            seccomp: privileges(fields.object("privileges")),
        };
        fields.end();
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// The destinations of both reports.
    pub fn destinations(&self) -> impl Iterator<Item = &Url> {
        self.event_server_url.iter().chain(self.history.iter().flat_map(|history| &history.urls))
    }

    /// Whether any report is sent to this URL.
    pub fn has_server(&self, url: &Url) -> bool {
        let monitor = self.monitor.iter().map(|monitor| &monitor.url);
        self.destinations().chain(monitor).any(|known| known.is_same_server_as(url))
    }

    /// Warnings for a person: settings that are allowed but may be mistakes.
    pub fn warnings(&self) -> Vec<String> {
        let of_tls = self.tls_destinations.iter().map(|(url, _)| (url, tls_key(url)));
        let own = self.own_options.iter().map(|(url, _)| (url, format!("destinations.\"{url}\"")));
        let idle = of_tls.chain(own).filter(|(url, _)| !self.has_server(url));
        let idle = idle.map(|(_, key)| format!("{key}: not in use, because no report is sent to this URL"));
        let doubles = rings::doubles(&self.rings).into_iter().map(|(later, earlier)| {
            format!("rings[{later}]: the same ring as rings[{earlier}], and read as that one: remove one of the two")
        });
        let environment = proxy::in_environment().filter(|_| self.proxy.is_none());
        let environment =
            environment.map(|name| format!("{name} of the environment is not used: set proxy.url in the config"));
        idle.chain(doubles).chain(environment).collect()
    }

    /// The options that apply to a destination.
    pub fn options_of(&self, url: &Url) -> Options {
        let own = self.own_options.iter().find(|(known, _)| known.is_same_server_as(url)).map(|(_, own)| own.clone());
        let own = own.unwrap_or_default();
        Options {
            answers: own.answers.or_else(|| self.options.answers.clone()),
            accept_body: own.accept_body.or_else(|| self.options.accept_body.clone()),
            sign: own.sign.or_else(|| self.options.sign.clone()),
            order: own.order.or(self.options.order),
            order_gives_up: own.order_gives_up.or(self.options.order_gives_up),
            bounds: own.bounds.or(self.options.bounds),
            standby: own.standby,
        }
    }
}

/// The key under which a destination's entry is named.
pub fn tls_key(url: &Url) -> String {
    format!("tls.destinations.\"{url}\"")
}

/// A fault of the whole file.
fn whole(path: &Path, allowed: String) -> ConfigError {
    ConfigError { path: path.to_owned(), faults: vec![ConfigFault { key: "the file".into(), value: None, allowed }] }
}

/// Reads a file of at most 1 MiB. Refuses an endless device and a pipe without a writer.
///
/// # Errors
/// Errors of the file system.
pub fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}
