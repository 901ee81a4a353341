//! Finds keys that occur twice in one object of the file, at any depth. Parsers use one of the two, and nobody knows which was
//! meant.

use std::collections::HashSet;

use super::ConfigFault;
use super::fields::named;
use crate::event::all_members;

/// Maximum number of faults listed.
const MOST: usize = 16;

/// Returns a fault for each repeated key if `text` is JSON.
pub(super) fn keys(text: &str) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    look(text, "", &mut faults);
    faults.truncate(MOST);
    faults
}

/// Skips objects in lists: no key takes such a list. The parser has bounded the depth before.
fn look(text: &str, prefix: &str, faults: &mut Vec<ConfigFault>) {
    let Ok(members) = all_members(text) else { return };
    let mut seen = HashSet::new();
    for (index, (key, value)) in members.iter().enumerate() {
        // Show only the parts of a URL or a header that cannot be a secret.
        let place = match prefix {
            "tls.destinations." => format!("tls.destinations[{index}]"),
            _ => format!("{prefix}{}", named(key.split([':', ' ', '=']).next().unwrap_or_default())),
        };
        if !seen.insert(key) {
            let allowed = "this key is there twice in one object: keep one of the two".into();
            faults.push(ConfigFault { key: place.clone(), value: None, allowed });
        }
        if value.get().starts_with('{') {
            look(value.get(), &format!("{place}."), faults);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_named_at_any_depth() {
        for (text, places) in [
            (r#"{"a": 1, "b": {"a": 1}}"#, &[][..]),
            (r#"{"a": 1, "\u0061": 2}"#, &["a"]),
            (r#"{"spool": {"dir": "a", "dir": "b"}, "spool": {}}"#, &["spool.dir", "spool"]),
            (r#"{"headers": {"X-Key": "1", "X-Key": "2"}}"#, &["headers.X-Key"]),
            (r#"{"headers": {"A: hunter2": "1", "A: hunter2": "2"}}"#, &["headers.A"]),
            (
                r#"{"tls": {"destinations": {"https://a/?k": {}, "https://a/?k": {"x": 1, "x": 1}}}}"#,
                &["tls.destinations[1]", "tls.destinations[1].x"],
            ),
            (r#"{"a": 1, "a": 2"#, &[]),
        ] {
            let found: Vec<_> = keys(text).into_iter().map(|fault| fault.key).collect();
            assert_eq!(found, places, "{text}");
        }
        let many = format!("{{{}\"a\": 1}}", "\"a\": 1,".repeat(10_000));
        assert_eq!(keys(&many).len(), MOST);
    }
}
