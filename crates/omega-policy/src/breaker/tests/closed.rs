//! CB-01 to CB-12, CB-44, CB-45: what opens a closed circuit, and what does not.

use super::*;

fn windowed(percent: u32, min_calls: u32) -> Rig {
    Rig::with(|config| {
        config.failure_threshold = 1_000;
        config.failure_rate = Some(FailureRate { percent, min_calls, window: seconds(60) });
    })
}

fn slow(percent: u32, min_calls: u32) -> Rig {
    Rig::with(|config| {
        config.slow_first_token =
            Some(SlowFirstToken { threshold: seconds(10), percent, min_calls, window: seconds(60) });
    })
}

// CB-01, taken over.
#[test]
fn cb_01_success_resets_the_consecutive_count() {
    let mut rig = Rig::new();
    rig.call(FAILURE, 4);
    assert_eq!(rig.stats().failure_count, 4);
    rig.call(Signal::Success, 1);
    assert_eq!(rig.stats().failure_count, 0);
    rig.call(FAILURE, 4);
    assert_eq!(rig.state(), BreakerState::Closed);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
}

// CB-02, taken over.
#[test]
fn cb_02_trips_at_exactly_the_fifth_consecutive_failure() {
    let mut rig = Rig::new();
    rig.call(FAILURE, 4);
    assert_eq!(rig.state(), BreakerState::Closed);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
    assert_eq!(rig.stats().failure_count, 5);
    assert!(rig.admit().is_err(), "there is no sixth");
}

// CB-03, taken over; in integers, so the boundary is exact.
#[test]
fn cb_03_the_share_trips_at_the_threshold_and_not_just_below() {
    for (good, bad, opens) in [(10, 10, true), (11, 9, false), (9, 11, true), (67, 33, false), (3, 3, false)]
    {
        let mut rig = windowed(50, 20);
        rig.call(Signal::Success, good);
        rig.call(FAILURE, bad);
        assert_eq!(rig.state() == BreakerState::Open, opens, "{bad} of {}", good + bad);
    }
    // A third, which no float holds: 33 % of 100 is 33 calls, not 32.
    for (bad, opens) in [(32, false), (33, true)] {
        let mut rig = windowed(33, 100);
        rig.call(Signal::Success, 100 - bad);
        rig.call(FAILURE, bad);
        assert_eq!(rig.state() == BreakerState::Open, opens);
    }
}

// CB-04, taken over: tower-resilience needed as many failures as there had been successes.
#[test]
fn cb_04_a_long_healthy_past_does_not_delay_the_trip() {
    let mut rig = windowed(50, 20);
    for _ in 0..1_000 {
        rig.call(Signal::Success, 10);
        rig.pass(1_000);
    }
    rig.pass(61_000);
    rig.call(FAILURE, 19);
    assert_eq!(rig.state(), BreakerState::Closed);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
}

// CB-05, taken over.
#[test]
fn cb_05_below_the_minimum_of_calls_nothing_trips() {
    let mut rig = windowed(1, 20);
    rig.call(FAILURE, 19);
    assert_eq!(rig.state(), BreakerState::Closed);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
}

// CB-06, taken over.
#[test]
fn cb_06_a_minimum_of_zero_trips_on_the_first_failure_and_not_on_nothing() {
    let mut rig = windowed(50, 0);
    rig.call(Signal::Success, 1);
    rig.pass(120_000);
    assert_eq!(rig.state(), BreakerState::Closed);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
}

// CB-07, taken over.
#[test]
fn cb_07_ratio_is_independent_of_arrival_rate() {
    for gap in [0, 1, 100, 1_000] {
        let mut rig = windowed(50, 20);
        for _ in 0..10 {
            rig.call(Signal::Success, 1);
            rig.pass(gap);
        }
        for _ in 0..9 {
            rig.call(FAILURE, 1);
            rig.pass(gap);
        }
        assert_eq!(rig.state(), BreakerState::Closed, "gap {gap}");
        rig.call(FAILURE, 1);
        assert_eq!(rig.state(), BreakerState::Open, "gap {gap}");
    }
}

// CB-08, taken over.
#[test]
fn cb_08_buckets_expire_in_order_and_no_gap_wedges_the_window() {
    let mut rig = windowed(50, 4);
    rig.call(FAILURE, 3);
    rig.pass(53_000);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open, "nine whole buckets later the first three still count");

    let mut rig = windowed(50, 4);
    rig.call(FAILURE, 3);
    rig.pass(60_000);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Closed, "after the whole window they do not");

    // More than u32::MAX buckets of six seconds.
    let mut rig = windowed(50, 4);
    rig.call(FAILURE, 3);
    rig.now = Timestamp::from_secs(10_000_000_000);
    rig.call(FAILURE, 3);
    assert_eq!(rig.state(), BreakerState::Closed);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
}

// CB-09, adapted: the reason is in the statistics (`opened_by`), the number in the event.
#[test]
fn cb_09_either_dimension_trips_and_the_consecutive_count_wins_ties() {
    let mut rig = Rig::with(|config| {
        config.failure_rate = Some(FailureRate { percent: 100, min_calls: 5, window: seconds(60) });
    });
    rig.call(FAILURE, 5);
    assert_eq!(rig.stats().opened_by, Some(TripReason::ConsecutiveFailures));

    let mut rig = windowed(50, 4);
    rig.call(Signal::Success, 2);
    rig.call(FAILURE, 2);
    assert_eq!(rig.stats().opened_by, Some(TripReason::FailureRate));
    assert!(matches!(rig.events()[..], [Event::Opened { failures: 2, .. }]));
}

