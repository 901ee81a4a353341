//! Decides who may use the API, before it reads a request's body.
//!
//! - *Host*: a page of another site can make its own name resolve to this machine (DNS rebinding), but it cannot make the browser
//!   send another Host. So the API accepts a Host that is an address, a name that no stranger can register, or one of
//!   `api.hosts`.
//! - *Origin*: a page of another site can send forms here, but the browser names the page's site. Behind a proxy, the origin may
//!   be one of `api.hosts`, whatever Host the proxy sends.
//! - *Token*: required on every address except loopback, for every call that changes something or shows more than counters.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode, Uri};

use super::error::{ApiError, shortened};
use crate::serve::token::{self, Given};

/// What a listening address requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loopback: everyone with an account on the box has access.
    Loopback,
    /// Other addresses: everyone who knows the token has access.
    Token(String),
}

/// Checks the request's Host and Origin. `hosts` is `api.hosts` of the config.
///
/// # Errors
/// 400 or 403.
pub fn check_source(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    access: &Access,
    hosts: &[String],
) -> Result<(), ApiError> {
    let host = host(uri, headers)?;
    if !is_ours(host.host(), access) && !is_named(host.host(), hosts) {
        return Err(forbidden(format!(
            "Host {}: the API does not answer to this name; use the box's IP address, or localhost on the box itself, or put the name into api.hosts",
            shortened(host.as_str())
        )));
    }
    for origin in headers.get_all(ORIGIN) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let is_named =
            |authority: &str| authority.parse().is_ok_and(|authority: Authority| is_named(authority.host(), hosts));
        if !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()) || is_named(authority)) {
            return Err(forbidden(format!("Origin {}: pages of other sites may not use this API", shortened(&origin))));
        }
    }
    // A browser that sends no Origin may still send this header.
    let site = headers.get(HeaderName::from_static("sec-fetch-site"));
    if *method == Method::POST && site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(forbidden("Sec-Fetch-Site: pages of other sites may not use this API".into()));
    }
    Ok(())
}

/// Checks the token if the address requires one.
///
/// # Errors
/// 401.
pub fn check_token(headers: &HeaderMap, access: &Access) -> Result<(), ApiError> {
    let Access::Token(token) = access else { return Ok(()) };
    const HOW: &str =
        "send the header Authorization: Bearer TOKEN; the token is in the file that the config names as api.token_file";
    let refused =
        |what: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", format!("{what}; {HOW}")));
    match token::given(headers) {
        Given::Nothing => refused("a token is needed on this address"),
        Given::Bearer(given) if token::is_same(given.as_bytes(), token.as_bytes()) => Ok(()),
        Given::Bearer(_) | Given::Other => refused("the token is wrong"),
    }
}

fn forbidden(message: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message)
}

/// The host name of the request; exactly one is allowed.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<Authority, ApiError> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(ApiError::invalid("Host: exactly one is needed"));
    };
    let host = Authority::try_from(host.as_bytes()).ok().filter(|host| !host.as_str().contains('@'));
    let host = host.ok_or_else(|| ApiError::invalid("Host: it is not a host name with an optional port"))?;
    match uri.authority() {
        Some(other) if *other != host => Err(ApiError::invalid("Host: the request line names another one")),
        _ => Ok(host),
    }
}

fn is_named(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_end_matches('.');
    hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
}

