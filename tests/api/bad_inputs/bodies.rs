//! Bodies that are wrong: URLs, values, keys, JSON and forms.

use serde_json::json;

use super::cases::{Case, Cases, FORM, JSON, MULTIPART, URL, coded, good, part, with};

/// Every URL that no event may go to, and everything that is none.
#[rustfmt::skip]
pub const BAD_URLS: [&str; 84] = [
    "", " ", "x", "/", "//", "a/b", "192.168.1.19", "192.168.1.19:9528", "www.example.com", "http", "http:", "http:/",
    "http://", "http:///", "http:///x", "://a/", "http//a/", "http:a", "ftp://a/", "file:///etc/passwd",
    "gopher://a/", "javascript:alert(1)", "data:text/html,x", "ws://a/", "unix:/run/x.sock", "https:", "HTTPX://a/",
    "http://a b/", "http://a/ http://b/", "http://a/,http://b/", "http://a/\nhttps://b/", "http://a/\r\nHost: evil", "http://a/\u{0}",
    "http://a\u{7}/", "http://a/#fragment", "http://a:0/", "http://a:65536/", "http://a:/", "http://a:x/",
    "http://a:-1/", "http://a:80:80/", "http://user@a/", "http://user:canary-4b1d@a/", "http://:@a/", "http://a@b@c/",
    "http://a..b/", "http://.a/", "http://e\u{301}.example/", "http://ｅ.example/", "http://😀.example/",
    "http://a_b!c/", "http://*/", "http://a,b/", "http://[/", "http://[]/", "http://[::1/", "http://[::g]/",
    "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[::]/", "http://[ff02::1]/", "http://0.0.0.0/",
    "http://255.255.255.255/", "http://224.0.0.1/", "http://169.254.169.254/", "http://169.254.0.1/",
    "http://[::ffff:169.254.169.254]/", "http://[::169.254.169.254]/", "http://[64:ff9b::169.254.169.254]/",
    "http://[2002:a9fe:a9fe::1]/", "http://[fd00:ec2::254]/", "http://100.100.100.200/", "http://168.63.129.16/",
    "http://192.0.0.192/", "http://metadata.google.internal/", "http://METADATA./", "http://instance-data/",
    "http://0xa9fea9fe/", "http://2852039166/", "http://0251.0376.0251.0376/", "http://169.254.43518/",
    "http://0xa9.0xfe.0xa9.0xfe/", "http://169.16689662/", "http://1/",
];

pub fn urls(cases: &mut Cases) {
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

pub fn values(cases: &mut Cases) {
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
        if !value.is_boolean() && value != 0 {
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
    cases.post("a JSON list called a form", FORM, "[1]", &[400]);
    for key in ["event_server_url[a]", "event_server_url[", "event_server_url[0][0]", "content-type[]"] {
        cases.post(format!("form, {key}"), FORM, format!("event_server_url=[]&content-type=json&{key}=json"), &[400]);
    }
    cases.post(
        "form, an index twice",
        FORM,
        "event_server_url[0]=http://a/&event_server_url[0]=http://b/&content-type=json",
        &[400],
    );
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

pub fn shapes(cases: &mut Cases) {
    let text = good().to_string();
    for end in 0..text.len() {
        cases.post(format!("JSON cut off at {end}"), JSON, &text[..end], &[400]);
    }
    for (name, body) in [
        ("two objects", format!("{text}{text}")),
        ("two byte order marks", format!("\u{feff}\u{feff}{text}")),
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
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    cases.post("UTF-16", JSON, utf16(&text), &[400]);
    cases.post("UTF-16 with a mark", "application/json; charset=utf-16", utf16(&format!("\u{feff}{text}")), &[400]);
    cases.post("UTF-16 as a form", FORM, utf16("event_server_url=[]&content-type=json"), &[400]);
    let gbk = [b"{\"event_server_url\":[\"http://a/\xd5\xc5\"],\"content-type\":\"json\"}".as_slice()].concat();
    cases.post("GBK, and said so", "application/json; charset=gbk", gbk, &[400]);
    let latin1 = "event_server_url=http://a/%E9&content-type=json";
    cases.post("ISO-8859-1, and said so", "application/x-www-form-urlencoded; charset=ISO-8859-1", latin1, &[400]);
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

pub fn multiparts(cases: &mut Cases) {
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
        ("in base64", MULTIPART, whole.replacen("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1)),
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
