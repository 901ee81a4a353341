//! Named pictures: their names, their places in the body, and the position of their bytes.

use std::ops::Range;

use super::Malformed;
use super::members::{EXT_DATA_KEYS, TOP_KEYS};
use super::sections::{Sections, bytes};
use crate::ring::Words;
use crate::ring::layout::{MAX_NAME, MAX_PICTURES, section};

/// Where a named picture goes in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Next to `reg_pic`.
    Top,
    /// Next to `spot_pic`.
    ExtData,
}

impl Place {
    /// Both places.
    pub const ALL: [Place; 2] = [Place::Top, Place::ExtData];

    /// The code in the ring.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Place::Top => "top",
            Place::ExtData => "ext_data",
        }
    }

    fn documented_keys(self) -> &'static [&'static str] {
        match self {
            Place::Top => &TOP_KEYS,
            Place::ExtData => &EXT_DATA_KEYS,
        }
    }
}

/// A picture with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPicture {
    /// Its place in the body.
    pub place: Place,
    /// A name that [`is_name`] accepts.
    pub name: String,
    /// Offsets in the data area; not empty.
    pub range: Range<usize>,
}

/// Whether `name` is allowed at `place`: a valid name needs no escapes in JSON or in a form.
pub fn is_name(name: &[u8], place: Place) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    (1..=MAX_NAME).contains(&name.len())
        && name.iter().all(is_plain)
        && !place.documented_keys().iter().any(|key| key.as_bytes() == name)
}

/// The named pictures of a record. A picture that the C header would have refused makes it malformed.
pub(super) fn named(words: &impl Words, sections: &Sections) -> Result<Vec<NamedPicture>, Malformed> {
    let kinds = section::NAMED_PIC as usize..section::KNOWN as usize;
    let Some(names) = sections[section::NAMES as usize].clone() else {
        let is_none = sections[kinds].iter().all(Option::is_none);
        return if is_none { Ok(Vec::new()) } else { malformed("a picture without a name") };
    };
    if names.len() > MAX_PICTURES * (2 + MAX_NAME) {
        return malformed("names that are too long");
    }
    let names = bytes(words, names);
    let mut rest = names.as_slice();
    let mut taken: Vec<(Place, &[u8])> = Vec::new();
    while let [place, length, more @ ..] = rest {
        let place = Place::ALL.into_iter().find(|known| known.code() == *place);
        let (Some(place), Some((name, next))) = (place, more.split_at_checked(usize::from(*length))) else {
            return malformed("a name that cannot be read");
        };
        if !is_name(name, place) || taken.contains(&(place, name)) || taken.len() == MAX_PICTURES {
            return malformed("a name that is not allowed");
        }
        taken.push((place, name));
        rest = next;
    }
    if !rest.is_empty() || sections[kinds.clone()][taken.len()..].iter().any(Option::is_some) {
        return malformed("more pictures than names, or half a name");
    }
    let pictures = taken.into_iter().zip(&sections[kinds]).filter_map(|((place, name), range)| {
        let range = range.clone().filter(|range| !range.is_empty())?;
        Some(NamedPicture { place, name: String::from_utf8_lossy(name).into_owned(), range })
    });
    Ok(pictures.collect())
}

fn malformed<T>(what: &str) -> Result<T, Malformed> {
    Err(Malformed(format!("it has {what}")))
}
