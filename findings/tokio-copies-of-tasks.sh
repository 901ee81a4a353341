#!/usr/bin/env bash
# When a task ends, tokio copies as many bytes as the task's future has, at least three times, although a future that was polled
# cannot move. For a task above 16 KiB it copies nothing.
#
# Guess before the run: a future is moved once or twice, to its place on the heap. From its first poll on it is pinned, so only
# its output is copied, here one byte. A larger future costs more than a smaller one.
# Seen with tokio 1.54.1, async-executor 1.13.3 and futures 0.3.31, optimised: after the first poll of a future of 512 or 16,000
# bytes, tokio makes at least three copies of that size, and the others none. The place of the future is an enum that becomes
# `Finished(output)`, then `Consumed`, and each is written at its full size. Of a future of 16,400 bytes tokio copies nothing: above
# 16,384 bytes it boxes a future by itself. A debug build does so earlier (not tried here).
# For a task of some kilobytes: spawn(Box::pin(future)), as src/deliver/driver/uploads.rs does.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
cat >counter.c <<'CODE'
/* Copies of `least` bytes or more; memcpy and memmove in the place of the C library's. */
#include <stddef.h>
static unsigned long copies, least = ~0ul;
void count_from(unsigned long bytes) { least = bytes, copies = 0; }
unsigned long counted(void) { return copies; }
void *memmove(void *to, const void *from, size_t length)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    copies += length >= least;
    if (t > f)
        while (length--) t[length] = f[length];
    else
        for (size_t at = 0; at < length; at++) t[at] = f[at];
    return to;
}
void *memcpy(void *to, const void *from, size_t length) { return memmove(to, from, length); }
CODE
cat >main.rs <<'CODE'
use futures::{executor::block_on, stream::FuturesUnordered, StreamExt};
use std::{future::Future, hint::black_box, pin::Pin, task::{Context, Poll}};

#[link(name = "counter")]
extern "C" {
    fn count_from(bytes: u64);
    fn counted() -> u64;
}

/// Waits once, and has one byte to say. What is copied is counted from its first poll.
struct Task<const N: usize>([u8; N], bool);

impl<const N: usize> Future for Task<N> {
    type Output = u8;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u8> {
        if std::mem::replace(&mut self.1, true) {
            return Poll::Ready(self.0[N - 1]);
        }
        unsafe { count_from(N as u64) }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn task<const N: usize>() -> Task<N> {
    Task([black_box(7); N], false)
}

/// How often as many bytes as it has were copied after its first poll.
fn copied() -> &'static str {
    match unsafe { counted() } {
        0 => "none",
        1 | 2 => "one or two",
        _ => "three or more",
    }
}

fn all<const N: usize>() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        drop(tokio::spawn(task::<N>()));
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    });
    println!("{N} bytes, tokio::spawn, nobody waits for its end: {}", copied());
    runtime.block_on(async { tokio::spawn(task::<N>()).await }).unwrap();
    println!("{N} bytes, tokio::spawn: {}", copied());
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async { tokio::task::spawn_local(task::<N>()).await })).unwrap();
    println!("{N} bytes, tokio::task::spawn_local: {}", copied());
    runtime.block_on(async { tokio::spawn(Box::pin(task::<N>())).await }).unwrap();
    println!("{N} bytes, tokio::spawn, boxed: {}", copied());
    let executor = async_executor::LocalExecutor::new();
    block_on(executor.run(async { executor.spawn(task::<N>()).await }));
    println!("{N} bytes, async-executor: {}", copied());
    block_on(async { [task::<N>()].into_iter().collect::<FuturesUnordered<_>>().next().await }).unwrap();
    println!("{N} bytes, FuturesUnordered: {}", copied());
}

fn main() {
    all::<512>();
    all::<16000>();
    all::<16400>();
}
CODE
crates 'tokio = { version = "=1.54.1", features = ["rt"] }' 'async-executor = "=1.13.3"' 'futures = "=0.3.31"'
./seen >seen.txt
cat >expected <<'SEEN'
512 bytes, tokio::spawn, nobody waits for its end: three or more
512 bytes, tokio::spawn: three or more
512 bytes, tokio::task::spawn_local: three or more
512 bytes, tokio::spawn, boxed: none
512 bytes, async-executor: none
512 bytes, FuturesUnordered: none
16000 bytes, tokio::spawn, nobody waits for its end: three or more
16000 bytes, tokio::spawn: three or more
16000 bytes, tokio::task::spawn_local: three or more
16000 bytes, tokio::spawn, boxed: none
16000 bytes, async-executor: none
16000 bytes, FuturesUnordered: none
16400 bytes, tokio::spawn, nobody waits for its end: none
16400 bytes, tokio::spawn: none
16400 bytes, tokio::task::spawn_local: none
16400 bytes, tokio::spawn, boxed: none
16400 bytes, async-executor: none
16400 bytes, FuturesUnordered: none
SEEN
same expected seen.txt
