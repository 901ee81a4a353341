//! The promise: what the spool does not offer any more is kept aside, and stops nothing: what is damaged or not ours, dead
//! letters, and what waits for destinations that were removed. On a real disk.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

use crate::common::mounted::Mounted;
use crate::model_disk::ModelDisk;
use crate::spool_box::{Box, RING, URLS, config, one, refused, two};
use crate::spool_world::{BLOCK, Records, root};
use sophon_uplink::config::Url;
use sophon_uplink::picture::PictureSource;
use sophon_uplink::spool::dead::{Resent, Wanted};
use sophon_uplink::spool::file::HEADER;
use sophon_uplink::spool::judge::judge;
use sophon_uplink::spool::{Address, Bounds, DeadLetterReason, Destination, Moved, ReadError, RealDisk, Spool, State};

impl Box {
    fn configure(&mut self, urls: &[&str]) {
        let addresses: Vec<_> = urls.iter().map(|url| Address::from(*url)).collect();
        assert!(self.spool.configure(&addresses).is_empty());
    }

    /// Moves everything that waits for removed destinations.
    fn settle(&mut self) -> u64 {
        std::iter::from_fn(|| self.spool.settle().unwrap()).map(Moved::events).sum()
    }

    /// What is parked, by URL.
    fn parked(&self) -> Vec<(&str, u64)> {
        self.spool.parked().map(|(_, url, events)| (url.unwrap(), events)).collect()
    }
}

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
fn a_refused_event_is_a_dead_letter_until_it_is_sent_again() {
    for is_sealed in [false, true] {
        let mut here = Box::of(is_sealed);
        let counters: Vec<_> = (0..3).map(|record| here.store(record, &[one(), two()])).collect();
        assert!(here.spool.to_dead(one(), counters[1], &refused(), &mut Vec::new()).unwrap());
        assert!(!here.spool.to_dead(one(), counters[1], &refused(), &mut Vec::new()).unwrap());
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
fn what_must_go_goes_oldest_first_and_an_eighth_of_dead_letters_last() {
    let mut here = Box::new();
    here.bound(42 * BLOCK, 1000);
    // Two blocks say which destinations there are, one which letters they sent, two why.
    let counters: Vec<_> = (0..30).map(|_| here.store(0, &[one()])).collect();
    counters[..15]
        .iter()
        .for_each(|counter| assert!(here.spool.to_dead(one(), *counter, &refused(), &mut Vec::new()).unwrap()));
    assert_eq!((here.spool.status().dead, here.spool.status().tally.dead_evicted), (15, 0), "there is room for all");
    let letters = |here: &Box| here.spool.dead_letters().map(|(_, letter)| letter.counter).collect::<Vec<_>>();
    // Letters beyond an eighth, five of them, go with what waits: they are older.
    let mut told = Vec::new();
    while letters(&here).len() > 5 {
        told.extend(here.try_store(0, &[one()]).unwrap().evicted);
    }
    assert!(told.iter().all(|one| one.was_dead && one.destinations.len() == 1) && told.len() == 10, "{told:?}");
    assert_eq!(letters(&here), counters[10..15]);
    assert_eq!(here.waiting(one())[..15], counters[15..], "what waits was not touched");
    // From now on what waits goes: an eighth is the letters' own.
    for _ in 0..60 {
        assert!(here.try_store(0, &[one()]).unwrap().evicted.iter().all(|one| !one.was_dead));
    }
    let status = here.spool.status();
    assert_eq!((letters(&here), status.tally.dead_evicted), (counters[10..15].to_vec(), 10));
    assert_eq!(status.tally.evicted, 30 - 15 + 60 - here.waiting(one()).len() as u64 + status.tally.stored - 90);
}

#[test]
fn a_dead_letter_says_why_it_is_one_also_after_a_restart_and_once_it_is_refused_again() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..40).map(|_| here.store(0, &[one(), two()])).collect();
    let why = |number: u64, text: &str| DeadLetterReason { tries: number as u32, reason: text.into(), ..refused() };
    for counter in &counters {
        here.spool.to_dead(one(), *counter, &why(*counter, "first"), &mut Vec::new()).unwrap();
        here.spool.to_dead(two(), *counter, &why(*counter, "other"), &mut Vec::new()).unwrap();
    }
    for counter in counters.iter().step_by(2) {
        here.spool.resend(one(), *counter, one()).unwrap();
        here.spool.to_dead(one(), *counter, &why(*counter, "again"), &mut Vec::new()).unwrap();
    }
    for restarted in [false, true] {
        if restarted {
            here.restart();
        }
        let (total, letters, next) = here.spool.letters(None, 100);
        assert_eq!((total, letters.len(), next), (80, 80, None));
        for letter in letters {
            let text = match (letter.destination == one(), letter.number % 2 == counters[0] % 2) {
                (false, _) => "other",
                (true, true) => "again",
                (true, false) => "first",
            };
            assert_eq!(letter.reason, Some(why(letter.number, text)), "restarted: {restarted}");
            assert!(
                letter.event.is_some() && letter.url.as_deref() == Some(URLS[usize::from(letter.destination == two())])
            );
        }
    }
    let size = fs::metadata(here.path("reasons")).unwrap().len();
    assert_eq!(size, 80 * 256, "the places of letters that are gone are used again");
    // A spool of a release that wrote no reasons: the letters are there.
    fs::remove_file(here.path("reasons")).unwrap();
    here.restart();
    assert!(here.spool.letters(None, 100).1.iter().all(|letter| letter.reason.is_none() && letter.event.is_some()));
}