fn is_ours(host: &str, access: &Access) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host == "localhost" {
        return true;
    }
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
    match (bare.parse::<IpAddr>(), access) {
        (Ok(address), Access::Loopback) => address.to_canonical().is_loopback(),
        // Nobody can make an IP address lead to another machine.
        (Ok(_), Access::Token(_)) => true,
        (Err(_), Access::Loopback) => false,
        (Err(_), Access::Token(_)) => {
            let own =
                std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
            !own.is_empty() && (host == own || host.strip_suffix(".local") == Some(&own))
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{AUTHORIZATION, HeaderValue};

    use super::*;

    const TOKEN: &str = "00112233445566778899aabbccddeeff";

    fn elsewhere() -> Access {
        Access::Token(TOKEN.into())
    }

    fn asked(access: &Access, lines: &[(&'static str, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        let uri = Uri::from_static("/x");
        let hosts = ["fleet.example".to_owned(), "192.0.2.7".to_owned()];
        check_source(&Method::POST, &uri, &headers, access, &hosts).err().map_or(200, |error| error.status.as_u16())
    }

    #[test]
    fn names_of_the_config_are_ours_as_host_and_as_origin() {
        for access in [Access::Loopback, elsewhere()] {
            for host in ["fleet.example", "FLEET.example.:8443", "192.0.2.7"] {
                assert_eq!(asked(&access, &[("host", host)]), 200, "{host}");
            }
            for host in ["x.fleet.example", "fleet.example.evil.example", "fleet"] {
                assert_eq!(asked(&access, &[("host", host)]), 403, "{host}");
            }
            let host = ("host", "127.0.0.1:5555");
            for (origin, status) in [
                ("https://fleet.example", 200),
                ("http://Fleet.example:8443", 200),
                ("https://fleet.example.evil.example", 403),
                ("https://evil.example/fleet.example", 403),
                ("https://fleet.example@evil.example", 403),
                ("file://fleet.example", 403),
            ] {
                assert_eq!(asked(&access, &[host, ("origin", origin)]), status, "{origin}");
            }
        }
    }

    #[test]
    fn loopback_answers_to_its_own_addresses_only() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:5555",
            "127.9.9.9",
            "[::1]:5555",
            "localhost",
            "LOCALHOST.:80",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(asked(&Access::Loopback, &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "192.168.1.2",
            "0.0.0.0",
            "2130706433",
            "127.1",
        ] {
            assert_eq!(asked(&Access::Loopback, &[("host", host)]), 403, "{host}");
        }
    }

    #[test]
    fn elsewhere_any_address_will_do_but_no_foreign_name() {
        for host in ["192.168.1.2:5555", "[fd00::2]", "localhost"] {
            assert_eq!(asked(&elsewhere(), &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "192.168.1.2.nip.example"] {
            assert_eq!(asked(&elsewhere(), &[("host", host)]), 403, "{host}");
        }
    }

    #[test]
    fn a_host_is_needed_once_and_alone() {
        assert_eq!(asked(&Access::Loopback, &[]), 400);
        assert_eq!(asked(&Access::Loopback, &[("host", "localhost"), ("host", "localhost")]), 400);
        for host in ["", "a b", "user@localhost", "localhost/x", "http://localhost"] {
            assert_eq!(asked(&Access::Loopback, &[("host", host)]), 400, "{host:?}");
        }
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
        let uri = Uri::from_static("http://evil.example/x");
        assert!(check_source(&Method::GET, &uri, &headers, &Access::Loopback, &[]).is_err());
    }

    #[test]
    fn the_page_itself_may_ask_and_no_other() {
        let host = ("host", "localhost:5555");
        for origin in ["http://localhost:5555", "https://localhost:5555"] {
            assert_eq!(asked(&Access::Loopback, &[host, ("origin", origin)]), 200, "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:5556",
            "http://127.0.0.1:5555",
            "http://evil.example",
            "file://",
        ] {
            assert_eq!(asked(&Access::Loopback, &[host, ("origin", origin)]), 403, "{origin}");
        }
        for (site, status) in [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)] {
            assert_eq!(asked(&Access::Loopback, &[host, ("sec-fetch-site", site)]), status, "{site}");
        }
    }

    #[test]
    fn the_token_is_needed_once_and_whole() {
        let given = |values: &[&str]| {
            let headers = values.iter().map(|value| (AUTHORIZATION, HeaderValue::try_from(*value).unwrap()));
            check_token(&HeaderMap::from_iter(headers), &elsewhere())
        };
        assert_eq!(given(&[&format!("Bearer {TOKEN}")]), Ok(()));
        assert_eq!(given(&[&format!("bearer  {TOKEN}")]), Ok(()));
        let nearly = format!("Bearer {}e", &TOKEN[..31]);
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            "Bearer x",
            &nearly,
            &format!("Basic {TOKEN}"),
            &format!("Bearer {TOKEN}0"),
        ] {
            let error = given(&[wrong]).unwrap_err();
            assert_eq!(error.status, StatusCode::UNAUTHORIZED);
            assert!(!error.message.contains(TOKEN));
        }
        assert!(given(&[]).is_err());
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {TOKEN}")).unwrap());
        headers.append(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {TOKEN}")).unwrap());
        assert!(check_token(&headers, &elsewhere()).is_err());
        assert_eq!(check_token(&HeaderMap::new(), &Access::Loopback), Ok(()));
    }
}
