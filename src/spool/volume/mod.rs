//! The spool's folders on a [`Disk`]: the paths, and operations whose errors say what failed and where.

mod links;
pub use links::has_links;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Former, Free, Mapped as _, Stat};
pub use super::disk_error::DiskError;
use super::disk_error::{CLAIM, SYNC, fault};
use super::file::{BAD_SUFFIX, Destination, EVENT_SUFFIX, name};
use super::reasons::REASONS_FILE;
use crate::picture::PictureSource as _;

/// With this many names in `new/` that cannot be deleted, nothing is stored.
const MAX_UNDELETED: usize = 8;

/// The folders of a spool, in the order in which a start makes them.
const FOLDERS: [&str; 4] = ["new", "to", "dead", "bad"];
/// Other names that may be beside them; the last one is in the root of a file system.
const OTHERS: [&str; 2] = [REASONS_FILE, "lost+found"];

/// A folder of the spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// Files that are being written. Every start deletes them.
    New,
    /// Events for a destination.
    To(Destination),
    /// Its dead letters.
    Dead(Destination),
    /// Quarantine.
    Bad,
}

/// The spool's folder on a disk.
#[derive(Debug)]
pub struct Volume<D> {
    disk: D,
    root: PathBuf,
    bytes_written: u64,
    has_links: bool,
    /// Names in `new/` that could not be deleted.
    undeleted: Vec<u64>,
}

impl<D: Disk> Volume<D> {
    /// The spool at `root`, which need not exist.
    pub fn new(disk: D, root: &Path) -> Volume<D> {
        Volume { disk, root: root.to_owned(), bytes_written: 0, has_links: true, undeleted: Vec::new() }
    }

    /// Bytes written to the disk since the start.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Whether the file system has hard links. If not (vfat, exFAT, some FUSE), each further name is a copy.
    pub fn has_links(&self) -> bool {
        self.has_links
    }

    /// The spool's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder with the folders of all destinations.
    pub fn all_to(&self) -> PathBuf {
        self.root.join("to")
    }

    /// The folder with the folders of all dead letters.
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

    /// Claims the spool's folder for this process alone. Returns the former folder, if another one is at the path now.
    pub fn claim(&mut self) -> Result<Option<Former>, DiskError> {
        self.disk.claim(&self.root).map_err(fault(CLAIM, &self.root))
    }

    /// Makes the folder at `path`, and makes it durable in its parent, which must exist. Returns whether it is new.
    ///
    /// A folder that exists may have been made before a crash, and may not be durable yet.
    pub fn make_folder(&self, path: &Path) -> Result<bool, DiskError> {
        let made = self.disk.make_folder(path, path != self.root).map_err(fault("make the folder", path))?;
        match self.sync_folder(path.parent().unwrap_or(path)) {
            // The parent of the spool's folder may be unreadable, or on a file system that cannot be written: then this process
            // did not make the spool's folder.
            Err(error) if !made && path == self.root && error.is_not_our_folder() => {}
            other => other?,
        }
        Ok(made)
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove_folder(path).map_err(fault("remove the folder", path))
    }

    /// Creates a file.
    pub fn create(&self, path: &Path) -> Result<D::File, DiskError> {
        self.disk.create(path).map_err(fault("create", path))
    }

