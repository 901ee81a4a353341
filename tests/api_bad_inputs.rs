//! The promise: whatever is sent to the API, it gets a clear error, nothing is changed, and uploads go on.
//!
//! Every case is sent as it stands over a connection of its own; after each of them the config in force and the file are the same, to
//! the byte. Some cases are generated: every prefix of good calls, random bytes (`SEED` repeats them).

mod common;

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use common::daemon::Home;
use common::http::{get, raw};
use common::{Daemon, Sink, event, publish};
use serde_json::{Value, json};
use sophon_uplink::ring::producer::Producer;

const URL: &str = "/SophonFogSys/api/EventServerUrl";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=xx";
/// In the config as a header's value, and never to be seen.
const CANARY: &str = "canary-4b1d";

/// What is sent, and what may come back.
struct Case {
    name: String,
    request: Vec<u8>,
    allowed: &'static [u16],
    /// The HTTP library answers, or closes, before the API sees anything.
    is_http: bool,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn post(&mut self, name: impl Into<String>, content_type: &str, body: impl AsRef<[u8]>, allowed: &'static [u16]) {
        self.with("POST", URL, name, &[("Host", "HOST"), ("Content-Type", content_type)], body, allowed);
    }

    fn with(
        &mut self,
        method: &str,
        path: &str,
        name: impl Into<String>,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
        allowed: &'static [u16],
    ) {
        let body = body.as_ref();
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n", body.len());
        self.0.push(Case { name: name.into(), request: [head.as_bytes(), body].concat(), allowed, is_http: false });
    }

    /// Bytes that are no request that the API ever sees.
    fn http(&mut self, name: impl Into<String>, request: impl Into<Vec<u8>>) {
        self.0.push(Case {
            name: name.into(),
            request: request.into(),
            allowed: &[400, 408, 413, 414, 431, 501, 505],
            is_http: true,
        });
    }
}

fn good() -> Value {
    json!({"event_server_url": ["http://192.0.2.7/other"], "real_need_reg_pic": false, "content-type": "form-data"})
}

fn with(key: &str, value: Value) -> String {
    let mut call = good();
    call[key] = value;
    call.to_string()
}

