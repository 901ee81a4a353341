//! Percent-encoding in the paths of requests and in the subjects of messages.

use std::borrow::Cow;
#[cfg(feature = "jetstream")]
use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

/// Decodes percent-encoding in a part of a path or subject; `None` if the result is not UTF-8.
pub fn decoded(piece: &str) -> Option<String> {
    percent_decode_str(piece).decode_utf8().ok().map(Cow::into_owned)
}

/// Encodes every byte but letters, digits, - and _ as %XX, so that the name is one token of a subject.
#[cfg(feature = "jetstream")]
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

/// The name that [`escaped`] encoded; none if `text` is not in that form.
#[cfg(feature = "jetstream")]
pub fn unescaped(text: &str) -> Option<String> {
    let name = decoded(text)?;
    (escaped(&name) == text).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_out_of_a_path_as_it_went_in() {
        for (coded, id) in
            [("ab-1", "ab-1"), ("a%2Fb%25", "a/b%"), ("a+b", "a+b"), ("50%", "50%"), ("%zz", "%zz"), ("%+1", "%+1")]
        {
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
