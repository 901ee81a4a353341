//! Dead letters: events that a server refused. They are kept for a person, each with its reason ([`reasons`](super::reasons)).
//!
//! They count towards the spool's bounds. Dead letters within an eighth of the bounds are evicted last. Beyond that they are
//! evicted together with the waiting events, the oldest first (`room.rs`).

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use super::disk::{Disk, Mapped as _};
use super::events::Hidden;
use super::file::{Destination, Form, Header, URL_FILE};
use super::index::{BLOCK, Entry, Mask, blocks, slots};
use super::reasons::{DeadLetterReason, Letter};
use super::store::Evicted;
use super::volume::{DiskError, Home};
use super::{Spool, Waiting};

/// About the most letters that one call sends again: other calls wait meanwhile.
pub const PAGE: usize = 256;

/// A dead letter as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its number in the spool.
    pub number: u64,
    /// The size of its file.
    pub bytes: u64,
    /// The event's id; none if the file cannot be read, is damaged, or is of another release.
    pub event: Option<String>,
    /// Whether it is sealed.
    pub sealed: bool,
    /// None if it is unknown: the record is missing or torn, or an old release did not write one.
    #[serde(flatten)]
    pub reason: Option<DeadLetterReason>,
    /// The destination that refused it.
    #[serde(skip)]
    pub destination: Destination,
    /// The destination's URL; none if its folder does not say.
    #[serde(skip)]
    pub url: Option<String>,
}

/// Which dead letters to send again, and to which destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// None: all.
    pub numbers: Option<Vec<u64>>,
    /// None: each to its own destination.
    pub to: Option<Destination>,
    /// Only those with a higher number.
    pub after: Option<u64>,
}

/// The result of sending dead letters again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resent {
    /// How many wait again.
    pub resent: u64,
    /// How many stay dead letters because their destination is not in the config; by its URL, or by its folder's name if that is
    /// unknown.
    pub skipped: BTreeMap<String, u64>,
    /// The last number of this page, if there are more.
    pub after: Option<u64>,
}

impl Resent {
    /// Adds the result of the next call.
    pub fn add(&mut self, next: Resent) {
        self.resent += next.resent;
        next.skipped.into_iter().for_each(|(url, letters)| *self.skipped.entry(url).or_insert(0) += letters);
        self.after = next.after;
    }
}

impl<D: Disk> Spool<D> {
    /// Makes a refused event a dead letter. False if it was not there (evicted meanwhile). Adds what was evicted for its file to
    /// `evicted`.
    ///
    /// # Errors
    /// The operation that failed. The event stays, and is not offered again before the next start.
    pub fn to_dead(
        &mut self,
        destination: Destination,
        counter: u64,
        reason: &DeadLetterReason,
        evicted: &mut Vec<Evicted>,
    ) -> Result<bool, DiskError> {
        let counter = self.follow(destination, counter);
        let Some(slot) = self.slot_with(destination, counter) else {
            return Ok(false);
        };
        let moved = self.make_room_for_copy(slot, counter, evicted).and_then(|()| {
            let is_still_there = self.events.is_in(counter, slot);
            if is_still_there {
                self.bury(slot, counter, reason)?;
            }
            Ok(is_still_there)
        });
        if moved.is_err() {
            self.events.hide(counter, slot, Hidden::Stuck);
        }
        moved
    }

    /// A letter has its own file. An event in a group is copied for that, and the group keeps its room until its last event is
    /// gone.
    fn make_room_for_copy(&mut self, slot: usize, counter: u64, evicted: &mut Vec<Evicted>) -> Result<(), DiskError> {
        let Some(size) = self.volume.size_in_group(&self.name_in(slot, counter), counter)? else { return Ok(()) };
        self.make_room(blocks(size).into(), 1, Some(evicted)).map_err(|reason| self.no_room(reason))
    }

