//! The pictures of test events: a real JPEG of any size, generated while it is read, so that its size needs no memory.
//!
//! Comments (COM segments), which viewers skip, extend a test card of some kilobytes to the wanted size. Their content depends on
//! the position, so that a missing or repeated piece changes the digest.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::picture::{Lost, PictureSource};

/// A test card, 96 pixels square.
const CARD: &[u8] = include_bytes!("test-event.jpg");
/// Length of the start marker of a JPEG; the comments follow it.
const START: usize = 2;
/// Length of a comment, with its marker and length field. The last comment has the remainder too.
const COMMENT: usize = 32 * 1024;
/// Length of a comment's marker and length field.
const COMMENT_HEAD: usize = 4;

/// A test picture of a given size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestPicture {
    bytes: usize,
}

impl TestPicture {
    /// The smallest picture: the plain card.
    pub const fn card() -> TestPicture {
        TestPicture { bytes: CARD.len() }
    }

    /// A picture of `bytes` bytes, or the card if that is less.
    pub fn of(bytes: usize) -> TestPicture {
        TestPicture { bytes: if bytes < CARD.len() + COMMENT_HEAD { CARD.len() } else { bytes } }
    }

    /// Its size, in bytes.
    pub const fn bytes(self) -> usize {
        self.bytes
    }

    /// Its SHA-256 in hexadecimal.
    pub fn sha256(self) -> String {
        let mut digest = Sha256::new();
        for start in (0..self.bytes).step_by(COMMENT) {
            digest.update(self.read(start..self.bytes.min(start + COMMENT)));
        }
        format!("{:x}", digest.finalize())
    }

    fn read(self, range: Range<usize>) -> Vec<u8> {
        range.map(|at| self.byte(at)).collect()
    }

    fn byte(self, at: usize) -> u8 {
        let padding = self.bytes - CARD.len();
        match at {
            ..START => CARD[at],
            _ if at >= START + padding => CARD[at - padding],
            _ => comment_byte(at - START, padding),
        }
    }
}

/// A byte of the comments; their total length is `padding` bytes.
fn comment_byte(at: usize, padding: usize) -> u8 {
    let last = (padding / COMMENT).saturating_sub(1);
    let number = (at / COMMENT).min(last);
    let length = if number == last { padding - last * COMMENT } else { COMMENT };
    // The length field does not count the marker.
    let [high, low] = u16::try_from(length - 2).expect("less than two comments").to_be_bytes();
    match at - number * COMMENT {
        0 => 0xff,
        1 => 0xfe,
        2 => high,
        3 => low,
        _ => (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0],
    }
}

impl PictureSource for TestPicture {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        encode(&self.read(range));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the segments before the scan like a decoder. Returns their kinds and lengths, and where the scan begins.
    fn walk(picture: &[u8]) -> (Vec<(u8, usize)>, usize) {
        let (mut at, mut segments) = (START, Vec::new());
        loop {
            assert_eq!(picture[at], 0xff, "a segment begins at {at}");
            let length = usize::from(u16::from_be_bytes([picture[at + 2], picture[at + 3]]));
            segments.push((picture[at + 1], length));
            at += 2 + length;
            if segments.last().is_some_and(|(kind, _)| *kind == 0xda) {
                return (segments, at);
            }
        }
    }

    #[test]
    fn a_picture_of_any_size_is_the_card_with_comments() {
        let (of_card, scan) = walk(CARD);
        for bytes in [CARD.len() + 4, 20_000, CARD.len() + COMMENT - 1, CARD.len() + COMMENT, 99_999, 300_000, 4 << 20]
        {
            let picture = TestPicture::of(bytes).read(0..bytes);
            let (segments, begin) = walk(&picture);
            let others: Vec<_> = segments.into_iter().filter(|(kind, _)| *kind != 0xfe).collect();
            assert_eq!(others, of_card, "{bytes}");
            assert_eq!(picture[begin..], CARD[scan..], "{bytes}");
        }
    }

    #[test]
    fn a_picture_is_the_same_in_pieces_and_its_digest_tells_of_a_piece_that_is_missing_or_there_twice() {
        let picture = TestPicture::of(300_000);
        let whole = picture.read(0..300_000);
        let mut pieces = Vec::new();
        for start in (0..300_000).step_by(48_000) {
            picture.lend(start..300_000.min(start + 48_000), &mut |bytes| pieces.extend_from_slice(bytes)).unwrap();
        }
        assert_eq!(pieces, whole);
        let digest = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
        let mut twice = whole[..100_000].to_vec();
        twice.extend_from_slice(&whole[65_536..265_536]);
        assert_eq!(twice.len(), whole.len());
        assert_ne!(digest(&twice), digest(&whole));
        assert_eq!(picture.sha256().len(), 64);
    }

    #[test]
    fn what_is_too_small_for_a_comment_is_the_card() {
        assert_eq!(TestPicture::of(0), TestPicture::card());
        assert_eq!(TestPicture::card().read(0..CARD.len()), CARD);
    }
}
