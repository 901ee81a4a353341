//! From a URL to a connection: name, TCP, TLS, and the count of moving bytes that the timeouts look at.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

use super::failure::{Code, Early, Failure};
use super::lane::places::Sending;
use super::tls_error;
use super::unacknowledged::unacknowledged;
use super::wire::Wire;
use crate::body::Sent;
use crate::config::is_forbidden_address;
use crate::readiness;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What may wait unsent in the kernel: bytes count as moving when they leave, not when they are piled up there.
const UNSENT: u32 = 16 * 1024;

/// What [`is_unasked`] looks for: the first text is hyper's, which has no predicate for it, the second ours.
const UNASKED_BY_HYPER: &str = "received unexpected message from connection";
const UNASKED: &str = "the server spoke before it was asked";

/// Whether a connection failed because the server said something that nobody had asked for.
pub fn is_unasked(error: &hyper::Error) -> bool {
    let text = with_causes(error);
    text.contains(UNASKED_BY_HYPER) || text.contains(UNASKED)
}

/// Connects, TCP and (for https) TLS, within `bound`.
///
/// # Errors
/// What to tell the operator.
pub async fn connect(uri: &Uri, tls: Arc<rustls::ClientConfig>, bound: Duration) -> Result<Transport, Failure> {
    let is_tls = uri.scheme_str() == Some("https");
    if let Some(lack) = is_tls.then(readiness::of_tls).flatten() {
        return Err(lack.failure()); // lanes wait by themselves; a test event comes as far as here
    }
    let mut connector = HttpsConnector::new(Tcp { bound }, tls, false, Arc::new(DefaultServerNameResolver::default()));
    match tokio::time::timeout(bound, connector.call(uri.clone())).await {
        Ok(Ok(stream)) => {
            let taken = Cell::new(wire(&stream).taken);
            let progress = Rc::new(Progress::new());
            Ok(Transport { stream: TokioIo::new(stream), progress, taken, broken: Cell::new(false) })
        }
        Ok(Err(error)) => Err(match error.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(error) => match error.downcast_ref::<io::Error>() {
                Some(error) if is_tls && tls_error::failure_for(error).is_none() => tls_error::broken_off(error),
                _ => describe(&*error, Code::ConnectFailed),
            },
        }),
        Err(_) => Err(Failure::new(Code::ConnectTimeout, format!("no connection within {} ms", bound.as_millis()))),
    }
}

/// An error of TLS in plain words; of any other kind `code`, with its causes.
pub fn describe(error: &(dyn std::error::Error + 'static), code: Code) -> Failure {
    tls_error::failure_for(error).unwrap_or_else(|| Failure::new(code, with_causes(error)))
}

/// An error with its causes, each said once.
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

/// Resolves and connects.
#[derive(Clone, Copy)]
struct Tcp {
    bound: Duration,
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<Wire>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Wire>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let bound = self.bound;
        Box::pin(async move { Ok(TokioIo::new(Wire { tcp: open(&uri, bound).await?, taken: 0 })) })
    }
}

/// Tries the host's addresses in turn, each with its share of the time.
async fn open(uri: &Uri, bound: Duration) -> Result<TcpStream, BoxError> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| Failure::new(Code::DnsFailed, format!("the name {host} cannot be resolved: {error}")));
    let addresses: Vec<_> = found?.collect();
    let allowed: Vec<_> = addresses.into_iter().filter(|address| !is_forbidden_address(address.ip())).collect();
    let deadline = Instant::now() + bound;
    let why = format!("the name {host} has no address that events may go to");
    let mut last = Failure::new(Code::AddressForbidden, why);
    for (tried, address) in allowed.iter().enumerate() {
        let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(allowed.len() - tried)?;
        match tokio::time::timeout(share, TcpStream::connect(*address)).await {
            Ok(Ok(stream)) => {
                tune(&stream).map_err(|error| format!("{address}: {error}"))?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = refused(*address, &error),
            Err(_) => {
                let why = format!("{address}: no answer within {} ms", share.as_millis());
                last = Failure::new(Code::ConnectTimeout, why);
            }
        }
    }
    Err(last.into())
}

/// The failure of a connection that the kernel gave up.
fn refused(address: SocketAddr, error: &io::Error) -> Failure {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let code = match error.kind() {
        ConnectionRefused => Code::ConnectRefused,
        HostUnreachable | NetworkUnreachable => Code::ConnectUnreachable,
        TimedOut => Code::ConnectTimeout,
        _ => Code::ConnectFailed,
    };
    Failure::new(code, format!("{address}: {error}"))
}

/// Small writes go out at once; a peer that vanished is noticed by the kernel.
fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5)).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// When bytes last moved on a connection.
#[derive(Debug)]
pub struct Progress {
    /// The last time that the kernel took bytes from us.
    pub written_at: Cell<Instant>,
    /// The last time that bytes came in.
    pub read_at: Cell<Instant>,
    /// Bytes that came in, ever.
    pub read: Cell<u64>,
    /// Counts what of the request's body has gone.
    pub sent: RefCell<Sent>,
    /// The length of that body.
    pub length: Cell<u64>,
    /// TLS has bytes that the kernel did not take yet.
    pub is_held: Cell<bool>,
    /// Held until the kernel took the last byte of that body.
    pub sending: RefCell<Option<Sending>>,
    /// When bytes last came in, the kernel had the whole body and the peer's TCP had acknowledged it: else the sender of an answer
    /// cannot have had it. Every segment acknowledges what came before it was sent, so an honest answer to a whole request never
    /// leaves anything unacknowledged.
    pub was_whole_at_read: Cell<bool>,
    /// Bytes of the body that the peer's TCP had acknowledged by then, as far as can be told.
    arrived_at_read: Cell<u64>,
    /// The next byte written is a request's first one, and nothing may have come in that was not read before it.
    pub begins: Cell<bool>,
}