    /// Makes the reason and the letter durable, then deletes the event from its folder.
    fn bury(&mut self, slot: usize, counter: u64, reason: &DeadLetterReason) -> Result<(), DiskError> {
        self.available()?;
        let destination = self.destinations.at(slot);
        let (folder, letter) = (self.volume.folder(Home::Dead(destination)), (counter, destination));
        self.volume.make_folder(&folder)?;
        if let Some(url) = self.url_in(slot) {
            let _for_people_only = self.write_once(&folder.join(URL_FILE), &format!("{url}\n"));
        }
        let to = self.volume.file(Home::Dead(destination), counter);
        if self.letters.contains(letter) {
            self.volume.unlink(&to)?; // from a call that failed half-way: it need not be durable
            self.letters.will_be_replaced(letter);
        }
        let _kept_without_it = self.letters.note(&mut self.volume, letter, reason);
        self.letters.add(letter, self.events.get(counter).map_or(0, |entry| entry.blocks));
        let linked = self.volume.link_alone(&self.volume.file(Home::To(destination), counter), &to);
        let linked = linked.map(|bytes| self.letters.add(letter, blocks(bytes)));
        if let Err(fault) = linked.and_then(|()| self.volume.sync_folder(&folder)) {
            if self.volume.unlink(&to).is_ok() {
                self.letters.forget(letter);
            }
            return Err(fault);
        }
        if self.unlink(counter, slot)? {
            self.count(slot, |tally| &mut tally.dead);
        }
        Ok(())
    }

    /// Evicts a dead letter.
    pub(super) fn give_up_dead(&mut self, letter: Letter) -> Result<(), DiskError> {
        self.volume.unlink(&self.volume.file(Home::Dead(letter.1), letter.0))?;
        self.destinations.count_dead_evicted();
        self.letters.forget(letter);
        Ok(())
    }

