//! Client of the running uplink's own API, for `sophon-uplink status` and `dead resend`. Also prints a status as text for people.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config::DEFAULT_LISTEN;
use crate::control::CheckedConfig;
use crate::deliver::sizes::Size;

/// Timeout of each step: connecting, writing and reading.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// The client reads at most this many bytes of an answer; real answers are shorter.
const LONGEST: u64 = 4 << 20;

/// Returns the answer of `GET /api/status` at `address`. Without `address`, uses the listen address from the config at `file`.
/// Uses the default address if this account may not read the config.
///
/// # Errors
/// Returns why there is no answer, and what to do.
pub fn status(file: &Path, address: Option<SocketAddr>) -> Result<Value, String> {
    request(file, address, "GET /api/status", "")
}

/// Returns the answer to a `POST` of `body` to `path`.
///
/// # Errors
/// Returns why there is no answer and what to do, or the error message of the answer.
pub fn post(file: &Path, path: &str, body: &Value) -> Result<Value, String> {
    request(file, None, &format!("POST {path}"), &body.to_string())
}

fn request(file: &Path, address: Option<SocketAddr>, what: &str, body: &str) -> Result<Value, String> {
    let is_denied = std::fs::File::open(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
    let api = match CheckedConfig::read_or_last(file) {
        Ok((checked, _)) => Some(checked.config().api.clone()),
        Err(_) if is_denied || address.is_some() => None,
        Err(error) => return Err(error.to_string()),
    };
    let listen = address.or(api.as_ref().map(|api| api.listen)).unwrap_or(DEFAULT_LISTEN);
    let address = reachable(listen);
    let (mut token, mut unread) = (String::new(), String::new());
    if let Some(api) = api.filter(|api| !api.listen.ip().to_canonical().is_loopback() && is_own(address)) {
        match std::fs::read_to_string(&api.token_file) {
            Ok(read) => token = read,
            Err(error) => unread = format!("; {} cannot be read: {error}", api.token_file.display()),
        }
    }
    let (head, body) = exchange(address, token.trim(), what, body).map_err(|error| {
        let hint = if is_denied {
            format!("; this account may not read {}: give the API's address by --api", file.display())
        } else {
            String::new()
        };
        format!(
            "no answer at {address}: {error}; is the uplink running? its log says whether the API could listen{hint}"
        )
    })?;
    let is_ours = head.to_ascii_lowercase().contains("\r\nserver: sophon-uplink/");
    let answer: Option<Value> = serde_json::from_str(&body).ok().filter(|_| is_ours);
    match answer {
        None => Err(format!("another program answers at {address}; stop it, or change api.listen")),
        Some(answer) => match answer["error"]["message"].as_str() {
            Some(message) => {
                let hint = if head.contains(" 401 ") { "; or run this as the uplink's user or as root" } else { "" };
                Err(format!("{message}{hint}{unread}"))
            }
            None => Ok(answer),
        },
    }
}

/// The address to connect to for a listen address: the unspecified address becomes loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether this machine has the address: only such an address can be bound. The token goes to no other machine.
fn is_own(mut address: SocketAddr) -> bool {
    address.set_port(0);
    TcpListener::bind(address).is_ok()
}

/// Sends the request and returns the answer's head and body.
fn exchange(address: SocketAddr, token: &str, what: &str, body: &str) -> std::io::Result<(String, String)> {
    let mut socket = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
    socket.set_read_timeout(Some(REPLY_TIMEOUT))?;
    socket.set_write_timeout(Some(REPLY_TIMEOUT))?;
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let length = body.len();
    let content = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    let content = if body.is_empty() { String::new() } else { content };
    let request = format!("{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{token}{content}\r\n{body}");
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.take(LONGEST).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("it does not speak HTTP"))?;
    Ok((head.to_owned(), body.to_owned()))
}

