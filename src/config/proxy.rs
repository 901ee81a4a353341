//! `proxy`: the HTTP proxy for destinations, and the exceptions.
//!
//! The uplink ignores `HTTP_PROXY` in the environment: a firmware module has one place for its settings. It warns if `HTTP_PROXY`
//! is set and `proxy` is not.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::fields::{Fields, Refused};
use super::url::{Url, without_brackets};

/// Maximum number of exceptions.
const MOST: usize = 64;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    url: Url,
    /// `Basic …`, if the proxy's URL has a user.
    authorization: Option<HeaderValue>,
    exceptions: Vec<Exception>,
}

/// Hosts that are reached directly.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    /// A name and all its subdomains.
    Domain(String),
    /// A network: its address and the length of its prefix.
    Network(IpAddr, u8),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({} except {:?})", self.url, self.exceptions)
    }
}

impl Proxy {
    /// Takes the key from the file's fields. Null means the same as a missing key.
    pub(super) fn take(fields: &mut Fields<'_>) -> Option<Proxy> {
        if fields.take_null("proxy") {
            return None;
        }
        let mut fields = fields.optional_object("proxy")?;
        let url = fields.secret(
            "url",
            "an http:// URL with host and port, such as http://user:password@10.0.0.1:3128",
            parse,
        );
        let exceptions = fields.list(
            "no_proxy",
            "a list of at most 64 different host names, addresses, networks such as 10.0.0.0/8, or \"*\"",
            0..=MOST,
            exception,
        );
        fields.end();
        let (url, authorization) = url?;
        Some(Proxy { url, authorization, exceptions: exceptions.unwrap_or_default() })
    }

    /// Host and port.
    pub fn address(&self) -> (&str, u16) {
        let uri = self.url.uri();
        (without_brackets(uri.host().unwrap_or_default()), uri.port_u16().unwrap_or(80))
    }

    /// The value of `Proxy-Authorization`, if the URL has a user.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Whether requests to `url` use the proxy. Requests to localhost and to loopback addresses never do.
    pub fn is_for(&self, url: &Url) -> bool {
        let host = without_brackets(url.uri().host().unwrap_or_default());
        let address = host.parse::<IpAddr>().ok();
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        !is_here && !self.exceptions.iter().any(|exception| exception.has(host, address))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.address();
        write!(f, "the proxy {host}:{port}")
    }
}

impl Exception {
    fn has(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Exception::All => true,
            Exception::Domain(domain) => {
                host.strip_suffix(domain.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            Exception::Network(network, length) => address.is_some_and(|address| is_in(address, *network, *length)),
        }
    }
}

fn is_in(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let (one, other, bits) = match (address.to_canonical(), network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u128::from(one.to_bits()), u128::from(other.to_bits()), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    (one ^ other).checked_shr(bits - u32::from(length)).unwrap_or(0) == 0
}

/// Reads a proxy's URL. Returns the value of `Proxy-Authorization` too.
fn parse(value: &Value) -> Option<(Url, Option<HeaderValue>)> {
    let text = value.as_str()?.trim();
    let rest = text.strip_prefix("http://")?;
    let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
    let url = Url::parse(&format!("http://{place}")).ok().filter(|url| url.target() == "/")?;
    let authorization = match user {
        None => None,
        Some(user) => {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            let plain = format!("{}:{}", decoded(user)?, decoded(password)?);
            let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain))).ok()?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    Some((url, authorization))
}

/// Decodes percent-encoding: `%40` is `@`.
fn decoded(text: &str) -> Option<String> {
    let is_code = |rest: &str| rest.as_bytes().get(..2).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit));
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    text.split('%').skip(1).all(is_code).then(|| decoded.into_owned())
}

fn exception(value: &Value, _: &std::path::Path) -> Result<Exception, Refused> {
    let read = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Exception::All);
        }
        let (address, length) =
            text.split_once('/').map_or((text.as_str(), None), |(address, length)| (address, Some(length)));
        match (without_brackets(address).parse::<IpAddr>(), length) {
            (Ok(address), length) => {
                let most = if address.is_ipv4() { 32 } else { 128 };
                let length = length.map_or(Some(most), |length| length.parse().ok())?;
                (length <= most).then_some(Exception::Network(address, length))
            }
            (Err(_), None) => {
                let domain = text.trim_start_matches("*.").trim_matches('.');
                let is_name = !domain.is_empty()
                    && !domain.contains(|letter: char| letter.is_whitespace() || ":/@*".contains(letter));
                is_name.then(|| Exception::Domain(domain.to_owned()))
            }
            (Err(_), Some(_)) => None,
        }
    };
    value.as_str().and_then(read).ok_or_else(|| Refused {
        shown: value.as_str().is_some_and(|text| !text.contains('@')), // a login
        allowed: "a host name, an address, a network such as 10.0.0.0/8, or \"*\"".into(),
    })
}

/// The environment variable that names a proxy, if one is set.
pub fn in_environment() -> Option<&'static str> {
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    names.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proxy(exceptions: &[&str]) -> Proxy {
        let (url, authorization) = parse(&json!("http://box:p%40ss%3a@10.0.0.1:3128")).unwrap();
        let read = |text: &&str| exception(&json!(text), "".as_ref()).ok().unwrap();
        Proxy { url, authorization, exceptions: exceptions.iter().map(read).collect() }
    }

    #[test]
    fn a_proxy_is_for_every_destination_but_the_exceptions_and_the_box_itself() {
        let is_for = |exceptions: &[&str], url: &str| proxy(exceptions).is_for(&Url::parse(url).unwrap());
        for url in ["http://localhost/", "http://127.3.4.5:80/", "https://[::1]/"] {
            assert!(!is_for(&[], url), "{url}");
        }
        let exceptions = ["192.168.0.0/16", "fd00::/8", ".local", "example.com", "10.1.2.3", "*.b.c"];
        for url in [
            "http://192.168.255.1/",
            "http://[fd12::1]/",
            "http://a.local/",
            "http://EXAMPLE.com/",
            "http://x.example.com/",
            "http://10.1.2.3:99/",
            "http://a.b.c/",
        ] {
            assert!(!is_for(&exceptions, url), "{url}");
            assert!(is_for(&[], url), "{url}");
        }
        for url in [
            "http://192.169.0.1/",
            "http://[fc00::1]/",
            "http://notexample.com/",
            "http://10.1.2.4/",
            "http://local.de/",
        ] {
            assert!(is_for(&exceptions, url), "{url}");
        }
        assert!(!is_for(&["*"], "http://example.org/") && !is_for(&["0.0.0.0/0"], "http://8.8.8.8/"));
    }

    #[test]
    fn user_and_password_are_decoded_and_never_shown() {
        let proxy = proxy(&[]);
        assert_eq!(proxy.address(), ("10.0.0.1", 3128));
        let header = proxy.authorization().unwrap();
        assert_eq!(header.to_str().unwrap(), format!("Basic {}", STANDARD.encode("box:p@ss:")));
        assert!(!format!("{proxy:?} {proxy}").contains("ss"), "{proxy:?}");
        for bad in ["https://a:1/", "http://a:1/path", "http://%zz@a:1", "http://", "socks5://a:1", "a:3128"] {
            assert!(parse(&json!(bad)).is_none(), "{bad}");
        }
    }
}
