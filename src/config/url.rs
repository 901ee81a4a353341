//! The URL of a destination: http or https, without credentials, and not an address at which only the machine itself or its cloud
//! answers.
//!
//! Every destination has one canonical form. Surrounding blanks are cut off. Scheme and host are in lower case. A default port is
//! left out. A host in another script is in its `xn--` form. Characters that RFC 3986 does not allow in a path or a query are
//! percent-encoded, and are sent so. What is already encoded stays as it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use hyper::Uri;
use serde_json::Value;

use super::fields::Refused;
use super::idn;

/// Which events a destination gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Report {
    /// Events whose score reaches the threshold, at once: `event_server_url`.
    #[default]
    RealTime,
    /// All events, once per period: `history`.
    History,
}

/// Suffix of a history destination's URL wherever it is shown or stored. It cannot collide: URLs in a config have no fragment,
/// and a fragment is never sent.
const HISTORY: &str = "#history";

impl Report {
    /// The report of a destination, from its URL as shown or stored.
    pub fn of_shown(url: &str) -> Report {
        if url.ends_with(HISTORY) { Report::History } else { Report::RealTime }
    }

    fn suffix(self) -> &'static str {
        match self {
            Report::RealTime => "",
            Report::History => HISTORY,
        }
    }
}

/// A checked URL and the report that is sent there. One URL may be the destination of both reports; these are two destinations.
/// Displayed without its query, which may contain a token.
#[derive(Clone)]
pub struct Url {
    uri: Uri,
    report: Report,
    /// Path and query, for the request line.
    target: Uri,
    /// [`Url::former_identity`], if it differs.
    former: Option<Box<str>>,
}

impl PartialEq for Url {
    fn eq(&self, other: &Url) -> bool {
        self.uri == other.uri && self.report == other.report
    }
}

impl Eq for Url {}

const SCHEMES: &str = "a URL that begins with http:// or https:// and names a host";

impl Url {
    /// Checks `text`.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        if is_several(text) {
            return Err(
                "one URL; several are a list with an item for each (in one URL, write a comma before http:// as %2C)"
                    .into(),
            );
        }
        if text.contains(char::is_control) {
            return Err("a URL without control characters".into());
        }
        if text.contains('#') {
            return Err("a URL without a fragment (#…)".into());
        }
        let (scheme, rest) = text.split_once("://").ok_or(SCHEMES)?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(SCHEMES.into()),
        };
        let (authority, written) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a URL without user name and password; put them into headers.Authorization".into());
        }
        let end = authority.find(']').map_or_else(|| authority.find(':').unwrap_or(authority.len()), |end| end + 1);
        let (host, port) = authority.split_at(end);
        let (host, port) = (checked_host(host)?, checked_port(port)?.filter(|port| *port != default_port));
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let slash = if written.starts_with('/') { "" } else { "/" };
        let target = encoded(&format!("{slash}{written}"));
        let too_long = |_| "a URL of at most 65,000 characters".to_owned();
        let whole = format!("{scheme}://{host}{port}{target}");
        let former = format!("{scheme}://{}{slash}{written}", authority.to_ascii_lowercase());
        let former = (former != whole).then(|| former.into());
        let (uri, target) = (whole.parse().map_err(too_long)?, target.parse().map_err(too_long)?);
        Ok(Url { uri, report: Report::RealTime, target, former })
    }

    /// The same URL as the destination of a report.
    pub fn with_report(self, report: Report) -> Url {
        // Early releases, which had other URL forms, had no history destinations.
        Url { report, former: self.former.filter(|_| report == Report::RealTime), ..self }
    }

    /// Parses a destination as shown or as named by a person: a URL, with the suffix if it gets the history.
    ///
    /// # Errors
    /// As [`Url::parse`].
    pub fn of_destination(text: &str) -> Result<Url, String> {
        let report = Report::of_shown(text);
        let url = Url::parse(text.strip_suffix(report.suffix()).unwrap_or(text))?;
        Ok(url.with_report(report))
    }

    /// The report that is sent there.
    pub fn report(&self) -> Report {
        self.report
    }

    /// Whether both have the same URL, whatever report is sent there.
    pub fn is_same_server_as(&self, other: &Url) -> bool {
        self.uri == other.uri
    }

    /// The full URL, identical for equal URLs. It identifies a destination, on disk too. It must not be shown.
    pub fn identity(&self) -> String {
        format!("{}{}", self.uri, self.report.suffix())
    }

    /// The identity used by old releases, which treated `http://a:80/` and `http://a/` as different; none if it is the same.
    /// Their spools have such folders.
    pub fn former_identity(&self) -> Option<&str> {
        self.former.as_deref()
    }

    /// The URL as a `Uri` for hyper.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether it is https.
    pub fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The value of the Host header.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// Path and query, for the request line.
    pub fn target(&self) -> &Uri {
        &self.target
    }
}

