//! Encodes bytes as base64 (RFC 4648 section 4: standard alphabet, padded, no line breaks). This is all that is done to a
//! picture's bytes.
//!
//! There are three implementations. On aarch64, the box, our own kernel (`neon.rs`) takes a sixth of the instructions of the
//! base64 crate. On x86_64 with AVX-512 VBMI it is another kernel of ours (`vbmi.rs`). Elsewhere it is that crate, which uses
//! AVX2 where available. docs/benchmarks.md has the figures and the alternatives that were tried.
//!
//! The tests below test the kernels that this CPU supports; `tests/aarch64.rs` tests the box's kernel in its binary, on every
//! machine.

#[cfg(not(target_arch = "aarch64"))]
use portable as engine;

use super::encoder::encoded_len;
#[cfg(target_arch = "aarch64")]
use super::neon as engine;

/// Writes `bytes` as base64 to the front of `text`, and returns the number of characters.
///
/// # Panics
/// If `text` is shorter than [`encoded_len`] says.
pub(super) fn encode(bytes: &[u8], text: &mut [u8]) -> usize {
    let length = encoded_len(bytes.len()) as usize;
    engine::encode(bytes, &mut text[..length]);
    length
}

#[cfg(not(target_arch = "aarch64"))]
mod portable {
    use std::hint::black_box;
    use std::sync::LazyLock;

    use base64::Engine as _;
    use base64::engine::{GeneralPurposeConfig, Simd};

    /// Bytes that memory delivers together.
    const CACHE_LINE: usize = 64;

    static ENGINE: LazyLock<Simd> = LazyLock::new(|| Simd::standard(GeneralPurposeConfig::new()));

    /// `text` must have exactly the length of the result.
    pub(super) fn encode(bytes: &[u8], text: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        let done = crate::body::vbmi::encode_blocks(bytes, text);
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        encode_with_crate(&bytes[done..], &mut text[done / 3 * 4..]);
    }

    pub(super) fn encode_with_crate(bytes: &[u8], text: &mut [u8]) {
        fetch(bytes);
        ENGINE.encode_slice(bytes, text).expect("the text has the length of the bytes in base64");
    }

    /// Reads one byte of every cache line, so that memory delivers many lines at once; the encoder alone waits for one after the
    /// other. The picture was written by another core and is not in this core's cache. This helps only CPUs that go on while they
    /// wait for memory: the box's do not, and they prefetch sequential reads themselves.
    fn fetch(bytes: &[u8]) {
        black_box(bytes.iter().step_by(CACHE_LINE).fold(0, |all, byte| all ^ byte));
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// A byte that is not in the base64 alphabet: it shows that nothing was written there.
    const UNTOUCHED: u8 = 0;

    type Kernel = fn(&[u8], &mut [u8]) -> usize;

    /// The implementation for this CPU, and the one for CPUs without our kernels.
    const KERNELS: &[Kernel] = &[
        encode,
        #[cfg(not(target_arch = "aarch64"))]
        |bytes, text| {
            let length = encoded_len(bytes.len()) as usize;
            portable::encode_with_crate(bytes, &mut text[..length]);
            length
        },
    ];

    #[test]
    fn every_length_at_every_alignment_is_what_the_base64_crate_makes_of_it() {
        let mut bytes = vec![0; 16 + 300];
        fastrand::Rng::with_seed(7).fill(&mut bytes);
        for length in 0..=300 {
            for (from, to) in (0..16).flat_map(|from| (0..16).map(move |to| (from, to))) {
                let picture = &bytes[from..][..length];
                let expected = STANDARD.encode(picture);
                for encode in KERNELS {
                    let mut text = [UNTOUCHED; 16 + 400 + 64];
                    let written = encode(picture, &mut text[to..]);
                    assert_eq!(written as u64, encoded_len(length));
                    assert_eq!(text[to..][..written], *expected.as_bytes(), "{length} bytes from {from} to {to}");
                    let around = &mut text[..to].iter().chain(&text[to + written..]);
                    assert!(around.all(|byte| *byte == UNTOUCHED), "{length} bytes");
                }
            }
        }
    }

    /// Each group of three bytes is encoded independently, so this tests every possible input.
    #[test]
    fn every_three_bytes_are_what_the_base64_crate_makes_of_them() {
        let mut text = vec![UNTOUCHED; 4 << 16];
        for first in 0..=255 {
            let triples: Vec<u8> = (0..=u16::MAX).flat_map(|rest| [first, (rest >> 8) as u8, rest as u8]).collect();
            let expected = STANDARD.encode(&triples);
            for encode in KERNELS {
                text.fill(UNTOUCHED);
                encode(&triples, &mut text);
                assert!(text == expected.as_bytes(), "the first byte is {first}");
            }
        }
    }

    #[test]
    fn random_bytes_are_what_the_base64_crate_makes_of_them() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut text = vec![UNTOUCHED; 1 << 17];
        for _ in 0..200 {
            let mut bytes = vec![0; random.usize(..90_000)];
            random.fill(&mut bytes);
            let expected = STANDARD.encode(&bytes);
            for encode in KERNELS {
                text.fill(UNTOUCHED);
                let written = encode(&bytes, &mut text);
                assert!(text[..written] == *expected.as_bytes(), "{} bytes", bytes.len());
            }
        }
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_text_that_is_too_short_is_refused_before_anything_is_written() {
        encode(&[1; 48], &mut [0; 63]);
    }
}
