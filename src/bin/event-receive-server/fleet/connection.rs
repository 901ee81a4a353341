//! How a gateway connects: to which servers, as whom, and whose certificates it trusts.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sophon_uplink::secret_file;
use tokio::sync::Notify;

use super::options::Options;

/// The interval between pings. A connection ends when two of them get no answer.
const PING: Duration = Duration::from_secs(5);

/// What the NATS library reported last about the connection.
#[derive(Default)]
pub struct LastError {
    last: Mutex<String>,
    changed: Notify,
}

impl LastError {
    /// The last word of trouble; empty while there is none.
    pub fn last(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until there is news.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Connects in the background, and tries again after each failure. An error is about a file or an address in the options.
pub async fn connect(options: &Options, last_error: Arc<LastError>) -> Result<Client, String> {
    let login_advice: Arc<str> = login_advice(options).into();
    let connect = ConnectOptions::new()
        .name("event-receive-server")
        .retry_on_initial_connect()
        .ignore_discovered_servers()
        .ping_interval(PING)
        .reconnect_delay_callback(|attempts| Duration::from_millis(100 * (attempts as u64).min(20)))
        .event_callback(move |event| {
            let (last_error, login_advice) = (last_error.clone(), login_advice.clone());
            async move { tell(&last_error, event, &login_advice) }
        });
    let connect = trust(login(connect, options)?, options)?;
    let servers: Result<Vec<async_nats::ServerAddr>, _> = options.servers.iter().map(|server| server.parse()).collect();
    let servers = servers.map_err(|error| format!("--{}: {error}", options.option()))?;
    connect.connect(servers).await.map_err(|error| format!("--{}: {error}", options.option()))
}

fn tell(last_error: &LastError, event: Event, login_advice: &str) {
    let text = match event {
        Event::Connected => String::new(),
        event => event.to_string(),
    };
    let is_refused =
        ["authorization violation", "authentication expired"].iter().any(|word| text.to_lowercase().contains(word));
    let text = if is_refused { format!("{text}: the servers refuse this login; {login_advice}") } else { text };
    *last_error.last.lock().unwrap_or_else(PoisonError::into_inner) = text;
    last_error.changed.notify_one();
}

/// What to look at when the servers refuse the login.
fn login_advice(options: &Options) -> String {
    match (&options.token_file, &options.creds) {
        (Some(path), _) => {
            format!("--token-file {}: put the token of the servers' config (authorization) into it", path.display())
        }
        (None, Some(path)) => {
            format!("--creds {}: its user has to be in the servers' config or account, and not expired", path.display())
        }
        (None, None) => "they want one: give --creds or --token-file".into(),
    }
}

fn login(connect: ConnectOptions, options: &Options) -> Result<ConnectOptions, String> {
    let read = |option: &str, path: &Path| {
        let in_file = |error: String| format!("{option} {}: {error}", path.display());
        let secret = secret_file::read(path, 64 << 10).map_err(in_file)?;
        String::from_utf8(secret.bytes).map_err(|_| in_file("it is no UTF-8".into()))
    };
    if let Some(path) = &options.token_file {
        return Ok(connect.token(read("--token-file", path)?.trim().to_owned()));
    }
    let Some(path) = &options.creds else { return Ok(connect) };
    let text = read("--creds", path)?;
    let seed = text.trim();
    if seed.starts_with("SU") && !seed.contains(char::is_whitespace) {
        return Ok(connect.nkey(seed.to_owned()));
    }
    connect
        .credentials(&text)
        .map_err(|_| format!("--creds {}: neither credentials of NATS nor the seed of a user's nkey", path.display()))
}

/// The certificates that are trusted: those of the file, or the system's.
fn trust(connect: ConnectOptions, options: &Options) -> Result<ConnectOptions, String> {
    let Some(path) = &options.tls_ca else { return Ok(connect) };
    let in_file = |error: String| format!("--tls-ca {}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| in_file(error.to_string()))?;
    let count = certificates.filter(Result::is_ok).count();
    if count == 0 {
        return Err(in_file("no certificate is in it".into()));
    }
    Ok(connect.add_root_certificates(path.clone()).require_tls(true))
}
