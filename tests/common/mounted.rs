//! A small file system for a test.

use std::path::Path;
use std::process::Command;

/// A tmpfs of its own, gone with this value.
pub struct Mounted(tempfile::TempDir);

impl Mounted {
    /// Of `size`, as mount takes it; none where mounting is not allowed.
    pub fn new(size: &str) -> Option<Mounted> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|mount| mount.status.success()).then(|| Mounted(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }

    pub fn free_bytes(&self) -> u64 {
        let volume = nix::sys::statvfs::statvfs(self.path()).unwrap();
        volume.blocks_available() as u64 * volume.fragment_size() as u64
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
