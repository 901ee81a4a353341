//! How a picture's bytes are lent, whatever memory they are in: the ring, a spooled file, a picture of a test.

use std::ops::Range;

/// The memory of a record was lost while it was being read: the ring's file was truncated, or a spooled file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file under the event was truncated, or failed, while it was read")]
pub struct Lost;

/// The memory that a picture's bytes are in.
pub trait PictureSource {
    /// Passes the bytes of `range` to `encode`, which must not keep them, and must not assume that they stay the same.
    ///
    /// # Errors
    /// [`Lost`] if the memory was lost; then `encode` did not see the picture.
    fn lend(&self, range: Range<usize>, encode: &mut dyn FnMut(&[u8])) -> Result<(), Lost>;

    /// The event was read to its end: drops what is held of it in clear. It can be read again.
    fn drop_clear(&self) {}
}