/// A URL's host in the form for connecting: an IPv6 address without brackets.
pub fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let query = if self.uri.query().is_some() { "?…" } else { "" };
        write!(f, "{scheme}://{}{}{query}{}", self.authority(), self.target.path(), self.report.suffix())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn from_value(value: &Value, _: &Path) -> Result<Url, Refused> {
    let text = value.as_str().ok_or_else(|| Refused { shown: false, allowed: "a URL as text".into() })?;
    Url::parse(text).map_err(|allowed| Refused { shown: !text.contains(['@', '?']), allowed })
}

/// Whether a comma or a blank is followed by another URL. Clients build such lists, and people enter them in text areas.
fn is_several(text: &str) -> bool {
    let lowered = text.to_ascii_lowercase();
    let begins = ["http://", "https://"].into_iter().flat_map(|scheme| lowered.match_indices(scheme));
    let is_separator = |letter: char| letter.is_whitespace() || matches!(letter, ',' | ';' | '|' | '，' | '；' | '、');
    begins.filter(|(at, _)| *at > 0).any(|(at, _)| lowered[..at].ends_with(is_separator))
}

/// Percent-encodes characters that RFC 3986 does not allow in a path or a query.
fn encoded(target: &str) -> String {
    let bytes = target.as_bytes();
    let mut text = String::with_capacity(bytes.len());
    for (index, &byte) in bytes.iter().enumerate() {
        let is_escape = || bytes.get(index + 1..index + 3).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit));
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte) || byte == b'%' && is_escape() {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The number after the colon, if any.
fn checked_port(port: &str) -> Result<Option<u16>, &'static str> {
    let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        _ if port.is_empty() => Ok(None),
        Some(port) if port > 0 => Ok(Some(port)),
        _ => Err("a URL with a port from 1 to 65535, or without one"),
    }
}

/// The host in its canonical form.
fn checked_host(host: &str) -> Result<String, String> {
    const NAME: &str =
        "a host name of letters, digits, '-', '_' and '.'; write a name that is refused in its xn-- form";
    if host.is_empty() {
        return Err(SCHEMES.into());
    }
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let name = if literal.is_some() { String::new() } else { idn::to_ascii(host).ok_or(NAME)? };
    let address: Option<IpAddr> = match literal {
        Some(v6) => Some(IpAddr::V6(v6.parse::<Ipv6Addr>().map_err(|_| "a valid IPv6 address in brackets")?)),
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    if let Some(address) = address {
        return match address {
            _ if is_forbidden_address(address) => {
                Err("an address that is not link-local, unspecified, multicast or a metadata service".into())
            }
            IpAddr::V4(address) => Ok(address.to_string()),
            IpAddr::V6(address) => Ok(format!("[{address}]")),
        };
    }
    let host = name.trim_end_matches('.');
    let last = host.rsplit('.').next().unwrap_or_default();
    // Such as 0xA9FEA9FE, 2852039166 and 169.254.43518: resolvers read them as IPv4 addresses.
    if last.starts_with("0x") || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("an IPv4 address as four decimal numbers, or a name".into());
    }
    if host.len() > 253 || !host.split('.').all(is_label) {
        return Err(NAME.into());
    }
    if matches!(host, "metadata" | "metadata.google.internal" | "instance-data" | "instance-data.ec2.internal") {
        return Err("a host that is not a cloud's metadata service".into());
    }
    Ok(name)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A host name or an address that the API accepts, in lower case: without scheme, port and path.
pub(super) fn host_from_value(value: &Value, _: &Path) -> Result<String, Refused> {
    let is_address = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let name = value.as_str().and_then(|text| idn::to_ascii(text.trim().trim_end_matches('.')));
    let name = name.filter(|name| is_address(name) || name.len() <= 253 && name.split('.').all(is_label));
    name.ok_or_else(|| Refused {
        shown: true,
        allowed: "a host name without scheme, port and path, such as box17.example".into(),
    })
}

/// Addresses of cloud metadata services, which give out a machine's secrets. The link-local 169.254.169.254 is forbidden anyway.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x0254)];

/// The IPv4 address that an IPv6 address leads to: IPv4-compatible, NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056).
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = v6.octets();
    let at = match v6.segments() {
        [0, 0, 0, 0, 0, 0, _, _] if !v6.is_loopback() => 12,
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, _, _, _, _, _] => 12,
        [0x2002, ..] => 2,
        _ => return None,
    };
    Some(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]))
}

