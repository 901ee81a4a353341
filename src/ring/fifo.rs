//! The FIFO next to a ring, on which an event loop can wait together with its sockets.
//!
//! ```text
//!  producer: creates PATH.wake, opens it, and writes its inode and its own pid into the header
//!  consumer: if that pid is producer_pid and PATH.wake has that inode, waits on the FIFO; otherwise on the futex
//! ```
//!
//! An existing FIFO is reused by the next producer and for the next ring, because its content does not matter. Each side opens it
//! for reading and writing. So opening never waits for the other side, writing never raises SIGPIPE, and the end of one side does
//! not affect the other. If anything is wrong, there is no FIFO and the futex is used; nothing is removed or repaired here.
//!
//! The FIFO must belong to the producer's user, and no one else may open it. If a stranger could write to it, the bytes would
//! only wake the consumer, at most once per `REST` of wake.rs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

use super::create::suffixed;
use super::file::RingFile;
use super::wake::{self, REST, WaitOn};
use super::{Memory, Word, opener};

/// The path of the FIFO of the ring at `ring`.
pub fn path_of(ring: &Path) -> PathBuf {
    suffixed(ring, ".wake")
}

/// Opens the file at `path` for reading and writing, if it is a FIFO.
///
/// # Errors
/// `InvalidInput` for any other file; the system's error.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.file_type().is_fifo() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    if file.metadata()?.file_type().is_fifo() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Producer: offers a FIFO from now on; if that fails, offers none, without an error.
pub(super) fn offer(ring: &RingFile, path: &Path) {
    let inode = made(&path_of(path)).and_then(|fifo| {
        let inode = fifo.metadata()?.ino();
        ring.wake_by(fifo);
        Ok(inode)
    });
    ring.store(Word::FifoInode, *inode.as_ref().unwrap_or(&0), Ordering::Relaxed);
    let pid = if inode.is_ok() { u64::from(std::process::id()) } else { 0 };
    // Release: a consumer that sees the pid also sees the inode.
    ring.store(Word::FifoPid, pid, Ordering::Release);
}

fn made(path: &Path) -> io::Result<File> {
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let fifo = open(path)?;
    let found = fifo.metadata()?;
    let is_ours = found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
    if is_ours { Ok(fifo) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// The inode of the FIFO that the producer of `ring` writes to; none if it has none, or if an earlier producer offered it.
fn offered(ring: &impl Memory) -> Option<u64> {
    let pid = ring.load(Word::FifoPid, Ordering::Acquire);
    (pid != 0 && pid == ring.load(Word::ProducerPid, Ordering::Relaxed))
        .then(|| ring.load(Word::FifoInode, Ordering::Relaxed))
}

/// Consumer: the open FIFO.
#[derive(Debug)]
pub struct Fifo {
    bytes: Receiver,
    inode: u64,
    /// The last wait was shorter than [`REST`].
    is_busy: bool,
    /// Checks since the last byte that found publications.
    missed: u8,
}

impl Fifo {
    /// The FIFO that the producer of `ring` at `path` writes to; none if there is none that can be opened. Has to be called in
    /// the event loop.
    pub fn of(ring: &RingFile, path: &Path) -> Option<Fifo> {
        let inode = offered(ring)?;
        let path = path_of(path);
        let opened = match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => opener::open(&path).unwrap_or(Err(error)),
            opened => opened,
        };
        let file = opened.ok().filter(|file| file.metadata().is_ok_and(|found| found.ino() == inode))?;
        Some(Fifo { bytes: Receiver::from_file(file).ok()?, inode, is_busy: false, missed: 0 })
    }

    /// Whether the producer of `ring` writes to this FIFO. If the last producer closed the ring, the next one will use the same
    /// FIFO.
    pub fn is_of(&self, ring: &impl Memory) -> bool {
        ring.load(Word::ProducerPid, Ordering::Relaxed) == 0 || offered(ring) == Some(self.inode)
    }

    /// Whether the producer does not write to the FIFO in spite of the header. That is so if for the second time there were
    /// publications during a wait on `seen` and no byte came. The first time may be chance: the byte may be about to come.
    pub fn is_silent(&mut self, memory: &impl Memory, seen: u32) -> bool {
        let missed = !self.is_busy && wake::publications(memory) != seen;
        self.missed = self.missed.saturating_add(u8::from(missed));
        self.missed > 1
    }

    /// Returns when `publications` is not `seen`; may return early. If events come faster than `REST`, it pauses for `REST`
    /// before it waits again: publications during the pause cost the producer no system call.
    pub async fn published(&mut self, memory: &impl Memory, seen: u32) {
        if self.is_busy {
            tokio::time::sleep(REST).await;
            self.is_busy = false;
            return;
        }
        let began = Instant::now();
        let asleep = Asleep(memory);
        if wake::prepare_to_wait(memory, WaitOn::Fifo, seen) {
            self.byte().await;
        }
        drop(asleep);
        self.is_busy = began.elapsed() < REST;
    }

    /// Waits for a byte, and reads once what is there. A second read could wait, although there was a publication. Bytes that are
    /// left only end the next wait at once.
    async fn byte(&mut self) {
        let _all_or_some = self.bytes.read(&mut [0; 512]).await;
        self.missed = 0;
    }
}

/// Marks the consumer as awake when dropped, also if the wait was cancelled.
struct Asleep<'a, M: Memory>(&'a M);

