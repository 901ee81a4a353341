//! Parses and checks the command line. Does no input or output.

use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::prelude::*;

/// The documented path for events; always served.
pub const EVENT_PATH: &str = "/RealTimeEvent";

const HELP: &str = "\
Receives the events of a SophonGate box, shows them on a page, and keeps them if asked to.

Usage: event-receive-server [--listen ADDRESS] [--store DIR] [--path PATH ...]

  --listen ADDRESS  IP and port to listen on [default: 0.0.0.0:9528]; port 0 takes a free one
  --store DIR       keep every event: DIR/events.jsonl and DIR/pictures/; without it the last 200 stay in memory
  --path PATH       a further path that takes events, beside /RealTimeEvent; can be given several times
  --help            this text
  --version         the version

Events are taken with POST, as JSON or as form-data; an answer of 400 says everything that is wrong with one.
/HistoryEvent takes the history's events, /SophonFogStatus the boxes' state; GET /boxes is a page of the boxes.
GET / is a page of what came in. GET /api/events?limit=N gives the same as JSON, GET /api/stream as it happens.

Faces and names are personal data, and whoever reaches the address can see them: for trials, in a network you trust.
";

#[cfg(not(feature = "jetstream"))]
const NOT_BUILT: &str = "this program was built without this option, and so is the program on a box; \
                         build a gateway with cargo build --profile gateway --features jetstream --bin event-receive-server";

/// Valid arguments for serving.
#[derive(Debug, PartialEq)]
pub struct Args {
    /// The address to listen on; with port 0 the system chooses a port.
    pub listen: SocketAddr,
    /// The folder that stores the events; without one they stay in memory.
    pub store: Option<PathBuf>,
    /// The gateway that stores the events instead, with the feature.
    #[cfg(feature = "jetstream")]
    pub gateway: Option<crate::fleet::Options>,
    /// All paths that accept events. The documented one comes first; each occurs once.
    pub paths: Vec<String>,
}

impl Default for Args {
    fn default() -> Args {
        Args {
            listen: SocketAddr::from(([0, 0, 0, 0], 9528)),
            store: None,
            #[cfg(feature = "jetstream")]
            gateway: None,
            paths: vec![EVENT_PATH.to_string()],
        }
    }
}

/// The requested action.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Serve.
    Run(Box<Args>),
    /// Print this text and end.
    Print(String),
}

/// Parses the command line. The error names the wrong argument and what is allowed.
pub fn parse(mut parser: lexopt::Parser) -> Result<Command, String> {
    let mut args = Args::default();
    #[cfg(feature = "jetstream")]
    let mut gateway = crate::fleet::Options::default();
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Long("listen") => args.listen = listen(&text(&mut parser)?)?,
            Long("store") => args.store = Some(folder(parser.value().map_err(|error| error.to_string())?)?),
            Long("path") => {
                let path = path(text(&mut parser)?)?;
                if !args.paths.contains(&path) {
                    args.paths.push(path);
                }
            }
            #[cfg(feature = "jetstream")]
            Long(
                name @ ("jetstream" | "gallery-from" | "stream" | "consumer" | "creds" | "token-file" | "tls-ca"
                | "boxes"),
            ) => {
                let name = name.to_owned();
                gateway.set(&name, text(&mut parser)?)?;
            }
            #[cfg(not(feature = "jetstream"))]
            Long(name @ ("jetstream" | "gallery-from")) => return Err(format!("--{name}: {NOT_BUILT}")),
            Short('h') | Long("help") => return Ok(Command::Print(help())),
            Short('V') | Long("version") => {
                return Ok(Command::Print(format!("event-receive-server {}\n", env!("CARGO_PKG_VERSION"))));
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    #[cfg(feature = "jetstream")]
    {
        args.gateway = gateway.finish(args.store.is_some())?;
    }
    Ok(Command::Run(Box::new(args)))
}

#[cfg(feature = "jetstream")]
fn help() -> String {
    HELP.to_string() + crate::fleet::HELP
}

#[cfg(not(feature = "jetstream"))]
fn help() -> String {
    HELP.to_string()
}

fn text(parser: &mut lexopt::Parser) -> Result<String, String> {
    parser.value().and_then(|value| value.string()).map_err(|error| error.to_string())
}

fn listen(value: &str) -> Result<SocketAddr, String> {
    value.parse().map_err(|_| format!("--listen {value:?}: an IP address and a port are needed, such as 0.0.0.0:9528"))
}

fn folder(value: std::ffi::OsString) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err("--store \"\": the name of a folder is needed".to_string());
    }
    Ok(value.into())
}

/// The server compares a path byte for byte with the request's path, so it must be written in the same form.
fn path(value: String) -> Result<String, String> {
    let written_as_in_a_request =
        value.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
    if value.starts_with('/') && written_as_in_a_request {
        Ok(value)
    } else {
        Err(format!("--path {value:?}: a path starts with / and has no query, no spaces and no bare non-ASCII letters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Command, String> {
        parse(lexopt::Parser::from_args(args))
    }

    #[test]
    fn without_arguments_it_listens_on_the_documented_port_and_path() {
        let Ok(Command::Run(args)) = parsed(&[]) else { panic!("refused") };
        assert_eq!((args.listen, args.store), ("0.0.0.0:9528".parse().unwrap(), None));
        assert_eq!(args.paths, ["/RealTimeEvent"]);
    }

    #[test]
    fn every_option_is_taken_and_a_repeated_path_counts_once() {
        let args =
            ["--listen=[::1]:0", "--store", "/tmp/x", "--path", "/a/b", "--path", "/a/b", "--path", "/RealTimeEvent"];
        let Ok(Command::Run(args)) = parsed(&args) else { panic!("refused") };
        assert_eq!(args.listen, "[::1]:0".parse().unwrap());
        assert_eq!(args.store, Some(PathBuf::from("/tmp/x")));
        assert_eq!(args.paths, ["/RealTimeEvent", "/a/b"]);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (args, named) in [
            (&["--listen", "9528"][..], "9528"),
            (&["--listen", "localhost:1"], "localhost"),
            (&["--listen"], "--listen"),
            (&["--store", ""], "--store"),
            (&["--path", "events"], "events"),
            (&["--path", "/a?b"], "/a?b"),
            (&["--path", "/a b"], "/a b"),
            (&["--jetstream", "http://x"], "--jetstream"),
            (&["--gallery-from", "http://x"], "--gallery-from"),
            (&["--port", "1"], "--port"),
            (&["serve"], "serve"),
        ] {
            let fault = parsed(args).expect_err(named);
            assert!(fault.contains(named), "{fault}");
        }
    }
}
