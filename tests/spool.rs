//! The promise: what the spool holds, in which order, within which bounds, and what damage to it costs. On a real disk.

mod common;
#[path = "common/model_disk.rs"]
mod model_disk;
#[path = "common/spool_world.rs"]
mod spool_world;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::mounted::Mounted;
use sophon_uplink::config;
use sophon_uplink::ring::file::RingId;
use sophon_uplink::ring::mapping::PictureSource;
use sophon_uplink::spool::file::HEADER;
use sophon_uplink::spool::store::Reason;
use sophon_uplink::spool::{
    Address, Bounds, Destination, ReadError, RealDisk, Reassigned, Recovered, Spool, State, StoreError, Stored,
};
use spool_world::{BLOCK, Records, addresses};

const RING: RingId = RingId([7; 16]);
const URLS: [&str; 2] = ["http://one/RealTimeEvent", "https://two/"];

struct Box {
    folder: tempfile::TempDir,
    records: Records,
    spool: Spool<RealDisk>,
    found: Recovered,
    is_sealed: bool,
}

fn config(dir: &Path, key_file: Option<PathBuf>) -> config::Spool {
    config::Spool { dir: dir.to_owned(), max_bytes: 1 << 20, min_free_bytes: 0, key_file }
}

fn urls() -> Vec<String> {
    URLS.iter().map(|url| (*url).to_owned()).collect()
}

fn one() -> Destination {
    Destination::of(URLS[0])
}

fn two() -> Destination {
    Destination::of(URLS[1])
}

impl Box {
    fn new() -> Box {
        Box::of(false)
    }

    /// One whose events are sealed, or not.
    fn of(is_sealed: bool) -> Box {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(&[100, 1_000, 3_900, 20_000]);
        let config = config(&folder.path().join("spool"), is_sealed.then(|| records.key_file()));
        let (spool, found) = Spool::open(RealDisk::default(), &config, &addresses(&urls()));
        Box { folder, records, spool, found, is_sealed }
    }

    fn restart(&mut self) {
        self.restart_for(&urls());
    }

    fn restart_for(&mut self, urls: &[String]) {
        // The folder is one spool's: this one must be gone first.
        self.spool = Spool::open(RealDisk::default(), &config(&self.path("nowhere/at/all"), None), &[]).0;
        let config = config(&self.path(""), self.is_sealed.then(|| self.records.key_file()));
        (self.spool, self.found) = Spool::open(RealDisk::default(), &config, &addresses(urls));
    }

    fn configure(&mut self, urls: &[&str]) {
        let addresses: Vec<_> = urls.iter().map(|url| Address::from(*url)).collect();
        assert!(self.spool.configure(&addresses).is_empty());
    }

    /// Moves everything that waits for removed destinations.
    fn settle(&mut self) -> Reassigned {
        let mut all = Reassigned::default();
        while let Some(Reassigned { moved, dead }) = self.spool.settle().unwrap() {
            all = Reassigned { moved: all.moved + moved, dead: all.dead + dead };
        }
        all
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join("spool").join(inside)
    }

    fn file(&self, place: &str, destination: Destination, counter: u64) -> PathBuf {
        self.path(&format!("{place}/{destination}/{counter:020}.event"))
    }

    fn try_store(&mut self, record: usize, to: &[Destination]) -> Result<Stored, StoreError> {
        self.spool.store(RING, &*self.records.memory, &self.records.frames[record], to)
    }

    fn store(&mut self, record: usize, to: &[Destination]) -> u64 {
        self.try_store(record, to).unwrap().counter
    }

    fn waiting(&self, destination: Destination) -> Vec<u64> {
        self.spool.list(destination, None).map(|waiting| waiting.counter).collect()
    }

    #[track_caller]
    fn assert_read(&mut self, destination: Destination, counter: u64, record: usize) {
        let event = self.spool.read(destination, counter).unwrap();
        assert_eq!(event.frame.header.sequence, record as u64 + 1);
        self.records.assert_same(event.id, &event, &event.frame);
    }

    fn bound(&mut self, max_bytes: u64, max_files: u64) {
        self.spool.set_bounds(Bounds { max_bytes, max_files, min_free_bytes: 0 });
    }

