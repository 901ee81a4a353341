//! Decodes a text file as editors write it: removes a byte order mark, and explains an encoding other than UTF-8.

/// Decodes a file's bytes.
///
/// # Errors
/// Which encoding it has instead, and what to do.
pub fn of(bytes: &[u8]) -> Result<&str, String> {
    const TODO: &str = "save it as UTF-8";
    match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, 1..=255, 0, 1..=255, ..] | [1..=255, 0, 1..=255, 0, ..] => {
            return Err(format!("it is UTF-16, which some editors call Unicode: {TODO}"));
        }
        [0, ..] if bytes.iter().all(|byte| *byte == 0) => {
            return Err("it holds only zeros, as after a power cut".into());
        }
        _ => {}
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8 from byte {} on: {TODO}", error.valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_taken_off_and_what_is_not_utf_8_is_named() {
        assert_eq!(of(b"\xEF\xBB\xBF{}"), Ok("{}"));
        assert_eq!(of("{} 北京".as_bytes()), Ok("{} 北京"));
        assert_eq!(of(b""), Ok(""));
        for utf_16 in [&b"\xFF\xFE{\0}\0"[..], b"\xFE\xFF\0{\0}", b"{\0}\0", b"\0{\0}"] {
            assert!(of(utf_16).unwrap_err().contains("UTF-16"), "{utf_16:?}");
        }
        assert!(of(&[0; 64]).unwrap_err().contains("power cut"));
        assert!(of(b"{\"\xB1\xB1\"}").unwrap_err().contains("not UTF-8 from byte 2"));
    }
}
