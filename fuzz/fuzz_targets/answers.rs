//! Sends arbitrary answers to the real client over real sockets. Only a well-formed 2xx after the server has received the whole
//! event acknowledges it. Only a well-formed 4xx refuses it. A plain success is understood.
//!
//! Input: whether bodies are JSON or form-data (u8), then the server's answer to each request, separated by 0xFF. The first byte
//! of each answer holds flags: 1 sends it (or its first half) before the whole event has arrived, 2 closes afterwards, 4 sends it
//! in halves. Waiting takes no time: the clock is virtual.
#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sophon_uplink::body::encoder::Pool;
use sophon_uplink::body::{BodyOptions, Format, TimestampUnit};
use sophon_uplink::config::{Options, Timeouts, TlsFiles, Url};
use sophon_uplink::deliver::client::{Client, Settings, Upload};
use sophon_uplink::deliver::failure::Code;
use sophon_uplink::deliver::outcome::AttemptOutcome;
use sophon_uplink::deliver::tls;
use sophon_uplink::event::{Event, EventId};
use sophon_uplink::picture::{Lost, PictureSource};
use sophon_uplink::ring::file::RingId;
use sophon_uplink_fuzz::Input;
use sophon_uplink_fuzz::answered::{head, is_plain_success};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// How much of an unread event the server's kernel may buffer; much less than the large picture.
const WINDOW: u32 = 16 * 1024;
const LARGE: usize = 100_000;
const SMALL: usize = 30;

static PICTURE: [u8; LARGE] = [0x55; LARGE];

struct Picture;

impl PictureSource for Picture {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        encode(&PICTURE[range]);
        Ok(())
    }
}

/// The server's answer to a request.
#[derive(Clone, Debug)]
struct Said {
    bytes: Vec<u8>,
    is_early: bool,
    then_closes: bool,
    in_halves: bool,
    /// Id of the event; the answer's bytes that were sent before the event was complete.
    id: String,
    before: usize,
}

impl Said {
    fn of(text: &[u8]) -> Said {
        let mut input = Input(text);
        let flags = input.u8();
        Said {
            bytes: input.0.to_vec(),
            is_early: flags & 1 != 0,
            then_closes: flags & 2 != 0,
            in_halves: flags & 4 != 0,
            id: String::new(),
            before: 0,
        }
    }

    /// Length of the part that is sent first.
    fn first(&self) -> usize {
        if self.in_halves { self.bytes.len() / 2 } else { self.bytes.len() }
    }
}

#[derive(Default)]
struct Server {
    coming: VecDeque<Said>,
    said: Vec<Said>,
}

/// A request, as far as it has arrived.
struct Request {
    head: String,
    body: usize,
}

impl Request {
    async fn read_head(socket: &mut TcpStream) -> io::Result<Request> {
        let mut bytes = Vec::new();
        loop {
            if socket.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(bytes[..end].to_vec()).expect("ours is ASCII here");
                return Ok(Request { head, body: bytes.len() - end - 4 });
            }
        }
    }

    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).unwrap_or_else(|| panic!("no {name} in {}", self.head)).1
    }

    async fn read_body(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let length: usize = self.header("content-length").parse().expect("a number");
        let mut unread = vec![0; 64 * 1024];
        while self.body < length {
            match socket.read(&mut unread).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.body += count,
            }
        }
        assert_eq!(self.body, length, "more came than was announced");
        Ok(())
    }
}

impl Server {
    async fn serve(server: Rc<RefCell<Server>>, listener: TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = Server::talk(&server, socket).await; // the client went away
        }
    }

    async fn talk(server: &RefCell<Server>, mut socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        loop {
            let mut request = Request::read_head(&mut socket).await?;
            let Some(mut said) = server.borrow_mut().coming.pop_front() else { return Ok(()) };
            said.id = request.header("x-event-id").to_owned();
            let first = said.first();
            if said.is_early {
                said.before = first;
            } else {
                request.read_body(&mut socket).await?;
            }
            server.borrow_mut().said.push(said.clone());
            socket.write_all(&said.bytes[..first]).await?;
            tokio::time::sleep(Duration::from_millis(1)).await; // time for the client to process it
            if said.is_early {
                request.read_body(&mut socket).await?;
            }
            // The client cannot tell bytes that arrive during the next request from that request's answer (docs/design.md).
            if !said.in_halves || has_come(&mut socket) {
                server.borrow_mut().said.last_mut().expect("just pushed").bytes.truncate(first);
            } else {
                socket.write_all(&said.bytes[first..]).await?;
            }
            if said.then_closes {
                return Ok(());
            }
        }
    }
}

