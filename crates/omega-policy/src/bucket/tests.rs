use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

fn bucket(limit: u64, burst_seconds: u64) -> TokenBucket {
    TokenBucket::new(limit, Duration::from_secs(burst_seconds), Duration::ZERO, at(0))
}

#[test]
fn a_full_bucket_gives_its_depth_and_then_its_rate() {
    let mut bucket = bucket(60, 60);
    for _ in 0..60 {
        assert!(bucket.fits(1));
        bucket.take(1);
    }
    assert!(!bucket.fits(1));
    assert_eq!(bucket.when_available(1), Some(at(1)));
    bucket.refill(Timestamp::from_nanos(999_999_999));
    assert!(!bucket.fits(1));
    bucket.refill(at(1));
    assert!(bucket.fits(1));
}

// redis-cell's stored version compared whole seconds and admitted up to a second early.
#[test]
fn redis_cell_nothing_is_admitted_a_nanosecond_early() {
    for limit in [1, 7, 59, 61, 90_000, u64::MAX] {
        let mut bucket = bucket(limit, 6);
        bucket.drain(Keep::Nothing, at(0));
        let due = bucket.when_available(1).expect("limited").as_nanos();
        let mut early = bucket.clone();
        early.refill(Timestamp::from_nanos(due - 1));
        assert!(!early.fits(1), "{limit}");
        bucket.refill(Timestamp::from_nanos(due));
        assert!(bucket.fits(1), "{limit}");
    }
}

// smithy-rs: a float shortfall rounded to a sleep of 0 ns and spun for ever.
#[test]
fn smithy_a_wait_is_never_zero_while_something_is_missing() {
    for limit in [1, 3, 1_000_003, u64::MAX] {
        let mut bucket = bucket(limit, 1);
        bucket.drain(Keep::Nothing, at(0));
        bucket.refill(at(0));
        assert!(bucket.when_available(1) > Some(at(0)));
    }
}

// bucket4j and Go #34861: rounding every refill loses what a short interval earned.
#[test]
fn refilling_every_nanosecond_loses_nothing() {
    let mut often = bucket(7, 60);
    often.drain(Keep::Nothing, at(0));
    let mut once = often.clone();
    for nanos in 1..=100_000 {
        often.refill(Timestamp::from_nanos(nanos));
    }
    once.refill(Timestamp::from_nanos(100_000));
    assert_eq!(often, once);
    for second in 1..=60 {
        often.refill(at(second));
    }
    assert_eq!(often.tokens(), 7, "seven per minute after a minute, to the unit");
}

#[test]
fn a_clock_that_steps_back_adds_nothing_and_takes_nothing() {
    let mut bucket = bucket(60, 60);
    bucket.take(60);
    bucket.refill(at(10));
    let before = bucket.clone();
    bucket.refill(at(5));
    assert_eq!(bucket, before);
    bucket.refill(at(10));
    assert_eq!(bucket, before, "the ten seconds are not counted twice");
}

#[test]
fn a_limit_of_zero_gives_nothing_ever_but_costs_of_zero_pass() {
    let mut bucket = bucket(0, 60);
    bucket.refill(at(1_000_000));
    assert!(bucket.fits(0) && !bucket.fits(1));
    bucket.owe(5);
    assert!(bucket.fits(0) && !bucket.fits(1));
    assert_eq!(bucket.when_available(1), None);
    assert_eq!(bucket.when_available(0), Some(at(1_000_000)));
}

#[test]
fn extremes_neither_overflow_nor_wrap() {
    for limit in [1, u64::MAX] {
        let mut bucket = TokenBucket::new(limit, Duration::MAX, Duration::ZERO, Timestamp::ZERO);
        for _ in 0..100 {
            bucket.owe(u64::MAX);
            bucket.take(u64::MAX);
        }
        bucket.refill(Timestamp::MAX);
        bucket.refund(u64::MAX);
        bucket.refund(u64::MAX);
        assert!(bucket.level <= bucket.brim);
        assert!(bucket.when_available(u64::MAX).is_some());
        let full = bucket.capacity;
        let moved = Moved { certainly: 0, possibly: 0, returned: 0, owed: 0, elapsed: Duration::MAX };
        bucket.follow(u64::MAX, &moved, 0, Duration::ZERO, true);
        assert!((full..=bucket.brim).contains(&bucket.level));
        let moved = Moved {
            certainly: u64::MAX,
            possibly: u64::MAX,
            returned: u64::MAX,
            owed: u64::MAX,
            elapsed: Duration::MAX,
        };
        bucket.follow(u64::MAX, &moved, u64::MAX, Duration::MAX, true);
        bucket.learn_depth(u64::MAX, Duration::MAX, Duration::MAX);
        bucket.foresee(u64::MAX, i128::from(u64::MAX), u64::MAX, i128::MIN, u64::MAX);
        bucket.foresee(u64::MAX, -i128::from(u64::MAX), 1, i128::MAX, 1);
        bucket.was_too_much(u64::MAX, Duration::MAX);
        bucket.was_too_much(0, Duration::MAX);
        bucket.refill(Timestamp::MAX);
    }
}

