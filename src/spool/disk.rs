//! What the spool asks of a disk, and the real one.
//!
//! Every file operation of the spool goes through [`Disk`], so that a test can be a disk that tears, reorders, fills up and forgets
//! what was not flushed (`tests/common/model_disk.rs`). Paths are whole paths; errors are the system's own.

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

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its size.
    pub bytes: u64,
    /// Whether it is a regular file.
    pub regular: bool,
    /// The file's own number: names of one file have the same.
    pub file: u64,
}

/// A file's bytes, readable until this is dropped, whatever becomes of its names.
pub trait Mapped: Words + PictureSource + Send + Sync + 'static {
    /// How many there are.
    fn size(&self) -> usize;
}

/// The operations. None of them is durable by itself: a file's bytes are after [`Disk::sync`], names after
/// [`Disk::sync_folder`] of the folder that they are in.
pub trait Disk {
    /// A file that is being written.
    type File: std::fmt::Debug;
    /// A file that is being read.
    type Mapped: Mapped;

    /// Keeps other processes' spools out of the folder at `path` until this disk is dropped, or the next call finds another folder
    /// there. What was claimed before is then said, and stays claimed until the call after that.
    ///
    /// # Errors
    /// `WouldBlock` where another process has it; what was claimed stays so.
    fn claim(&mut self, path: &Path) -> io::Result<Option<Former>>;
    /// Whether the folder at `path` is the one that was claimed.
    ///
    /// # Errors
    /// What the system says, `NotFound` where there is none.
    fn is_claimed(&self, path: &Path) -> io::Result<bool>;
    /// Makes a folder, 0700, or takes the one there; true when it is new. One of `ours` is made 0700, where its file system can say so.
    ///
    /// # Errors
    /// What the system says; `NotADirectory` where something else has the name.
    fn make_folder(&self, path: &Path, ours: bool) -> io::Result<bool>;
    /// Removes an empty folder.
    ///
    /// # Errors
    /// What the system says.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes a file, 0600; the name must be free.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file that is there, to change it.
    ///
    /// # Errors
    /// What the system says; `InvalidData` for what is no regular file.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Writes some of `bytes` at `offset` and says how many.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, file: &mut Self::File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the system says; what was written is then lost even if a second call should succeed.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;
    /// Gives a file another name, which must be free.
    ///
    /// # Errors
    /// What the system says.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away; with its last name goes the file.
    ///
    /// # Errors
    /// What the system says.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Moves a name, over what is there.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a folder's names durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Calls `each` with every name in a folder, in no order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &Path, each: &mut dyn FnMut(&OsStr)) -> io::Result<()>;
    /// Size and kind of what has this name; links are not followed.
    ///
    /// # Errors
    /// What the system says.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// Opens a file for reading.
    ///
    /// # Errors
    /// What the system says; `InvalidData` for an empty file and for what is no regular file.
    fn map(&self, path: &Path) -> io::Result<Self::Mapped>;
    /// What is free for us on the file system of `path`.
    ///
    /// # Errors
    /// What the system says.
    fn free(&self, path: &Path) -> io::Result<Free>;
}

/// What is free on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes.
    pub bytes: u64,
    /// Files that can still be made (inodes); `u64::MAX` where it does not count them.
    pub files: u64,
}

/// The folder that was claimed before, now that another one lies at its path.
#[derive(Clone, Debug)]
pub struct Former {
    /// By which it can be reached, as long as it is claimed.
    pub root: PathBuf,
    /// Where there is another folder at the path now: whether that is the one that was claimed before the former one.
    pub is_back: bool,
}

/// The machine's own disk.
#[derive(Debug, Default)]
pub struct RealDisk {
    claim: Option<Flock<File>>,
    former: Option<Flock<File>>,
}

/// Which folder it is, whatever its name.
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
                        // A file system without rights, or one that is not written to: they are as it was mounted.
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

/// Neither a link nor a pipe is followed or waited for, should one have the name.
fn open_regular(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let opened = how.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENXIO | libc::EISDIR) => io::ErrorKind::InvalidData.into(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
}