/// The status as text for people, one subject per line.
pub fn in_words(status: &Value) -> String {
    let mut text = String::new();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let uptime = duration(status["uptime_seconds"].as_f64().unwrap_or_default());
    let health = if status["health"]["ok"] == true { "all is well" } else { "something needs attention" };
    let _ = writeln!(text, "sophon-uplink {}, running for {uptime}: {health}", word(&status["version"]));
    for problem in status["health"]["problems"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  ! {}", word(problem));
    }
    for note in status["health"]["notes"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  - {}", word(note));
    }
    let (events, shares) = (&status["events"], &status["shares"]);
    let _ = writeln!(
        text,
        "events        {} read, {} below the threshold, {} unreadable",
        number(&events["read"]),
        number(&events["filtered"]),
        number(&events["malformed"])
    );
    let lost = ["evicted", "quarantined", "vanished", "expired", "refused", "lost"];
    let _ = writeln!(
        text,
        "deliveries    {} acknowledged, {} waiting ({} of them in the spool), {} dead letters, {} given up",
        number(&shares["acknowledged"]),
        number(&shares["spooled"]) + number(&shares["open"]),
        number(&shares["spooled"]),
        number(&shares["dead"]),
        lost.iter().map(|name| number(&shares[*name])).sum::<u64>()
    );
    for destination in status["destinations"].as_array().into_iter().flatten() {
        destination_in_words(&mut text, destination);
    }
    for ring in status["rings"].as_array().into_iter().flatten() {
        let path = word(&ring["path"]);
        let state = &ring["state"];
        let _ = match ring["problem"].as_str() {
            Some(problem) => writeln!(text, "ring          {problem}"),
            None => writeln!(
                text,
                "ring          {path}: {} of {} bytes used, {} events dropped; recognizer {}",
                number(&state["used"]),
                number(&state["capacity"]),
                number(&state["dropped"]),
                word(&ring["recognizer"])
            ),
        };
    }
    let monitor = &status["monitor"];
    if let Some(url) = monitor["url"].as_str() {
        let said = match (&monitor["last_error"], monitor["last_success_seconds"].as_f64()) {
            (Value::String(error), _) => format!("not sent: {error}"),
            (_, Some(seconds)) => format!("sent {} ago", duration(seconds)),
            (_, None) => "not sent yet".into(),
        };
        let _ = writeln!(text, "state report  {url}: {said}");
    }
    let spool = &status["spool"];
    let _ = write!(
        text,
        "spool         {}: {} of {} bytes used",
        word(&spool["dir"]),
        number(&spool["bytes"]),
        number(&spool["max_bytes"])
    );
    if number(&spool["locked"]) > 0 {
        let _ =
            write!(text, "\nspool         {} events are sealed with another key, and stay", number(&spool["locked"]));
    }
    let problems = [
        ("spool", &spool["problem"]),
        ("config", &status["config"]["problem"]),
        ("privileges", &status["privileges"]["problem"]),
    ];
    for (subject, problem) in problems {
        if let Some(problem) = problem.as_str() {
            let _ = write!(text, "\n{subject:13} {problem}");
        }
    }
    if status["clock_is_set"] == false {
        text.push_str("\nclock         not set: the time is before the program was built");
    }
    if status["randomness_is_ready"] == false {
        text.push_str("\nrandomness    not ready: the kernel has no random numbers yet; what needs them waits");
    }
    text
}

fn destination_in_words(text: &mut String, destination: &Value) {
    let seconds = |key: &str| destination[key].as_f64().map(duration);
    let count = |key: &str| destination[key].as_u64().unwrap_or_default();
    let waiting = count("in_flight") + count("queued") + destination["backlog"]["events"].as_u64().unwrap_or_default();
    let state = word(&destination["state"]);
    let _ = write!(
        text,
        "{state:13} {}: for {}, {} acknowledged, {waiting} waiting",
        word(&destination["url"]),
        seconds("since_seconds").unwrap_or_default(),
        count("acknowledged"),
    );
    if let Some(next) = seconds("next_try_seconds") {
        let _ = write!(text, ", next try in {next}");
    }
    if let Some(url) = destination["standing_in"].as_str() {
        let _ = write!(text, ", {url} stands in");
    }
    if let Some(period) = seconds("period_seconds") {
        let next = seconds("next_round_seconds").map_or(String::new(), |next| format!(", the next time in {next}"));
        let _ = write!(text, ", all events every {period}{next}");
    }
    if destination["off_hours"] == true {
        text.push_str(", the spool's events wait for bounds.backlog_hours");
    }
    if count("expired") > 0 {
        let _ = write!(text, ", {} let go for bounds.max_age_s", count("expired"));
    }
    let error = destination["last_error"].as_str().filter(|_| state != "up");
    let _ = writeln!(text, "{}", error.map_or(String::new(), |error| format!("\n              {error}")));
    let limit = &destination["limit"];
    if let (Some(takes), Some(refuses)) = (limit["takes_body_bytes"].as_u64(), limit["refuses_body_bytes"].as_u64()) {
        let _ =
            writeln!(text, "              takes requests of {} and refuses those of {}", Size(takes), Size(refuses));
        for likely in limit["likely"].as_array().into_iter().flatten() {
            let _ = writeln!(
                text,
                "                is it {}? then set {}",
                word(&likely["server"]),
                word(&likely["setting"])
            );
        }
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// Formats like this: `42 s`, `3 min`, `2 h 5 min`, `4 d 1 h`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, text) in
            [(0.4, "0 s"), (59.9, "59 s"), (60.0, "1 min"), (7500.0, "2 h 5 min"), (349_200.0, "4 d 1 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn every_address_that_is_listened_on_can_be_connected_to() {
        for (listen, connect) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("127.0.0.1:3", "127.0.0.1:3"),
            ("10.1.2.3:4", "10.1.2.3:4"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), connect.parse().unwrap());
        }
    }

    #[test]
    fn the_token_goes_to_no_other_machine() {
        for (address, is_here) in
            [("127.0.0.1:5555", true), ("127.9.9.9:1", true), ("192.0.2.1:5555", false), ("[2001:db8::1]:5555", false)]
        {
            assert_eq!(is_own(address.parse().unwrap()), is_here, "{address}");
        }
    }
}
