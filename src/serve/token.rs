//! The token of a request, and the comparison of secrets.

use hyper::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq as _;

/// The content of a request's `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// There is no such header, or more than one.
    Nothing,
    /// It is not a bearer token.
    Other,
    /// A bearer token, trimmed.
    Bearer(&'a str),
}

/// The token of a request.
pub fn given(headers: &HeaderMap) -> Given<'_> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (given.next(), given.next()) else { return Given::Nothing };
    match only.to_str().ok().and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Given::Bearer(token.trim()),
        _ => Given::Other,
    }
}

/// Compares two secrets in constant time.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}
