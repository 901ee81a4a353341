//! The program: its commands; and for the daemon: config, privileges, start, signals and exit code.
//!
//! Exit codes: 0 (stopped by SIGTERM or SIGINT, or the command succeeded), 78 (`EX_CONFIG`: bad config; every fault is printed),
//! 1 (every other failure), 2 (wrong usage). The codes of `try` are in [`trial::verdict`].

#![deny(clippy::print_stdout, clippy::print_stderr)] // see `output`

mod command;
mod spool_commands;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::SigSet;
use sophon_uplink::api::listen::PreboundListener;
use sophon_uplink::api::{self, App, client};
use sophon_uplink::body::Format;
use sophon_uplink::config::{ConfigError, Url};
use sophon_uplink::confine::{self, Confined, User};
use sophon_uplink::control::{CheckedConfig, Control};
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::ring::opener;
use sophon_uplink::signals::{Notice, Signals};
use sophon_uplink::spool::inspect;
use sophon_uplink::spool::judge::judge;
use sophon_uplink::spool::key::Key;
use sophon_uplink::trial::verdict::Progress;
use sophon_uplink::trial::{self, Plan, Tried};
use sophon_uplink::uplink::Uplink;
use sophon_uplink::{log, output};
use tokio::runtime::LocalOptions;
use tracing::{error, info, warn};

use command::{Command, PROGRAM, complain};

/// Time after SIGTERM for uploads that are in progress. Unfinished events then go to the spool.
const GRACE: Duration = Duration::from_millis(600);
/// Time for the spool to store them.
const SHUTDOWN_DEADLINE: Duration = Duration::from_millis(1400);
/// Limit for all of this and the summary, below the promised 2 s. The process is ended then.
const EXIT_DEADLINE: Duration = Duration::from_millis(1900);

fn main() -> ExitCode {
    let signals = Signals::hold();
    match command::read() {
        Ok(Command::Run { config, user }) => run(&config, user, signals),
        Ok(command) => {
            signals.release();
            perform(command)
        }
        Err(error) => {
            complain(format_args!("{error}; see {PROGRAM} --help"));
            ExitCode::from(2)
        }
    }
}

fn perform(command: Command) -> ExitCode {
    match command {
        Command::Run { .. } => unreachable!("main sees to it"),
        Command::OpenRings { rings, seccomp } => open_rings(&rings, seccomp),
        Command::CheckConfig { file, user } => check_config(&file, user),
        Command::Status { config, api, json } => show_status(&config, api, json),
        Command::Ring { path, json } => show_ring(&path, json),
        Command::Spool { config, json } => {
            say(spool_commands::look_into(&config, spool_commands::contents).map(|contents| {
                if json { serde_json::to_string(&contents).expect("plain data") } else { contents.to_string() }
            }))
        }
        Command::DeadList { config, json } => {
            let folders = spool_commands::look_into(&config, |dir, _| inspect::dead_letters(dir));
            say(folders.map(|folders| {
                if json {
                    serde_json::to_string(&folders).expect("plain data")
                } else {
                    spool_commands::dead_letters(&folders)
                }
            }))
        }
        Command::DeadResend { config, letters } => say(spool_commands::resend(&config, &letters)),
        Command::Try { url, format, config, idle, json } => try_server(url, format, config.as_deref(), idle, json),
        Command::Say(text) => print(&text),
    }
}

fn print(text: &dyn std::fmt::Display) -> ExitCode {
    output::print(PROGRAM, text)
}

fn check_config(file: &Path, user: Option<User>) -> ExitCode {
    match user.map(|user| confine::judge_as(file, user)).transpose() {
        Ok(left) => left.flatten().iter().for_each(complain),
        Err(error) => return not_started(&error),
    }
    match CheckedConfig::read(file) {
        Ok(good) => {
            good.config().warnings().iter().for_each(complain);
            // Not a fault of the config: the uplink runs without its key, and the init script must start it.
            if let Some(Err(why)) = good.config().spool.key_file.as_deref().map(Key::read) {
                complain(format_args!("{why}; without it nothing is kept on flash"));
            }
            if let Some(why) = judge(&good.config().spool.dir) {
                complain(why);
            }
            print(&format_args!("{}: good", file.display()))
        }
        Err(error) => bad_config(&error),
    }
}

fn bad_config(error: &ConfigError) -> ExitCode {
    complain(error);
    ExitCode::from(78)
}