    /// Bytes and files under `spool/`, but for those that say which destination a folder is.
    fn on_disk(&self) -> (u64, u64) {
        let mut inodes = std::collections::BTreeMap::new();
        let mut folders = vec![self.path("")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.metadata().unwrap() {
                    found if found.is_dir() => folders.push(entry.path()),
                    found if entry.file_name() != "url" && entry.file_name() != "heirs" => {
                        inodes.insert(found.ino(), found.len());
                    }
                    _ => {}
                }
            }
        }
        (inodes.values().map(|size| size.next_multiple_of(BLOCK)).sum(), inodes.len() as u64)
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_event_is_one_file_with_a_name_for_each_destination_and_nobody_else_may_read_it() {
    let mut here = Box::new();
    let counter = here.store(1, &[one(), two()]);
    let (first, second) = (here.file("to", one(), counter), here.file("to", two(), counter));
    let (found, other) = (fs::metadata(&first).unwrap(), fs::metadata(&second).unwrap());
    assert_eq!((found.ino(), found.nlink()), (other.ino(), 2));
    assert_eq!(mode(&first), 0o600);
    for folder in ["", "new", "to", "dead", "bad", &format!("to/{}", one())] {
        assert_eq!(mode(&here.path(folder)), 0o700, "{folder}");
    }
    assert_eq!(fs::read_to_string(here.path(&format!("to/{}/url", two()))).unwrap().trim_end(), URLS[1]);
    assert_eq!(fs::read_dir(here.path("new")).unwrap().count(), 0);
    // The format, byte by byte; the SHA-256 of a URL names its folder.
    assert_eq!(Destination::of("http://a/").to_string().len(), 16);
    let bytes = fs::read(&first).unwrap();
    let length = here.records.frames[1].header.length as usize;
    assert_eq!(&bytes[..8], b"SPOHEVNT");
    assert_eq!(&bytes[0x08..0x10], &[1, 0, 0, 0, 64, 0, 0, 0]);
    assert_eq!(&bytes[0x10..0x18], &(length as u64).to_le_bytes());
    assert_eq!((&bytes[0x18..0x28], &bytes[0x28..0x30]), (&[7; 16][..], &2u64.to_le_bytes()[..]));
    assert_eq!(&bytes[0x30..0x34], &crc32fast::hash(&bytes[64..]).to_le_bytes());
    assert_eq!(&bytes[0x3C..0x40], &crc32fast::hash(&bytes[..0x3C]).to_le_bytes());
    assert_eq!(bytes.len(), 64 + length);
}

#[test]
fn events_come_back_as_they_were_and_oldest_first_also_after_a_restart() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        let counters: Vec<_> = (0..4).map(|record| here.store(record, &[one()])).collect();
        assert_eq!((here.waiting(one()), here.waiting(two())), (counters.clone(), vec![]));
        here.restart();
        assert_eq!((here.found.events, here.waiting(one())), (4, counters.clone()));
        counters.iter().enumerate().for_each(|(record, counter)| here.assert_read(one(), *counter, record));
        assert!(here.spool.delivered(one(), counters[0]).unwrap());
        assert!(!here.spool.delivered(one(), counters[0]).unwrap());
        assert!(matches!(here.spool.read(one(), counters[0]), Err(ReadError::Gone)));
        assert_eq!(here.spool.list(one(), Some(counters[1])).map(|one| one.counter).collect::<Vec<_>>(), counters[2..]);
        assert!(here.store(0, &[one()]) > counters[3]);
    }
}

#[test]
fn what_is_stored_is_what_was_checked_whatever_a_recognizer_writes_over_it() {
    let mut here = Box::new();
    let mut frame = here.records.frames[1];
    frame.header.timestamp_ms += 1; // what was read once; in the ring there is something else by now
    let stored = here.spool.store(RING, &*here.records.memory, &frame, &[one()]).unwrap();
    let event = here.spool.read(one(), stored.counter).unwrap();
    assert_eq!(event.frame.header, frame.header);
}

