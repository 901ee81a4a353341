//! The token file: 128 random bits as 32 hex digits, created when it is first needed, readable by its owner only.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use tracing::{info, warn};

use crate::config::save::beside;
use crate::config::text;
use crate::readiness;

/// Minimum length of a token that a person chose, in characters. The maximum is 256.
const SHORTEST: usize = 16;

/// Reads the token; creates one if there is none.
///
/// # Errors
/// Returns why there is no token. Without one, the API must not answer.
pub fn read_or_make(path: &Path) -> Result<String, String> {
    let fault = |error: io::Error| format!("the token file {} cannot be used: {error}", path.display());
    match fs::read(path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => create(path).map_err(fault),
        Ok(bytes) => {
            keep_private(path);
            let text = text::of(&bytes).map_err(|why| format!("the token file {}: {why}", path.display()))?.trim();
            let is_good = (SHORTEST..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            is_good.then(|| text.to_owned()).ok_or_else(|| {
                format!(
                    "the token file {} holds no token: {SHORTEST} to 256 printable ASCII characters without spaces, on one line; delete it to get a new one",
                    path.display()
                )
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path).map_err(fault),
        Err(error) => Err(fault(error)),
    }
}

/// Creates the token file atomically.
fn create(path: &Path) -> io::Result<String> {
    if !readiness::randomness() {
        return Err(io::Error::other("the kernel has no random numbers yet; a token is made as soon as it has"));
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = beside(path, "new");
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    info!(file = %path.display(), "made a new token for the API");
    Ok(token)
}

fn keep_private(path: &Path) {
    let others_may = fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
    if others_may {
        let mended = fs::set_permissions(path, Permissions::from_mode(0o600)).is_ok();
        let what = if mended { "its mode is 600 now" } else { "and its mode cannot be changed" };
        warn!(file = %path.display(), "others could read the API's token: {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_is_random_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        let token = read_or_make(&a).unwrap();
        assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
        assert_eq!(read_or_make(&a).unwrap(), token);
        assert_ne!(read_or_make(&b).unwrap(), token);
        assert_eq!(fs::metadata(&a).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_others_could_read_they_cannot_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "a token of somebody's own\n".replace(' ', "-")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), "a-token-of-somebody's-own");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_token_is_named_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for wrong in ["short", "two words of some length", "bell\x07bell\x07bell\x07bell"] {
            fs::write(&path, wrong).unwrap();
            let fault = read_or_make(&path).unwrap_err();
            assert!(fault.contains("token") && !fault.contains(wrong), "{fault}");
        }
        fs::write(&path, b"\xFF\xFEa\0b\0").unwrap();
        assert!(read_or_make(&path).unwrap_err().contains("UTF-16"));
        fs::write(&path, b"\xEF\xBB\xBFa-token-of-somebody\r\n").unwrap();
        assert_eq!(read_or_make(&path).unwrap(), "a-token-of-somebody");
        fs::write(&path, " \n").unwrap();
        assert_eq!(read_or_make(&path).unwrap().len(), 32, "an empty file is none");
        assert!(read_or_make(&folder.path().join("no/such/folder")).is_err());
    }
}
