//! Promise: a client that misbehaves gets a clear answer, costs little, and stores nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Server, changed, ends, event, post_request, program};

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn a_body_shorter_than_its_length_was_never_received() {
    let server = Server::in_memory();
    let whole = post_request("/RealTimeEvent", JSON, event().to_string().as_bytes());
    for cut in [whole.len() - 1, whole.len() / 2 + 50] {
        let mut socket = server.connect();
        socket.write_all(&whole[..cut]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        // Whether an answer still gets through is the network's affair; it must not be a good one.
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(server.counters(), [0, 0, 0, 2]);
    assert!(server.raw(&whole).is_ok());
    assert_eq!(server.counters(), [1, 0, 0, 2]);
}

#[test]
fn what_follows_a_body_is_not_part_of_it() {
    let server = Server::in_memory();
    let request = String::from_utf8(post_request("/RealTimeEvent", JSON, event().to_string().as_bytes())).unwrap();
    let open = request.replace("Connection: close\r\n", "");
    let answers = server.raw(format!("{open}{request}").as_bytes());
    assert_eq!(answers.head.matches("HTTP/1.1 200").count() + answers.text().matches("HTTP/1.1 200").count(), 2);
    assert_eq!(server.counters(), [1, 1, 0, 0]);
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let server = Server::in_memory();
    let too_large = (64 << 20) + 1;
    let head = format!("POST /RealTimeEvent HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: {too_large}\r\n\r\n");
    let mut socket = server.connect();
    socket.write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 413 Payload Too Large\r\n");

    // A client that sends it all before it looks gets the same answer, and not a reset.
    let answer = server.raw(&[head.as_bytes(), &vec![b' '; too_large]].concat());
    assert_eq!(
        (answer.status, answer.errors()),
        (413, vec!["Content-Length: came 67108865; allowed: at most 67108864 bytes".into()])
    );
    assert!(answer.head.contains("connection: close"));
    assert_eq!(server.counters(), [0, 0, 2, 0]);
}

#[test]
fn the_largest_body_is_taken() {
    let server = Server::in_memory();
    let mut body = event().to_string().into_bytes();
    body.resize(64 << 20, b' ');
    assert!(server.post(JSON, &body).is_ok());
}

#[test]
fn a_body_without_a_length_or_with_two_is_refused() {
    let server = Server::in_memory();
    let start = format!("POST /RealTimeEvent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}");
    let chunked = server.raw(format!("{start}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n").as_bytes());
    assert_eq!(chunked.status, 411);
    assert!(chunked.errors()[0].starts_with("Content-Length: missing"));
    assert_eq!(server.raw(format!("{start}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}").as_bytes()).status, 400);
    assert_eq!(server.counters()[0], 0);
}

#[test]
fn another_kind_of_body_is_refused_by_its_name() {
    let server = Server::in_memory();
    let body = event().to_string();
    for (headers, named) in [
        ("", "Content-Type: missing"),
        ("Content-Type: text/json\r\n", "Content-Type: came \"text/json\""),
        ("Content-Type: application/json; charset=gbk\r\n", "Content-Type: came the charset \"gbk\""),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", "Content-Encoding: came \"gzip\""),
    ] {
        let answer = server.post(headers, body.as_bytes());
        assert!(answer.status == 415 && answer.errors()[0].starts_with(named), "{named}: {answer:?}");
    }
}

#[test]
fn a_wrong_path_or_method_names_the_right_one() {
    let server = Server::of(program(&["--listen", "127.0.0.1:0", "--path", "/my/events", "--path", "/"]));
    let body = event().to_string();
    let to = |path: &str| server.raw(&post_request(path, JSON, body.as_bytes()));
    for path in ["/RealTimeEvent", "/my/events?token=x", "/"] {
        assert!(to(path).is_ok(), "{path}");
    }
    assert_eq!(server.counters(), [1, 2, 0, 0]);
    for path in ["/realtimeevent", "/RealTimeEvent/", "/my", "/api/events/a/other_pic"] {
        let answer = to(path);
        assert!(
            answer.status == 404 && answer.errors()[0].contains("POST to /RealTimeEvent, /my/events, /;"),
            "{answer:?}"
        );
    }
    for (method, path, allow) in [
        ("GET", "/RealTimeEvent", "POST"),
        ("PUT", "/my/events", "POST"),
        ("DELETE", "/", "GET, HEAD, POST"),
        ("POST", "/api/events", "GET, HEAD"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = server.raw(request.as_bytes());
        assert!(answer.status == 405 && answer.head.contains(&format!("\r\nallow: {allow}\r\n")), "{answer:?}");
    }
    for limit in ["-1", "1001", "all", ""] {
        assert_eq!(server.get(&format!("/api/events?limit={limit}")).status, 400);
    }
}

#[test]
fn a_hostile_name_is_served_only_as_json() {
    let server = Server::in_memory();
    let hostile = "<img src=x onerror=\"alert(1)\"></script><script>alert(1)</script>";
    assert!(server.post_json("a", &changed("identity_name", json!(hostile))).is_ok());
    let events = server.get("/api/events");
    assert!(
        events.head.contains("content-type: application/json\r\n")
            && events.head.contains("x-content-type-options: nosniff")
    );
    assert_eq!(server.events()["events"][0]["identity_name"], hostile);
    let page = server.get("/");
    assert!(page.status == 200 && !page.text().contains("onerror"));
    let policy = page.head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
    assert!(
        policy.contains("default-src 'none'; script-src 'self'; style-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    for asset in ["/receiver.css", "/receiver.js", "/icon.svg"] {
        assert!(page.text().contains(asset) && server.get(asset).status == 200);
    }
}

#[test]
fn a_new_event_goes_to_the_readers_of_the_stream() {
    let server = Server::in_memory();
    let mut stream = stream(&server);
    assert_eq!(next(&mut stream, "counters")["received"], 0);
    assert!(server.post_json("a", &changed("identity_name", json!("a\nb"))).is_ok());
    let stored = next(&mut stream, "stored");
    assert_eq!((&stored["id"], &stored["identity_name"]), (&json!("a"), &json!("a\nb")));
    assert_eq!(server.events()["events"][0], stored);
    assert_eq!(server.post_json("b", &json!({})).status, 400);
    while next(&mut stream, "counters")["rejected"] == 0 {}
}

#[test]
fn a_reader_of_the_stream_that_falls_behind_is_dropped() {
    let server = Server::in_memory();
    let mut stream = stream(&server);
    let padding = "x".repeat(200_000);
    for number in 0..200 {
        assert!(server.post_json(&number.to_string(), &changed("ext_data/padding", json!(padding))).is_ok());
    }
    // What was under way is still read; then the connection ends, where a reader that keeps up would wait for more. The bound is
    // less than the time between two comments, which would keep a failing test waiting for ever.
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 200 * padding.len(), "it was behind, so not all of it can have come");
}

#[test]
fn a_port_in_use_is_explained() {
    let server = Server::in_memory();
    let second = ends(program(&["--listen", &server.address.to_string()]));
    let fault = String::from_utf8(second.stderr).unwrap();
    assert_eq!((second.status.code(), second.stdout.is_empty()), (Some(1), true));
    assert!(fault.contains("another program uses this port") && fault.contains("--listen 127.0.0.1:"), "{fault}");
}

#[test]
fn the_command_line_says_what_it_can_and_what_it_cannot() {
    let help = ends(program(&["--help"]));
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--store DIR"));
    let version = ends(program(&["--version"]));
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        concat!("event-receive-server ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let wrong = ends(program(&["--listen", "9528"]));
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        String::from_utf8(wrong.stderr).unwrap().contains("--listen \"9528\": an IP address and a port are needed")
    );
}

#[test]
fn the_health_is_good_when_nothing_is_wrong() {
    let answer = Server::in_memory().get("/healthz");
    assert_eq!((answer.status, answer.text()), (200, r#"{"status":"ok"}"#));
}

#[test]
fn sigterm_is_a_clean_end() {
    let mut server = Server::in_memory();
    let _idle = server.connect();
    let pid = nix::unistd::Pid::from_raw(server.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// A reader of /api/stream, past the head of the answer.
fn stream(server: &Server) -> BufReader<std::net::TcpStream> {
    let mut socket = server.connect();
    socket.write_all(b"GET /api/stream HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut reader = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    reader
}

/// The data of the next message of this kind.
fn next(stream: &mut impl BufRead, kind: &str) -> Value {
    let mut is_kind = false;
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the stream ended");
        match line.trim_end().split_once(": ") {
            Some(("event", event)) => is_kind = event == kind,
            Some(("data", data)) if is_kind => return serde_json::from_str(data).unwrap(),
            _ => {}
        }
    }
}
