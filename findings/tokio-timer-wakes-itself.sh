#!/usr/bin/env bash
# A timer that is set on tokio's only thread wakes that same thread: each `timeout` after a rest costs one more system call.
#
# Guess before the run: on a runtime of one thread, the thread that sets a timer is the one that will wait for it. It is awake,
# so nobody must be woken; the next epoll_wait gets the nearer time.
# Seen with tokio 1.54.1: if the thread slept without a timer, or with a later one, the first timer after that is a write to the
# runtime's own eventfd. Waiting for 100 answers with a timeout makes 100 writes. With a timer that is due earlier there is
# none. tokio compares with the time until which it slept last, and does not check whether it sleeps (its issue 5207).
# For a loop that should rest and be cheap: keep one timer, or use none for what ends by itself.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cat >counter.c <<'CODE'
/* Writes to an eventfd; write in the place of the C library's. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static unsigned long wakes;
unsigned long counted(void) { return wakes; }
ssize_t write(int file, const void *bytes, size_t length)
{
    char path[64], name[64] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (readlink(path, name, sizeof name - 1) > 0 && strstr(name, "[eventfd]"))
        wakes++;
    return syscall(SYS_write, file, bytes, length);
}
CODE
cat >main.rs <<'CODE'
use std::time::Duration;
use tokio::net::UnixDatagram;
use tokio::time::{sleep, timeout};

#[link(name = "counter")]
extern "C" {
    fn counted() -> u64;
}

/// Questions to a thread, in pairs: one whose answer is waited for as long as it takes, and one with the `limit`.
async fn ask(limit: Option<Duration>) {
    let (here, there) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let answers = std::thread::spawn(move || {
        let mut question = [0];
        while there.recv(&mut question).unwrap() == 1 {
            std::thread::sleep(Duration::from_millis(1)); // so that who asks is asleep by then
            there.send(&question).unwrap();
        }
    });
    here.set_nonblocking(true).unwrap();
    let here = UnixDatagram::from_std(here).unwrap();
    for _ in 0..100 {
        let mut answer = [0];
        for limit in [None, limit] {
            here.send(b"?").await.unwrap();
            let answered = here.recv(&mut answer);
            match limit {
                Some(limit) => timeout(limit, answered).await.unwrap().unwrap(),
                None => answered.await.unwrap(),
            };
        }
    }
    here.send(b"").await.unwrap();
    answers.join().unwrap();
}

fn say(what: &str, other: Option<u64>, limit: Option<u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(seconds) = other {
            tokio::spawn(sleep(Duration::from_secs(seconds)));
        }
        ask(None).await; // the other timer is set and the thread has slept
        let before = unsafe { counted() };
        ask(limit.map(Duration::from_secs)).await;
        let wakes = unsafe { counted() } - before;
        println!("{what}: {}", if wakes == 0 { "no write".into() } else if wakes >= 90 { "one write each".into() } else { wakes.to_string() });
    });
}

fn main() {
    say("100 answers without a timeout", None, None);
    say("with a timeout of 600 s and no other timer", None, Some(600));
    say("with a timeout of 600 s and another timer in an hour", Some(3600), Some(600));
    say("with a timeout of 600 s and another timer in 300 s", Some(300), Some(600));
}
CODE
crates 'tokio = { version = "=1.54.1", features = ["rt", "net", "time"] }'
./seen >seen.txt
cat >expected <<'SEEN'
100 answers without a timeout: no write
with a timeout of 600 s and no other timer: one write each
with a timeout of 600 s and another timer in an hour: one write each
with a timeout of 600 s and another timer in 300 s: no write
SEEN
same expected seen.txt
