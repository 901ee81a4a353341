//! Accepts connections, and serves HTTP/1 on each within bounds.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::patience::Patient;
use crate::rate_limited::RateLimited;

/// The pause after a failed accept, for example without file descriptors: accepting again at once would only burn CPU.
const PAUSE: Duration = Duration::from_millis(200);

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Size of a request's head, and of one read of a body, in bytes.
    pub head_bytes: usize,
    /// Time to receive a request's head. Also how long a connection may be idle.
    pub head_time: Duration,
    /// Time for a client to accept the next bytes of an answer.
    pub write_progress: Duration,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ended normally, or the client disconnected.
    Somehow,
    /// A request's head began and was not complete within [`Bounds::head_time`]. The client got no answer.
    HeadLate,
}

/// Waits for the next connection. A log line about a failed accept begins with `who`.
pub async fn accept(listener: &TcpListener, who: &str, log_limiter: &RateLimited) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                log_limiter.say(|more| warn!("{who}cannot accept a connection: {error}{more}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers the requests of a connection until it ends.
pub async fn serve<F, B>(socket: TcpStream, bounds: &Bounds, answer: impl Fn(Request<Incoming>) -> F) -> Ended
where
    F: Future<Output = Response<B>>,
    B: Body + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let _ = socket.set_nodelay(true);
    let socket = Patient::new(socket, bounds.write_progress);
    let asked = socket.asked();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.head_time).max_buf_size(bounds.head_bytes);
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // Ignore a broken connection: the code that reads a body counts an incomplete one.
    match http.serve_connection(TokioIo::new(socket), service).await {
        // Not an idle connection: its client may be sending a request now.
        Err(error) if error.is_timeout() && asked.load(Ordering::Relaxed) => Ended::HeadLate,
        _ => Ended::Somehow,
    }
}

/// Registers a bound listener with the running runtime.
///
/// # Errors
/// An error of the system.
pub fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
