//! The TCP connection below TLS. It counts the bytes that the kernel took: bytes that TLS took may still be in its own buffer,
//! and have not moved. A rate limit is applied here, too.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::rate::{OTHERS_FIRST, Rate};

/// A TCP connection that counts its bytes.
pub struct CountingStream {
    /// The socket.
    pub tcp: TcpStream,
    /// All bytes that the kernel took.
    pub taken: u64,
    /// How long the connection took to be made: about one round trip.
    pub rtt: Duration,
    rate: Option<Arc<Rate>>,
    /// Whether the rate limit holds bytes back. They always count.
    is_limited: Cell<bool>,
    /// This connection sent the last piece: the others go first.
    has_sent: bool,
    /// Set while the rate limit lets no byte through.
    pause: Option<Pin<Box<Sleep>>>,
}

impl CountingStream {
    /// A connection on which no byte was written yet. Its bytes count for the rate limit, and are not held back: the few bytes of
    /// a TLS handshake have little time.
    pub fn new(tcp: TcpStream, rtt: Duration, rate: Option<Arc<Rate>>) -> CountingStream {
        CountingStream { tcp, taken: 0, rtt, rate, is_limited: Cell::new(false), has_sent: false, pause: None }
    }

    /// From now on the rate limit holds bytes back.
    pub fn limit(&self) {
        self.is_limited.set(true);
    }

    /// While our rate limit, and not the peer, holds bytes back: the earliest time at which it lets bytes through.
    pub fn held_back_until(&self) -> Option<Instant> {
        self.pause.as_ref().map(|pause| pause.deadline())
    }

    /// How many of `wanted` bytes may be sent now; pending while none may.
    fn allowed(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        let Some(rate) = self.rate.as_ref().filter(|_| self.is_limited.get()) else { return Poll::Ready(wanted) };
        loop {
            match rate.allowed(wanted, Instant::now()) {
                Ok(bytes) => {
                    self.pause = None;
                    return Poll::Ready(bytes);
                }
                Err(at) => {
                    let at = if std::mem::take(&mut self.has_sent) { at + OTHERS_FIRST } else { at };
                    ready!(self.pause.insert(Box::pin(sleep_until(at))).as_mut().poll(cx));
                }
            }
        }
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.taken += count as u64;
            if let Some(rate) = &self.rate {
                rate.pay(count, Instant::now());
                self.has_sent = true;
            }
        }
        written
    }
}

impl AsyncRead for CountingStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let allowed = ready!(self.allowed(cx, bytes.len()));
        let written = Pin::new(&mut self.tcp).poll_write(cx, &bytes[..allowed]);
        self.count(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted: usize = bytes.iter().map(|slice| slice.len()).sum();
        let allowed = ready!(self.allowed(cx, wanted));
        let written = if allowed == wanted {
            Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes)
        } else {
            let first = bytes.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            Pin::new(&mut self.tcp).poll_write(cx, &first[..allowed.min(first.len())])
        };
        self.count(written)
    }
}

impl Connection for CountingStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
