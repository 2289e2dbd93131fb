//! Several flows on one path: throughput of each, and fairness.

use std::time::Duration;

use crate::competing_flows::{bbr_flow, cubic_flow, delay_flow};
use crate::simulation::{Control, Link, Loss, Simulation, Source, millis, seconds};

/// Two flows with unlimited data, the second from 3 s on. Returns the throughput of each between
/// `from` and `until` (in seconds), in Mbit/s.
fn pair(
    link: Link,
    controls: [Box<dyn Control>; 2],
    from: f64,
    until: f64,
) -> (Simulation, [f64; 2]) {
    let [first, second] = controls;
    let mut simulation = Simulation::new(link, 1);
    let first = simulation.add_flow(first, Source::Endless, seconds(0.0));
    let second = simulation.add_flow(second, Source::Endless, seconds(3.0));
    simulation.run(seconds(until));
    let of = |flow| simulation.mbit(flow, seconds(from), seconds(until));
    let shares = [of(first), of(second)];
    (simulation, shares)
}

#[test]
fn two_delay_flows_converge_to_equal_shares() {
    for (link, fairness) in [
        (Link::new(100.0, 20, 40), 0.98),
        (Link::new(100.0, 20, 200), 0.98),
        (Link::new(20.0, 20, 60), 0.95),
        (Link::new(50.0, 20, 40).loss(Loss::Random(0.01)), 0.9),
    ] {
        let (simulation, shares) = pair(link, [delay_flow(), delay_flow()], 13.0, 23.0);
        let (from, to) = (seconds(13.0), seconds(23.0));
        let index = simulation.fairness(from, to);
        assert!(index > fairness, "{link:?}: {shares:?}, {index:.3}");
        assert!(shares.iter().sum::<f64>() > 0.93 * link.mbit, "{shares:?}");
        let p99 = simulation.queue_delay_ms(0.99, from, to);
        assert!(p99 < 30.0, "{link:?}: {p99:.1} ms");
    }
}

#[test]
fn new_flows_get_a_fair_share() {
    let mut simulation = Simulation::new(Link::new(50.0, 20, 60), 1);
    for start in [0.0, 3.0, 6.0, 9.0] {
        simulation.add_flow(delay_flow(), Source::Endless, seconds(start));
    }
    simulation.run(seconds(35.0));
    let index = simulation.fairness(seconds(20.0), seconds(35.0));
    assert!(index > 0.9, "{index:.3}");
    let p99 = simulation.queue_delay_ms(0.99, seconds(20.0), seconds(35.0));
    assert!(p99 < 35.0, "{p99:.1} ms");
}

#[test]
fn flows_with_different_rtts_share_a_queue() {
    let mut simulation = Simulation::new(Link::new(50.0, 20, 60), 1);
    let near = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    let far =
        simulation.add_flow_with_extra_rtt(delay_flow(), Source::Endless, seconds(2.0), millis(40));
    simulation.run(seconds(40.0));
    let (from, to) = (seconds(15.0), seconds(40.0));
    let (near, far) = (
        simulation.mbit(near, from, to),
        simulation.mbit(far, from, to),
    );
    assert!(near.min(far) > 7.5, "{near:.1} and {far:.1} Mbit/s");
    assert!(near + far > 46.0, "{near:.1} and {far:.1} Mbit/s");
}

#[test]
fn neither_cubic_nor_a_delay_flow_starves() {
    // Queues of a quarter, one, two and five times the RTT. The order of the flows matters little.
    for queue in [10, 40, 80, 200] {
        let link = Link::new(50.0, 20, queue);
        let fair = link.mbit / 2.0;
        for delay_first in [true, false] {
            let controls: [Box<dyn Control>; 2] = if delay_first {
                [delay_flow(), cubic_flow()]
            } else {
                [cubic_flow(), delay_flow()]
            };
            let (_, [first, second]) = pair(link, controls, 13.0, 53.0);
            let (delay, cubic) = if delay_first {
                (first, second)
            } else {
                (second, first)
            };
            let message =
                format!("queue {queue} ms: delay flow {delay:.1}, CUBIC {cubic:.1} Mbit/s");
            assert!(cubic > 0.5 * fair, "{message}");
            assert!(delay > 0.35 * fair, "{message}");
        }
    }
}

