//! Where the sections of a record lie, and the bytes in them. Nothing is believed twice: each word is read once.

use std::ops::Range;

use super::Malformed;
use crate::ring::Words;
use crate::ring::layout::{ALIGN, SECTION_HEADER, aligned, high, low, section};

/// Where the sections of a record lie, by kind.
pub(super) type Sections = [Option<Range<usize>>; section::KNOWN as usize];

/// Walks the sections in `area`, which they must fill exactly. Each section's header is read once.
/// What it finds goes into `found`, where nothing is yet: it is too large to be handed around.
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

/// Copies bytes out.
pub(super) fn bytes(words: &impl Words, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; aligned(range.len())];
    for (word, at) in bytes.as_chunks_mut().0.iter_mut().zip((range.start..).step_by(ALIGN)) {
        *word = words.word(at).to_le_bytes();
    }
    bytes.truncate(range.len());
    bytes
}
