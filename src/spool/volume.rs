//! The spool's folders on a [`Disk`]: where things lie, and errors that say what failed and where.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Stat};
use super::file::{BAD_SUFFIX, Destination, EVENT_SUFFIX, name};

/// An operation that the disk refused.
#[derive(Debug)]
pub struct Fault {
    /// "write", "link", ...
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Fault {
    /// No room, by blocks, inodes or quota: older events may be given up for it.
    pub fn is_full(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
    }

    /// This file came to nothing; another one may succeed: the flash failed a write, or the name was taken.
    pub fn is_worth_another_file(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EIO)
            || self.source.kind() == io::ErrorKind::AlreadyExists
            || self.operation == SYNC
    }

    /// Another process has the spool's folder.
    pub fn is_claimed(&self) -> bool {
        self.operation == CLAIM && self.source.kind() == io::ErrorKind::WouldBlock
    }

    fn is_not_our_folder(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
    }

    /// This process lacks something (descriptors, memory, places in the SIGBUS guard); the file may be good.
    pub fn is_shortage(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN))
            || self.source.kind() == io::ErrorKind::Other
    }
}

/// [`Fault::operation`] of a file that could not be made durable.
const SYNC: &str = "sync";
/// [`Fault::operation`] of a folder that could not be had for this process alone.
const CLAIM: &str = "claim";

/// A folder of the spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// Files that are being written; wiped at every start.
    New,
    /// Events for a destination.
    To(Destination),
    /// Its dead letters.
    Dead(Destination),
    /// What was set aside.
    Bad,
}

/// A disk and the folder on it that is the spool's.
#[derive(Debug)]
pub struct Volume<D> {
    disk: D,
    root: PathBuf,
    /// Handed to the disk since the start.
    pub bytes_written: u64,
}

impl<D: Disk> Volume<D> {
    /// The spool at `root`, which need not be there.
    pub fn new(disk: D, root: &Path) -> Volume<D> {
        Volume { disk, root: root.to_owned(), bytes_written: 0 }
    }

    /// The spool's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where all folders of destinations are.
    pub fn all_to(&self) -> PathBuf {
        self.root.join("to")
    }

    /// Where all folders of dead letters are.
    pub fn all_dead(&self) -> PathBuf {
        self.root.join("dead")
    }

    /// A folder.
    pub fn folder(&self, home: Home) -> PathBuf {
        match home {
            Home::New => self.root.join("new"),
            Home::To(destination) => self.all_to().join(destination.to_string()),
            Home::Dead(destination) => self.all_dead().join(destination.to_string()),
            Home::Bad => self.root.join("bad"),
        }
    }

    /// A file.
    pub fn file(&self, home: Home, counter: u64) -> PathBuf {
        let suffix = if home == Home::Bad { BAD_SUFFIX } else { EVENT_SUFFIX };
        self.folder(home).join(name(counter, suffix))
    }

    /// Takes the spool's folder for this process alone.
    pub fn claim(&mut self) -> Result<(), Fault> {
        self.disk.claim(&self.root).map_err(fault(CLAIM, &self.root))
    }

    /// Makes the folder at `path`, durable in the one above, which must be there; true when it is new.
    ///
    /// One that was there already may have been made before a crash, and not be durable yet.
    pub fn make_folder(&self, path: &Path) -> Result<bool, Fault> {
        let made = self.disk.make_folder(path).map_err(fault("make the folder", path))?;
        match self.sync_folder(path.parent().unwrap_or(path)) {
            // What is above the spool may be nothing that we can open, or a file system that writes nothing: then the spool's
            // folder was not made by us.
            Err(error) if !made && path == self.root && error.is_not_our_folder() => {}
            other => other?,
        }
        Ok(made)
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, path: &Path) -> Result<(), Fault> {
        self.disk.remove_folder(path).map_err(fault("remove the folder", path))
    }

    /// Makes a file.
    pub fn create(&self, path: &Path) -> Result<D::File, Fault> {
        self.disk.create(path).map_err(fault("create", path))
    }

    /// Opens a file to change it, or makes it; whether it is new.
    pub fn open_or_create(&self, path: &Path) -> Result<(D::File, bool), Fault> {
        match self.disk.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(path).map(|file| (file, true)),
            opened => opened.map(|file| (file, false)).map_err(fault("open", path)),
        }
    }

    /// Writes all of `bytes`.
    pub fn write(&mut self, file: &mut D::File, path: &Path, mut bytes: &[u8], mut offset: u64) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let written = match self.disk.write_at(file, bytes, offset) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                other => other,
            };
            let written = written.map_err(fault("write", path))?;
            bytes = &bytes[written..];
            offset += written as u64;
            self.bytes_written += written as u64;
        }
        Ok(())
    }

    /// What was written may go to the disk from now on, together with other files.
    pub fn begin_to_write_back(&self, file: &D::File) {
        self.disk.begin_to_write_back(file);
    }

    /// Makes a file's bytes durable.
    pub fn sync(&self, file: &mut D::File, path: &Path) -> Result<(), Fault> {
        self.disk.sync(file).map_err(fault(SYNC, path))
    }

    /// Gives a file another name.
    pub fn link(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        self.disk.link(from, to).map_err(fault("link", to))
    }

    /// Takes a name away, if it is there.
    pub fn unlink(&self, path: &Path) -> Result<(), Fault> {
        match self.disk.unlink(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(fault("remove", path)),
        }
    }

    /// Moves a name.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), Fault> {
        self.disk.rename(from, to).map_err(fault("move aside", from))
    }

    /// Makes a folder's names durable.
    pub fn sync_folder(&self, path: &Path) -> Result<(), Fault> {
        self.disk.sync_folder(path).map_err(fault(SYNC, path))
    }

    /// Every name in a folder.
    pub fn list(&self, path: &Path, each: &mut dyn FnMut(&OsStr)) -> Result<(), Fault> {
        self.disk.list(path, each).map_err(fault("list", path))
    }

    /// Size and kind.
    pub fn stat(&self, path: &Path) -> Result<Stat, Fault> {
        self.disk.stat(path).map_err(fault("look at", path))
    }

    /// Opens a file for reading.
    pub fn map(&self, path: &Path) -> Result<D::Mapped, Fault> {
        self.disk.map(path).map_err(fault("read", path))
    }

    /// What is free.
    pub fn free_bytes(&self) -> Result<u64, Fault> {
        self.disk.free_bytes(&self.root).map_err(fault("ask for the free space at", &self.root))
    }
}

fn fault(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Fault {
    move |source| Fault { operation, path: path.to_owned(), source }
}
