//! The command line, and the commands that inspect a spool or resend its dead letters.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use sophon_uplink::api::client;
use sophon_uplink::body::Format;
use sophon_uplink::config::{self, Config, Url};
use sophon_uplink::confine::User;
use sophon_uplink::control::CheckedConfig;
use sophon_uplink::output;
use sophon_uplink::ring::opener;
use sophon_uplink::spool::dead::Wanted;
use sophon_uplink::spool::inspect::{Contents, Folder};
use sophon_uplink::spool::{Address, RealDisk, Resent, Spool, State};
use sophon_uplink::uplink;

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

/// Which dead letters to send again.
pub struct Letters {
    /// None: all.
    numbers: Option<Vec<u64>>,
    /// None: each goes to its original destination.
    to: Option<String>,
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

/// Inspects the spool of the config at `file`. If the running uplink has another one open, because a changed `spool.dir` waits
/// for a restart, inspects that one.
///
/// # Errors
/// Why the spool cannot be inspected.
pub fn look_into<T>(file: &Path, look: impl FnOnce(&Path, &Config) -> std::io::Result<T>) -> Result<T, String> {
    let (good, _) = CheckedConfig::read_or_last(file).map_err(|error| error.to_string())?;
    let open = client::status(file, None).ok().and_then(|status| status["spool"]["dir"].as_str().map(PathBuf::from));
    let dir = match open {
        Some(open) if open != good.config().spool.dir => {
            complain(format_args!("{} is open until a restart puts the config's spool.dir into force", open.display()));
            open
        }
        _ => good.config().spool.dir.clone(),
    };
    look(&dir, good.config()).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no spool at {}: nothing was ever spooled", dir.display()),
        _ => format!("the spool at {} cannot be read: {error}", dir.display()),
    })
}

/// The contents of the spool at `dir`, including what is parked under `config`.
///
/// # Errors
/// There is no spool, or it cannot be read.
pub fn contents(dir: &Path, config: &Config) -> std::io::Result<Contents> {
    Contents::of(dir, &uplink::addresses(config))
}

/// The dead letters as text for people, one per line.
pub fn dead_letters(folders: &[Folder]) -> String {
    let mut lines = Vec::new();
    for folder in folders {
        lines.extend(folder.events.iter().map(|letter| {
            let why = letter.reason.as_ref().map_or(String::new(), |reason| format!("\n    {reason}"));
            format!("{letter}  {} bytes  {}{why}", letter.bytes, folder.label())
        }));
    }
    if lines.is_empty() { "no dead letters".into() } else { lines.join("\n") }
}

/// Resends dead letters in batches: through the running uplink, or directly if none runs. Returns a summary.
///
/// # Errors
/// Why they were not sent.
pub fn resend(file: &Path, letters: &Letters) -> Result<String, String> {
    let by_root = nix::unistd::geteuid().is_root();
    if by_root {
        become_owner(config::folder_of(file))?; // the owner may write any path into the config
    }
    let (good, _) = CheckedConfig::read_or_last(file).map_err(|error| error.to_string())?;
    // Try the uplink first: it may have a spool open that differs from the one in the config.
    let Err(no_answer) = client::status(file, None) else {
        return in_batches(|after| ask_to_resend(file, letters, after));
    };
    let unknown = |to: &str| format!("{to} is not a destination of the config");
    let is_known = |url: &Url| good.config().destinations().any(|known| known == url);
    let known = |to: &str| Url::of_destination(to).ok().filter(is_known).ok_or_else(|| unknown(to));
    let to = letters.to.as_deref().map(known).transpose()?.map(|url| Address::from(&url).destination);
    if by_root {
        owns_spool(&good.config().spool.dir)?;
    }
    let (mut spool, found) = Spool::open(RealDisk::default(), &good.config().spool, &uplink::addresses(good.config()));
    match spool.state() {
        State::Usable => in_batches(|after| {
            let wanted = Wanted { numbers: letters.numbers.clone(), to, after };
            spool.resend_some(&wanted).map_err(|fault| fault.to_string())
        }),
        _ if found.unavailable.is_some_and(|fault| fault.is_claimed()) => Err(no_answer),
        State::Troubled(why) | State::Unavailable(why) => Err(why.clone()),
    }
}

/// Asks the running uplink to resend some of the letters.
fn ask_to_resend(file: &Path, letters: &Letters, after: Option<u64>) -> Result<Resent, String> {
    let mut wanted = match &letters.numbers {
        Some(numbers) => json!({ "numbers": numbers }),
        None => json!({ "all": true }),
    };
    if let Some(to) = &letters.to {
        wanted["to"] = json!(to);
    }
    if let Some(after) = after {
        wanted["after"] = json!(after);
    }
    let answer = client::post(file, "/api/dead-letters", &wanted)?;
    let resent = answer["resent"].as_u64().ok_or_else(|| format!("the uplink answered {answer}"))?;
    let skipped = answer["skipped"].as_object().into_iter().flatten();
    let skipped = skipped.map(|(url, letters)| (url.clone(), letters.as_u64().unwrap_or(0))).collect();
    Ok(Resent { resent, skipped, after: answer["after"].as_u64() })
}

/// Sends all batches and prints the progress. Returns a summary.
fn in_batches(mut send: impl FnMut(Option<u64>) -> Result<Resent, String>) -> Result<String, String> {
    let mut done = Resent::default();
    loop {
        let batch = send(done.after).map_err(|why| match done.resent {
            0 => why,
            resent => format!("{resent} dead letters wait to be sent again, then: {why}"),
        })?;
        done.add(batch);
        if done.after.is_none() {
            break;
        }
        complain(format_args!("{} dead letters so far", done.resent));
    }
    let left = done.skipped.iter().map(|(url, letters)| {
        format!("{letters} for {url} stay: its destination is not in the config; --to URL sends them to another one")
    });
    let left = left.collect::<Vec<_>>().join("\n");
    match (done.resent, left.as_str()) {
        (0, left) if !left.is_empty() => Err(left.to_owned()),
        (resent, "") => Ok(format!("{resent} dead letters wait to be sent again")),
        (resent, left) => Ok(format!("{resent} dead letters wait to be sent again\n{left}")),
    }
}

/// If this process is root, becomes the user who owns the folder.
fn become_owner(folder: &Path) -> Result<(), String> {
    let Some(owner) = User::owner_of(folder) else { return Ok(()) };
    owner.become_it().map_err(|error| format!("cannot become user {owner}, who owns {}: {error}", folder.display()))
}

/// Checks that a spool is a real folder and belongs to this process's user. The uplink could not read files that root creates in
/// another user's folder, and a link may lead anywhere. If the process is still root, the config belongs to root, who may name
/// any spool; the process then becomes the spool's owner.
fn owns_spool(dir: &Path) -> Result<(), String> {
    let found = match std::fs::symlink_metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| format!("the spool at {} cannot be seen: {error}", dir.display()))?,
    };
    if !found.is_dir() {
        return Err(format!("{} is no folder, or a link: set spool.dir to the spool's own folder", dir.display()));
    }
    if nix::unistd::geteuid().is_root() {
        become_owner(dir)?;
    }
    let me = nix::unistd::geteuid().as_raw();
    if found.uid() != me {
        let (dir, owner) = (dir.display(), found.uid());
        return Err(format!(
            "the spool {dir} is user {owner}'s, and the config's folder user {me}'s: give both to one"
        ));
    }
    Ok(())
}
