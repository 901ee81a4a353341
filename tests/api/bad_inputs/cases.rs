//! What is sent and what may come back, and the calls that bad ones are made from.

use serde_json::{Value, json};

pub const URL: &str = "/SophonFogSys/api/EventServerUrl";
pub const JSON: &str = "application/json";
pub const FORM: &str = "application/x-www-form-urlencoded";
pub const MULTIPART: &str = "multipart/form-data; boundary=xx";

/// What is sent, and what may come back.
pub struct Case {
    pub name: String,
    pub request: Vec<u8>,
    pub allowed: &'static [u16],
    /// The HTTP library answers, or closes, before the API sees anything.
    pub is_http: bool,
}

#[derive(Default)]
pub struct Cases(pub Vec<Case>);

impl Cases {
    pub fn post(
        &mut self,
        name: impl Into<String>,
        content_type: &str,
        body: impl AsRef<[u8]>,
        allowed: &'static [u16],
    ) {
        self.with("POST", URL, name, &[("Host", "HOST"), ("Content-Type", content_type)], body, allowed);
    }

    pub fn with(
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
    pub fn http(&mut self, name: impl Into<String>, request: impl Into<Vec<u8>>) {
        self.0.push(Case {
            name: name.into(),
            request: request.into(),
            allowed: &[400, 408, 413, 414, 431, 501, 505],
            is_http: true,
        });
    }
}

pub fn good() -> Value {
    json!({"event_server_url": ["http://192.0.2.7/other"], "real_need_reg_pic": false, "content-type": "form-data"})
}

pub fn with(key: &str, value: Value) -> String {
    let mut call = good();
    call[key] = value;
    call.to_string()
}

pub fn part(name: &str, value: &str) -> String {
    format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

pub fn coded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
