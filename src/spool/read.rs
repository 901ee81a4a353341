//! Opening an event: whatever is wrong with it, the reader goes on.

use std::io;
use std::path::PathBuf;

use super::disk::Disk;
use super::file::{Destination, Flaw, SpooledEvent};
use super::volume::{Fault, Home};
use super::{Hidden, Spool};

/// Why an event was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there: delivered, evicted, or removed by somebody else.
    #[error("the event is not in the spool any more")]
    Gone,
    /// It was set aside; take the next one.
    #[error("the spooled event is damaged ({reason}); {}", .moved_to.as_ref().map_or("it could not be kept".into(), |path| format!("it is now {}", path.display())))]
    Damaged {
        /// What is wrong with it.
        reason: String,
        /// None where it could not be moved, or was too large to be kept.
        moved_to: Option<PathBuf>,
    },
    /// The disk cannot read it now. It stays, and is offered again after the next start; take the next one.
    #[error("the spooled event cannot be read: {0}")]
    Unreadable(String),
    /// This process lacks something; nothing is wrong with the event. Try again later.
    #[error("{0}")]
    Shortage(Fault),
}

impl<D: Disk> Spool<D> {
    /// Opens an event and checks all of it.
    ///
    /// # Errors
    /// [`ReadError`]; but for a shortage the event is not offered again, so that the reader always goes on.
    pub fn read(&mut self, destination: Destination, counter: u64) -> Result<SpooledEvent<D::Mapped>, ReadError> {
        let slot = self.slot(destination).filter(|slot| self.is_in(counter, *slot)).ok_or(ReadError::Gone)?;
        let flaw = match self.volume.map(&self.volume.file(Home::To(destination), counter)) {
            Ok(mapped) => match SpooledEvent::check(mapped) {
                Ok(event) => return Ok(event),
                Err(flaw) => flaw,
            },
            Err(fault) if fault.source.kind() == io::ErrorKind::NotFound => {
                self.forget(counter, slot);
                self.count(slot, |tally| &mut tally.vanished);
                return Err(ReadError::Gone);
            }
            Err(fault) if fault.source.kind() == io::ErrorKind::InvalidData => {
                Flaw::Damaged("it is empty or no file".into())
            }
            Err(fault) if fault.is_shortage() => return Err(ReadError::Shortage(fault)),
            Err(fault) => {
                self.hidden.insert((counter, slot), Hidden::Stuck);
                return Err(ReadError::Unreadable(fault.to_string()));
            }
        };
        match flaw {
            Flaw::Damaged(reason) => {
                let moved_to = self.set_aside(destination, counter).ok().flatten();
                Err(ReadError::Damaged { reason, moved_to })
            }
            Flaw::Unreadable => {
                self.skip(destination, counter);
                Err(ReadError::Unreadable("its file was truncated, or the disk failed".into()))
            }
        }
    }

    /// The event could not be read to its end (its mapping was lost): it stays, and is not offered again before the next start.
    pub fn skip(&mut self, destination: Destination, counter: u64) {
        if let Some(slot) = self.slot(destination).filter(|slot| self.is_in(counter, *slot)) {
            self.hidden.insert((counter, slot), Hidden::Stuck);
        }
    }
}
