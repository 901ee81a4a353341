//! The base64 kernel for aarch64: 48 bytes become 64 characters in 16 instructions. This is the only file with `unsafe` for
//! aarch64, because NEON's loads and stores take pointers.
//!
//! ```text
//!  ld3              48 bytes as 16 triples aaaaaaaa bbbbbbbb cccccccc: a register of first bytes, one of second, one of third
//!  ushr, sli, and   16 indices each in four registers: 00aaaaaa 00aabbbb 00bbbbcc 00cccccc
//!  tbl              the characters: the alphabet fills four registers, so that one lookup is one instruction
//!  st4              16 times four characters, in order
//! ```
//!
//! No branch and no address depends on the bytes, and each is read once, because they may change meanwhile (rule 3 of
//! `src/ring/mapping.rs`).
#![allow(unsafe_code)]

use std::arch::aarch64::{
    uint8x16x3_t, uint8x16x4_t, vandq_u8, vdupq_n_u8, vld1q_u8_x4, vld3q_u8, vqtbl4q_u8, vshrq_n_u8, vsliq_n_u8,
    vst4q_u8,
};

const BLOCK: usize = 48;
const BLOCK_TEXT: usize = 64;

static ALPHABET: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const _: () = assert!(cfg!(target_feature = "neon"), "every aarch64 that runs Linux has NEON");

/// `text` must have exactly the length of the result.
#[inline(never)] // a symbol of its own, by which tests/instructions.rs measures its share
pub(super) fn encode(bytes: &[u8], text: &mut [u8]) {
    // SAFETY: NEON is there (asserted above).
    unsafe { encode_with_neon(bytes, text) }
}

#[target_feature(enable = "neon")]
fn encode_with_neon(bytes: &[u8], text: &mut [u8]) {
    // SAFETY: reads 64 bytes, the alphabet's length.
    let alphabet = unsafe { vld1q_u8_x4(ALPHABET.as_ptr()) };
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let (text, rest_text) = text.split_at_mut(blocks.len() * BLOCK_TEXT);
    for (block, text) in blocks.iter().zip(text.as_chunks_mut().0) {
        encode_block(block, text, alphabet);
    }
    if !rest.is_empty() {
        // Zeros fill up the last block; their characters are cut off or replaced by padding.
        let (mut block, mut text) = ([0; BLOCK], [0; BLOCK_TEXT]);
        block[..rest.len()].copy_from_slice(rest);
        encode_block(&block, &mut text, alphabet);
        let length = rest_text.len();
        let padding = rest.len().next_multiple_of(3) - rest.len();
        text[length - padding..length].fill(b'=');
        rest_text.copy_from_slice(&text[..length]);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn encode_block(block: &[u8; BLOCK], text: &mut [u8; BLOCK_TEXT], alphabet: uint8x16x4_t) {
    // SAFETY: reads 48 bytes, the block's length, at any alignment.
    let uint8x16x3_t(a, b, c) = unsafe { vld3q_u8(block.as_ptr()) };
    let six_bits = vdupq_n_u8(0x3F);
    let first = vshrq_n_u8::<2>(a);
    let second = vandq_u8(vsliq_n_u8::<4>(vshrq_n_u8::<4>(b), a), six_bits);
    let third = vandq_u8(vsliq_n_u8::<2>(vshrq_n_u8::<6>(c), b), six_bits);
    let fourth = vandq_u8(c, six_bits);
    let characters = uint8x16x4_t(
        vqtbl4q_u8(alphabet, first),
        vqtbl4q_u8(alphabet, second),
        vqtbl4q_u8(alphabet, third),
        vqtbl4q_u8(alphabet, fourth),
    );
    // SAFETY: writes 64 bytes, the text's length, at any alignment.
    unsafe { vst4q_u8(text.as_mut_ptr(), characters) };
}
