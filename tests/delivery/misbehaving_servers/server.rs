//! A server that misbehaves by rule, and its own record of what it got and said, which is what the daemon is measured against.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};

use super::peer::{Head, Peer, Then, delivered};
use super::table::{Does, Expect, Row};
use crate::common::Watched;

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OK_AND_CLOSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// What the server knows of one event.
#[derive(Clone, Default)]
pub struct Known {
    pub id: String,
    pub tries: u64,
    pub length: usize,
    pub body: Option<sha2::digest::Output<Sha256>>,
    first_try: Option<Instant>,
    /// From the first try to the second.
    pub pause: Option<Duration>,
    /// 2xx after its whole body was read.
    pub acknowledged: bool,
    /// An answer by which the daemon may give it up.
    pub refused: bool,
}

/// What the server wrote down.
#[derive(Clone, Default)]
pub struct Record {
    pub events: BTreeMap<u64, Known>,
    pub connections: u64,
    /// What no request may be: another body under the same id, a body of another event, ...
    pub faults: BTreeSet<String>,
    /// Times that the row's misbehaviour took place.
    pub misbehaved: u64,
    /// The row is over: threads that hold a connection let it go.
    over: bool,
}

pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    row: &'static Row,
    /// So many events will come.
    count: u64,
    tls: Option<Arc<ServerConfig>>,
    record: Watched<Record>,
    /// Of idle connections.
    mouths: Mutex<Vec<TcpStream>>,
}

/// A listener whose connections have a receive buffer of `buffer` bytes.
pub fn listener(buffer: usize) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(buffer).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// Where redirects lead: a page that answers 200 to everything, and counts who came.
pub struct Page {
    pub address: SocketAddr,
    pub visits: Arc<Watched<u64>>,
}

pub fn page() -> &'static Page {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let page = Page { address: listener.local_addr().unwrap(), visits: Arc::default() };
        let visits = Arc::clone(&page.visits);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                visits.change(|visits| *visits += 1);
                let _ = stream.write_all(OK_AND_CLOSE.as_bytes());
            }
        });
        page
    })
}

impl Server {
    pub fn start(row: &'static Row, count: u64, tls: Option<Arc<ServerConfig>>, listener: TcpListener) -> Server {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { row, count, tls, record: Watched::default(), mouths: Mutex::default() });
        let kept = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if kept.record.look(|record| record.over) {
                    return;
                }
                let shared = Arc::clone(&kept);
                thread::spawn(move || {
                    let _ = shared.connection(stream); // the client went away: nothing to do
                });
            }
        });
        Server { address, shared }
    }

    pub fn look<R>(&self, look: impl FnOnce(&Record) -> R) -> R {
        self.shared.record.look(look)
    }

    /// Says to every connection what nobody asked for, while none has a request on its way.
    pub fn poke(&self) {
        let Does::Poke(bytes, then) = self.shared.row.does else { return };
        for mut mouth in self.shared.mouths.lock().unwrap().drain(..) {
            self.shared.misbehaves();
            let _ = mouth.write_all(bytes.as_bytes()); // the client may have closed it
            if matches!(then, Then::Fin) {
                let _ = mouth.shutdown(Shutdown::Write);
            }
        }
        delivered().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.record.change(|record| record.over = true);
        let _ = TcpStream::connect(self.address); // the listener notices
    }
}

impl Shared {
    /// Of a few events every other one, of many every fiftieth: enough, and the pauses do not add up to hours.
    fn is_bad(&self, number: u64) -> bool {
        number <= self.count && if self.count <= 12 { number % 2 == 1 } else { number % 50 == 1 }
    }

    /// The first try of a bad event fails, of every third bad event the second one, too.
    fn is_bad_try(&self, sequence: u64, tries: u64) -> bool {
        let twice = sequence.is_multiple_of(3) && !matches!(self.row.does, Does::Reused(_));
        self.is_bad(sequence) && tries <= if twice { 2 } else { 1 }
    }

    fn connection(&self, stream: TcpStream) -> io::Result<()> {
        let number = self.record.change(|record| {
            record.connections += 1;
            record.connections
        });
        let peer = Peer::plain(stream)?;
        match (self.row.does, &self.tls) {
            (Does::Accept(misbehave), _) if self.is_bad(number) => {
                self.misbehaves();
                let mut peer = peer;
                let then = misbehave(&mut peer)?;
                peer.end(then, || self.hold())?.map_or(Ok(()), |peer| self.requests(peer))
            }
            (Does::TlsWherePlain, Some(tls)) if self.is_bad(number) => {
                self.misbehaves();
                peer.encrypted(tls).read_to_end()
            }
            (Does::TlsWherePlain, _) | (_, None) => self.requests(peer),
            (_, Some(tls)) => self.requests(peer.encrypted(tls)),
        }
    }

    fn misbehaves(&self) {
        self.record.change(|record| record.misbehaved += 1);
    }

