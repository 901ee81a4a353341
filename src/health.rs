//! `GET /healthz`: whether events make progress, which is more than that the process lives. Each problem comes with advice.
//!
//! | situation | becomes a problem |
//! | --- | --- |
//! | events wait, and their destination is down or waits for the clock or random numbers | after 30 s |
//! | events wait, and their destination is misconfigured or refuses one event after another | at once |
//! | events wait, and their destination is up but accepts none | 10 minutes after the upload began |
//! | a tenth or more of a destination's events of the last hour became dead letters | at once |
//! | events cannot be stored | while there is something to store |
//! | a ring is nearly full, cannot be read, or was removed under its recognizer | at once |
//! | a recognizer died | after 2 s |
//! | no recognizer has a ring open: it ended in order, or never started | after an hour |
//! | no event comes | after `health.max_silence_s`, if set |

use crate::status::{Destination, Ring, Status};

/// Grace period in seconds. A destination may just be restarting; soon after a boot, the clock and random numbers may not be
/// ready.
const GRACE: f64 = 30.0;
/// Longest time for an upload, in seconds. A slow link that moves bytes makes progress.
const SLOWEST_UPLOAD: f64 = 600.0;
/// A ring fuller than this fraction will soon lose events.
const NEARLY_FULL: f64 = 0.9;
/// One dead letter in this many events is a problem.
const REFUSAL_RATIO: u64 = 10;
/// Time for a recognizer that died to restart, in seconds.
const RESTART_TIME: f64 = 2.0;
/// Time in seconds that a recognizer may be absent if it ended in order or has not started yet: this may be intended.
const LONGEST_ABSENCE: f64 = 3600.0;

/// How long a loss of events counts as a problem, in seconds: long enough for an alert.
const RECENT_LOSS: f64 = 600.0;

/// Why events make no progress; empty if they do, or if there are none. Shows only the server part of URLs.
pub fn problems(status: &Status) -> Vec<String> {
    let mut problems: Vec<String> = status.destinations.iter().flat_map(destination).collect();
    if let Some(problem) = &status.spool.problem {
        problems.push(format!("events cannot be kept on the disk: {problem}"));
    }
    if status.spool.last_loss_seconds.is_some_and(|seconds| seconds < RECENT_LOSS) {
        problems.push(format!(
            "events were lost from the spool lately; since the start: {} given up for want of room, {} dead letters given up, {} removed by somebody else",
            status.shares.evicted, status.spool.dead_letters_evicted, status.shares.vanished
        ));
    }
    problems.extend(status.rings.iter().filter_map(ring));
    problems.extend(silence(status));
    problems
}

/// What a person should know even while events make progress.
pub fn notes(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    if !status.pending_restart.is_empty() {
        notes.push(format!(
            "changed in the config, but applied only after a restart: {}",
            status.pending_restart.join(", ")
        ));
    }
    if !status.spool.has_hard_links {
        notes.push(format!(
            "the file system of {} has no hard links (vfat, exFAT and some network file systems): an event for several destinations is written once for each",
            status.spool.dir.display()
        ));
    }
    for parked in &status.spool.parked {
        let (events, server) = (parked.events, server(&parked.url));
        notes.push(format!(
            "{events} events are parked: {server} is not in the config; they wait for it or a new destination"
        ));
    }
    notes
}

fn destination(destination: &Destination) -> impl Iterator<Item = String> {
    no_progress(destination).into_iter().chain(refusals(destination))
}

fn no_progress(destination: &Destination) -> Option<String> {
    // Outside its hours a backlog waits on purpose, and so does what is behind it in strict order.
    let (is_off, backlog) = (destination.off_hours, destination.backlog.events);
    let queued = if is_off && destination.in_order && backlog > 0 { 0 } else { destination.queued };
    let waiting = destination.in_flight + queued + if is_off { 0 } else { backlog };
    let server = server(&destination.url);
    let for_seconds = destination.since_seconds;
    // Count only the present state: a quiet hour before it was not a lack of progress.
    let last_success = destination.last_success_seconds.unwrap_or(for_seconds).min(for_seconds);
    let quiet = destination.busy_seconds.map_or(last_success, |busy| busy.min(last_success));
    let (why, advice) = match destination.state {
        _ if waiting == 0 || destination.next_round_seconds.is_some() => return None,
        "up" if quiet > SLOWEST_UPLOAD => {
            (format!("no event was delivered for {quiet:.0} s"), "look at the server's load and at the link to it")
        }
        "up" => return None,
        "down" | "clock not set" | "randomness not ready" if for_seconds < GRACE => return None,
        state => (format!("{state} for {for_seconds:.0} s"), advice(state)),
    };
    Some(format!("{server}: {why}, and {waiting} events wait: {advice}"))
}