fn part(name: &str, value: &str) -> String {
    format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn coded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Every URL that no event may go to, and everything that is none.
#[rustfmt::skip]
const BAD_URLS: [&str; 84] = [
    "", " ", "x", "/", "//", "a/b", "192.168.1.19", "192.168.1.19:9528", "www.example.com", "http", "http:", "http:/",
    "http://", "http:///", "http:///x", "://a/", "http//a/", "http:a", "ftp://a/", "file:///etc/passwd",
    "gopher://a/", "javascript:alert(1)", "data:text/html,x", "ws://a/", "unix:/run/x.sock", "https:", "HTTPX://a/",
    "http://a b/", "http://a/ b", " http://a/", "http://a/\n", "http://a/\r\nHost: evil", "http://a/\u{0}",
    "http://a\u{7}/", "http://a/#fragment", "http://a:0/", "http://a:65536/", "http://a:/", "http://a:x/",
    "http://a:-1/", "http://a:80:80/", "http://user@a/", "http://user:canary-4b1d@a/", "http://:@a/", "http://a@b@c/",
    "http://a..b/", "http://.a/", "http://a\u{ff0e}b/", "http://bücher.example/", "http://例え.example/",
    "http://a_b!c/", "http://*/", "http://a,b/", "http://[/", "http://[]/", "http://[::1/", "http://[::g]/",
    "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[::]/", "http://[ff02::1]/", "http://0.0.0.0/",
    "http://255.255.255.255/", "http://224.0.0.1/", "http://169.254.169.254/", "http://169.254.0.1/",
    "http://[::ffff:169.254.169.254]/", "http://[::169.254.169.254]/", "http://[64:ff9b::169.254.169.254]/",
    "http://[2002:a9fe:a9fe::1]/", "http://[fd00:ec2::254]/", "http://100.100.100.200/", "http://168.63.129.16/",
    "http://192.0.0.192/", "http://metadata.google.internal/", "http://METADATA./", "http://instance-data/",
    "http://0xa9fea9fe/", "http://2852039166/", "http://0251.0376.0251.0376/", "http://169.254.43518/",
    "http://0xa9.0xfe.0xa9.0xfe/", "http://169.16689662/", "http://1/",
];

fn urls(cases: &mut Cases) {
    for url in BAD_URLS {
        cases.post(format!("JSON, URL {url:?}"), JSON, with("event_server_url", json!([url])), &[400]);
        cases.post(
            format!("second of two, URL {url:?}"),
            JSON,
            with("event_server_url", json!(["http://ok/", url])),
            &[400],
        );
        cases.post(
            format!("form, URL {url:?}"),
            FORM,
            format!("event_server_url={}&content-type=json", coded(url)),
            &[400],
        );
        if !url.contains(['\r', '\n']) {
            let body = part("event_server_url", url) + &part("content-type", "json") + "--xx--\r\n";
            cases.post(format!("multipart, URL {url:?}"), MULTIPART, body, &[400]);
        }
    }
    let long = format!("http://a/{}", "x".repeat(60_000));
    let many: Vec<_> = (0..17).map(|number| format!("http://a/{number}")).collect();
    cases.post("17 URLs", JSON, with("event_server_url", json!(many)), &[400]);
    cases.post("a URL twice", JSON, with("event_server_url", json!(["http://a/", "http://a/"])), &[400]);
    cases.post(
        "a host of 300 letters",
        JSON,
        with("event_server_url", json!([format!("http://{}/", "a".repeat(300))])),
        &[400],
    );
    cases.post(
        "a URL too long for HTTP",
        JSON,
        with("event_server_url", json!([format!("{long}{}", "y".repeat(6000))])),
        &[400, 413],
    );
}

fn values(cases: &mut Cases) {
    let any = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("json"),
        json!("x"),
        json!([]),
        json!({}),
        json!([[]]),
    ];
    for value in any {
        let is_list = value.as_array().is_some_and(Vec::is_empty);
        if !is_list {
            cases.post(format!("event_server_url {value}"), JSON, with("event_server_url", value.clone()), &[400]);
        }
        if !is_list || !value.is_array() {
            cases.post(format!("a URL that is {value}"), JSON, with("event_server_url", json!([value])), &[400]);
        }
        if !value.is_boolean() {
            cases.post(format!("real_need_reg_pic {value}"), JSON, with("real_need_reg_pic", value.clone()), &[400]);
            cases.post(
                format!("form, real_need_reg_pic {value}x"),
                FORM,
                format!("event_server_url=[]&content-type=json&real_need_reg_pic={value}x"),
                &[400],
            );
        }
        if value != "json" {
            cases.post(format!("content-type {value}"), JSON, with("content-type", value.clone()), &[400]);
            cases.post(
                format!("form, content-type {value}x"),
                FORM,
                format!("event_server_url=[]&content-type={value}x"),
                &[400],
            );
        }
        cases.post(format!("the whole is {value}"), JSON, value.to_string(), &[400]);
    }
    for key in ["event_server_url", "content-type"] {
        let mut call = good();
        call.as_object_mut().unwrap().remove(key);
        cases.post(format!("without {key}"), JSON, call.to_string(), &[400]);
    }
    for key in [
        "",
        "Event_server_url",
        "event_server_url ",
        "content_type",
        "threshold",
        "headers",
        "api",
        "tls",
        "__proto__",
        "a\u{0}b",
    ] {
        cases.post(format!("with the key {key:?}"), JSON, with(key, json!(1)), &[400]);
        cases.post(
            format!("form with the key {key:?}"),
            FORM,
            format!("event_server_url=[]&content-type=json&{}=1", coded(key)),
            &[400],
        );
    }
    for twice in ["event_server_url", "real_need_reg_pic", "content-type"] {
        let text = good().to_string();
        cases.post(format!("{twice} twice"), JSON, format!("{{\"{twice}\":[],{}", &text[1..]), &[400]);
    }
    cases.post("form, content-type twice", FORM, "event_server_url=[]&content-type=json&content-type=json", &[400]);
    cases.post("form, the list is no JSON", FORM, "event_server_url=[x&content-type=json", &[400]);
    cases.post(
        "form, the list and a field",
        FORM,
        "event_server_url=[]&event_server_url=http://a/&content-type=json",
        &[400],
    );
    cases.post("form, the list is not of texts", FORM, "event_server_url=[1]&content-type=json", &[400]);
    cases.post("form, not UTF-8", FORM, "event_server_url=%ff&content-type=json", &[400]);
    cases.post("form, raw bytes", FORM, b"event_server_url=\xff\xfe&content-type=json", &[400]);
    cases.post("form, 100 fields", FORM, "event_server_url=http://a/&".repeat(100) + "content-type=json", &[400]);
    cases.post("JSON called a form", FORM, good().to_string(), &[400]);
    cases.post("a form called JSON", JSON, "event_server_url=[]&content-type=json", &[400]);
    for (path, body) in [
        ("/api/settings", json!({"headers": {"X": "y"}})),
        ("/api/settings", json!({"threshold": "NaN"})),
        ("/api/settings", json!({})),
    ] {
        cases.with(
            "POST",
            path,
            format!("{path} {body}"),
            &[("Host", "HOST"), ("Content-Type", JSON)],
            body.to_string(),
            &[400],
        );
    }
}

