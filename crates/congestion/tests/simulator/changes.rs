//! One flow on a path that changes, or with less data than the path can carry.

use crate::competing_flows::delay_flow;
use crate::simulation::{DATAGRAM, Link, Loss, Simulation, Source, millis, seconds};

/// A flow with unlimited data for 12 s; the link changes after 5 s.
fn change(before: Link, after: Link) -> Simulation {
    let mut simulation = Simulation::new(before, 1);
    simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    simulation.set_link_at(seconds(5.0), after);
    simulation.run(seconds(12.0));
    simulation
}

#[test]
fn a_longer_route_is_filled_within_two_seconds() {
    let simulation = change(Link::new(50.0, 20, 60), Link::new(50.0, 40, 60));
    let mbit = simulation.mbit(0, seconds(7.0), seconds(12.0));
    assert!(mbit > 45.0, "{mbit:.1} Mbit/s");
    let p99 = simulation.queue_delay_ms(0.99, seconds(7.0), seconds(12.0));
    assert!(p99 < 35.0, "{p99:.1} ms");
}

#[test]
fn a_longer_route_is_not_taken_for_a_competing_flow_after_an_overflow() {
    for (before, after) in [
        (Link::new(50.0, 20, 60), Link::new(50.0, 30, 60)),
        // A queue this short overflows occasionally.
        (Link::new(100.0, 20, 10), Link::new(100.0, 30, 10)),
    ] {
        let simulation = change(before, after);
        let competing = simulation.competing(0, seconds(5.0), seconds(12.0));
        assert_eq!(competing, 0.0, "{after:?}");
        let mbit = simulation.mbit(0, seconds(7.0), seconds(12.0));
        assert!(mbit > 0.93 * after.mbit, "{mbit:.1} Mbit/s, {after:?}");
    }
}

#[test]
fn a_shorter_route_leaves_no_standing_queue() {
    let simulation = change(Link::new(50.0, 40, 60), Link::new(50.0, 20, 60));
    let mbit = simulation.mbit(0, seconds(7.0), seconds(12.0));
    assert!(mbit > 45.0, "{mbit:.1} Mbit/s");
    let p99 = simulation.queue_delay_ms(0.99, seconds(7.0), seconds(12.0));
    assert!(p99 < 25.0, "{p99:.1} ms");
}

#[test]
fn a_narrower_path_has_a_short_queue_after_one_second() {
    let simulation = change(Link::new(100.0, 20, 60), Link::new(10.0, 20, 60));
    let mbit = simulation.mbit(0, seconds(6.0), seconds(12.0));
    assert!(mbit > 9.0, "{mbit:.1} Mbit/s");
    let p99 = simulation.queue_delay_ms(0.99, seconds(6.0), seconds(12.0));
    assert!(p99 < 35.0, "{p99:.1} ms");
}

#[test]
fn a_wider_path_is_filled_within_two_seconds() {
    let simulation = change(Link::new(10.0, 20, 60), Link::new(100.0, 20, 60));
    let mbit = simulation.mbit(0, seconds(7.0), seconds(12.0));
    assert!(mbit > 93.0, "{mbit:.1} Mbit/s");
    assert_eq!(simulation.lost(0), 0);
}

#[test]
fn min_rtt_is_measured_again_without_a_throughput_collapse() {
    let mut simulation = Simulation::new(Link::new(50.0, 20, 60), 1);
    let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    simulation.run(seconds(30.0));
    for half in 4..60 {
        let from = seconds(f64::from(half) / 2.0);
        let mbit = simulation.mbit(flow, from, from + millis(500));
        assert!(mbit > 42.0, "{mbit:.1} Mbit/s at {from:?}");
    }
}

#[test]
fn throughput_recovers_after_an_outage() {
    let link = Link::new(50.0, 20, 60);
    let mut simulation = Simulation::new(link, 1);
    let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    simulation.set_link_at(seconds(4.0), link.loss(Loss::Random(1.0)));
    simulation.set_link_at(seconds(6.0), link);
    simulation.run(seconds(12.0));
    let mbit = simulation.mbit(flow, seconds(9.5), seconds(12.0));
    assert!(mbit > 45.0, "{mbit:.1} Mbit/s");
}

#[test]
fn an_app_limited_flow_keeps_its_window() {
    let mut simulation = Simulation::new(Link::new(50.0, 20, 60), 1);
    let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    // 4 Mbit/s, in bursts smaller than the window.
    simulation.set_source_at(flow, seconds(4.0), Source::Bursts(50_000, millis(100)));
    simulation.set_source_at(flow, seconds(9.0), Source::Endless);
    simulation.run(seconds(12.0));
    let (before, after) = (
        simulation.window(flow, seconds(4.0)),
        simulation.window(flow, seconds(9.0)),
    );
    assert!(
        after * 10 >= before * 6,
        "{before} datagrams became {after}"
    );
    assert!(
        after * 10 <= before * 13,
        "{before} datagrams became {after}"
    );
    let mbit = simulation.mbit(flow, seconds(9.2), seconds(10.2));
    assert!(mbit > 40.0, "{mbit:.1} Mbit/s");
    assert_eq!(simulation.lost(flow), 0);
}

