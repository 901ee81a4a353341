//! The limit: a process that writes the same bytes, already encoded, on one kept-alive socket; over HTTPS through rustls. It
//! sends one event for each line on its standard input, as the peers do.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustls::{ClientConnection, StreamOwned};

use super::source::TURN;
use super::tls;

/// Sends bodies of `length` bytes to `url`: an address after a scheme.
pub fn run(url: &str, length: usize, ca: &Path) -> io::Result<()> {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let address: SocketAddr = rest.split('/').next().expect("one at least").parse().expect("an address");
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    if scheme == "http" {
        return write(stream, length);
    }
    let client = ClientConnection::new(tls::client_config(ca), address.ip().into()).expect("a good config");
    write(StreamOwned::new(client, stream), length)
}

fn write(mut stream: impl Read + Write, length: usize) -> io::Result<()> {
    let head =
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    // Use different memory for each event, as much as the other contenders: so the bytes come from memory and not from the core's
    // cache.
    let requests: Vec<Vec<u8>> = (0..(TURN / length).clamp(1, 1024))
        .map(|number| [head.as_bytes(), &vec![b'A' + (number % 26) as u8; length]].concat())
        .collect();
    let mut answer = [0; 4096];
    for (line, request) in io::stdin().lock().lines().zip(requests.iter().cycle()) {
        line?;
        stream.write_all(request)?;
        stream.flush()?;
        assert!(stream.read(&mut answer)? > 0, "the sink has gone");
    }
    Ok(())
}