#[test]
fn dead_letters_come_in_pages_that_leave_none_out() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..25).map(|_| here.store(0, &[one(), two()])).collect();
    for counter in &counters {
        here.spool.to_dead(one(), *counter, &refused(), &mut Vec::new()).unwrap();
        here.spool.to_dead(two(), *counter, &refused(), &mut Vec::new()).unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (total, page, next) = here.spool.letters(after, 7);
        assert_eq!((total, page.len()), (50, if next.is_some() { 8 } else { 2 }), "both letters of a number");
        seen.extend(page.iter().map(|letter| (letter.number, letter.destination)));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 50);
}

#[test]
fn letters_of_a_destination_that_is_gone_do_not_keep_others_from_being_sent_again() {
    let mut here = Box::new();
    here.bound(16 << 20, 10_000);
    let counters: Vec<_> =
        (0..300).map(|number| here.store(0, &[if number % 3 == 0 { one() } else { two() }])).collect();
    for (number, counter) in counters.iter().enumerate() {
        here.spool.to_dead(if number % 3 == 0 { one() } else { two() }, *counter, &refused(), &mut Vec::new()).unwrap();
    }
    here.configure(&[URLS[1]]);
    let (mut done, mut wanted) = (Resent::default(), Wanted::default());
    loop {
        let some = here.spool.resend_some(&wanted).unwrap();
        assert!(some.resent <= 256, "others have their turn");
        done.add(some);
        if done.after.is_none() {
            break;
        }
        wanted.after = done.after;
    }
    assert_eq!((done.resent, done.skipped), (200, [(URLS[0].to_owned(), 100)].into()));
    assert_eq!((here.waiting(two()).len(), here.spool.dead_letters().count()), (200, 100));
    here.restart_for(&[URLS[1].to_owned()]);
    assert_eq!((here.waiting(two()).len(), here.spool.dead_letters().count()), (200, 100), "it is durable");
}

