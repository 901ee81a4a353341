//! `GET /healthz`: whether events make progress, not whether the process lives.

use crate::status::{Destination, Status};

/// A destination that is down for less may just be restarting, in seconds.
const HICCUP: f64 = 30.0;
/// An upload may take this long, in seconds: a link that moves bytes is progress, however slow.
const SLOWEST: f64 = 600.0;
/// A ring that is as full as this will soon cost events.
const FULL: f64 = 0.9;

/// Why events make no progress; empty while they do, or while there are none. Names no more of a URL than its server.
pub fn problems(status: &Status) -> Vec<String> {
    let mut problems: Vec<String> = status.destinations.iter().filter_map(destination).collect();
    if let Some(problem) = &status.spool.problem {
        problems.push(format!("events cannot be kept on the disk: {problem}"));
    }
    for ring in &status.rings {
        let path = ring.path.display();
        match (&ring.state, &ring.problem) {
            (Some(state), _) if state.used as f64 > FULL * state.capacity as f64 => {
                problems.push(format!("the ring {path} is nearly full: the recognizer's further events will be lost"));
            }
            // No file is no problem: the recognizer has not started yet.
            (None, Some(problem)) if ring.path.exists() => {
                problems.push(format!("the ring {path} cannot be read: {problem}"));
            }
            _ => {}
        }
    }
    problems
}

fn destination(destination: &Destination) -> Option<String> {
    let waiting = destination.in_flight + destination.queued + destination.backlog.events;
    let server = server(&destination.url);
    let quiet = destination.last_success_seconds.unwrap_or(destination.since_seconds).min(destination.since_seconds);
    let for_seconds = destination.since_seconds;
    let why = match destination.state {
        _ if waiting == 0 => return None,
        "up" if quiet > SLOWEST => format!("no event was delivered for {quiet:.0} s"),
        "up" => return None,
        "down" if for_seconds < HICCUP => return None,
        state => format!("{state} for {for_seconds:.0} s"),
    };
    Some(format!("{server}: {why}, and {waiting} events wait"))
}

/// The part of a URL that names the server: a path may hold a key.
pub fn server(url: &str) -> &str {
    let start = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[start..].find(['/', '?']).map_or(url.len(), |end| start + end);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_only_the_server_is_named() {
        for (url, name) in [
            ("http://a:1/key", "http://a:1"),
            ("https://[::1]:1/x/y?…", "https://[::1]:1"),
            ("http://a?key", "http://a"),
            ("http://a", "http://a"),
        ] {
            assert_eq!(server(url), name);
        }
    }
}
