//! The FIFO beside a ring: what an event loop can sleep on together with its sockets.
//!
//! ```text
//!  producer: make PATH.wake, open it, write its inode and the own pid into the header
//!  consumer: that pid is producer_pid, and PATH.wake has that inode: sleep on it; else on the futex
//! ```
//!
//! A FIFO that is there is used again, by the next producer and for the next ring: it has no content that counts. Each side opens it
//! for reading and writing, so that no open waits for the other, no write raises SIGPIPE, and the end of one side is nothing to the
//! other. Where anything is not as it should be, there is no FIFO, and the futex does: nothing is removed or mended here.
//!
//! Only a FIFO of the producer's own user that nobody else may open is used. Bytes of a stranger could do no more than wake the
//! consumer, and it is awake no more often than each `REST` of wake.rs.

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

/// Where the FIFO of the ring at `ring` is.
pub fn path_of(ring: &Path) -> PathBuf {
    suffixed(ring, ".wake")
}

/// Opens what is at `path` if it is a FIFO, for reading and writing.
///
/// # Errors
/// `InvalidInput` for anything else; what the system says.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.file_type().is_fifo() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    if file.metadata()?.file_type().is_fifo() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Producer: has a FIFO from now on, or, without a word, none.
pub(super) fn offer(ring: &RingFile, path: &Path) {
    let inode = made(&path_of(path)).and_then(|fifo| {
        let inode = fifo.metadata()?.ino();
        ring.wake_by(fifo);
        Ok(inode)
    });
    ring.store(Word::FifoInode, *inode.as_ref().unwrap_or(&0), Ordering::Relaxed);
    let pid = if inode.is_ok() { u64::from(std::process::id()) } else { 0 };
    // Release: who sees the pid sees which FIFO it is.
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

/// The inode of the FIFO that the producer of `ring` writes to; none where it has none, or is of before.
fn offered(ring: &impl Memory) -> Option<u64> {
    let pid = ring.load(Word::FifoPid, Ordering::Acquire);
    (pid != 0 && pid == ring.load(Word::ProducerPid, Ordering::Relaxed))
        .then(|| ring.load(Word::FifoInode, Ordering::Relaxed))
}

/// Consumer: the FIFO, open.
#[derive(Debug)]
pub struct Fifo {
    bytes: Receiver,
    inode: u64,
    /// The last sleep was shorter than [`REST`].
    is_busy: bool,
    /// Publications in a row that were not heard of.
    missed: u8,
}

impl Fifo {
    /// The FIFO that the producer of `ring`, whose path this is, writes to; none where it has none that can be opened. To be called in
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

    /// Whether the producer of `ring` writes to this one; where the last one closed the ring, the next one will.
    pub fn is_of(&self, ring: &impl Memory) -> bool {
        ring.load(Word::ProducerPid, Ordering::Relaxed) == 0 || offered(ring) == Some(self.inode)
    }

    /// Whether the producer does not write to it, whatever the header says: for the second time something was published since `seen`,
    /// which was slept upon, and no byte came. Once is chance: it may be about to come.
    pub fn is_silent(&mut self, memory: &impl Memory, seen: u32) -> bool {
        let missed = !self.is_busy && wake::publications(memory) != seen;
        self.missed += u8::from(missed);
        self.missed > 1
    }

    /// Returns when `publications` is not `seen`, or by chance. Where events come in less than `REST`, it rests for so long before it
    /// sleeps: what is published meanwhile costs the producer no system call.
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

    /// Waits for a byte, and reads what there is, once: another read could wait, though something was published. What is left only ends
    /// the next sleep at once.
    async fn byte(&mut self) {
        let _all_or_some = self.bytes.read(&mut [0; 512]).await;
        self.missed = 0;
    }
}

/// Awake again when dropped, also where nobody waits for the publication any more.
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

    /// A ring with both of its sides, of whom the producer has done nothing but open it.
    fn sides() -> Sides {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        let producer = RingFile::open_producer(&path, CAPACITY).unwrap();
        let consumer = RingFile::open_consumer(&path).unwrap();
        Sides { producer, consumer, path, _folder: folder }
    }

    /// It is this test that steps the clock: what waits for no byte has ended, or never will.
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
            fifo.published(&**consumer, u32::MAX).await; // which it never sees: as if the count changed all the time
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
