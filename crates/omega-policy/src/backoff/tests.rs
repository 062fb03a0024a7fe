use proptest::prelude::*;

use super::*;

fn with(jitter: Jitter) -> Backoff {
    Backoff { jitter, ..Backoff::default() }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_specification_s_example_delays() {
    // "Attempt 1: ~1.0s + jitter" up to "Attempt 5: ~16.0s + jitter"; the formula counts from 0.
    for (attempt, delay) in [1, 2, 4, 8, 16].into_iter().enumerate() {
        let lowest = Backoff::default().delay(attempt as u32, Duration::ZERO, Chance::ZERO);
        let highest = Backoff::default().delay(attempt as u32, Duration::ZERO, Chance::MAX);
        assert_eq!(lowest, secs(delay));
        assert_eq!(highest.as_nanos(), u128::from(2 * delay) * 1_000_000_000 - 1);
        assert_eq!(with(Jitter::None).delay(attempt as u32, Duration::ZERO, Chance::HALF), secs(delay));
    }
}

#[test]
fn below_the_cap_the_delay_is_drawn_from_d_to_twice_d_or_the_cap() {
    // d = 32 s: from 32 s to 60 s and not to 64 s, drawn evenly and not piled up at the cap.
    let backoff = Backoff::default();
    assert_eq!(backoff.delay(5, Duration::ZERO, Chance::ZERO), secs(32));
    assert_eq!(backoff.delay(5, Duration::ZERO, Chance::HALF), secs(46));
    assert!(backoff.delay(5, Duration::ZERO, Chance::MAX) < secs(60));
}

#[test]
fn at_the_cap_the_delay_is_drawn_from_half_the_cap_to_the_cap() {
    for attempt in [6, 7, 100, u32::MAX] {
        assert_eq!(Backoff::default().delay(attempt, Duration::ZERO, Chance::ZERO), secs(30));
        assert_eq!(Backoff::default().delay(attempt, Duration::ZERO, Chance::HALF), secs(45));
        assert!(Backoff::default().delay(attempt, Duration::ZERO, Chance::MAX) < secs(60));
    }
}

#[test]
fn the_other_jitters_stay_in_their_ranges() {
    assert_eq!(with(Jitter::Full).delay(3, Duration::ZERO, Chance::ZERO), Duration::ZERO);
    assert_eq!(with(Jitter::Full).delay(3, Duration::ZERO, Chance::HALF), secs(4));
    assert_eq!(with(Jitter::Equal).delay(3, Duration::ZERO, Chance::ZERO), secs(4));
    assert_eq!(with(Jitter::Equal).delay(3, Duration::ZERO, Chance::HALF), secs(6));
    assert_eq!(with(Jitter::Decorrelated).delay(0, Duration::ZERO, Chance::ZERO), secs(1));
    assert_eq!(with(Jitter::Decorrelated).delay(0, Duration::ZERO, Chance::HALF), secs(2));
    assert_eq!(with(Jitter::Decorrelated).delay(9, secs(5), Chance::HALF), secs(8));
    assert_eq!(with(Jitter::Decorrelated).delay(9, secs(50), Chance::MAX).as_secs(), 59);
}

#[test]
fn absurd_settings_saturate() {
    let wild = |base, max, factor, jitter| Backoff {
        base_delay: base,
        max_delay: max,
        exponential_base: factor,
        jitter,
    };
    for jitter in [Jitter::Proportional, Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
        for factor in [f64::NAN, f64::INFINITY, -3.0, 0.0, 1.0, 10.0, 1e300] {
            for base in [Duration::ZERO, secs(1), Duration::MAX] {
                for max in [Duration::ZERO, secs(60), Duration::MAX] {
                    for attempt in [0, 1, 63, 64, u32::MAX] {
                        let delay =
                            wild(base, max, factor, jitter).delay(attempt, Duration::MAX, Chance::MAX);
                        assert!(delay <= max, "{jitter:?} {factor} {base:?} {max:?} {attempt}: {delay:?}");
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn every_delay_lies_where_the_page_says(attempt in 0u32..40, bits: u64, base_ms in 1u64..5_000, factor in 1.0f64..10.0) {
        let backoff = Backoff {
            base_delay: Duration::from_millis(base_ms),
            exponential_base: factor,
            ..Backoff::default()
        };
        let delay = backoff.delay(attempt, Duration::ZERO, Chance::from_bits(bits));
        let d = Backoff { jitter: Jitter::None, ..backoff }.delay(attempt, Duration::ZERO, Chance::ZERO);
        if d < secs(60) {
            prop_assert!(delay >= d && delay <= (d * 2).min(secs(60)));
        } else {
            prop_assert!(delay >= secs(30) && delay <= secs(60));
        }
    }
}
