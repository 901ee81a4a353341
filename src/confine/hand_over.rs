//! What root made, given to the user that the uplink becomes: the config's folder and the spool.
//!
//! Root must not be led to give away what is not the uplink's: the user may have been taken over in an earlier run, writes the config
//! that names the spool, and may have planted names. So:
//! - Links are never followed, and everything is looked at and changed through one descriptor.
//! - Only private folders (no right for group or others) are ours. A spool must hold what a spool holds, `new` at least: an empty
//!   folder may be anybody's, root's home for one.
//! - Whose folder it is, his are the names in it: only what has the same owner goes with the folder. In root's private folders all
//!   names are root's doing. In the user's own folder a file of root's may be a second name of something else: it is given only if it
//!   has no other name.
//! - The folder itself goes last, and after the rest is on the disk: after an interruption the next start goes on.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat, syncfs};

use super::User;
use crate::config::folder_of;

/// What lies at the top of a spool.
const SPOOL_FOLDERS: [&[u8]; 4] = [b"new", b"to", b"dead", b"bad"];
/// `to/DESTINATION/FILE`
const SPOOL_DEPTH: usize = 3;

/// The folder of the config at `file`, with the files in it: config and its copies, token, keys.
///
/// # Errors
/// In words, where the folder stays as it is.
pub fn config_folder(file: &Path, user: User) -> Result<(), String> {
    let folder = folder_of(file);
    let what = "config and token may be unreadable, and changes through the API are refused";
    give(folder, user, 1, |_| true).map_err(|why| left(folder, user, &why, what))
}

/// The spool's folder with all that is in it. Where there is none the user makes it, if he may.
///
/// # Errors
/// In words, where the folder stays as it is.
pub fn spool(folder: &Path, user: User) -> Result<(), String> {
    let is_spool = |names: &[CString]| {
        names.iter().any(|name| name.as_bytes() == SPOOL_FOLDERS[0])
            && names.iter().all(|name| SPOOL_FOLDERS.contains(&name.as_bytes()))
    };
    match give(folder, user, SPOOL_DEPTH, is_spool) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => {
            Err(left(folder, user, &why, "events may not be stored there"))
        }
        _ => Ok(()),
    }
}

fn left(folder: &Path, user: User, why: &io::Error, what: &str) -> String {
    let folder = folder.display();
    format!(
        "{folder} stays as it is, {what}: {why}; to make it the uplink's: chown -R {user} {folder}; chmod 700 {folder}"
    )
}

/// Gives the folder and what is in it, `depth` levels deep, if by the names in it it `is_ours`.
fn give(folder: &Path, user: User, depth: usize, is_ours: impl Fn(&[CString]) -> bool) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, folder, flags, Mode::empty())?;
    let found = fstat(&opened)?;
    if found.st_uid == user.id && depth > 1 {
        return Ok(()); // it went last: everything in it is his
    }
    if found.st_mode & 0o077 != 0 {
        return Err(io::Error::other("it is not private (mode 700)"));
    }
    if !is_ours(&names(&opened)?) {
        return Err(io::Error::other("it does not hold what a spool holds (the folder `new`, to begin with)"));
    }
    give_content(&opened, &found, user, depth)?;
    if found.st_uid != user.id {
        syncfs(&opened)?;
    }
    chown(opened.as_fd(), user)
}

fn give_content(folder: &OwnedFd, owned: &Stat, user: User, depth: usize) -> io::Result<()> {
    for name in names(folder)? {
        let named = openat(folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found = fstat(&named)?;
        let is_of_owner = found.st_uid == owned.st_uid && found.st_dev == owned.st_dev;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory if is_of_owner && depth > 1 => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = openat(&named, c".", flags, Mode::empty())?;
                give_content(&folder, &found, user, depth - 1)?;
                chown(folder.as_fd(), user)?;
            }
            FileType::RegularFile if is_of_owner || (found.st_uid == 0 && found.st_nlink == 1) => {
                chown(named.as_fd(), user)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn names(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn chown(file: BorrowedFd<'_>, user: User) -> io::Result<()> {
    let (id, group) = (Uid::from_raw(user.id), Gid::from_raw(user.group));
    Ok(chownat(file, c"", Some(id), Some(group), AtFlags::EMPTY_PATH)?)
}
