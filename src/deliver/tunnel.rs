//! A tunnel through a proxy for TLS: sends `CONNECT` (RFC 9110 section 9.3.6), and reads the proxy's answer.

use std::io;

use hyper::header::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::deadline::Deadline;
use super::failure::{Code, Failure};
use super::head::{Head, State};
use crate::config::proxy::Proxy;

/// Asks `proxy` on the connection `tcp` to connect to `target`, a host and a port, before `deadline`.
///
/// # Errors
/// What the proxy answered, or that it did not answer.
pub async fn open(tcp: &mut TcpStream, target: &str, proxy: &Proxy, deadline: &Deadline) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(Code::ProxyFailed, format!("{proxy}: {error}"));
    let status = match deadline.wait_for(ask(tcp, target, proxy)).await {
        Some(answered) => answered.map_err(failed)?,
        None => {
            let why = format!("{proxy} does not answer within {} ms: see its log", deadline.bound().as_millis());
            return Err(Failure::new(Code::ProxyFailed, why));
        }
    };
    match status {
        200..=299 => Ok(()),
        // tinyproxy answers 401 to a wrong password.
        401 | 407 => Err(login(proxy, status)),
        status => {
            let why = format!("{proxy} does not connect to {target}, it answers {status}: see its log and its rules");
            Err(Failure { status: Some(status), ..Failure::new(Code::ProxyFailed, why) })
        }
    }
}

/// The proxy requires a login, or refuses ours.
fn login(proxy: &Proxy, status: u16) -> Failure {
    let why = match proxy.authorization() {
        None => format!("{proxy} wants a login: put user and password into proxy.url"),
        Some(_) => format!("{proxy} does not take the user and password of proxy.url, or not as Basic"),
    };
    Failure { status: Some(status), ..Failure::new(Code::ProxyLogin, why) }
}

async fn ask(tcp: &mut TcpStream, target: &str, proxy: &Proxy) -> io::Result<u16> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = proxy.authorization().map(HeaderValue::as_bytes) {
        request.extend_from_slice(&[b"Proxy-Authorization: ", authorization, b"\r\n"].concat());
    }
    request.extend_from_slice(b"\r\n");
    tcp.write_all(&request).await?;
    let mut head = Head::awaited();
    let mut buffer = [0; 1024];
    loop {
        let count = tcp.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::Error::other("it ended the connection without an answer to CONNECT"));
        }
        match head.read(&buffer[..count]) {
            State::Reading => {}
            State::Ended => return head.status().ok_or_else(|| io::Error::other("its answer has no status")),
            _ => return Err(io::Error::other("its answer to CONNECT is no HTTP")),
        }
    }
}