#[test]
fn a_number_is_never_given_twice_even_when_its_event_is_gone_but_for_one_folder() {
    let mut here = Box::new();
    let counter = here.store(0, &[one(), two()]);
    here.spool.delivered(one(), counter).unwrap();
    here.restart();
    assert!(here.store(1, &[one(), two()]) > counter);
    here.assert_read(two(), counter, 0);
    here.spool.to_dead(two(), counter).unwrap();
    let last = here.store(2, &[one()]);
    here.spool.delivered(one(), last).unwrap();
    here.spool.delivered(one(), counter + 1).unwrap();
    here.spool.delivered(two(), counter + 1).unwrap();
    here.restart();
    assert!(here.store(1, &[one()]) > counter, "the dead letter has that number");
}

#[test]
fn a_name_that_somebody_else_took_is_left_to_him() {
    let mut here = Box::new();
    let counter = here.store(0, &[one(), two()]);
    let taken = here.file("to", two(), counter + 1);
    fs::write(&taken, "not ours").unwrap();
    assert_eq!(here.store(1, &[one(), two()]), counter + 2);
    assert_eq!(fs::read_to_string(taken).unwrap(), "not ours");
    assert_eq!((here.waiting(one()), fs::read_dir(here.path("new")).unwrap().count()), (vec![counter, counter + 2], 0));
    assert!(!here.file("to", one(), counter + 1).exists());
}

#[test]
fn not_a_byte_is_written_while_nothing_is_stored() {
    let mut here = Box::new();
    here.restart();
    let before: Vec<_> =
        ["", "to", "new", "dead", "bad"].map(|folder| fs::metadata(here.path(folder)).unwrap().ctime_nsec()).into();
    here.restart();
    assert_eq!(here.spool.status().bytes_written, 0);
    let after = ["", "to", "new", "dead", "bad"].map(|folder| fs::metadata(here.path(folder)).unwrap().ctime_nsec());
    assert_eq!(before, after);
    here.store(3, &[one()]);
    let names: usize = urls().iter().map(|url| url.len() + 1).sum(); // each destination's `url` file, with the first event
    let record = 64 + u64::from(here.records.frames[3].header.length);
    assert_eq!(here.spool.status().bytes_written, names as u64 + record);
    here.store(3, &[two()]);
    assert_eq!(here.spool.status().bytes_written, names as u64 + 2 * record);
}

#[test]
fn the_bound_on_bytes_is_reached_and_never_exceeded_and_the_oldest_goes_first() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        here.bound((8 + 2) * BLOCK, 1000); // a block for the `url` of each destination
        let counters: Vec<_> = (0..8).map(|_| here.store(0, &[one(), two()])).collect();
        assert_eq!(here.on_disk(), (8 * BLOCK, 8), "eight blocks are allowed");
        assert_eq!(here.spool.status().tally.evicted, 0);
        here.spool.delivered(one(), counters[0]).unwrap();
        let stored = here.try_store(0, &[one()]).unwrap();
        assert_eq!(stored.evicted.len(), 1);
        assert_eq!((stored.evicted[0].counter, &stored.evicted[0].destinations[..]), (counters[0], &[two()][..]));
        let mut random = fastrand::Rng::with_seed(common::seed());
        for _ in 0..100 {
            let record = random.usize(..4);
            here.store(record, &[if random.bool() { one() } else { two() }]);
            let ((bytes, files), status) = (here.on_disk(), here.spool.status());
            assert!(bytes <= 8 * BLOCK);
            assert_eq!((status.bytes, status.files), (bytes, files));
            let left = status.destinations.iter().map(|one| one.waiting + one.tally.evicted).sum::<u64>();
            assert_eq!(left + 1, status.tally.stored, "one was delivered");
        }
    }
}

#[test]
fn the_bound_on_files_holds_and_is_recounted_at_a_start() {
    let mut here = Box::new();
    here.bound(1 << 20, 5);
    (0..20).for_each(|_| assert!(here.store(0, &[one(), two()]) > 0));
    assert_eq!((here.on_disk().1, here.waiting(one())), (5, vec![16, 17, 18, 19, 20]));
    here.restart();
    assert_eq!((here.found.bytes, here.spool.status().bytes), (5 * BLOCK, 5 * BLOCK));
    here.bound((5 + 2) * BLOCK, 1000);
    here.store(0, &[one()]);
    assert_eq!(here.on_disk(), (5 * BLOCK, 5));
}

