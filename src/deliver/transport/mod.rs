//! Connects to a URL by TCP and TLS. The connection records its [`Progress`], and holds back the head of an answer until it is
//! complete.

mod errors;
mod tcp;

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::head::State;
use super::progress::Progress;
use super::tls::Validity;
use super::wire::CountingStream;
use errors::{OVERSIZE, TOO_LARGE, UNSOLICITED};
pub use errors::{describe, is_oversize, is_unsolicited};
pub use tcp::{Route, connect};

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
        wire.limit();
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
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};

    use super::*;
    use crate::config::Timeouts;
    use crate::deliver::deadline::Deadline;

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
