//! Parses the head of an answer as far as needed: where it ends, and its status.
//!
//! hyper parses answers strictly. Real servers break the rules, and then only the status matters: this parser provides it for
//! heads that hyper refuses. So hyper gets a head only once it is complete, and the size of everything up to its end is bounded.

/// hyper accepts heads up to this size, including interim ones, in bytes.
pub const HYPER_TAKES: usize = 64 * 1024;
/// The most bytes of interim answers (1xx) before the final head.
const MOST_INTERIM: usize = 64 * 1024;
/// The most bytes of the final head.
const MOST: usize = 256 * 1024;
/// The length of `HTTP/1.1 200 ` and the bytes after it that end the number.
const START: usize = 16;

/// Parses the head of one answer, piece by piece.
#[derive(Debug, Default)]
pub struct Head {
    state: State,
    /// The beginning of the current line.
    line: [u8; START],
    /// The length of the current line so far.
    length: usize,
    /// Bytes of this head.
    seen: usize,
    /// Bytes of interim heads before it.
    interim: usize,
    status: Option<u16>,
}

/// The state of the parser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No answer is expected.
    #[default]
    Idle,
    /// The head is not complete yet.
    Reading,
    /// The final head is complete.
    Ended,
    /// The head does not begin like an HTTP answer.
    Foreign,
    /// The head is too long.
    TooLarge,
}

impl Head {
    /// A parser for the next answer.
    pub fn awaited() -> Head {
        Head { state: State::Reading, ..Head::default() }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The status of the final head, once that is complete.
    pub fn status(&self) -> Option<u16> {
        self.status.filter(|_| self.state == State::Ended)
    }

    /// Whether the head is too long for hyper.
    pub fn is_oversize(&self) -> bool {
        self.interim + self.seen > HYPER_TAKES
    }

    /// Parses the next bytes, which may extend beyond the head.
    pub fn read(&mut self, mut bytes: &[u8]) -> State {
        while self.state == State::Reading && !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            let start = self.length.min(START);
            let count = line.len().min(START - start);
            self.line[start..start + count].copy_from_slice(&line[..count]);
            self.length += line.len();
            self.seen += line.len() + usize::from(end.is_some());
            match end {
                Some(_) => self.line_ended(),
                None if self.status.is_none() && !begins_as_http(&self.line[..self.length.min(START)]) => {
                    self.state = State::Foreign;
                }
                None => {}
            }
            if self.state == State::Reading && (self.interim >= MOST_INTERIM || self.seen > MOST) {
                self.state = State::TooLarge;
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.state
    }

    fn line_ended(&mut self) {
        let line = &self.line[..self.length.min(START)];
        let is_empty = line.is_empty() || line == b"\r";
        match self.status {
            // An empty line before a head: some servers end a body like this.
            None if is_empty => {}
            None => {
                self.status = status(line);
                self.state = if self.status.is_some() { State::Reading } else { State::Foreign };
            }
            Some(100 | 102..=199) if is_empty => {
                (self.interim, self.seen, self.status) = (self.interim + self.seen, 0, None);
            }
            Some(_) if is_empty => self.state = State::Ended,
            Some(_) => {}
        }
        self.length = 0;
    }
}

/// Whether this beginning of a line can become a status line.
fn begins_as_http(line: &[u8]) -> bool {
    let known = b"HTTP/";
    let count = line.len().min(known.len());
    line[..count].eq_ignore_ascii_case(&known[..count]) || line == b"\r"
}

/// The status in a status line.
fn status(line: &[u8]) -> Option<u16> {
    let line = String::from_utf8_lossy(line); // a reason phrase may be in any encoding
    let (version, rest) = line.trim_end_matches('\r').split_once(' ')?;
    let is_known = ["HTTP/1.0", "HTTP/1.1", "HTTP/1.2", "HTTP/2.0", "HTTP/2"];
    is_known.iter().find(|known| version.eq_ignore_ascii_case(known))?;
    let rest = rest.trim_start_matches(' ');
    let (digits, more) = rest.split_at_checked(3)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !more.starts_with(|next: char| next != ' ');
    digits.parse().ok().filter(|status| is_number && *status >= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8], piece: usize) -> (State, Option<u16>) {
        let mut head = Head::awaited();
        bytes.chunks(piece).for_each(|piece| assert_eq!(head.read(piece), head.state()));
        (head.state(), head.status())
    }

    #[test]
    fn heads_that_break_the_rules_have_their_status_in_pieces_of_every_size() {
        let long = format!("HTTP/1.1 201 x\r\nX: {}\r\n\r\n", "a".repeat(100_000));
        let interim = format!("{}HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 102 x\r\nA: b\r\n\r\n".repeat(2000));
        for (text, state, status) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", State::Ended, Some(200)),
            ("HTTP/1.1 200 OK\r\nServer : GoAhead\r\nX-A: a\r\n  b\r\nhello\r\n\r\n", State::Ended, Some(200)),
            ("HTTP/1.1 200 成功\r\n服务器: x\r\n\r\n", State::Ended, Some(200)),
            ("http/1.0 404\n\n", State::Ended, Some(404)),
            ("\r\nHTTP/1.1 200 \r\n\r\n", State::Ended, Some(200)),
            ("HTTP/1.1  503  slow down\r\n\r\n", State::Ended, Some(503)),
            ("HTTP/2.0 299 x\r\n\r\n", State::Ended, Some(299)),
            ("HTTP/1.1 101 x\r\n\r\n", State::Ended, Some(101)),
            (&long, State::Ended, Some(201)),
            (&interim, State::Ended, Some(200)),
            ("HTTP/1.1 100 Continue\r\n\r\n", State::Reading, None),
            ("HTTP/1.1 200 OK\r\nX: y\r\n", State::Reading, None),
            ("HTTP/1.1 20", State::Reading, None),
            ("HTTP/1.1 2000 OK\r\n\r\n", State::Foreign, None),
            ("HTTP/1.1 020 OK\r\n\r\n", State::Foreign, None),
            ("HTTP/1.1 404成功\r\n\r\n", State::Foreign, None),
            ("HTTP/1.1 +20 OK\r\n\r\n", State::Foreign, None),
            ("HTTP/3.7 200 OK\r\n\r\n", State::Foreign, None),
            ("HTTP/1.1200 OK\r\n\r\n", State::Foreign, None),
            ("SSH-2.0-OpenSSH", State::Foreign, None),
            ("<html>", State::Foreign, None),
        ] {
            for piece in [1, 2, 7, 1000, 1 << 20] {
                assert_eq!(of(text.as_bytes(), piece), (state, status), "{piece}: {:.60}", text.escape_debug());
            }
        }
    }

    #[test]
    fn interim_answers_and_heads_without_end_are_too_large() {
        assert_eq!(of("HTTP/1.1 102 x\r\n\r\n".repeat(4000).as_bytes(), 999).0, State::TooLarge);
        assert_eq!(of(format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(50_000)).as_bytes(), 999).0, State::TooLarge);
        assert_eq!(of(&[b"HTTP/1.1 200 OK\r\nX: ", &[b'a'; 300_000][..]].concat(), 999).0, State::TooLarge);
    }
}