#[test]
fn an_event_that_cannot_fit_costs_no_other() {
    let mut here = Box::new();
    let kept = here.store(0, &[one()]);
    here.bound(4 * BLOCK, 1000);
    assert!(matches!(here.try_store(3, &[one()]).unwrap_err().reason, Reason::TooLarge(_)));
    here.spool.set_bounds(Bounds { max_bytes: 1 << 20, max_files: 10, min_free_bytes: 1 << 60 });
    let error = here.try_store(0, &[one()]).unwrap_err();
    assert!(matches!(error.reason, Reason::NoRoom(_)) && error.evicted.is_empty(), "{error}");
    assert!(matches!(here.spool.state(), State::Troubled(_)));
    assert_eq!(here.waiting(one()), [kept]);
    assert!(matches!(here.try_store(0, &[]).unwrap_err().reason, Reason::NoSuchDestination));
    assert!(matches!(here.try_store(0, &[Destination([0; 8])]).unwrap_err().reason, Reason::NoSuchDestination));
}

#[test]
fn whatever_happens_to_a_file_only_its_event_is_set_aside() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        let mut random = fastrand::Rng::with_seed(common::seed());
        for round in 0..400 {
            let counters: Vec<_> = (0..4).map(|record| here.store(record, &[one()])).collect();
            let victim = random.usize(..4);
            let path = here.file("to", one(), counters[victim]);
            let mut bytes = fs::read(&path).unwrap();
            match random.u8(..5) {
                0 => bytes.truncate(random.usize(..bytes.len())),
                1 => bytes.extend(vec![0; random.usize(1..5000)]),
                2 => random.fill(&mut bytes),
                _ => {
                    let at = if random.bool() { random.usize(..bytes.len()) } else { random.usize(..64) };
                    bytes[at] ^= 1 << random.u8(..8);
                }
            }
            fs::write(&path, bytes).unwrap();
            if random.bool() {
                here.restart();
            }
            for (record, counter) in counters.iter().enumerate() {
                if record != victim {
                    here.assert_read(one(), *counter, record);
                    continue;
                }
                match here.spool.read(one(), *counter) {
                    Err(ReadError::Damaged { moved_to: Some(to), .. }) => {
                        assert!(to.starts_with(here.path("bad")) && to.exists())
                    }
                    other => panic!("round {round}: {:?}", other.map(|event| event.id)),
                }
                assert!(!here.waiting(one()).contains(counter));
            }
            for counter in counters {
                here.spool.delivered(one(), counter).unwrap();
            }
            let status = here.spool.status();
            assert!((1..=(1 << 20) / 8 / BLOCK).contains(&status.bad), "{status:?}");
            assert_eq!((status.bytes, status.files), here.on_disk());
        }
    }
}

