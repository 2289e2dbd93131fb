//! Invariants for any acknowledgements of the peer and any loss, and single decisions.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use towline_congestion::{Ack, DelayController, INITIAL_DATAGRAMS};

/// A report to the controller. The strategy pairs it with the time since the previous one, in
/// microseconds.
#[derive(Debug, Clone)]
enum Event {
    Acks {
        packets: u8,
        rtt: u32,
        limited: bool,
    },
    Loss {
        bytes: u32,
        age: u32,
    },
    Mark {
        age: u32,
    },
    Persistent,
    Datagram(u16),
}

fn event() -> impl Strategy<Value = (u32, Event)> {
    let event = prop_oneof![
        8 => (1..40u8, 0..2_000_000u32, any::<bool>())
            .prop_map(|(packets, rtt, limited)| Event::Acks { packets, rtt, limited }),
        2 => (0..100_000u32, 0..1_000_000u32).prop_map(|(bytes, age)| Event::Loss { bytes, age }),
        1 => (0..1_000_000u32).prop_map(|age| Event::Mark { age }),
        1 => Just(Event::Persistent),
        1 => (0..u16::MAX).prop_map(Event::Datagram),
    ];
    (
        prop_oneof![4 => 0..100_000u32, 1 => 0..60_000_000u32],
        event,
    )
}

proptest! {
    #[test]
    fn the_window_stays_between_two_datagrams_and_twice_the_acknowledged_bytes(
        events in proptest::collection::vec(event(), 0..300),
    ) {
        let mut now = Instant::now() + Duration::from_secs(10);
        let mut datagram = 1200;
        let mut acked = u64::from(datagram) * INITIAL_DATAGRAMS;
        let mut largest = u64::from(datagram);
        let mut control = DelayController::new(datagram);
        for (after, event) in events {
            now += Duration::from_micros(after.into());
            let ago = |micros: u32| now - Duration::from_micros(micros.into());
            match event {
                Event::Acks { packets, rtt, limited } => {
                    for _ in 0..packets {
                        let bytes = u64::from(datagram);
                        acked += bytes;
                        control.on_ack(now, Ack { sent: ago(rtt), bytes }, limited);
                    }
                    control.on_acks_end(now, control.window());
                }
                Event::Loss { bytes, age } => control.on_loss(now, ago(age), bytes.into()),
                Event::Mark { age } => control.on_mark(ago(age)),
                Event::Persistent => {
                    control.on_persistent_congestion(now);
                    prop_assert_eq!(control.window(), 2 * u64::from(datagram.max(1)));
                }
                Event::Datagram(size) => {
                    datagram = size;
                    largest = largest.max(size.into());
                    control.on_datagram_size(size);
                }
            }
            prop_assert!(control.window() >= 2 * u64::from(datagram.max(1)));
            prop_assert!(control.window() <= 2 * (acked + INITIAL_DATAGRAMS * largest));
        }
    }
}

/// Reports rounds with RTTs of `trips` milliseconds, in which the window is utilized.
fn rounds(control: &mut DelayController, now: &mut Instant, datagram: u64, trips: &[u64]) {
    for &trip in trips {
        let sent = *now;
        *now += Duration::from_millis(trip);
        for _ in 0..(control.window() / datagram / 4).clamp(1, 8) {
            let bytes = datagram;
            control.on_ack(*now, Ack { sent, bytes }, false);
        }
        control.on_acks_end(*now, control.window());
    }
}

#[test]
fn the_competitive_window_follows_the_datagram_size() {
    let mut now = Instant::now();
    let mut control = DelayController::new(1200);
    // The path without a queue, then with a queue that varies and that no cut drains.
    let queue = |round: u64| [100 + 10 * (round / 3 % 2)];
    rounds(&mut control, &mut now, 1200, &[40, 40, 40]);
    for round in 0..40 {
        if control.is_competing() {
            break;
        }
        rounds(&mut control, &mut now, 1200, &queue(round));
    }
    assert!(control.is_competing());
    control.on_datagram_size(16_368);
    for round in 0..200 {
        control.on_loss(now, now, 1200);
        rounds(&mut control, &mut now, 1200, &queue(round));
        assert!(control.window() >= 2 * 16_368, "{}", control.window());
    }
}

#[test]
fn a_queue_that_falls_while_app_limited_causes_no_cut() {
    let mut now = Instant::now();
    let mut control = DelayController::new(1200);
    // Slow start until the queue delay rises; the cut drains the queue; another queue builds up,
    // below the target.
    rounds(&mut control, &mut now, 1200, &[40, 40, 40, 40, 50]);
    rounds(&mut control, &mut now, 1200, &[40, 40, 40, 45, 52, 52]);
    assert!(!control.is_in_slow_start() && !control.is_competing());
    let window = control.window();
    let mut short = control.clone();
    for _ in 0..4 {
        let sent = now;
        now += Duration::from_millis(41);
        short.on_ack(now, Ack { sent, bytes: 1200 }, true);
        short.on_acks_end(now, 0);
    }
    assert_eq!(short.window(), window);
    // While the window is utilized, a shorter queue means that other flows were cut.
    rounds(&mut control, &mut now, 1200, &[41, 41, 41]);
    assert!(control.window() < window, "{window}");
}

#[test]
fn a_larger_datagram_raises_the_minimum_window() {
    let mut control = DelayController::new(1200);
    let now = Instant::now();
    control.on_persistent_congestion(now);
    assert_eq!(control.window(), 2 * 1200);
    control.on_datagram_size(9000);
    assert_eq!(control.window(), 2 * 9000);
    control.on_datagram_size(1200);
    assert_eq!(control.window(), 2 * 9000);
}
