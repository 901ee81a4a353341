//! The dead letters that lie in `dead/`, with their reasons.

use super::Bounds;
use super::disk::Disk;
use super::file::Destination;
use super::reasons::{DeadLetterReason, Letter, Reasons};
use super::shelf::Shelf;
use super::volume::{DiskError, Volume};

/// See the module.
#[derive(Debug)]
pub struct Letters<F> {
    shelf: Shelf<Letter>,
    reasons: Reasons<F>,
}

impl<F> Letters<F> {
    /// None; the reasons are in this file.
    pub fn new(reasons: Reasons<F>) -> Letters<F> {
        Letters { shelf: Shelf::default(), reasons }
    }

    /// The folders are listed anew: [`Letters::add`] what is there, then [`Letters::read_reasons`].
    pub fn clear(&mut self) {
        self.shelf = Shelf::default();
    }

    /// Reads why the letters are some.
    pub fn read_reasons<D: Disk<File = F>>(&mut self, volume: &Volume<D>) {
        let shelf = &self.shelf;
        self.reasons.survey(volume, |letter| shelf.contains(letter));
    }

    /// The file with the reasons is another one from now on.
    pub fn close(&mut self) {
        self.reasons.close();
    }

    /// A letter is there, of so many blocks.
    pub fn add(&mut self, letter: Letter, blocks: u32) {
        self.shelf.add(letter, blocks);
    }

    /// A letter's file is gone, and there will be another one: its reason stays until then.
    pub fn will_be_replaced(&mut self, letter: Letter) {
        self.shelf.remove(letter);
    }

    /// Writes down why a letter is one; durable when this returns.
    ///
    /// # Errors
    /// What failed; the letter then has no reason.
    pub fn note<D: Disk<File = F>>(
        &mut self,
        volume: &mut Volume<D>,
        letter: Letter,
        reason: &DeadLetterReason,
    ) -> Result<(), DiskError> {
        self.reasons.note(volume, letter, reason)
    }

    /// A letter is none any more; its blocks.
    pub fn forget(&mut self, letter: Letter) -> Option<u32> {
        self.reasons.forget(letter);
        self.shelf.remove(letter)
    }

    /// Whether there is such a letter.
    pub fn contains(&self, letter: Letter) -> bool {
        self.shelf.contains(letter)
    }

    /// A letter's blocks.
    pub fn get(&self, letter: Letter) -> Option<u32> {
        self.shelf.get(letter)
    }

    /// All of them with their blocks, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Letter, u32)> {
        self.shelf.iter()
    }

    /// Those with a number above `after`, the oldest first.
    pub fn after(&self, after: Option<u64>) -> impl Iterator<Item = Letter> {
        let from = after.map_or(Some(0), |after| after.checked_add(1));
        from.into_iter().flat_map(|from| self.shelf.from((from, Destination([0; 8]))))
    }

    /// The oldest one.
    pub fn oldest(&self) -> Option<Letter> {
        self.shelf.oldest()
    }

    /// Why these are dead letters, as far as that is known. Reads the file once.
    pub fn reasons<D: Disk<File = F>>(&self, volume: &Volume<D>, letters: &[Letter]) -> Vec<Option<DeadLetterReason>> {
        self.reasons.of(volume, letters)
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.shelf.len()
    }

    /// What they take.
    pub fn blocks(&self) -> u64 {
        self.shelf.blocks()
    }

    /// What their reasons take.
    pub fn reason_blocks(&self) -> u64 {
        self.reasons.blocks()
    }

    /// Whether they take more than the part of the bounds that is theirs.
    pub fn has_too_much(&self, bounds: Bounds) -> bool {
        self.shelf.has_too_much(bounds)
    }
}
