//! Checks the spool's folder of a config for `check-config`, so that problems are found before an outage.

use std::path::Path;

use super::disk::RealDisk;
use super::volume::{Home, Volume, has_links};

/// The problem of a folder in words, if it has one. Creates a file in it, or in its parent if it does not exist yet, and deletes
/// the file. The content of a spool is not touched.
pub fn judge(dir: &Path) -> Option<String> {
    let (disk, volume) = (RealDisk::default(), Volume::new(RealDisk::default(), dir));
    if let Err(fault) = volume.check_folder() {
        return Some(format!("spool.dir: {fault}; without it nothing is kept on flash"));
    }
    let new = volume.folder(Home::New);
    let folder = [&*new, dir, dir.parent()?].into_iter().find(|folder| folder.is_dir())?;
    let probe = |number: u32| folder.join(format!("check-{}-{number}", std::process::id()));
    (!has_links(&disk, &probe(1), &probe(2))).then(|| {
        let dir = dir.display();
        format!("spool.dir: the file system of {dir} has no hard links: an event for several destinations is written once for each")
    })
}
