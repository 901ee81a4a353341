//! The pictures of an upload: in the ring, or in the spool's file once the event was spooled during the upload.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::picture::{Lost, PictureSource};
use crate::ring::Words;
use crate::ring::consumer::Frame;

/// A record that can be sent and spooled.
pub trait Record: Words + PictureSource + Send + Sync {}

impl<T: Words + PictureSource + Send + Sync> Record for T {}

/// A record that may be relocated while it is read. Ranges always refer to its first place.
pub struct Relocatable {
    place: Mutex<Place>,
}

struct Place {
    record: Arc<dyn Record>,
    /// The offset from the first place to the current one, wrapping: it may be negative.
    shift: usize,
    moved: bool,
}

impl Relocatable {
    /// A record in its first place.
    pub fn new(record: Arc<dyn Record>) -> Relocatable {
        Relocatable { place: Mutex::new(Place { record, shift: 0, moved: false }) }
    }

    /// The record's current place; `frame` is the frame of its first place.
    pub fn place_of(&self, frame: Frame) -> (Arc<dyn Record>, Frame) {
        let place = self.place();
        (Arc::clone(&place.record), Frame { offset: frame.offset.wrapping_add(place.shift), ..frame })
    }

    /// Whether it was relocated.
    pub fn is_relocated(&self) -> bool {
        self.place().moved
    }

    /// Relocates it to `record`, `shift` bytes (wrapping) after its first place.
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

    fn drop_clear(&self) {
        self.place().record.drop_clear();
    }
}
