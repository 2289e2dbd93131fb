use proptest::prelude::*;

use super::*;
use crate::link::Loss;
use crate::units::{Depth, Rate, Share};

const MS: Duration = Duration::from_millis(1);

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn lane(rate_text: &str, queue: &str) -> Lane {
    let way = Way::new(20 * MS, rate(rate_text), queue.parse().unwrap());
    Lane::new(way, 7)
}

fn lossy(share: f64, burst: f64, seed: u64) -> Lane {
    let mut way = Way::new(MS, rate("10Gbit"), Depth::Time(MS * 1000));
    way.loss = Loss {
        share: Share::new(share).unwrap(),
        burst,
    };
    Lane::new(way, seed)
}

fn arrival(fate: Fate) -> Duration {
    match fate {
        Fate::Delivered { at, .. } => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lone_packet_takes_its_transmission_and_the_delay() {
    for (rate, length, micros) in [
        ("200Mbit", 1500, 60),
        ("1Gbit", 1500, 12),
        ("50Mbit", 1500, 240),
        ("200Mbit", 25, 1),
    ] {
        let mut lane = lane(rate, "60ms");
        let fate = lane.offer(5 * MS, length);
        let expected = Fate::Delivered {
            at: 25 * MS + Duration::from_micros(micros),
            waited: Duration::ZERO,
            marked: false,
        };
        assert_eq!(fate, expected, "{rate}, {length} bytes");
    }
}

#[test]
fn a_burst_leaves_at_the_rate() {
    let mut lane = lane("200Mbit", "1s");
    let arrivals: Vec<Duration> = (0..100).map(|_| arrival(lane.offer(MS, 1500))).collect();
    for pair in arrivals.windows(2) {
        assert_eq!(pair[1] - pair[0], Duration::from_micros(60));
    }
}

#[test]
fn the_rate_is_exact_where_a_packet_takes_no_whole_nanosecond() {
    // 1,500 bytes at 333 Mbit/s take 36,036.036… ns: a second takes 27,750 packets.
    let mut lane = lane("333Mbit", "10s");
    let last = (0..27_750)
        .map(|_| arrival(lane.offer(Duration::ZERO, 1500)))
        .last();
    assert_eq!(last, Some(Duration::from_secs(1) + 20 * MS));
}

#[test]
fn the_queue_drops_what_does_not_fit_and_takes_more_once_it_has_room() {
    // 10 ms at 12 Mbit/s hold ten packets of 1,500 bytes, the one that is being sent included.
    let mut lane = lane("12Mbit", "10ms");
    let fates: Vec<Fate> = (0..12).map(|_| lane.offer(Duration::ZERO, 1500)).collect();
    assert!(
        fates[..10]
            .iter()
            .all(|fate| matches!(fate, Fate::Delivered { .. }))
    );
    assert_eq!(fates[10..], [Fate::Overflowed; 2]);
    assert!(matches!(lane.offer(MS, 1500), Fate::Delivered { waited, .. } if waited == 9 * MS));
    assert_eq!(lane.offer(MS, 1500), Fate::Overflowed);
    assert!(
        matches!(lane.offer(Duration::from_secs(1), 1500), Fate::Delivered { waited, .. } if waited.is_zero())
    );
}

#[test]
fn a_link_without_a_queue_still_sends() {
    let mut lane = lane("12Mbit", "0s");
    assert!(matches!(lane.offer(MS, 1500), Fate::Delivered { .. }));
    assert_eq!(lane.offer(MS, 1500), Fate::Overflowed);
    assert!(matches!(lane.offer(2 * MS, 1500), Fate::Delivered { .. }));
}

#[test]
fn marks_begin_at_their_depth() {
    let mut way = Way::new(MS, rate("12Mbit"), "10ms".parse().unwrap());
    way.mark = Some("5ms".parse().unwrap());
    let mut lane = Lane::new(way, 1);
    let marks: Vec<bool> = (0..10)
        .map(|_| matches!(lane.offer(MS, 1500), Fate::Delivered { marked: true, .. }))
        .collect();
    assert_eq!(
        marks,
        [
            false, false, false, false, false, true, true, true, true, true
        ]
    );
}

#[test]
fn losses_have_their_share_and_their_bursts() {
    for (share, burst) in [
        (0.0, 1.0),
        (0.001, 1.0),
        (0.01, 1.0),
        (0.03, 1.0),
        (0.01, 5.0),
        (0.03, 3.0),
        (1.0, 1.0),
        (1.0, 5.0),
    ] {
        let mut lane = lossy(share, burst, 11);
        let packets = 1_000_000_u32;
        let lost: Vec<bool> = (0..packets)
            .map(|number| lane.offer(Duration::from_micros(number.into()), 100) == Fate::Lost)
            .collect();
        let count = u32::try_from(lost.iter().filter(|lost| **lost).count()).unwrap();
        let seen = f64::from(count) / f64::from(packets);
        // Six standard deviations of a sum whose terms come in bursts.
        let deviation = (share * (1.0 - share) * (2.0 * burst - 1.0) / f64::from(packets)).sqrt();
        assert!(
            (seen - share).abs() <= 6.0 * deviation + 1e-5,
            "{share} in {burst}: {seen}"
        );
        let starts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        if burst > 1.0 && share < 1.0 {
            let length = f64::from(count) / f64::from(u32::try_from(starts).unwrap());
            assert!(
                (length / burst - 1.0).abs() < 0.05,
                "{share} in {burst}: {length}"
            );
        }
    }
}

#[test]
fn the_same_seed_loses_the_same_packets() {
    let lost = |seed| {
        let mut lane = lossy(0.03, 1.0, seed);
        let fates = (0..10_000_u64).map(|number| lane.offer(Duration::from_micros(number), 99));
        fates.map(|fate| fate == Fate::Lost).collect::<Vec<_>>()
    };
    assert_eq!(lost(5), lost(5));
    assert_ne!(lost(5), lost(6));
}

proptest! {
    #[test]
    fn order_queue_and_rate_hold_for_any_traffic(
        packets in prop::collection::vec((0_u64..200_000, 20_usize..=1500), 1..500),
        rate in 1_000_000_u64..1_000_000_000,
        queue in 0_u64..50,
        jitter in 0_u64..5,
    ) {
        let rate = Rate::bits_per_second(rate).unwrap();
        let mut way = Way::new(7 * MS, rate, Depth::Time(Duration::from_millis(queue)));
        way.jitter = Duration::from_millis(jitter);
        let mut lane = Lane::new(way, 3);
        let (mut now, mut last, mut sent) = (Duration::ZERO, Duration::ZERO, 0);
        for (gap, length) in packets {
            now += Duration::from_nanos(gap);
            if let Fate::Delivered { at, waited, .. } = lane.offer(now, length) {
                sent += u64::try_from(length).unwrap();
                prop_assert!(at >= last, "order");
                prop_assert!(waited <= Duration::from_millis(queue), "queue");
                let alone = Duration::from_nanos(u64::try_from(length).unwrap() * 8_000_000_000 / rate.bits());
                prop_assert!(at >= now + alone + way.delay, "never early");
                last = at;
            }
        }
        let least = Duration::from_nanos(sent * 8_000_000_000 / rate.bits());
        prop_assert!(last.is_zero() || last + Duration::from_nanos(1) >= least + way.delay, "rate");
    }
}
