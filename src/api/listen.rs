//! The API's listening socket. A port in use stops nothing: the API tries again. Each resource that clients take has a limit.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::StatusCode;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::error::ApiError;
use super::guard::Access;
use super::{App, token};
use crate::rate_limited::RateLimited;
use crate::serve::connection::{Ended, accept, serve as serve_connection};

/// How long to wait before trying a port that is in use again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long a refused client has to read the reason.
const REFUSAL_TIME: Duration = Duration::from_millis(100);

/// A listening socket. It stays while `api.listen` does: a port below 1024 can be bound only by a start.
struct Bound {
    listener: TcpListener,
    listen: SocketAddr,
}

/// A socket bound before the process gave up root, for a port that only root may use.
#[derive(Debug)]
pub struct PreboundListener {
    listener: std::net::TcpListener,
    listen: SocketAddr,
}

impl PreboundListener {
    /// Binds and listens. Returns none on failure: [`serve`] tries again and reports the reason.
    pub fn listen(listen: SocketAddr) -> Option<PreboundListener> {
        let listener = std::net::TcpListener::bind(listen).ok()?;
        listener.set_nonblocking(true).ok()?;
        Some(PreboundListener { listener, listen })
    }
}

/// Serves the API at the address in the current config, and follows its changes. Never returns.
pub async fn serve(app: Rc<App>, prebound: Option<PreboundListener>) {
    let mut bound = prebound.and_then(|PreboundListener { listener, listen }| {
        Some(Bound { listener: TcpListener::from_std(listener).ok()?, listen })
    });
    let mut is_told = false;
    loop {
        let access = match open(&app, &mut bound).await {
            Ok((address, access)) => {
                is_told = false;
                let asks = if access == Access::Loopback { "" } else { ", and asks for the token" };
                info!("the API listens on http://{address}/{asks}");
                Some(Rc::new(access))
            }
            Err(problem) => {
                app.failures.set(app.failures.get() + 1);
                // Log each problem once, however long it lasts.
                if !is_told || app.problem.borrow().as_ref() != Some(&problem) {
                    is_told = true;
                    warn!("the API does not listen, trying again; uploads go on: {problem}");
                    app.problem.replace(Some(problem));
                }
                None
            }
        };
        until_changed(&app, bound.as_ref(), access).await;
    }
}

/// Binds the address in the config, unless it is bound. An address that others can reach needs a token first.
async fn open(app: &App, bound: &mut Option<Bound>) -> Result<(SocketAddr, Access), String> {
    let listen = app.control.config().api.listen;
    bound.take_if(|bound| bound.listen != listen);
    let access = access(app).await?;
    if bound.is_none() {
        let listener = TcpListener::bind(listen).await.map_err(|error| cannot_listen(listen, &error))?;
        *bound = Some(Bound { listener, listen });
    }
    let address = bound.as_ref().and_then(|bound| bound.listener.local_addr().ok());
    Ok((address.unwrap_or(listen), access))
}

async fn access(app: &App) -> Result<Access, String> {
    let api = app.control.config().api.clone();
    if api.listen.ip().to_canonical().is_loopback() {
        return Ok(Access::Loopback);
    }
    let read = tokio::task::spawn_blocking(move || token::read_or_make(&api.token_file)).await;
    read.expect("reading does not panic").map(Access::Token)
}

/// Serves until the address or the token changes. Its connections end then. Without `access` closes every connection, until it is
/// time to try again.
async fn until_changed(app: &Rc<App>, bound: Option<&Bound>, access: Option<Rc<Access>>) {
    let log_limiter = RateLimited::new(1);
    let mut served = JoinSet::new();
    let mut refused = JoinSet::new();
    let mut try_again = pin!(tokio::time::sleep(TRY_AGAIN));
    loop {
        let accepted = async {
            match bound {
                Some(bound) => accept(&bound.listener, "the API ", &log_limiter).await,
                None => pending().await,
            }
        };
        tokio::select! {
            (socket, _) = accepted, if refused.len() < app.limits.refusals => match &access {
                Some(access) if served.len() < app.limits.connections => {
                    served.spawn_local(connection(Rc::clone(app), socket, Rc::clone(access)));
                }
                Some(_) => {
                    refused.spawn_local(refuse(socket));
                }
                None => {}
            },
            Some(_) = served.join_next() => {}
            Some(_) = refused.join_next() => {}
            () = &mut try_again, if access.is_none() => return,
            () = app.control.changed() => {
                let is_same = bound.is_some_and(|bound| app.control.config().api.listen == bound.listen)
                    && self::access(app).await.is_ok_and(|now| access.as_deref() == Some(&now));
                if !is_same {
                    return;
                }
            }
        }
    }
}

async fn connection(app: Rc<App>, socket: TcpStream, access: Rc<Access>) {
    let raw_socket = SockRef::from(&socket).try_clone();
    let bounds = app.limits.connection;
    let answer = |request| Rc::clone(&app).answer(request, Rc::clone(&access));
    // hyper closes such a connection without an answer.
    if serve_connection(socket, &bounds, answer).await == Ended::HeadLate
        && let Ok(socket) = raw_socket
    {
        let message = format!("the head of the request did not come within {:?}", bounds.head_time);
        let late = ApiError::new(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", message);
        // The answer is short: either it fits into the socket's buffer, or the client does not read.
        let _ = socket.send(&late.raw());
    }
}

/// Sends the reason and lets the client read it: closing a socket with unread data in it resets the connection.
async fn refuse(socket: TcpStream) {
    let many = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "too many connections; try again later");
    let _ = socket.try_write(&many.raw());
    let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Write);
    let mut unread = [0; 1024];
    let drained = async {
        while socket.readable().await.is_ok() {
            match socket.try_read(&mut unread) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    };
    let _ = tokio::time::timeout(REFUSAL_TIME, drained).await;
}

/// Says why, and what to do.
fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program uses this port (ss -ltnp 'sport = :{port}' shows which); stop it, or change api.listen"
        ),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root, and the uplink is root only at its start; restart it, or change api.listen"
                .into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address; change api.listen".into(),
        _ => error.to_string(),
    };
    format!("cannot listen on {address}: {advice}")
}
