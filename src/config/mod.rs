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
mod fields;
mod idn;
pub mod proxy;
mod repeated;
pub mod reports;
mod rings;
pub mod save;
pub mod sending;
pub mod text;
pub mod this_box;
mod url;

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::body::{BodyOptions, Format, TimestampUnit};
use answers::{AcceptBody, Answers};
use fields::Fields;
use proxy::Proxy;
use reports::{History, Monitor};
use sending::{Bounds, Order};
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

/// Options that may differ between destinations. None: the option for all destinations, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The meaning of statuses.
    pub answers: Option<Answers>,
    /// What an acknowledgement must contain.
    pub accept_body: Option<AcceptBody>,
    /// How requests are signed.
    pub sign: Option<Sign>,
    /// The order in which events are sent.
    pub order: Option<Order>,
    /// With strict order: how long an event that the server does not take may delay the events after it. Zero: without limit.
    pub order_gives_up: Option<Duration>,
    /// Limits on the use of the link.
    pub bounds: Option<Bounds>,
    /// Standby servers, used while the destination's own server does not answer, in this order. Only for single destinations,
    /// never for all.
    pub standby: Vec<Url>,
}

/// How requests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The header that contains the signature.
    pub header: HeaderName,
    /// The file with the key.
    pub key_file: PathBuf,
}

/// A finite f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold(pub f32);

impl Eq for Threshold {} // never NaN

/// Certificates and keys, as PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// CAs that are trusted in addition to the public ones.
    pub ca_file: Option<PathBuf>,
    /// The client certificate, shown to servers that request one.
    pub client_cert_file: Option<PathBuf>,
    /// The key of the client certificate.
    pub client_key_file: Option<PathBuf>,
}

/// Limits on waiting times. None limits the duration of a whole upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS together.
    pub connect: Duration,
    /// While a request is sent: longest time without a byte moving.
    pub progress: Duration,
    /// Time from when the server has the whole request to its answer.
    pub response: Duration,
    /// Maximum age of a connection.
    pub connection_age: Duration,
}

/// Settings of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Its folder.
    pub dir: PathBuf,
    /// Maximum size.
    pub max_bytes: u64,
    /// Space that it leaves free on its file system.
    pub min_free_bytes: u64,
    /// How long an event waits for others, so that they are written as one group.
    pub group: Duration,
    /// The key that seals its files; none: they are not sealed.
    pub key_file: Option<PathBuf>,
}

/// The local HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The address it listens on.
    pub listen: SocketAddr,
    /// The file with the token, which addresses other than loopback require.
    pub token_file: PathBuf,
    /// Further host names that the API accepts, in lower case.
    pub hosts: Vec<String>,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// For example `tls.ca_file` or `event_server_url[1]`.
    pub key: String,
    /// The written value, shortened; none if it is missing or must not be shown.
    pub value: Option<String>,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {value} is not allowed: {}", self.key, self.allowed),
            None => write!(f, "{}: {}", self.key, self.allowed),
        }
    }
}

/// A configuration that cannot be used, with all its faults.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Path of the file.
    pub path: PathBuf,
    /// All faults; at least one.
    pub faults: Vec<ConfigFault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "{}: {count} fault{}", self.path.display(), if count == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

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
        let idle = idle.map(|(_, key)| format!("{key}: not in use, for event_server_url has no such URL"));
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

/// The files for all destinations, and those of single destinations.
fn tls(mut fields: Fields<'_>) -> (TlsFiles, Vec<(Url, TlsFiles)>) {
    let destinations = fields.by_url("destinations", true, tls_files);
    let files = tls_files(&mut fields);
    fields.end();
    (files, destinations)
}

fn tls_files(fields: &mut Fields<'_>) -> TlsFiles {
    let files = TlsFiles {
        ca_file: fields.optional_path("ca_file"),
        client_cert_file: fields.optional_path("client_cert_file"),
        client_key_file: fields.optional_path("client_key_file"),
    };
    if files.client_cert_file.is_some() != files.client_key_file.is_some() {
        fields.fault("client_cert_file", None, "client_cert_file and client_key_file go together");
    }
    files
}

fn options(fields: &mut Fields<'_>) -> Options {
    Options {
        answers: fields.optional_object("answers").map(Answers::take),
        accept_body: fields.has("accept_body").then(|| AcceptBody::take(fields)),
        sign: fields.optional_object("sign").and_then(sign),
        order: sending::order(fields),
        order_gives_up: sending::gives_up(fields),
        bounds: fields.optional_object("bounds").map(sending::bounds),
        standby: Vec::new(),
    }
}

fn sign(mut fields: Fields<'_>) -> Option<Sign> {
    let header = fields.header_name("header", HeaderName::from_static("x-signature"));
    fields.one_of("scheme", (), &[("hmac-sha256", ())]);
    let key_file = fields.optional_path("key_file");
    if key_file.is_none() {
        fields.fault("key_file", None, "it is missing: the path of a file with 16 to 1024 bytes");
    }
    fields.end();
    Some(Sign { header, key_file: key_file? })
}

fn timeouts(mut fields: Fields<'_>) -> Timeouts {
    let mut milliseconds = |key, default| {
        Duration::from_millis(fields.integer(key, default, 100..=600_000, "milliseconds, 100 to 600000"))
    };
    let timeouts = Timeouts {
        connect: milliseconds("connect", 5_000),
        progress: milliseconds("progress", 10_000),
        response: milliseconds("response", 10_000),
        connection_age: milliseconds("connection_age", 300_000),
    };
    fields.end();
    timeouts
}

fn spool(mut fields: Fields<'_>) -> Spool {
    const TIB: u64 = 1 << 40;
    let spool = Spool {
        dir: fields.path("dir", "/system/data/sophon_gate/spool"),
        max_bytes: fields.integer(
            "max_bytes",
            256 << 20,
            1 << 20..=TIB,
            "bytes, 1048576 (1 MiB) to 1099511627776 (1 TiB)",
        ),
        min_free_bytes: fields.integer("min_free_bytes", 64 << 20, 0..=TIB, "bytes, 0 to 1099511627776 (1 TiB)"),
        group: Duration::from_millis(fields.integer("group_ms", 2000, 0..=60_000, "milliseconds, 0 to 60000")),
        key_file: fields.optional_path("key_file"),
    };
    fields.end();
    spool
}

fn health(mut fields: Fields<'_>) -> Duration {
    const YEAR: u64 = 366 * 86_400;
    let allowed = "seconds, 0 (off) to 31622400 (a year)";
    let max_silence = Duration::from_secs(fields.integer("max_silence_s", 0, 0..=YEAR, allowed));
    fields.end();
    max_silence
}

fn privileges(mut fields: Fields<'_>) -> bool {
    let seccomp = fields.boolean("seccomp", true);
    fields.end();
    seccomp
}

fn api(mut fields: Fields<'_>) -> Api {
    let api = Api {
        listen: fields.parsed("listen", DEFAULT_LISTEN, "an address with a port, such as 127.0.0.1:5555"),
        token_file: fields.path("token_file", "/system/data/sophon_gate/config/api.token"),
        hosts: fields
            .list("hosts", "a list of at most 16 different host names", 0..=16, url::host_from_value)
            .unwrap_or_default(),
    };
    fields.end();
    api
}
