//! CB-13 to CB-19: the open circuit.

use super::*;

fn growing() -> Rig {
    Rig::with(|config| {
        config.failure_threshold = 1;
        config.timeout = seconds(10);
        config.open_growth = 2.0;
        config.max_open = seconds(60);
    })
}

/// How long the open period is that starts now.
fn open_period(rig: &Rig) -> u64 {
    let until = rig.stats().retry_at.expect("open");
    until.saturating_since(rig.now).as_secs()
}

/// Probes once after the open period, and fails.
fn fail_probe(rig: &mut Rig) {
    rig.now = rig.stats().retry_at.expect("open");
    rig.call(FAILURE, 1);
}

// CB-13, taken over; the boundary belongs to the probe (`>=`, as in Polly and linkerd).
#[test]
fn cb_13_rejects_until_the_timeout_and_probes_exactly_at_it() {
    let mut rig = Rig::opened();
    let opened = rig.now;
    rig.now = opened + Duration::from_nanos(59_999_999_999);
    assert!(rig.admit().is_err());
    assert_eq!(rig.state(), BreakerState::Open);
    rig.now = opened + seconds(60);
    assert!(rig.admit().is_ok());
    assert_eq!(rig.state(), BreakerState::HalfOpen);
}

// CB-14, adapted: the rejection carries a moment, so the remaining time cannot be negative and shrinks by itself.
#[test]
fn cb_14_a_rejection_says_when_the_circuit_will_be_tested() {
    let mut rig = Rig::opened();
    let until = rig.now + seconds(60);
    for _ in 0..6 {
        assert_eq!(rig.admit().expect_err("open"), until);
        assert!(until > rig.now);
        rig.pass(9_999);
    }
    assert_eq!(rig.stats().refused, 6);
}

// CB-15, adapted: there is no inner service here; a rejection is a value without a permit, and only a permit lets a
// call be sent. `cb_15_...` in tests/pipeline.rs shows that it takes no quota either.
#[test]
fn cb_15_a_rejection_hands_out_no_permit() {
    let mut rig = Rig::opened();
    assert!(rig.admit().is_err());
    assert_eq!(rig.stats().probes_in_flight, 0);
}

// CB-16, taken over.
#[test]
fn cb_16_a_late_failure_neither_extends_the_open_period_nor_reopens() {
    let mut rig = Rig::new();
    let late: Vec<_> = (0..3).map(|_| rig.admitted()).collect();
    rig.call(FAILURE, 5);
    let until = rig.stats().retry_at;
    assert_eq!(rig.transitions(), ["opened"]);
    rig.pass(30_000);
    for permit in late {
        rig.settle(permit, Signal::Failure { hint: Some(seconds(200)) });
    }
    assert_eq!(rig.stats().retry_at, until);
    assert_eq!(rig.stats().late_results, 3);
    assert!(rig.transitions().is_empty());
}

// CB-17, adapted: growth is forgiven one step per healthy minute, as Envoy does, and not all at the first success.
#[test]
fn cb_17_open_periods_grow_to_the_maximum_are_forgiven_and_never_overflow() {
    let mut rig = growing();
    rig.call(FAILURE, 1);
    let mut periods = vec![open_period(&rig)];
    for _ in 0..4 {
        fail_probe(&mut rig);
        periods.push(open_period(&rig));
    }
    assert_eq!(periods, [10, 20, 40, 60, 60]);

    // Recovered, and healthy for two minutes: five steps become three, and this opening is the fourth.
    rig.now = rig.stats().retry_at.expect("open");
    rig.call(Signal::Success, 2);
    rig.pass(120_000);
    rig.call(FAILURE, 1);
    assert_eq!(open_period(&rig), 60);
    // Healthy for an hour: all is forgiven.
    rig.now = rig.stats().retry_at.expect("open");
    rig.call(Signal::Success, 2);
    rig.pass(3_600_000);
    rig.call(FAILURE, 1);
    assert_eq!(open_period(&rig), 10);

    let mut rig = Rig::with(|config| {
        config.failure_threshold = 1;
        config.open_growth = 10.0;
        config.max_open = Duration::MAX;
    });
    rig.call(FAILURE, 1);
    for _ in 0..40 {
        fail_probe(&mut rig);
    }
    assert_eq!(rig.stats().retry_at, Some(Timestamp::MAX));
}

#[test]
fn without_growth_every_open_period_is_the_configured_one() {
    let mut rig = Rig::opened();
    for _ in 0..5 {
        assert_eq!(open_period(&rig), 60);
        fail_probe(&mut rig);
    }
}

// CB-18, taken over; a hint is a plain value here, so there is no function that could fail.
#[test]
fn cb_18_the_failure_that_opens_may_ask_for_a_longer_period_up_to_300_s() {
    for (hint, period) in [(5, 60), (61, 61), (200, 200), (300, 300), (999_999_999, 300)] {
        let mut rig = Rig::new();
        rig.call(FAILURE, 4);
        rig.call(Signal::Failure { hint: Some(seconds(hint)) }, 1);
        assert_eq!(open_period(&rig), period);
    }
}

// CB-19, true by construction: a rejection is two words on the stack. Shown by rejecting ten thousand times.
#[test]
fn cb_19_rejections_accumulate_nothing() {
    let mut rig = Rig::opened();
    rig.events();
    for _ in 0..10_000 {
        assert!(rig.admit().is_err());
    }
    assert!(rig.events().is_empty());
    assert_eq!(rig.stats().refused, 10_000);
    assert_eq!(rig.stats().transitions, 1);
}