#[test]
fn what_waits_for_a_removed_destination_goes_to_the_added_ones_or_is_parked() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..3).map(|record| here.store(record, &[one(), two()])).collect();
    let [three, four] = ["http://three/", "http://four/"].map(Destination::of);
    here.configure(&[URLS[1], "http://three/", "http://four/"]);
    assert_eq!(here.settle(), 3);
    assert_eq!((here.waiting(three), here.waiting(four)), (counters.clone(), counters.clone()));
    assert!(!here.path(&format!("to/{}", one())).exists());
    assert_eq!(here.on_disk().1, 3, "still one file an event");
    here.configure(&[URLS[1], "http://three/"]);
    assert_eq!(here.settle(), 0);
    assert_eq!((here.waiting(three), here.parked()), (counters.clone(), vec![("http://four/", 3)]));
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
    assert_eq!(here.settle(), 3);
    assert_eq!(here.waiting(three), [counters.clone(), vec![fourth]].concat());
    // An heir that is removed has heirs itself; one that comes back has nothing to give.
    here.configure(&["http://three/", "http://five/"]);
    here.configure(&["http://three/", "http://four/"]);
    here.configure(&["http://three/", "http://four/", URLS[1]]);
    assert_eq!((here.settle(), here.waiting(two())), (0, counters.clone()));
    here.configure(&["http://three/", "http://five/"]);
    here.configure(&["http://three/", "http://four/"]);
    assert_eq!((here.settle(), here.waiting(four)), (3, counters.clone()));
    // Changed while no process ran: what has no folder yet is new.
    here.restart_for(&["http://three/", "http://six/"].map(str::to_owned));
    assert_eq!((here.settle(), here.waiting(Destination::of("http://six/"))), (3, counters));
    // What is on its way stays until it is over.
    here.spool.lease(three, fourth);
    here.configure(&["http://six/", "http://seven/"]);
    assert_eq!(here.settle(), 3);
    here.spool.return_lease(three, fourth);
    assert_eq!(here.settle(), 1);
    assert!(here.spool.dead_letters().next().is_none());
}

#[test]
fn a_backlog_without_a_destination_is_parked_and_goes_on_when_it_or_a_new_one_comes() {
    // (the config while it is parked, the one afterwards, who has the events then); each change made by the running uplink, and
    // while none runs.
    let (a, b, c) = (URLS[0], URLS[1], "http://c/");
    for restarts in [false, true] {
        for (parked_by, then, heir) in [
            (&[][..], &[a][..], Some(a)),
            (&[], &[c], Some(c)),
            (&[b], &[b, a], Some(a)),
            (&[b], &[b, c], Some(c)),
            (&[b], &[c], Some(c)),
            (&[b], &[b], None),
            (&[], &[b], None), // it had them itself, when both were there
        ] {
            let told = format!("{parked_by:?}, then {then:?}, restarts: {restarts}");
            let mut here = Box::new();
            here.bound(16 << 20, 10_000);
            let counters: Vec<_> = (0..20).map(|_| here.store(0, &[one(), two()])).collect();
            counters.iter().for_each(|counter| assert!(here.spool.delivered(two(), *counter).unwrap()));
            let configure = |here: &mut Box, urls: &[&str]| {
                if restarts {
                    here.restart_for(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>());
                } else {
                    here.configure(urls);
                }
            };
            // Both were configured, with folders, before: else a change while nothing runs cannot tell who is new.
            here.configure(parked_by);
            assert_eq!((here.settle(), here.parked()), (0, vec![(a, 20)]), "{told}");
            configure(&mut here, parked_by);
            assert_eq!(
                (here.settle(), here.parked(), here.waiting(one())),
                (0, vec![(a, 20)], counters.clone()),
                "{told}"
            );
            configure(&mut here, then);
            here.settle();
            match heir {
                Some(heir) => {
                    assert_eq!((here.waiting(Destination::of(heir)), here.parked()), (counters, vec![]), "{told}")
                }
                None => assert_eq!((here.waiting(one()), here.parked()), (counters, vec![(a, 20)]), "{told}"),
            }
            assert_eq!(here.spool.status().dead, 0, "{told}");
        }
    }
}

