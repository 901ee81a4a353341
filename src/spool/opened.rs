//! A spooled event that is being read. It is first checked as a whole; the chunks of a sealed one are checked again as they are
//! read.

use std::ops::Range;

use super::disk::Mapped;
use super::file::{Form, HEADER, Header, record_start};
use super::group::Part;
use super::key::{Key, KeyId, SALT};
use super::readers::Reading;
use super::seal::Sealed;
use crate::event::EventId;
use crate::picture::{Lost, PictureSource};
use crate::ring::Words;
use crate::ring::consumer::Frame;
use crate::ring::layout::{ALIGN, EVENT_HEADER_WORDS, RecordHeader, RecordKind, high};

/// A spooled event, open and checked. It can be read until it is dropped, even if its names are deleted.
#[derive(Debug)]
pub struct SpooledEvent<M> {
    content: Content<Part<M>>,
    /// As long as this exists, the file takes its room.
    pub(super) reading: Option<Reading>,
    /// Its id.
    pub id: EventId,
    /// The frame of its record, as for a record in the ring: `Event::from_record` takes both.
    pub frame: Frame,
}

/// A file's content. Offsets count from the beginning of the file, or of the record if it is sealed.
#[derive(Debug)]
enum Content<M> {
    Clear(M),
    Sealed(Box<Sealed<M>>),
}

/// Why a file is no readable event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// It is damaged.
    Damaged(String),
    /// The disk could not read it.
    Unreadable,
    /// It is sealed with another key than the one in use.
    Locked(KeyId),
    /// It is intact, and has this version of the format, which this release does not know: another release wrote it.
    Foreign(u32),
}

impl From<Lost> for FileError {
    fn from(_: Lost) -> FileError {
        FileError::Unreadable
    }
}

impl<M: Mapped> SpooledEvent<M> {
    /// Opens the event of a file with one event. Checks the header, the sizes, both CRCs or every chunk's seal, and the record's
    /// own header.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn check(mapped: M, key: Option<&Key>) -> Result<SpooledEvent<M>, FileError> {
        SpooledEvent::check_part(Part::whole(mapped), key)
    }

    /// The same for an event that may be in a group.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn check_part(mapped: Part<M>, key: Option<&Key>) -> Result<SpooledEvent<M>, FileError> {
        let (header, bytes) = Header::read(&mapped)?;
        let (content, offset) = match header.form {
            Form::Clear { crc } => (Content::check_clear(mapped, crc)?, HEADER),
            Form::Sealed { key: of_file } => {
                let key = key.filter(|key| key.id == of_file).ok_or(FileError::Locked(of_file))?;
                (Content::check_sealed(mapped, &bytes, header.record_len as usize, key)?, 0)
            }
        };
        let words: [u64; EVENT_HEADER_WORDS] = std::array::from_fn(|index| content.word(offset + index * ALIGN));
        content.lend(0..0, &mut |_| ())?; // what was just read was not zeros for want of a file
        let record = RecordHeader::from_words(words);
        let agrees = u64::from(record.length) == header.record_len
            && record.sequence == header.id.sequence
            && RecordKind::from_code(high(words[0])) == Some(RecordKind::Event);
        if !agrees {
            return Err(FileError::Damaged("its header and its record contradict each other".into()));
        }
        let end = offset as u64 + header.record_len;
        Ok(SpooledEvent { content, reading: None, id: header.id, frame: Frame { header: record, offset, end } })
    }
}

impl<M: Mapped> Content<M> {
    fn check_clear(mapped: M, expected: u32) -> Result<Content<M>, FileError> {
        let mut crc = 0;
        mapped.lend(HEADER..mapped.size(), &mut |record| crc = crc32fast::hash(record))?;
        if crc != expected {
            return Err(FileError::Damaged("the checksum of its record is wrong".into()));
        }
        Ok(Content::Clear(mapped))
    }

    fn check_sealed(mapped: M, head: &[u8], length: usize, key: &Key) -> Result<Content<M>, FileError> {
        let mut salt = [0; SALT];
        mapped.lend(HEADER..HEADER + SALT, &mut |bytes| salt.copy_from_slice(bytes))?;
        let sealed = Sealed::new(mapped, key.of_file(head, &salt), record_start(true), length);
        if !sealed.check()? {
            return Err(FileError::Damaged("a seal of its record is broken".into()));
        }
        Ok(Content::Sealed(Box::new(sealed)))
    }
}

impl<M: Mapped> Words for Content<M> {
    fn word(&self, offset: usize) -> u64 {
        match self {
            Content::Clear(mapped) => mapped.word(offset),
            Content::Sealed(sealed) => sealed.word(offset),
        }
    }
}

impl<M: Mapped> PictureSource for Content<M> {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        match self {
            Content::Clear(mapped) => mapped.lend(range, encode),
            Content::Sealed(sealed) => sealed.lend(range, encode),
        }
    }

    fn drop_clear(&self) {
        if let Content::Sealed(sealed) = self {
            sealed.drop_clear();
        }
    }
}

impl<M: Mapped> Words for SpooledEvent<M> {
    fn word(&self, offset: usize) -> u64 {
        self.content.word(offset)
    }
}

impl<M: Mapped> PictureSource for SpooledEvent<M> {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        self.content.lend(range, encode)
    }

    fn drop_clear(&self) {
        self.content.drop_clear();
    }
}
