//! The daemon: arguments, config, start, signals, exit code.
//!
//! Exit codes: 0 (stopped by SIGTERM or SIGINT, or the command did its work), 78 (`EX_CONFIG`: a bad config, with every fault
//! named), 1 (everything else), 2 (wrong usage).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use sophon_uplink::api::{self, App, ask};
use sophon_uplink::config::{self, ConfigError};
use sophon_uplink::control::{Control, Good};
use sophon_uplink::log;
use sophon_uplink::ring::inspect::RingState;
use sophon_uplink::uplink::{StartError, Uplink};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

const USAGE: &str = "\
sophon-uplink uploads a SophonGate box's face recognition events to its owner's server.

usage: sophon-uplink run [--config FILE]      upload; SIGHUP reads the config again, SIGTERM stops
       sophon-uplink check-config FILE        name every fault of a config file
       sophon-uplink status [--config FILE] [--json]
                                              show how the running uplink fares
       sophon-uplink ring PATH [--json]       show a ring's state
       sophon-uplink --help | --version

FILE is /system/data/sophon_gate/config/sophon-uplink.json where --config is not given.";

/// What is on its way at SIGTERM gets this long; what is left then goes to the spool.
const GRACE: Duration = Duration::from_millis(600);
/// Everything together, with the summary, stays below the 2 s that are promised.
const PATIENCE: Duration = Duration::from_millis(1500);

enum Command {
    Run { config: PathBuf },
    CheckConfig { file: PathBuf },
    Status { config: PathBuf, json: bool },
    Ring { path: PathBuf, json: bool },
    Say(String),
}

fn main() -> ExitCode {
    match command() {
        Ok(Command::Run { config }) => run(&config),
        Ok(Command::CheckConfig { file }) => check_config(&file),
        Ok(Command::Status { config, json }) => show_status(&config, json),
        Ok(Command::Ring { path, json }) => show_ring(&path, json),
        Ok(Command::Say(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sophon-uplink: {error}; see sophon-uplink --help");
            ExitCode::from(2)
        }
    }
}

fn command() -> Result<Command, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let (mut name, mut operand, mut config, mut json) = (None::<String>, None::<PathBuf>, None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Say(USAGE.into())),
            Long("version") | Short('V') => {
                return Ok(Command::Say(concat!("sophon-uplink ", env!("CARGO_PKG_VERSION")).into()));
            }
            Long("config") if matches!(name.as_deref(), Some("run" | "status")) => {
                config = Some(parser.value()?.into())
            }
            Long("json") if matches!(name.as_deref(), Some("ring" | "status")) => json = true,
            Value(value) if name.is_none() => name = Some(value.string()?),
            Value(value) if operand.is_none() && !matches!(name.as_deref(), Some("run" | "status")) => {
                operand = Some(value.into())
            }
            other => return Err(other.unexpected()),
        }
    }
    let config = config.unwrap_or_else(|| config::DEFAULT_PATH.into());
    match (name.as_deref(), operand) {
        (Some("run"), None) => Ok(Command::Run { config }),
        (Some("status"), None) => Ok(Command::Status { config, json }),
        (Some("check-config"), Some(file)) => Ok(Command::CheckConfig { file }),
        (Some("ring"), Some(path)) => Ok(Command::Ring { path, json }),
        (Some("check-config" | "ring"), None) => Err("a path is missing".into()),
        (Some(other), _) => Err(format!("there is no command {other:?}").into()),
        (None, _) => Err("a command is missing".into()),
    }
}

fn check_config(file: &Path) -> ExitCode {
    match Good::read(file) {
        Ok(_) => {
            println!("{}: good", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => bad_config(&error),
    }
}

fn bad_config(error: &ConfigError) -> ExitCode {
    eprintln!("sophon-uplink: {error}");
    ExitCode::from(78)
}

fn show_ring(path: &Path, json: bool) -> ExitCode {
    match RingState::of(path) {
        Ok(state) if json => println!("{}", serde_json::to_string(&state).expect("plain data")),
        Ok(state) => println!("{state}"),
        Err(error) => {
            eprintln!("sophon-uplink: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn show_status(config: &Path, json: bool) -> ExitCode {
    match ask::status(config) {
        Ok(status) if json => println!("{status}"),
        Ok(status) => println!("{}", ask::in_words(&status)),
        Err(error) => {
            eprintln!("sophon-uplink: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(file: &Path) -> ExitCode {
    let _flush = match log::start() {
        Ok(flush) => flush,
        Err(error) => {
            eprintln!("sophon-uplink: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let code = runtime.block_on(tokio::task::LocalSet::new().run_until(upload(file)));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    code
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    error!("{error}");
    ExitCode::FAILURE
}

async fn upload(file: &Path) -> ExitCode {
    // First of all: a signal that comes before would end the process.
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        return failed(&"no signal handlers");
    };
    let (good, fault) = match Good::read_or_last(file) {
        Ok(read) => read,
        Err(error) => return bad_config(&error),
    };
    let config = good.config.clone();
    let rings = config.rings.clone();
    info!(version = env!("CARGO_PKG_VERSION"), config = %file.display(), destinations = config.event_server_url.len(), "started");
    let uplink = match Uplink::start(config) {
        Ok(uplink) => uplink,
        Err(StartError::Config(fault)) => {
            return bad_config(&ConfigError { path: file.to_owned(), faults: vec![fault] });
        }
        Err(error @ StartError::Thread(_)) => return failed(&error),
    };
    for ring in rings {
        if let Err(error) = uplink.read_ring(ring) {
            return failed(&error);
        }
    }
    let control = Control::new(file, Rc::clone(&uplink), good, fault);
    tokio::task::spawn_local(api::listen::serve(App::new(
        Rc::clone(&control),
        Rc::clone(&uplink),
        api::Limits::default(),
    )));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => drop(tokio::task::spawn_local(Rc::clone(&control).reload())),
        }
    }
    info!("stopping");
    uplink.stop(GRACE, PATIENCE).await;
    info!("stopped: {}", uplink.status().await);
    ExitCode::SUCCESS
}
