//! The promise: what the spool holds, in which order and within which bounds. On a real disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::common::mounted::Mounted;
use crate::spool_box::{Box, RING, URLS, config, one, two, urls};
use crate::spool_world::{BLOCK, Records, addresses};
use sophon_uplink::spool::store::Reason;
use sophon_uplink::spool::{Bounds, Destination, ReadError, RealDisk, Spool, State};

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
    here.spool.to_dead(two(), counter, &crate::spool_box::refused(), &mut Vec::new()).unwrap();
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
    // A start tries in `new` whether a file can have two names there, and leaves none.
    let before: Vec<_> =
        ["", "to", "dead", "bad"].map(|folder| fs::metadata(here.path(folder)).unwrap().ctime_nsec()).into();
    here.restart();
    assert_eq!(here.spool.status().bytes_written, 0);
    assert_eq!(fs::read_dir(here.path("new")).unwrap().count(), 0);
    let after = ["", "to", "dead", "bad"].map(|folder| fs::metadata(here.path(folder)).unwrap().ctime_nsec());
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
        let mut random = fastrand::Rng::with_seed(crate::common::seed());
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
fn an_evicted_event_that_is_being_read_takes_its_room_until_the_reader_is_gone() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..4).map(|_| here.store(3, &[one(), two()])).collect();
    let bytes = here.on_disk().0 / 4;
    here.bound(4 * bytes + 2 * BLOCK, 1000); // a block for the URL of each destination
    let readers = [one(), two()].map(|destination| here.spool.read(destination, counters[0]).unwrap());
    let stored = here.try_store(3, &[one()]).unwrap();
    let evicted: Vec<_> = stored.evicted.iter().map(|evicted| evicted.counter).collect();
    assert_eq!(evicted, counters[..2], "the first one gives no room yet");
    assert_eq!(here.on_disk().0, 3 * bytes);
    assert_eq!(here.spool.status().bytes, 4 * bytes, "the file that is read has no name and counts once");
    here.records.assert_same(readers[0].id, &readers[0], &readers[0].frame);
    drop(readers);
    assert_eq!(here.spool.status().bytes, 3 * bytes);
    assert!(here.try_store(3, &[one()]).unwrap().evicted.is_empty());
    assert_eq!(here.on_disk().0, 4 * bytes);
}

/// As if nobody read: no event waits for the end of an upload, and a bound that is lowered is honoured at once.
#[test]
fn what_is_being_read_does_not_count_where_it_leaves_too_little() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..4).map(|_| here.store(3, &[one()])).collect();
    let bytes = here.on_disk().0;
    here.bound(bytes + 2 * BLOCK, 1000);
    let readers: Vec<_> = counters.iter().map(|counter| here.spool.read(one(), *counter).unwrap()).collect();
    assert_eq!(here.try_store(0, &[one()]).unwrap().evicted.len(), 1);
    let before = Bounds { max_bytes: bytes + 2 * BLOCK, max_files: 1000, min_free_bytes: 0 };
    here.spool.set_bounds(Bounds { max_bytes: bytes / 2 + 2 * BLOCK, ..before });
    assert_eq!(here.spool.honour_bounds(before).len(), 2);
    assert!(here.on_disk().0 <= bytes / 2, "{counters:?}");
    drop(readers);
    here.spool.set_bounds(Bounds { max_bytes: 1 << 30, max_files: 1000, min_free_bytes: 1 << 60 });
    let error = here.try_store(0, &[one()]).unwrap_err();
    assert!(matches!(error.reason, Reason::NoRoom(_)) && error.evicted.is_empty(), "{error}");
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
