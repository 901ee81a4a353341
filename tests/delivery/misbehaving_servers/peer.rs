//! One connection, from the server's end, with the verbs that the misbehaviours are made of.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

/// A request that comes this soon after an answer was on its way at the same time: nobody can tell which of them was first.
const CROSSING: Duration = Duration::from_micros(50);

/// What becomes of the connection after a misbehaviour.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// The next request is awaited.
    GoOn,
    /// Ended with FIN, and everything that still comes is read, so that it stays a FIN.
    Fin,
    /// Closed at once (by the kernel with RST, if something is unread).
    Close,
    /// Closed with RST.
    Reset,
    /// Left open, nothing read and nothing said, until the row is over.
    Hold,
}

/// A request whose head came in.
pub struct Head {
    pub headers: HashMap<String, String>,
    pub length: usize,
}

impl Head {
    pub fn id(&self) -> &str {
        &self.headers["x-event-id"]
    }

    pub fn sequence(&self) -> u64 {
        self.id().rsplit('-').next().unwrap().parse().unwrap()
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}

/// Waits until what this thread sent has been delivered: packets to this host wait in line, and this one is behind them.
pub fn delivered() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    socket.send(&[0])?;
    socket.recv(&mut [0]).map(|_| ())
}

/// A connection. There is no second handle on it, so that an RST is one.
pub struct Peer {
    input: BufReader<Wire>,
    /// Requests that came on it before the one at hand.
    pub served: usize,
    /// The next request has had its answer already: one that nobody can say came too early.
    pub prepaid: bool,
}

impl Peer {
    pub fn plain(stream: TcpStream) -> io::Result<Peer> {
        stream.set_nodelay(true)?;
        let input = BufReader::with_capacity(8 * 1024, Wire::Plain(stream));
        Ok(Peer { input, served: 0, prepaid: false })
    }

    /// TLS from the next byte on.
    pub fn encrypted(self, config: &Arc<ServerConfig>) -> Peer {
        let Wire::Plain(stream) = self.input.into_inner() else { panic!("TLS in TLS") };
        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
        let wire = Wire::Tls(Box::new(StreamOwned::new(connection, stream)));
        Peer { input: BufReader::new(wire), served: 0, prepaid: false }
    }

    fn tcp(&self) -> &TcpStream {
        match self.input.get_ref() {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => &stream.sock,
        }
    }

    /// The next request's head; none when the client has closed.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let mut headers = HashMap::new();
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        loop {
            line.clear();
            self.input.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        let length = headers.get("content-length").and_then(|text| text.parse().ok());
        let length = length.ok_or_else(|| io::Error::other("no length"))?;
        Ok(Some(Head { headers, length }))
    }

    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A few bytes at a time.
    pub fn bytes_slowly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        for part in bytes.chunks_mut(4 * 1024) {
            self.input.read_exact(part)?;
            std::thread::sleep(Duration::from_millis(2)); // the misbehaviour
        }
        Ok(bytes)
    }

    pub fn read_to_end(&mut self) -> io::Result<()> {
        io::copy(&mut self.input, &mut io::sink()).map(|_| ())
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.input.get_mut().write_all(bytes.as_ref())?;
        self.input.get_mut().flush()
    }

    /// `size` bytes at a time.
    pub fn say_slowly(&mut self, bytes: &str, size: usize) -> io::Result<()> {
        for part in bytes.as_bytes().chunks(size) {
            self.say(part)?;
            std::thread::sleep(Duration::from_millis(2)); // the misbehaviour
        }
        Ok(())
    }

    /// Until the client has had enough.
    pub fn say_for_ever(&mut self, bytes: &str) -> io::Result<Then> {
        loop {
            self.say(bytes)?;
        }
    }

    /// An answer that nobody asked for. False when it may be the answer to the request that came in meanwhile; then it is.
    pub fn say_unasked(&mut self, bytes: &str) -> io::Result<bool> {
        self.say(bytes)?;
        delivered()?;
        let said = Instant::now();
        while !self.prepaid && said.elapsed() < CROSSING {
            self.prepaid = self.has_input()?;
        }
        Ok(!self.prepaid)
    }

    /// Waits for the client's next word, without reading it; false when it closes the connection instead.
    pub fn is_spoken_to(&self) -> bool {
        !self.input.buffer().is_empty() || matches!(self.tcp().peek(&mut [0]), Ok(1..))
    }

    fn has_input(&self) -> io::Result<bool> {
        let tcp = self.tcp();
        tcp.set_nonblocking(true)?;
        let peeked = tcp.peek(&mut [0]);
        tcp.set_nonblocking(false)?;
        Ok(!self.input.buffer().is_empty() || matches!(peeked, Ok(1..)))
    }

    /// Does to the connection what `then` says; gives it back where it goes on. `hold` ends when the row is over.
    pub fn end(mut self, then: Then, hold: impl FnOnce()) -> io::Result<Option<Peer>> {
        match then {
            Then::GoOn => return Ok(Some(self)),
            Then::Fin => {
                self.tcp().shutdown(Shutdown::Write)?;
                self.read_to_end()?;
            }
            Then::Close => {}
            Then::Reset => SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO))?,
            Then::Hold => hold(),
        }
        Ok(None)
    }

    /// A handle to say something while a thread waits in [`Peer::head`].
    pub fn mouth(&self) -> io::Result<TcpStream> {
        self.tcp().try_clone()
    }
}