fn shapes(cases: &mut Cases) {
    let text = good().to_string();
    for end in 0..text.len() {
        cases.post(format!("JSON cut off at {end}"), JSON, &text[..end], &[400]);
    }
    for (name, body) in [
        ("two objects", format!("{text}{text}")),
        ("a byte order mark", format!("\u{feff}{text}")),
        ("NaN", with("event_server_url", json!([])).replace("false", "NaN")),
        ("single quotes", text.replace('"', "'")),
        ("a comment", format!("/**/{text}")),
        ("a trailing comma", text.replace('}', ",}")),
        ("a lone surrogate", text.replace("http://192", "\\ud800")),
        ("a raw control character", text.replace("http", "ht\ttp")),
        (
            "depth 200",
            with("event_server_url", json!("DEEP")).replace("\"DEEP\"", &("[".repeat(200) + &"]".repeat(200))),
        ),
        ("depth 30,000", "[".repeat(30_000) + &"]".repeat(30_000)),
        ("depth 10,000 of objects", "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000)),
        ("a number of 50,000 digits", with("real_need_reg_pic", json!("N")).replace("\"N\"", &"9".repeat(50_000))),
        ("1,000 keys", format!("{{{}}}", (0..1000).map(|key| format!("\"{key}\":0")).collect::<Vec<_>>().join(","))),
    ] {
        cases.post(name, JSON, body, &[400]);
    }
    cases.post("not UTF-8", JSON, [b"{\"a\":\"", &[0xff, 0xfe][..], b"\"}"].concat(), &[400]);
    cases.post("64 KiB and one byte", JSON, format!("{text}{}", " ".repeat((64 << 10) + 1 - text.len())), &[413]);
    cases.post("10 MB", JSON, vec![b' '; 10_000_000], &[413]);
    let announced = format!(
        "POST {URL} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Type: {JSON}\r\nContent-Length: 99999999999\r\n\r\n{{"
    );
    cases.0.push(Case { name: "100 GB announced".into(), request: announced.into(), allowed: &[413], is_http: false });
    let chunked = format!(
        "POST {URL} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let endless = [
        chunked.as_bytes(),
        &b"1000\r\n".iter().chain(&[b' '; 0x1000]).chain(b"\r\n").copied().collect::<Vec<_>>().repeat(40),
    ]
    .concat();
    cases.0.push(Case { name: "chunks without end".into(), request: endless, allowed: &[413], is_http: false });
    let broken = format!("{chunked}5\r\n{{\"a\":\r\nzz\r\n");
    cases.0.push(Case { name: "broken chunks".into(), request: broken.into(), allowed: &[400], is_http: false });
}

fn multiparts(cases: &mut Cases) {
    let whole = part("event_server_url", "http://192.0.2.7/other") + &part("content-type", "json") + "--xx--";
    for end in 0..whole.len() - 1 {
        if end % 3 == 0 || end + 8 > whole.len() {
            cases.post(format!("multipart cut off at {end}"), MULTIPART, &whole[..end], &[400]);
        }
    }
    for (name, kind, body) in [
        ("without a boundary", "multipart/form-data", whole.clone()),
        ("with an empty boundary", "multipart/form-data; boundary=", whole.clone()),
        ("with another boundary", "multipart/form-data; boundary=yy", whole.clone()),
        ("of another kind", "multipart/mixed; boundary=xx", whole.clone()),
        ("with a part without a name", MULTIPART, whole.replace("; name=\"content-type\"", "")),
        ("with a part without a disposition", MULTIPART, whole.replace("Content-Disposition", "X-Disposition")),
        ("with an unknown part", MULTIPART, part("x", "y") + &whole),
        ("with 100 parts", MULTIPART, part("event_server_url", "http://a/").repeat(100) + &whole),
        ("with a header without end", MULTIPART, format!("--xx\r\nContent-Disposition: {}", "x".repeat(50_000))),
        ("that is JSON", MULTIPART, good().to_string()),
        ("that is empty", MULTIPART, String::new()),
        ("that has no parts", MULTIPART, "--xx--\r\n".into()),
    ] {
        cases.post(format!("multipart {name}"), kind, body, &[400, 415]);
    }
    cases.post(
        "multipart, not UTF-8",
        MULTIPART,
        [
            part("content-type", "\u{1}").replace('\u{1}', "").as_bytes(),
            b"--xx\r\nContent-Disposition: form-data; name=\"event_server_url\"\r\n\r\n\xff\xfe\r\n--xx--",
        ]
        .concat(),
        &[400],
    );
}

fn sources(cases: &mut Cases) {
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
    for kind in [
        "text/plain",
        "text/json",
        "application/xml",
        "application/json; charset=gbk",
        "application/json; charset=utf-16",
        "json",
        "*/*",
        "image/jpeg",
        "application/jsonp",
        "x",
    ] {
        cases.post(format!("Content-Type {kind}"), kind, &text, &[415]);
    }
    cases.with("POST", URL, "no Content-Type", &[("Host", "HOST")], &text, &[415]);
    cases.with("POST", URL, "two Content-Types", &[("Host", "HOST"), json_type, ("Content-Type", FORM)], &text, &[415]);
    cases.with("POST", URL, "compressed", &[("Host", "HOST"), json_type, ("Content-Encoding", "gzip")], &text, &[415]);
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "post", "X"] {
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

fn protocol(cases: &mut Cases, random: &mut fastrand::Rng) {
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

/// What is wrong with the answer to a case.
fn fault(api: SocketAddr, case: &Case) -> Option<String> {
    let request = replaced(&case.request, b"HOST", api.to_string().as_bytes());
    let Some(reply) = raw(api, &request) else {
        return (!case.is_http).then(|| "no answer".into()); // HTTP that is none may be closed without a word
    };
    let error: Value = serde_json::from_str::<Value>(&reply.body).unwrap_or_default()["error"].clone();
    let is_clear = error["code"] == reply.status
        && error["status"].is_string()
        && error["message"].as_str().is_some_and(|text| (10..1000).contains(&text.len()));
    let wrong = if !case.allowed.contains(&reply.status) {
        "another status"
    } else if reply.body.contains(CANARY) {
        "a secret"
    } else if !is_clear && !case.is_http {
        "no clear error"
    } else {
        return None;
    };
    Some(format!("{wrong}: {} {}", reply.status, reply.body))
}

fn replaced(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    match bytes.windows(what.len()).position(|window| window == what) {
        Some(at) => [&bytes[..at], by, &replaced(&bytes[at + what.len()..], what, by)].concat(),
        None => bytes.to_vec(),
    }
}

#[test]
fn every_bad_input_gets_its_error_and_changes_nothing() {
    let mut cases = Cases::default();
    urls(&mut cases);
    values(&mut cases);
    shapes(&mut cases);
    multiparts(&mut cases);
    sources(&mut cases);
    protocol(&mut cases, &mut fastrand::Rng::with_seed(common::seed()));
    assert!(cases.0.len() >= 500);

    let home = Home::new();
    let sink = Sink::start();
    let mut recognizer = Producer::open(&home.ring(), 1 << 20).unwrap();
    let daemon = Daemon::start(&home, &[sink.url()], json!({ "headers": { "X-Key": CANARY } }));
    let api = daemon.api();
    common::wait_until("the first last good one", || home.folder.path().join("uplink.json.bak").exists());
    let (in_force, file) = (get(api, URL).json(), fs::read(home.config()).unwrap());
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(home.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let files = names();
    let (began, mut published, mut faults) = (Instant::now(), 0, Vec::new());
    for (number, case) in cases.0.iter().enumerate() {
        faults.extend(fault(api, case).map(|fault| format!("{}: {fault}", case.name)));
        assert_eq!(fs::read(home.config()).unwrap(), file, "{}: the file has changed", case.name);
        assert_eq!(get(api, URL).json(), in_force, "{}: another config is in force", case.name);
        if number % 10 == 0 {
            publish(&mut recognizer, &event(b"\xFF\xD8\xFF", b""));
            published += 1;
            sink.wait(published);
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(names(), files);
    let stopped = daemon.terminate();
    assert_eq!((stopped.acknowledged, stopped.failed_tries), (published as u64, 0), "{}", stopped.log);
    assert!(!stopped.log.contains(CANARY));
    println!("{} bad inputs in {:?}, {published} events delivered meanwhile", cases.0.len(), began.elapsed());
}
