//! Every misbehaviour there is a row for, and what it must come to.

use std::io;
use std::time::Duration;

use super::peer::{Head, Peer, Then};
use Does::*;
use Expect::*;
use Then::*;

/// A way to misbehave.
#[derive(Clone, Copy)]
pub enum Does {
    /// The port is closed until the daemon has complained.
    Closed,
    /// With a connection, before anything is read.
    Accept(fn(&mut Peer) -> io::Result<Then>),
    /// Speaks TLS on an http URL.
    TlsWherePlain,
    /// With a request of which the head was read.
    Head(fn(&mut Peer, &Head) -> io::Result<Then>),
    /// The same, and only on a connection that served a request before.
    Reused(fn(&mut Peer, &Head) -> io::Result<Then>),
    /// With a request that was read whole.
    Whole(fn(&mut Peer) -> io::Result<Then>),
    /// With a request that is read a few bytes at a time.
    ReadsSlowly,
    /// With a request that was read whole: says exactly this (`{page}` is a page's address that answers 200).
    Says(&'static str, Then),
    /// Answers every request with the first text, and says the second, which nobody asked for, in a write of its own.
    Surplus(&'static str, &'static str),
    /// Says this to idle connections, before each event.
    Poke(&'static str, Then),
}

impl Does {
    pub fn concerns(self, peer: &Peer) -> bool {
        match self {
            Head(_) | Whole(_) | ReadsSlowly | Says(..) => true,
            Reused(_) => peer.served > 0,
            Closed | Accept(_) | TlsWherePlain | Surplus(..) | Poke(..) => false,
        }
    }
}

/// What a misbehaviour must come to. Texts are what the log says; any of several, separated by `|`.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// It is a good answer: no failed try, no second try.
    Fine,
    /// A second try at once, on a new connection, which is no failed try.
    AtOnce,
    /// The destination is down for a while; in the end every event is acknowledged.
    Down(&'static str),
    /// The same, and somebody has to set something right.
    Misconfigured(&'static str),
    /// The event is given up.
    Refused(&'static str),
    /// The refusal may or may not get through.
    RefusedOrDown,
    /// It depends on who is faster; in the end every event is acknowledged.
    Acknowledged,
}

pub struct Row {
    pub name: &'static str,
    pub does: Does,
    pub expect: Expect,
    /// Bytes of a picture.
    pub picture: usize,
    /// What the server's kernel keeps, about.
    pub receive_buffer: usize,
    /// To connect, for progress, for the answer; never equal, so that none is taken for another.
    pub timeouts_ms: [u64; 3],
    /// One event after the other.
    pub paced: bool,
    /// As many times the events.
    pub times: u64,
    pub https: bool,
    /// The pause that the server asks for.
    pub pause: Duration,
}

impl Row {
    /// So large that the sockets cannot hold it: the daemon is in the middle of it for as long as nobody reads.
    const fn big(self) -> Row {
        Row { picture: 1_500_000, receive_buffer: 128 * 1024, ..self }
    }

    /// The answer may take 300 ms, and everything else longer than a test.
    const fn quick(self) -> Row {
        Row { timeouts_ms: [500_000, 600_000, 300], ..self }
    }

    /// The request may stand still for 300 ms.
    const fn impatient(self) -> Row {
        Row { timeouts_ms: [500_000, 300, 600_000], ..self }
    }

    const fn paced(self) -> Row {
        Row { paced: true, ..self }
    }

    const fn times(self, times: u64) -> Row {
        Row { times, ..self }
    }

    const fn pause(self, milliseconds: u64) -> Row {
        Row { pause: Duration::from_millis(milliseconds), ..self }
    }

    /// Whether good answers close the connection, so that there are connections enough to misbehave with.
    pub fn closes(&self) -> bool {
        matches!(self.does, Accept(_) | TlsWherePlain)
    }
}

const fn row(name: &'static str, does: Does, expect: Expect) -> Row {
    let pause = Duration::ZERO;
    let (picture, receive_buffer, timeouts_ms) = (2_000, 1 << 20, [20_000, 10_000, 15_000]);
    Row { name, does, expect, picture, receive_buffer, timeouts_ms, paced: false, times: 1, https: false, pause }
}

const fn says(name: &'static str, text: &'static str, then: Then, expect: Expect) -> Row {
    row(name, Says(text, then), expect)
}

const EMPTY_200: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const UNASKED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno";
const OK_OK: &str =
    concat!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
const GONE: &str = "closed|reset|Broken pipe|ended";

macro_rules! status {
    ($code:literal, $then:expr, $expect:expr) => {
        status!($code, "", $then, $expect)
    };
    ($code:literal, $headers:literal, $then:expr, $expect:expr) => {
        says(
            concat!("answers ", $code, " ", $headers),
            concat!("HTTP/1.1 ", $code, " x\r\n", $headers, "Content-Length: 2\r\n\r\nno"),
            $then,
            $expect,
        )
    };
}

pub static TABLE: &[Row] = &[
    // Connections.
    row("refuses connections, then is there", Closed, Down("Connection refused")),
    row("accepts and says nothing", Accept(|_| Ok(Hold)), Down("no answer within 300 ms")).quick(),
    row("accepts and closes at once", Accept(|_| Ok(Close)), Down(GONE)),
    row("accepts and resets at once", Accept(|_| Ok(Reset)), Down(GONE)),
    row("greets as SSH does", Accept(|peer| peer.say("SSH-2.0-OpenSSH_9.6\r\n").map(|()| Fin)), Down("")),
    row("says 200 as soon as it is connected to", Accept(|peer| peer.say(EMPTY_200).map(|()| Hold)), Down("")).big(),
    row("speaks TLS on a plain URL", TlsWherePlain, Down("")),
    Row { https: true, ..row("speaks plain HTTP on an https URL", Accept(plain_400), Down("")) },
    Row { https: true, ..row("closes in the TLS handshake", Accept(|peer| peer.bytes(5).map(|_| Close)), Down("")) },
    // Where the connection breaks.
    row("resets after the head", Does::Head(|_, _| Ok(Reset)), Down(GONE)),
    row("resets in the middle of the body", Does::Head(half_then_reset), Down(GONE)).big(),
    says("closes after the request without an answer", "", Fin, Acknowledged),
    says("resets after the body", "", Reset, Acknowledged),
    says("resets in the middle of the answer's head", "HTTP/1.1 200 OK\r\nConte", Reset, Down("")),
    says("closes in the middle of the answer's head", "HTTP/1.1 200 OK\r\nConte", Fin, Down("")),
    says("resets in the middle of the answer's body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Reset, Fine),
    says("answers 200 and resets", EMPTY_200, Reset, Fine),
    says("answers 200 and closes unannounced", EMPTY_200, Fin, Fine),
    row("closes an idle connection as the next request comes", Reused(|_, _| Ok(Fin)), AtOnce).paced(),
    row("resets an idle connection as the next request comes", Reused(|_, _| Ok(Reset)), AtOnce).paced(),
    row("resets an idle connection in the next request's body", Reused(half_then_reset), AtOnce).paced().big(),
    // Slow.
    Row { receive_buffer: 16 * 1024, picture: 60_000, ..row("reads slowly", ReadsSlowly, Fine) },
    row("reads the head and no more", Does::Head(|_, _| Ok(Hold)), Down("no byte of the request moved for 300 ms"))
        .big()
        .impatient(),
    says("never answers", "", Hold, Down("no answer within 300 ms")).quick(),
    says("stops in the status line", "HTTP/1.1 20", Hold, Down("no answer within 300 ms")).quick(),
    row("answers a byte at a time", Whole(|peer| peer.say_slowly(UNASKED, 1).map(|()| GoOn)), Fine),
    row("answers in slow pieces", Whole(|peer| peer.say_slowly(UNASKED, 7).map(|()| GoOn)), Fine),
    row("trickles a head without an end", Whole(trickle), Down("no answer within 300 ms")).quick(),
    // 1xx.
    says("100 Continue, then 200", CONTINUE, GoOn, Fine),
    says(
        "100, 102 and 103, then 200",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        GoOn,
        Fine,
    ),
    row("1,000 interim answers, then 200", Whole(a_thousand_interim_answers), Fine),
    row(
        "100 Continue without end",
        Whole(|peer| peer.say_for_ever("HTTP/1.1 100 Continue\r\n\r\n")),
        Down("is too long|closed|reset|Broken pipe"),
    ),
    says("only 100 Continue", "HTTP/1.1 100 Continue\r\n\r\n", Hold, Down("no answer within 300 ms")).quick(),
    says("101 Switching Protocols", "HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", Hold, Down("")),
    // Early.
    row("says 200 before the body", Does::Head(|peer, _| peer.say(EMPTY_200).map(|()| Hold)), Down("before it had"))
        .big(),
    row("says 204 before the body, then reads most of it", Does::Head(early_204), Down("before it had")).big(),
    row("says 413 before the body", Does::Head(|peer, _| peer.say(TOO_LARGE).map(|()| Hold)), Refused("413")).big(),
    row(
        "says 413 before the body and resets",
        Does::Head(|peer, _| peer.say(TOO_LARGE).map(|()| Reset)),
        RefusedOrDown,
    )
    .big(),
    row(
        "says 413 before the body and closes",
        Does::Head(|peer, _| peer.say(TOO_LARGE).map(|()| Close)),
        RefusedOrDown,
    )
    .big(),
    row("says 500 before the body and keeps alive", Does::Head(early_500), Down("500")).big(),
    // Status codes.
    status!("201", GoOn, Fine),
    status!("202", GoOn, Fine),
    says("answers 204", "HTTP/1.1 204 No Content\r\n\r\n", GoOn, Fine),
    says("answers 205", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", GoOn, Fine),
    status!("206", "Content-Range: bytes 0-1/9\r\n", GoOn, Fine),
    status!("300", GoOn, Misconfigured("300")),
    status!("301", "Location: http://{page}/\r\n", GoOn, Misconfigured("301 Moved Permanently: a redirect is not")),
    status!("302", "Location: http://{page}/\r\n", GoOn, Misconfigured("302 Found: a redirect is not followed")),
    status!("303", "Location: http://{page}/\r\n", GoOn, Misconfigured("303 See Other: a redirect is not followed")),
    says("answers 304", "HTTP/1.1 304 Not Modified\r\n\r\n", GoOn, Misconfigured("304")),
    status!("307", "Location: http://{page}/\r\n", GoOn, Misconfigured("307 Temporary Redirect: a redirect is not")),
    status!("308", "Location: http://{page}/\r\n", GoOn, Misconfigured("308 Permanent Redirect: a redirect is not")),
    status!("400", GoOn, Refused("400")),
    status!("401", "WWW-Authenticate: Basic\r\n", GoOn, Misconfigured("401 Unauthorized: check headers.Authorization")),
    status!("403", GoOn, Misconfigured("403 Forbidden: check the server's access rules")),
    status!("404", GoOn, Misconfigured("404 Not Found: check the URL's path")),
    status!("405", GoOn, Misconfigured("405 Method Not Allowed: check the URL's path")),
    status!("407", GoOn, Misconfigured("407 Proxy Authentication Required: a proxy wants a login, set proxy.url")),
    status!("408", "Connection: close\r\n", Fin, Down("408")),
    status!("410", GoOn, Refused("410")),
    status!("413", GoOn, Refused("413")),
    status!("415", GoOn, Refused("415")),
    status!("422", GoOn, Refused("422")),
    status!("425", GoOn, Down("425")),
    status!("429", "Retry-After: 1\r\n", GoOn, Down("429")).pause(1000),
    status!(
        "429",
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:38 GMT\r\n",
        GoOn,
        Down("429")
    )
    .pause(1000),
    status!("429", "Retry-After: soon\r\n", GoOn, Down("429")),
    status!("500", GoOn, Down("500")),
    status!("500", "Connection: close\r\n", Fin, Down("500")),
    status!("502", GoOn, Down("502")),
    status!("503", "Retry-After: 1\r\n", GoOn, Down("503")).pause(1000),
    status!("503", "Retry-After: -5\r\n", GoOn, Down("503")),
    status!("504", GoOn, Down("504")),
    status!("507", GoOn, Down("507")),
    status!("599", GoOn, Down("599")),
    status!("600", GoOn, Down("600")),
    status!("999", GoOn, Down("999")),
    // Heads that are wrong, or only look so.
    says("a status line and no more", "HTTP/1.1 200 OK\r\n", Fin, Down("")),
    says("a status line without a reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", GoOn, Fine),
    says("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", Hold, Down("")),
    says("a status below 100", "HTTP/1.1 020 OK\r\nContent-Length: 0\r\n\r\n", Hold, Down("")),
    says("HTTP/3.7", "HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n", Hold, Down("")),
    says("garbage", "\u{0}\u{1}\u{2}\u{7f}\u{80}\u{fffd}\r\n\r\n\r\n", Fin, Down("")),
    says("an HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0", Hold, Down("")),
    says("an HTTP/0.9 body", "<html>ok</html>\n", Fin, Down("")),
    says("HTTP/1.0 without keep-alive", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Fin, Fine),
    says("HTTP/1.0 until the close", "HTTP/1.0 200 OK\r\n\r\nok", Fin, Fine),
    says("only line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", GoOn, Fine),
    says("odd cases and spaces", "HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh:\t  2  \t\r\nX:\r\n\r\nok", GoOn, Fine),
    says("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", GoOn, Fine),
    says("a folded header", "HTTP/1.1 200 OK\r\nX-A: a\r\n  b\r\nContent-Length: 0\r\n\r\n", GoOn, Fine),
    says("a NUL in a header", "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n", Hold, Fine),
    says("a space in a header's name", "HTTP/1.1 200 OK\r\nX Powered By: x\r\nContent-Length: 0\r\n\r\n", Hold, Fine),
    says("a header's name in Chinese", "HTTP/1.1 200 OK\r\n服务器: x\r\nContent-Length: 0\r\n\r\n", Hold, Fine),
    says("a header in Chinese", "HTTP/1.1 200 OK\r\nX-A: 服务器\r\nContent-Length: 0\r\n\r\n", GoOn, Fine),
    says("a reason in Chinese", "HTTP/1.1 200 成功\r\nContent-Length: 0\r\n\r\n", GoOn, Fine),
    says("http in small letters", "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Hold, Fine),
    says("HTTP/1.2", "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", Hold, Fine),
    says(
        "a refusal with a broken head",
        "HTTP/1.1 422 x\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        Hold,
        Refused("422"),
    ),
    says("a broken head without end", "HTTP/1.1 200 OK\r\nno colon\r\n", Hold, Down("no answer within 300 ms")).quick(),
    says("a broken head and the end", "HTTP/1.1 200 OK\r\nno colon\r\n", Fin, Down("")),
    row("a head of 70 KiB", Whole(head_of_70_kib), Fine),
    says("a header without a colon", "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n", Hold, Fine),
    row("a header of 1 MiB", Whole(header_of_1_mib), Down("")),
    row("10,000 headers", Whole(ten_thousand_headers), Fine),
    row(
        "headers without end",
        Whole(|peer| peer.say("HTTP/1.1 200 OK\r\n").and_then(|()| peer.say_for_ever("X-A: b\r\n"))),
        Down(""),
    ),
    // Bodies and their lengths.
    says(
        "two different Content-Lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        Hold,
        Fine,
    ),
    says(
        "twice the same Content-Length",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        GoOn,
        Fine,
    ),
    says("a negative Content-Length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Hold, Fine),
    says(
        "a Content-Length beyond 64 bits",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        Hold,
        Fine,
    ),
    says(
        "a Content-Length of exabytes",
        "HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\nok",
        Hold,
        Fine,
    ),
    says("a Content-Length larger than the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Fin, Fine),
    says("a chunked answer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", GoOn, Fine),
    says("a chunked answer with extensions and trailers", CHUNKED, GoOn, Fine),
    says(
        "a chunked answer without end",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        Hold,
        Fine,
    ),
    says("a bad chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n", Hold, Fine),
    says(
        "a chunk beyond 64 bits",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        Hold,
        Fine,
    ),
    says("an unknown Transfer-Encoding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", Fin, Fine),
    says("Transfer-Encoding and Content-Length", BOTH, GoOn, Fine),
    says("a body until the close", "HTTP/1.1 200 OK\r\n\r\nok", Fin, Fine),
    row("a body without end", Whole(body_without_end), Fine),
    // Answers to nothing: they must not be taken for the next event's.
    row("two answers in one write", Surplus(OK_OK, ""), Acknowledged).times(50),
    row("two answers in two writes", Surplus(EMPTY_200, UNASKED), Acknowledged).times(50),
    row("two answers to each of many large events", Surplus(EMPTY_200, UNASKED), Acknowledged).big(),
    row("a body longer than its length, in one write", Surplus(LONGER, ""), Acknowledged).times(50),
    row(
        "a body longer than its length, in two writes",
        Surplus("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", UNASKED),
        Acknowledged,
    )
    .times(50),
    row("a 204 with a body that looks like a 200", Surplus("HTTP/1.1 204 x\r\n\r\n", UNASKED), Acknowledged).times(50),
    row("a chunked answer and a 200 behind its end", Surplus(CHUNKED, UNASKED), Acknowledged).times(50),
    row("says 200 on an idle connection", Poke(UNASKED, GoOn), Acknowledged).paced().times(20),
    row("says 200 on an idle connection and closes it", Poke(UNASKED, Fin), Acknowledged).paced().times(20),
    row(
        "says 408 on an idle connection and closes it",
        Poke("HTTP/1.1 408 x\r\nConnection: close\r\n\r\n", Fin),
        Acknowledged,
    )
    .paced()
    .times(20),
    row("says half an answer on an idle connection", Poke("HTTP/1.1 200 OK\r\nContent-Le", GoOn), Acknowledged)
        .paced()
        .times(20),
];

const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
const BOTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX-A: b\r\n\r\n";
const LONGER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn plain_400(peer: &mut Peer) -> io::Result<Then> {
    peer.bytes(5)?;
    peer.say("HTTP/1.1 400 The plain HTTP request was sent to HTTPS port\r\nContent-Length: 0\r\n\r\n")?;
    Ok(Fin)
}

fn half_then_reset(peer: &mut Peer, head: &Head) -> io::Result<Then> {
    peer.bytes(head.length / 2)?;
    Ok(Reset)
}

/// Answers, and lets the client find room for what is left of its body only when it has had time to read the answer.
fn early_204(peer: &mut Peer, head: &Head) -> io::Result<Then> {
    peer.say("HTTP/1.1 204 No Content\r\n\r\n")?;
    std::thread::sleep(Duration::from_millis(100));
    peer.bytes(head.length - 64 * 1024)?;
    Ok(Hold)
}

fn early_500(peer: &mut Peer, head: &Head) -> io::Result<Then> {
    peer.say("HTTP/1.1 500 x\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")?;
    peer.bytes(head.length)?;
    Ok(GoOn)
}

fn trickle(peer: &mut Peer) -> io::Result<Then> {
    peer.say("HTTP/1.1 200 OK\r\nX-A: ")?;
    loop {
        peer.say_slowly("0123456789", 1)?;
    }
}

fn a_thousand_interim_answers(peer: &mut Peer) -> io::Result<Then> {
    peer.say("HTTP/1.1 102 Processing\r\n\r\n".repeat(1000))?;
    peer.say(EMPTY_200)?;
    Ok(GoOn)
}

fn head_of_70_kib(peer: &mut Peer) -> io::Result<Then> {
    peer.say(format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(70 * 1024)))?;
    Ok(Hold)
}

fn header_of_1_mib(peer: &mut Peer) -> io::Result<Then> {
    peer.say(format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(1 << 20)))?;
    Ok(Fin)
}

fn ten_thousand_headers(peer: &mut Peer) -> io::Result<Then> {
    peer.say(format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "A: b\r\n".repeat(10_000)))?;
    Ok(Fin)
}

fn body_without_end(peer: &mut Peer) -> io::Result<Then> {
    peer.say("HTTP/1.1 200 OK\r\n\r\n")?;
    peer.say_for_ever("all is well\n")
}
