//! The promise: what the spool does not offer any more is kept aside, and stops nothing: what is damaged or not ours, dead letters, and
//! what waits for destinations that were removed. On a real disk.

mod common;
#[path = "common/model_disk.rs"]
mod model_disk;
#[path = "common/spool_box.rs"]
mod spool_box;
#[path = "common/spool_world.rs"]
mod spool_world;

use std::fs;

use sophon_uplink::ring::mapping::PictureSource;
use sophon_uplink::spool::file::HEADER;
use sophon_uplink::spool::{Address, Destination, ReadError, Reassigned};
use spool_box::{Box, URLS, one, two};
use spool_world::BLOCK;

impl Box {
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
