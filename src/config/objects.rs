//! The objects in the file that hold settings of one kind, and how they are read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderName;

use super::DEFAULT_LISTEN;
use super::answers::{AcceptBody, Answers};
use super::fields::Fields;
use super::sending::{self, Bounds, Order};
use super::url::{self, Url};

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

/// The files for all destinations, and those of single destinations.
pub(super) fn tls(mut fields: Fields<'_>) -> (TlsFiles, Vec<(Url, TlsFiles)>) {
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

pub(super) fn options(fields: &mut Fields<'_>) -> Options {
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

pub(super) fn timeouts(mut fields: Fields<'_>) -> Timeouts {
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

pub(super) fn spool(mut fields: Fields<'_>) -> Spool {
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

pub(super) fn health(mut fields: Fields<'_>) -> Duration {
    const YEAR: u64 = 366 * 86_400;
    let allowed = "seconds, 0 (off) to 31622400 (a year)";
    let max_silence = Duration::from_secs(fields.integer("max_silence_s", 0, 0..=YEAR, allowed));
    fields.end();
    max_silence
}

pub(super) fn privileges(mut fields: Fields<'_>) -> bool {
    let seccomp = fields.boolean("seccomp", true);
    fields.end();
    seccomp
}

pub(super) fn api(mut fields: Fields<'_>) -> Api {
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
