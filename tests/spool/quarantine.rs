//! The promise: what is damaged or not the spool's goes into quarantine, and stops nothing.

use std::fs;

use crate::spool_box::{Box, RING, full, one};
use crate::spool_world::BLOCK;
use sophon_uplink::picture::PictureSource;
use sophon_uplink::spool::file::HEADER;
use sophon_uplink::spool::{Bounds, ReadError};

#[test]
fn whatever_happens_to_a_file_only_its_event_is_set_aside() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        let mut random = fastrand::Rng::with_seed(crate::common::seed());
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
        newer[8] = 4;
        mend(&mut newer);
        newer.extend([7; 5]); // whatever its layout is
        fs::write(here.file("to", one(), *counter), newer).unwrap();
    }
    here.restart();
    let refused = here.spool.read(one(), foreign[0]).unwrap_err();
    assert!(matches!(refused, ReadError::Foreign { events: 3, version: 4 }), "{refused}");
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
fn a_file_that_is_too_large_for_the_quarantine_displaces_no_other() {
    let mut here = Box::new();
    here.bound(16 * BLOCK, 1000); // two blocks for the quarantine
    let counters = [here.store(0, &[one()]), here.store(3, &[one()])];
    let read = |here: &mut Box, counter: u64| {
        let path = here.file("to", one(), counter);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
        match here.spool.read(one(), counter).unwrap_err() {
            ReadError::Damaged { moved_to, .. } => moved_to,
            error => panic!("{error}"),
        }
    };
    let kept = read(&mut here, counters[0]).expect("it fits");
    assert!(read(&mut here, counters[1]).is_none());
    assert!(kept.exists() && here.waiting(one()).is_empty() && here.on_disk() == (BLOCK, 1));
}

#[test]
fn bounds_that_are_lowered_are_honoured_at_once() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..100).map(|_| here.store(0, &[one()])).collect();
    let before = here.spool.set_bounds(Bounds { max_bytes: 42 * BLOCK, max_files: 1000, min_free_bytes: 0 });
    let gone = here.spool.honour_bounds(before);
    assert_eq!(
        (gone.len(), here.waiting(one())),
        (60, counters[60..].to_vec()),
        "two blocks say which destinations there are"
    );
    // So is more room for others; but at a start what others take is no reason to give up what may be delivered.
    let huge = Bounds { min_free_bytes: u64::MAX / 2, ..before };
    here.spool.set_bounds(huge);
    assert!(here.spool.honour_bounds(huge).is_empty());
    assert!(
        here.spool.honour_bounds(before).is_empty(),
        "all of it together would not be enough: nothing goes in vain"
    );
    assert_eq!(here.spool.give_way(3).len(), 3);
    assert_eq!(here.waiting(one()), counters[63..]); // oldest first
}

#[test]
fn a_file_that_cannot_be_deleted_keeps_no_other_from_making_room() {
    for is_done in [false, true] {
        let (records, disk, mut spool, a) = full();
        let first = spool.list(a, None).next().unwrap().counter;
        disk.stick(Some((format!("{first:020}.event"), libc::EUCLEAN)));
        if is_done {
            assert!(spool.delivered(a, first).is_err());
        }
        for evicted in 1..=20 {
            let stored = spool.store(RING, &*records.memory, &records.frames[3], &[a]).unwrap();
            assert_eq!(stored.evicted.iter().map(|one| one.counter).collect::<Vec<_>>(), [first + evicted]);
        }
        assert_eq!(spool.list(a, None).any(|one| one.counter == first), !is_done, "it is offered as before");
        disk.stick(None);
        let stored = spool.store(RING, &*records.memory, &records.frames[3], &[a]).unwrap();
        assert_eq!(stored.evicted.iter().any(|one| one.counter == first), !is_done, "and is the oldest again");
        assert!(spool.list(a, None).all(|one| one.counter != first));
    }
}
