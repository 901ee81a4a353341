//! The promise: events that are stored together share a file, and nothing else: each is delivered, refused, damaged, handed over
//! and given up alone, and their room counts until the last of them is gone. On a real disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::spool_box::{Box, RING, one, refused, two, urls};
use crate::spool_world::{BLOCK, addresses};
use sophon_uplink::spool::batch::Order;
use sophon_uplink::spool::group::{HEAD, Table};
use sophon_uplink::spool::inspect::Contents;
use sophon_uplink::spool::{Destination, ReadError};

/// Stores these records together; their numbers.
fn store(here: &mut Box, records: &[usize], to: &[Destination]) -> Vec<u64> {
    let (memory, frames) = (&*here.records.memory, &here.records.frames);
    let order = |record: &usize| Order { ring: RING, source: memory, frame: &frames[*record], to };
    let orders: Vec<_> = records.iter().map(order).collect();
    here.spool.store_all(&orders).into_iter().map(|stored| stored.unwrap().counter).collect()
}

/// All four records for both destinations.
fn group(here: &mut Box) -> Vec<u64> {
    store(here, &[0, 1, 2, 3], &[one(), two()])
}

#[test]
fn events_that_are_stored_together_are_one_file_with_a_name_for_each() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        let counters = group(&mut here);
        let about = |to, counter: u64| fs::metadata(here.file("to", to, counter)).unwrap();
        let first = about(one(), counters[0]);
        assert_eq!(first.nlink(), 8);
        assert!(counters.iter().all(|counter| [one(), two()].map(|to| about(to, *counter).ino()) == [first.ino(); 2]));
        assert_eq!(here.on_disk().1, 1);
        for _ in 0..2 {
            for to in [one(), two()] {
                assert_eq!(here.waiting(to), counters);
                counters.iter().enumerate().for_each(|(record, counter)| here.assert_read(to, *counter, record));
            }
            here.restart();
        }
        let told = Contents::of(&here.path(""), &addresses(&urls())).unwrap();
        let events = &told.waiting[0].folder.events;
        let sequences: Vec<_> = events.iter().map(|filed| filed.event.clone().unwrap_or_default()).collect();
        assert!((1..=4).zip(&sequences).all(|(sequence, id)| id.ends_with(&format!("-{sequence}"))), "{sequences:?}");
        assert!(events.iter().all(|filed| filed.sealed == is_sealed && filed.bytes < first.len()));
    }
}

#[test]
fn each_is_delivered_alone_and_their_room_counts_until_the_last_is_gone() {
    let mut here = Box::new();
    let counters = group(&mut here);
    let (bytes, _) = here.on_disk();
    for restart in [false, true] {
        for (gone, counter) in counters.iter().enumerate().filter(|(at, _)| at % 2 == usize::from(restart)) {
            assert!(here.spool.delivered(one(), *counter).unwrap());
            assert!(here.spool.delivered(two(), *counter).unwrap());
            let (status, on_disk) = (here.spool.status(), here.on_disk().0);
            assert!(status.bytes >= on_disk && on_disk == if gone == 3 { 0 } else { bytes }, "{on_disk}: {status:?}");
        }
        if !restart {
            here.restart();
            assert!(here.spool.status().bytes >= bytes);
        }
    }
    assert_eq!((here.spool.status().bytes, here.on_disk()), (0, (0, 0)));
}

#[test]
fn a_damaged_event_costs_itself_alone_and_one_end_of_the_file_says_where_the_others_lie() {
    for is_sealed in [false, true] {
        for end in [0, 1] {
            let mut here = Box::of(is_sealed);
            let counters = group(&mut here);
            let path = here.file("to", one(), counters[0]);
            let mut bytes = fs::read(&path).unwrap();
            let table = Table::read(&crate::model_disk::Bytes::of(bytes.clone())).unwrap().unwrap();
            let place = table.place(counters[1]).unwrap();
            bytes[(place.start + place.end) as usize / 2] ^= 1;
            let head = if end == 0 { 0 } else { bytes.len() - HEAD };
            bytes[head..head + HEAD].fill(0);
            fs::write(&path, bytes).unwrap();
            here.restart();
            for (record, counter) in counters.iter().enumerate().filter(|(record, _)| *record != 1) {
                here.assert_read(one(), *counter, record);
            }
            assert!(matches!(here.spool.read(one(), counters[1]), Err(ReadError::Damaged { .. })));
            assert_eq!(here.waiting(one()), [counters[0], counters[2], counters[3]]);
        }
    }
}

