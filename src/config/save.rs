//! Replaces the config file atomically: whatever ends the process or the power, the old file or the new one is there.
//!
//! ```text
//!  new text ──▶ FILE.new ──fsync──▶ rename over FILE ──▶ fsync of the folder
//!                    ├─ FILE is bad: rename over FILE.bad, then exchange FILE and FILE.bad in one step
//!                    └─ FILE is a mount (EBUSY): rename to FILE.saving ──▶ FILE is truncated, then written
//!                                                            ──fsync──▶ FILE.saving is removed
//!  and once it is in force, the same way: the same text ──▶ FILE.bak
//! ```
//! - FILE is never missing in between. If the path is a symbolic link, the link is followed first and stays.
//! - FILE.bak is the config in force, and never newer than FILE.
//! - A bad FILE is moved to FILE.bad and not copied: it may be large, or belong to another user and be unreadable to us.
//! - A FILE that was only partly written in place is not valid JSON, because it was emptied first. FILE.saving then has the whole
//!   text, and the next start completes FILE ([`finish`]).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{folder_of, read_file};

/// Mode of a new file. A replaced file keeps its owner and mode.
const MODE: u32 = 0o600;
/// Maximum number of links to follow, the same as the kernel's limit.
const MOST_LINKS: usize = 40;

/// Replaces the file at `path` with `new`. `old` is the present content if it is good; otherwise the file is kept as `FILE.bad`.
/// Returns whether that was done: there may be no file.
///
/// # Errors
/// Errors of the file system. The old file is then still there, or there again.
pub fn replace(path: &Path, new: &[u8], old: Option<&[u8]>) -> io::Result<bool> {
    let path = &followed(path);
    match (old, fs::symlink_metadata(path)) {
        (Some(old), _) => write(path, path, new).map(|()| false).inspect_err(|_| {
            // The rename may have succeeded and only its durability be in doubt. After a reported failure, the old file must be
            // there.
            if fs::read(path).is_ok_and(|now| now == new) {
                let _ = write(path, path, old);
            }
        }),
        (None, Err(error)) if error.kind() == ErrorKind::NotFound => write(path, path, new).map(|()| false),
        (None, Err(error)) => Err(error),
        (None, Ok(found)) if found.is_file() => replace_bad(path, new).map(|()| true),
        (None, Ok(_)) => Err(io::Error::other("there is something else than a file in its place; take it away")),
    }
}

/// Moves a bad file to `FILE.bad`, whoever may read it and however large it is.
fn replace_bad(path: &Path, new: &[u8]) -> io::Result<()> {
    let bad = beside(path, "bad");
    write(path, &bad, new)?;
    let exchanged = renameat_with(CWD, path, CWD, &bad, RenameFlags::EXCHANGE);
    match exchanged.map_err(io::Error::from) {
        Ok(()) => File::open(folder_of(path))?.sync_all(),
        Err(error) => {
            let _ = fs::remove_file(&bad); // it has the new text: no bad file was put there
            // The file is a mount, or the file system cannot exchange names: copy what can be read.
            let copied = read_file(path).and_then(|old| write(path, &bad, &old));
            copied.map_err(|why| {
                io::Error::new(why.kind(), format!("the old file cannot be moved aside: {error}, {why}"))
            })?;
            write(path, path, new)
        }
    }
}

/// Makes `FILE.bak` contain `in_force`. Writes nothing if it already does.
///
/// # Errors
/// Errors of the file system.
pub fn keep(path: &Path, in_force: &[u8]) -> io::Result<()> {
    let path = &followed(path);
    let bak = beside(path, "bak");
    if fs::read(&bak).is_ok_and(|there| there == in_force) {
        return Ok(());
    }
    write(path, &bak, in_force)
}

/// Completes a write in place of `text` that was cut off. The file then contains the beginning of `text`, perhaps followed by
/// zeros; a file that somebody has changed since then stays. If `text` is none, the file itself is good, and FILE.saving is only
/// removed. Returns whether there was anything to do.
///
/// # Errors
/// Errors of the file system.
pub fn finish(path: &Path, text: Option<&[u8]>) -> io::Result<bool> {
    let path = &followed(path);
    let saving = beside(path, "saving");
    let whole = match fs::read(&saving) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        whole => whole?,
    };
    if let Some(text) = text {
        let torn = read_file(path)?;
        let written = torn.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if whole != text || !text.starts_with(&torn[..written]) {
            return Ok(false);
        }
        fill_in_place(path, text)?;
    }
    fs::remove_file(saving)?;
    Ok(true)
}

/// Whether there is no room: no blocks, no inodes, or no quota.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The path with an extension added, for example `FILE.bak`.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    name.into()
}

/// Resolves symbolic links. The file itself may not exist yet.
pub fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => break,
        }
    }
    fs::canonicalize(&path).unwrap_or(path)
}

/// Why a file was not written, and what to do if that is known.
pub fn explained(error: &io::Error) -> String {
    let todo = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room on its file system, then save again",
        ErrorKind::ReadOnlyFilesystem => {
            "; its file system is mounted read-only: mount it for writing, then save again"
        }
        ErrorKind::PermissionDenied => "; the file and its folder must belong to the user that the uplink runs as",
        _ => "",
    };
    format!("{error}{todo}")
}

/// Writes `target` atomically, with the owner and the mode of the file at `like`.
fn write(like: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = beside(like, "new");
    let _ = fs::remove_file(&unfinished); // left by a killed process
    let written = fill(like, &unfinished, bytes).and_then(|()| match fs::rename(&unfinished, target) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => write_in_place(like, target, &unfinished, bytes),
        renamed => renamed,
    });
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    File::open(folder_of(target))?.sync_all()
}

