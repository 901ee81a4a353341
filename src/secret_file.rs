//! Files with keys: who else may read or change one is refused, as ssh refuses such keys.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// What is in such a file.
pub struct Secret {
    /// Its bytes; of one that is longer than was asked for, one byte more than that.
    pub bytes: Vec<u8>,
    /// How long it is.
    pub length: u64,
}

/// Reads at most `most` bytes, and one more; the error is what comes behind the name of the file's key in the config.
///
/// # Errors
/// Why it is none that can be used, in words that do not say where it lies: that is nobody's business but the config's.
pub fn read(path: &Path, most: usize) -> Result<Secret, String> {
    let told = |error: io::Error| format!("cannot be read: {error}");
    // A pipe is not waited for, should one have the name.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(told)?;
    let found = file.metadata().map_err(told)?;
    if !found.is_file() {
        return Err("is no regular file".into());
    }
    if found.permissions().mode() & 0o077 != 0 {
        return Err("may be read or changed by others: chmod 600 it, and think of it as known".into());
    }
    if found.uid() != 0 && found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(format!(
            "belongs to the user {0}: only an uplink takes it that runs as that user (run --user {0}); for another chown it",
            found.uid()
        ));
    }
    let mut bytes = Vec::with_capacity(most + 1);
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(told)?;
    Ok(Secret { bytes, length: found.len() })
}