#[test]
fn another_folder_at_the_spools_path_is_noticed_and_no_event_that_can_be_reached_is_lost() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..40).map(|number| here.store(number % 3, &[one(), two()])).collect();
    assert!(!here.spool.notice());
    // Of the first one an upload to the first destination is on its way.
    here.spool.lease(one(), counters[0]);
    let (away, root) = (here.folder.path().join("away"), here.path(""));
    fs::rename(&root, &away).unwrap();
    // The folder that is there now has events of its own, with the same numbers.
    let config = crate::spool_box::config(&root, None);
    let mut other =
        Spool::open(RealDisk::default(), &config, &crate::spool_world::addresses(&crate::spool_box::urls())).0;
    let records = &here.records;
    let stored = other.store(crate::spool_box::RING, &*records.memory, &records.frames[2], &[one()]).unwrap();
    assert_eq!(stored.counter, counters[0]);
    drop(other);
    // Whatever is done before anybody has noticed, the other folder's events stay.
    assert!(matches!(here.spool.read(two(), counters[1]), Err(ReadError::Shortage(_))));
    assert!(here.spool.delivered(two(), counters[2]).is_err(), "it is not offered again all the same");
    assert!(here.file("to", one(), counters[0]).exists());
    assert!(here.spool.notice() && matches!(here.spool.state(), State::Unavailable(_)));
    assert!(here.try_store(0, &[one()]).is_err(), "nothing is stored before it is opened");
    let found = here.spool.open_again();
    assert_eq!((found.events, found.left, found.vanished), (1, 79, 0));
    assert!(here.waiting(one()).is_empty(), "its number stands for an upload on its way");
    assert!(here.spool.share(counters[1], &[one()]).is_err(), "a number of the other folder");
    while here.spool.settle().unwrap().is_some() {}
    assert_eq!((here.waiting(one()).len(), here.waiting(two()).len()), (39, 39));
    assert!(here.spool.delivered(one(), counters[0]).unwrap(), "the upload's event, not the one that has its number");
    let waiting = here.waiting(one());
    assert_eq!((waiting.len(), waiting[0]), (40, counters[0]));
    here.assert_read(one(), waiting[0], 2);
    for (number, counter) in (0..40).filter(|number| *number != 2).zip(here.waiting(two())) {
        here.assert_read(two(), counter, number % 3); // in order
    }
    let status = here.spool.status();
    assert_eq!((status.tally.vanished, status.tally.remaining()), (0, 79));
    let left = fs::read_dir(away.join(format!("to/{}", two()))).unwrap().count();
    assert_eq!(left, 2, "what says which destination it is, and what was delivered before anybody had noticed");
    here.restart();
    assert_eq!((here.waiting(one()).len(), here.waiting(two()).len()), (40, 39));
}

/// Nothing is given up for them either: they wait in the former folder until there is room.
#[test]
fn events_of_a_former_folder_wait_there_until_they_fit() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..6).map(|_| here.store(3, &[one()])).collect();
    let bytes = here.on_disk().0 / 6;
    fs::rename(here.path(""), here.folder.path().join("away")).unwrap();
    here.bound(2 * bytes + 2 * BLOCK, 1000);
    assert_eq!(here.spool.open_again().left, 6);
    for round in 0..3 {
        while here.spool.settle().is_ok_and(|moved| moved.is_some()) {}
        let waiting = here.waiting(one());
        assert_eq!((waiting.len(), here.spool.status().tally.vanished), (2, 0), "round {round}: {counters:?}");
        assert!(here.on_disk().0 <= 2 * bytes);
        if round < 2 {
            assert!(here.spool.settle().is_err(), "it is tried again");
        }
        for counter in waiting {
            here.assert_read(one(), counter, 3);
            assert!(here.spool.delivered(one(), counter).unwrap());
        }
    }
    assert!(here.spool.settle().unwrap().is_none());
    assert_eq!(here.spool.status().tally.delivered, 6);
}

/// An error that says nothing about the file there: the event is brought later.
#[test]
fn an_event_of_a_former_folder_that_this_disk_refuses_is_no_lost_one() {
    let Some(mounted) = Mounted::new("1m") else {
        println!("SKIPPED: an_event_of_a_former_folder: mounting is not allowed here");
        return;
    };
    let mut here = Box::new();
    (0..6).for_each(|_| assert!(here.store(3, &[one()]) > 0));
    let root = here.folder.path().join("spool");
    fs::rename(&root, here.folder.path().join("away")).unwrap();
    std::os::unix::fs::symlink(mounted.path().join("spool"), &root).unwrap();
    fs::DirBuilder::new().mode(0o700).create(mounted.path().join("spool")).unwrap();
    assert_eq!(here.spool.open_again().left, 6);
    mounted.remount("ro");
    assert!(here.spool.settle().is_err() && here.spool.settle().is_err());
    assert_eq!((here.waiting(one()).len(), here.spool.status().tally.vanished), (0, 0));
    mounted.remount("rw");
    assert_eq!(here.settle(), 6);
    let waiting = here.waiting(one());
    assert_eq!(waiting.len(), 6);
    waiting.iter().for_each(|counter| here.assert_read(one(), *counter, 3));
}

