//! The operations that the spool needs of a disk, and the real disk.
//!
//! Every file operation of the spool goes through [`Disk`]. So a test can use a disk that tears and reorders writes, fills up,
//! and loses what was not flushed (`tests/common/model_disk.rs`). Paths are complete; errors are those of the system.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt as _, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::mapped_file::MappedFile;
use crate::picture::PictureSource;
use crate::ring::Words;

/// The metadata of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its size.
    pub bytes: u64,
    /// Whether it is a regular file.
    pub regular: bool,
    /// Its inode number. All names of a file have the same.
    pub file: u64,
}

/// A file's bytes, readable until this is dropped, even if all its names are deleted.
pub trait Mapped: Words + PictureSource + Send + Sync + 'static {
    /// How many there are.
    fn size(&self) -> usize;
}

/// The operations. None is durable by itself: bytes are durable after [`Disk::sync`], and names after [`Disk::sync_folder`] of
/// their folder.
pub trait Disk {
    /// A file that is being written.
    type File: std::fmt::Debug;
    /// A file that is being read.
    type Mapped: Mapped;

    /// Claims the folder at `path`: no other process can claim it until this disk is dropped, or until the next call finds
    /// another folder there. Then it returns the former folder, which stays claimed until the call after that.
    ///
    /// # Errors
    /// `WouldBlock` if another process has claimed it. A former claim stays.
    fn claim(&mut self, path: &Path) -> io::Result<Option<Former>>;
    /// Whether the folder at `path` is the one that was claimed.
    ///
    /// # Errors
    /// An error of the system; `NotFound` if there is none.
    fn is_claimed(&self, path: &Path) -> io::Result<bool>;
    /// Makes a folder with mode 0700, or uses the existing one. Returns whether it is new. If it is `ours`, an existing one gets
    /// mode 0700, too, if the file system has modes.
    ///
    /// # Errors
    /// An error of the system; `NotADirectory` if the name is not a folder's.
    fn make_folder(&self, path: &Path, ours: bool) -> io::Result<bool>;
    /// Removes an empty folder.
    ///
    /// # Errors
    /// An error of the system.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Creates a file with mode 0600. The name must be free.
    ///
    /// # Errors
    /// An error of the system.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens an existing file for writing.
    ///
    /// # Errors
    /// An error of the system; `InvalidData` if it is no regular file.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Writes some of `bytes` at `offset`. Returns how many.
    ///
    /// # Errors
    /// An error of the system.
    fn write_at(&self, file: &mut Self::File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes a file's bytes durable.
    ///
    /// # Errors
    /// An error of the system. The bytes are lost then, even if a second call succeeds.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;
    /// Gives a file another name, which must be free.
    ///
    /// # Errors
    /// An error of the system.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a name. The file is deleted with its last name.
    ///
    /// # Errors
    /// An error of the system.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, and replaces a file with the new name.
    ///
    /// # Errors
    /// An error of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a folder's names durable.
    ///
    /// # Errors
    /// An error of the system.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Calls `each` with every name in a folder, in any order.
    ///
    /// # Errors
    /// An error of the system.
    fn list(&self, path: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()>;
    /// The metadata of a name. Links are not followed.
    ///
    /// # Errors
    /// An error of the system.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// Opens a file for reading.
    ///
    /// # Errors
    /// An error of the system; `InvalidData` if it is empty or no regular file.
    fn map(&self, path: &Path) -> io::Result<Self::Mapped>;
    /// The free space for this process on the file system of `path`.
    ///
    /// # Errors
    /// An error of the system.
    fn free(&self, path: &Path) -> io::Result<Free>;
}

/// The free space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes.
    pub bytes: u64,
    /// Free inodes; `u64::MAX` if the file system does not count them.
    pub files: u64,
}

/// A claimed folder whose path leads to another folder now.
#[derive(Clone, Debug)]
pub struct Former {
    /// The path by which it can be reached while it is claimed.
    pub root: PathBuf,
    /// Whether the folder at the path now is the one that was claimed before this one.
    pub is_back: bool,
}

/// The real disk.
#[derive(Debug, Default)]
pub struct RealDisk {
    claim: Option<Flock<File>>,
    former: Option<Flock<File>>,
}

/// The device and inode of a folder.
fn identity(folder: &Metadata) -> (u64, u64) {
    (folder.dev(), folder.ino())
}

fn is_same(claim: &Flock<File>, folder: &Metadata) -> bool {
    claim.metadata().is_ok_and(|claimed| identity(&claimed) == identity(folder))
}

impl Mapped for MappedFile {
    fn size(&self) -> usize {
        MappedFile::size(self)
    }
}

impl Disk for RealDisk {
    type File = File;
    type Mapped = MappedFile;

    fn claim(&mut self, path: &Path) -> io::Result<Option<Former>> {
        let folder = File::open(path)?;
        let found = folder.metadata()?;
        if self.claim.as_ref().is_some_and(|claim| is_same(claim, &found)) {
            return Ok(None);
        }
        let back = self.former.take_if(|former| is_same(former, &found));
        let is_back = back.is_some();
        let claim =
            match back {
                Some(back) => back,
                None => Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(
                    |(_, error)| match io::Error::from(error) {
                        error if error.kind() == io::ErrorKind::WouldBlock => {
                            io::Error::new(error.kind(), "another process uses it")
                        }
                        error => error,
                    },
                )?,
            };
        self.former = self.claim.replace(claim);
        let reached = |former: &Flock<File>| PathBuf::from(format!("/proc/self/fd/{}", former.as_raw_fd()));
        Ok(self.former.as_ref().map(|former| Former { root: reached(former), is_back }))
    }

    fn is_claimed(&self, path: &Path) -> io::Result<bool> {
        let found = fs::metadata(path)?;
        Ok(self.claim.as_ref().is_some_and(|claim| is_same(claim, &found)))
    }

    fn make_folder(&self, path: &Path, ours: bool) -> io::Result<bool> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = fs::metadata(path)?;
                if !found.is_dir() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                if ours && found.permissions().mode() & 0o777 != 0o700 {
                    match fs::set_permissions(path, Permissions::from_mode(0o700)) {
                        // A file system without modes, or a read-only one: the mount decides.
                        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EROFS)) => {}
                        set => set?,
                    }
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        open_regular(OpenOptions::new().write(true), path)
    }

    fn write_at(&self, file: &mut File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(file, bytes, offset)
    }

    fn sync(&self, file: &mut File) -> io::Result<()> {
        file.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            each(&entry?.file_name());
        }
        Ok(())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        fs::symlink_metadata(path).map(|found| Stat { bytes: found.len(), regular: found.is_file(), file: found.ino() })
    }

    fn map(&self, path: &Path) -> io::Result<MappedFile> {
        MappedFile::of(&open_regular(OpenOptions::new().read(true), path)?)
    }

    fn free(&self, path: &Path) -> io::Result<Free> {
        let found = nix::sys::statvfs::statvfs(path)?;
        let bytes = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
        let files = if found.files() == 0 { u64::MAX } else { found.files_available() as u64 };
        Ok(Free { bytes, files })
    }
}

/// Follows no link, and does not wait for a pipe.
fn open_regular(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let opened = how.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENXIO | libc::EISDIR) => io::ErrorKind::InvalidData.into(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
}