    /// All dead letters, the oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = (Destination, Waiting)> {
        self.letters.iter().map(|((counter, destination), blocks)| {
            (destination, Waiting { counter, bytes: u64::from(blocks) * BLOCK })
        })
    }

    /// Returns how many dead letters there are, a page of those with a number above `after` (oldest first), and the last number
    /// of the page if there are more. The page has `limit` letters, or more if several have the last number. Reads only the
    /// letters' files.
    pub fn letters(&self, after: Option<u64>, limit: usize) -> (u64, Vec<DeadLetter>, Option<u64>) {
        let page = self.letters_page(limit, self.letters.after(after));
        let reasons = self.letters.reasons(&self.volume, &page);
        let mut urls = BTreeMap::new();
        let of = |((number, destination), reason): (Letter, _)| {
            let mapped = self.volume.map(&self.volume.file(Home::Dead(destination), number));
            let header = mapped.as_ref().ok().and_then(|mapped| Header::read(mapped).ok()).map(|(header, _)| header);
            let url = urls.entry(destination).or_insert_with(|| self.url_of_letters(destination));
            DeadLetter {
                number,
                bytes: mapped.map_or(0, |mapped| mapped.size() as u64),
                event: header.map(|header| header.id.to_string()),
                sealed: header.is_some_and(|header| matches!(header.form, Form::Sealed { .. })),
                reason,
                destination,
                url: url.clone(),
            }
        };
        let last = page.last().map(|letter| letter.0);
        let next = last.filter(|last| self.letters.after(Some(*last)).next().is_some());
        (self.letters.len(), page.into_iter().zip(reasons).map(of).collect(), next)
    }

    fn url_of_letters(&self, destination: Destination) -> Option<String> {
        let url = self.read_note(&self.volume.folder(Home::Dead(destination)).join(URL_FILE)).ok()??;
        Some(url.trim_end().to_owned())
    }

    fn label(&self, destination: Destination) -> String {
        self.url_of_letters(destination).unwrap_or_else(|| destination.to_string())
    }

    /// The first `limit` letters, and all others with the last one's number.
    fn letters_page(&self, limit: usize, letters: impl Iterator<Item = Letter>) -> Vec<Letter> {
        let mut page: Vec<Letter> = Vec::new();
        for letter in letters {
            if page.len() >= limit.max(1) && page.last().is_some_and(|last| last.0 != letter.0) {
                break;
            }
            page.push(letter);
        }
        page
    }

    /// Sends a page of the wanted dead letters again, to the named destination or else to their own.
    ///
    /// # Errors
    /// The operation that failed. What was not sent stays a dead letter.
    pub fn resend_some(&mut self, wanted: &Wanted) -> Result<Resent, DiskError> {
        let is_meant = |letter: &Letter| wanted.numbers.as_ref().is_none_or(|numbers| numbers.contains(&letter.0));
        // Without hard links each is copied before it is deleted.
        let most = if self.volume.has_links() { PAGE } else { 1 };
        let page = self.letters_page(most, self.letters.after(wanted.after).filter(is_meant));
        let last = page.last().map(|letter| letter.0);
        let mut done = Resent {
            after: last.filter(|last| self.letters.after(Some(*last)).any(|letter| is_meant(&letter))),
            ..Resent::default()
        };
        let (mut to_send, mut skipped) = (Vec::new(), BTreeMap::new());
        for letter in page {
            match self.configured(wanted.to.unwrap_or(letter.1)) {
                Some(slot) => to_send.push((letter, slot)),
                None => *skipped.entry(letter.1).or_insert(0) += 1,
            }
        }
        done.skipped = skipped.into_iter().map(|(one, letters)| (self.label(one), letters)).collect();
        done.resent = self.resend_all(&to_send)?;
        Ok(done)
    }

    /// Sends a dead letter of `from` again, to `to`. False if there is no such letter.
    ///
    /// # Errors
    /// The operation that failed. The letter stays a dead letter.
    pub fn resend(&mut self, from: Destination, counter: u64, to: Destination) -> Result<bool, DiskError> {
        self.available()?;
        if !self.letters.contains((counter, from)) {
            return Ok(false);
        }
        let slot = self.configured(to).ok_or_else(|| self.is_not_configured(to))?;
        self.resend_all(&[((counter, from), slot)]).map(|sent| sent == 1)
    }

    fn configured(&self, destination: Destination) -> Option<usize> {
        self.destinations.slot(self.destinations.configured_as(destination)?)
    }

    /// Gives letters names in the folders of these slots. Makes them durable there, then deletes the letters. Returns how many
    /// there were.
    fn resend_all(&mut self, letters: &[(Letter, usize)]) -> Result<u64, DiskError> {
        if letters.is_empty() {
            return Ok(0);
        }
        self.available()?;
        let mask: Mask = letters.iter().fold(0, |mask, (_, slot)| mask | 1 << slot);
        self.make_folders(mask)?;
        if letters.iter().any(|(letter, _)| self.events.get(letter.0).is_none()) {
            // Otherwise old names of the event could return after a power cut, beside the new file.
            self.sync_folders(self.destinations.made())?;
            self.volume.sync_folder(&self.volume.all_to())?;
        }
        let (mut linked, mut there) = (Vec::new(), Vec::new());
        let named =
            letters.iter().try_for_each(|(letter, slot)| self.name_again(*letter, *slot, &mut linked, &mut there));
        if let Err(fault) = named.and_then(|()| self.sync_folders(mask)) {
            linked.into_iter().for_each(|entry| self.unlink_names(entry));
            return Err(fault);
        }
        for (entry, slot) in linked.into_iter().map(|entry: Entry| (entry, entry.mask.trailing_zeros() as usize)) {
            self.events.add(entry);
            self.count(slot, |tally| &mut tally.resent);
        }
        for letter in &there {
            self.volume.unlink(&self.volume.file(Home::Dead(letter.1), letter.0))?;
            self.letters.forget(*letter);
        }
        Ok(there.len() as u64)
    }

    fn name_again(
        &mut self,
        letter: Letter,
        slot: usize,
        linked: &mut Vec<Entry>,
        there: &mut Vec<Letter>,
    ) -> Result<(), DiskError> {
        let Some(blocks) = self.letters.get(letter) else { return Ok(()) };
        let path = self.volume.file(Home::Dead(letter.1), letter.0);
        if self.volume.stat(&path).is_err_and(|fault| fault.source.kind() == io::ErrorKind::NotFound) {
            self.letters.forget(letter); // its link failed, and looked as if it could not be undone
            return Ok(());
        }
        self.unlink_if_done(letter.0, slot)?;
        // If other destinations still lack the event, all use the same file.
        let waiting = self.events.get(letter.0).and_then(|known| Some((known.blocks, slots(known.mask).next()?)));
        let waiting = waiting.map(|(blocks, other)| (blocks, self.name_in(other, letter.0)));
        let (blocks, path) = waiting.filter(|(_, path)| self.volume.stat(path).is_ok()).unwrap_or((blocks, path));
        let entry = Entry { counter: letter.0, blocks, mask: 1 << slot };
        if !self.events.is_in(letter.0, slot) && !linked.contains(&entry) {
            self.link_names(&path, entry)?;
            linked.push(entry);
        }
        there.push(letter);
        Ok(())
    }
}
