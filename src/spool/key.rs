//! The key that seals spooled events, and its file: 32 random bytes, for example from `/dev/urandom`.
//!
//! The uplink never creates a key: with a typing error in the path it would create a second one, and nobody would find the key of
//! the spool. A key that others may read or change is refused (`src/secret_file.rs`).

use std::fmt;
use std::path::{Path, PathBuf};

use ::ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ::ring::hkdf::{HKDF_SHA256, Salt};

use super::seal::FileKey;
use crate::secret_file::{self, Secret};

/// The size of a key, and of its file, in bytes.
pub const KEY: usize = 32;
/// The size of the salt of a file's own key, in bytes.
pub const SALT: usize = 32;

/// The context from which a file's own key is derived; the file's head follows it.
const FILE: &[u8] = b"sophon-uplink spool file 2";
/// The context from which a key's id is derived.
const ID: &[u8] = b"sophon-uplink spool key id";

/// How to create a key file, for messages.
const MAKE: &str = "make one with (umask 077; head -c 32 /dev/urandom >FILE)";

/// Identifies a key without revealing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// A key.
pub struct Key {
    secret: [u8; KEY],
    /// It is written into every file that is sealed with the key.
    pub id: KeyId,
}

/// The key in use: the content of its file when it was last read.
#[derive(Debug)]
pub struct KeyInUse {
    file: Option<PathBuf>,
    /// None: files are not sealed. Otherwise the key, or why there is none.
    key: Result<Option<Key>, String>,
}

impl Default for KeyInUse {
    fn default() -> KeyInUse {
        KeyInUse { file: None, key: Ok(None) }
    }
}

impl KeyInUse {
    /// Sets the file of the key, and reads it. Returns whether the key changed.
    pub fn use_file(&mut self, file: Option<&Path>) -> bool {
        self.file = file.map(Path::to_owned);
        self.read_again()
    }

    /// Reads the file again. Returns whether the key changed.
    pub fn read_again(&mut self) -> bool {
        let before = self.id();
        self.key = self.file.as_deref().map(Key::read).transpose();
        self.id() != before
    }

    /// The key; none if there is none, or files are not sealed.
    pub fn usable(&self) -> Option<&Key> {
        self.key.as_ref().ok()?.as_ref()
    }

    /// The id of the key.
    pub fn id(&self) -> Option<KeyId> {
        self.usable().map(|key| key.id)
    }

    /// Why there is no key, if files must be sealed.
    pub fn problem(&self) -> Option<&str> {
        self.key.as_ref().err().map(String::as_str)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    /// A key of these bytes.
    pub fn new(secret: [u8; KEY]) -> Key {
        let mut id = [0; 32];
        let derived = Salt::new(HKDF_SHA256, &[]).extract(&secret);
        derived.expand(&[ID], HKDF_SHA256).and_then(|id_of| id_of.fill(&mut id)).expect("as long as a hash");
        Key { secret, id: KeyId(std::array::from_fn(|index| id[index])) }
    }

    /// Reads a key's file.
    ///
    /// # Errors
    /// Why it cannot be used, without the path: only the config may say where the key is.
    pub fn read(path: &Path) -> Result<Key, String> {
        let Secret { bytes, length } = secret_file::read(path, KEY).map_err(|why| format!("spool.key_file {why}"))?;
        let secret: [u8; KEY] = bytes.try_into().map_err(|_| {
            format!(
                "spool.key_file has {length} bytes, and a key has {KEY}, as they come out of a random source: {MAKE}"
            )
        })?;
        if secret.iter().all(|byte| *byte == secret[0]) {
            return Err(format!(
                "spool.key_file holds no random bytes, as after a power cut while it was made: {MAKE}"
            ));
        }
        Ok(Key::new(secret))
    }

    /// The key of one file. No other file has it, because no other file has its salt. It is valid only for this `head`.
    pub fn of_file(&self, head: &[u8], salt: &[u8; SALT]) -> FileKey {
        let derived = Salt::new(HKDF_SHA256, salt).extract(&self.secret);
        let info = [FILE, head];
        let key = derived.expand(&info, &CHACHA20_POLY1305).expect("as long as a hash");
        FileKey(LessSafeKey::new(UnboundKey::from(key)))
    }
}
