//! A server that notes when each event had come whole and keeps no more of it, so that it can be asked how long events take; and
//! that can be away for a while.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{RingProducer, Watched};
use sophon_uplink::ring::producer::NewEvent;

/// Whether measured times decide: in a campaign that has the machine for itself (`scripts/soak isolation`, `scripts/soak drain`).
/// Elsewhere they are printed, for what else a machine does is no fault of the uplink.
pub fn times_decide() -> bool {
    std::env::var_os("SOPHON_TIMES_DECIDE").is_some()
}

/// Whether a measured ratio is within its bound, or decides nothing here.
pub fn is_held(ratio: f64, bound: f64) -> bool {
    ratio <= bound || !times_decide()
}

/// An event, by its sequence number, and a moment.
pub type Moment = (u64, Instant);

#[derive(Default)]
struct Log {
    arrivals: Vec<Moment>,
    streams: Vec<TcpStream>,
}

pub struct Meter {
    pub address: SocketAddr,
    log: Arc<Watched<Log>>,
    /// A second handle on the socket that listens, while it does.
    open: Mutex<Option<socket2::Socket>>,
    /// Between a whole event and its answer.
    delay: Duration,
}

impl Meter {
    pub fn start() -> Meter {
        Meter::answering_after(Duration::ZERO)
    }

    /// One that takes its time.
    pub fn answering_after(delay: Duration) -> Meter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let meter = Meter { address, log: Arc::default(), open: Mutex::default(), delay };
        meter.listen(listener);
        meter
    }

    pub fn url(&self) -> String {
        format!("http://{}/RealTimeEvent", self.address)
    }

    /// Goes away: connections are refused from now on, and those there are end.
    pub fn close(&self) {
        let listener = self.open.lock().unwrap().take().expect("it is open");
        listener.shutdown(Shutdown::Both).unwrap(); // also ends the thread that accepts
        self.log.change(|log| log.streams.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both))));
    }

    /// Is back, at the same address.
    pub fn open(&self) {
        self.listen(TcpListener::bind(self.address).unwrap());
    }

    fn listen(&self, listener: TcpListener) {
        *self.open.lock().unwrap() = Some(listener.try_clone().unwrap().into());
        let (log, delay) = (Arc::clone(&self.log), self.delay);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                log.change(|log| log.streams.push(stream.try_clone().unwrap()));
                let log = Arc::clone(&log);
                thread::spawn(move || serve(stream, &log, delay));
            }
        });
    }

    /// Waits until the arrivals are enough; an event that came twice is there twice.
    #[track_caller]
    pub fn wait(&self, what: &str, mut enough: impl FnMut(&[Moment]) -> bool) -> Vec<Moment> {
        self.log.wait(what, |log| enough(&log.arrivals).then(|| log.arrivals.clone()))
    }

    pub fn arrivals(&self) -> Vec<Moment> {
        self.log.look(|log| log.arrivals.clone())
    }

    /// How long each of `events` took, which were published at these moments; waits for all of them.
    #[track_caller]
    pub fn latencies(&self, events: &[Moment]) -> Vec<Duration> {
        let (mut latencies, mut seen) = (Vec::new(), 0);
        let mut waiting: std::collections::HashMap<u64, Instant> = events.iter().copied().collect();
        self.log.wait("every event of a round", |log| {
            for (sequence, moment) in &log.arrivals[seen..] {
                latencies.extend(waiting.remove(sequence).map(|began| moment.duration_since(began)));
            }
            seen = log.arrivals.len();
            waiting.is_empty().then_some(())
        });
        latencies
    }
}

fn serve(stream: TcpStream, log: &Watched<Log>, delay: Duration) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut output = stream.try_clone().ok()?;
    let mut input = BufReader::with_capacity(256 * 1024, stream);
    loop {
        let (sequence, length) = read_head(&mut input)?;
        skip(&mut input, length).ok()?;
        let now = Instant::now();
        log.change(|log| log.arrivals.push((sequence, now)));
        thread::sleep(delay);
        output.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}

/// The sequence number and the length of the body.
fn read_head(input: &mut impl BufRead) -> Option<(u64, usize)> {
    let (mut sequence, mut length, mut line) = (None, None, String::new());
    loop {
        line.clear();
        input.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("x-event-id") => {
                sequence = value.rsplit('-').next()?.parse().ok();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok(),
            _ if line.trim_end().is_empty() => return Some((sequence?, length?)),
            _ => {}
        }
    }
}

fn skip(input: &mut impl BufRead, mut left: usize) -> io::Result<()> {
    while left > 0 {
        let taken = input.fill_buf()?.len().min(left);
        if taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        input.consume(taken);
        left -= taken;
    }
    Ok(())
}

/// Publishes `count` events, one each `pace`; the recognizer must not find the ring full. When each was published.
#[track_caller]
pub fn publish_paced(recognizer: &mut RingProducer, event: &NewEvent<'_>, count: u64, pace: Duration) -> Vec<Moment> {
    let began = Instant::now();
    let mut published = Vec::new();
    for number in 0..count as u32 {
        thread::sleep((began + pace * number).saturating_duration_since(Instant::now()));
        let now = Instant::now();
        published.push((recognizer.publish(event).expect("room in the ring"), now));
    }
    published
}

/// The value that 99 of 100 do not exceed.
pub fn p99(figures: &[Duration]) -> Duration {
    let mut figures = figures.to_vec();
    figures.sort_unstable();
    figures[(figures.len() * 99).div_ceil(100) - 1]
}

/// The value that a quarter of all do not exceed: what a machine that does other things too shows when it is quiet.
pub fn quartile(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() - 1) / 4]
}
