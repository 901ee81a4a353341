//! A request's body: read within bounds, and taken apart.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use multer::{Field, Multipart};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use tokio::time::{Instant, timeout_at};

use super::text::shortened;

/// Why a body is not whole. The rest of it may still be on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It has more bytes than may be.
    TooLarge,
    /// The connection broke off after so many bytes.
    Off(usize),
    /// Only so many bytes came in time.
    Late(usize),
}

/// Reads a body of at most `most` bytes, within `time` for all of it and `progress` for the next of it.
///
/// # Errors
/// [`Broken`].
pub async fn whole(body: &mut Incoming, most: u64, time: Duration, progress: Duration) -> Result<BytesMut, Broken> {
    let least = body.size_hint().lower();
    if least > most {
        return Err(Broken::TooLarge);
    }
    let end = Instant::now() + time;
    let mut bytes = BytesMut::with_capacity(least as usize);
    loop {
        match timeout_at(end.min(Instant::now() + progress), body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                if (bytes.len() + data.len()) as u64 > most {
                    return Err(Broken::TooLarge);
                }
                bytes.extend_from_slice(&data);
            }
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(_))) => return Err(Broken::Off(bytes.len())),
            Err(_) => return Err(Broken::Late(bytes.len())),
        }
    }
}

/// Takes multipart/form-data apart. `named` looks at the head of each part before its value: it gives the part's name, or refuses.
///
/// # Errors
/// What `named` says, or `broken` of a body that is no such form.
pub async fn parts<E>(
    bytes: Bytes,
    boundary: &str,
    broken: impl Fn(multer::Error) -> E,
    named: impl Fn(usize, &Field<'_>) -> Result<String, E>,
) -> Result<Vec<(String, Bytes)>, E> {
    let mut multipart = Multipart::new(stream::iter([Ok::<_, Infallible>(bytes)]), boundary);
    let mut parts = Vec::new();
    while let Some(part) = multipart.next_field().await.map_err(&broken)? {
        let name = named(parts.len(), &part)?;
        parts.push((name, part.bytes().await.map_err(&broken)?));
    }
    Ok(parts)
}

/// How the members of a JSON object are read: in the order they were written, with a bound on their number.
pub struct Members<V> {
    most: usize,
    each_once: bool,
    value: PhantomData<V>,
}

impl<V> Members<V> {
    /// At most so many, repeated keys included.
    pub fn at_most(most: usize) -> Members<V> {
        Members { most, each_once: false, value: PhantomData }
    }

    /// At most so many, and no key twice.
    pub fn each_once(most: usize) -> Members<V> {
        Members { each_once: true, ..Members::at_most(most) }
    }
}

impl<'de, V: Deserialize<'de>> DeserializeSeed<'de> for Members<V> {
    type Value = Vec<(String, V)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, V: Deserialize<'de>> Visitor<'de> for Members<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, V)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, V>()? {
            if members.len() == self.most {
                return Err(A::Error::custom(format_args!("more than {} members", self.most)));
            }
            if self.each_once && members.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format_args!("the key {} is there twice", shortened(&key, 60))));
            }
            members.push((key, value));
        }
        Ok(members)
    }
}
