//! The receiving server of the box: one program that does what an owner's cloud must do to receive events, for trials.
//!
//! ```text
//!  POST ──▶ http (bounds) ──▶ receive (length) ──▶ request ──▶ fields (JSON or form-data) ──▶ event (the documented rules)
//!                                                                                        │
//!  page, /api/events, /api/stream ◀── folder: journal (seen ids, recent events, counters) ◀── store
//!                                                              └──▶ disk (--store)              └──▶ fleet (--jetstream)
//! ```
//! There are two stores: the folder, or, in a build with the feature `jetstream`, a stream for a fleet of boxes. A gallery shows
//! the events of such a stream on the same page. All external input is bounded: connections, headers, bodies in memory, times,
//! lists. One thread serves the sockets. Checking and storing a large event happens on a blocking thread, because it hashes
//! megabytes and waits for the disk. An event is answered with 200 only after it is stored. The process has no other state than
//! its store.

#![deny(clippy::print_stdout, clippy::print_stderr)] // see `output`

mod args;
mod boxes;
mod clock;
mod dialect;
mod disk;
mod error;
mod escape;
mod event;
mod fields;
#[cfg(feature = "jetstream")]
mod fleet;
mod folder;
mod http;
mod journal;
mod json;
mod picture;
mod receive;
mod recent;
mod record;
mod request;
mod routes;
mod search;
mod state_report;
mod store;
mod stream;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;

use sophon_uplink::log;
use sophon_uplink::output::{complain, print};
use sophon_uplink::serve::connection;
use sophon_uplink::signals::ignore_strays;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::args::{Args, Command};
use crate::folder::Folder;
use crate::http::Limits;
use crate::journal::Journal;
use crate::routes::App;

const PROGRAM: &str = "event-receive-server";
/// Exit code for a wrong command line.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    ignore_strays();
    let args = match args::parse(lexopt::Parser::from_env()) {
        Ok(Command::Run(args)) => *args,
        Ok(Command::Print(text)) => {
            return print(PROGRAM, text.trim_end());
        }
        Err(fault) => {
            complain(PROGRAM, format_args!("{fault}\nTry: {PROGRAM} --help"));
            return ExitCode::from(BAD_USAGE);
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            complain(PROGRAM, fault);
            ExitCode::FAILURE
        }
    }
}

/// Opens the store, listens, prints the address, and serves until it is told to stop.
fn run(args: Args) -> Result<(), String> {
    let _flush = log::start().map_err(|error| format!("cannot start: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let listen = args.listen;
    let app = Arc::new(app(args, &runtime)?);
    let listener = TcpListener::bind(listen).map_err(|error| cannot_listen(listen, &error))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(listen, &error))?;
    let served = runtime.block_on(async move {
        let listener = connection::adopt(listener).map_err(|error| cannot_listen(address, &error))?;
        // Do this before printing that the server is ready: a program that waits for that line may send a signal at once.
        let stop_signal = stop_signal().map_err(|error| format!("cannot catch signals: {error}"))?;
        announce(address);
        tokio::select! {
            () = http::serve(listener, app) => {}
            () = stop_signal => {}
        }
        Ok(())
    });
    // Dropping the runtime waits for events that are being written: none is left half-stored.
    drop(runtime);
    info!("stopped");
    served
}

/// The state that the answers are made from: a gateway, a gallery, or the folder with its page.
fn app(args: Args, runtime: &Runtime) -> Result<App, String> {
    #[cfg(feature = "jetstream")]
    if let Some(options) = &args.gateway {
        if options.is_gallery {
            let gallery = Arc::new(runtime.block_on(fleet::Gallery::start(options))?);
            let shown = gallery.shown.clone();
            return Ok(App::new(gallery, Some(shown), args.paths, Limits::default()));
        }
        let fleet = runtime.block_on(fleet::Fleet::start(options))?;
        return Ok(App::new(Arc::new(fleet), None, args.paths, fleet::Fleet::limits()));
    }
    #[cfg(not(feature = "jetstream"))]
    let _ = runtime; // only a gateway starts tasks before serving
    let journal = match &args.store {
        Some(folder) => Journal::on_disk(folder)?,
        None => Journal::in_memory(),
    };
    let folder = Arc::new(Folder::new(journal));
    Ok(App::new(folder.clone(), Some(folder), args.paths, Limits::default()))
}

/// Catches SIGTERM and SIGINT from now on. The returned future waits for one of them.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Prints the listening address at once. A failure to print is no reason to stop.
fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "listening on http://{address}").and_then(|()| out.flush());
}

/// Why the address cannot be used, and what to do.
fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> String {
    let port = address.port();
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "another program uses this port. See which one with `ss -ltnp 'sport = :{port}'`, \
             or choose another port, for example --listen {}:{}",
            address.ip(),
            port.checked_add(1).unwrap_or(9528)
        ),
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root; choose a higher one, for example --listen 0.0.0.0:9528".to_string()
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; --listen 0.0.0.0:9528 listens on all it has".to_string()
        }
        _ => error.to_string(),
    };
    format!("cannot listen on {address}: {advice}")
}