impl<M: Memory> Drop for Asleep<'_, M> {
    fn drop(&mut self) {
        wake::finish_wait(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    const CAPACITY: u64 = 1 << 16;

    struct Sides {
        producer: RingFile,
        consumer: RingFile,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    /// A ring opened by both sides; the producer has done nothing else.
    fn sides() -> Sides {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        let producer = RingFile::open_producer(&path, CAPACITY).unwrap();
        let consumer = RingFile::open_consumer(&path).unwrap();
        Sides { producer, consumer, path, _folder: folder }
    }

    /// Whether a byte came. The test controls the clock: a wait without a byte has ended now, or never will.
    async fn has_come(fifo: &mut Fifo, ring: &RingFile, seen: u32) -> bool {
        tokio::time::timeout(Duration::from_secs(3600), fifo.published(&**ring, seen)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_until_a_byte_comes_and_looks_at_the_count_before() {
        let Sides { producer, consumer, path, .. } = &sides();
        let mut fifo = Fifo::of(consumer, path).unwrap();
        assert!(!has_come(&mut fifo, consumer, 0).await, "nothing is published");
        assert_eq!(consumer.load(Word::Waiting, Ordering::Relaxed), 0, "awake again, though nobody woke it");
        let mut publications = 0;
        wake::announce(&**producer, &mut publications);
        assert!(has_come(&mut fifo, consumer, 0).await, "published before it slept: no byte is needed");
        assert!(has_come(&mut fifo, consumer, 1).await, "the rest after a short sleep");
        assert!(!has_come(&mut fifo, consumer, 1).await, "nor was one written, for it was awake");
        producer.store(Word::Waiting, WaitOn::Fifo as u64, Ordering::Relaxed);
        (0..3).for_each(|_| wake::announce(&**producer, &mut publications));
        assert!(has_come(&mut fifo, consumer, publications).await, "bytes of before");
        (0..512).for_each(|_| producer.fifo_wake());
        assert!(has_come(&mut fifo, consumer, publications).await, "the rest");
        assert!(has_come(&mut fifo, consumer, publications).await, "as many bytes as it reads at once");
        assert!(!fifo.is_silent(&**consumer, publications));
    }

    #[tokio::test(start_paused = true)]
    async fn a_producer_that_never_rests_wakes_it_no_more_often_than_twice_in_each_rest() {
        let Sides { producer, consumer, path, .. } = &sides();
        let mut fifo = Fifo::of(consumer, path).unwrap();
        let (began, mut wakings) = (Instant::now(), 0);
        while began.elapsed() < 1000 * REST {
            producer.fifo_wake();
            fifo.published(&**consumer, u32::MAX).await; // a count that it never sees, as if the count kept changing
            wakings += 1;
        }
        assert!(wakings <= 2001, "{wakings}");
    }

    #[tokio::test]
    async fn there_is_none_of_a_producer_that_offers_none_or_another_one() {
        let Sides { producer, consumer, path, .. } = &sides();
        let fifo = Fifo::of(consumer, path).unwrap();
        let pid = producer.load(Word::ProducerPid, Ordering::Relaxed);
        for (word, value) in [(Word::FifoPid, 0), (Word::FifoPid, pid + 1), (Word::ProducerPid, pid + 1)] {
            let before = producer.load(word, Ordering::Relaxed);
            producer.store(word, value, Ordering::Relaxed);
            assert!(!fifo.is_of(&**consumer) && Fifo::of(consumer, path).is_none(), "{word:?}");
            producer.store(word, before, Ordering::Relaxed);
        }
        assert!(fifo.is_of(&**consumer));
        let inode = producer.load(Word::FifoInode, Ordering::Relaxed);
        producer.store(Word::FifoInode, inode + 1, Ordering::Relaxed);
        assert!(!fifo.is_of(&**consumer) && Fifo::of(consumer, path).is_none());
        producer.store(Word::FifoInode, inode, Ordering::Relaxed);
        fs::remove_file(path_of(path)).unwrap();
        assert!(Fifo::of(consumer, path).is_none() && fifo.is_of(&**consumer), "who has it open may use it on");
    }

    #[test]
    fn what_is_not_this_users_alone_is_left_as_it_is_and_not_offered() {
        let folder = tempfile::tempdir().unwrap();
        let ring = folder.path().join("ring");
        let wake = path_of(&ring);
        let make: [fn(&Path); 4] = [
            |path| fs::write(path, "a file").unwrap(),
            |path| fs::create_dir(path).unwrap(),
            |path| std::os::unix::fs::symlink("nowhere", path).unwrap(),
            |path| {
                mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
                fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o620)).unwrap();
            },
        ];
        for make in make {
            make(&wake);
            let before = fs::symlink_metadata(&wake).unwrap();
            let producer = RingFile::open_producer(&ring, CAPACITY).unwrap();
            assert_eq!(producer.load(Word::FifoPid, Ordering::Relaxed), 0);
            producer.fifo_wake();
            let after = fs::symlink_metadata(&wake).unwrap();
            assert_eq!((before.ino(), before.mode(), before.len()), (after.ino(), after.mode(), after.len()));
            if before.is_dir() { fs::remove_dir(&wake).unwrap() } else { fs::remove_file(&wake).unwrap() }
        }
        drop(RingFile::open_producer(&ring, CAPACITY).unwrap());
        assert_eq!(fs::metadata(&wake).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_full_one_makes_no_producer_wait() {
        let Sides { producer, path, .. } = &sides();
        let mut full = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path_of(path)).unwrap();
        while full.write(&[0; 512]).is_ok() {}
        producer.fifo_wake();
    }
}