    /// Opens a file for writing, or creates it.
    pub fn open_or_create(&self, path: &Path) -> Result<D::File, DiskError> {
        match self.disk.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(path),
            opened => opened.map_err(fault("open", path)),
        }
    }

    /// Writes all of `bytes`.
    pub fn write(
        &mut self,
        file: &mut D::File,
        path: &Path,
        mut bytes: &[u8],
        mut offset: u64,
    ) -> Result<(), DiskError> {
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

    /// Makes a file's bytes durable.
    pub fn sync(&self, file: &mut D::File, path: &Path) -> Result<(), DiskError> {
        self.disk.sync(file).map_err(fault(SYNC, path))
    }

    /// Checks that the folder at the spool's path may be used: it does not exist, is empty, or has the content of a spool.
    /// Another program's folder is not touched.
    pub fn check_folder(&self) -> Result<(), DiskError> {
        let mut names = Vec::new();
        if self.disk.list(&self.root, &mut |name| names.push(name.to_owned())).is_err() {
            return Ok(()); // not there; or what is wrong with it will be said when it is made or claimed
        }
        let has = |name: &str| names.iter().any(|other| other == name);
        let is_whole = FOLDERS.iter().all(|folder| has(folder));
        let others: Vec<_> =
            names.iter().filter(|name| ![&FOLDERS[..], &OTHERS].concat().iter().any(|ours| name == ours)).collect();
        // An interrupted start made `new` first, and put nothing into it.
        let mut is_in_new = false;
        let _no_such_folder = self.disk.list(&self.root.join(FOLDERS[0]), &mut |_| is_in_new = true);
        if is_whole || (others.is_empty() && (has(FOLDERS[1]) || !is_in_new)) {
            return Ok(());
        }
        let what = others.first().map_or("a `new` that is no spool's".into(), |name| format!("{name:?}"));
        Err(fault("use", &self.root)(io::Error::other(format!(
            "it is not empty and no spool (it holds {what}): set spool.dir to a folder of its own; nothing in it was touched"
        ))))
    }

    /// Whether the folder at the spool's path is the one that was claimed.
    pub fn is_claimed(&self) -> Result<bool, DiskError> {
        self.disk.is_claimed(&self.root).map_err(fault("look at", &self.root))
    }

    /// Deletes a name, if it exists.
    pub fn unlink(&self, path: &Path) -> Result<(), DiskError> {
        match self.disk.unlink(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(fault("remove", path)),
        }
    }

    /// Deletes the name under which a file was written, now or in a later sweep.
    pub fn remove_fresh(&mut self, counter: u64) {
        if self.unlink(&self.file(Home::New, counter)).is_err() {
            self.undeleted.push(counter);
        }
    }

    /// Tries again to delete the names that could not be deleted.
    ///
    /// # Errors
    /// If there are so many that no file may be written before they are gone.
    pub fn sweep(&mut self) -> Result<(), DiskError> {
        while let Some(counter) = self.undeleted.last().copied() {
            match self.unlink(&self.file(Home::New, counter)) {
                Ok(()) => drop(self.undeleted.pop()),
                Err(_) if self.undeleted.len() < MAX_UNDELETED => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Notes that `new/` is empty.
    pub fn is_swept(&mut self) {
        self.undeleted.clear();
    }

    /// How many names in `new/` could not be deleted.
    pub fn undeleted(&self) -> usize {
        self.undeleted.len()
    }

    /// Moves a name.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.disk.rename(from, to).map_err(fault("move aside", from))
    }

    /// Makes a folder's names durable.
    pub fn sync_folder(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.sync_folder(path).map_err(fault(SYNC, path))
    }

    /// Every name in a folder.
    pub fn list(&self, path: &Path, each: &mut dyn FnMut(&OsStr)) -> Result<(), DiskError> {
        self.disk.list(path, each).map_err(fault("list", path))
    }

    /// Every name in a folder: those that `parse` accepts, and the others.
    pub fn names<T>(
        &self,
        folder: &Path,
        parse: impl Fn(&OsStr) -> Option<T>,
    ) -> Result<(Vec<T>, Vec<OsString>), DiskError> {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        self.list(folder, &mut |name| match parse(name) {
            Some(parsed) => ours.push(parsed),
            None => others.push(name.to_owned()),
        })?;
        Ok((ours, others))
    }

    /// The size and kind of a file.
    pub fn stat(&self, path: &Path) -> Result<Stat, DiskError> {
        self.disk.stat(path).map_err(fault("look at", path))
    }

    /// Opens a file for reading.
    pub fn map(&self, path: &Path) -> Result<D::Mapped, DiskError> {
        self.disk.map(path).map_err(fault("read", path))
    }

    /// At most `most` bytes of a file that is no event. None if there is no such file, or if it is empty.
    ///
    /// # Errors
    /// If it cannot be read, so that nothing is known.
    pub fn read_small(&self, path: &Path, most: usize) -> Result<Option<Vec<u8>>, DiskError> {
        let mapped = match self.map(path) {
            Err(fault) if matches!(fault.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                return Ok(None);
            }
            mapped => mapped?,
        };
        let mut bytes = Vec::new();
        let lent = mapped.lend(0..mapped.size().min(most), &mut |part| bytes.extend_from_slice(part));
        lent.map_err(|_| fault("read", path)(io::Error::from_raw_os_error(libc::EIO)))?;
        Ok(Some(bytes))
    }

    /// The free space and files.
    pub fn free(&self) -> Result<Free, DiskError> {
        self.disk.free(&self.root).map_err(fault("ask for the free space at", &self.root))
    }
}
