//! The promise: no client, and no other program on the port, stops an upload; each is told what is wrong.

use super::*;

#[test]
fn a_port_in_use_is_named_retried_and_stops_no_upload() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "api": { "listen": address.to_string() } }));
    daemon.wait_log(&format!("cannot listen on {address}: another program uses this port"));
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    sink.wait(1);
    drop(taken);
    assert_eq!(daemon.api(), address);
    assert_eq!(get(address, URL).status, 200);
    let stopped = daemon.terminate();
    assert_eq!(stopped.log.matches("cannot listen").count(), 1, "said once: {}", stopped.log);
}

#[test]
fn slow_heads_and_half_bodies_are_told_so_and_uploads_go_on() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let api = daemon.api();
    let before = Instant::now();
    let slow = TcpStream::connect(api).unwrap();
    (&slow).write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let half = TcpStream::connect(api).unwrap();
    let head = format!(
        "POST {URL} HTTP/1.1\r\nHost: {api}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    (&half).write_all(head.as_bytes()).unwrap();
    let idle = TcpStream::connect(api).unwrap();
    publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    sink.wait(1);
    // Both clients still have their time: nothing was said to them.
    for socket in [&slow, &half] {
        socket.set_nonblocking(true).unwrap();
        let said = socket.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(said, Err(std::io::ErrorKind::WouldBlock), "an upload waited for a slow client");
        socket.set_nonblocking(false).unwrap();
    }
    let said = |mut socket: TcpStream| {
        socket.set_read_timeout(Some(crate::common::BOUND)).unwrap();
        socket.peek(&mut [0]).unwrap();
        let (after, mut text) = (before.elapsed(), String::new());
        socket.read_to_string(&mut text).unwrap();
        (after, text)
    };
    let (after, text) = said(slow);
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("DEADLINE_EXCEEDED"), "{text}");
    assert!(after >= Duration::from_secs(5), "a head has 5 s, this one had {after:?}");
    let (after, text) = said(half);
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("only 1 bytes"), "{text}");
    assert!(after >= Duration::from_secs(10), "a body has 10 s, this one had {after:?}");
    assert_eq!(said(idle).1, "", "an idle connection is closed without a word: its client may be asking just now");
    assert_eq!(get(api, URL).status, 200);
    daemon.terminate();
}

#[test]
fn a_thousand_connections_are_bounded_told_so_and_gone() {
    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({}));
    let api = daemon.api();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = descriptors();
    let crowd: Vec<_> = (0..1000).map(|_| TcpStream::connect(api).unwrap()).collect();
    let naps = crate::common::Naps::start();
    let sent = publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
    assert_eq!(sink.wait(1)[0].sequence(), sent);
    assert!(naps.passed() < Duration::from_secs(3), "an upload waited for the crowd");
    assert!(descriptors() < before + 200, "{} descriptors", descriptors());
    let mut told = 0;
    for mut socket in crowd {
        socket.set_read_timeout(Some(crate::common::BOUND)).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        if text.starts_with("HTTP/1.1 503") {
            assert!(text.contains("too many connections"), "{text}");
            told += 1;
        }
    }
    // Those that were served had five seconds for a request; should the crowd have taken longer to come, others took their
    // places.
    assert!((1000 - 4 * 32..=1000 - 32).contains(&told), "{told}");
    crate::common::wait_until("the crowd's end", || descriptors() <= before + 1);
    assert_eq!(get(api, URL).status, 200);
    daemon.terminate();
}

#[test]
fn what_no_route_takes_is_said() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({}));
    let api = daemon.api();
    refused(&get(api, "/nothing"), 404, "NOT_FOUND", "/nothing");
    refused(&get(api, "/SophonFogSys/api/eventserverurl"), 404, "NOT_FOUND", "page");
    for method in ["PUT", "DELETE", "TRACE", "PATCH"] {
        let reply = call(api, method, URL, "", b"");
        refused(&reply, 405, "METHOD_NOT_ALLOWED", "POST");
        assert!(reply.head.contains("allow: get, head, post"), "{}", reply.head);
    }
    let head = call(api, "HEAD", URL, "", b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("cache-control: no-store") && head.head.contains("nosniff"));
    let reply = raw(api, b"nonsense\r\n\r\n").unwrap();
    assert_eq!(reply.status, 400);
    for (head, status) in [(15 << 10, 200), (17 << 10, 431)] {
        let request = format!("GET / HTTP/1.1\r\nHost: {api}\r\nX: {}\r\n\r\n", "x".repeat(head));
        assert_eq!(raw(api, request.as_bytes()).unwrap().status, status, "{head} bytes");
    }
    daemon.terminate();
}

#[test]
fn health_and_metrics_answer_any_host_and_http_1_0_without_one() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({"api": {"listen": "127.0.0.1:0", "hosts": ["Fleet.example"]}}));
    let api = daemon.api();
    for path in ["/healthz", "/metrics"] {
        for request in [
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: box17.lan:5555\r\nConnection: close\r\n\r\n"),
            format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        ] {
            assert_eq!(raw(api, request.as_bytes()).unwrap().status, 200, "{request}");
        }
    }
    // HAProxy's plain check; a page of another site gets no leave by it.
    for (path, allowed) in [("/", "get, head"), (URL, "get, head, post"), ("/api/test-event", "post")] {
        let reply = raw(api, format!("OPTIONS {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let says = format!("\r\nallow: {allowed}\r\n");
        assert!(reply.status == 204 && reply.head.contains(&says), "{path}: {}", reply.head);
        assert!(!reply.head.contains("access-control"), "{}", reply.head);
    }
    let asked = |path: &str, host: &str| {
        raw(api, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap()
    };
    for path in ["/", URL, "/api/settings", "/api/status", "/api/dead-letters"] {
        assert_eq!(asked(path, "fleet.example").status, 200, "{path}");
        refused(&asked(path, "box17.lan"), 403, "PERMISSION_DENIED", "api.hosts");
        assert_eq!(raw(api, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap().status, 400, "{path}");
    }
    // Through a proxy that sends a Host of its own, from the page as the proxy shows it.
    let post = |origin: &str| {
        let headers = format!("Content-Type: application/json\r\nOrigin: {origin}\r\nSec-Fetch-Site: same-origin\r\n");
        call(api, "POST", "/api/settings", &headers, b"{\"threshold\":0.5}")
    };
    assert_eq!(post("https://fleet.example").status, 200);
    refused(&post("https://evil.example"), 403, "PERMISSION_DENIED", "Origin");
    // Below a path of the proxy's, every file of the page and every call is found.
    let source = |name: &str| {
        let text = fs::read_to_string(format!("{}/src/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let is_comment = |line: &str| line.starts_with("//") || (line.starts_with("/*") && line.ends_with("*/"));
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_comment(line));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    for (file, is) in [
        ("/", source("api/page/index.html")),
        ("/uplink.js", source("api/page/uplink.js")),
        ("/uplink.css", source("serve/house.css") + &source("api/page/uplink.css")),
        ("/texts.js", source("api/page/texts.js")),
    ] {
        let text = get(api, file).body;
        assert_eq!(text, is, "{file}: it comes compressed, and is the file without indentation and comments");
        for absolute in ["=\"/", "(\"/", "='/", "('/", "url(/"] {
            assert!(!text.contains(absolute), "{file}: {absolute}");
        }
    }
    daemon.terminate();
}