    fn hold(&self) {
        while !self.record.look(|record| record.over) {
            thread::sleep(Duration::from_millis(20)); // the row may take long
        }
    }

    fn requests(&self, mut peer: Peer) -> io::Result<()> {
        let mut polluted = false;
        while let Some(head) = peer.head()? {
            let bad = self.is_bad_try(head.sequence(), self.note_head(&head));
            let then = if std::mem::take(&mut peer.prepaid) {
                self.acknowledged(&mut peer, &head)?;
                Then::GoOn
            } else if let Does::Surplus(first, surplus) = self.row.does {
                self.acknowledged(&mut peer, &head)?;
                self.misbehaves();
                peer.say(first)?;
                polluted = surplus.is_empty() || peer.say_unasked(surplus)?;
                Then::GoOn
            } else if bad && self.row.does.concerns(&peer) {
                self.misbehaves();
                self.misbehave(&mut peer, &head)?
            } else {
                self.acknowledged(&mut peer, &head)?;
                if let Does::Poke(..) = self.row.does {
                    polluted = true; // by what will be said before the next event
                    let mouth = peer.mouth()?;
                    self.mouths.lock().unwrap().push(mouth);
                }
                peer.say(if self.row.closes() { OK_AND_CLOSE } else { OK })?;
                Then::GoOn
            };
            peer.served += 1;
            if polluted {
                // An answer to nothing lies on the connection. A request that comes after it is never read, so who takes that
                // answer for the event's own loses the event.
                if peer.is_spoken_to() {
                    self.hold();
                }
                break;
            }
            match peer.end(then, || self.hold())? {
                Some(same) => peer = same,
                None => break,
            }
        }
        Ok(())
    }

    fn misbehave(&self, peer: &mut Peer, head: &Head) -> io::Result<Then> {
        match self.row.does {
            Does::Head(_) | Does::Reused(_) => {}
            Does::ReadsSlowly => {
                let body = peer.bytes_slowly(head.length)?;
                self.note_body(head, &body);
            }
            _ => self.whole(peer, head)?,
        }
        // Before it is said, what the answer will amount to:
        match self.row.expect {
            Expect::Refused(_) | Expect::RefusedOrDown => self.change(head, |known| known.refused = true),
            Expect::Fine => self.change(head, |known| known.acknowledged = true),
            _ => {}
        }
        match self.row.does {
            Does::Head(act) | Does::Reused(act) => act(peer, head),
            Does::Whole(act) => act(peer),
            Does::ReadsSlowly => peer.say(OK).map(|()| Then::GoOn),
            Does::Says(bytes, then) => {
                peer.say(bytes.replace("{page}", &page().address.to_string()))?;
                Ok(then)
            }
            _ => unreachable!("not about single requests"),
        }
    }

    fn whole(&self, peer: &mut Peer, head: &Head) -> io::Result<()> {
        let body = peer.bytes(head.length)?;
        self.note_body(head, &body);
        Ok(())
    }

    fn acknowledged(&self, peer: &mut Peer, head: &Head) -> io::Result<()> {
        self.whole(peer, head)?;
        self.change(head, |known| known.acknowledged = true);
        Ok(())
    }

    fn note_head(&self, head: &Head) -> u64 {
        self.record.change(|record| {
            let known = record.events.entry(head.sequence()).or_default();
            known.tries += 1;
            match known.first_try {
                None => {
                    (known.first_try, known.id, known.length) =
                        (Some(Instant::now()), head.id().to_owned(), head.length);
                }
                Some(first) => known.pause = known.pause.or(Some(first.elapsed())),
            }
            if (known.id.as_str(), known.length, head.headers["idempotency-key"].as_str())
                != (head.id(), head.length, head.id())
            {
                record.faults.insert(format!("{} came again as {}, or with another length", known.id, head.id()));
            }
            record.events[&head.sequence()].tries
        })
    }

    fn note_body(&self, head: &Head, body: &[u8]) {
        let hash = Sha256::digest(body);
        let start = String::from_utf8_lossy(&body[..body.len().min(400)]);
        let sequence = head.sequence();
        let json = start.contains(&format!(r#""identity_id":"{sequence}""#));
        let is_its_own = json || start.contains(&format!("name=\"identity_id\"\r\n\r\n{sequence}\r\n"));
        self.record.change(|record| {
            let known = record.events.get_mut(&sequence).expect("its head was noted");
            if *known.body.get_or_insert(hash) != hash {
                record.faults.insert(format!("{} came with another body", head.id()));
            }
            if !is_its_own {
                record.faults.insert(format!("{} came with another event's body", head.id()));
            }
        });
    }

    fn change(&self, head: &Head, change: impl FnOnce(&mut Known)) {
        self.record.change(|record| change(record.events.get_mut(&head.sequence()).expect("its head was noted")));
    }
}
