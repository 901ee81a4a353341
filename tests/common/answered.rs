//! What a server's bytes say, of which only the status matters: an oracle for the client, written without its parser.

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Where it ends, in bytes from the beginning, the heads of 1xx answers before it included.
    pub end: usize,
}

/// The final answer's head; none where it is not whole, or not HTTP/1.
pub fn head(bytes: &[u8]) -> Option<Head> {
    let mut at = 0;
    loop {
        let (status, length) = one_head(&bytes[at..])?;
        at += length;
        // 1xx tell of an answer to come, but for 101, after which nothing of HTTP comes.
        if !(100..=199).contains(&status) || status == 101 {
            return Some(Head { status, end: at });
        }
    }
}

/// Whether these bytes are a 2xx answer that leaves nothing to be understood in more than one way, with its whole body and
/// nothing else: no client may fail to take it.
pub fn is_plain_success(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let Some((status, length)) = head.split_once("\r\nContent-Length: ") else { return false };
    let is_success = status.strip_suffix(" OK").is_some_and(|status| matches!(status, "HTTP/1.1 200" | "HTTP/1.1 201"));
    is_success && length == body.len().to_string() && body.is_ascii()
}

/// A status and the length of its head.
fn one_head(bytes: &[u8]) -> Option<(u16, usize)> {
    let mut at = 0;
    let mut line = || {
        let length = bytes[at..].iter().position(|byte| *byte == b'\n')?;
        let line = &bytes[at..at + length];
        at += length + 1;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    };
    let mut first = line()?;
    while first.is_empty() {
        first = line()?; // RFC 9112 section 2.2
    }
    let status = status(first)?;
    loop {
        match line()? {
            b"" => return Some((status, at)),
            _ => {}
        }
    }
}

/// RFC 9112 section 4, with versions that servers were seen to say, and any reason.
fn status(line: &[u8]) -> Option<u16> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let version = line[..space].to_ascii_uppercase();
    let is_known = [&b"HTTP/1.0"[..], b"HTTP/1.1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/2"].contains(&version.as_slice());
    let start = space + line[space..].iter().position(|byte| *byte != b' ')?;
    let (digits, reason) = line[start..].split_at_checked(3)?;
    let is_number = digits.iter().all(u8::is_ascii_digit) && digits[0] != b'0';
    let is_end = reason.is_empty() || reason[0] == b' ' || reason == b"\r";
    (is_known && is_end && is_number)
        .then(|| digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}
