//! Which boxes may send: a file with a line for each, its name and its token. The token says whose the request is, so that a box
//! can write its own subject alone.
//!
//! No token is ever compared with another. What is looked up is a code of it (HMAC-SHA256) under a key that is made anew at each
//! start, so that the time of a look-up says nothing about how much of a token was right; the codes are then compared in constant
//! time.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use ring::hmac;
use sophon_uplink::secret_file;
use sophon_uplink::serve::token::{self, Given};
use tracing::{info, warn};

use super::message::MOST_OF_A_NAME;
use crate::error::ApiError;
use crate::json::shortened;
use crate::store::Sender;

/// The maximum size of the file, in bytes: enough for a hundred thousand boxes.
const LONGEST: usize = 16 << 20;
/// The minimum length of a token; a shorter one could be guessed.
const SHORTEST_TOKEN: usize = 16;

/// See the module.
pub enum Access {
    Everybody,
    Boxes(Box<Tokens>),
}

/// The boxes by their tokens' codes.
pub struct Tokens {
    key: hmac::Key,
    known: HashMap<[u8; 32], Known>,
}

pub struct Known {
    tag: hmac::Tag,
    name: Arc<str>,
}

impl Access {
    /// Reads the file.
    pub fn of(boxes: Option<&Path>) -> Result<Access, String> {
        let Some(path) = boxes else {
            warn!(
                "everybody who reaches this address may send events in the name of every box: --boxes FILE says who may"
            );
            return Ok(Access::Everybody);
        };
        let name = path.display();
        let secret = secret_file::read(path, LONGEST).map_err(|error| format!("--boxes {name}: {error}"))?;
        if secret.bytes.len() > LONGEST {
            return Err(format!("--boxes {name}: it is longer than {LONGEST} bytes"));
        }
        let text = String::from_utf8(secret.bytes).map_err(|_| format!("--boxes {name}: it is no UTF-8"))?;
        let access = Access::read(&text).map_err(|error| format!("--boxes {name}: {error}"))?;
        if let Access::Boxes(tokens) = &access {
            info!("{} boxes may send", tokens.known.len());
        }
        Ok(access)
    }

    /// Reads the text of the file.
    pub fn read(text: &str) -> Result<Access, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "the system gives no random numbers")?;
        let (mut known, mut names) = (HashMap::new(), HashSet::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = |what: &str| format!("line {}: {what}", index + 1); // and no word of the token
            let (name, token) = line.split_once(char::is_whitespace).ok_or_else(|| fault("allowed: NAME TOKEN"))?;
            let token = token.trim();
            if name.len() > MOST_OF_A_NAME {
                return Err(fault("the name has more than 128 bytes"));
            }
            if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(fault("the token: allowed: at least 16 visible ASCII characters"));
            }
            if !names.insert(name) {
                return Err(fault("the box is there already"));
            }
            let tag = hmac::sign(&key, token.as_bytes());
            if known.insert(code(&tag), Known { tag, name: name.into() }).is_some() {
                return Err(fault("another box has the same token"));
            }
        }
        if known.is_empty() {
            return Err("no box is in it".into());
        }
        Ok(Access::Boxes(Box::new(Tokens { key, known })))
    }

    /// Whose request it is; 401 where it is nobody's.
    pub fn sender(&self, headers: &HeaderMap) -> Result<Sender, ApiError> {
        let Access::Boxes(tokens) = self else { return Ok(None) };
        let Tokens { key, known } = &**tokens;
        let refused = |error: &str| ApiError::counted(StatusCode::UNAUTHORIZED, "unknown_box", error);
        let token = match token::given(headers) {
            Given::Bearer(token) => token,
            Given::Other => "",
            Given::Nothing => {
                return Err(refused(
                    "Authorization: missing; allowed: Bearer and the token of a box that this gateway knows",
                ));
            }
        };
        let tag = hmac::sign(key, token.as_bytes());
        let found = known.get(&code(&tag)).filter(|known| token::is_same(known.tag.as_ref(), tag.as_ref()));
        match found {
            Some(known) => Ok(Some(known.name.clone())),
            None => Err(refused("Authorization: this token is of no box that this gateway knows")),
        }
    }
}

fn code(tag: &hmac::Tag) -> [u8; 32] {
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// 403 for a box that says that it is another one.
pub fn another(sender: &str, named: &str) -> ApiError {
    let error = format!("dev_sno: came {}; allowed: {}, whose token it is", shortened(named), shortened(sender));
    ApiError::counted(StatusCode::FORBIDDEN, "another_box", error)
}

#[cfg(test)]
mod tests {
    use hyper::header::AUTHORIZATION;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_its_boxs_and_nothing_else_is() {
        let access = Access::read("# ours\n\nbox-1 0123456789abcdef\nbox-2\t fedcba9876543210  \r\n").unwrap();
        let sender = |values: &[&str]| access.sender(&headers(values)).map(|sender| sender.unwrap().to_string());
        assert_eq!(sender(&["Bearer 0123456789abcdef"]).unwrap(), "box-1");
        assert_eq!(sender(&["bearer  fedcba9876543210"]).unwrap(), "box-2");
        for values in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer 0123456789abcdeF"],
            &["Basic 0123456789abcdef"],
            &["0123456789abcdef"],
            &["Bearer box-1"],
            &["Bearer 0123456789abcdef", "Bearer fedcba9876543210"],
        ] {
            let refusal = sender(values).expect_err("refused");
            assert_eq!((refusal.status, refusal.reason), (StatusCode::UNAUTHORIZED, "unknown_box"), "{values:?}");
        }
    }

    #[test]
    fn a_fault_of_the_file_is_named_without_its_secrets() {
        let secret = "0123456789abcdef";
        for (text, named) in [
            (format!("box-1 {secret}\nbox-1 {secret}x"), "line 2: the box is there already"),
            (format!("box-1 {secret}\nbox-2 {secret}"), "line 2: another box has the same token"),
            ("box-1".into(), "line 1: allowed: NAME TOKEN"),
            ("box-1 short-secret".into(), "line 1: the token"),
            (format!("box-1 {secret} more"), "line 1: the token"),
            (format!("{} {secret}", "x".repeat(129)), "128 bytes"),
            ("# nobody\n".into(), "no box"),
        ] {
            let fault = Access::read(&text).err().expect(named);
            assert!(fault.contains(named) && !fault.contains("0123") && !fault.contains("secret"), "{fault}");
        }
    }
}