fn advice(state: &str) -> &'static str {
    match state {
        "down" => "see that the server runs and that the box reaches it; `sophon-uplink status` has the last error",
        "misconfigured" => "correct the URL, or what the server demands; `sophon-uplink status` has its answer",
        "refusing" => "see in the server's log why it takes none; they go out by themselves when it does",
        "clock not set" => "set the box's time (NTP, or date -s)",
        _ => "they go out by themselves; rngd or haveged make it faster",
    }
}

/// Refusals become a problem if they are more than exceptions: the server or its limits are wrong.
fn refusals(destination: &Destination) -> Option<String> {
    let lately = &destination.last_hour;
    let ended = lately.acknowledged + lately.dead;
    if lately.dead == 0 || lately.dead * REFUSAL_RATIO < ended {
        return None;
    }
    let (server, dead) = (server(&destination.url), lately.dead);
    let answer = lately.last_refusal.as_deref().unwrap_or("the server refused them");
    Some(format!(
        "{server}: {dead} of the last hour's {ended} events became dead letters ({answer}): correct the server or its limits, and send them once more with `sophon-uplink dead resend`"
    ))
}

fn ring(ring: &Ring) -> Option<String> {
    let (path, for_seconds) = (ring.path.display(), ring.recognizer_seconds);
    match (&ring.state, &ring.problem) {
        (None, Some(problem)) if !ring.is_missing => Some(format!("the ring {path} cannot be read: {problem}")),
        (Some(state), _) if state.used as f64 > NEARLY_FULL * state.capacity as f64 => {
            Some(format!("the ring {path} is nearly full: the recognizer's further events will be lost"))
        }
        (_, Some(problem)) if ring.is_removed => Some(format!("the ring {problem}")),
        _ if ring.recognizer == "died" && for_seconds > RESTART_TIME => {
            Some(format!("the recognizer of the ring {path} died {for_seconds:.0} s ago: start it again"))
        }
        _ if ring.recognizer != "alive" && for_seconds > LONGEST_ABSENCE => {
            Some(format!("no recognizer has had the ring {path} open for {for_seconds:.0} s: start it"))
        }
        _ => None,
    }
}

/// Reports that no event came for longer than the config allows.
fn silence(status: &Status) -> Option<String> {
    let most = status.max_silence_seconds;
    let quiet = status.rings.iter().filter_map(|ring| ring.last_event_seconds).fold(status.uptime_seconds, f64::min);
    (most > 0 && quiet > most as f64).then(|| {
        format!(
            "no event came for {quiet:.0} s, and health.max_silence_s is {most}: look at the recognizer and its cameras"
        )
    })
}

