//! What the tests of least privilege share: a box that is root's as it is set up, and what a process may still do.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use sophon_uplink::confine::User;

use super::daemon::Home;
use super::{Daemon, program};

/// Who the uplink becomes.
pub const USER: User = User { id: 65528, group: 65527 };

/// A line of each thread's `/proc/PID/status`.
#[track_caller]
pub fn of_every_thread(pid: u32, name: &str) -> Vec<String> {
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path()).collect();
    let text = |task: &PathBuf| fs::read_to_string(task.join("status")).ok(); // a thread may just end
    let line = |text: String| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).map(str::to_owned)
    };
    tasks.iter().filter_map(text).map(|text| line(text).unwrap_or_else(|| panic!("no {name}"))).collect()
}

#[track_caller]
pub fn assert_confined(pid: u32) {
    for (name, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = of_every_thread(pid, name);
        assert!(found.iter().all(|found| found == value), "{name}: {found:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // What cannot be dumped is root's in /proc.
    assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0);
}

pub fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("SKIPPED: {test}: only root can become another user; to run it: sudo -E cargo test {test}");
    }
    is_root
}

/// A box as `S95sophon-uplink prepare` leaves it, all root's.
pub struct Box {
    pub home: Home,
}

impl Box {
    pub fn new() -> Box {
        let home = Home::new();
        fs::set_permissions(home.folder.path(), Permissions::from_mode(0o755)).unwrap();
        for folder in ["config", "spool", "spool/new"] {
            fs::create_dir(home.folder.path().join(folder)).unwrap();
            fs::set_permissions(home.folder.path().join(folder), Permissions::from_mode(0o700)).unwrap();
        }
        Box { home }
    }

    pub fn config(&self) -> PathBuf {
        self.home.folder.path().join("config/uplink.json")
    }

    /// In place: the file stays whose it is.
    pub fn configure(&self, urls: &[String], more: Value) {
        self.home.configure(urls, more);
        let text = fs::read(self.home.config()).unwrap();
        fs::remove_file(self.home.config()).unwrap();
        fs::write(self.config(), text).unwrap();
    }

    pub fn start(&self) -> Daemon {
        Daemon::spawn(self.command("run").args(["--user", &USER.to_string()]))
    }

    pub fn command(&self, command: &str) -> Command {
        let mut uplink = Command::new(program("sophon-uplink"));
        uplink.args(command.split(' ')).arg("--config").arg(self.config());
        uplink
    }

    /// Everything under config and spool is the user's.
    #[track_caller]
    pub fn assert_all_is_the_users(&self) {
        self.assert_owner(USER, vec![self.home.spool(), self.home.folder.path().join("config")]);
    }

    #[track_caller]
    pub fn assert_all_the_spool_is(&self, user: User) {
        self.assert_owner(user, vec![self.home.spool()]);
    }

    #[track_caller]
    fn assert_owner(&self, user: User, mut folders: Vec<PathBuf>) {
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).chain([folder.clone()]) {
                let found = fs::symlink_metadata(&path).unwrap();
                assert_eq!((found.uid(), found.gid()), (user.id, user.group), "{}", path.display());
                if found.is_dir() && path != folder {
                    folders.push(path);
                }
            }
        }
    }
}
