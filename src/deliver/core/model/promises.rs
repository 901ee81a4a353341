//! Guarantees that random histories rarely reach: one short history each.

use std::time::Duration;

use super::history::Step;
use super::world::World;
use super::{Answer, Mode};
use crate::deliver::core::health::Condition;
use crate::deliver::core::spooling::BATCH;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A world whose destinations take every event within `delay`.
fn world(mask: u8, delay: Duration) -> World {
    let mut world = World::new(7);
    world.configure(mask);
    (0..4).for_each(|server| world.set(server, Mode::Well, Answer::Ok, delay));
    world
}

/// A world with one destination that gives this answer to every event.
fn world_of_one(answer: Answer) -> World {
    let mut world = world(1, MS);
    world.set(0, Mode::All(answer), Answer::Ok, MS);
    world
}

fn wait(world: &mut World, time: Duration) {
    world.go_to(world.now() + time);
}

fn publish(world: &mut World, count: u32) {
    (0..count).for_each(|_| assert!(world.publish(1, 0, false)));
}

#[test]
fn what_a_destination_that_is_down_lacks_is_soon_in_the_spool_and_not_in_the_ring() {
    let mut world = world_of_one(Answer::Unreachable);
    publish(&mut world, 20);
    wait(&mut world, SECOND);
    assert_eq!(world.in_ring(), 0, "what was queued when it failed");
    publish(&mut world, 20);
    wait(&mut world, SECOND);
    assert_eq!(world.in_ring(), 0, "what came then");
}

/// A world with one destination that is down, and a window of two seconds.
fn world_with_window() -> World {
    let mut world = world_of_one(Answer::Unreachable);
    publish(&mut world, 1);
    wait(&mut world, SECOND);
    world.set_window(2 * SECOND);
    assert_eq!(world.stored(), 1, "it is down");
    world
}

#[test]
fn what_comes_within_the_window_is_stored_together_when_it_is_over() {
    let mut world = world_with_window();
    for _ in 0..20 {
        publish(&mut world, 1);
        wait(&mut world, 200 * MS);
    }
    wait(&mut world, 2 * SECOND);
    assert_eq!((world.in_ring(), world.stored(), world.rounds()), (0, 21, 3), "one, and then ten each time");
    publish(&mut world, 1);
    wait(&mut world, 1990 * MS);
    assert_eq!(world.in_ring(), 1);
    wait(&mut world, 20 * MS);
    assert_eq!(world.in_ring(), 0);
}

#[test]
fn a_destination_that_comes_back_within_the_window_costs_the_spool_nothing() {
    let mut world = world_with_window();
    publish(&mut world, 3);
    world.set(0, Mode::Well, Answer::Ok, MS);
    world.configure(1); // tries at once
    wait(&mut world, 10 * SECOND);
    assert_eq!((world.in_ring(), world.stored()), (0, 1));
    assert!((0..4).all(|event| world.acknowledged(0, event).is_some()));
}

#[test]
fn a_full_group_does_not_wait_for_its_window() {
    for (count, length) in [(BATCH as u32, 1), (4, 1 << 20)] {
        let mut world = world_with_window();
        world.set_capacity(1 << 30);
        (0..count - 1).for_each(|_| assert!(world.publish(length, 0, false)));
        wait(&mut world, SECOND);
        assert_eq!(world.in_ring(), count as usize - 1);
        assert!(world.publish(length, 0, false));
        wait(&mut world, 50 * MS);
        assert_eq!(world.in_ring(), 0);
    }
}

#[test]
fn neither_a_ring_that_fills_nor_the_end_waits_for_the_window() {
    let mut world = world_with_window();
    world.set_capacity(20);
    publish(&mut world, 10);
    wait(&mut world, SECOND);
    assert_eq!(world.in_ring(), 10, "half of the ring");
    publish(&mut world, 1);
    wait(&mut world, 10 * MS);
    assert_eq!((world.in_ring(), world.dropped()), (0, 0));
    publish(&mut world, 5);
    wait(&mut world, 500 * MS);
    assert_eq!(world.in_ring(), 5);
    world.leave_backlog();
    wait(&mut world, 10 * MS);
    assert_eq!(world.in_ring(), 0);
    publish(&mut world, 1);
    wait(&mut world, 20 * MS);
    assert_eq!(world.in_ring(), 0, "what comes after the signal does not wait either");
}