/// The server part of a URL: the path may contain a key.
pub fn server(url: &str) -> &str {
    let start = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[start..].find(['/', '?']).map_or(url.len(), |end| start + end);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::recent::LastHour;
    use crate::ring::inspect::RingState;
    use crate::status::Backlog;

    fn any(state: &'static str) -> Destination {
        Destination {
            url: "http://a:1/key".into(),
            state,
            since_seconds: 1e6,
            last_error: None,
            limit: None,
            last_error_code: None,
            last_error_seconds: None,
            last_success_seconds: None,
            last_answer: None,
            next_try_seconds: None,
            in_flight: 0,
            busy_seconds: None,
            queued: 0,
            backlog: Backlog::default(),
            acknowledged: 0,
            dead: 0,
            evicted: 0,
            expired: 0,
            standing_in: None,
            in_order: false,
            off_hours: false,
            bytes_per_second: None,
            period_seconds: None,
            next_round_seconds: None,
            failed_tries: 0,
            last_hour: LastHour::default(),
        }
    }

    fn at(state: &'static str, since_seconds: f64, last_success_seconds: Option<f64>, queued: u64) -> Option<String> {
        no_progress(&Destination { since_seconds, last_success_seconds, queued, ..any(state) })
    }

    #[test]
    fn only_what_waits_without_progress_is_a_problem() {
        for (state, since, success) in [("up", 1e6, None), ("down", 1e6, None), ("misconfigured", 1e6, Some(1.0))] {
            assert_eq!(at(state, since, success, 0), None, "nothing waits");
        }
        assert_eq!(at("down", GRACE - 1.0, None, 5), None, "it may just be restarting");
        let down = at("down", GRACE + 1.0, None, 5).unwrap();
        assert!(down.starts_with("http://a:1: down for 31 s, and 5 events wait: see that the server runs"), "{down}");
        assert_eq!(at("clock not set", GRACE - 1.0, None, 5), None, "the box may just have started");
        assert!(at("clock not set", GRACE + 1.0, None, 5).unwrap().contains("clock not set for 31 s"));
        assert_eq!(at("randomness not ready", GRACE - 1.0, None, 5), None, "the box may just have started");
        assert!(at("randomness not ready", GRACE + 1.0, None, 5).unwrap().contains("randomness not ready for 31 s"));
        assert!(at("misconfigured", 0.0, None, 1).is_some() && at("refusing", 0.0, None, 1).is_some());
        assert_eq!(at("up", 1e6, Some(SLOWEST_UPLOAD - 1.0), 1), None, "a slow link is progress");
        assert!(at("up", 1e6, Some(SLOWEST_UPLOAD + 1.0), 1).is_some());
        assert_eq!(at("up", 5.0, Some(1e6), 1), None, "its time begins when it is up again");
    }

    #[test]
    fn a_backlog_outside_its_hours_is_no_problem() {
        let at = |off_hours, queued| {
            let backlog = Backlog { events: 3, ..Backlog::default() };
            no_progress(&Destination { off_hours, backlog, queued, last_success_seconds: Some(1e5), ..any("up") })
        };
        assert!(at(false, 0).is_some_and(|said| said.contains("3 events wait")));
        assert_eq!(at(true, 0), None);
        assert!(at(true, 1).is_some_and(|said| said.contains("1 events wait")), "live events go at any time");
        let backlog = Backlog { events: 3, ..Backlog::default() };
        let behind = Destination { off_hours: true, in_order: true, backlog, queued: 1, ..any("up") };
        assert_eq!(no_progress(&behind), None, "in strict order they wait behind the backlog");
    }

    #[test]
    fn the_first_upload_after_a_quiet_time_has_as_long_as_any_other() {
        let quiet = |busy_seconds| {
            let busy = Destination { in_flight: 1, busy_seconds, last_success_seconds: Some(1e5), ..any("up") };
            no_progress(&busy)
        };
        assert_eq!(quiet(Some(8.0)), None, "it began eight seconds ago");
        assert!(quiet(Some(SLOWEST_UPLOAD + 1.0)).unwrap().contains("no event was delivered for 601 s"));
        assert!(quiet(None).is_some(), "what waits and is not even begun");
    }

    #[test]
    fn dead_letters_are_a_problem_where_they_are_no_exception() {
        let of = |acknowledged, dead| {
            let last_refusal = Some("the server answered 413 Payload Too Large".into());
            refusals(&Destination { last_hour: LastHour { acknowledged, dead, last_refusal }, ..any("up") })
        };
        let half = of(4, 4).unwrap();
        assert!(
            half.starts_with("http://a:1: 4 of the last hour's 8 events became dead letters (the server answered 413")
        );
        assert!(half.contains("dead resend"), "{half}");
        assert_eq!((of(0, 0), of(1000, 1), of(1000, 111)), (None, None, None));
        assert!(of(0, 1).is_some() && of(9, 1).is_some() && of(1000, 112).is_some());
    }

    fn ring_of(recognizer: &'static str, recognizer_seconds: f64) -> Ring {
        let state = RingState {
            path: "/r".into(),
            id: String::new(),
            abi_version: 1,
            capacity: 100,
            used: 0,
            published: 0,
            consumed: 0,
            dropped: 0,
            resyncs: 0,
            producer: None,
            consumer: None,
            owner: 0,
        };
        Ring {
            path: "/r".into(),
            state: Some(state),
            problem: None,
            is_missing: false,
            is_removed: false,
            recognizer,
            recognizer_seconds,
            last_event_seconds: None,
        }
    }

    #[test]
    fn a_recognizer_that_died_is_a_problem_and_one_that_ended_in_order_is_one_later() {
        for (recognizer, seconds, is_problem) in [
            ("alive", 1e9, false),
            ("died", RESTART_TIME - 1.0, false),
            ("died", RESTART_TIME + 1.0, true),
            ("closed", LONGEST_ABSENCE - 1.0, false),
            ("closed", LONGEST_ABSENCE + 1.0, true),
            ("absent", LONGEST_ABSENCE - 1.0, false),
            ("absent", LONGEST_ABSENCE + 1.0, true),
        ] {
            assert_eq!(ring(&ring_of(recognizer, seconds)).is_some(), is_problem, "{recognizer} for {seconds} s");
        }
    }

    #[test]
    fn a_ring_that_was_removed_is_a_problem() {
        let problem = Some("/r was removed while its recognizer uses it: restart it".into());
        let said = ring(&Ring { is_removed: true, problem, ..ring_of("alive", 1.0) });
        assert_eq!(said.unwrap(), "the ring /r was removed while its recognizer uses it: restart it");
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
