//! What real HTTP clients make of the documented call, byte by byte: `clients.txt` says how each of them writes it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::URL;
use crate::common::Daemon;
use crate::common::daemon::Home;
use crate::common::http::{Reply, get, raw};

/// A line of the table.
struct Client<'a> {
    name: &'a str,
    special: &'a str,
    content_type: &'a str,
    body: &'a str,
    /// How it writes false in a form.
    no: &'a str,
    part_headers: &'a str,
}

fn clients() -> impl Iterator<Item = Client<'static>> {
    let lines = include_str!("../clients.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let mut next = || columns.next().unwrap_or_else(|| panic!("a column is missing: {line}"));
        Client {
            name: next(),
            special: next(),
            content_type: next(),
            body: next(),
            no: next(),
            part_headers: columns.next().unwrap_or_default().trim(),
        }
    })
}

impl Client<'_> {
    /// The fields of a form, in order, a list written as this client does.
    fn fields(&self, urls: &[String; 2]) -> Vec<(String, String)> {
        let list = "event_server_url";
        let [a, b] = urls.clone();
        let mut fields = match self.body.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()) {
            "" => vec![(list.into(), a), (list.into(), b)],
            "[]" => vec![(format!("{list}[]"), a), (format!("{list}[]"), b)],
            "[0]" => vec![(format!("{list}[0]"), a), (format!("{list}[1]"), b)],
            "-list" => vec![(list.into(), json!(urls).to_string())],
            "-comma" => vec![(list.into(), urls.join(","))],
            other => panic!("{}: {other}", self.name),
        };
        fields.push(("real_need_reg_pic".into(), self.no.into()));
        fields.push(("content-type".into(), "json".into()));
        fields
    }

    fn body(&self, urls: &[String; 2]) -> String {
        match self.body {
            "json" => json!({"event_server_url": urls, "real_need_reg_pic": false, "content-type": "json"}).to_string(),
            "json-one" => {
                json!({"event_server_url": urls[0], "real_need_reg_pic": false, "content-type": "json"}).to_string()
            }
            "json-number" => {
                json!({"event_server_url": urls, "real_need_reg_pic": 0, "content-type": "json"}).to_string()
            }
            form if form.starts_with("form") => {
                form_urlencoded::Serializer::new(String::new()).extend_pairs(self.fields(urls)).finish()
            }
            _ => self.parts(urls),
        }
    }

    fn parts(&self, urls: &[String; 2]) -> String {
        let (_, boundary) = self.content_type.split_once("boundary=").unwrap();
        let boundary = boundary.split(';').next().unwrap().trim_matches('"');
        let mut body = if self.special.contains("preamble") { "\r\n" } else { "" }.to_owned();
        for (name, value) in self.fields(urls) {
            let headers = self.part_headers.replace(" ~ ", "\r\n").replace("NAME", &name);
            let value = if headers.contains("base64") { in_base64(&value) } else { value };
            let headers = headers.replace("LENGTH", &value.len().to_string());
            body += &format!("--{boundary}\r\n{headers}\r\n\r\n{value}\r\n");
        }
        body + &format!("--{boundary}--\r\n")
    }

    fn request(&self, api: SocketAddr, urls: &[String; 2]) -> Vec<u8> {
        let (version, body) = (if self.special.contains("1.0") { "1.0" } else { "1.1" }, self.body(urls));
        let mut head = format!("POST {URL} HTTP/{version}\r\nHost: {api}\r\nContent-Type: {}\r\n", self.content_type);
        for (word, lines) in [
            ("expect", "Expect: 100-continue\r\n"),
            ("upgrade", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"),
        ] {
            head += if self.special.contains(word) { lines } else { "" };
        }
        head += "Connection: close\r\n";
        if self.special.contains("chunked") {
            return format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into();
        }
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into()
    }
}

fn in_base64(value: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(value) + "\r\n"
}

/// Some refuse a body unseen, so that `100 Continue` comes first.
fn last_answer(reply: &Reply) -> Value {
    let body = reply.body.split_once("\r\n\r\n").map_or(reply.body.as_str(), |(_, body)| body);
    serde_json::from_str(body).unwrap_or_default()
}

#[test]
fn the_calls_of_real_clients_are_in_force_as_meant_or_refused_with_the_reason() {
    let home = Home::new();
    let daemon = Daemon::start(&home, &[], json!({}));
    let api = daemon.api();
    let mut faults = Vec::new();
    assert_eq!(clients().count(), 199);
    for client in clients() {
        let urls = ["a", "b"].map(|path| format!("http://127.0.0.1:9/{}/{path}", client.name));
        let before = get(api, URL).json();
        let Some(reply) = raw(api, &client.request(api, &urls)) else {
            faults.push(format!("{}: no answer", client.name));
            continue;
        };
        let wanted = if client.body == "json-one" { json!(urls[..1]) } else { json!(urls) };
        let wanted = json!({"data": {"event_server_url": wanted, "real_need_reg_pic": false, "content-type": "json"}});
        let refused = match client.name {
            "dotnet-mono-webclient" => Some("a list with an item for each"),
            "email-mime" => Some("Content-Transfer-Encoding"),
            _ => None,
        };
        let (answer, now) = (last_answer(&reply), get(api, URL).json());
        let is_right = match refused {
            None => answer == wanted && now == wanted,
            Some(why) => answer["error"]["message"].as_str().is_some_and(|said| said.contains(why)) && now == before,
        };
        if !is_right {
            faults.push(format!("{}: {reply:?}", client.name));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    daemon.terminate();
}
