//! Several senders on one path: what each gets, and what each leaves to the others.

use std::time::Duration;

use crate::rivals::{bbr, cubic, ours};
use crate::simulation::{Control, Link, Loss, Source, World, millis, seconds};

/// Two endless senders, the second from 3 s on, and their megabits a second from `from` to `until`.
fn pair(link: Link, controls: [Box<dyn Control>; 2], from: f64, until: f64) -> (World, [f64; 2]) {
    let [first, second] = controls;
    let mut world = World::new(link, 1);
    let first = world.flow(first, Source::Endless, seconds(0.0));
    let second = world.flow(second, Source::Endless, seconds(3.0));
    world.run(seconds(until));
    let of = |flow| world.mbit(flow, seconds(from), seconds(until));
    let shares = [of(first), of(second)];
    (world, shares)
}

#[test]
fn two_of_ours_come_to_equal_shares() {
    for (link, fairness) in [
        (Link::new(100.0, 20, 40), 0.98),
        (Link::new(100.0, 20, 200), 0.98),
        (Link::new(20.0, 20, 60), 0.95),
        (Link::new(50.0, 20, 40).loss(Loss::Random(0.01)), 0.9),
    ] {
        let (world, shares) = pair(link, [ours(), ours()], 13.0, 23.0);
        let (from, to) = (seconds(13.0), seconds(23.0));
        let index = world.fairness(from, to);
        assert!(index > fairness, "{link:?}: {shares:?}, {index:.3}");
        assert!(shares.iter().sum::<f64>() > 0.93 * link.mbit, "{shares:?}");
        let p99 = world.queue_ms(0.99, from, to);
        assert!(p99 < 30.0, "{link:?}: {p99:.1} ms");
    }
}

#[test]
fn newcomers_are_let_in() {
    let mut world = World::new(Link::new(50.0, 20, 60), 1);
    for start in [0.0, 3.0, 6.0, 9.0] {
        world.flow(ours(), Source::Endless, seconds(start));
    }
    world.run(seconds(35.0));
    let index = world.fairness(seconds(20.0), seconds(35.0));
    assert!(index > 0.9, "{index:.3}");
    let p99 = world.queue_ms(0.99, seconds(20.0), seconds(35.0));
    assert!(p99 < 35.0, "{p99:.1} ms");
}

#[test]
fn round_trips_of_different_length_share_a_queue() {
    let mut world = World::new(Link::new(50.0, 20, 60), 1);
    let near = world.flow(ours(), Source::Endless, seconds(0.0));
    let far = world.far_flow(ours(), Source::Endless, seconds(2.0), millis(40));
    world.run(seconds(40.0));
    let (from, to) = (seconds(15.0), seconds(40.0));
    let (near, far) = (world.mbit(near, from, to), world.mbit(far, from, to));
    assert!(near.min(far) > 7.5, "{near:.1} and {far:.1} Mbit/s");
    assert!(near + far > 46.0, "{near:.1} and {far:.1} Mbit/s");
}

#[test]
fn cubic_is_not_starved_and_does_not_starve() {
    // Queues of a quarter, one, two and five round trips; who was there first matters little.
    for queue in [10, 40, 80, 200] {
        let link = Link::new(50.0, 20, queue);
        let fair = link.mbit / 2.0;
        for ours_first in [true, false] {
            let controls: [Box<dyn Control>; 2] = if ours_first {
                [ours(), cubic()]
            } else {
                [cubic(), ours()]
            };
            let (_, [first, second]) = pair(link, controls, 13.0, 53.0);
            let (ours, cubic) = if ours_first {
                (first, second)
            } else {
                (second, first)
            };
            let said = format!("queue {queue} ms: ours {ours:.1}, CUBIC {cubic:.1} Mbit/s");
            assert!(cubic > 0.5 * fair, "{said}");
            assert!(ours > 0.35 * fair, "{said}");
        }
    }
}

#[test]
fn a_standing_queue_in_which_we_are_few_is_not_taken_for_a_longer_route() {
    // A cut of ours, even by half, hardly shows in such a queue: others fill what it leaves.
    for (link, rivals) in [
        (Link::new(1000.0, 5, 20), 1),
        (Link::new(1000.0, 5, 20), 8),
        (Link::new(1000.0, 20, 40), 8),
    ] {
        let mut world = World::new(link, 1);
        let rivals: Vec<usize> = (0..rivals)
            .map(|rival| world.flow(cubic(), Source::Endless, millis(100 * rival)))
            .collect();
        let flow = world.flow(ours(), Source::Endless, seconds(3.0));
        let (from, to) = (seconds(10.0), seconds(24.0));
        world.run(to);
        let fair = link.mbit / (rivals.len() + 1) as f64;
        let ours = world.mbit(flow, from, to);
        let theirs: f64 = rivals
            .iter()
            .map(|&rival| world.mbit(rival, from, to))
            .sum();
        let theirs = theirs / rivals.len() as f64;
        let competing = world.competing(flow, from, to);
        let said = format!(
            "{} ms, {} rivals: ours {ours:.0}, theirs {theirs:.0} Mbit/s, {competing:.2}",
            link.one_way.as_millis(),
            rivals.len()
        );
        assert!(competing > 0.45, "{said}");
        assert!(ours > 0.35 * fair, "{said}");
        assert!(theirs > 0.75 * fair, "{said}");
    }
}

#[test]
fn cubic_keeps_beside_us_what_a_lossy_path_leaves_it() {
    let link = Link::new(50.0, 20, 40).loss(Loss::Random(0.001));
    let mut world = World::new(link, 1);
    let alone = world.flow(cubic(), Source::Endless, seconds(0.0));
    world.run(seconds(40.0));
    let alone = world.mbit(alone, seconds(5.0), seconds(40.0));
    let (_, [_, beside]) = pair(link, [ours(), cubic()], 8.0, 43.0);
    assert!(beside > 0.5 * alone, "{beside:.1} of {alone:.1} Mbit/s");
}

#[test]
fn bbr_leaves_us_something() {
    // BBR takes no notice of delay or loss: what is left depends on it alone. CUBIC gets as much.
    let link = Link::new(50.0, 20, 80);
    let (_, [ours, bbr]) = pair(link, [ours(), bbr()], 13.0, 53.0);
    assert!(
        ours > 0.1 * link.mbit,
        "ours {ours:.1}, BBR {bbr:.1} Mbit/s"
    );
}

#[test]
fn a_small_sender_is_quick_beside_a_large_one() {
    // A request of 8 KiB ten times a second, with a session of its own.
    let mut world = World::new(Link::new(100.0, 20, 60), 1);
    world.flow(ours(), Source::Endless, seconds(0.0));
    let every = Duration::from_millis(100);
    let small = world.flow(ours(), Source::Bursts(8192, every), seconds(2.0));
    world.run(seconds(12.0));
    let mbit = world.mbit(small, seconds(3.0), seconds(12.0));
    assert!(mbit > 0.64, "{mbit:.2} Mbit/s");
    let p99 = world.queue_ms(0.99, seconds(3.0), seconds(12.0));
    assert!(p99 < 25.0, "{p99:.1} ms");
}
