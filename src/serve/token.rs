//! A token in a request's head, and how it is compared.

use hyper::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq as _;

/// What a request says in `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// Nothing, or several things.
    Nothing,
    /// Something that is no bearer token.
    Other,
    /// `Bearer` and this, without blanks around it.
    Bearer(&'a str),
}

/// The token that a request gives.
pub fn given(headers: &HeaderMap) -> Given<'_> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (given.next(), given.next()) else { return Given::Nothing };
    match only.to_str().ok().and_then(|value| value.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Given::Bearer(token.trim()),
        _ => Given::Other,
    }
}

/// Whether two secrets are the same; takes the same time wherever the difference is.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}