/// Makes the header's checksum right again.
fn mend(file: &mut [u8]) {
    let crc = crc32fast::hash(&file[..HEADER - 4]);
    file[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_header_that_says_what_its_version_does_not_say_is_damaged() {
    // Where the record begins; what is zero, in clear and sealed.
    for (is_sealed, at) in [(false, 0x0C), (true, 0x0D), (false, 0x34), (false, 0x3B), (true, 0x30), (true, 0x33)] {
        let mut here = Box::of(is_sealed);
        let counter = here.store(0, &[one()]);
        let path = here.file("to", one(), counter);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        mend(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let refused = here.spool.read(one(), counter).unwrap_err();
        assert!(matches!(refused, ReadError::Damaged { .. }), "byte {at:#x}: {refused}");
    }
}

#[test]
fn what_a_newer_release_spooled_stays_where_it_is_for_that_release() {
    let mut here = Box::new();
    let foreign: Vec<_> = (0..3).map(|record| here.store(record, &[one()])).collect();
    let ours = here.store(3, &[one()]);
    let written: Vec<_> = foreign.iter().map(|counter| fs::read(here.file("to", one(), *counter)).unwrap()).collect();
    for (counter, bytes) in foreign.iter().zip(&written) {
        let mut newer = bytes.clone();
        newer[8] = 3;
        mend(&mut newer);
        newer.extend([7; 5]); // whatever its layout is
        fs::write(here.file("to", one(), *counter), newer).unwrap();
    }
    here.restart();
    let refused = here.spool.read(one(), foreign[0]).unwrap_err();
    assert!(matches!(refused, ReadError::Foreign { events: 3, version: 3 }), "{refused}");
    assert_eq!(here.waiting(one()), [ours]);
    here.assert_read(one(), ours, 3);
    let status = here.spool.status();
    assert_eq!((status.destinations[0].stuck, status.bad, status.tally.quarantined), (3, 0, 0));
    for (counter, bytes) in foreign.iter().zip(&written) {
        fs::write(here.file("to", one(), *counter), bytes).unwrap(); // as if this were the newer release
    }
    here.restart();
    foreign.iter().enumerate().for_each(|(record, counter)| here.assert_read(one(), *counter, record));
}

#[test]
fn what_is_not_ours_is_moved_aside_at_the_start_and_stops_nothing() {
    let mut here = Box::new();
    let counter = here.store(0, &[one()]);
    let folder = here.path(&format!("to/{}", one()));
    fs::write(folder.join("00000000000000000002.event.swp"), "x").unwrap();
    fs::write(folder.join("+0000000000000000003.event"), "x").unwrap();
    fs::write(folder.join("18446744073709551615.event"), "x").unwrap();
    fs::create_dir_all(folder.join("00000000000000000004.event/deep")).unwrap();
    fs::write(folder.join("00000000000000000005.event"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("00000000000000000006.event")).unwrap();
    fs::write(here.path("to/notes.txt"), "x").unwrap();
    fs::write(here.path("to/0123456789abcdef"), "a file").unwrap();
    fs::write(here.path("dead/x"), "x").unwrap();
    fs::create_dir(here.path("new/folder")).unwrap();
    fs::write(here.path("new/00000000000000000044.event"), "half").unwrap();
    here.restart();
    assert!(here.found.unavailable.is_none() && here.found.problems.is_empty(), "{:?}", here.found);
    assert_eq!((here.found.foreign, here.found.unfinished), (9, 1));
    assert_eq!(here.waiting(one()), [counter, 5]);
    assert!(matches!(here.spool.read(one(), 5), Err(ReadError::Damaged { .. })));
    here.assert_read(one(), counter, 0);
    assert_eq!(fs::read_dir(here.path("new")).unwrap().count(), 0);
    assert_eq!(here.store(0, &[one()]), 45, "the counter goes on after every number seen");
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_is_an_error_and_no_crash() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        let counter = here.store(3, &[one()]);
        let event = here.spool.read(one(), counter).unwrap();
        fs::OpenOptions::new().write(true).open(here.file("to", one(), counter)).unwrap().set_len(10).unwrap();
        let picture = event.frame.offset + 17_000..event.frame.offset + 19_000;
        assert!(event.lend(picture, &mut |bytes| drop(bytes.to_vec())).is_err());
        here.spool.skip(one(), counter);
        assert!(here.waiting(one()).is_empty());
        here.restart();
        assert!(matches!(here.spool.read(one(), counter), Err(ReadError::Damaged { .. })));
    }
}

#[test]
fn an_event_can_be_read_to_its_end_though_it_was_delivered_or_evicted_meanwhile() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        let counter = here.store(3, &[one()]);
        let event = here.spool.read(one(), counter).unwrap();
        here.spool.delivered(one(), counter).unwrap();
        here.records.assert_same(event.id, &event, &event.frame);
        assert_eq!(here.on_disk(), (0, 0));
    }
}

#[test]
fn a_refused_event_is_a_dead_letter_until_it_is_sent_again() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        let counters: Vec<_> = (0..3).map(|record| here.store(record, &[one(), two()])).collect();
        assert!(here.spool.to_dead(one(), counters[1]).unwrap());
        assert!(!here.spool.to_dead(one(), counters[1]).unwrap());
        assert_eq!((here.waiting(one()), here.waiting(two())), (vec![counters[0], counters[2]], counters.clone()));
        here.restart();
        let dead: Vec<_> = here.spool.dead_letters().map(|(to, letter)| (to, letter.counter)).collect();
        assert_eq!(dead, [(one(), counters[1])]);
        assert!(here.spool.resend(one(), counters[1], one()).unwrap());
        assert!(!here.spool.resend(one(), counters[1], one()).unwrap());
        assert_eq!(here.waiting(one()), counters);
        here.assert_read(one(), counters[1], 1);
        assert_eq!(here.spool.dead_letters().count(), 0);
    }
}