#[test]
fn a_destination_that_comes_back_gets_its_events_oldest_first() {
    let mut world = world_of_one(Answer::Unreachable);
    publish(&mut world, 50);
    wait(&mut world, 20 * SECOND);
    world.set(0, Mode::Well, Answer::Ok, MS);
    wait(&mut world, 120 * SECOND);
    let times: Vec<_> = (0..50).map(|event| world.acknowledged(0, event).expect("it came")).collect();
    // The first ones were tried while it was down, and wait for their own pauses.
    assert!(times[10..].is_sorted(), "{times:?}");
}

#[test]
fn a_refusal_before_the_whole_event_is_believed_the_third_time_or_at_once_where_it_is_about_the_size() {
    for (status, tries) in [(400, 3), (413, 1), (415, 1)] {
        let mut world = world(1, MS);
        world.set(0, Mode::Well, Answer::Early(status), MS);
        for event in 0..5 {
            assert!(world.publish(1, u8::from(event == 2), false));
        }
        wait(&mut world, 1000 * SECOND);
        assert_eq!((world.tries(0, 2), world.dead()), (tries, 1), "{status}");
    }
}

/// The most backlog uploads in flight at once, with or without live events.
fn most_of_the_backlog_on_its_way(live: bool) -> usize {
    let mut world = world_of_one(Answer::Unreachable);
    publish(&mut world, 40);
    wait(&mut world, 20 * SECOND);
    world.set(0, Mode::Well, Answer::Ok, 300 * MS);
    let mut most = 0;
    for _ in 0..300 {
        if live {
            publish(&mut world, 1);
        }
        wait(&mut world, 200 * MS);
        most = most.max(world.lane_of(0).deliveries.of_backlog());
    }
    assert!(world.acknowledged(0, 39).is_some(), "the backlog comes to its end");
    most
}

#[test]
fn while_there_are_live_events_the_backlog_takes_one_place() {
    assert_eq!((most_of_the_backlog_on_its_way(false), most_of_the_backlog_on_its_way(true)), (3, 1));
}

#[test]
fn what_is_acknowledged_after_its_destination_was_removed_goes_to_no_heir_and_what_fails_does() {
    for (answer, tries) in [(Answer::Ok, 0), (Answer::Status(503, 0), 1)] {
        let mut world = world(0b01, SECOND);
        world.set(0, Mode::All(answer), Answer::Ok, SECOND);
        publish(&mut world, 1);
        wait(&mut world, 100 * MS);
        world.configure(0b10);
        wait(&mut world, 100 * SECOND);
        assert_eq!(world.tries(1, 0), tries, "{answer:?}");
    }
}

#[test]
fn what_fails_that_began_under_an_old_config_says_nothing_about_the_new_one() {
    let mut world = world_of_one(Answer::Silence);
    publish(&mut world, 1);
    wait(&mut world, SECOND);
    world.set(0, Mode::Well, Answer::Ok, MS);
    world.configure(1);
    wait(&mut world, 20 * SECOND);
    let health = &world.lane_of(0).standing;
    assert!(health.condition == Condition::Up && health.last_failure.is_none(), "{health:?}");
    assert!(world.acknowledged(0, 0).is_some_and(|moment| moment < 11 * SECOND));
}

#[test]
fn a_server_that_refuses_everything_empties_the_queue_into_no_dead_letters() {
    let mut world = world_of_one(Answer::Status(400, 0));
    for _ in 0..200 {
        publish(&mut world, 1);
        wait(&mut world, SECOND);
    }
    assert!(world.dead() <= 5, "{} dead letters", world.dead());
    world.set(0, Mode::Well, Answer::Ok, MS);
    world.configure(1);
    wait(&mut world, 10 * SECOND);
    let delivered = (0..200).filter(|event| world.acknowledged(0, *event).is_some()).count();
    assert_eq!(delivered + world.dead(), 200);
}

#[test]
fn an_event_that_failed_is_not_tried_again_at_once() {
    for answer in [Answer::Status(500, 0), Answer::Reset, Answer::Unreachable] {
        let mut world = world(1, MS);
        publish(&mut world, 20);
        wait(&mut world, SECOND);
        world.set(0, Mode::All(answer), Answer::Ok, MS);
        publish(&mut world, 1);
        wait(&mut world, 600 * SECOND);
        assert!((5..60).contains(&world.tries(0, 20)), "{answer:?}: {} tries in ten minutes", world.tries(0, 20));
    }
}

