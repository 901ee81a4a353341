//! Converts host names in other scripts to their form in DNS, TLS and the Host header: `bücher.example` is
//! `xn--bcher-kva.example` (RFC 3492).
//!
//! The rule is smaller than that of browsers (UTS 46), which needs tables of 100 KB. Letters and digits are lower-cased one by
//! one. Whatever a browser would map in another way is refused: combining accents, full-width and other compatibility forms.

/// Maximum length of a label, in characters: the ASCII form of a longer one exceeds the limit of DNS.
const LONGEST: usize = 63;

/// The ASCII form of `host` in lower case; `None` if this rule does not cover a character.
pub(super) fn to_ascii(host: &str) -> Option<String> {
    let labels = host.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']);
    labels.map(label).collect::<Option<Vec<_>>>().map(|labels| labels.join("."))
}

fn label(label: &str) -> Option<String> {
    if label.is_ascii() {
        return Some(label.to_ascii_lowercase());
    }
    let lowered: Vec<char> = label.chars().flat_map(char::to_lowercase).collect();
    let is_plain = |&letter: &char| letter.is_ascii_alphanumeric() || letter == '-' || is_letter(letter);
    let is_good = lowered.len() <= LONGEST && lowered.iter().all(is_plain);
    is_good.then(|| format!("xn--{}", punycode(&lowered)))
}

/// Letters and digits that every Unicode normal form leaves unchanged, as far as ranges can tell.
fn is_letter(letter: char) -> bool {
    let is_compatible = matches!(u32::from(letter),
        0x80..=0xBF | 0x2000..=0x2BFF | 0x3130..=0x33FF | 0xF900..=0xFDFF | 0xFE30..=0xFFFF | 0x1D400..=0x1D7FF | 0x1F100..=0x1F2FF
            | 0x2F800..=0x2FA1F);
    !letter.is_ascii() && letter.is_alphanumeric() && !is_compatible
}

/// RFC 3492, section 6.3. The numbers stay below 2^27 for a text of at most [`LONGEST`] characters.
fn punycode(text: &[char]) -> String {
    let mut output: String = text.iter().filter(|letter| letter.is_ascii()).collect();
    let basic = output.len() as u32;
    if basic > 0 {
        output.push('-');
    }
    let (mut next, mut delta, mut bias, mut handled) = (128u32, 0u32, 72, basic);
    let codes = || text.iter().map(|&letter| u32::from(letter));
    while let Some(least) = codes().filter(|&code| code >= next).min() {
        delta += (least - next) * (handled + 1);
        next = least;
        for code in codes() {
            if code < next {
                delta += 1;
            } else if code == next {
                push_number(&mut output, delta, bias);
                bias = adapted(delta, handled + 1, handled == basic);
                (delta, handled) = (0, handled + 1);
            }
        }
        (delta, next) = (delta + 1, next + 1);
    }
    output
}

const BASE: u32 = 36;
const LEAST: u32 = 1;
const MOST: u32 = 26;

/// Appends a number of variable length: each digit tells whether it is the last.
fn push_number(output: &mut String, mut number: u32, bias: u32) {
    let digit = |value: u32| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[value as usize]);
    let mut place = BASE;
    loop {
        let threshold = place.saturating_sub(bias).clamp(LEAST, MOST);
        if number < threshold {
            return output.push(digit(number));
        }
        output.push(digit(threshold + (number - threshold) % (BASE - threshold)));
        number = (number - threshold) / (BASE - threshold);
        place += BASE;
    }
}

fn adapted(delta: u32, count: u32, is_first: bool) -> u32 {
    let mut delta = if is_first { delta / 700 } else { delta / 2 };
    delta += delta / count;
    let mut place = 0;
    while delta > (BASE - LEAST) * MOST / 2 {
        delta /= BASE - LEAST;
        place += BASE;
    }
    place + (BASE - LEAST + 1) * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_other_scripts_become_what_dns_has() {
        for (name, ascii) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example", "xn--bcher-kva.example"),
            ("münchen.de", "xn--mnchen-3ya.de"),
            ("faß.de", "xn--fa-hia.de"),
            ("例え.example", "xn--r8jz45g.example"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("北京.中国", "xn--1lq90i.xn--fiqs8s"),
            ("пример.испытание", "xn--e1afmkfd.xn--80akhbyknj4f"),
            ("한국.kr", "xn--3e0b707e.kr"),
            ("www.Plain-1_x.example.", "www.plain-1_x.example."),
            // RFC 3492, section 7.1.
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
            ("3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b"),
        ] {
            assert_eq!(to_ascii(name).as_deref(), Some(ascii), "{name}");
        }
    }

    #[test]
    fn what_a_browser_would_change_in_another_way_is_refused() {
        let names = [
            "e\u{301}.example",
            "ｅ.example",
            "１.example",
            "℡.example",
            "①.example",
            "a\u{200d}b",
            "😀.example",
            "ü!.example",
            "İ.example",
            "ª",
            "ﬁ.example",
            "㍿.jp",
        ];
        names.iter().for_each(|name| assert_eq!(to_ascii(name), None, "{name}"));
        assert!(to_ascii(&"\u{10ffff}é".repeat(50_000)).is_none() && to_ascii(&"é".repeat(64)).is_none());
        assert!(to_ascii(&"a\u{30000}".repeat(31)).is_some());
    }
}