impl Progress {
    fn new() -> Progress {
        let now = Instant::now();
        Progress {
            written_at: Cell::new(now),
            read_at: Cell::new(now),
            read: Cell::new(0),
            sent: RefCell::default(),
            length: Cell::new(0),
            is_held: Cell::new(false),
            sending: RefCell::default(),
            was_whole_at_read: Cell::new(false),
            arrived_at_read: Cell::new(0),
            begins: Cell::new(false),
        }
    }

    /// How much of the body the peer had when bytes last came in, where that was not all.
    pub fn early(&self) -> Option<Early> {
        let total = self.length.get();
        let sent = self.arrived_at_read.get().min(total.saturating_sub(1));
        (!self.was_whole_at_read.get()).then_some(Early { sent, total })
    }

    /// Bytes came in while the peer's TCP had not acknowledged `unacknowledged` bytes.
    fn received(&self, count: u64, unacknowledged: u64) {
        self.read.set(self.read.get() + count);
        self.read_at.set(Instant::now());
        self.was_whole_at_read.set(self.is_sent() && unacknowledged == 0);
        self.arrived_at_read.set(self.sent.borrow().load(Ordering::Relaxed).saturating_sub(unacknowledged));
    }

    /// Whether the kernel took all of the body.
    pub fn is_sent(&self) -> bool {
        !self.is_held.get() && self.sent.borrow().load(Ordering::Relaxed) == self.length.get()
    }
}

type Stream = MaybeHttpsStream<TokioIo<Wire>>;

fn wire(stream: &Stream) -> &Wire {
    match stream {
        MaybeHttpsStream::Http(wire) => wire.inner(),
        MaybeHttpsStream::Https(tls) => tls.inner().get_ref().0.inner().inner(),
    }
}

/// A connection that notes its progress, above TLS: what a server says to end TLS is no answer.
pub struct Transport {
    stream: TokioIo<Stream>,
    /// Shared with whoever waits for an answer.
    pub progress: Rc<Progress>,
    /// The wire's count at the last look.
    taken: Cell<u64>,
    /// A write found the connection reset.
    broken: Cell<bool>,
}

impl Transport {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TokioIo<Stream>> {
        Pin::new(&mut self.get_mut().stream)
    }

    fn socket(&self) -> &TcpStream {
        &wire(self.stream.inner()).tcp
    }

    /// Whether TLS is spoken on it.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream.inner(), MaybeHttpsStream::Https(_))
    }

    /// Fails where something came in, or the end did, before a request's first byte went out. What a server says unasked would
    /// be read as the answer to that request, and an event be taken for delivered that is not. hyper looks for it too, but
    /// only where the event loop has heard of it: this asks the kernel, with the next system call being the write.
    fn check_silence(&self) -> io::Result<()> {
        if !self.progress.begins.get() {
            return Ok(());
        }
        match SockRef::from(self.socket()).peek(&mut [MaybeUninit::uninit()]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Ok(0) => Err(io::Error::other("the server closed the connection before the request")),
            // Most likely what ends TLS; an answer that nobody asked for is told from it only by whoever reads it.
            Ok(_) if self.is_tls() => Err(io::Error::other("something came in before the request")),
            Ok(_) => Err(io::Error::other(UNASKED)),
            Err(error) => Err(error),
        }
    }

    /// Notes what the kernel took, and looks at what a write or a flush came to. One that finds the connection reset is no end yet: a
    /// server that refuses an event early says so and closes, and its words are still there to be read. The reading side tells of the end.
    fn written<T>(&self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        let taken = wire(self.stream.inner()).taken;
        if self.taken.replace(taken) != taken {
            self.progress.begins.set(false);
            self.progress.written_at.set(Instant::now());
        }
        if let MaybeHttpsStream::Https(tls) = self.stream.inner() {
            self.progress.is_held.set(tls.inner().get_ref().1.wants_write());
        }
        match written {
            Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                if !self.broken.replace(true) {
                    cx.waker().wake_by_ref(); // to read once more
                }
                Poll::Pending
            }
            written => written,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = self.as_mut().stream().poll_read(cx, buf);
        let count = (buf.filled().len() - before) as u64;
        if count > 0 {
            self.progress.received(count, unacknowledged(self.socket()));
        }
        polled
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_silence()?;
        let written = self.as_mut().stream().poll_write(cx, bytes);
        self.written(cx, written)
    }

    /// hyper flushes after each write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.as_mut().stream().poll_flush(cx);
        let flushed = self.written(cx, flushed);
        if self.progress.is_sent() {
            self.progress.sending.take();
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
        self.check_silence()?;
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

    /// What is said of a server that speaks, or ends TLS, before a request.
    async fn said_of(scheme: &str) -> String {
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
        let transport = connect(&uri, Arc::new(client), Duration::from_secs(30)).await.unwrap();
        transport.progress.begins.set(true);
        loop {
            match transport.check_silence() {
                Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => return error.to_string(),
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_tls_is_no_answer_that_nobody_asked_for() {
        assert_eq!(said_of("http").await, UNASKED);
        assert_ne!(said_of("https").await, UNASKED);
    }
}
