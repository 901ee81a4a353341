//! The dead letters in `dead/`, with their reasons.

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
    /// Without letters yet; the reasons are in this file.
    pub fn new(reasons: Reasons<F>) -> Letters<F> {
        Letters { shelf: Shelf::default(), reasons }
    }

    /// Forgets the letters before the folders are listed again: then [`Letters::add`] each, and [`Letters::read_reasons`].
    pub fn clear(&mut self) {
        self.shelf = Shelf::default();
    }

    /// Reads the reasons of all letters.
    ///
    /// # Errors
    /// If their file cannot be read. The next letter tries again.
    pub fn read_reasons<D: Disk<File = F>>(&mut self, volume: &Volume<D>) -> Result<(), DiskError> {
        let shelf = &self.shelf;
        self.reasons.scan(volume, |letter| shelf.contains(letter))
    }

    /// Closes the file with the reasons, because another file will be at its path.
    pub fn close(&mut self) {
        self.reasons.close();
    }

    /// Adds a letter of so many blocks.
    pub fn add(&mut self, letter: Letter, blocks: u32) {
        self.shelf.add(letter, blocks);
    }

    /// Removes a letter whose file will be replaced. Its reason stays until then.
    pub fn will_be_replaced(&mut self, letter: Letter) {
        self.shelf.remove(letter);
    }

    /// Records the reason of a letter. It is durable when this returns.
    ///
    /// # Errors
    /// The operation that failed. A new letter then has no reason; a letter that is there keeps its earlier one.
    pub fn note<D: Disk<File = F>>(
        &mut self,
        volume: &mut Volume<D>,
        letter: Letter,
        reason: &DeadLetterReason,
    ) -> Result<(), DiskError> {
        if !self.reasons.is_known() && self.read_reasons(volume).is_err() {
            self.reasons.append_only(volume)?;
        }
        self.reasons.note(volume, letter, reason)
    }

    /// Removes a letter and its reason. Returns its blocks.
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

    /// The reasons of these letters, as far as they are known. Reads the file once.
    pub fn reasons<D: Disk<File = F>>(&self, volume: &Volume<D>, letters: &[Letter]) -> Vec<Option<DeadLetterReason>> {
        self.reasons.of(volume, letters)
    }

    /// The one at this place, from the oldest on.
    pub fn at(&self, place: usize) -> Option<Letter> {
        self.shelf.iter().nth(place).map(|(letter, _)| letter)
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.shelf.len()
    }

    /// The blocks that they take.
    pub fn blocks(&self) -> u64 {
        self.shelf.blocks()
    }

    /// The blocks that their reasons take.
    pub fn reason_blocks(&self) -> u64 {
        self.reasons.blocks()
    }

    /// Whether they take more than their share of the bounds.
    pub fn has_too_much(&self, bounds: Bounds) -> bool {
        self.shelf.has_too_much(bounds)
    }
}
