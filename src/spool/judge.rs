//! What is wrong with a folder that a config names as the spool's, for `check-config`: before an outage shows it.

use std::path::Path;

use super::disk::RealDisk;
use super::volume::{Home, Volume, has_links};

/// What a folder does not do, or not well, in words. A file is made in it and removed again, in the folder above where there is none yet;
/// what an uplink has in it is not touched.
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
