//! The promise: an upload whose event is spooled under it goes on with the event's own bytes, whatever takes its room in the
//! ring.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::traced::{self, Trace};
use crate::common::{Daemon, RingProducer, event, make_key, picture, publish, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sophon_uplink::ring::producer::Producer;
use sophon_uplink::spool::Destination;

/// Large enough that most of it is not in any socket's buffer when the server stops reading.
const PICTURE: usize = 5 << 20;
const RING: u64 = 16 << 20;

/// A server that takes connections only one by one, and no more of a request than it is asked to read.
struct Slow(TcpListener);

impl Slow {
    fn start() -> Slow {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(16).unwrap();
        Slow(socket.into())
    }

    fn url(&self) -> String {
        format!("http://{}/", self.0.local_addr().unwrap())
    }

    /// The first connection, on which a request has begun.
    fn begun(&self) -> (TcpStream, Vec<u8>) {
        let (mut stream, _) = self.0.accept().unwrap();
        let mut read = vec![0; 2000];
        stream.read_exact(&mut read).unwrap();
        (stream, read)
    }

    /// Answers every request from now on.
    fn serve(self) {
        thread::spawn(move || {
            for stream in self.0.incoming().flatten() {
                thread::spawn(move || answer(stream, Vec::new()));
            }
        });
    }
}

/// Reads the request that has begun with `read` and answers 200, and so on; the first one.
fn answer(mut stream: TcpStream, mut read: Vec<u8>) -> Vec<u8> {
    let mut first = None;
    let mut buffer = vec![0; 1 << 16];
    loop {
        while !read.ends_with(b"}}") {
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => read.extend_from_slice(&buffer[..count]),
                _ => return first.unwrap_or(read),
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        first = first.or(Some(std::mem::take(&mut read)));
    }
}

fn publish_large(recognizer: &mut RingProducer, seed: u64) {
    publish(recognizer, &event(&picture(PICTURE, seed), b""));
}

/// Whether a request carries the picture of the first event.
#[track_caller]
fn assert_is_first(request: &[u8]) {
    let wanted = STANDARD.encode(picture(PICTURE, 1));
    let text = std::str::from_utf8(request).unwrap();
    assert!(text.contains(&wanted), "another picture went out under the event's id");
}

#[test]
fn an_upload_goes_on_in_the_spooled_file_when_others_take_its_room() {
    let (home, server) = (Home::new(), Slow::start());
    home.configure(&[server.url()], json!({}));
    go_on_in_the_spooled_file(&home, server);
}

#[test]
fn an_upload_goes_on_in_a_sealed_file_as_well() {
    let (home, server) = (Home::new(), Slow::start());
    make_key(&home.key());
    home.configure_sealed(&[server.url()]);
    go_on_in_the_spooled_file(&home, server);
}

fn go_on_in_the_spooled_file(home: &Home, server: Slow) {
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    let daemon = Daemon::restart(home);
    publish_large(&mut recognizer, 1);
    let (stream, read) = server.begun();
    // Twice as much as the ring holds.
    (2..=7).for_each(|seed| publish_large(&mut recognizer, seed));
    server.serve();
    assert_is_first(&answer(stream, read));
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (7, 0));
}

/// Whether what a request carries of a picture is the first event's, all of it or its beginning.
#[track_caller]
fn assert_is_of_the_first(request: &[u8]) {
    let wanted = STANDARD.encode(picture(PICTURE, 1));
    let text = std::str::from_utf8(request).unwrap();
    let (_, rest) = text.split_once("\"reg_pic\":\"").unwrap();
    let part = rest.split('"').next().unwrap();
    assert!(!part.is_empty() && wanted.starts_with(part), "another picture went out under the event's id");
}

/// It keeps its room in the ring, or is broken off where the recognizer needs that: the event is in the spool, whence it
/// goes once its file can be opened.
#[test]
fn an_upload_whose_spooled_file_cannot_be_opened_sends_nothing_of_what_takes_its_room() {
    if !traced::is_possible("an_upload_whose_spooled_file_cannot_be_opened") {
        return;
    }
    let (home, server) = (Home::new(), Slow::start());
    let mut recognizer = Producer::open(&home.ring(), RING).unwrap();
    home.configure(&[server.url()], json!({}));
    let folder = home.spool().join("to").join(Destination::of(&server.url()).to_string());
    let file = folder.join(format!("{:020}.event", 1));
    let trace = Trace::of(&home).path(&file);
    let daemon = trace.inject_first("openat", "error=EMFILE", 3).start(&home);
    publish_large(&mut recognizer, 1);
    let (stream, read) = server.begun();
    let large = picture(PICTURE, 2);
    publish_large(&mut recognizer, 2);
    publish_large(&mut recognizer, 3);
    wait_until("the spooling of the first two", || home.spooled_for(&server.url()).len() == 2);
    // Time for their room to be given back, were it.
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(1));
        let _ = recognizer.publish(&event(&large, b""));
    }
    server.serve();
    assert_is_of_the_first(&answer(stream, read));
    home.wait_done();
    let stopped = daemon.terminate();
    assert_eq!(stopped.acknowledged, stopped.read, "{}", stopped.log);
}
