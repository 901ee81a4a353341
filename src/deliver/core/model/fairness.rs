//! Measures what a bad event or a failing destination costs the others. Time is simulated, so the figures are exact.

use std::time::Duration;

use super::history::History;
use super::world::World;
use super::{Answer, Mode, TIMEOUT};
use crate::deliver::core::health::Condition;

/// All kinds of answers to an event that a server cannot handle.
const KINDS: [Answer; 9] = [
    Answer::Status(403, 0),
    Answer::Status(404, 0),
    Answer::Status(500, 0),
    Answer::Status(503, 0),
    Answer::Status(409, 0),
    Answer::Reset,
    Answer::Silence,
    Answer::Early(400),
    Answer::Early(200),
];

/// Publishes a good event every `pace_ms`, and with them so many bad ones that they are `percent` of all. Returns when the last
/// good event was acknowledged, and the longest time that a good event took from its publication.
fn deliver(seed: u64, good: u64, percent: u64, bad: Answer, pace_ms: u64, delay_ms: u64) -> (Duration, Duration) {
    let mut world = World::new(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    world.configure(1);
    world.set(0, Mode::Well, bad, Duration::from_millis(delay_ms));
    let (mut number, mut goods, began) = (0, Vec::new(), world.now());
    let mut pending_bad = 0.0;
    for _ in 0..good {
        pending_bad += percent as f64 / (100 - percent) as f64;
        while pending_bad >= 1.0 {
            pending_bad -= 1.0;
            let gap = Duration::from_millis(random.u64(..=pace_ms / 10));
            world.go_to(world.now() + gap);
            number += u64::from(world.publish(1, 1, false));
        }
        world.go_to(world.now() + Duration::from_millis(pace_ms));
        goods.push((number, world.now() - began));
        number += u64::from(world.publish(1, 0, false));
    }
    for _ in 0..2000 {
        if goods.iter().all(|(event, _)| world.acknowledged(0, *event).is_some()) {
            break;
        }
        world.go_to(world.now() + Duration::from_secs(1));
    }
    let times: Vec<(Duration, Duration)> = goods
        .iter()
        .map(|(event, published)| {
            let at =
                world.acknowledged(0, *event).unwrap_or_else(|| panic!("good event {event} of {number} never came"));
            (at, at - *published)
        })
        .collect();
    (times.iter().map(|(at, _)| *at).max().unwrap(), times.iter().map(|(_, took)| *took).max().unwrap())
}

#[test]
fn events_that_a_server_cannot_bear_do_not_hold_up_the_others_however_many_they_are() {
    let seed = fastrand::u64(..1 << 32);
    println!("SEED={seed}");
    for (index, kind) in KINDS.into_iter().enumerate() {
        for percent in [1, 10, 50, 90] {
            for (pace_ms, delay_ms) in [(1000, 20), (100, 5)] {
                // An event without an answer keeps an upload busy for the whole timeout, and there are at most sixteen uploads.
                let silent = u64::from(kind == Answer::Silence) * TIMEOUT.as_secs() * percent * 1000;
                if silent / (100 - percent) / pace_ms > 12 {
                    continue;
                }
                let count = 200;
                let (alone, _) = deliver(seed, count, 0, kind, pace_ms, delay_ms);
                let (with, longest) = deliver(seed + index as u64, count, percent, kind, pace_ms, delay_ms);
                assert!(
                    with <= 2 * alone + Duration::from_secs(1),
                    "SEED={seed}: {percent} % of {kind:?}, one good event every {pace_ms} ms: {with:?} with them, {alone:?} \
                     without, {longest:?} at most"
                );
            }
        }
    }
}

#[test]
fn one_event_that_a_server_cannot_bear_costs_no_time_and_becomes_a_dead_letter_that_says_so() {
    for kind in KINDS {
        let mut world = World::new(7);
        world.configure(1);
        world.set(0, Mode::Well, kind, Duration::from_millis(10));
        let mut longest = Duration::ZERO;
        let began = world.now();
        for number in 0..1200_u64 {
            let is_bad = number == 5;
            world.publish(1, u8::from(is_bad), false);
            let published = world.now() - began;
            world.go_to(world.now() + Duration::from_secs(1));
            if !is_bad {
                let took = world.acknowledged(0, number).map(|at| at.saturating_sub(published));
                longest = longest.max(took.unwrap_or(Duration::MAX));
                assert_eq!(world.lane_of(0).standing.condition, Condition::Up, "{kind:?} after {number}");
            }
        }
        assert!(longest <= Duration::from_millis(50), "{kind:?}: {longest:?}");
        assert_eq!(world.dead(), 1, "{kind:?}");
        assert!(world.tries(0, 5) < 60, "{kind:?}: {} tries", world.tries(0, 5));
    }
}

/// A `Retry-After` says that the event may come again. So does a gateway whose stream still works on the event's first try.
#[test]
fn an_event_that_the_server_asks_for_again_becomes_no_dead_letter_and_costs_no_time() {
    for status in [500, 503, 409, 423] {
        let mut world = World::new(7);
        world.configure(1);
        world.set(0, Mode::Well, Answer::Status(status, 2), Duration::from_millis(10));
        for number in 0..1200_u64 {
            world.publish(1, u8::from(number == 5), false);
            world.go_to(world.now() + Duration::from_secs(1));
            assert!(number == 5 || world.acknowledged(0, number).is_some(), "{status}: {number}");
        }
        assert!((7..60).contains(&world.tries(0, 5)), "{status}: {} tries", world.tries(0, 5));
        assert_eq!(world.dead(), 0, "{status}");
        // A load balancer in front of the server answers in between, without such a header.
        for number in 1200..1800_u64 {
            let asks = if number % 100 < 30 { 0 } else { 2 };
            world.set(0, Mode::Well, Answer::Status(503, asks), Duration::from_millis(10));
            world.publish(1, 0, false);
            world.go_to(world.now() + Duration::from_secs(1));
            assert!(world.acknowledged(0, number).is_some(), "{status}: {number}");
        }
        assert_eq!(world.dead(), 0, "{status}");
        world.set(0, Mode::Well, Answer::Ok, Duration::from_millis(10));
        world.go_to(world.now() + Duration::from_secs(60));
        assert!(world.acknowledged(0, 5).is_some(), "{status}");
    }
}

#[test]
fn a_destination_that_works_gets_every_event_at_once_whatever_the_others_and_the_spool_do() {
    for usable in [true, false] {
        for capacity in [60, 400, 100_000] {
            for (mode, delay_ms) in [
                (Mode::All(Answer::Unreachable), 0),
                (Mode::All(Answer::Status(503, 0)), 5),
                (Mode::All(Answer::Status(400, 0)), 5),
                (Mode::All(Answer::Silence), 0),
                (Mode::Well, 8000),
                (Mode::Well, 900),
                (Mode::Some(33, Answer::Status(400, 0)), 1),
                (Mode::All(Answer::Reset), 3),
            ] {
                let mut world = World::new(11);
                world.set_spool(usable);
                world.set_capacity(capacity);
                world.configure(0b1111);
                world.set(0, Mode::Well, Answer::Ok, Duration::from_millis(2));
                (1..4).for_each(|server| world.set(server, mode, Answer::Ok, Duration::from_millis(delay_ms)));
                let began = world.now();
                for number in 0..3000 {
                    assert!(
                        world.publish(1, 0, false),
                        "the ring is full at {number}: {mode:?} {delay_ms} {usable} {capacity}"
                    );
                    let published = world.now() - began;
                    world.go_to(world.now() + Duration::from_millis(20));
                    let took = world.acknowledged(0, number).map(|at| at - published);
                    assert!(
                        took.is_some_and(|took| took <= Duration::from_millis(3)),
                        "{number} took {took:?}: {mode:?} {delay_ms} {usable} {capacity}"
                    );
                }
                assert_eq!(world.dropped(), 0);
            }
        }
    }
}

#[test]
fn a_destination_that_failed_lately_begins_after_one_that_did_not() {
    let ms = Duration::from_millis;
    let mut world = World::new(3);
    world.configure(0b11);
    world.set(0, Mode::Well, Answer::Ok, ms(1));
    world.set(1, Mode::Well, Answer::Status(403, 0), ms(1));
    let began = world.now();
    // Destination 1 does not take the second of the three events.
    for (number, bad) in [0, 0b10, 0].into_iter().enumerate() {
        let published = world.now() - began;
        world.publish(1, bad, false);
        world.go_to(world.now() + ms(100));
        let took = [0, 1].map(|server| world.acknowledged(server, number as u64).map(|at| at - published));
        assert_eq!(took[0], Some(ms(1)), "{number}");
        assert_eq!(took[1], [Some(ms(1)), None, Some(ms(6))][number], "{number}");
    }
}

#[test]
fn a_destination_whose_uploads_the_ring_cannot_wait_for_begins_after_one_that_takes_them() {
    let ms = Duration::from_millis;
    let mut world = World::new(3);
    world.set_spool(false);
    world.set_capacity(40);
    world.configure(0b11);
    world.set(0, Mode::Well, Answer::Ok, ms(1));
    world.set(1, Mode::All(Answer::Silence), Answer::Ok, ms(1));
    let mut is_tried = false;
    for number in 0..200 {
        let tries = |world: &World| (0..=number).map(|event| world.tries(1, event)).sum::<u32>();
        let before = tries(&world);
        assert!(world.publish(1, 0, false));
        world.go_to(world.now() + ms(2));
        assert!(number < 100 || tries(&world) == before, "{number}");
        world.go_to(world.now() + ms(18));
        is_tried |= tries(&world) > before;
    }
    assert!(is_tried);
}

#[test]
fn a_destination_that_works_keeps_pace_whatever_becomes_of_the_others_the_spool_and_the_config() {
    let seed = fastrand::u64(..1 << 32);
    for number in 0..300 {
        if let Err(why) = History::beside(seed + number).keeps_pace() {
            panic!("SEED={}: {why}\n{:#?}", seed + number, History::beside(seed + number));
        }
    }
}
