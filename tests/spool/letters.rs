//! The promise: what a server refused is kept as a dead letter, says why, and can be sent again.

use std::fs;

use crate::spool_box::{Box, URLS, one, refused, two};
use crate::spool_world::BLOCK;
use sophon_uplink::spool::DeadLetterReason;
use sophon_uplink::spool::dead::{Resent, Wanted};

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
