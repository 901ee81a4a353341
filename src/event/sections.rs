//! Locates the sections of a record and copies their bytes. Each word is read once, so that a check and a use see the same value.

use std::ops::Range;

use super::Malformed;
use crate::ring::Words;
use crate::ring::layout::{ALIGN, SECTION_HEADER, aligned, high, low, section};

/// The position of each section of a record, by kind.
pub(super) type Sections = [Option<Range<usize>>; section::KNOWN as usize];

/// Walks the sections in `area`; they must fill it exactly. Reads each section's header once. Writes the result to `found`, which
/// must be empty: it is too large to pass by value.
pub(super) fn find(words: &impl Words, area: Range<usize>, found: &mut Sections) -> Result<(), Malformed> {
    let mut at = area.start;
    while at < area.end {
        let header = words.word(at);
        let (kind, length) = (low(header), high(header) as usize);
        let content = at + SECTION_HEADER;
        if length > area.end - content {
            return Err(Malformed(format!(
                "its section of kind {kind} overruns it by {} bytes",
                length - (area.end - content)
            )));
        }
        if kind != section::FILLER && kind < section::KNOWN {
            if found[kind as usize].is_some() {
                return Err(Malformed(format!("it has two sections of kind {kind}")));
            }
            found[kind as usize] = Some(content..content + length);
        }
        at = content + aligned(length);
    }
    Ok(())
}

/// Copies bytes.
pub(super) fn bytes(words: &impl Words, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; aligned(range.len())];
    for (word, at) in bytes.as_chunks_mut().0.iter_mut().zip((range.start..).step_by(ALIGN)) {
        *word = words.word(at).to_le_bytes();
    }
    bytes.truncate(range.len());
    bytes
}