#[test]
fn a_window_that_was_never_filled_does_not_grow() {
    let mut simulation = Simulation::new(Link::new(50.0, 20, 60), 1);
    let flow = simulation.add_flow(
        delay_flow(),
        Source::Bursts(10_000, millis(100)),
        seconds(0.0),
    );
    simulation.run(seconds(10.0));
    let window = simulation.window(flow, seconds(10.0));
    assert_eq!(window, 32, "{window} datagrams");
}

#[test]
fn sparse_packets_do_not_end_slow_start() {
    // A handshake, then single packets, of which the receiver delays each acknowledgement.
    let mut simulation = Simulation::new(Link::new(100.0, 20, 60), 1);
    let flow = simulation.add_flow(delay_flow(), Source::Bytes(10_000), seconds(0.0));
    simulation.set_source_at(flow, seconds(1.0), Source::Bursts(500, millis(500)));
    simulation.set_source_at(flow, seconds(7.0), Source::Endless);
    simulation.run(seconds(8.0));
    let window = simulation.window(flow, seconds(7.0));
    assert_eq!(window, 32, "{window} datagrams");
    // Ten RTTs later.
    let mbit = simulation.mbit(flow, seconds(7.4), seconds(7.8));
    assert!(mbit > 90.0, "{mbit:.1} Mbit/s");
}

#[test]
fn measurements_from_before_a_long_idle_period_are_discarded() {
    let mut simulation = Simulation::new(Link::new(100.0, 20, 40), 1);
    let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    simulation.set_source_at(flow, seconds(3.0), Source::Bytes(0));
    // The link changes during the idle period: a tenth of the rate, four times the delay.
    simulation.set_link_at(seconds(10.0), Link::new(10.0, 80, 160));
    simulation.set_source_at(flow, seconds(20.0), Source::Endless);
    simulation.run(seconds(35.0));
    let mbit = simulation.mbit(flow, seconds(24.0), seconds(35.0));
    assert!(mbit > 9.0, "{mbit:.1} Mbit/s");
    let p99 = simulation.queue_delay_ms(0.99, seconds(26.0), seconds(35.0));
    assert!(p99 < 90.0, "{p99:.1} ms");
}

/// Unlimited data for 3 s at 200 Mbit/s, then 30 s with the source `lull`, in which the rate drops
/// to 20 Mbit/s, then unlimited data again.
fn bulk_after(lull: Source) -> (Simulation, usize) {
    let mut simulation = Simulation::new(Link::new(200.0, 20, 60), 1);
    let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    simulation.set_source_at(flow, seconds(3.0), lull);
    simulation.set_link_at(seconds(20.0), Link::new(20.0, 20, 60));
    simulation.set_source_at(flow, seconds(33.0), Source::Endless);
    simulation.run(seconds(40.0));
    (simulation, flow)
}

#[test]
fn a_window_from_before_a_lull_is_not_sent_as_one_burst() {
    for lull in [
        Source::Bytes(0),
        Source::Bursts(100, millis(500)),
        Source::Bursts(100, millis(2000)),
        Source::Bursts(20_000, millis(2000)),
        Source::Bursts(100, millis(12_000)),
    ] {
        let (simulation, flow) = bulk_after(lull);
        let lost = simulation.lost(flow);
        assert!(lost <= 32, "{lost} of {} lost", simulation.sent(flow));
        let mbit = simulation.mbit(flow, seconds(35.0), seconds(40.0));
        assert!(mbit > 18.0, "{mbit:.1} Mbit/s");
        // During the lull, the window changes for data that was in flight and for one restart.
        let changes = simulation.window_changes(flow, seconds(4.0), seconds(33.0));
        assert!(changes <= 2, "{changes} changes");
    }
}

#[test]
fn periodic_requests_keep_the_window_they_use() {
    let mut simulation = Simulation::new(Link::new(200.0, 20, 60), 1);
    let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    simulation.set_source_at(flow, seconds(3.0), Source::Bursts(200_000, seconds(3.0)));
    simulation.run(seconds(63.0));
    for second in 3..63 {
        let window = simulation.window(flow, seconds(f64::from(second))) * DATAGRAM;
        assert!(window >= 200_000, "{window} bytes at {second} s");
    }
    let changes = simulation.window_changes(flow, seconds(20.0), seconds(63.0));
    assert!(changes <= 1, "{changes} changes");
    assert_eq!(simulation.lost(flow), 0);
}
