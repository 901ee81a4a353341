//! Reads the texts of a record and repairs them if necessary: an event matters more than a flawed text.

use std::ops::Range;

use super::members::{Member, members};
use super::sections::{Sections, bytes};
use super::{How, Mended};
use crate::ring::Words;

/// Maximum length of a JSON object, in bytes. A longer one is left out.
const MAX_JSON: usize = 256 * 1024;
/// Maximum length of any other text, in bytes. A longer one is cut off; no real name is so long.
const MAX_TEXT: usize = 4096;

/// Reads a record's texts and notes each repair.
pub(super) struct Texts<'a, W> {
    pub(super) words: &'a W,
    pub(super) sections: &'a Sections,
    pub(super) mended: Vec<Mended>,
}

impl<W: Words> Texts<'_, W> {
    /// A text of at most [`MAX_TEXT`] bytes, cut off between two characters.
    pub(super) fn take(&mut self, kind: u32, field: &'static str) -> String {
        let Some(range) = self.sections[kind as usize].clone() else { return String::new() };
        let length = range.len();
        // Include all bytes of a character that crosses the limit.
        let read = range.start..range.end.min(range.start + MAX_TEXT + 3);
        let is_cut = read.end < range.end;
        let mut text = self.decode(read, field, is_cut);
        if length > MAX_TEXT || text.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            self.note(field, How::Shortened, format!("was cut off: {end} of its {length} bytes go out"));
        }
        text
    }

    /// The members of a JSON object; none if it is too long or not a JSON object.
    pub(super) fn members(&mut self, kind: u32, field: &'static str) -> Vec<Member> {
        let Some(range) = self.sections[kind as usize].clone() else { return Vec::new() };
        let why = if range.len() > MAX_JSON {
            format!("{} bytes, more than {MAX_JSON}", range.len())
        } else {
            match members(&self.decode(range, field, false)) {
                Ok(members) => return members,
                Err(error) if error.is_data() => "it is no JSON object".into(), // the error's own text would contain the content
                Err(error) => error.to_string(),
            }
        };
        self.note(field, How::Shortened, format!("left out: {why}"));
        Vec::new()
    }

    /// Keeps the `members` that `keep` accepts. Notes a member that was left out because of an error.
    pub(super) fn retain(
        &mut self,
        members: &mut Vec<Member>,
        field: &'static str,
        mut keep: impl FnMut(&str, &str) -> Result<bool, String>,
    ) {
        let mut left_out = Vec::new();
        members.retain(|(key, value)| {
            keep(key, value.get()).unwrap_or_else(|why| {
                left_out.push((key.clone(), why));
                false
            })
        });
        let Some((key, why)) = left_out.first() else { return };
        let key: String = key.chars().take(40).collect();
        let more =
            if left_out.len() > 1 { format!(" (and {} members more)", left_out.len() - 1) } else { String::new() };
        self.note(field, How::Shortened, format!("was left out: {key:?}: {why}{more}"));
    }

    /// Notes a timestamp beyond 32 bits: receivers may store the seconds in 32 bits, as the documentation says.
    pub(super) fn note_timestamp(&mut self, milliseconds: i64) {
        let seconds = milliseconds.div_euclid(1000);
        if i32::try_from(seconds).is_err() {
            let what = format!(
                "{seconds} s goes out and does not fit into 32 bits: timestamp_ms is {milliseconds}, and counts milliseconds since 1970"
            );
            self.note("timestamp", How::OutOfRange, what);
        }
    }

    /// Decodes a text. If it `is_cut`, its last character may be incomplete, and is left out.
    fn decode(&mut self, range: Range<usize>, field: &'static str, is_cut: bool) -> String {
        String::from_utf8(bytes(self.words, range)).unwrap_or_else(|error| {
            let flaw = error.utf8_error();
            if is_cut && flaw.error_len().is_none() {
                return String::from_utf8_lossy(&error.as_bytes()[..flaw.valid_up_to()]).into_owned();
            }
            let what = "is not UTF-8 (GBK?): what cannot be read became U+FFFD".into();
            self.note(field, How::Decoded, what);
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    }

    fn note(&mut self, field: &'static str, how: How, what: String) {
        self.mended.push(Mended { field, how, what });
    }
}
