//! Quotes what a client sent, for messages.

/// At most `most` characters of a text, quoted, without control characters; a shortened text is followed by its length.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => quoted(text),
        Some((end, _)) => format!("{}… ({} bytes)", quoted(&text[..end]), text.len()),
    }
}

/// A text as a JSON string, without line breaks and control characters.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
