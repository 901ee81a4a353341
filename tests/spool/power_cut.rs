//! The promise: what was stored is there after a power cut at any moment, and whatever the disk answers.
//!
//! Sealed or in clear: what holds for the one holds for the other. A random history runs on a model disk; the power is cut
//! between every two of its calls. `SOPHON_CUTS=N` cuts N times, and makes the disk fail in N / 8 histories.

use crate::model_disk::{Failure, State as DiskState};
use crate::spool_box::RING;
use crate::spool_world::{Promises, Records, World, addresses, assert_bounded, is_new_empty, root, view, why};
use sophon_uplink::spool::{Destination, State};

const STEPS: usize = 30;

fn records() -> Records {
    // With 3,950 bytes it depends on the seal how many blocks the file takes.
    Records::new(&[0, 1, 900, 3_000, 3_950, 3_990, 4_000, 5_000, 9_000, 13_000, 17_000])
}

/// Runs `check` for the histories of seeds from `seed` on until it has counted to `count`.
fn campaign(what: &str, count: u64, seed: u64, mut check: impl FnMut(u64) -> u64) {
    let (mut done, mut told) = (0, 0);
    let mut history = seed;
    while done < count {
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(history)));
        done += checked.unwrap_or_else(|_| panic!("it was the history of SEED={history}"));
        history = history.wrapping_add(1);
        if done - told >= 50_000 {
            told = done;
            println!("{done} of {count} {what}");
        }
    }
    println!("{done} {what}");
}

/// Cuts the power on a disk in this state and asks for everything that was promised.
fn cut_here(world: &World<'_>, disk: &DiskState, promises: &Promises, random: &mut fastrand::Rng) {
    let mut disk = disk.clone();
    if random.u8(..4) == 0 {
        // First the process dies here, and another one starts; only then the power goes.
        let (killed, recovered) = world.elsewhere(disk, promises.clone(), 0);
        assert!(recovered.unavailable.is_none(), "{recovered:?}");
        killed.assert_kept(promises);
        disk = killed.disk.state();
    }
    let (mut after, recovered) = world.elsewhere(disk.cut(random), promises.clone(), random.u64(..));
    // In the middle of writing one reason the power may take others; never a letter.
    after.disk_may_fail |= disk.is_dirty(&root().join("reasons"));
    assert!(recovered.unavailable.is_none(), "{recovered:?}");
    assert!(recovered.problems.is_empty() && recovered.foreign == 0, "{recovered:?}");
    assert!(is_new_empty(&after.disk.state()));
    after.assert_counted();
    after.read_all();
    after.assert_kept(promises);
    let found = view(&after.spool);
    let (again, _) = after.elsewhere(after.disk.state().cut(random), promises.clone(), 0);
    assert_eq!(view(&again.spool), found, "a second start finds something else");
    // A dead letter may be a second name of a file that waits for another destination: given up, it is room in the books alone.
    let is_once_in_the_books = after.spool.status().dead == 0;
    let Some(stored) = after.store() else {
        // Without hard links a large event for several destinations may be more than the spool may hold.
        assert!(!after.disk.state().has_links, "there is nothing wrong with the disk");
        return;
    };
    let newest = found.values().flatten().max().copied();
    assert!(newest.is_none_or(|newest| newest < stored), "{stored} is not newer than {newest:?}");
    assert_bounded(&after.disk.state());
    after.assert_counted();
    if is_once_in_the_books {
        after.assert_room_for_others();
    }
}

#[test]
fn whatever_was_stored_survives_a_power_cut_at_any_moment() {
    let records = records();
    campaign("power cuts", crate::common::count("SOPHON_CUTS", 16_000), crate::common::seed(), |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(&records, seed, None);
        let (mut cuts, mut bounded) = (0, true);
        for _ in 0..STEPS {
            *world.disk.history.borrow_mut() = Some(vec![world.disk.state()]);
            let during = world.step();
            for disk in world.disk.history.take().unwrap() {
                cut_here(&world, &disk, &during, &mut random);
                if bounded {
                    assert_bounded(&disk);
                }
                cuts += 1;
            }
            world.assert_kept(&world.promises);
            world.assert_counted();
            if random.u8(..12) == 0 {
                world.power_cut();
                bounded = false; // what was removed may be back, until the next event needs room
            }
        }
        cuts
    });
}