/// Writes a file that is a mount: it cannot be replaced, only written. `whole` already has the text and keeps it until the end.
fn write_in_place(like: &Path, target: &Path, whole: &Path, bytes: &[u8]) -> io::Result<()> {
    let old = fs::read(target)?;
    let saving = beside(like, "saving");
    fs::rename(whole, &saving)?;
    File::open(folder_of(&saving))?.sync_all()?;
    let written = fill_in_place(target, bytes);
    if written.is_err() {
        let _ = fill_in_place(target, &old); // if this fails too, a start uses FILE.bak
    }
    fs::remove_file(&saving)?;
    written
}

/// Empties the file first, durably: part of the new text can then never be taken for the whole.
fn fill_in_place(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(target)?;
    file.sync_all()?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn fill(like: &Path, unfinished: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(unfinished)?;
    if let Ok(old) = fs::metadata(like) {
        // Only root may give a file to another user. Otherwise the file becomes ours, with the same mode.
        let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
        file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_new_one_the_last_good_one_and_a_bad_one_lie_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        assert!(!replace(&path, b"1", None).unwrap(), "there is none to keep");
        keep(&path, b"1").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        fs::write(beside(&path, "new"), "half of some").unwrap();
        replace(&path, b"2", Some(b"1")).unwrap();
        keep(&path, b"2").unwrap();
        assert_eq!(names(folder.path()), ["c.json", "c.json.bak"]);
        fs::write(&path, "torn").unwrap();
        assert!(replace(&path, b"3", None).unwrap());
        assert_eq!(names(folder.path()), ["c.json", "c.json.bad", "c.json.bak"]);
        assert_eq!([read(&path), read(&beside(&path, "bak")), read(&beside(&path, "bad"))], ["3", "2", "torn"]);
        for file in [path.clone(), beside(&path, "bak"), beside(&path, "bad")] {
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640, "{}", file.display());
        }
    }

    /// The file keeps its inode: no read permission is needed, and its size does not matter.
    #[test]
    fn a_bad_file_is_moved_aside_and_never_copied_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        let large = File::create(&path).unwrap();
        large.set_len(1 << 30).unwrap(); // sparse
        fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        replace(&path, b"1", None).unwrap();
        let aside = fs::metadata(beside(&path, "bad")).unwrap();
        assert_eq!((aside.ino(), aside.len()), (inode, 1 << 30));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path), "1");
    }

    #[test]
    fn what_is_no_file_is_not_replaced_and_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        fs::create_dir_all(path.join("something")).unwrap();
        assert!(replace(&path, b"1", None).unwrap_err().to_string().contains("something else than a file"));
        assert_eq!(names(folder.path()), ["c.json"]);
        assert!(path.join("something").exists());
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.json"), folder.path().join("link.json"));
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        replace(&link, b"0", None).unwrap(); // the link has no target yet
        replace(&link, b"1", Some(b"0")).unwrap();
        keep(&link, b"1").unwrap();
        assert_eq!(read(&real), "1");
        assert_eq!(names(folder.path()), ["link.json", "real.json", "real.json.bak"]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_written_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        fs::write(&path, "0").unwrap();
        fs::create_dir_all(beside(&path, "new").join("in the way")).unwrap();
        assert!(replace(&path, b"1", Some(b"0")).is_err());
        assert!(replace(&path, b"1", None).is_err());
        assert_eq!(read(&path), "0");
        assert_eq!(names(folder.path()), ["c.json", "c.json.new"]);
    }

    #[test]
    fn writing_in_place_that_was_cut_off_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        fs::write(&path, "tor").unwrap();
        assert!(!finish(&path, Some(b"torn")).unwrap(), "nothing was being written");
        assert_eq!(read(&path), "tor");
        fs::write(beside(&path, "saving"), "torn").unwrap();
        assert!(finish(&path, Some(b"torn")).unwrap());
        assert_eq!((read(&path), names(folder.path())), ("torn".into(), vec!["c.json".into()]));
        fs::write(&path, "by hand").unwrap();
        fs::write(beside(&path, "saving"), "torn").unwrap();
        assert!(!finish(&path, Some(b"torn")).unwrap(), "what somebody wrote since then stays");
        fs::write(&path, "to\0\0\0\0").unwrap();
        assert!(finish(&path, Some(b"torn")).unwrap(), "a power cut leaves zeros");
        fs::write(beside(&path, "saving"), "not begun").unwrap();
        assert!(finish(&path, None).unwrap());
        assert_eq!((read(&path), names(folder.path())), ("torn".into(), vec!["c.json".into()]));
        fs::create_dir(beside(&path, "saving")).unwrap();
        assert!(finish(&path, Some(b"torn")).is_err(), "what cannot be read is not taken for nothing");
    }

    #[test]
    fn in_place_the_text_is_whole_beside_the_file_until_it_is_whole_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        fs::write(&path, "a longer old text").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        fs::write(beside(&path, "new"), "new").unwrap();
        write_in_place(&path, &path, &beside(&path, "new"), b"new").unwrap();
        assert_eq!((read(&path), fs::metadata(&path).unwrap().ino()), ("new".into(), inode));
        assert_eq!(names(folder.path()), ["c.json"]);
    }

    #[test]
    fn why_a_file_cannot_be_saved_is_said_with_what_to_do() {
        for (errno, todo) in [(libc::ENOSPC, "make room"), (libc::EROFS, "read-only"), (libc::EACCES, "must belong to")]
        {
            let said = explained(&io::Error::from_raw_os_error(errno));
            assert!(said.contains(todo), "{said}");
        }
    }
}