#[test]
fn what_is_left_of_a_file_that_was_cut_off_is_sent() {
    let mut here = Box::new();
    let counters = group(&mut here);
    let path = here.file("to", one(), counters[0]);
    let bytes = fs::read(&path).unwrap();
    let table = Table::read(&crate::model_disk::Bytes::of(bytes.clone())).unwrap().unwrap();
    fs::write(&path, &bytes[..table.ends()[1] as usize]).unwrap();
    here.assert_read(one(), counters[0], 0);
    here.assert_read(one(), counters[1], 1);
    assert!(matches!(here.spool.read(one(), counters[2]), Err(ReadError::Damaged { .. })));
}

#[test]
fn a_dead_letter_has_a_file_of_its_own_and_waits_again_in_the_one_that_is_there() {
    let mut here = Box::new();
    let counters = group(&mut here);
    assert!(here.spool.to_dead(one(), counters[2], &refused(), &mut Vec::new()).unwrap());
    let letter = fs::metadata(here.file("dead", one(), counters[2])).unwrap();
    let file = fs::metadata(here.file("to", two(), counters[2])).unwrap();
    assert!(letter.nlink() == 1 && letter.len() < 2 * BLOCK && letter.ino() != file.ino());
    assert!(here.spool.resend(one(), counters[2], one()).unwrap());
    assert_eq!(fs::metadata(here.file("to", one(), counters[2])).unwrap().ino(), file.ino());
    here.assert_read(one(), counters[2], 2);
    // Once nobody else waits for it, the letter's own file is the event's.
    assert!(here.spool.to_dead(one(), counters[2], &refused(), &mut Vec::new()).unwrap());
    for counter in &counters {
        let _ = here.spool.delivered(one(), *counter).unwrap();
        assert!(here.spool.delivered(two(), *counter).unwrap());
    }
    assert!(here.spool.resend(one(), counters[2], one()).unwrap());
    here.assert_read(one(), counters[2], 2);
    here.restart();
    here.assert_read(one(), counters[2], 2);
    assert!(here.on_disk() == (here.spool.status().bytes, 1));
}

#[test]
fn a_full_spool_gives_up_a_whole_file_where_that_is_what_makes_room() {
    let mut here = Box::new();
    let first = store(&mut here, &[1, 1, 1], &[one()]);
    let second = store(&mut here, &[2, 2, 2], &[one()]);
    let bytes = here.on_disk().0;
    assert_eq!(here.spool.status().bytes, bytes, "a file counts as the disk counts it");
    here.bound(bytes + 6 * BLOCK, 100); // all but one block of what the next one and the two URLs need
    let next = here.store(3, &[one()]);
    let waiting = here.waiting(one());
    assert!(here.on_disk().0 <= bytes + 4 * BLOCK && waiting.ends_with(&[next]), "{waiting:?}");
    assert_eq!(waiting[..3], second, "the oldest file went: {first:?}");
    assert_eq!(here.spool.status().tally.remaining(), waiting.len() as u64);
}

#[test]
fn a_dead_letter_that_waits_again_counts_beside_the_file_that_it_left() {
    let mut here = Box::new();
    let counters = store(&mut here, &[0, 1, 2, 3], &[one()]);
    let group = here.on_disk().0;
    assert!(here.spool.to_dead(one(), counters[2], &refused(), &mut Vec::new()).unwrap());
    assert!(here.spool.resend(one(), counters[2], one()).unwrap());
    assert!(here.on_disk().0 > group && here.on_disk().0 == here.spool.status().bytes);
    here.restart();
    assert_eq!(here.on_disk().0, here.spool.status().bytes, "a start counts the same");
    // It is delivered while it is read: its file takes room until its reader is gone, whatever the group's does.
    let (both, reader) = (here.on_disk().0, here.spool.read(one(), counters[2]).unwrap());
    assert!(here.spool.delivered(one(), counters[2]).unwrap());
    assert_eq!((here.on_disk().0, here.spool.status().bytes), (group, both));
    drop(reader);
    assert_eq!(here.spool.status().bytes, group);
    // The group goes first.
    assert!(here.spool.to_dead(one(), counters[1], &refused(), &mut Vec::new()).unwrap());
    assert!(here.spool.resend(one(), counters[1], one()).unwrap());
    assert!([0, 3].iter().all(|at| here.spool.delivered(one(), counters[*at]).unwrap()));
    assert_eq!((here.on_disk(), here.spool.status().files), ((here.spool.status().bytes, 1), 1));
}