#[test]
fn a_request_that_is_to_be_sent_once_more_is_not_in_a_pause_that_began_meanwhile() {
    let mut world = world(1, 100 * MS);
    publish(&mut world, 8);
    wait(&mut world, SECOND);
    world.set(0, Mode::All(Answer::Status(429, 5)), Answer::Ok, 100 * MS);
    publish(&mut world, 1);
    // The server closes its connection after half a second, when the other request has been answered.
    world.step(&Step::Delay(0, 1000));
    world.step(&Step::Stale(0, 1));
    publish(&mut world, 1);
    wait(&mut world, 4 * SECOND);
    assert_eq!((world.tries(0, 8), world.tries(0, 9)), (1, 1));
    assert!(world.lane_of(0).deliveries.is_empty(), "it does not wait for its body either");
}

#[test]
fn a_request_of_a_destination_that_was_removed_is_not_sent_once_more_and_its_event_goes_to_the_heir() {
    let mut world = world(1, SECOND);
    world.step(&Step::Stale(0, 1));
    publish(&mut world, 1);
    world.configure(0b10);
    // The server closes its connection after half a second.
    wait(&mut world, 3 * SECOND);
    assert!(world.acknowledged(0, 0).is_none() && world.acknowledged(1, 0).is_some());
}

#[test]
fn a_request_that_waits_to_be_sent_once_more_ends_when_its_destination_is_removed() {
    let mut world = world(1, 100 * MS);
    world.set(1, Mode::Well, Answer::Ok, MS);
    publish(&mut world, 60); // the server is distant: more uploads than bodies are allowed
    wait(&mut world, 10 * SECOND);
    world.step(&Step::Delay(0, 1000));
    world.step(&Step::Stale(0, 1));
    publish(&mut world, 1);
    // These hold their bodies for a second, so none is left for the first upload when it has to send again.
    world.set(0, Mode::All(Answer::Early(400)), Answer::Ok, SECOND);
    publish(&mut world, 4);
    wait(&mut world, 600 * MS);
    world.configure(0b10);
    wait(&mut world, 100 * MS);
    assert!(world.acknowledged(0, 60).is_none() && world.acknowledged(1, 60).is_some());
}

#[test]
fn what_fails_of_a_removed_destination_whose_heir_was_removed_too_goes_to_that_ones_heir_and_not_twice() {
    let mut world = world(0b1011, MS);
    world.step(&Step::Spool { usable: false, latency_ms: 0 });
    world.set(1, Mode::All(Answer::Unreachable), Answer::Ok, 1500 * MS);
    world.step(&Step::Clock(false)); // so that the destination over TLS has the event when it is removed
    publish(&mut world, 1);
    wait(&mut world, SECOND);
    world.configure(0b1101);
    world.configure(0b0010);
    world.step(&Step::Spool { usable: true, latency_ms: 1 });
    wait(&mut world, SECOND);
    assert_eq!(world.tries(1, 0), 2, "by the destination that was removed, and by the one that was added");
    world.set(1, Mode::Well, Answer::Ok, MS);
    wait(&mut world, 100 * SECOND);
    assert!(world.acknowledged(1, 0).is_some());
}

#[test]
fn an_upload_that_was_ended_for_the_ring_is_not_given_up_when_its_event_is_stored_after_all() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.set_capacity(60);
        world.configure(0b11);
        world.set(0, Mode::All(Answer::Silence), Answer::Ok, MS);
        world.step(&Step::Spool { usable: false, latency_ms: 1 });
        (0..40).for_each(|_| assert!(world.publish(1, 0, false)));
        wait(&mut world, 100 * MS);
        // From now on a write takes three seconds, and the ring fills meanwhile.
        world.step(&Step::Spool { usable: true, latency_ms: 3000 });
        for _ in 0..10 {
            wait(&mut world, 500 * MS);
            (0..6).for_each(|_| _ = world.publish(1, 0, false));
        }
        wait(&mut world, 60 * SECOND);
    }
}

