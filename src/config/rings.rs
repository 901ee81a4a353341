//! Finds entries of `rings` that lead to the same file: by `..`, by links to folders, by bind mounts, or by a second name.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::folder_of;

/// A device and an inode number; for a folder, also the name inside it.
type Place = (u64, u64, Option<OsString>);

/// Entries that lead to the same file as an earlier entry: the later index and the earlier one.
pub(super) fn doubles(rings: &[PathBuf]) -> Vec<(usize, usize)> {
    let places: Vec<_> = rings.iter().map(|ring| places(ring)).collect();
    let is_one = |one: &[Place], other: &[Place]| one.iter().any(|place| other.contains(place));
    let earlier = |later: usize| places[..later].iter().position(|earlier| is_one(earlier, &places[later]));
    (0..places.len()).filter_map(|later| Some((later, earlier(later)?))).collect()
}

/// The file, if it exists, whatever its names. Also its name in its folder, where the file may appear later.
fn places(path: &Path) -> Vec<Place> {
    let found = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let file = found(path).map(|(device, number)| (device, number, None));
    let folder = found(folder_of(path)).map(|(device, number)| (device, number, path.file_name().map(Into::into)));
    file.into_iter().chain(folder).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn two_notations_of_one_ring_are_one_whether_it_is_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
        let one = |second: &str| doubles(&[at("other"), at("real/ring"), at(second)]);
        assert_eq!(one("real/../real/ring"), [(2, 1)]);
        assert_eq!(one("link/ring"), [(2, 1)]);
        assert_eq!(one("real/second"), []);
        assert_eq!(one("ring"), []);
        fs::write(at("real/ring"), "").unwrap();
        fs::hard_link(at("real/ring"), at("real/second")).unwrap();
        assert_eq!(one("real/second"), [(2, 1)]);
        assert_eq!(doubles(&[at("nowhere/ring"), at("no-place/ring")]), []);
    }
}
