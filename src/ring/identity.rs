//! Builds a ring id that is unique even while the kernel has no random numbers.
//!
//! Receivers drop an event whose id they know, so an id must not repeat, neither on this box after a boot nor on another box.
//! Random numbers alone do not guarantee that. Before Linux 5.4 a box that just started may have none for minutes, and
//! /dev/urandom then returns the same ones at every boot of the same image. Waiting for them would delay the recognizer. So they
//! are mixed with values that differ between boxes (addresses of network cards, serial numbers), between boots (the boot's id,
//! the clocks), between processes, and between rings (a counter, the file). `include/sophon_ring.h` does the same.

use std::fs::{self, File};
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};

use super::file::RingId;

/// Files that differ between boxes or between boots; most boxes have some of them.
const SOURCES: [&str; 4] = [
    "/proc/sys/kernel/random/boot_id",
    "/proc/device-tree/serial-number",
    "/sys/block/mmcblk0/device/cid", // the flash chip's serial number
    "/proc/stat",                    // counts of interrupts and context switches, different at every boot
];
/// How many bytes are read of each file.
const MOST: usize = 4096;

/// Two words that depend on everything that was mixed in.
struct Mixer([u64; 2]);

impl Mixer {
    fn word(&mut self, word: u64) {
        self.0[0] = scramble(self.0[0] ^ word);
        self.0[1] = scramble(self.0[1].wrapping_add(self.0[0]).rotate_left(29));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }
}

/// The finalizer of splitmix64: every bit of the result depends on every bit of the word, and no two words have the same result.
const fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ word >> 31
}

/// A new id for the ring in this file. Never waits.
pub fn new_id(inode: (u64, u64)) -> RingId {
    let mut random = [0; 16];
    let drawn = getrandom(&mut random, GetRandomFlags::NONBLOCK);
    if drawn != Ok(random.len()) {
        // Better than nothing: on most kernels it has some randomness.
        let _ = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    }
    mixed(random, inode, &facts())
}

/// Combines random bytes of any quality with all other values. If the random bytes are good, so is the result, whatever the other
/// values are.
fn mixed(random: [u8; 16], inode: (u64, u64), facts: &[Vec<u8>]) -> RingId {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut mixer = Mixer([0; 2]);
    mixer.word(COUNT.fetch_add(1, Ordering::Relaxed));
    mixer.word(u64::from(std::process::id()));
    [inode.0, inode.1].into_iter().for_each(|word| mixer.word(word));
    facts.iter().for_each(|fact| mixer.bytes(fact));
    let [low, high] = mixer.0;
    let id = u128::from(low) | u128::from(high) << u64::BITS;
    RingId((id ^ u128::from_le_bytes(random)).to_le_bytes())
}

/// Values that differ between boxes, between boots, and over time.
fn facts() -> Vec<Vec<u8>> {
    let clocks = [ClockId::Realtime, ClockId::Boottime, ClockId::ProcessCPUTime].map(|clock| {
        let now = clock_gettime(clock);
        [now.tv_sec.to_le_bytes(), now.tv_nsec.to_le_bytes()].concat()
    });
    let cards = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let addresses = cards.map(|card| card.path().join("address"));
    let files = SOURCES.iter().map(Into::into).chain(addresses).filter_map(|path| {
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(MOST as u64).read_to_end(&mut bytes)).ok()?;
        Some(bytes)
    });
    clocks.into_iter().chain(files).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_do_not_repeat_though_the_kernel_has_no_random_numbers() {
        let unseeded = || mixed([7; 16], (1, 2), &[b"the same box".to_vec(), b"the same clock".to_vec()]);
        let ids: HashSet<_> = (0..10_000).map(|_| unseeded()).collect();
        assert_eq!(ids.len(), 10_000, "rings of one process, made in the same moment");
        assert_eq!((0..1000).map(|_| new_id((1, 2))).collect::<HashSet<_>>().len(), 1000);
    }

    #[test]
    fn a_bit_of_anything_changes_half_of_an_id() {
        let mix = |facts: &[&[u8]]| {
            let mut mixer = Mixer([0; 2]);
            facts.iter().for_each(|fact| mixer.bytes(fact));
            mixer.0
        };
        let first = mix(&[b"52:54:00:12:34:56\n", b"boot"]);
        for other in [mix(&[b"52:54:00:12:34:57\n", b"boot"]), mix(&[b"52:54:00:12:34:56\n", b"bopt"])] {
            for (one, two) in first.iter().zip(other) {
                assert!((16..=48).contains(&(one ^ two).count_ones()), "{first:x?} {other:x?}");
            }
        }
        assert_ne!(mix(&[b"ab", b""]), mix(&[b"a", b"b"]));
    }

    #[test]
    fn good_random_numbers_are_enough_by_themselves() {
        // The counter is the only other input that differs, and it is known: a difference beyond it comes from the random
        // numbers.
        let of = |random| mixed(random, (0, 0), &[]).0;
        assert_ne!(of([1; 16]), of([2; 16]));
    }

    #[test]
    fn the_box_is_told_apart_by_something() {
        let facts = facts();
        assert!(facts.len() > 3, "clocks and at least a file: {facts:?}");
        assert!(fs::read("/proc/sys/kernel/random/boot_id").is_ok_and(|id| facts.contains(&id)));
    }
}
