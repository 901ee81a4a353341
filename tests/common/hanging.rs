//! A system whose calls hang: a library that is loaded before the C library, for the disk that does not answer and its kind.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::daemon::Home;
use super::{program, wait_until};

/// Calls hang while a file says so that is named after them.
pub struct Hanging {
    library: PathBuf,
    prefix: PathBuf,
}

/// Those that may hang.
const SOURCE: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <fcntl.h>
    #include <netdb.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <unistd.h>
    static void hang(const char *call)
    {
        char wanted[4096], hangs[4200];
        snprintf(wanted, sizeof wanted, "%s.%s", getenv("HANG"), call);
        snprintf(hangs, sizeof hangs, "%s.hangs", wanted);
        while (access(wanted, F_OK) == 0) {
            close(open(hangs, O_WRONLY | O_CREAT, 0600));
            usleep(10000);
        }
    }
    #define NEXT(name) (hang(#name), (__typeof__(&name))dlsym(RTLD_NEXT, #name))
    int fsync(int fd) { hang("fsync"); (void)fd; return 0; }
    int bind(int fd, const struct sockaddr *to, socklen_t length) { return NEXT(bind)(fd, to, length); }
    ssize_t writev(int fd, const struct iovec *parts, int count) { return NEXT(writev)(fd, parts, count); }
    int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
    {
        return NEXT(getaddrinfo)(host, service, hints, found);
    }
"#;

impl Hanging {
    /// None where there is no C compiler.
    pub fn build(home: &Home) -> Option<Hanging> {
        let [source, library, prefix] = ["hang.c", "hang.so", "hang"].map(|name| home.folder.path().join(name));
        std::fs::write(&source, SOURCE).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).stdin(Stdio::null());
        compiler.output().is_ok_and(|output| output.status.success()).then_some(Hanging { library, prefix })
    }

    /// An uplink in that system, on the config that is there.
    pub fn uplink(&self, home: &Home) -> Command {
        let mut command = Command::new(program("sophon-uplink"));
        command.arg("run").arg("--config").arg(home.config());
        command.env("LD_PRELOAD", &self.library).env("HANG", &self.prefix);
        command
    }

    /// `call` hangs from now on.
    pub fn begin(&self, call: &str) {
        std::fs::write(self.prefix.with_extension(call), "").unwrap();
    }

    /// And no longer.
    pub fn end(&self, call: &str) {
        std::fs::remove_file(self.prefix.with_extension(call)).unwrap();
    }

    /// Waits until somebody hangs in it.
    #[track_caller]
    pub fn wait(&self, call: &str) {
        let hangs = self.prefix.with_extension(format!("{call}.hangs"));
        wait_until("a call that hangs", || hangs.exists());
    }
}
