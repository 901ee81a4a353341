//! Hands over what root created to the user that the uplink becomes: the config's folder and the spool.
//!
//! Root must not be tricked into giving away files that are not the uplink's. An attacker may have controlled the user in an
//! earlier run. The user writes the config, which names the spool, and may have planted names. Therefore:
//! - Links are never followed. Each file is checked and changed through the same descriptor.
//! - Only private folders (no rights for group or others) are handed over. A spool must look like a spool and have at least the
//!   folder `new`: an empty folder may be anybody's, for example root's home. The config's folder must already belong to root or
//!   the user, and must not contain names that begin with a dot, as home folders do.
//! - An item inside is handed over if it belongs to root or the folder's owner. A file is handed over only if all of its hard
//!   links are inside, because it may be a second name of some other file. Nobody creates names in a spool meanwhile: the init
//!   system ends one uplink before it starts the next. In a config's folder that already belongs to the user, only a file with a
//!   single name is handed over.
//! - The folder itself is handed over last, after everything else is on the disk. After an interruption, the next start
//!   continues. A spool has a special group while this is going on. A folder with the user and the user's group was therefore
//!   handed over completely and is not scanned again: a scan would delay the start by the number of events in it. Files that root
//!   puts into a spool later remain root's, and the uplink reports that it cannot read them. Files that root puts into the
//!   config's folder are handed over at the next start.
//!
//! If the uplink stays root, root takes both back: without its capabilities it could not enter a private folder of the user.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat, syncfs};

use super::User;
use crate::config::folder_of;

/// Names at the top of a spool; the last one is in the root of a file system.
const SPOOL_NAMES: [&[u8]; 6] = [b"new", b"to", b"dead", b"bad", b"reasons", b"lost+found"];
/// `to/DESTINATION/FILE`
const SPOOL_DEPTH: usize = 3;

/// The group of a spool that was not handed over completely. Its value does not matter, because the folder is private.
const UNFINISHED: u32 = 65534;

/// The user who takes the folders back.
pub const ROOT: User = User { id: 0, group: 0 };

/// Why a folder, or something in it, is not handed over.
#[derive(Debug, thiserror::Error)]
enum NotHandedOver {
    /// A person who knows the owner may hand it over.
    #[error("{0}")]
    Unsure(&'static str),
    /// Nobody should hand it over.
    #[error("{0}")]
    Unfit(String),
    /// An error of the system.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<rustix::io::Errno> for NotHandedOver {
    fn from(error: rustix::io::Errno) -> NotHandedOver {
        NotHandedOver::System(error.into())
    }
}

/// Hands over the folder of the config at `file` and the files in it: the config and its copies, token, keys.
///
/// # Errors
/// Says in words why the folder was not handed over.
pub fn config_folder(file: &Path, user: User) -> Result<(), String> {
    let folder = folder_of(file);
    let is_ours = |found: &Stat, names: &[CString]| {
        if names.iter().any(|name| name.as_bytes().starts_with(b".")) {
            let advice = "names in it begin with a dot, as in a home: move the config into a folder of its own";
            return Err(NotHandedOver::Unfit(advice.into()));
        }
        let is_known = user == ROOT || [ROOT.id, user.id].contains(&found.st_uid);
        if is_known { Ok(()) } else { Err(NotHandedOver::Unsure("its owner is neither root nor that user")) }
    };
    let what = "config and token may be unreadable, and changes through the API are refused";
    give(folder, user, Extent::Anew, is_ours).map_err(|why| left(folder, user, &why, what))
}

/// Hands over the spool's folder with everything in it, unless that was done before. A missing folder is created later by the
/// user, if permitted.
///
/// # Errors
/// Says in words why the folder was not handed over.
pub fn spool(folder: &Path, user: User) -> Result<(), String> {
    let is_ours = |_: &Stat, names: &[CString]| {
        let is_spool = names.iter().any(|name| name.as_bytes() == SPOOL_NAMES[0])
            && names.iter().all(|name| SPOOL_NAMES.contains(&name.as_bytes()));
        let why = "it does not look like a spool: `new` is missing, or there are other names";
        if is_spool { Ok(()) } else { Err(NotHandedOver::Unsure(why)) }
    };
    match give(folder, user, Extent::Whole(SPOOL_DEPTH), is_ours) {
        Err(NotHandedOver::System(why)) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        given => given.map_err(|why| left(folder, user, &why, "events may not be stored there")),
    }
}

fn left(folder: &Path, user: User, why: &NotHandedOver, what: &str) -> String {
    let folder = folder.display();
    let advice = match why {
        NotHandedOver::Unfit(_) => String::new(),
        _ => format!("; to make it the uplink's: chown -R {user} {folder}; chmod 700 {folder}"),
    };
    format!("{folder} stays as it is, {what}: {why}{advice}")
}

/// How much of a folder is handed over.
enum Extent {
    /// Everything, this many levels deep, once.
    Whole(usize),
    /// The files directly in it, at every start.
    Anew,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Hands over the folder and its contents if `is_ours` accepts its owner and the names in it.
fn give(
    folder: &Path,
    user: User,
    extent: Extent,
    is_ours: impl Fn(&Stat, &[CString]) -> Result<(), NotHandedOver>,
) -> Result<(), NotHandedOver> {
    let opened = openat(CWD, folder, FOLDER, Mode::empty())?;
    let top = fstat(&opened)?;
    let check = || match top.st_mode & 0o077 {
        0 => is_ours(&top, &names(&opened)?),
        _ => Err(NotHandedOver::Unsure("it is not private (mode 700)")),
    };
    let is_the_users = top.st_uid == user.id;
    let (depth, is_once) = match extent {
        Extent::Whole(_) if is_the_users && top.st_gid == user.group => return Ok(()),
        Extent::Whole(depth) => (depth, true),
        Extent::Anew => (1, false),
    };
    if !is_the_users {
        check()?; // before looking at anything in it
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
    // While its config is checked, the uplink may be running and could add a hard link to a file between the two walks.
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
    let advice = || format!("files in it with hard links elsewhere: {kept}; move these files away");
    if kept == 0 { Ok(()) } else { Err(NotHandedOver::Unfit(advice())) }
}

/// Hands over the items in a folder for which `goes` returns true. It returns none for an item of another owner, and false for a
/// file with names elsewhere. Returns the number of those files.
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

/// Calls `each` with the files and folders in a folder, `depth` levels deep. Contents come before their folder. Skips folders on
/// the last level and other file systems.
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