/// A world with one destination in strict order, where an event may stop the others for `stops_others`.
fn world_in_order(stops_others: Duration) -> World {
    let mut world = World::new(7);
    world.set_in_order(1, stops_others);
    world.configure(1);
    world.set(0, Mode::Well, Answer::Status(500, 0), MS);
    world
}

#[test]
fn a_destination_with_an_order_gets_the_backlog_and_then_what_comes_live() {
    let mut world = world_in_order(60 * SECOND);
    world.set(0, Mode::All(Answer::Unreachable), Answer::Ok, MS);
    publish(&mut world, 50);
    wait(&mut world, 20 * SECOND);
    world.set(0, Mode::Well, Answer::Ok, 20 * MS);
    for _ in 0..50 {
        publish(&mut world, 1);
        wait(&mut world, 100 * MS);
    }
    wait(&mut world, 120 * SECOND);
    let times: Vec<_> = (0..100).map(|event| world.acknowledged(0, event).expect("it came")).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn an_event_that_is_not_taken_stops_those_behind_it_for_as_long_as_the_config_says() {
    for (stops, ends) in [(60 * SECOND, true), (1800 * SECOND, true), (Duration::ZERO, false)] {
        let mut world = world_in_order(stops);
        for event in 0..5 {
            assert!(world.publish(1, u8::from(event == 2), false));
        }
        wait(&mut world, stops.max(SECOND));
        let came = |world: &World| (0..5).filter(|event| world.acknowledged(0, *event).is_some()).count();
        assert_eq!((came(&world), world.dead()), (2, 0), "{stops:?}");
        wait(&mut world, 900 * SECOND);
        assert_eq!((came(&world), world.dead()), if ends { (4, 1) } else { (2, 0) }, "{stops:?}");
    }
}

#[test]
fn in_strict_order_an_outage_does_not_count_against_the_event_that_waited_through_it() {
    for (answer, asked) in [(502, 0), (503, 0), (504, 0), (429, 0), (408, 0), (500, 30), (413, 30)] {
        let mut world = world_in_order(1800 * SECOND);
        // The server fails once by itself before it is gone.
        world.set(0, Mode::All(Answer::Status(500, 0)), Answer::Ok, MS);
        publish(&mut world, 3);
        wait(&mut world, SECOND);
        world.set(0, Mode::All(Answer::Status(answer, asked)), Answer::Ok, MS);
        wait(&mut world, 7200 * SECOND);
        // The server is back, and its first answers are errors of its own.
        let tries = world.tries(0, 0);
        world.set(0, Mode::All(Answer::Status(500, 0)), Answer::Ok, MS);
        wait(&mut world, 1200 * SECOND);
        assert!(tries >= 5 && world.tries(0, 0) > tries + 5, "{answer}");
        assert_eq!(world.dead(), 0, "{answer}");
        world.set(0, Mode::Well, Answer::Ok, MS);
        wait(&mut world, 600 * SECOND);
        assert!((0..3).all(|event| world.acknowledged(0, event).is_some()), "{answer}");
    }
}

#[test]
fn an_event_whose_room_in_the_ring_vanishes_is_sent_from_the_spool_if_it_is_there() {
    let mut world = World::new(7);
    world.set_capacity(100);
    world.configure(1);
    world.set(0, Mode::All(Answer::SourceLost), Answer::Ok, 10 * SECOND);
    publish(&mut world, 1);
    world.set(0, Mode::All(Answer::Unreachable), Answer::Ok, MS);
    assert!(world.publish(95, 0, false)); // the ring needs the room: the event is stored while it is being sent
    wait(&mut world, 5 * SECOND);
    assert!(world.stored() > 0);
    world.set(0, Mode::Well, Answer::Ok, MS);
    wait(&mut world, 600 * SECOND);
    assert!(world.acknowledged(0, 0).is_some());
}

#[test]
fn a_lane_that_is_always_busy_forgets_what_it_delivered_once_there_is_nothing_to_inherit() {
    let mut world = World::new(7);
    world.configure(1);
    world.set(0, Mode::Well, Answer::Ok, 500 * MS);
    for _ in 0..100 {
        publish(&mut world, 1);
        wait(&mut world, 100 * MS);
        assert!(world.lane_of(0).deliveries.open() > 0);
    }
    assert!(!world.lane_of(0).had.remembers());
}

#[test]
fn a_destination_with_a_period_gets_all_events_at_its_moments_and_the_others_theirs_at_once() {
    let mut world = World::new(7);
    world.set_periodic(0b10);
    world.configure(0b11);
    (0..4).for_each(|server| world.set(server, Mode::Well, Answer::Ok, MS));
    for _ in 0..120 {
        publish(&mut world, 1);
        wait(&mut world, 250 * MS);
    }
    wait(&mut world, 10 * SECOND);
    let times: Vec<_> = (0..120).map(|event| world.acknowledged(1, event).expect("all of them")).collect();
    let mut moments = times.clone();
    moments.dedup_by(|one, other| one.saturating_sub(*other) < SECOND);
    assert!((5..=6).contains(&moments.len()), "thirty seconds are five times seven: {moments:?}");
    let apart: Vec<_> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(apart.iter().all(|apart| apart.abs_diff(7 * SECOND) < SECOND), "{apart:?}");
    for event in 0..120 {
        let at_once = world.acknowledged(0, event).map(|moment| moment < 250 * MS * (event as u32) + 50 * MS);
        assert_eq!(at_once, (event % 3 != 2).then_some(true), "{event}: those below the threshold not at all");
    }
}

#[test]
fn what_waits_for_a_period_stays_in_the_ring_and_goes_to_the_spool_where_that_fills_and_at_the_end() {
    let mut world = World::new(7);
    world.set_periodic(1);
    world.set_capacity(100);
    world.configure(1);
    world.set(0, Mode::Well, Answer::Ok, MS);
    wait(&mut world, 100 * SECOND);
    publish(&mut world, 40);
    wait(&mut world, 20 * MS);
    assert_eq!((world.in_ring(), world.stored()), (40, 0), "there is room");
    for _ in 0..100 {
        publish(&mut world, 2);
        wait(&mut world, 20 * MS);
    }
    assert!(world.dropped() == 0 && world.stored() > 100 && world.in_ring() < 60, "{} stored", world.stored());
    wait(&mut world, 20 * SECOND);
    assert!((0..240).all(|event| world.acknowledged(0, event).is_some()));
    publish(&mut world, 5);
    world.leave_backlog();
    wait(&mut world, 100 * MS);
    assert_eq!((world.in_ring(), world.acknowledged(0, 244)), (0, None), "the end does not wait for what waits");
}

#[test]
fn what_a_removed_destination_lacks_goes_to_another_one_of_its_report_only() {
    for (added, expected) in [(0b0100, Some(2)), (0b0010, None), (0b0110, Some(2))] {
        let mut world = World::new(7);
        world.set_periodic(0b0101);
        world.configure(0b0001);
        (0..4).for_each(|server| world.set(server, Mode::Well, Answer::Ok, MS));
        wait(&mut world, 100 * SECOND);
        publish(&mut world, 6);
        world.configure(added);
        wait(&mut world, 100 * SECOND);
        for server in 1..4 {
            let has = (0..6).filter(|event| world.acknowledged(server, *event).is_some()).count();
            assert_eq!(has, if Some(server) == expected { 6 } else { 0 }, "{added:b}: {server}");
        }
        // Events without an heir are sent when their destination comes back.
        world.configure(0b0001);
        wait(&mut world, 100 * SECOND);
        let has = (0..6).filter(|event| world.acknowledged(0, *event).is_some()).count();
        assert_eq!(has, if expected.is_none() { 6 } else { 0 });
    }
}

#[test]
fn outside_its_hours_the_backlog_waits_and_live_events_do_not() {
    let mut world = world_of_one(Answer::Unreachable);
    publish(&mut world, 10);
    wait(&mut world, 20 * SECOND);
    world.set_hours(0, false);
    world.set(0, Mode::Well, Answer::Ok, MS);
    world.configure(1);
    publish(&mut world, 1);
    wait(&mut world, 3600 * SECOND);
    let came = |world: &World| (0..11).filter(|event| world.acknowledged(0, *event).is_some()).count();
    assert_eq!((came(&world), world.acknowledged(0, 10).is_some()), (1, true));
    world.set_hours(0, true);
    wait(&mut world, 60 * SECOND);
    assert_eq!(came(&world), 11);
}
