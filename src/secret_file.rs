//! Reads files with keys. Refuses a file that others may read or change, as ssh does.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The content of such a file.
pub struct Secret {
    /// Its bytes. If the file is longer than requested, one byte more than requested.
    pub bytes: Vec<u8>,
    /// Length of the file, in bytes.
    pub length: u64,
}

/// Reads at most `most` bytes, and one more. The error text is meant to follow the config key that names the file.
///
/// # Errors
/// Why the file cannot be used. The text does not contain the path, which only the config should know.
pub fn read(path: &Path, most: usize) -> Result<Secret, String> {
    let told = |error: io::Error| format!("cannot be read: {error}");
    // Do not block if the path is a pipe.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(told)?;
    let found = file.metadata().map_err(told)?;
    if !found.is_file() {
        return Err("is not a regular file".into());
    }
    if found.permissions().mode() & 0o077 != 0 {
        return Err("may be read or changed by others: chmod 600 it, and replace the key, which others may know".into());
    }
    if found.uid() != 0 && found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(format!(
            "belongs to the user {0}: only an uplink that runs as that user may use it (run --user {0}); for another user, chown it",
            found.uid()
        ));
    }
    let mut bytes = Vec::with_capacity(most + 1);
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(told)?;
    Ok(Secret { bytes, length: found.len() })
}
