//! The API's listening socket. A port in use stops nothing: the API tries again. Each resource that clients take has a limit.

use std::io;
use std::net::SocketAddr;
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
    let log_limiter = RateLimited::new(1);
    let mut is_told = false;
    loop {
        match open(&app, &mut bound).await {
            Ok((bound, access)) => {
                is_told = false;
                let address = bound.listener.local_addr().unwrap_or(bound.listen);
                let asks = if *access == Access::Loopback { "" } else { ", and asks for the token" };
                info!("the API listens on http://{address}/{asks}");
                until_changed(&app, bound, &access, &log_limiter).await;
            }
            Err(problem) => {
                app.failures.set(app.failures.get() + 1);
                // Log each problem once, however long it lasts.
                if !is_told || app.problem.borrow().as_ref() != Some(&problem) {
                    is_told = true;
                    warn!("the API does not listen, trying again; uploads go on: {problem}");
                    app.problem.replace(Some(problem));
                }
                tokio::select! {
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    () = app.control.changed() => {}
                    () = close_all(bound.as_ref(), &log_limiter) => {}
                }
            }
        }
    }
}

/// Binds the address in the config, unless it is bound. An address that others can reach needs a token first.
async fn open<'a>(app: &App, bound: &'a mut Option<Bound>) -> Result<(&'a Bound, Rc<Access>), String> {
    let listen = app.control.config().api.listen;
    bound.take_if(|bound| bound.listen != listen);
    let access = Rc::new(access(app).await?);
    let kept = match bound.take() {
        Some(kept) => kept,
        None => {
            let listener = TcpListener::bind(listen).await.map_err(|error| cannot_listen(listen, &error))?;
            Bound { listener, listen }
        }
    };
    Ok((bound.insert(kept), access))
}

/// Closes every new connection: nobody may use the API now. Never returns.
async fn close_all(bound: Option<&Bound>, log_limiter: &RateLimited) {
    match bound {
        Some(bound) => loop {
            accept(&bound.listener, "the API ", log_limiter).await;
        },
        None => std::future::pending().await,
    }
}

async fn access(app: &App) -> Result<Access, String> {
    let api = app.control.config().api.clone();
    if api.listen.ip().to_canonical().is_loopback() {
        return Ok(Access::Loopback);
    }
    let read = tokio::task::spawn_blocking(move || token::read_or_make(&api.token_file)).await;
    read.expect("reading does not panic").map(Access::Token)
}

/// Serves until the address or the token changes. Its connections end then.
async fn until_changed(app: &Rc<App>, bound: &Bound, access: &Rc<Access>, log_limiter: &RateLimited) {
    let mut served = JoinSet::new();
    let mut refused = JoinSet::new();
    loop {
        tokio::select! {
            (socket, _) = accept(&bound.listener, "the API ", log_limiter), if refused.len() < app.limits.refusals => {
                if served.len() < app.limits.connections {
                    served.spawn_local(connection(Rc::clone(app), socket, Rc::clone(access)));
                } else {
                    refused.spawn_local(refuse(socket));
                }
            }
            Some(_) = served.join_next() => {}
            Some(_) = refused.join_next() => {}
            () = app.control.changed() => {
                let is_same = app.control.config().api.listen == bound.listen
                    && self::access(app).await.is_ok_and(|now| now == **access);
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
            "ports below 1024 need root, and only a start has it; restart, or change api.listen".into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address; change api.listen".into(),
        _ => error.to_string(),
    };
    format!("cannot listen on {address}: {advice}")
}
