//! The default strategy: of two random sessions, the one with fewer open streams.
//!
//! Two choices come close to the least loaded of all (Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing", 2001), cost the same for ten sessions and for ten thousand, and do
//! not send every request of a burst to the one session that looked best a moment ago.

/// Random draws before the fallback looks at every session.
const DRAWS: usize = 8;

/// Picks one of `count` sessions: `serves` says which may be picked, `load` how busy each is, and
/// `random(n)` draws from `0..n`.
///
/// Returns nothing only when no session may be picked.
pub fn pick(
    count: usize,
    serves: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> usize,
    mut random: impl FnMut(usize) -> usize,
) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let mut first = None;
    for _ in 0..DRAWS {
        let drawn = random(count);
        if first == Some(drawn) || !serves(drawn) {
            continue;
        }
        match first {
            None => first = Some(drawn),
            Some(other) => return Some(less_loaded(other, drawn, &load)),
        }
    }
    // Few sessions, or few that serve: look at all, from a random place so that ties spread.
    let start = random(count);
    (0..count)
        .map(|step| (start + step) % count)
        .filter(|index| serves(*index))
        .min_by_key(|index| load(*index))
}

fn less_loaded(one: usize, other: usize, load: &impl Fn(usize) -> usize) -> usize {
    if load(other) < load(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::pick;

    #[test]
    fn without_a_session_that_serves_none_is_picked() {
        assert_eq!(pick(0, |_| true, |_| 0, |_| 0), None);
        assert_eq!(pick(5, |_| false, |_| 0, |count| count - 1), None);
    }

    #[test]
    fn the_less_loaded_of_two_draws_wins() {
        let mut draws = [3, 1].into_iter();
        assert_eq!(
            pick(5, |_| true, |index| index, |_| draws.next().unwrap()),
            Some(1)
        );
    }

    #[test]
    fn the_only_one_that_serves_is_found() {
        assert_eq!(
            pick(10_000, |index| index == 7_777, |_| 0, |_| 0),
            Some(7_777)
        );
    }

    #[test]
    fn load_spreads_over_equal_sessions() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut loads = [0_usize; 10];
        for _ in 0..1_000 {
            let picked = pick(
                10,
                |_| true,
                |index| loads[index],
                |count| random.usize(..count),
            );
            loads[picked.unwrap()] += 1;
        }
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(most - least <= 5, "{loads:?}");
    }

    proptest! {
        #[test]
        fn the_picked_session_serves(
            serving in prop::collection::vec(any::<bool>(), 1..40),
            seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let picked = pick(
                serving.len(), |index| serving[index], |index| index, |count| random.usize(..count),
            );
            match picked {
                Some(index) => prop_assert!(serving[index]),
                None => prop_assert!(serving.iter().all(|serves| !serves)),
            }
        }
    }
}
