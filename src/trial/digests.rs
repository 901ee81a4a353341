//! Checks whether a server has the pictures: its answer says what it received, as docs/receivers.md defines.

use serde_json::Value;

use super::picture::TestPicture;

/// What a 2xx proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The server has both pictures, byte for byte.
    Whole,
    /// The answer does not say what the server has.
    Unsaid,
    /// What differs from the pictures that were sent, for people.
    Short(String),
}

/// Judges the beginning of an answer's body to an event with `picture` twice, or once if `reg_pic` is not sent.
pub fn judge(answer: &[u8], picture: TestPicture, with_reg_pic: bool) -> Proof {
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return Proof::Unsaid };
    let Some(received) = answer["received"].as_object() else { return Proof::Unsaid };
    let sha256 = picture.sha256();
    let names = [("reg_pic", with_reg_pic), ("spot_pic", true)];
    let faults = names.into_iter().filter(|(_, is_sent)| *is_sent).filter_map(|(name, _)| {
        let Some(found) = received.get(name) else { return Some(format!("it does not have {name}")) };
        let (bytes, sent) = (found["bytes"].as_u64().unwrap_or(0), picture.bytes());
        if bytes != sent as u64 {
            let why = why_it_is_longer(bytes, sent as u64);
            return Some(format!("it has {bytes} of the {sent} bytes of {name}{why}"));
        }
        let is_same = found["sha256"].as_str().is_some_and(|said| said.eq_ignore_ascii_case(&sha256));
        (!is_same).then(|| format!("it has other bytes than those of {name}"))
    });
    let faults: Vec<_> = faults.collect();
    if faults.is_empty() { Proof::Whole } else { Proof::Short(faults.join("; ")) }
}

/// Why a received picture is longer, if known.
fn why_it_is_longer(bytes: u64, sent: u64) -> &'static str {
    let triples = sent.div_ceil(3);
    match bytes {
        _ if bytes <= sent => "",
        _ if bytes == triples * 3 => {
            " (base64's padding was decoded, too: OpenSSL's EVP_DecodeBlock makes zeros of it)"
        }
        _ if bytes == triples * 4 => " (it is still base64)",
        _ => " (something was added)",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_proves_both_pictures_or_says_which_is_short() {
        let picture = TestPicture::of(20_000);
        let whole = json!({"bytes": 20_000, "sha256": picture.sha256()});
        let judge = |received: Value| judge(json!({ "received": received }).to_string().as_bytes(), picture, true);
        assert_eq!(judge(json!({"reg_pic": whole, "spot_pic": whole})), Proof::Whole);
        let short = |words: &str| Proof::Short(words.into());
        assert_eq!(judge(json!({"spot_pic": whole})), short("it does not have reg_pic"));
        let cut = json!({"bytes": 19_999, "sha256": picture.sha256()});
        assert_eq!(
            judge(json!({"reg_pic": whole, "spot_pic": cut})),
            short("it has 19999 of the 20000 bytes of spot_pic")
        );
        for (bytes, why) in [(20_001, "padding was decoded"), (26_668, "still base64"), (30_000, "was added")] {
            let long = json!({"bytes": bytes, "sha256": picture.sha256()});
            let Proof::Short(said) = judge(json!({"reg_pic": long, "spot_pic": whole})) else { panic!("{bytes}") };
            assert!(said.contains(&format!("{bytes} of the 20000 bytes of reg_pic")) && said.contains(why), "{said}");
        }
        let other = json!({"bytes": 20_000, "sha256": TestPicture::of(20_001).sha256()});
        assert_eq!(
            judge(json!({"reg_pic": other, "spot_pic": whole})),
            short("it has other bytes than those of reg_pic")
        );
    }

    #[test]
    fn a_picture_that_is_not_sent_is_not_asked_for() {
        let picture = TestPicture::card();
        let whole = json!({"bytes": picture.bytes(), "sha256": picture.sha256()});
        let answer = json!({"received": {"spot_pic": whole}}).to_string();
        assert_eq!(judge(answer.as_bytes(), picture, false), Proof::Whole);
    }

    #[test]
    fn any_other_answer_says_nothing() {
        for answer in ["", "OK", "{}", "[1]", "{\"received\": true}", "<html>", "{\"code\": 0"] {
            assert_eq!(judge(answer.as_bytes(), TestPicture::card(), true), Proof::Unsaid, "{answer}");
        }
    }
}
