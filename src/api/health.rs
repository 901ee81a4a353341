//! `GET /healthz`: whether events make progress, not whether the process lives.

use crate::status::{Destination, Status};

/// A destination that is down for less may just be restarting, and a clock be set, or random numbers be there, soon after a boot: in seconds.
const HICCUP: f64 = 30.0;
/// An upload may take this long, in seconds: a link that moves bytes is progress, however slow.
const SLOWEST: f64 = 600.0;
/// A ring that is as full as this will soon cost events.
const FULL: f64 = 0.9;

/// Events that were lost are a problem for so long, in seconds: time for an alert.
const LOSS_IS_NEWS: f64 = 600.0;

/// Why events make no progress; empty while they do, or while there are none. Names no more of a URL than its server.
pub fn problems(status: &Status) -> Vec<String> {
    let mut problems: Vec<String> = status.destinations.iter().filter_map(destination).collect();
    if let Some(problem) = &status.spool.problem {
        problems.push(format!("events cannot be kept on the disk: {problem}"));
    }
    if status.spool.last_loss_seconds.is_some_and(|seconds| seconds < LOSS_IS_NEWS) {
        problems.push(format!(
            "events were lost from the spool lately; since the start: {} given up for want of room, {} dead letters given up, {} removed by somebody else",
            status.shares.evicted, status.spool.dead_letters_evicted, status.shares.vanished
        ));
    }
    for ring in &status.rings {
        let path = ring.path.display();
        match (&ring.state, &ring.problem) {
            (Some(state), _) if state.used as f64 > FULL * state.capacity as f64 => {
                problems.push(format!("the ring {path} is nearly full: the recognizer's further events will be lost"));
            }
            (None, Some(problem)) if !ring.is_missing => {
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
        "down" | "clock not set" | "randomness not ready" if for_seconds < HICCUP => return None,
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
    use crate::status::Backlog;

    fn at(state: &'static str, since_seconds: f64, last_success_seconds: Option<f64>, queued: u64) -> Option<String> {
        destination(&Destination {
            url: "http://a:1/key".into(),
            state,
            since_seconds,
            last_error: None,
            last_error_code: None,
            last_error_seconds: None,
            last_success_seconds,
            last_answer: None,
            next_try_seconds: None,
            in_flight: 0,
            queued,
            backlog: Backlog::default(),
            acknowledged: 0,
            dead: 0,
            evicted: 0,
            failed_tries: 0,
        })
    }

    #[test]
    fn only_what_waits_without_progress_is_a_problem() {
        for (state, since, success) in [("up", 1e6, None), ("down", 1e6, None), ("misconfigured", 1e6, Some(1.0))] {
            assert_eq!(at(state, since, success, 0), None, "nothing waits");
        }
        assert_eq!(at("down", HICCUP - 1.0, None, 5), None, "it may just be restarting");
        assert_eq!(at("down", HICCUP + 1.0, None, 5).unwrap(), "http://a:1: down for 31 s, and 5 events wait");
        assert_eq!(at("clock not set", HICCUP - 1.0, None, 5), None, "the box may just have started");
        assert!(at("clock not set", HICCUP + 1.0, None, 5).unwrap().contains("clock not set for 31 s"));
        assert_eq!(at("randomness not ready", HICCUP - 1.0, None, 5), None, "the box may just have started");
        assert!(at("randomness not ready", HICCUP + 1.0, None, 5).unwrap().contains("randomness not ready for 31 s"));
        assert!(at("misconfigured", 0.0, None, 1).is_some() && at("refusing", 0.0, None, 1).is_some());
        assert_eq!(at("up", 1e6, Some(SLOWEST - 1.0), 1), None, "a slow link is progress");
        assert!(at("up", 1e6, Some(SLOWEST + 1.0), 1).is_some());
        assert_eq!(at("up", 5.0, Some(1e6), 1), None, "its time begins when it is up again");
    }

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
