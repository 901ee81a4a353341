//! What root made, given to the user that the uplink becomes: the config's folder and the spool.
//!
//! Root must not be led to give away what is not the uplink's: the user may have been taken over in an earlier run, writes the config
//! that names the spool, and may have planted names. So:
//! - Links are never followed, and everything is looked at and changed through one descriptor.
//! - Only private folders (no right for group or others) are ours. A spool must hold what a spool holds, `new` at least: an empty
//!   folder may be anybody's, root's home for one. The config's folder is root's or the user's already, and holds no name that begins
//!   with a dot, as homes do.
//! - What is in it goes if it is root's or that of the folder's owner; a file only if all of its names are in there, for it may be a
//!   second name of something else. That nobody makes names in a spool meanwhile, the init system sees to: it ends one uplink before
//!   the next. In a config's folder that is the user's already, only a file with one name goes.
//! - The folder itself goes last, and after the rest is on the disk: after an interruption the next start goes on. A spool has a group of
//!   its own from the beginning of that to its end. So one whose folder has the user and the group was given whole, and is not
//!   looked through again: that would hold up a start by all that waits in it. What root puts into it later stays root's, and the
//!   uplink says that it cannot read it. What root puts into the config's folder goes at the next start.
//!
//! Root that stays root takes both back: without its capabilities it could not enter a private folder of the user's.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat, syncfs};

use super::User;
use crate::config::folder_of;

/// What lies at the top of a spool.
const SPOOL_NAMES: [&[u8]; 5] = [b"new", b"to", b"dead", b"bad", b"reasons"];
/// `to/DESTINATION/FILE`
const SPOOL_DEPTH: usize = 3;

/// The group of a spool that was not given whole; what it is is of no account, the folder is private.
const UNFINISHED: u32 = 65534;

/// Who takes back what was given.
pub const ROOT: User = User { id: 0, group: 0 };