#[test]
fn a_call_deeper_than_the_bucket_goes_when_it_is_full_and_the_next_one_pays() {
    let mut bucket = bucket(60, 10);
    assert!(bucket.fits(40), "the bucket is full");
    bucket.take(40);
    assert_eq!(bucket.tokens(), -30);
    assert_eq!(bucket.when_available(1), Some(at(31)));
    bucket.refill(at(39));
    assert!(!bucket.fits(40), "nine of ten: not full");
    bucket.refill(at(40));
    assert!(!bucket.fits(40), "full, but only just");
    bucket.refill(Timestamp::from_millis(40_010));
    assert!(bucket.fits(40));
}

#[test]
fn a_full_bucket_gives_no_more_than_its_depth_however_long_it_has_been_full() {
    let mut bucket = bucket(60, 10);
    bucket.refill(at(1_000));
    bucket.take(10);
    assert_eq!(bucket.level(), 0);
}

#[test]
fn how_long_it_must_have_been_full_doubles_with_each_429_and_shrinks_with_each_success() {
    let mut bucket = bucket(60, 10);
    for expected in [20, 40, 80, 160, 320, 500, 500] {
        bucket.was_too_much(40, Duration::ZERO);
        assert_eq!(bucket.lag, expected * 1_000_000);
    }
    for _ in 0..10_000 {
        bucket.was_not_too_much(40);
    }
    assert_eq!(bucket.lag, LAG_MIN);
    let before = bucket.clone();
    bucket.was_not_too_much(5);
    assert_eq!(bucket, before, "a call within the depth says nothing of it");
}

#[test]
fn a_429_shrinks_the_depth_to_less_than_was_spent_at_once_and_what_was_spent_stays_spent() {
    let mut bucket = bucket(600, 60);
    bucket.take(300);
    bucket.was_too_much(10, Duration::from_secs(40));
    assert_eq!((bucket.depth(), bucket.tokens()), (360, 60));
    bucket.was_too_much(10, Duration::from_secs(50));
    assert_eq!(bucket.depth(), 360, "a later 429 after more was spent says nothing new");
    bucket.was_too_much(10, Duration::from_secs(1));
    assert_eq!(bucket.depth(), 360, "a call that went alone says that somebody else has spent it");
    bucket.was_too_much(10, Duration::from_secs(2));
    assert_eq!(bucket.depth(), 180, "at most half at a time: somebody else may have spent it");
    (0..100).for_each(|_| bucket.was_too_much(1, Duration::from_millis(200)));
    assert_eq!(bucket.depth(), 9, "and never less than nine tenths of a second");
}

#[test]
fn a_depth_found_to_be_small_grows_back_by_a_hundredth_in_a_minute() {
    let mut bucket = bucket(60_000, 60);
    (0..3).for_each(|_| bucket.was_too_much(10, Duration::from_secs(10)));
    assert_eq!(bucket.depth(), 9_000);
    bucket.refill(at(60));
    assert_eq!(bucket.depth(), 9_090);
    let mut idle = bucket.clone();
    for minute in 2..600 {
        bucket.refill(at(minute * 60));
    }
    assert_eq!(bucket.depth(), 60_000, "and never beyond what is configured");
    idle.refill(at(86_400));
    assert_eq!(idle.depth(), 60_000, "a quiet day forgets it");
}

#[test]
fn a_header_that_says_when_it_is_full_again_shows_the_depth() {
    let mut bucket = bucket(600, 60);
    bucket.learn_depth(100, Duration::from_secs(59), Duration::ZERO);
    assert_eq!(bucket.depth(), 600, "a second either way is rounding");
    bucket.learn_depth(40, Duration::from_secs(40), Duration::ZERO);
    assert_eq!((bucket.depth(), bucket.tokens()), (440, 440), "what is left stays left");
    bucket.learn_depth(0, Duration::ZERO, Duration::ZERO);
    assert_eq!(bucket.depth(), 440, "full again at once says nothing");
    bucket.learn_depth(0, Duration::from_millis(1), Duration::ZERO);
    assert_eq!(bucket.depth(), 220, "at most half at a time");
    (0..100).for_each(|_| bucket.learn_depth(0, Duration::from_millis(1), Duration::ZERO));
    assert_eq!(bucket.depth(), 9, "and never less than nine tenths of a second");
}

