//! One connection: HTTP/1 on a socket with patience, and the bounds that every client has.

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

/// After an accept that failed, for want of descriptors for one: accepting again at once would only burn CPU.
const PAUSE: Duration = Duration::from_millis(200);

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The bytes of a request's head, and of what is read of a body at once.
    pub head_bytes: usize,
    /// For the head of a request; also how long a connection may be idle.
    pub head_time: Duration,
    /// For a client to take the next bytes of an answer.
    pub write_progress: Duration,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As either side wanted, or by a client that went away.
    Somehow,
    /// A request's head began and did not come within [`Bounds::head_time`]. Its client got no answer.
    HeadLate,
}

/// Waits for the next connection. `who` begins the line in the log about one that could not be accepted.
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

/// Answers every request that comes by a connection, until it ends.
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
    // A connection that breaks is the client's affair; what it left undone is counted where it is noticed.
    match http.serve_connection(TokioIo::new(socket), service).await {
        // One that was merely idle is no such: its client may be asking just now.
        Err(error) if error.is_timeout() && asked.load(Ordering::Relaxed) => Ended::HeadLate,
        _ => Ended::Somehow,
    }
}

/// Makes a bound listener one of the running runtime.
///
/// # Errors
/// What the system says.
pub fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
