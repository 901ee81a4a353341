//! A server on a real socket that keeps what it gets, and answers as the test says.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::Watched;

/// A request that came in whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST /path HTTP/1.1`.
    pub line: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// The number of the connection it came on, from 0.
    pub connection: usize,
}

impl Request {
    pub fn id(&self) -> &str {
        &self.headers["x-event-id"]
    }

    pub fn sequence(&self) -> u64 {
        self.id().rsplit('-').next().unwrap().parse().unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With further header lines, each ending in CRLF.
    Status(u16, &'static str),
    /// Exactly these bytes, and on with the next request.
    Raw(&'static str),
    /// Exactly these bytes, then the connection is closed.
    RawThenClose(&'static str),
    /// Closes the connection without an answer.
    Close,
    /// Says nothing, ever.
    Hang,
    /// Exactly these bytes after the head of a request; nothing more is read.
    AtHead(&'static str),
    /// Exactly these bytes after the head of a request, whose body is then read and thrown away.
    AtHeadThenBody(&'static str),
}

pub const OK: Answer = Answer::Status(200, "");

#[derive(Default)]
struct Log {
    requests: Vec<Request>,
    /// Heads that came, whole requests or not.
    heads: usize,
    connections: usize,
    /// Those that are open, by number.
    streams: HashMap<usize, TcpStream>,
}

pub struct Sink {
    pub address: SocketAddr,
    log: Arc<Watched<Log>>,
}

type Policy = dyn Fn(&Request, usize) -> Answer + Send + Sync;

impl Sink {
    /// Answers 200 to everything.
    pub fn start() -> Sink {
        Sink::with(|_, _| OK)
    }

    /// Answers as `policy` says, which is given the request and how many came whole before it. [`Answer::AtHead`] and
    /// [`Answer::AtHeadThenBody`] are given to a request without its body.
    pub fn with(policy: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Sink {
        Sink::on(TcpListener::bind("127.0.0.1:0").unwrap(), policy)
    }

    pub fn on(listener: TcpListener, policy: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Sink {
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Watched::<Log>::default());
        let policy: Arc<Policy> = Arc::new(policy);
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, policy) = (Arc::clone(&kept), Arc::clone(&policy));
                let number = log.change(|log| {
                    log.connections += 1;
                    log.streams.insert(log.connections - 1, stream.try_clone().unwrap());
                    log.connections - 1
                });
                thread::spawn(move || {
                    serve(stream, number, &log, &*policy);
                    log.change(|log| log.streams.remove(&number));
                });
            }
        });
        Sink { address, log }
    }

    pub fn url(&self) -> String {
        format!("http://{}/RealTimeEvent", self.address)
    }

    /// Waits until `count` requests came whole, and returns all that did.
    #[track_caller]
    pub fn wait(&self, count: usize) -> Vec<Request> {
        self.log.wait(&format!("request {count}"), |log| (log.requests.len() >= count).then(|| log.requests.clone()))
    }

    /// Waits until the requests do.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut enough: impl FnMut(&[Request]) -> bool) -> Vec<Request> {
        self.log.wait(what, |log| enough(&log.requests).then(|| log.requests.clone()))
    }

    #[track_caller]
    pub fn wait_heads(&self, count: usize) {
        self.log.wait(&format!("head {count}"), |log| (log.heads >= count).then_some(()));
    }

    pub fn received(&self) -> Vec<Request> {
        self.log.look(|log| log.requests.clone())
    }

    pub fn connections(&self) -> usize {
        self.log.look(|log| log.connections)
    }

    /// Closes every connection there is.
    pub fn close_all(&self) {
        self.log.change(|log| {
            for (_, stream) in log.streams.drain() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    /// Says this on every connection there is, whatever was asked.
    pub fn say_to_all(&self, bytes: &[u8]) {
        self.log.look(|log| {
            for mut stream in log.streams.values() {
                stream.write_all(bytes).unwrap();
            }
        });
    }

    /// Gives away what came so far, so that long tests stay small.
    pub fn take(&self) -> Vec<Request> {
        self.log.change(|log| std::mem::take(&mut log.requests))
    }
}

fn serve(stream: TcpStream, connection: usize, log: &Watched<Log>, policy: &Policy) {
    let _ = exchange(stream, connection, log, policy); // the peer went away: nothing to do
}

fn exchange(stream: TcpStream, connection: usize, log: &Watched<Log>, policy: &Policy) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
    let mut output = stream;
    while let Some(mut request) = read_head(&mut input, connection)? {
        let before = log.change(|log| {
            log.heads += 1;
            log.requests.len()
        });
        let early = matches!(policy(&request, before), Answer::AtHead(_) | Answer::AtHeadThenBody(_));
        let length: usize = request.headers["content-length"].parse().map_err(io::Error::other)?;
        if !early {
            request.body = vec![0; length];
            input.read_exact(&mut request.body)?;
        }
        let answer = policy(&request, before);
        if !early {
            log.change(|log| log.requests.push(request));
        }
        match answer {
            Answer::Status(status, headers) => {
                output.write_all(format!("HTTP/1.1 {status} x\r\n{headers}Content-Length: 2\r\n\r\nok").as_bytes())?;
            }
            Answer::Raw(bytes) => output.write_all(bytes.as_bytes())?,
            Answer::RawThenClose(bytes) => {
                output.write_all(bytes.as_bytes())?;
                return output.shutdown(Shutdown::Both);
            }
            Answer::AtHead(bytes) => {
                output.write_all(bytes.as_bytes())?;
                thread::park(); // the connection stays open, nothing more is read
            }
            Answer::AtHeadThenBody(bytes) => {
                output.write_all(bytes.as_bytes())?;
                io::copy(&mut (&mut input).take(length as u64), &mut io::sink())?;
            }
            Answer::Close => return output.shutdown(Shutdown::Both),
            Answer::Hang => thread::park(),
        }
    }
    Ok(())
}

fn read_head(input: &mut impl BufRead, connection: usize) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        input.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request { line: line.trim_end().into(), headers, body: Vec::new(), connection }))
}
