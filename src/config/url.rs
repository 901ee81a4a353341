//! A destination: http or https, no credentials, and no address at which only the machine itself or its cloud answers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use hyper::Uri;
use serde_json::Value;

use super::fields::Refused;

/// A checked URL. Shown without its query, which may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    uri: Uri,
    /// Path and query: what goes into the request line.
    target: Uri,
}

impl Url {
    /// Checks `text`.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Url, String> {
        const SCHEMES: &str = "a URL that begins with http:// or https:// and names a host";
        if text.contains('#') {
            return Err("a URL without a fragment (#…)".into());
        }
        let uri: Uri = text.parse().map_err(|_| SCHEMES.to_owned())?;
        let authority =
            uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https"))).ok_or(SCHEMES)?;
        if authority.as_str().contains('@') {
            return Err("a URL without user name and password; put them into headers.Authorization".into());
        }
        let port = &authority.as_str()[authority.host().len()..];
        if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("a URL with a port from 1 to 65535, or without one".into());
        }
        check_host(authority.host())?;
        let target = match uri.path_and_query().map_or("/", |target| target.as_str()) {
            query if query.starts_with('?') => format!("/{query}"),
            target => target.to_owned(),
        };
        let target = target.parse().map_err(|_| SCHEMES.to_owned())?;
        Ok(Url { uri, target })
    }

    /// The URL in full, the same for URLs that are equal: what a destination is known by, on the disk too. Not to be shown.
    pub fn identity(&self) -> String {
        let (scheme, authority) = (self.uri.scheme_str().unwrap_or_default(), self.authority());
        format!("{}://{}{}", scheme.to_ascii_lowercase(), authority.to_ascii_lowercase(), self.target)
    }

    /// The URL as hyper takes it.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether it is https.
    pub fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// What goes into the Host header.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// Path and query: what goes into the request line.
    pub fn target(&self) -> &Uri {
        &self.target
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let query = if self.uri.query().is_some() { "?…" } else { "" };
        write!(f, "{scheme}://{}{}{query}", self.authority(), self.target.path())
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

fn check_host(host: &str) -> Result<(), String> {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: Option<IpAddr> = match literal {
        Some(v6) => Some(IpAddr::V6(v6.parse::<Ipv6Addr>().map_err(|_| "a valid IPv6 address in brackets")?)),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    if let Some(address) = address {
        return if is_forbidden_address(address) {
            Err("an address that is not link-local, unspecified, multicast or a metadata service".into())
        } else {
            Ok(())
        };
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let last = host.rsplit('.').next().unwrap_or_default();
    // 0xA9FEA9FE, 2852039166, 169.254.43518 and the like: resolvers take them for IPv4 addresses.
    if last.starts_with("0x") || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("an IPv4 address as four decimal numbers, or a name".into());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err("a host name of letters, digits, '-' and '.' (other scripts in their xn-- form)".into());
    }
    if matches!(host.as_str(), "metadata" | "metadata.google.internal" | "instance-data" | "instance-data.ec2.internal")
    {
        return Err("a host that is not a cloud's metadata service".into());
    }
    Ok(())
}

/// Where clouds tell a machine its secrets, beside the link-local 169.254.169.254.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x0254)];

/// The IPv4 address that an IPv6 one leads to: IPv4-compatible, NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056).
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

/// Addresses that no event may go to, whatever name led there: asked again of every address that a name resolves to.
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
