//! The promise: a death of the uplink at any of its system calls loses nothing, and repeats only what was still here.
//!
//! Every call that touches the spool is tried, and a sample of the others; soak campaigns try them all. strace delivers the
//! signal when the call begins, so that it does not happen any more: a death after a call is one before the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use crate::common::Daemon;
use crate::common::books::Balance;
use crate::common::short_run::{End, Servers, ShortRun};
use crate::common::traced::{self, Call, Trace};

/// What the deaths came to.
#[derive(Debug, Default)]
struct Total {
    died: u64,
    not_reached: u64,
    events: u64,
    repeated: u64,
    repeatable: u64,
    slowest: Duration,
}

/// One run that is counted: the calls that touch the spool, and all.
fn count_calls(servers: &Servers) -> (Vec<Call>, Vec<Call>) {
    let [spool, all] = [true, false].map(|spool_only| {
        let mut run = ShortRun::new(servers);
        let mut trace = Trace::of(&run.home);
        if spool_only {
            trace = trace.spool(&run.home, &servers.urls());
        }
        let record = trace.record.clone();
        let daemon = trace.start(&run.home);
        assert!(matches!(run.drive(daemon), End::Stopped(_)));
        run.finish();
        traced::calls(&record)
    });
    (spool, all)
}

fn die_at(servers: &Servers, call: &Call, of_spool: bool, total: &Mutex<Total>) {
    let what = format!("a death at {call:?}, of the spool: {of_spool}");
    let _what = crate::common::Said(&what);
    let mut run = ShortRun::new(servers);
    let mut trace = Trace::of(&run.home);
    if of_spool {
        trace = trace.spool(&run.home, &servers.urls());
    }
    let daemon = trace.inject(call, "signal=KILL", false).start(&run.home);
    let died = matches!(run.drive(daemon), End::Died);
    run.books.process_ended(&run.home, &servers.all());
    let slowest = if run.has_work() { first_delivery(&run) } else { Duration::ZERO };
    let balance = run.books.balance(&servers.all());
    assert_eq!(balance.lacking, 0, "{balance:?}");
    let mut total = total.lock().unwrap();
    *(if died { &mut total.died } else { &mut total.not_reached }) += 1;
    let Balance { published, repeated, repeatable, .. } = balance;
    (total.events, total.repeated) = (total.events + published, total.repeated + repeated);
    total.repeatable += repeatable;
    total.slowest = total.slowest.max(slowest);
}

/// Restarts, waits for the end of every event, and says how long the first delivery took.
fn first_delivery(run: &ShortRun<'_>) -> Duration {
    let times = || run.servers.all().map(crate::common::moody::Moody::times).iter().sum::<u64>();
    let (before, naps) = (times(), crate::common::Naps::start());
    let daemon = Daemon::restart(&run.home);
    crate::common::wait_until("a delivery", || times() > before);
    let took = naps.passed();
    run.home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.evicted, stopped.dead, stopped.quarantined, stopped.lost), (0, 0, 0, 0));
    took
}

/// `SOPHON_SYSTEM_CALLS` says how many calls of each name that do not touch the spool are tried.
#[test]
fn a_death_at_any_system_call_loses_nothing_and_repeats_only_what_was_still_here() {
    if !traced::is_possible("a_death_at_any_system_call") {
        return;
    }
    let mut random = fastrand::Rng::with_seed(crate::common::seed());
    let (spool, all) = count_calls(&Servers::start());
    let mut others = BTreeMap::<String, Vec<Call>>::new();
    all.iter().for_each(|call| others.entry(call.name.clone()).or_default().push(call.clone()));
    let sample = crate::common::count("SOPHON_SYSTEM_CALLS", 3) as usize;
    let mut points: Vec<_> = spool.iter().map(|call| (call.clone(), true)).collect();
    for mut calls in others.into_values() {
        random.shuffle(&mut calls);
        points.extend(calls.into_iter().take(sample).map(|call| (call, false)));
    }
    let names: BTreeSet<_> = spool.iter().map(|call| &call.name).collect();
    println!("{} calls touch the spool ({names:?}), of {} in all; {} are tried", spool.len(), all.len(), points.len());
    let total = Mutex::default();
    traced::each(&points, Servers::start, |servers, (call, of_spool)| die_at(servers, call, *of_spool, &total));
    let total = total.into_inner().unwrap();
    println!("{total:?}; 0 lost; the budget for a restart to the first delivery is 1 s");
    assert!(total.died > total.not_reached, "{total:?}");
    assert!(total.slowest < Duration::from_secs(1));
}
