//! Bytes as %XX: in the paths of requests, and in the subjects of messages.

#[cfg(feature = "jetstream")]
use std::fmt::Write as _;

/// A piece of a path, or of a subject, with its %XX turned back; `None` where it is not UTF-8.
pub fn decoded(piece: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(piece.len());
    let mut rest = piece.as_bytes();
    while let [first, tail @ ..] = rest {
        let coded = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match coded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &tail[2..]),
            None => (bytes.push(*first), rest = tail),
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(feature = "jetstream")]
/// A name with every byte but letters, digits, - and _ as %XX: it is one token of a subject.
pub fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            text.push(byte as char);
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(feature = "jetstream")]
/// The name that was escaped; none where it was not escaped here.
pub fn unescaped(text: &str) -> Option<String> {
    let name = decoded(text)?;
    (escaped(&name) == text).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_out_of_a_path_as_it_went_in() {
        for (coded, id) in [("ab-1", "ab-1"), ("a%2Fb%25", "a/b%"), ("a+b", "a+b"), ("50%", "50%"), ("%zz", "%zz")] {
            assert_eq!(decoded(coded).as_deref(), Some(id));
        }
        assert_eq!(decoded("%FF"), None);
    }

    #[cfg(feature = "jetstream")]
    #[test]
    fn a_name_comes_out_of_a_subject_as_it_went_in() {
        for name in ["gate-1", "Gate 1.A>*", "东门", "%41", ""] {
            assert_eq!(unescaped(&escaped(name)).as_deref(), Some(name));
        }
        for other in ["gate 1", "%41", "%2e", "%zz", "%FF", "50%"] {
            assert_eq!(unescaped(other), None, "{other}");
        }
    }
}
