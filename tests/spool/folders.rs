//! The promise: another folder at the spool's path is noticed, no event that can be reached is lost, and nobody else's folder is touched.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

use crate::common::mounted::Mounted;
use crate::spool_box::{Box, one, two};
use crate::spool_world::BLOCK;
use sophon_uplink::spool::judge::judge;
use sophon_uplink::spool::{ReadError, RealDisk, Spool, State};

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
