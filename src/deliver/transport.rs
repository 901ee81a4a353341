//! Connects to a URL by TCP and TLS. The connection records its [`Progress`], and holds back the head of an answer until it is
//! complete.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

use super::connect::{self, Memory};
use super::deadline::{Deadline, longest};
use super::failure::{Code, Failure};
use super::head::State;
use super::progress::Progress;
use super::rate::Rate;
use super::tls::Validity;
use super::tls_error;
use super::tunnel;
use super::wire::CountingStream;
use crate::config::Timeouts;
use crate::config::proxy::Proxy;
use crate::config::without_brackets;
use crate::readiness;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The most unsent bytes in the kernel: bytes count as progress only when they leave, so they must not pile up there.
const UNSENT: u32 = 16 * 1024;
/// The kernel closes no connection before it has received nothing for this long.
const LEAST_USER_TIMEOUT: Duration = Duration::from_secs(24);

/// The texts for [`is_unsolicited`]: the first is hyper's, which has no predicate for it, the second ours.
const UNSOLICITED_BY_HYPER: &str = "received unexpected message from connection";
const UNSOLICITED: &str = "the server spoke before it was asked";
const TOO_LARGE: &str = "the server's answer has a head without end";
const OVERSIZE: &str = "the head of the server's answer is larger than 64 KiB";

/// Whether a connection failed because of an unsolicited response.
pub fn is_unsolicited(error: &hyper::Error) -> bool {
    let text = with_causes(error);
    text.contains(UNSOLICITED_BY_HYPER) || text.contains(UNSOLICITED)
}

/// Whether the head of an answer was too long for hyper.
pub fn is_oversize(error: &hyper::Error) -> bool {
    with_causes(error).contains(OVERSIZE)
}

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
        return Err(lack.failure()); // lanes wait before this; a test event does not
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

/// The failure for an error: TLS errors in plain words, others with `code` and their causes.
pub fn describe(error: &(dyn std::error::Error + 'static), code: Code) -> Failure {
    tls_error::failure_for(error).unwrap_or_else(|| Failure::new(code, with_causes(error)))
}

/// An error with its causes, each text once.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
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

type Stream = MaybeHttpsStream<TokioIo<CountingStream>>;

fn wire(stream: &Stream) -> &CountingStream {
    match stream {
        MaybeHttpsStream::Http(wire) => wire.inner(),
        MaybeHttpsStream::Https(tls) => tls.inner().get_ref().0.inner().inner(),
    }
}

/// A connection that records its progress. It works above TLS, because the records that end TLS are no answer.
pub struct Transport {
    stream: TokioIo<Stream>,
    /// Shared with the code that waits for an answer.
    pub progress: Rc<Progress>,
    /// Bytes of a head that is not complete, and how many of them were passed on.
    held: Vec<u8>,
    given: usize,
    /// Whether a write found the connection reset.
    broken: Cell<bool>,
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.progress.closed();
    }
}

impl Transport {
    fn new(stream: Stream) -> Transport {
        let wire = wire(&stream);
        let progress = Rc::new(Progress::new(wire.tcp.as_raw_fd(), wire.taken, wire.rtt));
        Transport { stream: TokioIo::new(stream), progress, held: Vec::new(), given: 0, broken: Cell::new(false) }
    }

    /// The remote address.
    pub fn peer(&self) -> Option<IpAddr> {
        self.socket().peer_addr().map(|peer| peer.ip()).ok()
    }

    /// The local address.
    pub fn local(&self) -> Option<IpAddr> {
        self.socket().local_addr().map(|local| local.ip()).ok()
    }

    /// Passes on the bytes that were held back; false if there were none.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let rest = &self.held[self.given..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.given += count;
        if self.given == self.held.len() {
            (self.held, self.given) = (Vec::new(), 0);
        }
        count > 0
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TokioIo<Stream>> {
        Pin::new(&mut self.get_mut().stream)
    }

    fn socket(&self) -> &TcpStream {
        &wire(self.stream.inner()).tcp
    }

    /// The validity of the server's certificate, if it has one.
    pub fn validity(&self) -> Option<Validity> {
        match self.stream.inner() {
            MaybeHttpsStream::Http(_) => None,
            MaybeHttpsStream::Https(tls) => Validity::of(tls.inner().get_ref().1.peer_certificates()?.first()?),
        }
    }

