//! Kernels that are not this one: programs in C that run another one under a filter of system calls (`tests/kernel`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::daemon::Home;
use super::program;

/// Compiles `tests/kernel/NAME.c` into `folder`; none where there is no C compiler.
pub fn build(name: &str, folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel").join(name).with_extension("c");
    let built = folder.join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&built).arg(source).stdin(Stdio::null());
    match compiler.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(built)
        }
        Err(_) => None,
    }
}

/// A kernel that has no random numbers until [`Unseeded::seed`].
pub struct Unseeded {
    runner: PathBuf,
    seeded: PathBuf,
}

impl Unseeded {
    /// None, and a line that says so, where there is no C compiler, or this kernel cannot play that one.
    pub fn build(home: &Home, test: &str) -> Option<Unseeded> {
        let runner = build("unseeded", home.folder.path());
        let kernel = runner.map(|runner| Unseeded { runner, seeded: home.folder.path().join("seeded") });
        let works = |kernel: &Unseeded| kernel.run(Path::new("true")).status().is_ok_and(|status| status.success());
        let kernel = kernel.filter(works);
        if kernel.is_none() {
            println!("SKIPPED: {test}: no C compiler here, or a kernel without SECCOMP_RET_USER_NOTIF (Linux 5.5)");
        }
        kernel
    }

    /// A program on it.
    pub fn run(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.runner);
        command.arg(&self.seeded).arg(program);
        command
    }

    /// An uplink on it, with the config that is there.
    pub fn uplink(&self, home: &Home) -> Command {
        let mut command = self.run(&program("sophon-uplink"));
        command.arg("run").arg("--config").arg(home.config());
        command
    }

    /// From now on it has random numbers.
    pub fn seed(&self) {
        std::fs::write(&self.seeded, "").unwrap();
    }
}
