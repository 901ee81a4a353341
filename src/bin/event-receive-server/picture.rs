//! A picture in an event: base64 of a JPEG file, or `""` if there is none.

use std::sync::LazyLock;

use base64::engine::{GeneralPurposeConfig, Simd};
use base64::{DecodeError, Engine as _};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::json::shortened;

/// First bytes of a JPEG file: the start-of-image marker, and the first byte of the next marker.
const JPEG_START: [u8; 3] = [0xFF, 0xD8, 0xFF];

/// The standard alphabet with padding, decoded by the fastest instructions of this machine.
static BASE64: LazyLock<Simd> = LazyLock::new(|| Simd::standard(GeneralPurposeConfig::new()));

/// The bytes of a JPEG file, and the recorded facts about them.
#[derive(Debug)]
pub struct Picture {
    /// The decoded file.
    pub bytes: Bytes,
    /// Its SHA-256 in hex.
    pub sha256: String,
}

/// What is allowed: the second half of every message about a picture.
pub const ALLOWED: &str = "the base64 (RFC 4648 standard alphabet, padded, no line breaks) of a JPEG, or \"\"";

/// Decodes a picture; `None` stands for `""`. The error says what is wrong, without showing the picture.
pub fn decode(text: &str) -> Result<Option<Picture>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = BASE64.decode(text).map_err(|error| format!("{} ({})", shortened(text), why(text, error)))?;
    if !bytes.starts_with(&JPEG_START) {
        let start: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02X}")).collect();
        return Err(format!("{} bytes that are no JPEG: they begin with {}", bytes.len(), start.join(" ")));
    }
    let sha256 = sha256_hex(&bytes);
    Ok(Some(Picture { bytes: bytes.into(), sha256 }))
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names the mistake behind a decoding error, if it is a common one.
fn why(text: &str, error: DecodeError) -> String {
    let bad = text.bytes().position(|byte| !(byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)));
    match bad.map(|at| (at, text.as_bytes()[at])) {
        Some((at, b'\n' | b'\r')) => format!("a line break at byte {at}"),
        Some((at, b'-' | b'_')) => format!("the URL-safe alphabet, see byte {at}"),
        Some((at, _)) if text.starts_with("data:") => format!("a data: URL, whose base64 starts later than byte {at}"),
        Some((at, byte)) => format!("byte {at} is 0x{byte:02X}, which is not base64"),
        None if !text.len().is_multiple_of(4) => format!("{} characters, not a multiple of 4", text.len()),
        None => error.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const JPEG: [u8; 8] = [0xFF, 0xD8, 0xFF, 0xE0, 0xFB, 0xEF, 0xBE, 1];

    #[test]
    fn a_jpeg_is_decoded_to_its_bytes() {
        let picture = decode(&STANDARD.encode(JPEG)).unwrap().unwrap();
        assert_eq!(picture.bytes, JPEG[..]);
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(picture.sha256, sha256_hex(&JPEG));
    }

    #[test]
    fn an_empty_text_is_no_picture() {
        assert!(decode("").unwrap().is_none());
    }

    #[test]
    fn what_is_not_standard_base64_is_named() {
        let good = STANDARD.encode(JPEG);
        for (text, reason) in [
            (format!("{}\n{}", &good[..4], &good[4..]), "a line break at byte 4"),
            (format!("{good}\r\n"), "a line break at byte 12"),
            (good.replace('+', "-").replace('/', "_"), "the URL-safe alphabet"),
            (format!("data:image/jpeg;base64,{good}"), "a data: URL"),
            (good.trim_end_matches('=').to_string(), "not a multiple of 4"),
            (format!("{} ", &good[..11]), "0x20"),
            (format!("{good}===="), "invalid"),
            ("====".to_string(), "invalid"),
            (good.replace("gE=", "gF="), "invalid"),
            (good.replace("vgE=", "v==="), "invalid"),
        ] {
            let fault = decode(&text).map(|_| ()).expect_err(&text);
            assert!(fault.contains(reason), "{text}: {fault}");
        }
    }

    #[test]
    fn base64_of_something_else_is_no_picture() {
        let png = decode(&STANDARD.encode(b"\x89PNG\r\n\x1a\n")).unwrap_err();
        assert_eq!(png, "8 bytes that are no JPEG: they begin with 89 50 4E 47");
        assert!(decode(&STANDARD.encode([0xFF, 0xD8])).is_err());
    }

    #[test]
    fn a_fault_never_holds_the_whole_picture() {
        let fault = decode(&"!".repeat(1 << 20)).unwrap_err();
        assert!(fault.len() < 200, "{fault}");
    }
}
