//! A client of the API, as plain as it gets: what a test sends is what goes over the socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::BOUND;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Lines of the head, lower case before the colon.
    pub head: String,
    pub body: String,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends exactly these bytes and reads to the end; none where the server closed without a word, or had to reset.
pub fn raw(address: SocketAddr, request: &[u8]) -> Option<Reply> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(BOUND)).unwrap();
    let _ = socket.write_all(request); // a server may answer and close before it has read everything
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, mut body) = (String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end + 4..].to_vec());
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let head = head.to_ascii_lowercase();
    if head.contains("content-encoding: gzip") && !body.is_empty() {
        let packed = std::mem::take(&mut body);
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut body).expect("it is gzip, and whole");
    }
    Some(Reply { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}

pub fn call(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    raw(address, &request).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

pub fn get(address: SocketAddr, path: &str) -> Reply {
    call(address, "GET", path, "", b"")
}

pub fn post_json(address: SocketAddr, path: &str, body: &Value) -> Reply {
    call(address, "POST", path, "Content-Type: application/json\r\n", body.to_string().as_bytes())
}
