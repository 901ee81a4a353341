//! Replacing the config file so that at every moment, whatever ends the process or the power, the old one or the new one is there.
//!
//! ```text
//!  new text ──▶ FILE.new ──fsync──▶ rename over FILE ──▶ fsync of the folder
//!  before that, the same way: the last good text ──▶ FILE.bak, and a FILE that is not good ──▶ FILE.bad
//! ```
//! FILE is never missing in between. A name that leads to the file by a symbolic link is followed first: the link stays.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::folder_of;

/// A new file's, and never more than its owner may do with what holds secrets.
const MODE: u32 = 0o600;

/// Replaces the file at `path` by `new`.
///
/// - `last_good`: what `FILE.bak` is to hold from now on.
/// - `aside`: the file that is there is not good, and is kept as `FILE.bad`.
///
/// # Errors
/// Of the file system; the old file is then still there, or there again.
pub fn replace(path: &Path, new: &[u8], last_good: &[u8], aside: bool) -> io::Result<()> {
    let path = &followed(path);
    let old = fs::read(path).ok();
    keep(path, last_good)?;
    if let Some(old) = old.as_ref().filter(|_| aside) {
        write(path, &beside(path, "bad"), old)?;
    }
    write(path, path, new).inspect_err(|_| {
        // The rename may have been done, and only its durability be in doubt: whoever is told of a failure finds the old file.
        if let Some(old) = old.filter(|old| fs::read(path).is_ok_and(|now| now != *old)) {
            let _ = write(path, path, &old);
        }
    })
}

/// Makes `FILE.bak` hold `last_good`; writes nothing where it does already.
///
/// # Errors
/// Of the file system.
pub fn keep(path: &Path, last_good: &[u8]) -> io::Result<()> {
    let path = &followed(path);
    let bak = beside(path, "bak");
    if fs::read(&bak).is_ok_and(|there| there == last_good) {
        return Ok(());
    }
    write(path, &bak, last_good)
}

/// No room, by blocks, inodes or quota.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// `FILE.bak` and the like.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    name.into()
}

/// Where a file really lies.
pub fn followed(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Writes `target`, whole or not at all, with the owner and the mode of the file at `like`.
fn write(like: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = beside(like, "new");
    let _ = fs::remove_file(&unfinished); // what a killed process left
    let written = fill(like, &unfinished, bytes).and_then(|()| fs::rename(&unfinished, target));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    File::open(folder_of(target))?.sync_all()
}

fn fill(like: &Path, unfinished: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(unfinished)?;
    if let Ok(old) = fs::metadata(like) {
        // Only root may give a file away; another user's is then ours, with the same mode.
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

    #[test]
    fn the_new_one_the_last_good_one_and_a_bad_one_lie_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        replace(&path, b"1", b"0", false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        fs::write(beside(&path, "new"), "half of some").unwrap();
        replace(&path, b"2", b"1", false).unwrap();
        assert_eq!(names(folder.path()), ["c.json", "c.json.bak"]);
        fs::write(&path, "torn").unwrap();
        replace(&path, b"3", b"2", true).unwrap();
        assert_eq!(names(folder.path()), ["c.json", "c.json.bad", "c.json.bak"]);
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!([read(&path), read(&beside(&path, "bak")), read(&beside(&path, "bad"))], ["3", "2", "torn"]);
        for file in [path.clone(), beside(&path, "bak"), beside(&path, "bad")] {
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640, "{}", file.display());
        }
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.json"), folder.path().join("link.json"));
        fs::write(&real, "0").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, b"1", b"0", false).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "1");
        assert_eq!(names(folder.path()), ["link.json", "real.json", "real.json.bak"]);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_written_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        fs::write(&path, "0").unwrap();
        fs::create_dir_all(beside(&path, "new").join("in the way")).unwrap();
        assert!(replace(&path, b"1", b"0", false).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "0");
        assert_eq!(names(folder.path()), ["c.json", "c.json.new"]);
    }
}