// CB-10, adapted: a 429 weighs in the failure-rate window only where the operator says so, because a plain 429 is
// answered by the limiter. It is never a consecutive failure, and it never resets the count either.
#[test]
fn cb_10_a_429_is_no_consecutive_failure_and_weighs_in_the_share_only_if_asked() {
    let mut rig = Rig::new();
    rig.call(FAILURE, 4);
    rig.call(Signal::Throttled, 100);
    assert_eq!((rig.state(), rig.stats().failure_count), (BreakerState::Closed, 4));
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);

    let rate = Some(FailureRate { percent: 50, min_calls: 20, window: seconds(60) });
    for (weighs, state) in [(false, BreakerState::Closed), (true, BreakerState::Open)] {
        let mut rig = Rig::with(|config| {
            config.failure_rate = rate.clone();
            config.throttled_in_window = weighs;
        });
        rig.call(Signal::Throttled, 20);
        assert_eq!(rig.state(), state);
        assert_eq!(rig.stats().last_failure, None);
    }
}

// CB-11, adapted: slow is the first token, never the whole answer.
#[test]
fn cb_11_a_first_token_exactly_at_the_threshold_is_slow_in_success_and_failure() {
    for (waited, opens) in [(seconds(10), true), (Duration::from_millis(9_999), false)] {
        let mut rig = slow(100, 4);
        for _ in 0..4 {
            let mut permit = rig.admitted();
            rig.first_token(&mut permit, waited);
            rig.settle_after(permit, Signal::Success, seconds(3_600));
        }
        assert_eq!(rig.state() == BreakerState::Open, opens, "{waited:?}");
    }

    // A call that failed after the threshold without a first token was slow too; one that failed at once says nothing.
    let mut rig = slow(100, 3);
    for waited in [10, 11, 12] {
        let permit = rig.admitted();
        rig.settle_after(permit, FAILURE, seconds(waited));
    }
    assert_eq!(rig.stats().opened_by, Some(TripReason::SlowFirstToken));
    let mut rig = slow(100, 3);
    rig.call(FAILURE, 4);
    assert_eq!(rig.state(), BreakerState::Closed);

    // A whole answer without a stream has no first token to be slow.
    let mut rig = slow(1, 1);
    let permit = rig.admitted();
    rig.settle_after(permit, Signal::Success, seconds(500));
    assert_eq!(rig.state(), BreakerState::Closed);
}

// CB-12, adapted: numbers out of range are rejected where configuration is read; here they cannot do harm.
#[test]
fn cb_12_a_window_of_nothing_and_thresholds_at_the_ends_behave() {
    let mut rig = Rig::with(|config| {
        config.failure_threshold = 1_000;
        config.failure_rate = Some(FailureRate { percent: 100, min_calls: 1, window: Duration::ZERO });
    });
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);

    let mut rig = windowed(100, 2);
    rig.call(Signal::Success, 1);
    rig.call(FAILURE, 100);
    assert_eq!(
        rig.state(),
        BreakerState::Closed,
        "one success in a hundred and one is less than 100 % failures"
    );

    let mut rig = Rig::with(|config| config.failure_threshold = 0);
    rig.call(Signal::Success, 3);
    assert_eq!(rig.state(), BreakerState::Closed, "a threshold of zero means one");
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
}

// CB-44, taken over: gobreaker changes the generation at every window rollover and then never trips.
#[test]
fn cb_44_long_calls_that_span_window_rollovers_still_count() {
    let mut rig = windowed(50, 5);
    rig.breaker.config.failure_threshold = 5;
    for _ in 0..5 {
        let permit = rig.admitted();
        rig.pass(150_000);
        rig.settle(permit, FAILURE);
    }
    assert_eq!(rig.state(), BreakerState::Open);
    assert_eq!(rig.stats().late_results, 0);
}

// CB-45, taken over.
#[test]
fn cb_45_cancellations_never_open_the_circuit_and_never_reset_the_count() {
    let mut rig = Rig::new();
    rig.call(FAILURE, 4);
    for _ in 0..1_000 {
        let permit = rig.admitted();
        rig.breaker.release(permit);
    }
    assert_eq!((rig.state(), rig.stats().failure_count), (BreakerState::Closed, 4));
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
}

#[test]
fn results_that_say_nothing_neither_count_nor_reset() {
    let mut rig = Rig::new();
    rig.call(FAILURE, 4);
    rig.call(Signal::Neutral, 50);
    assert_eq!(rig.stats().failure_count, 4);
}

#[test]
fn a_first_token_does_not_reset_the_count_of_a_closed_circuit() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        let mut permit = rig.admitted();
        rig.first_token(&mut permit, Duration::ZERO);
        rig.settle(permit, FAILURE);
    }
    assert_eq!(rig.state(), BreakerState::Open, "every stream was cut after its first token");
}

#[test]
fn a_first_token_is_timed_once_and_its_call_is_not_silent() {
    let mut rig = slow(100, 2);
    let mut permit = rig.admitted();
    rig.first_token(&mut permit, seconds(10));
    rig.first_token(&mut permit, seconds(11));
    rig.settle_after(permit, FAILURE, seconds(60));
    assert_eq!(rig.state(), BreakerState::Closed, "one call is one sample");
    let mut permit = rig.admitted();
    rig.first_token(&mut permit, seconds(10));
    assert_eq!(rig.state(), BreakerState::Open);
}