#[test]
fn a_disk_that_fails_at_any_call_costs_nothing_that_was_promised() {
    const ERRORS: [i32; 7] =
        [libc::ENOSPC, libc::EIO, libc::EROFS, libc::EMFILE, libc::EDQUOT, libc::EACCES, libc::ENOMEM];
    let records = records();
    campaign("failing disks", crate::common::count("SOPHON_CUTS", 16_000) / 8, crate::common::seed(), |seed| {
        let calls = fail(&records, seed, None);
        let mut random = fastrand::Rng::with_seed(seed);
        for call in 0..calls {
            let length = [1, 1, 1, 2, 5, 50][random.usize(..6)];
            let errno = ERRORS[random.usize(..ERRORS.len())];
            fail(&records, seed, Some(Failure { at: call..call + length, errno, after: random.bool() }));
        }
        calls
    });
}

/// A history on a disk that fails; then the disk is well again. How many calls it took.
fn fail(records: &Records, seed: u64, failure: Option<Failure>) -> u64 {
    let told = format!("{failure:?}");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut world = World::new(records, seed, failure);
        (0..STEPS).for_each(|_| drop(world.step()));
        let calls = world.disk.calls();
        world.disk.fail(None);
        if matches!(world.spool.state(), State::Unavailable(_)) {
            assert!(world.open_again().unavailable.is_none());
        }
        // A process that died now might not know the heirs: the disk did not take the note.
        world.end_removal();
        world.store().expect("the disk is well again");
        assert_eq!(world.spool.state(), &State::Usable);
        assert_eq!(world.spool.leftovers(), 0, "what could not be removed is removed as soon as it can");
        world.restart();
        world.assert_kept(&world.promises);
        world.assert_counted();
        world.read_all();
        world.store().expect("the disk is well again");
        assert_bounded(&world.disk.state()); // also what could not be looked at by a start in between
        world.power_cut();
        world.assert_kept(&world.promises);
        world.read_all();
        assert_eq!(world.spool.status().bad, 0, "a disk that fails damages no event");
        calls
    }));
    result.unwrap_or_else(|_| panic!("it was with {told}"))
}

#[test]
fn a_store_that_fails_leaves_nothing_behind() {
    let records = records();
    for (call, after, count) in
        (0..80).flat_map(|call| [(call, false, 1), (call, true, 1), (call, false, 3), (call, true, 3)])
    {
        let mut world = World::new(&records, 1, None);
        world.store().unwrap();
        let (files, listed) = (world.disk.state().files_below(&root()), view(&world.spool));
        let at = world.disk.calls() + call;
        world.disk.fail(Some(Failure { at: at..at + 1, errno: libc::EROFS, after }));
        let stored = world.store_many(count);
        if stored.iter().all(Option::is_none) {
            assert_eq!(world.disk.state().files_below(&root()), files, "call {call} of the store failed");
            assert_eq!(view(&world.spool), listed);
        }
        world.assert_kept(&world.promises);
        world.disk.fail(None);
        world.store().unwrap();
        assert!(is_new_empty(&world.disk.state()) && world.spool.leftovers() == 0);
        world.assert_counted();
    }
}

#[test]
fn nothing_is_moved_about_in_a_spool_that_could_not_be_listed() {
    let records = records();
    for call in 0..60 {
        let mut world = World::new(&records, 1, None);
        let counter = world.store().unwrap();
        let to = Destination::of(&world.urls[0]);
        let other = Destination::of("http://c/");
        world.spool.add(&"http://c/".into()).unwrap();
        world.spool.share(counter, &[to, other]).unwrap();
        world.spool.to_dead(to, counter, &why(counter), &mut Vec::new()).unwrap();
        let at = world.disk.calls() + call;
        world.disk.fail(Some(Failure { at: at..at + 1, errno: libc::EIO, after: false }));
        if world.restart().unavailable.is_none() {
            continue; // it did not matter
        }
        let before = world.disk.state().files_below(&root());
        assert!(world.spool.resend(to, counter, to).is_err(), "call {call} of the start failed");
        assert!(world.spool.settle().is_err());
        assert!(!world.spool.to_dead(other, counter, &why(counter), &mut Vec::new()).unwrap_or(false));
        assert_eq!(world.disk.state().files_below(&root()), before);
        world.open_again();
        assert!(world.spool.resend(to, counter, to).unwrap());
        world.assert_counted();
    }
}