/// Each heir's copy needs room of its own there. One event goes beyond the bound, so that they never wait for each other.
#[test]
fn without_hard_links_heirs_get_no_more_than_fits() {
    const EVENTS: usize = 6;
    let (records, disk) = (Records::new(&[100, 1_000, 3_900, 20_000]), ModelDisk::new(1));
    disk.limit(false, u64::MAX);
    let addresses = |urls: &[&str]| -> Vec<Address> { urls.iter().map(|url| Address::from(*url)).collect() };
    let mut spool = Spool::open(disk, &config(&root(), None), &addresses(&["http://a/"])).0;
    for _ in 0..EVENTS {
        spool.store(RING, &*records.memory, &records.frames[3], &[Destination::of("http://a/")]).unwrap();
    }
    let one = spool.status().bytes / EVENTS as u64;
    let max_bytes = 6 * one + 7 * BLOCK; // what says which destinations there are, and who inherits
    spool.set_bounds(Bounds { max_bytes, max_files: 1000, min_free_bytes: 0 });
    let heirs = ["http://b/", "http://c/", "http://d/"];
    assert!(spool.configure(&addresses(&heirs)).is_empty());
    let mut delivered = 0;
    while delivered < EVENTS * heirs.len() {
        let mut moves = 0;
        while spool.settle().is_ok_and(|moved| moved.is_some()) {
            moves += 1;
            assert!(moves <= EVENTS && spool.status().bytes <= 8 * one, "{:?}", spool.status());
        }
        let before = delivered;
        for heir in heirs.map(Destination::of) {
            for counter in spool.list(heir, None).map(|waiting| waiting.counter).collect::<Vec<_>>() {
                assert!(spool.delivered(heir, counter).unwrap());
                delivered += 1;
            }
        }
        assert!(delivered > before, "it goes on when there is room");
    }
    assert_eq!((spool.status().tally.evicted, spool.status().bytes), (0, 0));
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
fn a_folder_that_comes_back_is_taken_as_it_is() {
    let mut here = Box::new();
    let counters: Vec<_> = (0..5).map(|_| here.store(0, &[one()])).collect();
    here.spool.lease(one(), counters[0]);
    let (away, root) = (here.folder.path().join("away"), here.path(""));
    fs::rename(&root, &away).unwrap();
    assert!(here.spool.notice() && here.spool.open_again().unavailable.is_none());
    let sixth = here.store(0, &[one()]);
    let between = here.folder.path().join("between");
    fs::rename(&root, &between).unwrap();
    fs::rename(&away, &root).unwrap();
    assert!(here.spool.notice());
    let found = here.spool.open_again();
    assert_eq!((found.events, found.left, found.vanished), (5, 1, 0), "{found:?}");
    while here.spool.settle().unwrap().is_some() {}
    here.spool.return_lease(one(), counters[0]);
    assert_eq!(here.waiting(one()), [counters.clone(), vec![sixth + 1]].concat());
}

#[test]
fn events_of_a_spool_that_somebody_removed_are_said_to_be_gone() {
    let mut here = Box::new();
    for _ in 0..5 {
        here.store(0, &[one()]);
    }
    fs::remove_dir_all(here.path("")).unwrap();
    assert!(here.spool.notice());
    here.spool.open_again();
    while here.spool.settle().unwrap().is_some() {}
    let status = here.spool.status();
    assert_eq!((status.tally.vanished, status.events, status.tally.remaining()), (5, 0, 0));
    here.store(0, &[one()]);
    assert!(!here.spool.notice());
}

#[test]
fn a_folder_that_is_no_spool_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let open = |dir: &std::path::Path| {
        let config = crate::spool_box::config(dir, None);
        Spool::open(RealDisk::default(), &config, &crate::spool_world::addresses(&crate::spool_box::urls()))
            .1
            .unavailable
    };
    // A Maildir, one of which only `new` is left, and a folder with anything in it.
    for (name, inside, told) in [
        ("maildir", &["new/1700000000.M1.host", "cur/x"][..], "cur"),
        ("new-only", &["new/1700000000.M1.host"], "new"),
        ("any", &["notes.txt"], "notes.txt"),
    ] {
        let dir = folder.path().join(name);
        for file in inside {
            fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
            fs::write(dir.join(file), "theirs").unwrap();
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        let why = open(&dir).expect("it is somebody else's").to_string();
        assert!(why.contains(told) && why.contains("set spool.dir to a folder of its own"), "{why}");
        assert!(judge(&dir).unwrap().contains(told));
        assert!(inside.iter().all(|file| fs::read(dir.join(file)).unwrap() == b"theirs"));
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert!(!dir.join("to").exists());
    }
    // An empty one, one that a killed start left, a whole one with a stranger in it, and the root of a file system.
    for (name, inside) in [
        ("empty", &[][..]),
        ("begun", &["new"]),
        ("mount", &["lost+found"]),
        ("spool", &["new", "to", "dead", "bad", "x"]),
    ] {
        let dir = folder.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        inside.iter().for_each(|name| fs::create_dir(dir.join(name)).unwrap());
        assert_eq!(judge(&dir), None, "{name}");
        assert!(open(&dir).is_none(), "{name}");
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&dir), mode(&dir.join("to"))),
            (0o755, 0o700),
            "{name}: what we did not make keeps its rights"
        );
    }
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

