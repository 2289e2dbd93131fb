//! One flow on a path that does not change.

use crate::competing_flows::{cubic_flow, delay_flow};
use crate::simulation::{Link, Loss, Simulation, Source, millis, seconds};

/// Measurements of one run.
#[derive(Debug)]
struct Outcome {
    /// Throughput as a share of the link rate, without the skipped time.
    used: f64,
    /// Median and 99th percentile of the queue delay, in milliseconds.
    queue_p50: f64,
    queue_p99: f64,
    /// Share of the packets that were lost.
    lost: f64,
}

/// Sends until `until` and measures from `skipped` on, both in seconds.
fn run(link: Link, skipped: f64, until: f64) -> Outcome {
    let mut simulation = Simulation::new(link, 1);
    let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
    simulation.run(seconds(until));
    let (from, to) = (seconds(skipped), seconds(until));
    Outcome {
        used: simulation.mbit(flow, from, to) / link.mbit,
        queue_p50: simulation.queue_delay_ms(0.5, from, to),
        queue_p99: simulation.queue_delay_ms(0.99, from, to),
        lost: simulation.lost(flow) as f64 / simulation.sent(flow) as f64,
    }
}

#[test]
fn a_download_is_fast_despite_random_loss() {
    for (loss, at_least) in [(0.0, 130.0), (0.001, 130.0), (0.01, 125.0), (0.03, 120.0)] {
        for seed in 1..4 {
            let link = Link::new(200.0, 20, 60).loss(Loss::Random(loss));
            let mut simulation = Simulation::new(link, seed);
            let flow = simulation.add_flow(delay_flow(), Source::Bytes(20_000_000), seconds(0.0));
            simulation.run(seconds(5.0));
            let took = simulation
                .finished(flow)
                .expect("5 s are three times enough");
            let mbit = 160.0 / took.as_secs_f64();
            assert!(mbit >= at_least, "{mbit:.0} Mbit/s at {loss}");
        }
    }
}

#[test]
fn slow_start_ends_before_the_queue_overflows() {
    for (mbit, one_way, queue) in [
        (20.0, 20, 60),
        (200.0, 20, 60),
        (200.0, 20, 45),
        (1000.0, 5, 20),
        (20.0, 100, 250),
    ] {
        let link = Link::new(mbit, one_way, queue);
        let rtt = millis(2 * one_way);
        let mut simulation = Simulation::new(link, 1);
        let flow = simulation.add_flow(delay_flow(), Source::Endless, seconds(0.0));
        simulation.run(rtt * 20);
        assert_eq!(simulation.lost(flow), 0, "{mbit} Mbit/s, {one_way} ms");
        let used = simulation.mbit(flow, rtt * 15, rtt * 20) / mbit;
        assert!(used > 0.9, "{mbit} Mbit/s, {one_way} ms: {used:.2}");
    }
}

#[test]
fn clean_paths_are_filled_with_a_short_queue() {
    for (link, until, p50, p99) in [
        (Link::new(20.0, 20, 60), 15.0, 8.0, 28.0),
        (Link::new(200.0, 20, 60), 8.0, 6.0, 20.0),
        (Link::new(1000.0, 2, 20), 2.5, 5.0, 9.0),
        (Link::new(50.0, 50, 200), 12.0, 12.0, 45.0),
    ] {
        let outcome = run(link, 2.0, until);
        let mbit = link.mbit;
        assert!(outcome.used > 0.95, "{mbit} Mbit/s: {outcome:?}");
        assert!(outcome.queue_p50 < p50, "{mbit} Mbit/s: {outcome:?}");
        assert!(outcome.queue_p99 < p99, "{mbit} Mbit/s: {outcome:?}");
        assert!(outcome.lost < 0.0001, "{mbit} Mbit/s: {outcome:?}");
    }
}

#[test]
fn random_loss_costs_little_throughput() {
    for (loss, used) in [
        (Loss::Random(0.001), 0.95),
        (Loss::Random(0.01), 0.95),
        (Loss::Random(0.03), 0.9),
        (Loss::Bursts(0.01, 20.0), 0.9),
        (Loss::Bursts(0.03, 20.0), 0.75),
    ] {
        let outcome = run(Link::new(100.0, 20, 60).loss(loss), 2.0, 10.0);
        assert!(outcome.used > used, "{loss:?}: {outcome:?}");
        assert!(outcome.queue_p99 < 20.0, "{loss:?}: {outcome:?}");
    }
}

#[test]
fn loss_above_the_tolerated_rate_reduces_throughput() {
    let tolerated = run(Link::new(50.0, 20, 60).loss(Loss::Random(0.03)), 3.0, 15.0);
    let beyond = run(Link::new(50.0, 20, 60).loss(Loss::Random(0.12)), 3.0, 15.0);
    assert!(tolerated.used > 0.9, "{tolerated:?}");
    assert!(beyond.used < 0.4, "{beyond:?}");
    assert!(beyond.used > 0.01, "{beyond:?}");
}

#[test]
fn short_buffers_are_utilized_with_little_loss() {
    for (queue, used, lost) in [(10, 0.93, 0.01), (5, 0.9, 0.03), (2, 0.8, 0.06)] {
        let outcome = run(Link::new(100.0, 20, queue), 2.0, 12.0);
        assert!(outcome.used > used, "{queue} ms: {outcome:?}");
        assert!(outcome.lost < lost, "{queue} ms: {outcome:?}");
    }
}

#[test]
fn long_paths_are_filled() {
    let clean = run(Link::new(20.0, 300, 300), 15.0, 60.0);
    assert!(clean.used > 0.93, "{clean:?}");
    assert!(clean.queue_p50 < 60.0, "{clean:?}");
    let lossy = Link::new(20.0, 300, 100).loss(Loss::Random(0.01));
    let lossy = run(lossy, 15.0, 60.0);
    assert!(lossy.used > 0.9, "{lossy:?}");
}

#[test]
fn ecn_marks_keep_the_queue_near_the_marking_threshold() {
    let link = Link {
        mark: Some(millis(3)),
        ..Link::new(100.0, 20, 60)
    };
    let marked = run(link, 2.0, 10.0);
    assert!(marked.used > 0.93, "{marked:?}");
    assert!(marked.queue_p50 < 3.0, "{marked:?}");
    assert!(marked.queue_p99 < 9.0, "{marked:?}");
    assert!(marked.lost < 0.0001, "{marked:?}");
}

#[test]
fn jitter_is_not_taken_for_a_queue() {
    let link = Link {
        jitter: millis(3),
        ..Link::new(100.0, 20, 60)
    };
    let outcome = run(link, 3.0, 12.0);
    assert!(outcome.used > 0.9, "{outcome:?}");
    assert!(outcome.queue_p99 < 20.0, "{outcome:?}");
}

#[test]
fn cubic_is_slow_with_random_loss() {
    // Checks the model, not the controller: CUBIC is known to be slow here.
    let link = Link::new(200.0, 20, 60).loss(Loss::Random(0.001));
    let mut simulation = Simulation::new(link, 1);
    let flow = simulation.add_flow(cubic_flow(), Source::Endless, seconds(0.0));
    simulation.run(seconds(15.0));
    let mbit = simulation.mbit(flow, seconds(2.0), seconds(15.0));
    assert!((5.0..40.0).contains(&mbit), "{mbit:.1} Mbit/s");
}