#[test]
fn dead_letters_take_an_eighth_and_the_oldest_goes_first() {
    let mut here = Box::new();
    here.bound(80 * BLOCK, 1000);
    let counters: Vec<_> = (0..30).map(|_| here.store(0, &[one()])).collect();
    counters.iter().for_each(|counter| assert!(here.spool.to_dead(one(), *counter).unwrap()));
    let dead: Vec<_> = here.spool.dead_letters().map(|(_, letter)| letter.counter).collect();
    assert_eq!(dead, counters[20..]);
    let status = here.spool.status();
    assert_eq!((status.tally.dead, status.tally.dead_evicted, here.on_disk()), (30, 20, (10 * BLOCK, 10)));
}

#[test]
fn what_waits_for_a_removed_destination_goes_to_the_added_ones_or_becomes_dead_letters() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..3).map(|record| here.store(record, &[one(), two()])).collect();
    let [three, four] = ["http://three/", "http://four/"].map(Destination::of);
    here.configure(&[URLS[1], "http://three/", "http://four/"]);
    assert_eq!(here.settle(), Reassigned { moved: 3, dead: 0 });
    assert_eq!((here.waiting(three), here.waiting(four)), (counters.clone(), counters.clone()));
    assert!(!here.path(&format!("to/{}", one())).exists());
    assert_eq!(here.on_disk().1, 3, "still one file an event");
    here.configure(&[URLS[1], "http://three/"]);
    assert_eq!(here.settle(), Reassigned { moved: 0, dead: 3 });
    assert_eq!((here.waiting(three), here.spool.dead_letters().count()), (counters.clone(), 3));
    here.assert_read(three, counters[2], 2);
}

#[test]
fn heirs_are_known_after_a_restart_and_a_destination_that_is_configured_again_keeps_what_it_has() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..3).map(|record| here.store(record, &[one(), two()])).collect();
    let [three, four] = ["http://three/", "http://four/"].map(Destination::of);
    // The process dies before anything was moved, and after the heir has a folder.
    here.configure(&[URLS[1], "http://three/"]);
    let fourth = here.store(3, &[three]);
    here.restart_for(&[URLS[1], "http://three/"].map(str::to_owned));
    assert_eq!(here.found.removed.len(), 1);
    assert_eq!(here.settle(), Reassigned { moved: 3, dead: 0 });
    assert_eq!(here.waiting(three), [counters.clone(), vec![fourth]].concat());
    // An heir that is removed has heirs itself; one that comes back has nothing to give.
    here.configure(&["http://three/", "http://five/"]);
    here.configure(&["http://three/", "http://four/"]);
    here.configure(&["http://three/", "http://four/", URLS[1]]);
    assert_eq!((here.settle(), here.waiting(two())), (Reassigned::default(), counters.clone()));
    here.configure(&["http://three/", "http://five/"]);
    here.configure(&["http://three/", "http://four/"]);
    assert_eq!((here.settle().moved, here.waiting(four)), (3, counters.clone()));
    // Changed while no process ran: what has no folder yet is new.
    here.restart_for(&["http://three/", "http://six/"].map(str::to_owned));
    assert_eq!((here.settle().moved, here.waiting(Destination::of("http://six/"))), (3, counters));
    // What is on its way stays until it is over.
    here.spool.hand_out(three, fourth);
    here.configure(&["http://six/", "http://seven/"]);
    assert_eq!(here.settle().moved, 3);
    here.spool.put_back(three, fourth);
    assert_eq!(here.settle().moved, 1);
    assert!(here.spool.dead_letters().next().is_none());
}