#[test]
fn a_standing_queue_of_cubic_flows_is_not_taken_for_a_longer_route() {
    // Even a cut by half hardly changes the RTT of such a queue: the other flows fill the gap.
    for (link, competing_flows) in [
        (Link::new(1000.0, 5, 20), 1),
        (Link::new(1000.0, 5, 20), 8),
        (Link::new(1000.0, 20, 40), 8),
    ] {
        let mut simulation = Simulation::new(link, 1);
        let competing_flows: Vec<usize> = (0..competing_flows)
            .map(|index| simulation.add_flow(cubic_flow(), Source::Endless, millis(100 * index)))
            .collect();
        let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(3.0));
        let (from, to) = (seconds(10.0), seconds(24.0));
        simulation.run(to);
        let fair = link.mbit / (competing_flows.len() + 1) as f64;
        let delay = simulation.mbit(flow, from, to);
        let cubic: f64 = competing_flows
            .iter()
            .map(|&other| simulation.mbit(other, from, to))
            .sum();
        let cubic = cubic / competing_flows.len() as f64;
        let competing = simulation.competing(flow, from, to);
        let message = format!(
            "{} ms, {} competing flows: delay flow {delay:.0}, CUBIC {cubic:.0} Mbit/s, {competing:.2}",
            link.one_way.as_millis(),
            competing_flows.len()
        );
        assert!(competing > 0.45, "{message}");
        assert!(delay > 0.35 * fair, "{message}");
        assert!(cubic > 0.75 * fair, "{message}");
    }
}

#[test]
fn cubic_keeps_half_of_its_throughput_with_random_loss_beside_a_delay_flow() {
    let link = Link::new(50.0, 20, 40).loss(Loss::Random(0.001));
    let mut simulation = Simulation::new(link, 1);
    let alone = simulation.add_flow(cubic_flow(), Source::Endless, seconds(0.0));
    simulation.run(seconds(40.0));
    let alone = simulation.mbit(alone, seconds(5.0), seconds(40.0));
    let (_, [_, beside]) = pair(link, [delay_flow(), cubic_flow()], 8.0, 43.0);
    assert!(beside > 0.5 * alone, "{beside:.1} of {alone:.1} Mbit/s");
}

#[test]
fn a_delay_flow_beside_bbr_keeps_a_tenth_of_the_rate() {
    // BBR ignores delay and loss, so the share of the other flow depends on BBR alone. CUBIC gets
    // as much.
    let link = Link::new(50.0, 20, 80);
    let (_, [delay, bbr]) = pair(link, [delay_flow(), bbr_flow()], 13.0, 53.0);
    assert!(
        delay > 0.1 * link.mbit,
        "delay flow {delay:.1}, BBR {bbr:.1} Mbit/s"
    );
}

#[test]
fn small_requests_see_a_short_queue_beside_a_bulk_flow() {
    // A request of 8 KiB ten times per second, on a flow of its own.
    let mut simulation = Simulation::new(Link::new(100.0, 20, 60), 1);
    simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    let every = Duration::from_millis(100);
    let small = simulation.add_flow(delay_flow(), Source::Bursts(8192, every), seconds(2.0));
    simulation.run(seconds(12.0));
    let mbit = simulation.mbit(small, seconds(3.0), seconds(12.0));
    assert!(mbit > 0.64, "{mbit:.2} Mbit/s");
    let p99 = simulation.queue_delay_ms(0.99, seconds(3.0), seconds(12.0));
    assert!(p99 < 25.0, "{p99:.1} ms");
}