/// Why a folder, or something in it, stays as it is.
#[derive(Debug, thiserror::Error)]
enum Stays {
    /// Somebody who knows whose it is may give it.
    #[error("{0}")]
    Unsure(&'static str),
    /// Nobody should give it.
    #[error("{0}")]
    Unfit(String),
    /// The system's reason.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<rustix::io::Errno> for Stays {
    fn from(error: rustix::io::Errno) -> Stays {
        Stays::System(error.into())
    }
}

/// The folder of the config at `file`, with the files in it: config and its copies, token, keys.
///
/// # Errors
/// In words, where the folder stays as it is.
pub fn config_folder(file: &Path, user: User) -> Result<(), String> {
    let folder = folder_of(file);
    let is_ours = |found: &Stat, names: &[CString]| {
        if names.iter().any(|name| name.as_bytes().starts_with(b".")) {
            let advice = "names in it begin with a dot, as in a home: move the config into a folder of its own";
            return Err(Stays::Unfit(advice.into()));
        }
        let is_known = user == ROOT || [ROOT.id, user.id].contains(&found.st_uid);
        if is_known { Ok(()) } else { Err(Stays::Unsure("its owner is neither root nor that user")) }
    };
    let what = "config and token may be unreadable, and changes through the API are refused";
    give(folder, user, Extent::Anew, is_ours).map_err(|why| left(folder, user, &why, what))
}

/// The spool's folder with all that is in it, unless it was given before. Where there is none the user makes it, if he may.
///
/// # Errors
/// In words, where the folder stays as it is.
pub fn spool(folder: &Path, user: User) -> Result<(), String> {
    let is_ours = |_: &Stat, names: &[CString]| {
        let is_spool = names.iter().any(|name| name.as_bytes() == SPOOL_NAMES[0])
            && names.iter().all(|name| SPOOL_NAMES.contains(&name.as_bytes()));
        let why = "it does not hold what a spool holds (the folder `new`, to begin with)";
        if is_spool { Ok(()) } else { Err(Stays::Unsure(why)) }
    };
    match give(folder, user, Extent::Whole(SPOOL_DEPTH), is_ours) {
        Err(Stays::System(why)) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        given => given.map_err(|why| left(folder, user, &why, "events may not be stored there")),
    }
}

fn left(folder: &Path, user: User, why: &Stays, what: &str) -> String {
    let folder = folder.display();
    let advice = match why {
        Stays::Unfit(_) => String::new(),
        _ => format!("; to make it the uplink's: chown -R {user} {folder}; chmod 700 {folder}"),
    };
    format!("{folder} stays as it is, {what}: {why}{advice}")
}

/// What of a folder is given.
enum Extent {
    /// All of it, so many levels deep, once.
    Whole(usize),
    /// The files right in it, each time.
    Anew,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Gives the folder and what is in it, if by its owner and the names in it it `is_ours`.
fn give(
    folder: &Path,
    user: User,
    extent: Extent,
    is_ours: impl Fn(&Stat, &[CString]) -> Result<(), Stays>,
) -> Result<(), Stays> {
    let opened = openat(CWD, folder, FOLDER, Mode::empty())?;
    let top = fstat(&opened)?;
    let check = || match top.st_mode & 0o077 {
        0 => is_ours(&top, &names(&opened)?),
        _ => Err(Stays::Unsure("it is not private (mode 700)")),
    };
    let is_the_users = top.st_uid == user.id;
    let (depth, is_once) = match extent {
        Extent::Whole(_) if is_the_users && top.st_gid == user.group => return Ok(()),
        Extent::Whole(depth) => (depth, true),
        Extent::Anew => (1, false),
    };
    if !is_the_users {
        check()?; // before anything in it is looked at
    }
    let is_to_go = |found: &Stat| found.st_uid != user.id && [ROOT.id, top.st_uid].contains(&found.st_uid);
    let mut seen = HashMap::new();
    walk(&opened, depth, &mut |_, found| {
        if is_to_go(found) {
            *seen.entry((found.st_dev, found.st_ino)).or_insert(0) += 1;
        }
        Ok(())
    })?;
    if is_the_users {
        if seen.is_empty() {
            if is_once && check().is_ok() {
                chown(opened.as_fd(), None, user.group)?;
            }
            return Ok(());
        }
        check()?;
    }
    if is_once {
        chown(opened.as_fd(), None, UNFINISHED)?;
    }
    // The uplink may be running while its config is checked, and could give a file another name between the two walks.
    let may_have_names = is_once || !is_the_users;
    let kept = give_inside(&opened, depth, user, |found| {
        let names = seen.get(&(found.st_dev, found.st_ino)).filter(|_| may_have_names || found.st_nlink == 1);
        let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        is_to_go(found).then(|| is_folder || names == Some(&found.st_nlink))
    })?;
    if may_have_names {
        syncfs(&opened)?;
        let is_unfinished = is_once && kept > 0;
        chown(opened.as_fd(), Some(user.id), if is_unfinished { UNFINISHED } else { user.group })?;
    }
    let advice = || format!("names in it of files that have other names elsewhere: {kept}; move these away");
    if kept == 0 { Ok(()) } else { Err(Stays::Unfit(advice())) }
}

/// Gives what `goes` in a folder: nothing is said of what is somebody else's already, false of a file with names elsewhere. How many of
/// those there are.
fn give_inside(folder: &OwnedFd, depth: usize, user: User, goes: impl Fn(&Stat) -> Option<bool>) -> io::Result<u64> {
    let mut kept = 0;
    walk(folder, depth, &mut |named, found| {
        match goes(found) {
            Some(true) => chown(named, Some(user.id), user.group)?,
            Some(false) => kept += 1,
            None => {}
        }
        Ok(())
    })?;
    Ok(kept)
}

/// Calls `each` with the files and folders in a folder, `depth` levels deep; with a folder after what is in it. The last level's
/// folders are left out, and so are other file systems.
fn walk(
    folder: &OwnedFd,
    depth: usize,
    each: &mut dyn FnMut(BorrowedFd<'_>, &Stat) -> io::Result<()>,
) -> io::Result<()> {
    let device = fstat(folder)?.st_dev;
    for name in names(folder)? {
        let named = openat(folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found = fstat(&named)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory if depth > 1 && found.st_dev == device => {
                let inside = openat(&named, c".", FOLDER, Mode::empty())?;
                walk(&inside, depth - 1, each)?;
                each(inside.as_fd(), &found)?;
            }
            FileType::RegularFile if found.st_dev == device => each(named.as_fd(), &found)?,
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

fn chown(file: BorrowedFd<'_>, id: Option<u32>, group: u32) -> io::Result<()> {
    Ok(chownat(file, c"", id.map(Uid::from_raw), Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?)
}