/// Addresses that no event may be sent to. Checked again for every address that a name resolves to.
pub fn is_forbidden_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || METADATA_V6.contains(&v6)
                || embedded_v4(v6).is_some_and(|v4| is_forbidden_address(IpAddr::V4(v4)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Result<String, String> {
        Url::parse(text).map(|url| url.identity())
    }

    #[test]
    fn one_destination_has_one_form_however_it_is_written() {
        for (written, form) in [
            ("http://box/x", "http://box/x"),
            ("HTTP://BOX:80/x", "http://box/x"),
            ("http://box:00080/x", "http://box/x"),
            (" \t\u{3000}http://box/x\r\n", "http://box/x"),
            ("https://Box.Example:443", "https://box.example/"),
            ("https://box:80", "https://box:80/"),
            ("http://box:443", "http://box:443/"),
            ("http://[0:0::1]:80?a", "http://[::1]/?a"),
            ("http://[FD00::A]:8080/", "http://[fd00::a]:8080/"),
            ("http://Bücher.example/", "http://xn--bcher-kva.example/"),
            ("http://例え。example/", "http://xn--r8jz45g.example/"),
            ("http://box/A/b?C=d", "http://box/A/b?C=d"),
        ] {
            assert_eq!(identity(written).as_deref(), Ok(form), "{written:?}");
            assert_eq!(Url::parse(written), Url::parse(form));
        }
        assert_ne!(identity("http://box/x"), identity("https://box/x"));
    }

    #[test]
    fn what_goes_out_has_only_characters_of_rfc_3986() {
        for (written, target) in [
            ("/事件", "/%E4%BA%8B%E4%BB%B6"),
            ("/e?site=北京", "/e?site=%E5%8C%97%E4%BA%AC"),
            ("?a b", "/?a%20b"),
            ("/{site}/e", "/%7Bsite%7D/e"),
            ("/a|b^c`d\"e<f>g\\h[i]", "/a%7Cb%5Ec%60d%22e%3Cf%3Eg%5Ch%5Bi%5D"),
            ("/ok%E4%ba%8B", "/ok%E4%ba%8B"),
            ("/100%/%4/%zz%", "/100%25/%254/%25zz%25"),
            ("/-._~!$&'()*+,;=:@?/?", "/-._~!$&'()*+,;=:@?/?"),
        ] {
            let url = Url::parse(&format!("http://box{written}")).unwrap();
            assert_eq!(url.target().to_string(), target, "{written}");
        }
        for odd in (0..=0x2FF).chain([0x4E00, 0xFFFF, 0x10FFFF]).filter_map(char::from_u32) {
            if let Ok(url) = Url::parse(&format!("http://box/{odd}x?{odd}x")) {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
                assert!(url.target().to_string().bytes().all(allowed), "{odd:?}");
                assert_eq!(Url::parse(&url.identity()).unwrap(), url, "encoded once");
            } else {
                assert!(odd.is_control() || odd == '#', "{odd:?}");
            }
        }
    }

    #[test]
    fn several_urls_in_one_are_refused_whatever_joins_them() {
        for between in [",", ", ", ";", " ", "\n", "\r\n", "|", "，", "；", "、", "\t"] {
            for second in ["http://b/", "HTTPS://b/"] {
                let fault = identity(&format!("http://a/{between}{second}")).unwrap_err();
                assert!(fault.contains("a list with an item for each"), "{between:?}: {fault}");
                assert!(identity(&format!("http://a{between}{second}")).is_err());
            }
        }
        for one in ["http://a/http://b/", "http://a/?to=http://b/", "http://a/x,y", "http://a/?u=x%2Chttp://b/"] {
            assert!(identity(one).is_ok(), "{one}");
        }
    }

    #[test]
    fn what_an_earlier_release_knew_it_by_is_known() {
        let former = |text: &str| Url::parse(text).unwrap().former_identity().map(str::to_owned);
        assert_eq!(former("http://Box/x"), None);
        assert_eq!(former("http://box"), None);
        assert_eq!(former("http://box?a"), None);
        assert_eq!(former("http://Box:80/x").as_deref(), Some("http://box:80/x"));
        assert_eq!(former("http://box/{x}").as_deref(), Some("http://box/{x}"));
    }

    #[test]
    fn no_notation_leads_to_a_metadata_service() {
        for host in [
            "metadata。google．internal",
            "METADATA.google.internal.",
            "169.254.169.254",
            "169。254。169。254",
            "１69.254.169.254",
        ] {
            assert!(identity(&format!("http://{host}/")).is_err(), "{host}");
        }
    }
}
