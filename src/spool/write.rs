//! Writes an event's file, in clear or sealed.

use std::io;
use std::path::Path;

use super::Spool;
use super::batch::Order;
use super::disk::Disk;
use super::file::{Form, HEADER, Header, file_len, record_start};
use super::key::{Key, SALT};
use super::seal::{CHUNK, FileKey, TAG};
use super::store::Reason;
use super::volume::DiskError;
use crate::event::EventId;
use crate::picture::PictureSource;
use crate::readiness;
use crate::ring::Words;
use crate::ring::consumer::Frame;
use crate::ring::layout::ALIGN;

/// Why no file can be sealed although there is a key.
const NO_RANDOMNESS: &str = "the kernel has no random numbers yet, and every sealed file needs some";
/// How many chunks are written at once.
const TOGETHER: usize = 4;

impl<D: Disk> Spool<D> {
    /// Sets the file with the key. New files are sealed with this key, or written in clear if `path` is none. Sealed files can be
    /// read only with their key. If the key cannot be read, each store tries to read it again.
    ///
    /// # Errors
    /// Why there is no key: nothing is written then.
    pub fn use_key_file(&mut self, path: Option<&Path>) -> Result<(), String> {
        if self.key.use_file(path) {
            self.events.unlock();
        }
        self.key.problem().map_or(Ok(()), |why| Err(why.to_owned()))
    }

    /// Checks, if files must be sealed, that there is a key, and that the kernel has random numbers for the salts.
    ///
    /// # Errors
    /// [`Reason::NoKey`].
    pub fn check_key(&mut self) -> Result<(), Reason> {
        if self.key.problem().is_some() && self.key.read_again() {
            self.events.unlock();
        }
        match self.key.problem() {
            Some(why) => Err(Reason::NoKey(why.to_owned())),
            None if self.key.usable().is_some() && !readiness::randomness() => Err(Reason::NoKey(NO_RANDOMNESS.into())),
            None => Ok(()),
        }
    }

    /// The size of a file with only the record at `frame`.
    pub(super) fn file_len(&self, frame: &Frame) -> u64 {
        file_len(frame.header.length.into(), self.key.usable().is_some())
    }

    /// Writes an event into a file from `start`, without making it durable. Reads every word of `source` once. The words of the
    /// record's header come from the frame's checked copy.
    pub(super) fn write<S: Words + PictureSource + ?Sized>(
        &mut self,
        (file, path): (&mut D::File, &Path),
        start: u64,
        Order { ring, source, frame, .. }: Order<'_, S>,
    ) -> Result<(), Reason> {
        let (checked, length) = (frame.header.to_words(), frame.header.length as usize);
        let id = EventId { ring, sequence: frame.header.sequence };
        let header = |form| Header { id, record_len: length as u64, form }.to_bytes();
        let sealing = self.key.usable().map(|key| Sealing::new(key, header(Form::Sealed { key: key.id }))).transpose();
        let sealing = sealing.map_err(|source| DiskError { operation: "seal", path: path.to_owned(), source })?;
        let mut crc = crc32fast::Hasher::new();
        let mut buffer = Vec::with_capacity((TOGETHER * CHUNK).min(length) + TOGETHER * TAG);
        let mut offset = start + record_start(sealing.is_some()) as u64;
        for (number, begin) in (0..length).step_by(CHUNK).enumerate() {
            let (from, end) = (buffer.len(), length.min(begin + CHUNK));
            for at in (begin..end).step_by(ALIGN) {
                let word = checked.get(at / ALIGN).copied().unwrap_or_else(|| source.word(frame.offset + at));
                buffer.extend_from_slice(&word.to_le_bytes());
            }
            match &sealing {
                Some(sealing) => sealing.key.seal(number, end == length, &mut buffer, from),
                None => crc.update(&buffer[from..]),
            }
            if end == length || (number + 1).is_multiple_of(TOGETHER) {
                self.volume.write(file, path, &buffer, offset)?;
                offset += buffer.len() as u64;
                buffer.clear();
            }
        }
        source.lend(0..0, &mut |_| ()).map_err(|_| Reason::Lost)?;
        match &sealing {
            Some(Sealing { head, .. }) => self.volume.write(file, path, head, start)?,
            None => self.volume.write(file, path, &header(Form::Clear { crc: crc.finalize() }), start)?,
        }
        Ok(())
    }
}

/// How one file is sealed.
struct Sealing {
    /// The event's head and salt.
    head: Vec<u8>,
    /// The file's own key.
    key: FileKey,
}

impl Sealing {
    /// Draws the salt. A file in clear needs none. This does not wait for the kernel: see [`Spool::check_key`].
    fn new(key: &Key, head: [u8; HEADER]) -> io::Result<Sealing> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt)?;
        let key = key.of_file(&head, &salt);
        Ok(Sealing { head: [&head[..], &salt].concat(), key })
    }
}
