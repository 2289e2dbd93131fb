//! One sender on a path that changes, or with less to send than the path takes.

use crate::rivals::ours;
use crate::simulation::{DATAGRAM, Link, Loss, Source, World, millis, seconds};

/// An endless sender for 12 s; after 5 s the path becomes another.
fn change(before: Link, after: Link) -> World {
    let mut world = World::new(before, 1);
    world.flow(ours(), Source::Endless, seconds(0.0));
    world.change(seconds(5.0), after);
    world.run(seconds(12.0));
    world
}

#[test]
fn a_longer_route_is_filled_within_two_seconds() {
    let world = change(Link::new(50.0, 20, 60), Link::new(50.0, 40, 60));
    let mbit = world.mbit(0, seconds(7.0), seconds(12.0));
    assert!(mbit > 45.0, "{mbit:.1} Mbit/s");
    let p99 = world.queue_ms(0.99, seconds(7.0), seconds(12.0));
    assert!(p99 < 35.0, "{p99:.1} ms");
}

#[test]
fn a_longer_route_is_no_rival_even_where_a_queue_was_full_before() {
    for (before, after) in [
        (Link::new(50.0, 20, 60), Link::new(50.0, 30, 60)),
        // A queue as short as this overflows now and then.
        (Link::new(100.0, 20, 10), Link::new(100.0, 30, 10)),
    ] {
        let world = change(before, after);
        let competing = world.competing(0, seconds(5.0), seconds(12.0));
        assert_eq!(competing, 0.0, "{after:?}");
        let mbit = world.mbit(0, seconds(7.0), seconds(12.0));
        assert!(mbit > 0.93 * after.mbit, "{mbit:.1} Mbit/s, {after:?}");
    }
}

#[test]
fn a_shorter_route_does_not_leave_a_queue() {
    let world = change(Link::new(50.0, 40, 60), Link::new(50.0, 20, 60));
    let mbit = world.mbit(0, seconds(7.0), seconds(12.0));
    assert!(mbit > 45.0, "{mbit:.1} Mbit/s");
    let p99 = world.queue_ms(0.99, seconds(7.0), seconds(12.0));
    assert!(p99 < 25.0, "{p99:.1} ms");
}

#[test]
fn a_narrower_path_is_not_flooded_for_long() {
    let world = change(Link::new(100.0, 20, 60), Link::new(10.0, 20, 60));
    let mbit = world.mbit(0, seconds(6.0), seconds(12.0));
    assert!(mbit > 9.0, "{mbit:.1} Mbit/s");
    let p99 = world.queue_ms(0.99, seconds(6.0), seconds(12.0));
    assert!(p99 < 35.0, "{p99:.1} ms");
}

#[test]
fn a_wider_path_is_filled_within_two_seconds() {
    let world = change(Link::new(10.0, 20, 60), Link::new(100.0, 20, 60));
    let mbit = world.mbit(0, seconds(7.0), seconds(12.0));
    assert!(mbit > 93.0, "{mbit:.1} Mbit/s");
    assert_eq!(world.lost(0), 0);
}

#[test]
fn least_round_trips_are_looked_for_without_a_collapse() {
    let mut world = World::new(Link::new(50.0, 20, 60), 1);
    let flow = world.flow(ours(), Source::Endless, seconds(0.0));
    world.run(seconds(30.0));
    for half in 4..60 {
        let from = seconds(f64::from(half) / 2.0);
        let mbit = world.mbit(flow, from, from + millis(500));
        assert!(mbit > 42.0, "{mbit:.1} Mbit/s at {from:?}");
    }
}

#[test]
fn an_outage_is_survived() {
    let link = Link::new(50.0, 20, 60);
    let mut world = World::new(link, 1);
    let flow = world.flow(ours(), Source::Endless, seconds(0.0));
    world.change(seconds(4.0), link.loss(Loss::Random(1.0)));
    world.change(seconds(6.0), link);
    world.run(seconds(12.0));
    let mbit = world.mbit(flow, seconds(9.5), seconds(12.0));
    assert!(mbit > 45.0, "{mbit:.1} Mbit/s");
}

#[test]
fn too_little_to_send_changes_nothing() {
    let mut world = World::new(Link::new(50.0, 20, 60), 1);
    let flow = world.flow(ours(), Source::Endless, seconds(0.0));
    // 4 Mbit/s, in bursts that the window holds.
    world.feed(flow, seconds(4.0), Source::Bursts(50_000, millis(100)));
    world.feed(flow, seconds(9.0), Source::Endless);
    world.run(seconds(12.0));
    let (before, after) = (
        world.window(flow, seconds(4.0)),
        world.window(flow, seconds(9.0)),
    );
    assert!(
        after * 10 >= before * 6,
        "{before} datagrams became {after}"
    );
    assert!(
        after * 10 <= before * 13,
        "{before} datagrams became {after}"
    );
    let mbit = world.mbit(flow, seconds(9.2), seconds(10.2));
    assert!(mbit > 40.0, "{mbit:.1} Mbit/s");
    assert_eq!(world.lost(flow), 0);
}

