//! Further names of an event: hard links, or copies where a file is a group's or the file system has no links.

use std::io;
use std::path::Path;

use super::super::disk::{Disk, Mapped as _};
use super::super::disk_error::fault;
use super::super::file::{EVENT_SUFFIX, counter};
use super::super::group::Part;
use super::{DiskError, Home, Volume};
use crate::picture::PictureSource as _;

impl<D: Disk> Volume<D> {
    /// Gives a file another name, which must be free. Without hard links, the name gets a durable copy.
    pub fn link(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        if self.has_links {
            match self.disk.link(from, to) {
                // EPERM also comes for another user's file: names of our own tell. This file is copied in either case.
                Err(error) if means_no_links(&error) => self.probe_links(),
                linked => return linked.map_err(fault("link", to)),
            }
        }
        self.copy(from, event_of(to), to).map(drop)
    }

    /// Gives an event another name, which must be free. An event in a group is copied to its own file, which is durable then.
    /// Returns the size of the file.
    pub fn link_alone(&mut self, from: &Path, to: &Path) -> Result<u64, DiskError> {
        let size = event_of(to).map_or(Ok(None), |event| self.size_in_group(from, event))?;
        if size.is_some() {
            self.copy(from, event_of(to), to)
        } else {
            self.link(from, to)?;
            self.stat(to).map(|found| found.bytes)
        }
    }

    /// The size of an event in its own file, if it shares one with others. None if that cannot be read.
    ///
    /// # Errors
    /// A shortage of descriptors or memory.
    pub fn size_in_group(&self, from: &Path, event: u64) -> Result<Option<u64>, DiskError> {
        match self.map(from) {
            Err(fault) if fault.is_shortage() => Err(fault),
            Err(_) => Ok(None),
            Ok(mapped) => {
                let part = Part::of(mapped, event).ok().filter(|part| part.first().is_some());
                Ok(part.map(|part| part.size() as u64))
            }
        }
    }

    /// As [`Volume::link`], for a file whose first name is not needed any more.
    pub fn link_last(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        if self.has_links { self.link(from, to) } else { self.rename_to_free(from, to) }
    }

    fn rename_to_free(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        match self.disk.stat(to) {
            Ok(_) => Err(fault("move to", to)(io::ErrorKind::AlreadyExists.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.rename(from, to).map_err(fault("move to", to))
            }
            Err(error) => Err(fault("look at", to)(error)),
        }
    }

    /// Copies a file, or its part with this event. The copy gets the name `to` when it is complete and durable; the name itself
    /// is not durable yet. Returns its size. An error about `from` itself has that path.
    pub fn copy(&mut self, from: &Path, event: Option<u64>, to: &Path) -> Result<u64, DiskError> {
        let cannot_be_read = || fault("read", from)(io::Error::from_raw_os_error(libc::EIO));
        let (mapped, fresh) = (self.map(from)?, self.folder(Home::New).join("copy"));
        let mapped = match event {
            Some(event) => Part::of(mapped, event).map_err(|_| cannot_be_read())?,
            None => Part::whole(mapped),
        };
        self.unlink(&fresh)?;
        let mut file = self.create(&fresh)?;
        let mut at = 0;
        let mut written = Ok(());
        let lent = mapped.lend(0..mapped.size(), &mut |bytes| {
            if written.is_ok() {
                written = self.write(&mut file, &fresh, bytes, at);
                at += bytes.len() as u64;
            }
        });
        let read = lent.map_err(|_| cannot_be_read());
        let copied = written.and(read).and_then(|()| self.sync(&mut file, &fresh));
        let copied = copied.and_then(|()| self.rename_to_free(&fresh, to));
        copied.inspect_err(|_| drop(self.unlink(&fresh))).map(|()| at)
    }

    /// Finds out whether the file system has hard links. Writes no byte. Other failures are ignored: they will recur where they
    /// matter.
    pub fn probe_links(&mut self) {
        let new = self.folder(Home::New);
        self.has_links = has_links(&self.disk, &new.join("probe"), &new.join("probe-2"));
    }
}

/// The number of the event whose file has this name.
fn event_of(path: &Path) -> Option<u64> {
    counter(path.file_name()?, EVENT_SUFFIX)
}

/// Whether a file can have both of these names, which are free afterwards.
pub fn has_links<D: Disk>(disk: &D, one: &Path, other: &Path) -> bool {
    if disk.create(one).is_err() {
        return true; // nothing is known
    }
    let linked = disk.link(one, other);
    let _wiped_at_the_next_start = (disk.unlink(other), disk.unlink(one));
    !linked.is_err_and(|error| means_no_links(&error))
}

/// The errors of file systems without hard links. EPERM also comes for another user's file: [`has_links`] tries files of our own.
fn means_no_links(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS))
}
