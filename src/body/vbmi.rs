//! The base64 kernel for x86_64 with AVX-512 VBMI: 48 bytes become 64 characters in 5 instructions. This is the only file with
//! `unsafe` for x86_64, because loads and stores take pointers, and a CPU may lack the instructions.
//!
//! ```text
//!  vmovdqu8         48 bytes, as 16 triples
//!  vpermb           each triple abc as the four bytes b a c b: the 24 bits in both orders that the indices need
//!  vpmultishiftqb   16 times four indices, with two unused bits above each
//!  vpermb           the characters: it uses six bits of an index, and the alphabet fills the register
//!  vmovdqu          64 characters
//! ```
//!
//! No branch and no address depends on the bytes, and each is read once, because they may change meanwhile (rule 3 of
//! `src/ring/mapping.rs`).
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_loadu_si512, _mm512_maskz_loadu_epi8, _mm512_multishift_epi64_epi8,
    _mm512_permutexvar_epi8, _mm512_set1_epi64, _mm512_storeu_si512,
};

const BLOCK: usize = 48;
const BLOCK_TEXT: usize = 64;
/// A bit for each byte of a block.
const BLOCK_MASK: u64 = (1 << BLOCK) - 1;

/// The prefetch distance, in bytes: a picture was written by another core and is not in this core's cache. With 1 to 4 KiB
/// encoding takes as long as a copy.
const AHEAD: usize = 2048;

static ALPHABET: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static SPREAD: [u8; 64] = {
    let mut spread = [0; 64];
    let mut triple = 0;
    while triple < 16 {
        let first = 3 * triple as u8;
        (spread[4 * triple], spread[4 * triple + 1]) = (first + 1, first);
        (spread[4 * triple + 2], spread[4 * triple + 3]) = (first + 2, first + 1);
        triple += 1;
    }
    spread
};

/// The shifts of twice bacb for each of its eight indices, the first in the lowest byte.
const SHIFTS: i64 = i64::from_le_bytes([10, 4, 22, 16, 42, 36, 54, 48]);

/// Encodes the whole blocks at the front of `bytes` to the front of `text`. Returns the number of bytes encoded: a multiple of 3,
/// and 0 if the CPU lacks the instructions. `text` has the length of all of `bytes` in base64.
pub(super) fn encode_blocks(bytes: &[u8], text: &mut [u8]) -> usize {
    let is_supported = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi");
    if !is_supported {
        return 0;
    }
    let blocks = bytes.as_chunks().0;
    // SAFETY: the CPU supports what the function needs (checked above).
    unsafe { encode_with_vbmi(blocks, text.as_chunks_mut().0) };
    blocks.len() * BLOCK
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn encode_with_vbmi(blocks: &[[u8; BLOCK]], texts: &mut [[u8; BLOCK_TEXT]]) {
    let (spread, alphabet) = (load(&SPREAD), load(&ALPHABET));
    let shifts = _mm512_set1_epi64(SHIFTS);
    for (block, text) in blocks.iter().zip(texts) {
        prefetch(block.as_ptr().wrapping_add(AHEAD));
        // SAFETY: reads the 48 bytes that the mask names, the block's length, at any alignment.
        let triples = unsafe { _mm512_maskz_loadu_epi8(BLOCK_MASK, block.as_ptr().cast()) };
        let indices = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(spread, triples));
        let characters = _mm512_permutexvar_epi8(indices, alphabet);
        // SAFETY: writes 64 bytes, the text's length, at any alignment.
        unsafe { _mm512_storeu_si512(text.as_mut_ptr().cast(), characters) };
    }
}

#[inline]
#[allow(unused_unsafe)] // newer Rusts call the hint safe, older ones do not
fn prefetch(address: *const u8) {
    // SAFETY: a hint, which has no effect on an address without memory; SSE is part of x86_64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(table: &[u8; 64]) -> __m512i {
    // SAFETY: reads 64 bytes, the table's length, at any alignment.
    unsafe { _mm512_loadu_si512(table.as_ptr().cast()) }
}
