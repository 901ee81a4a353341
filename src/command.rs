//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sophon_uplink::body::Format;
use sophon_uplink::config::{self, Url};
use sophon_uplink::confine::User;
use sophon_uplink::output;
use sophon_uplink::ring::opener;

use crate::spool_commands::Letters;

const USAGE: &str = "\
sophon-uplink uploads a SophonGate box's face recognition events to its owner's server.

usage: sophon-uplink run [--config FILE] [--user USER[:GROUP]]
                                              upload; SIGHUP reads the config again, SIGTERM stops
       sophon-uplink check-config FILE [--user USER[:GROUP]]
                                              name every fault of a config file, as that user finds it
       sophon-uplink status [--config FILE] [--api ADDRESS:PORT] [--json]
                                              show the state of the running uplink
       sophon-uplink ring PATH [--json]       show a ring's state
       sophon-uplink spool [--config FILE] [--json]
                                              show the events on the disk
       sophon-uplink dead list [--config FILE] [--json]
                                              show refused events (dead letters)
       sophon-uplink try URL [--format json|form-data] [--config FILE] [--idle SECONDS] [--json]
                                              which events a server takes, and what to set
       sophon-uplink dead resend [--config FILE] --all|NUMBER... [--to URL]
                                              send dead letters again
       sophon-uplink --help | --version

An uplink that root starts becomes USER (a name or a number). Without --user, it keeps its user.
FILE defaults to /system/data/sophon_gate/config/sophon-uplink.json.";

/// How long `try` waits for a server to close an idle connection.
const IDLE: Duration = Duration::from_secs(10);

/// The program's name, the prefix of its messages.
pub const PROGRAM: &str = "sophon-uplink";

/// Prints a message on standard error.
pub fn complain(what: impl std::fmt::Display) {
    output::complain(PROGRAM, what);
}

/// The command to run.
pub enum Command {
    Run {
        config: PathBuf,
        user: Option<User>,
    },
    /// Internal: the uplink starts this itself.
    OpenRings {
        rings: Vec<PathBuf>,
        seccomp: bool,
    },
    CheckConfig {
        file: PathBuf,
        user: Option<User>,
    },
    Status {
        config: PathBuf,
        api: Option<SocketAddr>,
        json: bool,
    },
    Ring {
        path: PathBuf,
        json: bool,
    },
    Spool {
        config: PathBuf,
        json: bool,
    },
    DeadList {
        config: PathBuf,
        json: bool,
    },
    DeadResend {
        config: PathBuf,
        letters: Letters,
    },
    Try {
        url: Url,
        /// None: both.
        format: Option<Format>,
        /// Take headers, certificates and timeouts from this config; none: use the defaults.
        config: Option<PathBuf>,
        idle: Duration,
        json: bool,
    },
    Say(String),
}

/// All options and words of the command line, for every command.
#[derive(Default)]
struct RawArgs {
    words: Vec<String>,
    config: Option<PathBuf>,
    user: Option<User>,
    json: bool,
    api: Option<SocketAddr>,
    all: bool,
    to: Option<String>,
    format: Option<Format>,
    idle: Option<Duration>,
}

/// Reads the command line.
///
/// # Errors
/// What is wrong with it.
pub fn read() -> Result<Command, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let mut given = RawArgs::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Say(USAGE.into())),
            Long("version") | Short('V') => {
                return Ok(Command::Say(concat!("sophon-uplink ", env!("CARGO_PKG_VERSION")).into()));
            }
            Long("config") if given.config.is_none() => given.config = Some(parser.value()?.into()),
            Long("user") if given.user.is_none() => given.user = Some(parser.value()?.string()?.parse()?),
            Long("json") => given.json = true,
            Long("api") if given.api.is_none() => given.api = Some(parser.value()?.parse()?),
            Long("all") => given.all = true,
            Long("to") if given.to.is_none() => given.to = Some(parser.value()?.string()?),
            Long("format") if given.format.is_none() => given.format = Some(format(&parser.value()?.string()?)?),
            Long("idle") if given.idle.is_none() => given.idle = Some(seconds(&parser.value()?.string()?)?),
            Value(value) => given.words.push(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    given.command()
}

impl RawArgs {
    fn command(self) -> Result<Command, lexopt::Error> {
        let RawArgs { words, config, user, json, api, all, to, format, idle } = self;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let has_config = config.is_some();
        let named = config.clone();
        let file = config.unwrap_or_else(|| config::DEFAULT_PATH.into());
        let (is_status, is_try) = (words == ["status"], words.first() == Some(&"try"));
        // The options that each command takes: --config, --json, those of `dead resend`, and --user.
        let (command, takes) = match words[..] {
            ["run"] => (Command::Run { config: file, user }, [true, false, false, true]),
            [opener::COMMAND, filtered, ref rings @ ..] => {
                let rings = rings.iter().map(PathBuf::from).collect();
                (Command::OpenRings { rings, seccomp: filtered == opener::FILTERED }, [false; 4])
            }
            ["check-config", path] => (Command::CheckConfig { file: path.into(), user }, [false, false, false, true]),
            ["status"] => (Command::Status { config: file, api, json }, [true, true, false, false]),
            ["ring", path] => (Command::Ring { path: path.into(), json }, [false, true, false, false]),
            ["spool"] => (Command::Spool { config: file, json }, [true, true, false, false]),
            ["dead", "list"] => (Command::DeadList { config: file, json }, [true, true, false, false]),
            ["dead", "resend", ref numbers @ ..] => {
                let letters = Letters { numbers: which(numbers, all)?, to: to.clone() };
                (Command::DeadResend { config: file, letters }, [true, false, true, false])
            }
            ["try", url] => {
                let url = Url::parse(url).map_err(|fault| format!("{url:?} is no URL of a server: {fault}"))?;
                let idle = idle.unwrap_or(IDLE);
                (Command::Try { url, format, config: named, idle, json }, [true, true, false, false])
            }
            ["try"] => return Err("try what? the URL of a server is missing".into()),
            ["check-config" | "ring"] => return Err("a path is missing".into()),
            ["dead"] => return Err("dead what? list or resend".into()),
            [] => return Err("a command is missing".into()),
            ref words => return Err(format!("there is no command {:?}", words.join(" ")).into()),
        };
        let given = [
            ("--config", has_config),
            ("--json", json),
            ("--all or --to", all || to.is_some()),
            ("--user", user.is_some()),
        ];
        match given.iter().zip(takes).find(|((_, given), takes)| *given && !takes) {
            Some(((option, _), _)) => Err(format!("{} takes no {option}", words[0]).into()),
            None if api.is_some() && !is_status => Err(format!("{} takes no --api", words[0]).into()),
            None if (format.is_some() || idle.is_some()) && !is_try => {
                Err(format!("{} takes no --format and no --idle", words[0]).into())
            }
            None => Ok(command),
        }
    }
}

fn format(name: &str) -> Result<Format, String> {
    Format::ALL
        .into_iter()
        .find(|format| format.name() == name)
        .ok_or_else(|| format!("--format: {name:?} is neither json nor form-data"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= 600);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("--idle: {text:?} is no number of seconds from 0 to 600"))
}

fn which(numbers: &[&str], all: bool) -> Result<Option<Vec<u64>>, lexopt::Error> {
    if all != numbers.is_empty() {
        return Err("say which dead letters: --all, or their numbers as dead list shows them".into());
    }
    let number = |text: &&str| text.parse().map_err(|_| format!("{text:?} is not the number of a dead letter"));
    let numbers: Vec<u64> = numbers.iter().map(number).collect::<Result<_, _>>()?;
    Ok((!all).then_some(numbers))
}