#[test]
fn an_event_is_shared_with_another_destination_without_writing_it_again() {
    let mut here = Box::new();
    let counter = here.store(2, &[one()]);
    let written = here.spool.status().bytes_written;
    here.spool.share(counter, &[two()]).unwrap();
    assert_eq!((here.waiting(two()), here.spool.status().bytes_written), (vec![counter], written));
    here.spool.delivered(one(), counter).unwrap();
    here.spool.delivered(two(), counter).unwrap();
    assert!(matches!(here.spool.share(counter, &[two()]), Err(Reason::NoSuchDestination)));
}

#[test]
fn a_spool_that_cannot_be_used_says_why_and_is_usable_as_soon_as_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("spool");
    fs::write(&dir, "a file").unwrap();
    let (mut spool, found) = Spool::open(RealDisk::default(), &config(&dir, None), &addresses(&urls()));
    assert!(found.unavailable.is_some());
    let records = Records::new(&[100]);
    let error = spool.store(RING, &*records.memory, &records.frames[0], &[one()]).unwrap_err();
    assert!(matches!(&error.reason, Reason::Unavailable(why) if why.contains("spool")), "{error}");
    assert!(spool.settle().is_err() && spool.list(one(), None).next().is_none());
    fs::remove_file(&dir).unwrap();
    assert!(spool.open_again().unavailable.is_none());
    spool.store(RING, &*records.memory, &records.frames[0], &[one()]).unwrap();
    // Somebody clears it away under us.
    fs::remove_dir_all(&dir).unwrap();
    assert!(spool.store(RING, &*records.memory, &records.frames[0], &[one()]).is_err());
    assert!(matches!(spool.state(), State::Unavailable(_)));
    assert!(spool.open_again().unavailable.is_none());
    spool.store(RING, &*records.memory, &records.frames[0], &[one()]).unwrap();
}

#[test]
fn a_full_and_a_read_only_file_system_cost_nothing_but_what_is_older() {
    let Some(mounted) = Mounted::new("256k") else {
        println!("SKIPPED: a_full_and_a_read_only_file_system: mounting is not allowed here");
        return;
    };
    let (mut spool, _) =
        Spool::open(RealDisk::default(), &config(&mounted.path().join("spool"), None), &addresses(&urls()));
    let records = Records::new(&[100, 20_000]);
    let mut stored = Vec::new();
    for _ in 0..30 {
        stored.push(spool.store(RING, &*records.memory, &records.frames[1], &[one()]).unwrap().counter);
    }
    let waiting: Vec<_> = spool.list(one(), None).map(|one| one.counter).collect();
    assert!(waiting.len() >= 6 && stored.ends_with(&waiting), "{waiting:?}");
    // Others fill the disk: statvfs says so, and older events make room.
    let others = mounted.path().join("others");
    fs::write(&others, vec![1; mounted.free_bytes() as usize]).unwrap();
    spool.store(RING, &*records.memory, &records.frames[1], &[one()]).unwrap();
    mounted.remount("ro");
    let before: Vec<_> = spool.list(one(), None).map(|one| one.counter).collect();
    assert!(spool.store(RING, &*records.memory, &records.frames[0], &[one()]).is_err());
    assert!(spool.delivered(one(), before[0]).is_err());
    assert_eq!(spool.list(one(), None).map(|one| one.counter).collect::<Vec<_>>(), before[1..], "not offered again");
    mounted.remount("rw");
    spool.store(RING, &*records.memory, &records.frames[0], &[one()]).unwrap();
    assert_eq!((spool.leftovers(), spool.state()), (0, &State::Usable));
}

#[test]
fn a_hundred_thousand_events_are_listed_in_order() {
    let mut here = Box::new();
    let folder = here.path(&format!("to/{}", one()));
    fs::create_dir(&folder).unwrap();
    let first = here.path("to/first");
    fs::write(&first, [0; 100]).unwrap();
    let mut from = first.clone();
    for counter in 1..=100_000u64 {
        let to = folder.join(format!("{counter:020}.event"));
        if fs::hard_link(&from, &to).is_err() {
            fs::write(&to, [0; 100]).unwrap(); // a file has 65,000 names at most
            from = to;
        }
    }
    let began = std::time::Instant::now();
    here.restart();
    println!("100,000 events were listed in {} ms", began.elapsed().as_millis());
    assert_eq!(here.found.events, 100_000);
    assert!(here.spool.list(one(), None).map(|one| one.counter).eq(1..=100_000));
}
