//! Connects by TCP, perhaps through a proxy, and by TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tower_service::Service;

use super::{Transport, describe};
use crate::config::proxy::Proxy;
use crate::config::{Timeouts, without_brackets};
use crate::deliver::connect::{self, Memory};
use crate::deliver::deadline::{Deadline, longest};
use crate::deliver::failure::{Code, Failure};
use crate::deliver::rate::Rate;
use crate::deliver::wire::CountingStream;
use crate::deliver::{tls_error, tunnel};
use crate::readiness;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The most unsent bytes in the kernel: bytes count as progress as soon as the kernel takes them, so only a few may wait there.
const UNSENT: u32 = 16 * 1024;
/// The kernel closes a connection only after the peer has been silent for at least this long.
const LEAST_USER_TIMEOUT: Duration = Duration::from_secs(24);

/// Connects by TCP and, for https, TLS, before `deadline`.
///
/// # Errors
/// What failed.
pub async fn connect(
    uri: &Uri,
    tls: Arc<rustls::ClientConfig>,
    route: Route,
    timeouts: Timeouts,
    memory: &Arc<Memory>,
    deadline: &Deadline,
) -> Result<Transport, Failure> {
    let is_tls = uri.scheme_str() == Some("https");
    if let Some(lack) = is_tls.then(readiness::of_tls).flatten() {
        return Err(lack.into()); // lanes wait before this; a test event does not
    }
    let tcp = Tcp { timeouts, route, deadline: deadline.clone(), memory: Arc::clone(memory) };
    let mut connector = HttpsConnector::new(tcp, tls, false, Arc::new(DefaultServerNameResolver::default()));
    match deadline.wait_for(connector.call(uri.clone())).await {
        Some(Ok(stream)) => Ok(Transport::new(stream)),
        Some(Err(error)) => Err(match error.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(error) => match error.downcast_ref::<io::Error>() {
                Some(error) if is_tls && tls_error::failure_for(error).is_none() => tls_error::broken_off(error),
                _ => describe(&*error, Code::ConnectFailed),
            },
        }),
        // All steps before TLS check the deadline themselves.
        None => {
            let bound = deadline.bound().as_millis();
            let why = format!("no connection within {bound} ms: the server does not answer in the TLS handshake");
            Err(Failure::new(Code::TlsTimeout, why))
        }
    }
}

/// The route to a server.
#[derive(Clone, Default)]
pub struct Route {
    /// The proxy to connect to instead of the server; TLS goes through it to the server.
    pub proxy: Option<Arc<Proxy>>,
    /// Limits the bytes per second.
    pub rate: Option<Arc<Rate>>,
}

/// Resolves the host and connects by TCP.
#[derive(Clone)]
struct Tcp {
    timeouts: Timeouts,
    route: Route,
    deadline: Deadline,
    memory: Arc<Memory>,
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<CountingStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<CountingStream>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Tcp { timeouts, route: Route { proxy, rate }, deadline, memory } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let is_tls = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
            let (next, next_port) = proxy.as_ref().map_or((without_brackets(host), port), |proxy| proxy.address());
            let connected = connect::connect(next, next_port, &memory, &deadline).await;
            let (mut tcp, rtt) = connected.map_err(|failure| match &proxy {
                None => failure,
                Some(proxy) => Failure::new(Code::ProxyFailed, format!("{proxy} is not reached: {failure}")),
            })?;
            tune(&tcp, timeouts, rtt).map_err(|error| describe(&error, Code::ConnectFailed))?;
            if let Some(proxy) = proxy.filter(|_| is_tls) {
                tunnel::open(&mut tcp, &format!("{host}:{port}"), &proxy, &deadline).await?;
            }
            Ok(TokioIo::new(CountingStream::new(tcp, rtt, rate)))
        })
    }
}

/// Sets socket options: small writes are sent at once, and the kernel closes a half-open connection some time after our own
/// timeouts.
fn tune(stream: &TcpStream, timeouts: Timeouts, rtt: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5)).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    let silence = longest(timeouts.progress, rtt).max(timeouts.response).max(LEAST_USER_TIMEOUT);
    socket.set_tcp_user_timeout(Some(silence + silence / 4))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}
