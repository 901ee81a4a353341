//! What a client wrote, as a message may show it.

/// At most so many characters of a text, quoted, and its length where that is not all of it. It has no control characters.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => quoted(text),
        Some((end, _)) => format!("{}… ({} bytes)", quoted(&text[..end]), text.len()),
    }
}

/// A text as a JSON string, which has no line breaks and no control characters.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
