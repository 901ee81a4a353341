//! Attempts to connect to several addresses, overlapping in time: the first one that connects wins.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::deliver::deadline::Deadline;
use crate::deliver::failure::{Code, Failure};

/// The delay between two attempts: RFC 8305 section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The delay between the last attempt and a repeated one at the first address, so that a lost packet is not waited for.
const REPEAT_DELAY: Duration = Duration::from_millis(500);

type Attempt = Pin<Box<dyn Future<Output = Result<(TcpStream, Duration), Failure>> + Send>>;

/// Connects to the first address that answers, of `addresses` and of those that come `late`. An error without a failure: there
/// was no address.
pub(super) async fn race(
    addresses: &[IpAddr],
    mut late: Pin<Box<impl Future<Output = Vec<IpAddr>>>>,
    port: u16,
    deadline: &Deadline,
) -> Result<(TcpStream, Duration), Option<Failure>> {
    let mut left: VecDeque<IpAddr> = addresses.iter().copied().collect();
    let mut tried = Vec::new();
    let mut attempts: Vec<Attempt> = Vec::new();
    let (mut failure, mut awaits_more): (Option<Failure>, _) = (None, true);
    let (mut is_next, mut is_repeated) = (true, false);
    loop {
        if let Some(address) = is_next.then(|| left.pop_front()).flatten() {
            let address = SocketAddr::new(address, port);
            tried.push(address.to_string());
            attempts.push(attempt(address));
            is_next = false;
        }
        if attempts.is_empty() && left.is_empty() && !awaits_more {
            return Err(failure);
        }
        tokio::select! {
            biased;
            ended = poll_fn(|cx| poll_any(&mut attempts, cx)) => match ended {
                Ok(connected) => return Ok(connected),
                Err(failed) => {
                    // On a host without IPv6 the failure of IPv4 tells more.
                    let is_better = failure.as_ref().is_none_or(|known| known.code == Code::ConnectUnreachable);
                    failure = if is_better { Some(failed) } else { failure };
                    is_next = true;
                }
            },
            more = &mut late, if awaits_more => {
                left.extend(more);
                (awaits_more, is_next) = (false, is_next || attempts.is_empty());
            }
            () = sleep(ATTEMPT_DELAY), if !left.is_empty() => is_next = true,
            () = sleep(REPEAT_DELAY), if left.is_empty() && !is_repeated && !attempts.is_empty() => {
                attempts.extend(addresses.first().map(|first| attempt(SocketAddr::new(*first, port))));
                is_repeated = true;
            }
            () = deadline.passed() => {
                // A refusal tells more than the silence of others, or of the name server; see above for `ConnectUnreachable`.
                let is_silence = |known: &Failure| known.code == Code::ConnectUnreachable && !attempts.is_empty();
                let timeout = || {
                    let why = format!("{}: no answer within {} ms", tried.join(", "), deadline.bound().as_millis());
                    Failure::new(Code::ConnectTimeout, why)
                };
                return Err(failure.filter(|known| !is_silence(known)).or_else(|| (!tried.is_empty()).then(timeout)));
            }
        }
    }
}

fn attempt(address: SocketAddr) -> Attempt {
    Box::pin(async move {
        let began = Instant::now();
        match TcpStream::connect(address).await {
            Ok(stream) => Ok((stream, began.elapsed())),
            Err(error) => Err(refused(address, &error)),
        }
    })
}

/// Removes and returns the first attempt that has ended.
fn poll_any<T>(attempts: &mut Vec<Pin<Box<dyn Future<Output = T> + Send>>>, cx: &mut Context<'_>) -> Poll<T> {
    for index in 0..attempts.len() {
        if let Poll::Ready(ended) = attempts[index].as_mut().poll(cx) {
            drop(attempts.remove(index));
            return Poll::Ready(ended);
        }
    }
    Poll::Pending
}

/// The failure of a connection attempt that the kernel ended.
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
