//! Where the pictures of an upload lie: in the ring, and after the event was spooled under the upload, in its file.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ring::Words;
use crate::ring::mapping::{Lost, PictureSource};

/// A record that can be sent and spooled.
pub trait Record: Words + PictureSource + Send + Sync {}

impl<T: Words + PictureSource + Send + Sync> Record for T {}

/// A record that may move while it is read: ranges go on meaning where it lay first.
pub struct Relocatable {
    place: Mutex<Place>,
}

struct Place {
    record: Arc<dyn Record>,
    /// What to add to an offset, wrapping: it may be further to the front than before.
    shift: usize,
    moved: bool,
}

impl Relocatable {
    /// A record that lies where it is said to lie.
    pub fn new(record: Arc<dyn Record>) -> Relocatable {
        Relocatable { place: Mutex::new(Place { record, shift: 0, moved: false }) }
    }

    /// Where it lies now.
    pub fn record(&self) -> Arc<dyn Record> {
        Arc::clone(&self.place().record)
    }

    /// Whether it moved away from where it lay first.
    pub fn is_relocated(&self) -> bool {
        self.place().moved
    }

    /// It lies in `record` from now on, `shift` bytes (wrapping) further on than where it lay first.
    pub fn relocate(&self, record: Arc<dyn Record>, shift: usize) {
        *self.place() = Place { record, shift, moved: true };
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PictureSource for Relocatable {
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost> {
        let place = self.place();
        let moved = |offset: usize| offset.wrapping_add(place.shift);
        place.record.lend(moved(range.start)..moved(range.end), encode)
    }
}
