//! The state report (heartbeat), sent every `reported_peroid` seconds: the members of the box's documentation and the state of
//! the uplink. So boxes behind NAT can be monitored without an open port.
//!
//! ```text
//!  period, jittered ──▶ status of the uplink ─┐
//!                       figures of the machine ├──▶ one JSON object ──▶ POST
//!                       the cameras' file ────┘
//! ```
//!
//! One report at a time, without a queue: a report that failed is not sent later; the next one is new. After a failure the next
//! report comes earlier than the period says. The pause then grows up to the period.

mod machine;
mod report;
mod sub_devices;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::config::reports::Monitor;
use crate::config::this_box::ThisBox;
use crate::deliver::client::{Client, Settings};
use crate::deliver::core::rounds::next_moment;
use crate::deliver::failure::Failure;
use crate::rate_limited::RateLimited;
use crate::status::{self, Status};
use machine::Machine;

/// Pause before the next report after a failure. It doubles up to the period.
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// The sender that the reports name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The names of this box.
    pub this_box: ThisBox,
    /// The spool's folder: the report covers its disk.
    pub spool: std::path::PathBuf,
}

/// Returns the uplink's status; none if the uplink has ended.
pub type ReadStatus = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Status>>>>>;

/// Sends the reports.
#[derive(Default)]
pub struct Reporter {
    running: RefCell<Option<Running>>,
}

struct Running {
    monitor: Monitor,
    sender: Sender,
    client: Rc<Client>,
    results: Rc<RefCell<LastResults>>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The last results of sending.
#[derive(Debug, Default)]
struct LastResults {
    last_success: Option<Instant>,
    last_failure: Option<(Failure, Instant)>,
}

impl Reporter {
    /// Applies a new config. A report whose settings and sender are the same keeps its schedule.
    pub fn configure(&self, wanted: Option<(Monitor, Settings)>, sender: Sender, read_status: ReadStatus) {
        let Some((monitor, settings)) = wanted else { return drop(self.running.take()) };
        if let Some(running) = &*self.running.borrow()
            && (&running.monitor, &running.sender) == (&monitor, &sender)
        {
            return running.client.configure(settings);
        }
        let client = Rc::new(Client::new(monitor.url.clone(), settings));
        let results = Rc::default();
        let task = run(read_status, monitor.clone(), sender.clone(), Rc::clone(&client), Rc::clone(&results));
        let task = tokio::task::spawn_local(task).abort_handle();
        self.running.replace(Some(Running { monitor, sender, client, results, task }));
    }

