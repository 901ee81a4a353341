//! The key that spooled events are sealed with, and its file: 32 random bytes, as they come out of `/dev/urandom`.
//!
//! The uplink never makes a key: a path with a typing error would make a new one, and leave the spool sealed with one that nobody
//! finds. A key that others may read or change is refused (`src/secret_file.rs`).

use std::fmt;
use std::path::{Path, PathBuf};

use ::ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ::ring::hkdf::{HKDF_SHA256, Salt};

use super::seal::FileKey;
use crate::secret_file::{self, Secret};

/// Bytes of a key, and of its file.
pub const KEY: usize = 32;
/// Bytes of the salt that makes a file's own key.
pub const SALT: usize = 32;

/// What a file's own key is derived for; its head follows.
const FILE: &[u8] = b"sophon-uplink spool file 2";
/// What a key's id is derived for.
const ID: &[u8] = b"sophon-uplink spool key id";

/// How a key file is made, for messages.
const MAKE: &str = "make one with (umask 077; head -c 32 /dev/urandom >FILE)";

/// Tells keys apart, and nothing of what they are.
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
    /// Written into every file that is sealed with it.
    pub id: KeyId,
}

/// The key in use, as its file was read last.
#[derive(Debug)]
pub struct KeyInUse {
    file: Option<PathBuf>,
    /// None: files are not sealed. Else the key, or why there is none.
    key: Result<Option<Key>, String>,
}

impl Default for KeyInUse {
    fn default() -> KeyInUse {
        KeyInUse { file: None, key: Ok(None) }
    }
}

impl KeyInUse {
    /// The key is in this file from now on, or there is none. Whether it is another one than before.
    pub fn use_file(&mut self, file: Option<&Path>) -> bool {
        self.file = file.map(Path::to_owned);
        self.read_again()
    }

    /// Reads the file again. Whether the key is another one than before.
    pub fn read_again(&mut self) -> bool {
        let before = self.id();
        self.key = self.file.as_deref().map(Key::read).transpose();
        self.id() != before
    }

    /// The key; none where there is none, or files are not sealed.
    pub fn usable(&self) -> Option<&Key> {
        self.key.as_ref().ok()?.as_ref()
    }

    /// Of the key.
    pub fn id(&self) -> Option<KeyId> {
        self.usable().map(|key| key.id)
    }

    /// Why there is no key, where files are to be sealed.
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
    /// The key of these bytes.
    pub fn new(secret: [u8; KEY]) -> Key {
        let mut id = [0; 32];
        let derived = Salt::new(HKDF_SHA256, &[]).extract(&secret);
        derived.expand(&[ID], HKDF_SHA256).and_then(|id_of| id_of.fill(&mut id)).expect("as long as a hash");
        Key { secret, id: KeyId(std::array::from_fn(|index| id[index])) }
    }

    /// Reads a key's file.
    ///
    /// # Errors
    /// Why it is none that can be used, in words that do not say where it lies: that is nobody's business but the config's.
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

    /// The key of one file: no other file has it, because no other has its salt. `head` is bound to it.
    pub fn of_file(&self, head: &[u8], salt: &[u8; SALT]) -> FileKey {
        let derived = Salt::new(HKDF_SHA256, salt).extract(&self.secret);
        let info = [FILE, head];
        let key = derived.expand(&info, &CHACHA20_POLY1305).expect("as long as a hash");
        FileKey(LessSafeKey::new(UnboundKey::from(key)))
    }
}