#[test]
fn a_start_that_cannot_read_who_inherits_or_why_an_event_was_refused_forgets_neither() {
    let records = records();
    let [a, b, c] = ["http://a/", "http://b/", "http://c/"];
    for call in 0..80 {
        let mut world = World::new(&records, 1, None);
        let stored = [(); 3].map(|()| world.store().unwrap());
        for counter in stored {
            world.spool.share(counter, &[a, b].map(Destination::of)).unwrap();
        }
        world.spool.to_dead(Destination::of(a), stored[0], &why(stored[0]), &mut Vec::new()).unwrap();
        world.urls = [a, c].map(str::to_owned).to_vec();
        assert!(world.spool.configure(&addresses(&world.urls)).is_empty());
        // The heir has a folder, so without the note nobody would inherit.
        world.spool.share(stored[2], &[Destination::of(c)]).unwrap();
        let at = world.disk.calls() + call;
        world.disk.fail(Some(Failure { at: at..at + 1, errno: libc::EIO, after: false }));
        let is_unavailable = world.restart().unavailable.is_some();
        world.disk.fail(None);
        if is_unavailable {
            assert!(world.open_again().unavailable.is_none());
        }
        world.spool.to_dead(Destination::of(a), stored[1], &why(stored[1]), &mut Vec::new()).unwrap();
        assert!(world.spool.configure(&addresses(&world.urls)).is_empty()); // a reload before that
        while let Some(_moved) = world.spool.settle().unwrap() {}
        let waiting: Vec<_> = world.spool.list(Destination::of(c), None).map(|event| event.counter).collect();
        assert_eq!(waiting, stored, "call {call} of the start failed");
        let letters = world.spool.letters(None, usize::MAX).1;
        let reasons: Vec<_> = letters.into_iter().map(|letter| letter.reason).collect();
        assert_eq!(reasons, [0, 1].map(|at| Some(why(stored[at]))), "call {call} of the start failed");
        world.assert_counted();
    }
}

#[test]
fn a_history_that_was_removed_leaves_its_events_to_no_other_report_whatever_failed_when_its_folder_was_made() {
    let records = records();
    let history = |host: &str| format!("http://{host}/#history");
    for call in 0..80 {
        let mut world = World::new(&records, 1, None);
        world.urls = vec!["http://a/".to_owned(), history("h")];
        assert!(world.spool.configure(&addresses(&world.urls)).is_empty());
        let at = world.disk.calls() + call / 2;
        world.disk.fail(Some(Failure { at: at..at + 1, errno: libc::ENOSPC, after: false }));
        let to = [Destination::of(&history("h"))];
        let store = |world: &mut World<'_>| world.spool.store(RING, &*records.memory, &records.frames[0], &to);
        let stored = store(&mut world);
        world.disk.fail(None);
        // In every second history another process finds the folder as the first one left it.
        if call % 2 == 0 {
            assert!(world.restart().unavailable.is_none());
        }
        let stored = stored.or_else(|_| store(&mut world)).unwrap().counter;
        let also = store(&mut world).unwrap().counter;
        // The config is changed while no process runs.
        world.urls = vec!["http://b/".to_owned(), history("i")];
        assert!(world.restart().unavailable.is_none());
        while let Some(_moved) = world.spool.settle().unwrap() {}
        let waiting =
            |url: &str| world.spool.list(Destination::of(url), None).map(|event| event.counter).collect::<Vec<_>>();
        assert_eq!((waiting("http://b/"), waiting(&history("i"))), (vec![], vec![stored, also]), "call {call} failed");
    }
}

/// A read error in the note, for a while or for good.
#[test]
fn who_inherits_is_asked_again_and_one_that_came_meanwhile_may() {
    let records = records();
    let [a, b, c] = ["http://a/", "http://b/", "http://c/"];
    for is_for_good in [false, true] {
        let mut world = World::new(&records, 1, None);
        let stored = world.spool.store(RING, &*records.memory, &records.frames[0], &[a, b].map(Destination::of));
        let stored = stored.unwrap().counter;
        // While no process runs, `b` is taken out of the config. No note says who inherits.
        world.urls = vec![a.to_owned()];
        world.disk.fail_reads_of(Some("heirs"));
        assert!(world.restart().unavailable.is_none());
        assert!(world.spool.settle().is_err(), "it is tried again");
        assert_eq!(
            world.spool.parked().map(|(of, _, events)| (of, events)).collect::<Vec<_>>(),
            [(Destination::of(b), 1)]
        );
        // A reload adds a destination.
        world.urls.push(c.to_owned());
        world.spool.configure(&addresses(&world.urls));
        if is_for_good {
            assert!((0..30).any(|_| world.spool.settle().is_ok()), "it goes on without the note");
        } else {
            world.disk.fail_reads_of(None);
        }
        while let Some(_moved) = world.spool.settle().unwrap() {}
        let waiting =
            |url: &str| world.spool.list(Destination::of(url), None).map(|event| event.counter).collect::<Vec<_>>();
        assert_eq!((waiting(b), waiting(c)), (vec![], vec![stored]), "for good: {is_for_good}");
    }
}