#[test]
fn the_margin_is_kept_back_but_never_the_last_whole_token() {
    let margin = Duration::from_millis(500);
    let depth = |limit, burst| TokenBucket::new(limit, Duration::from_secs(burst), margin, at(0)).capacity;
    assert_eq!(depth(60, 60), 59 * UNITS + UNITS / 2);
    assert_eq!(depth(60, 1), UNITS, "half a request is no request");
    assert_eq!(depth(6_000, 1), 90 * UNITS, "at most a tenth of the burst");
    assert_eq!(depth(60, 0), UNITS);
}

#[test]
fn a_debt_is_bounded_by_what_a_hint_could_impose() {
    let mut bucket = bucket(60, 60);
    bucket.take(60);
    bucket.owe(u64::MAX);
    assert_eq!(bucket.tokens(), -300);
    assert_eq!(bucket.when_available(1), Some(at(301)));
    bucket.owe(1);
    assert_eq!(bucket.tokens(), -300);
}

#[test]
fn a_drained_bucket_fills_only_from_the_end_of_the_pause() {
    let mut bucket = bucket(60, 60);
    bucket.drain(Keep::Nothing, at(30));
    bucket.refill(at(29));
    assert_eq!(bucket.tokens(), 0);
    assert_eq!(bucket.when_available(1), Some(at(31)));
    bucket.refill(at(40));
    assert_eq!(bucket.tokens(), 10);
}

proptest! {
    /// The bound a token bucket promises: in any window, at most the depth and what flowed in.
    #[test]
    fn no_window_gives_more_than_depth_and_rate(
        limit in 1u64..100_000, burst in 1u64..60, steps in prop::collection::vec((0u64..3_000, 1u64..500), 1..200),
    ) {
        let mut bucket = bucket(limit, burst);
        let depth = bucket.capacity;
        let (mut now, mut granted) = (0u64, Vec::new());
        for (gap, amount) in steps {
            now += gap * 1_000_003;
            bucket.refill(Timestamp::from_nanos(now));
            if units(amount) <= depth && bucket.fits(amount) {
                bucket.take(amount);
                granted.push((now, amount));
            }
        }
        for (first, &(from, _)) in granted.iter().enumerate() {
            let mut sum = 0i128;
            for &(to, amount) in &granted[first..] {
                sum += units(amount);
                prop_assert!(sum <= depth + i128::from(limit) * i128::from(to - from));
            }
        }
    }

    #[test]
    fn when_available_is_the_first_moment(limit in 1u64..1_000_000, taken in 0u64..2_000_000, wanted in 1u64..2_000_000) {
        let mut bucket = bucket(limit, 60);
        bucket.owe(taken);
        let due = bucket.when_available(wanted).expect("limited").as_nanos();
        let mut then = bucket.clone();
        then.refill(Timestamp::from_nanos(due));
        prop_assert!(then.fits(wanted));
        if due > 0 {
            let mut before = bucket.clone();
            before.refill(Timestamp::from_nanos(due - 1));
            prop_assert!(!before.fits(wanted));
        }
    }
}

// A fleet's process without the store: the provider's header shows what is left for all of them.
#[test]
fn of_what_is_left_a_process_without_the_store_has_its_share() {
    let mut bucket = bucket(60, 60);
    bucket.begin_lease(at(0));
    bucket.end_lease(0.25, false, at(0));
    assert_eq!((bucket.level, bucket.capacity), (0, 15 * UNITS));
    let nothing = Moved { certainly: 0, possibly: 0, returned: 0, owed: 0, elapsed: Duration::ZERO };
    bucket.follow(40, &nothing, 0, Duration::ZERO, true);
    assert_eq!(bucket.level, 10 * UNITS, "a quarter of forty");
    bucket.follow(20, &nothing, 0, Duration::ZERO, true);
    assert_eq!(bucket.level, 10 * UNITS, "it has that much already");
    bucket.follow(4, &nothing, 0, Duration::ZERO, true);
    assert_eq!(bucket.level, 4 * UNITS, "more there is for nobody");
    bucket.follow(1_000, &nothing, 0, Duration::ZERO, true);
    assert_eq!((bucket.level, bucket.capacity), (15 * UNITS, 15 * UNITS), "a share is no deeper for it");
    bucket.refill(at(3_600));
    assert_eq!(bucket.capacity, 15 * UNITS, "nor for waiting");
}
