//! Reads a request's body within bounds, and parses it.

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

/// Why a body is incomplete. The client may still be sending the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is larger than allowed.
    TooLarge,
    /// The connection broke after so many bytes.
    Off(usize),
    /// Only so many bytes arrived in time.
    Late(usize),
}

/// Reads a body of at most `most` bytes, within `time` in total, and `progress` from one part to the next.
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

/// Parses multipart/form-data. Calls `named` for the head of each part before its value: it returns the part's name, or an error.
///
/// # Errors
/// The error of `named`, or of `broken` for an invalid form.
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

/// Reads the members of a JSON object in their order, with a bound on their number.
pub struct Members<V> {
    most: usize,
    each_once: bool,
    /// For error messages: what is expected, and what is wrong with more members.
    words: (&'static str, &'static str),
    value: PhantomData<V>,
}

impl<V> Members<V> {
    /// At most so many, including repeated keys.
    pub fn at_most(most: usize, words: (&'static str, &'static str)) -> Members<V> {
        Members { most, each_once: false, words, value: PhantomData }
    }

    /// At most so many, and no repeated key.
    pub fn each_once(most: usize, words: (&'static str, &'static str)) -> Members<V> {
        Members { each_once: true, ..Members::at_most(most, words) }
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
        f.write_str(self.words.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, V)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, V>()? {
            if members.len() == self.most {
                return Err(A::Error::custom(self.words.1));
            }
            if self.each_once && members.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format_args!("the key {} is there twice", shortened(&key, 60))));
            }
            members.push((key, value));
        }
        Ok(members)
    }
}
