//! Requests that are wrong around the body: names, sites, types, methods, paths, HTTP itself.

use super::cases::{Cases, FORM, JSON, MULTIPART, URL, good};

pub fn sources(cases: &mut Cases) {
    let text = good().to_string();
    let json_type = ("Content-Type", JSON);
    for host in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.2",
        "10.0.0.1",
        "0.0.0.0",
        "[::2]",
        "2130706433",
        "0x7f.1",
        "127.1",
        "box",
        "sophon.local",
    ] {
        cases.with("POST", URL, format!("Host {host}"), &[("Host", host), json_type], &text, &[403]);
        cases.with("GET", URL, format!("GET, Host {host}"), &[("Host", host)], "", &[403]);
    }
    for host in ["", "a b", "user@localhost", "localhost/", "http://localhost", "local\u{e9}host"] {
        cases.with("POST", URL, format!("Host {host:?}"), &[("Host", host), json_type], &text, &[400]);
    }
    cases.with("POST", URL, "no Host", &[json_type], &text, &[400]);
    cases.with("POST", URL, "two Hosts", &[("Host", "HOST"), ("Host", "HOST"), json_type], &text, &[400]);
    cases.with("POST", "http://evil.example/", "a foreign request line", &[("Host", "HOST"), json_type], &text, &[400]);
    for origin in [
        "null",
        "http://evil.example",
        "https://evil.example",
        "http://localhost",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "file://",
        "chrome-extension://x",
        "x",
        "http://HOST.evil.example",
    ] {
        cases.with(
            "POST",
            URL,
            format!("Origin {origin}"),
            &[("Host", "HOST"), ("Origin", origin), json_type],
            &text,
            &[403],
        );
        cases.with("GET", URL, format!("GET, Origin {origin}"), &[("Host", "HOST"), ("Origin", origin)], "", &[403]);
    }
    for site in ["cross-site", "same-site", "x"] {
        cases.with(
            "POST",
            URL,
            format!("Sec-Fetch-Site {site}"),
            &[("Host", "HOST"), ("Sec-Fetch-Site", site), json_type],
            &text,
            &[403],
        );
    }
    for kind in ["text/plain", "text/json", "application/xml", "json", "*/*", "image/jpeg", "application/jsonp", "x"] {
        cases.post(format!("Content-Type {kind}"), kind, &text, &[415]);
    }
    cases.with("POST", URL, "a form without Content-Type", &[("Host", "HOST")], "event_server_url=[]", &[415]);
    cases.with("POST", URL, "a JSON list without Content-Type", &[("Host", "HOST")], "[]", &[415]);
    cases.with("POST", URL, "no body and no Content-Type", &[("Host", "HOST")], "", &[415]);
    cases.with("POST", URL, "two Content-Types", &[("Host", "HOST"), json_type, ("Content-Type", FORM)], &text, &[415]);
    cases.with("POST", URL, "compressed", &[("Host", "HOST"), json_type, ("Content-Encoding", "gzip")], &text, &[415]);
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "post", "X"] {
        cases.with(method, URL, format!("method {method}"), &[("Host", "HOST"), json_type], &text, &[405]);
    }
    for path in [
        "/x",
        "//",
        "/SophonFogSys/api/EventServerUrl/",
        "/SophonFogSys/api/eventserverurl",
        "/SophonFogSys/api",
        "/%2e%2e/etc/passwd",
        "/../../etc/passwd",
        "/api",
        "/.git/config",
        "/api/settings/x",
    ] {
        cases.with("POST", path, format!("path {path}"), &[("Host", "HOST"), json_type], &text, &[404]);
    }
}

pub fn protocol(cases: &mut Cases, random: &mut fastrand::Rng) {
    let text = good().to_string();
    let length = text.len();
    let post = |lines: &str| {
        format!("POST {URL} HTTP/1.1\r\nHost: HOST\r\nContent-Type: {JSON}\r\n{lines}\r\n{text}").into_bytes()
    };
    for (name, lines) in [
        ("a negative length", "Content-Length: -1\r\n".to_string()),
        ("a length that is no number", "Content-Length: many\r\n".into()),
        ("a length beyond 64 bits", "Content-Length: 99999999999999999999999\r\n".into()),
        ("two lengths", format!("Content-Length: {length}\r\nContent-Length: 5\r\n")),
        ("an unknown coding", "Transfer-Encoding: gzip\r\n".into()),
        ("a header without a colon", format!("Content-Length: {length}\r\nnonsense\r\n")),
        ("a header with a space in its name", format!("Content-Length: {length}\r\nX Y: z\r\n")),
        ("a NUL in a header", format!("Content-Length: {length}\r\nX: \u{0}\r\n")),
        ("a head of 32 KB", format!("Content-Length: {length}\r\nX: {}\r\n", "x".repeat(32_000))),
        ("500 headers", format!("Content-Length: {length}\r\n{}", "X: y\r\n".repeat(500))),
    ] {
        cases.http(name, post(&lines));
    }
    for line in [
        "GET",
        "GET /",
        "GET / HTTP/3.0",
        "GET  / HTTP/1.1",
        "\u{16}\u{3}\u{1}",
        "PRI * HTTP/2.0",
        "GET / HTTP/1.1\u{0}",
        "SSH-2.0-x",
        "{\"a\":1}",
        "* * *",
    ] {
        cases.http(format!("request line {line:?}"), format!("{line}\r\nHost: HOST\r\nConnection: close\r\n\r\n"));
    }
    for number in 0..60 {
        let bytes: Vec<u8> = (0..random.usize(1..400)).map(|_| random.u8(..)).collect();
        cases.http(format!("random bytes {number}"), [&bytes[..], b"\r\n\r\n"].concat());
        cases.post(format!("random body {number} as JSON"), JSON, &bytes, &[400]);
        cases.post(format!("random body {number} as multipart"), MULTIPART, &bytes, &[400]);
    }
}