    /// The state of the reports; none if there are none.
    pub fn status(&self) -> Option<status::Monitor> {
        let running = self.running.borrow();
        let Running { monitor, results, client, .. } = running.as_ref()?;
        let results = results.borrow();
        let failure = results.last_failure.as_ref();
        Some(status::Monitor {
            url: monitor.url.to_string(),
            period_seconds: monitor.period.as_secs(),
            last_success_seconds: results.last_success.map(|moment| moment.elapsed().as_secs_f64()),
            last_error: failure.map(|(failure, _)| failure.why.clone()),
            last_error_code: failure.map(|(failure, _)| failure.code.name()),
            last_error_seconds: failure.map(|(_, moment)| moment.elapsed().as_secs_f64()),
            last_answer: client.last_answer(),
        })
    }
}

async fn run(
    read_status: ReadStatus,
    monitor: Monitor,
    sender: Sender,
    client: Rc<Client>,
    results: Rc<RefCell<LastResults>>,
) {
    let mut machine = Machine::default();
    let log_limiter = RateLimited::new(1);
    let mut moment = Instant::now() + monitor.period.mul_f64(fastrand::f64());
    let first_pause = FIRST_PAUSE.min(monitor.period);
    let mut pause = first_pause;
    loop {
        sleep_until(moment).await;
        let Some(status) = read_status().await else { return };
        let sent = client.report(|address| report::text(address, &sender, monitor.period, &mut machine, &status)).await;
        let now = Instant::now();
        match sent {
            Ok(()) => {
                let mut results = results.borrow_mut();
                let had_success = results.last_success.replace(now).is_some();
                let had_failure = results.last_failure.take().is_some();
                if !had_success || had_failure {
                    info!(url = %monitor.url, "the state report is sent");
                }
                moment = next_moment(moment.into_std(), monitor.period, now.into_std()).into();
                pause = first_pause;
            }
            Err(failure) => {
                log_limiter.say(|more| warn!(url = %monitor.url, "the state report was not sent: {failure}{more}"));
                results.borrow_mut().last_failure = Some((failure, now));
                moment = now + pause;
                pause = (pause * 2).min(monitor.period);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Config;
    use crate::deliver::core::counters::Counters;
    use crate::deliver::setup::Setup;
    use crate::spool::{self, Tally};
    use crate::status::{Events, Shares, Spool};

    /// Reports to this URL, with a period in seconds.
    fn setup(url: &str, period: u64) -> (Monitor, Settings) {
        let config = serde_json::json!({"event_server_url": [],
            "monitor": {"monitor_server_url": url, "content-type": "json", "reported_peroid": period}});
        let config = Config::check(config, Path::new("/")).unwrap();
        let monitor = config.monitor.clone().unwrap();
        let settings = Setup::read(config).unwrap().of_monitor(&monitor);
        (monitor, settings)
    }

    fn sender() -> Sender {
        Sender { this_box: ThisBox::default(), spool: "/".into() }
    }

    /// An uplink that has done nothing.
    pub(super) fn idle() -> Status {
        let config = Config::check(serde_json::json!({"event_server_url": []}), Path::new("/")).unwrap();
        Status {
            version: "",
            uptime_seconds: 0.0,
            clock_is_set: true,
            randomness_is_ready: true,
            max_silence_seconds: 0,
            events: Events { read: 0, filtered: 0, malformed: 0, sent: 0 },
            shares: Shares::of(&Counters::default(), &Tally::default(), 0),
            pending_restart: vec![],
            rings: vec![],
            rings_corrupt: 0,
            events_mended: 0,
            spool: Spool::of(&spool::Status::of_nothing(""), Path::new("/"), &config.spool, None, None),
            destinations: vec![],
            monitor: None,
        }
    }

    /// Answers each report, the first `failures` with 500.
    async fn answer(listener: TcpListener, failures: usize) {
        for report in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut came = Vec::new();
            while !came.ends_with(b"}}") && socket.read_buf(&mut came).await.is_ok_and(|read| read > 0) {}
            let status = if report < failures { "500 x" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    }

    /// The clock runs ahead whenever nothing else is to do, so some tries may also end by their timeout.
    #[tokio::test(start_paused = true)]
    async fn a_hundred_failures_in_a_row_lengthen_no_pause_beyond_the_period_and_a_success_ends_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (monitor, settings) = setup(&format!("http://{}/", listener.local_addr().unwrap()), 60);
        let asked = Rc::new(RefCell::new(vec![]));
        let kept = Rc::clone(&asked);
        let read_status: ReadStatus = Rc::new(move || {
            kept.borrow_mut().push(Instant::now());
            Box::pin(async { Some(idle()) })
        });
        let reporter = Reporter::default();
        let tries = async {
            let server = tokio::task::spawn_local(answer(listener, 100));
            reporter.configure(Some((monitor.clone(), settings)), sender(), read_status);
            while reporter.status().unwrap().last_success_seconds.is_none() {
                assert!(!server.is_finished() && asked.borrow().len() < 1000, "{:?}", reporter.status());
                sleep_until(Instant::now() + Duration::from_secs(1)).await;
            }
            let status = reporter.status().unwrap();
            assert_eq!((status.last_error, status.last_error_code, status.last_error_seconds), (None, None, None));
        };
        tokio::task::LocalSet::new().run_until(tries).await;
        let asked = asked.borrow();
        assert!(asked.len() > 100, "{}", asked.len());
        let timeouts = Duration::from_secs(30);
        let longest = asked.windows(2).map(|two| two[1] - two[0]).max().unwrap();
        assert!((monitor.period..monitor.period + timeouts).contains(&longest), "{longest:?}");
        assert!(asked[1] - asked[0] < FIRST_PAUSE + timeouts, "the first pause is short");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_reports_of_a_thousand_boxes_are_spread_evenly_over_the_period() {
        const BOXES: usize = 1000;
        let (monitor, settings) = setup("http://127.0.0.1:1/", 6);
        let (began, asked) = (Instant::now(), Rc::new(RefCell::new([0; 6])));
        let count = Rc::clone(&asked);
        let read_status: ReadStatus = Rc::new(move || {
            // A timer fires up to a millisecond late, so the last tick counts for the last second.
            count.borrow_mut()[(began.elapsed().as_secs() as usize).min(5)] += 1;
            Box::pin(async { None }) // ends the reporter
        });
        let reporters = || async {
            let reporters = (0..BOXES).map(|_| {
                let reporter = Reporter::default();
                reporter.configure(Some((monitor.clone(), settings.clone())), sender(), Rc::clone(&read_status));
                reporter
            });
            let _running: Vec<Reporter> = reporters.collect();
            sleep_until(began + monitor.period + Duration::from_secs(1)).await;
        };
        tokio::task::LocalSet::new().run_until(reporters()).await;
        let seconds = *asked.borrow();
        let even = BOXES / seconds.len();
        assert_eq!(seconds.iter().sum::<usize>(), BOXES);
        assert!(seconds.iter().all(|count| (even / 3..even * 3).contains(count)), "{seconds:?}");
    }
}
