//! The server that receives all uploads. It counts bytes and answers 200, over HTTP and HTTPS. It is a separate process, so that
//! its cost counts for no contender. Over HTTP the kernel discards the body (`MSG_TRUNC`), so that the sink delays nobody.
//!
//! On its standard output it writes one line with its two ports. Then it writes 16 bytes for each request: when its last byte
//! arrived, and the length of its body.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::measure;
use super::tls::provider;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// Maximum number of bytes discarded at once.
const PIECE: usize = 1 << 20;
/// Timeout for an event.
const BOUND: Duration = Duration::from_secs(60);

// --- the process ----------------------------------------------------------------------------------------------------

/// Serves until its parent ends it; answers after `delay`. The parent listens for HTTP and passes that socket as standard input.
pub fn serve(certificates: &Path, delay: Duration) -> io::Result<()> {
    let tls = server_config(certificates);
    let http = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let https = TcpListener::bind("127.0.0.1:0")?;
    println!("{} {}", http.local_addr()?.port(), https.local_addr()?.port());
    let report = Arc::new(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    let reported = Arc::clone(&report);
    thread::spawn(move || each_connection(&http, Plain::new, delay, &reported));
    each_connection(
        &https,
        move |stream| StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).expect("a good config"), stream),
        delay,
        &report,
    );
    Ok(())
}

fn each_connection<W: Wire + Send + 'static>(
    listener: &TcpListener,
    wire: impl Fn(TcpStream) -> W,
    delay: Duration,
    report: &Arc<File>,
) {
    for stream in listener.incoming().flatten() {
        let _ = stream.set_nodelay(true);
        let (mut wire, report) = (wire(stream), Arc::clone(report));
        thread::spawn(move || while exchange(&mut wire, delay, &report).is_some() {});
    }
}

/// A connection whose incoming bytes can be discarded.
trait Wire: Read + Write {
    /// Discards at most `count` bytes and returns how many; 0 at the end.
    fn discard(&mut self, count: usize) -> io::Result<usize>;
}

struct Plain {
    socket: Socket,
    nowhere: Box<[MaybeUninit<u8>]>,
}

impl Plain {
    fn new(stream: TcpStream) -> Plain {
        Plain { socket: stream.into(), nowhere: Box::new_uninit_slice(PIECE) }
    }
}

impl Read for Plain {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buf)
    }
}

impl Write for Plain {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Plain {
    fn discard(&mut self, count: usize) -> io::Result<usize> {
        self.socket.recv_with_flags(&mut self.nowhere[..count.min(PIECE)], libc::MSG_TRUNC)
    }
}

impl Wire for StreamOwned<ServerConnection, TcpStream> {
    fn discard(&mut self, count: usize) -> io::Result<usize> {
        self.read(&mut [0; 32 << 10][..count.min(32 << 10)])
    }
}

/// Handles one request; returns none when the connection has ended.
fn exchange(wire: &mut impl Wire, delay: Duration, report: &File) -> Option<()> {
    let mut head = Vec::new();
    let (end, length) = loop {
        let mut piece = [0; 4096];
        let count = wire.read(&mut piece).ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&piece[..count]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break (end + 4, content_length(&head[..end])?);
        }
    };
    let mut left = length - (head.len() - end).min(length);
    while left > 0 {
        left -= wire.discard(left).ok().filter(|count| *count > 0)?;
    }
    let record = [measure::now().to_ne_bytes(), (length as u64).to_ne_bytes()].concat();
    let mut report = report;
    report.write_all(&record).ok()?;
    if !delay.is_zero() {
        thread::sleep(delay);
    }
    wire.write_all(ANSWER).and_then(|()| wire.flush()).ok()
}

fn content_length(head: &[u8]) -> Option<usize> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()
}

fn server_config(certificates: &Path) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(certificates.join("server.pem")).expect("ours");
    let key = PrivateKeyDer::from_pem_file(certificates.join("server.key")).expect("ours");
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]);
    Arc::new(builder.expect("TLS 1.3").with_no_client_auth().with_single_cert(vec![certificate], key).expect("a pair"))
}

// --- seen from the harness ------------------------------------------------------------------------------------------

/// A complete request.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When its last byte arrived.
    pub at: u64,
    /// Length of its body, in bytes.
    pub length: u64,
}

/// The sink's process.
pub struct Sink {
    child: Child,
    reports: ChildStdout,
    /// The beginning of a report that is not complete yet.
    rest: Vec<u8>,
    http: SocketAddr,
    https: SocketAddr,
}

/// The port of a sink that has not been started yet: connections to it are refused.
pub struct ReservedPort(Socket);

impl ReservedPort {
    pub fn new() -> ReservedPort {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback has ports");
        ReservedPort(socket)
    }

    /// The sink's future URL for HTTP.
    pub fn url(&self) -> String {
        let address = self.0.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
        url_of(false, address)
    }
}

fn url_of(is_tls: bool, address: SocketAddr) -> String {
    format!("{}://{address}/RealTimeEvent", if is_tls { "https" } else { "http" })
}

impl Sink {
    pub fn start(certificates: &Path, delay: Duration) -> Sink {
        Sink::start_at(ReservedPort::new(), certificates, delay)
    }

    /// Starts the sink at a port that refused connections until now.
    pub fn start_at(port: ReservedPort, certificates: &Path, delay: Duration) -> Sink {
        port.0.listen(128).expect("it is bound");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--sink", &delay.as_millis().to_string()])
            .arg(certificates)
            .stdin(OwnedFd::from(port.0))
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let mut reports = BufReader::with_capacity(1, child.stdout.take().expect("piped"));
        let mut line = String::new();
        reports.read_line(&mut line).expect("its ports");
        let ports: Vec<u16> = line.split_whitespace().map(|port| port.parse().expect("a port")).collect();
        let [http, https] = ports[..] else { panic!("two ports, not {line:?}") };
        let reports = reports.into_inner();
        fcntl(&reports, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe");
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Sink { child, reports, rest: Vec::new(), http: address(http), https: address(https) }
    }

    pub fn url(&self, is_tls: bool) -> String {
        url_of(is_tls, if is_tls { self.https } else { self.http })
    }

    /// Waits for `count` requests. Polls once per millisecond instead of waking for each.
    pub fn wait(&mut self, count: usize) -> Vec<Arrival> {
        let (deadline, mut arrivals) = (Instant::now() + BOUND, Vec::with_capacity(count));
        while arrivals.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} events came within {BOUND:?}", arrivals.len());
            arrivals.extend(self.arrived());
            if arrivals.len() < count {
                thread::sleep(Duration::from_millis(1));
            }
        }
        arrivals
    }

    /// The requests since the last call.
    pub fn arrived(&mut self) -> Vec<Arrival> {
        let mut piece = [0; 16 << 10];
        while let Ok(count) = self.reports.read(&mut piece) {
            assert!(count > 0, "the sink has died");
            self.rest.extend_from_slice(&piece[..count]);
        }
        let whole = self.rest.len() / 16 * 16;
        let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight"));
        let bytes: Vec<u8> = self.rest.drain(..whole).collect();
        bytes.chunks(16).map(|record| Arrival { at: number(&record[..8]), length: number(&record[8..]) }).collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