/// Whether there are bytes to read.
fn has_come(socket: &mut TcpStream) -> bool {
    socket.peek(&mut [0]).now_or_never().is_some()
}

fn settings(format: Format) -> Settings {
    thread_local! {
        static TLS: Arc<rustls::ClientConfig> = tls::client_config(&TlsFiles::default()).expect("no files");
        static POOL: Arc<Pool> = Arc::default();
    }
    let wait = Duration::from_secs(10);
    Settings {
        body: BodyOptions { format, with_reg_pic: true, timestamp_unit: TimestampUnit::Seconds },
        constants: Arc::default(),
        headers: Vec::new(),
        options: Options::default(),
        sign: None,
        period: None,
        proxy: None,
        standby: Vec::new(),
        rate: None,
        timeouts: Timeouts { connect: wait, progress: wait, response: wait, connection_age: wait },
        tls: TLS.with(Arc::clone),
        pool: POOL.with(Arc::clone),
        history: Rc::default(),
    }
}

fn upload(number: u64, picture: usize) -> Upload {
    let event = Event {
        id: EventId { ring: RingId([7; 16]), sequence: number },
        identity_id: "17".into(),
        identity_name: "Ada".into(),
        group_name: "staff".into(),
        device_ip: None,
        top: Vec::new(),
        ext: Vec::new(),
        timestamp_ms: 1_700_000_000_123,
        score: 0.75,
        person_type: None,
        device_type: None,
        reg_pic: 0..picture,
        spot_pic: 0..0,
        pictures: Vec::new(),
        mended: Vec::new(),
    };
    Upload { event: Rc::new(event), source: Arc::new(Picture) }
}

/// Checks that the server's last answer to this event can lead to `outcome`.
fn check(outcome: &AttemptOutcome, said: Option<&Said>) {
    let head = said.and_then(|said| head(&said.bytes));
    let is_after = said.zip(head).is_some_and(|(said, head)| !said.is_early || head.end > said.before);
    let is_one_of = |statuses: Range<u16>| head.is_some_and(|head| statuses.contains(&head.status));
    match outcome {
        AttemptOutcome::Acknowledged => assert!(is_one_of(200..300) && is_after, "acknowledged by {said:?}"),
        AttemptOutcome::Refused { .. } => assert!(is_one_of(400..500), "refused by {said:?}"),
        AttemptOutcome::Misconfigured { .. } => assert!(is_one_of(300..500), "misconfigured by {said:?}"),
        AttemptOutcome::NotNow { .. } => assert!(is_one_of(400..500), "put off by {said:?}"),
        AttemptOutcome::NotBegun { .. } => panic!("nothing keeps an upload from beginning here"),
        AttemptOutcome::Unreachable { failure } => panic!("the server listens: {failure}"),
        AttemptOutcome::SourceLost => panic!("the picture is there"),
        AttemptOutcome::Down { failure, .. } => {
            let is_late = matches!(failure.code, Code::NoAnswer | Code::Stalled); // the clock jumped
            let is_plain = said.is_some_and(|said| !said.is_early && is_plain_success(&said.bytes));
            assert!(is_late || !is_plain, "{failure}: by {said:?}");
        }
    }
}

async fn run(format: Format, script: Vec<Said>) {
    let picture = if script.iter().any(|said| said.is_early) { LARGE } else { SMALL };
    let socket = TcpSocket::new_v4().expect("a socket");
    if picture == LARGE {
        socket.set_recv_buffer_size(WINDOW).expect("a window");
    }
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(8).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let events = script.len() as u64;
    let server = Rc::new(RefCell::new(Server { coming: script.into(), said: Vec::new() }));
    let serving = tokio::task::spawn_local(Server::serve(Rc::clone(&server), listener));
    let client = Client::new(Url::parse(&format!("http://{address}/RealTimeEvent")).expect("a URL"), settings(format));
    for number in 1..=events {
        let upload = upload(number, picture);
        let (outcome, _) = client.send(&upload, None).await;
        let id = upload.event.id.to_string();
        check(&outcome, server.borrow().said.iter().rfind(|said| said.id == id));
    }
    serving.abort();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    thread_local!(static RUNTIME: Runtime = sophon_uplink_fuzz::runtime());
    let mut input = Input(bytes);
    let format = if input.u8() & 1 == 0 { Format::Json } else { Format::FormData };
    let script = input.0.split(|byte| *byte == 0xFF).take(4).map(Said::of).collect();
    RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, run(format, script)));
});
