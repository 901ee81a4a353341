//! The promise: what waits for a destination that was removed goes to its heirs once, or is parked until there is one.

use crate::model_disk::ModelDisk;
use crate::spool_box::{Box, RING, URLS, config, full, one, refused, two};
use crate::spool_world::{BLOCK, Records, root};
use sophon_uplink::config::Url;
use sophon_uplink::spool::dead::Wanted;
use sophon_uplink::spool::{Address, Bounds, Destination, RealDisk, Spool};

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

/// There each destination has a copy of its own, and a dead letter is copied before it is deleted.
#[test]
fn without_hard_links_copies_for_others_and_of_dead_letters_are_made_only_where_they_fit() {
    let (records, disk) = (Records::new(&[20_000]), ModelDisk::new(1));
    disk.limit(false, u64::MAX);
    let addresses = ["http://a/", "http://b/"].map(Address::from);
    let [a, b] = [addresses[0].destination, addresses[1].destination];
    let mut spool = Spool::open(disk, &config(&root(), None), &addresses).0;
    let stored = [(); 3].map(|()| spool.store(RING, &*records.memory, &records.frames[0], &[a]).unwrap().counter);
    let all = spool.status().bytes;
    let bound = |more: u64| Bounds { max_bytes: all + more + 4 * BLOCK, max_files: 1000, min_free_bytes: 0 };
    spool.set_bounds(bound(0));
    assert!(spool.share(stored[0], &[a, b]).is_err());
    assert_eq!((spool.status().bytes, spool.status().tally.evicted), (all, 0));
    spool.set_bounds(bound(all));
    assert_eq!(spool.share(stored[0], &[a, b]).unwrap(), 1);
    assert!(spool.delivered(b, stored[0]).unwrap());
    for counter in stored {
        assert!(spool.to_dead(a, counter, &refused(), &mut Vec::new()).unwrap());
    }
    let (mut wanted, mut calls) = (Wanted::default(), 0);
    loop {
        let resent = spool.resend_some(&wanted).unwrap();
        assert_eq!(resent.resent, 1, "one at a time");
        (wanted.after, calls) = (resent.after, calls + 1);
        if wanted.after.is_none() {
            break;
        }
    }
    assert_eq!((calls, spool.list(a, None).count()), (3, 3));
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

#[test]
fn a_file_of_another_user_does_not_mean_that_there_are_no_hard_links() {
    let (records, disk, mut spool, a) = full();
    let first = spool.list(a, None).next().unwrap().counter;
    disk.stick(Some((format!("{first:020}.event"), libc::EPERM)));
    assert!(spool.configure(&[Address::from("http://b/")]).is_empty());
    let _its_old_name_stays = spool.settle();
    assert!(spool.list(Destination::of("http://b/"), None).any(|one| one.counter == first), "it was copied");
    assert!(spool.status().has_hard_links);
    disk.limit(false, u64::MAX);
    disk.stick(None);
    spool.store(RING, &*records.memory, &records.frames[0], &[Destination::of("http://b/")]).unwrap();
    assert!(!spool.status().has_hard_links, "now there are none");
}