/// A release that told `http://box:80/` from `http://box/` named its folders so.
#[test]
fn what_waits_under_the_notation_of_an_earlier_release_goes_to_the_destination_it_is_now() {
    let written = ["http://box:80/a", "http://Box:80/b", "http://box/c"].map(|url| Url::parse(url).unwrap());
    let before = |url: &Url| url.former_identity().map_or(url.identity(), str::to_owned);
    let mut here = Box::new();
    here.restart_for(&written.each_ref().map(before));
    let [a, b, c] = written.each_ref().map(|url| Destination::of(&before(url)));
    let (of_a, of_b) = (here.store(0, &[a]), here.store(1, &[b]));
    let (of_all, letter) = (here.store(2, &[a, b, c]), here.store(3, &[a]));
    assert!(here.spool.to_dead(a, letter, &refused(), &mut Vec::new()).unwrap());

    let addresses = written.each_ref().map(Address::from);
    let [a, b, c] = addresses.each_ref().map(|address| address.destination);
    for _ in 0..2 {
        here.spool =
            Spool::open(RealDisk::default(), &crate::spool_box::config(&here.path("nowhere/at/all"), None), &[]).0;
        let config = crate::spool_box::config(&here.path(""), None);
        (here.spool, here.found) = Spool::open(RealDisk::default(), &config, &addresses);
        here.settle();
        assert_eq!([a, b, c].map(|one| here.waiting(one)), [vec![of_a, of_all], vec![of_b, of_all], vec![of_all]]);
        assert_eq!(here.parked(), []);
    }
    let wanted = Wanted { numbers: None, to: None, after: None };
    assert_eq!(here.spool.resend_some(&wanted).unwrap().resent, 1);
    assert_eq!(here.waiting(a), [of_a, of_all, letter]);
}

/// A spool on a model disk for one destination, with as many events as fit.
fn full() -> (Records, ModelDisk, Spool<ModelDisk>, Destination) {
    let (records, disk) = (Records::new(&[100, 1_000, 3_900, 20_000]), ModelDisk::new(1));
    let a = Address::from("http://a/");
    let mut spool = Spool::open(disk.clone(), &config(&root(), None), std::slice::from_ref(&a)).0;
    spool.store(RING, &*records.memory, &records.frames[3], &[a.destination]).unwrap();
    let max_bytes = 4 * spool.status().bytes + BLOCK; // and what says which destination it is
    spool.set_bounds(Bounds { max_bytes, max_files: 1000, min_free_bytes: 0 });
    for _ in 0..3 {
        spool.store(RING, &*records.memory, &records.frames[3], &[a.destination]).unwrap();
    }
    assert_eq!(spool.status().tally.evicted, 0);
    (records, disk, spool, a.destination)
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

#[test]
fn a_file_of_another_user_does_not_mean_that_there_are_no_hard_links() {
    let (_records, disk, mut spool, a) = full();
    let first = spool.list(a, None).next().unwrap().counter;
    disk.stick(Some((format!("{first:020}.event"), libc::EPERM)));
    assert!(spool.configure(&[Address::from("http://b/")]).is_empty());
    assert!(spool.settle().is_err());
    assert!(spool.status().has_hard_links);
    disk.limit(false, u64::MAX);
    disk.stick(None);
    spool.settle().unwrap();
    assert!(!spool.status().has_hard_links);
}