    /// Whether it uses TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream.inner(), MaybeHttpsStream::Https(_))
    }

    /// Fails if bytes or the end of the connection came in before the first byte of a request is sent. An unsolicited response
    /// would be read as the answer to that request, and an event would count as delivered that was not. hyper checks this as
    /// well, but only for bytes that the event loop has reported. This check asks the kernel, and the next system call is the
    /// write.
    fn check_nothing_received(&self) -> io::Result<()> {
        if !self.progress.begins.get() {
            return Ok(());
        }
        match SockRef::from(self.socket()).peek(&mut [MaybeUninit::uninit()]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Ok(0) => Err(io::Error::other("the server closed the connection before the request")),
            // Most likely the end of TLS; an unsolicited response looks the same before it is decrypted.
            Ok(_) if self.is_tls() => Err(io::Error::other("bytes came in before the request")),
            Ok(_) => Err(io::Error::other(UNSOLICITED)),
            Err(error) => Err(error),
        }
    }

    /// Records what the kernel took, and handles the result of a write or flush. A reset connection is not reported yet: a server
    /// that refuses an event early answers and closes, and its answer can still be read. The reading side reports the end.
    fn written<T>(&self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        let wire = wire(self.stream.inner());
        self.progress.took(wire.taken);
        if let Some(until) = wire.held_back_until() {
            self.progress.held_back(until);
        }
        if let MaybeHttpsStream::Https(tls) = self.stream.inner() {
            self.progress.is_held.set(tls.inner().get_ref().1.wants_write());
        }
        match written {
            Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                if !self.broken.replace(true) {
                    cx.waker().wake_by_ref(); // to read again
                }
                Poll::Pending
            }
            written => written,
        }
    }
}

impl AsyncRead for Transport {
    /// A head is passed on once it is complete. If hyper cannot parse it, [`super::head`] provides the status.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.progress.head_state() != State::Reading && self.give(buf) {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            let polled = self.as_mut().stream().poll_read(cx, buf);
            if !matches!(polled, Poll::Ready(Ok(()))) {
                return polled;
            }
            let came = &buf.filled()[before..];
            if came.is_empty() {
                self.give(buf); // the next call reports the end
                return polled;
            }
            let (state, is_oversize) = self.progress.received(came);
            if is_oversize {
                self.held = Vec::new();
            }
            match state {
                State::TooLarge => return Poll::Ready(Err(io::Error::other(TOO_LARGE))),
                State::Ended if is_oversize => return Poll::Ready(Err(io::Error::other(OVERSIZE))),
                State::Reading if is_oversize => {}
                State::Reading => self.held.extend_from_slice(came),
                _ if self.held.is_empty() => return polled,
                _ => self.held.extend_from_slice(came),
            }
            buf.set_filled(before);
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_nothing_received()?;
        let written = self.as_mut().stream().poll_write(cx, bytes);
        self.written(cx, written)
    }

    /// hyper flushes after each write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.as_mut().stream().poll_flush(cx);
        let flushed = self.written(cx, flushed);
        if self.progress.is_sent() {
            self.progress.permit.take();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_nothing_received()?;
        let written = self.as_mut().stream().poll_write_vectored(cx, bytes);
        self.written(cx, written)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::thread;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    /// The error about a server that sends a response, or ends TLS, before a request.
    async fn error_about(scheme: &str) -> String {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("{scheme}://localhost:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
        let is_tls = scheme == "https";
        thread::spawn(move || {
            let mut tcp = listener.accept().unwrap().0;
            if is_tls {
                let mut tls = ServerConnection::new(Arc::new(server)).unwrap();
                while tls.is_handshaking() {
                    tls.complete_io(&mut tcp).unwrap();
                }
                tls.send_close_notify();
                tls.write_tls(&mut tcp).unwrap();
            } else {
                tcp.write_all(b"HTTP/1.1 200 OK").unwrap();
            }
            thread::park(); // the connection stays open
        });
        let long = Duration::from_secs(30);
        let timeouts = Timeouts { connect: long, progress: long, response: long, connection_age: long };
        let deadline = Deadline::new(long);
        let transport =
            connect(&uri, Arc::new(client), Route::default(), timeouts, &Arc::default(), &deadline).await.unwrap();
        transport.progress.begins.set(true);
        loop {
            match transport.check_nothing_received() {
                Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => return error.to_string(),
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_tls_is_no_answer_that_nobody_asked_for() {
        assert_eq!(error_about("http").await, UNSOLICITED);
        assert_ne!(error_about("https").await, UNSOLICITED);
    }
}
