//! The format of a group: events that are stored together share one file, which has a name for each event in each folder. They
//! need one inode and one fsync. Each event is delivered, handed over or evicted by its own name, like an event with its own
//! file.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0x00 | u64 | the magic number of every file of the spool |
//! | 0x08 | u32 | the version: 3 |
//! | 0x0C | u32 | where the first event begins: 0x140 |
//! | 0x10 | u64 | the number of the first event; the others have the numbers after it |
//! | 0x18 | u64 | how many there are: 1 to 32 |
//! | 0x20 | u64 | bytes of the file |
//! | 0x28 | u64 | zero |
//! | 0x30 | u32 | CRC-32 of the table |
//! | 0x34 | 8 bytes | zero |
//! | 0x3C | u32 | CRC-32 of the 60 bytes before |
//! | 0x40 | 32 × u64 | the table: where each event ends; zero for unused entries |
//! | 0x140 | | each event as in its own file ([`file`](mod@super::file)), in clear or sealed, one after the other |
//! | | 0x140 | a copy of the first 0x140 bytes |
//!
//! A damaged event does not affect the others, because the table is stored at both ends of the file. The file's room is free when
//! its last name is deleted; until then all of it counts ([`index`](super::index)).

use std::ops::Range;

use super::disk::Mapped;
use super::file::{HEADER, MAGIC};
use super::opened::FileError;
use crate::picture::{Lost, PictureSource};
use crate::ring::Words;
use crate::ring::layout::{ALIGN, pack};

/// The version of a group's file.
pub const GROUP: u32 = 3;
/// The most events in a file.
pub const MOST: usize = 32;
/// The size of the head before the first event, and of its copy after the last one, in bytes.
pub const HEAD: usize = HEADER + MOST * 8;

/// No file is larger. This check prevents overflows by a damaged table.
const MAX_FILE: u64 = 1 << 48;

/// The head of a group's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The number of the first event.
    pub first: u64,
    count: usize,
    /// Where each ends.
    ends: [u64; MOST],
}

impl Table {
    /// The table for at most [`MOST`] events whose own files would have these lengths, multiples of 8.
    pub fn of(first: u64, lengths: impl Iterator<Item = u64>) -> Table {
        let (mut table, mut end) = (Table { first, count: 0, ends: [0; MOST] }, HEAD as u64);
        for (place, length) in table.ends.iter_mut().zip(lengths) {
            end += length;
            *place = end;
            table.count += 1;
        }
        table
    }

    /// Where each event ends.
    pub fn ends(&self) -> &[u64] {
        &self.ends[..self.count]
    }

    /// Bytes of the file.
    pub fn file_len(&self) -> u64 {
        self.ends().last().map_or(0, |end| end + HEAD as u64)
    }

    /// The range of an event, if it is in the file.
    pub fn place(&self, number: u64) -> Option<Range<u64>> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let end = *self.ends().get(at)?;
        Some(if at == 0 { HEAD as u64 } else { self.ends[at - 1] }..end)
    }

    /// Its bytes at both ends of the file.
    pub fn to_bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let head = [MAGIC, pack(GROUP, HEAD as u32), self.first, self.count as u64, self.file_len(), 0, 0, 0];
        for (place, word) in bytes.chunks_exact_mut(8).zip(head.iter().chain(&self.ends)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[HEADER..]);
        bytes[0x30..0x34].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The table at one end of a file; none if it is damaged or not a group's.
    fn parse(bytes: &[u8; HEAD]) -> Option<Table> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        let count = usize::try_from(word(0x18)).ok().filter(|count| (1..=MOST).contains(count))?;
        let table = Table { first: word(0x10), count, ends: std::array::from_fn(|at| word(HEADER + at * 8)) };
        let mut start = HEAD as u64;
        for end in table.ends() {
            if *end <= start || !end.is_multiple_of(ALIGN as u64) || *end > MAX_FILE {
                return None;
            }
            start = *end;
        }
        (table.to_bytes() == *bytes).then_some(table)
    }

    /// The table at either end of a file; none if the file is no group, or both ends are damaged.
    ///
    /// # Errors
    /// [`Lost`] if the file cannot be read.
    pub fn read(mapped: &impl Mapped) -> Result<Option<Table>, Lost> {
        let size = mapped.size();
        let mut bytes = [0; HEAD];
        for start in [0, size.saturating_sub(HEAD)].into_iter().filter(|_| size >= HEAD) {
            mapped.lend(start..start + HEAD, &mut |head| bytes.copy_from_slice(head))?;
            let table = Table::parse(&bytes);
            // A truncated file has only its first end, and the first events.
            if table.as_ref().is_some_and(|table| start == 0 || table.file_len() == size as u64) {
                return Ok(table);
            }
        }
        Ok(None)
    }
}