/// Its exit codes differ: see [`trial::verdict`].
fn try_server(url: Url, format: Option<Format>, config: Option<&Path>, idle: Duration, json: bool) -> ExitCode {
    let checked = match config.map_or_else(
        || CheckedConfig::of_text(br#"{"event_server_url": []}"#[..].into(), Path::new("")),
        CheckedConfig::read,
    ) {
        Ok(checked) => checked,
        Err(error) => return bad_config(&error),
    };
    let formats = format.map_or(Format::ALL.to_vec(), |format| vec![format]);
    let say = |format, tried: &Tried| complain(Progress(format, tried));
    wait_for(Box::pin(async {
        let trial = trial::run(checked.setup(), Plan { url, formats, idle }, &say).await;
        let code = trial.code();
        let printed = if json { print(&trial.to_json()) } else { print(&trial) };
        if printed == ExitCode::SUCCESS { ExitCode::from(code) } else { printed }
    }))
}

fn show_ring(path: &Path, json: bool) -> ExitCode {
    say(RingState::of(path)
        .map_err(|error| error.to_string())
        .map(|state| if json { serde_json::to_string(&state).expect("plain data") } else { state.to_string() }))
}

fn show_status(config: &Path, api: Option<std::net::SocketAddr>, json: bool) -> ExitCode {
    say(client::status(config, api).map(|status| if json { status.to_string() } else { client::in_words(&status) }))
}

/// Prints the result of a command.
fn say(said: Result<String, String>) -> ExitCode {
    match said {
        Ok(text) => print(&text),
        Err(error) => not_started(&error),
    }
}

/// Ends when the uplink that started it ends it. Ignores signals, even those to all processes of a terminal.
fn open_rings(rings: &[PathBuf], seccomp: bool) -> ExitCode {
    let served = SigSet::all()
        .thread_block()
        .map_err(Into::into)
        .and_then(|()| confine::confine_opener(seccomp))
        .and_then(|()| opener::serve(rings));
    served.map_or_else(|error| not_started(&error), |()| ExitCode::SUCCESS)
}

fn run(file: &Path, user: Option<User>, signals: Signals) -> ExitCode {
    wait_for(Box::pin(upload(file, user, signals)))
}

/// Runs everything on this thread. Boxed, so that the program contains the runtime once.
fn wait_for(work: Pin<Box<dyn Future<Output = ExitCode> + '_>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => return not_started(&error),
    };
    let code = runtime.block_on(work);
    // Do not wait for a name that is still being resolved.
    runtime.shutdown_background();
    code
}

/// Reports an error before there is a log.
fn not_started(error: &dyn std::fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    error!("{error}");
    ExitCode::FAILURE
}

/// Acquires what only root may have, then gives up every right that uploading does not need.
fn give_up_rights(file: &Path, user: Option<User>) -> Result<(Option<PreboundListener>, Confined), ExitCode> {
    let config = CheckedConfig::peek(file).map_err(|error| bad_config(&error))?;
    let prebound = PreboundListener::listen(config.api.listen);
    let confined = confine::confine(file, &config, user).map_err(|error| not_started(&error))?;
    Ok((prebound, confined))
}

async fn upload(file: &Path, user: Option<User>, signals: Signals) -> ExitCode {
    // First: while there is one thread, and before any input arrives.
    let (prebound, confined) = match give_up_rights(file, user) {
        Ok(confined) => confined,
        Err(code) => return code,
    };
    let mut notices = match signals.watch(EXIT_DEADLINE) {
        Ok(notices) => notices,
        Err(error) => return not_started(&error),
    };
    let _flush = match log::start() {
        Ok(flush) => flush,
        Err(error) => return not_started(&error),
    };
    confined.left.iter().chain(&confined.problem).for_each(|problem| warn!("{problem}"));
    let (good, fault) = match CheckedConfig::read_or_last(file) {
        Ok(read) => read,
        Err(error) => return bad_config(&error),
    };
    let config = good.config();
    let rings = config.rings.clone();
    info!(version = env!("CARGO_PKG_VERSION"), config = %file.display(), destinations = config.destinations().count(), user = confined.user, "started");
    let uplink = match Uplink::start(Arc::clone(good.setup())) {
        Ok(uplink) => uplink,
        Err(error) => return failed(&error),
    };
    for ring in rings {
        if let Err(error) = uplink.read_ring(ring) {
            return failed(&error);
        }
    }
    let control = Control::new(file, Rc::clone(&uplink), good, fault);
    let app = App::new(Rc::clone(&control), Rc::clone(&uplink), confined, api::Limits::default());
    tokio::task::spawn_local(api::listen::serve(app, prebound));
    let code = loop {
        match notices.recv().await {
            Some(Notice::Stop) | None => break ExitCode::SUCCESS,
            Some(Notice::Reload) => drop(tokio::task::spawn_local(Rc::clone(&control).reload())),
            Some(Notice::ChildEnded) if opener::has_ended() => {
                break failed(&"the process that opens rings has ended: only a new start can open another ring");
            }
            Some(Notice::ChildEnded) => {}
        }
    };
    info!("stopping");
    uplink.stop(GRACE, SHUTDOWN_DEADLINE).await;
    info!("stopped: {}", uplink.status().await);
    code
}