#[test]
fn a_file_takes_its_room_until_the_last_reader_of_its_events_is_gone() {
    let mut here = Box::new();
    let counters = group(&mut here);
    let bytes = here.on_disk().0;
    let mut readers: Vec<_> = counters.iter().map(|counter| here.spool.read(one(), *counter).unwrap()).collect();
    let about = here.spool.status().bytes;
    assert!((bytes..=bytes + 4 * BLOCK).contains(&about), "it counts once: {about} of {bytes}");
    for counter in &counters {
        assert!([one(), two()].iter().all(|to| here.spool.delivered(*to, *counter).unwrap()));
    }
    assert_eq!(here.on_disk().0, 0);
    while let Some(reader) = readers.pop() {
        assert_eq!(here.spool.status().bytes, bytes);
        drop(reader);
    }
    assert_eq!(here.spool.status().bytes, 0);
}

/// Damages an event's record in the file that it shares.
fn damage(here: &Box, counter: u64) {
    let path = here.file("to", one(), counter);
    let mut bytes = fs::read(&path).unwrap();
    let table = Table::read(&crate::model_disk::Bytes::of(bytes.clone())).unwrap().unwrap();
    bytes[table.place(counter).unwrap().start as usize + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_damaged_event_goes_into_quarantine_alone() {
    let mut here = Box::new();
    // A file of 86 KB is more than the quarantine may have, which is an eighth.
    let counters = store(&mut here, &[3, 3, 3, 3], &[one()]);
    here.bound(64 * 8 * 1024, 1000);
    counters[..2].iter().for_each(|counter| damage(&here, *counter));
    for counter in &counters[..2] {
        let error = here.spool.read(one(), *counter).unwrap_err();
        let ReadError::Damaged { moved_to: Some(path), .. } = error else { panic!("{error}") };
        assert!(fs::metadata(path).unwrap().len() < 24_000);
    }
    assert_eq!(fs::read_dir(here.path("bad")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(here.path("new")).unwrap().count(), 0);
    assert_eq!((here.waiting(one()), here.spool.status().bytes), (counters[2..].to_vec(), here.on_disk().0));
    for counter in &counters[2..] {
        here.assert_read(one(), *counter, 3);
        assert!(here.spool.delivered(one(), *counter).unwrap());
    }
    assert_eq!((here.spool.status().bytes, here.on_disk().1), (here.on_disk().0, 2), "the file of the group is gone");
}

#[test]
fn room_is_made_for_a_dead_letters_own_file_also_after_a_restart() {
    for left in [1, 2] {
        let mut here = Box::new();
        let counters = store(&mut here, &[0, 3, 0, 0], &[one(), two()]);
        for counter in counters.iter().filter(|counter| **counter != counters[1]).take(4 - left) {
            assert!([one(), two()].iter().all(|to| here.spool.delivered(*to, *counter).unwrap()));
        }
        here.restart();
        let other = here.store(3, &[one()]);
        let bytes = here.on_disk().0;
        here.bound(bytes + 3 * BLOCK, 1000); // two for the URLs, one for the reasons
        let mut evicted = Vec::new();
        let is_dead = here.spool.to_dead(one(), counters[1], &refused(), &mut evicted);
        assert!(
            here.on_disk().0 <= bytes,
            "{left} left: {} of {bytes} bytes, {is_dead:?}, {evicted:?}",
            here.on_disk().0
        );
        assert!(!evicted.is_empty(), "{left} left: {other}");
    }
}

#[test]
fn what_another_folder_has_of_a_file_is_brought_event_by_event() {
    let mut here = Box::new();
    let counters = group(&mut here);
    fs::rename(here.path(""), here.folder.path().join("away")).unwrap();
    here.spool.open_again();
    while here.spool.settle().unwrap().is_some() {}
    let waiting = here.waiting(one());
    assert_eq!(waiting.len(), counters.len());
    waiting.iter().enumerate().for_each(|(record, counter)| here.assert_read(one(), *counter, record));
}