#[test]
fn a_window_that_was_never_filled_does_not_grow() {
    let mut world = World::new(Link::new(50.0, 20, 60), 1);
    let flow = world.flow(ours(), Source::Bursts(10_000, millis(100)), seconds(0.0));
    world.run(seconds(10.0));
    let window = world.window(flow, seconds(10.0));
    assert_eq!(window, 32, "{window} datagrams");
}

#[test]
fn a_trickle_does_not_end_a_start_up() {
    // A handshake, then single packets: each waits for its acknowledgement as long as a receiver may.
    let mut world = World::new(Link::new(100.0, 20, 60), 1);
    let flow = world.flow(ours(), Source::Bytes(10_000), seconds(0.0));
    world.feed(flow, seconds(1.0), Source::Bursts(500, millis(500)));
    world.feed(flow, seconds(7.0), Source::Endless);
    world.run(seconds(8.0));
    let window = world.window(flow, seconds(7.0));
    assert_eq!(window, 32, "{window} datagrams");
    // Ten round trips later.
    let mbit = world.mbit(flow, seconds(7.4), seconds(7.8));
    assert!(mbit > 90.0, "{mbit:.1} Mbit/s");
}

#[test]
fn what_was_known_before_a_long_silence_is_not_relied_on() {
    let mut world = World::new(Link::new(100.0, 20, 40), 1);
    let flow = world.flow(ours(), Source::Endless, seconds(0.0));
    world.feed(flow, seconds(3.0), Source::Bytes(0));
    // Elsewhere in the meantime: a tenth of the rate, four times as far.
    world.change(seconds(10.0), Link::new(10.0, 80, 160));
    world.feed(flow, seconds(20.0), Source::Endless);
    world.run(seconds(35.0));
    let mbit = world.mbit(flow, seconds(24.0), seconds(35.0));
    assert!(mbit > 9.0, "{mbit:.1} Mbit/s");
    let p99 = world.queue_ms(0.99, seconds(26.0), seconds(35.0));
    assert!(p99 < 90.0, "{p99:.1} ms");
}

/// Bulk for 3 s at 200 Mbit/s, then 30 s of little or nothing while the path becomes one of
/// 20 Mbit/s, then bulk again.
fn bulk_after(lull: Source) -> (World, usize) {
    let mut world = World::new(Link::new(200.0, 20, 60), 1);
    let flow = world.flow(ours(), Source::Endless, seconds(0.0));
    world.feed(flow, seconds(3.0), lull);
    world.change(seconds(20.0), Link::new(20.0, 20, 60));
    world.feed(flow, seconds(33.0), Source::Endless);
    world.run(seconds(40.0));
    (world, flow)
}

#[test]
fn a_window_from_before_a_lull_is_not_sent_at_once() {
    for lull in [
        Source::Bytes(0),
        Source::Bursts(100, millis(500)),
        Source::Bursts(100, millis(2000)),
        Source::Bursts(20_000, millis(2000)),
        Source::Bursts(100, millis(12_000)),
    ] {
        let (world, flow) = bulk_after(lull);
        let lost = world.lost(flow);
        assert!(lost <= 32, "{lost} of {} lost", world.sent(flow));
        let mbit = world.mbit(flow, seconds(35.0), seconds(40.0));
        assert!(mbit > 18.0, "{mbit:.1} Mbit/s");
        // From the lull's beginning until the next bulk: what is on its way, then one start-over.
        let changes = world.window_changes(flow, seconds(4.0), seconds(33.0));
        assert!(changes <= 2, "{changes} changes");
    }
}

#[test]
fn requests_now_and_then_keep_the_window_they_use() {
    let mut world = World::new(Link::new(200.0, 20, 60), 1);
    let flow = world.flow(ours(), Source::Endless, seconds(0.0));
    world.feed(flow, seconds(3.0), Source::Bursts(200_000, seconds(3.0)));
    world.run(seconds(63.0));
    for second in 3..63 {
        let window = world.window(flow, seconds(f64::from(second))) * DATAGRAM;
        assert!(window >= 200_000, "{window} bytes at {second} s");
    }
    let changes = world.window_changes(flow, seconds(20.0), seconds(63.0));
    assert!(changes <= 1, "{changes} changes");
    assert_eq!(world.lost(flow), 0);
}