/// The part of a file that is one event: the whole file, or its range in a group.
#[derive(Debug)]
pub struct Part<M> {
    mapped: M,
    /// The number of the group's first event.
    first: Option<u64>,
    at: usize,
    size: usize,
}

impl<M: Mapped> Part<M> {
    /// The whole of a file.
    pub fn whole(mapped: M) -> Part<M> {
        Part { first: None, at: 0, size: mapped.size(), mapped }
    }

    /// The part of a file with this event.
    ///
    /// # Errors
    /// The file is a group without this event, or cannot be read.
    pub fn of(mapped: M, number: u64) -> Result<Part<M>, FileError> {
        let Some(table) = Table::read(&mapped)? else { return Ok(Part::whole(mapped)) };
        let place = table.place(number).filter(|place| place.end <= mapped.size() as u64);
        let place = place.ok_or_else(|| FileError::Damaged("it is a group in which there is no such event".into()))?;
        Ok(Part {
            mapped,
            first: Some(table.first),
            at: place.start as usize,
            size: (place.end - place.start) as usize,
        })
    }

    /// The number of the first event of its group; none if it is alone in its file.
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.mapped.size() as u64
    }
}

impl<M: Mapped> Words for Part<M> {
    fn word(&self, offset: usize) -> u64 {
        assert!(offset < self.size, "a word of another event");
        self.mapped.word(self.at + offset)
    }
}

impl<M: Mapped> PictureSource for Part<M> {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        assert!(range.start <= range.end && range.end <= self.size, "bytes of another event");
        self.mapped.lend(self.at + range.start..self.at + range.end, encode)
    }
}

impl<M: Mapped> Mapped for Part<M> {
    fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_back_as_it_was_and_no_bit_of_it_can_be_changed_unnoticed() {
        for count in 1..=MOST as u64 {
            let table = Table::of(17, (1..=count).map(|length| length * 8));
            let bytes = table.to_bytes();
            assert_eq!(Table::parse(&bytes), Some(table.clone()));
            assert_eq!(table.file_len(), 2 * HEAD as u64 + 4 * count * (count + 1));
            let places: Vec<_> = (16..17 + count + 1).map(|number| table.place(number)).collect();
            assert!(places[0].is_none() && places[count as usize + 1].is_none());
            let lengths = places.iter().flatten().map(|place| place.end - place.start);
            assert!(lengths.eq((1..=count).map(|length| length * 8)));
            for bit in 0..8 * HEAD {
                let mut changed = bytes;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Table::parse(&changed), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_table_with_good_checksums_that_makes_no_sense_is_none() {
        let good = Table::of(1, [64, 64].into_iter());
        let wrong = [(0, 0), (0, MAX_FILE + 8), (1, good.ends[0]), (1, good.ends[1] + 1)];
        for (at, end) in wrong {
            let mut table = good.clone();
            table.ends[at] = end;
            let bytes = Table { count: 2, ..table }.to_bytes();
            assert_eq!(Table::parse(&bytes), None, "{at} {end}");
        }
    }
}
