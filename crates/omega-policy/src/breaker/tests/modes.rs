//! CB-34 to CB-43 and CB-46: transitions, modes, events, configuration.

use super::*;

// CB-34, taken over.
#[test]
fn cb_34_closing_clears_the_window() {
    let mut rig = Rig::with(|config| {
        config.failure_rate = Some(FailureRate { percent: 50, min_calls: 5, window: seconds(600) });
    });
    rig.call(FAILURE, 5);
    rig.pass(60_000);
    rig.call(Signal::Success, 2);
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Closed);

    rig.call(FAILURE, 3);
    rig.breaker.reset(rig.now, &mut rig.events);
    rig.call(FAILURE, 4);
    assert_eq!(rig.state(), BreakerState::Closed, "a reset clears it too");
}

// CB-35, true by construction: only `acquire` builds the half-open state, from an open one.
#[test]
fn cb_35_a_closed_circuit_never_becomes_half_open() {
    let mut rig = Rig::new();
    rig.pass(3_600_000);
    rig.call(Signal::Success, 10);
    rig.call(FAILURE, 4);
    rig.pass(3_600_000);
    rig.call(Signal::Neutral, 10);
    assert_eq!(rig.state(), BreakerState::Closed);
    assert!(rig.transitions().is_empty());
}

// CB-36, taken over.
#[test]
fn cb_36_forced_open_ignores_time_disabled_records_nothing_and_metrics_only_reports_once() {
    let mut forced = Rig::with(|config| config.mode = BreakerMode::ForcedOpen);
    for _ in 0..10 {
        assert!(forced.admit().expect_err("forced") > forced.now);
        forced.pass(3_600_000);
    }
    assert_eq!(forced.state(), BreakerState::Open);
    forced.breaker.set_mode(BreakerMode::Auto);
    assert!(forced.admit().is_ok());

    let mut disabled = Rig::with(|config| config.enabled = false);
    disabled.call(FAILURE, 1_000);
    assert_eq!(disabled.stats(), BreakerStats::default());
    assert!(disabled.transitions().is_empty());

    let mut metrics = Rig::with(|config| config.mode = BreakerMode::MetricsOnly);
    metrics.call(FAILURE, 1_000);
    assert_eq!(metrics.transitions(), ["opened"]);
    assert_eq!(metrics.state(), BreakerState::Open, "it reports what it would do");
    assert_eq!(metrics.stats().refused, 0);
    metrics.pass(60_000);
    metrics.call(Signal::Success, 1_000);
    assert_eq!(metrics.transitions(), ["half-opened", "closed"]);
}

#[test]
fn metrics_only_lets_more_than_the_probes_through_and_judges_by_the_probes() {
    let mut rig = Rig::with(|config| config.mode = BreakerMode::MetricsOnly);
    rig.call(FAILURE, 5);
    rig.pass(60_000);
    let mut permits: Vec<_> = (0..10).map(|_| rig.admitted()).collect();
    assert_eq!(rig.stats().probes_in_flight, 3);
    rig.settle(permits.pop().expect("ten"), FAILURE);
    assert_eq!(rig.state(), BreakerState::HalfOpen, "the tenth call was no probe");
}

// CB-37, adapted: one caller at a time by construction (`&mut`); in order, none for a self-transition.
#[test]
fn cb_37_every_transition_is_one_event_in_order() {
    let mut rig = Rig::opened();
    rig.pass(60_000);
    rig.call(FAILURE, 1);
    rig.pass(60_000);
    rig.call(Signal::Success, 2);
    rig.breaker.reset(rig.now, &mut rig.events);
    rig.call(FAILURE, 5);
    rig.breaker.reset(rig.now, &mut rig.events);
    let expected = ["opened", "half-opened", "opened", "half-opened", "closed", "opened", "closed"];
    assert_eq!(rig.transitions(), expected, "the first reset changed no state");
    assert_eq!(rig.stats().transitions, expected.len() as u64);
}

// CB-38, true by construction: events are values read afterwards; there is no listener to panic or to call back.
#[test]
fn cb_38_events_nobody_reads_delay_nothing_and_are_bounded() {
    let mut rig = Rig::with(|config| {
        config.failure_threshold = 1;
        config.timeout = Duration::ZERO;
    });
    rig.call(FAILURE, 5_000);
    assert_eq!(rig.stats().transitions, 9_999);
    let events = rig.events();
    assert_eq!(events.len(), 1_024);
    assert!(matches!(events.last(), Some(Event::Opened { .. })), "the latest are kept");
}

// CB-39, true by construction: nothing is scheduled. Shown by a reset in the open state that nothing undoes later.
#[test]
fn cb_39_no_scheduled_transition_survives_a_reset() {
    let mut rig = Rig::opened();
    rig.breaker.reset(rig.now, &mut rig.events);
    rig.events();
    for _ in 0..100 {
        rig.pass(10_000);
        rig.call(Signal::Success, 1);
    }
    assert!(rig.transitions().is_empty());
}

// CB-40, adapted: parallel callers share the breaker through one lock, so exactness is that of a sequence.
#[test]
fn cb_40_rapid_cycling_and_many_successes_keep_exact_counts() {
    let mut rig = Rig::new();
    for _ in 0..1_000 {
        rig.call(FAILURE, 5);
        rig.pass(60_000);
        rig.call(Signal::Success, 2);
    }
    assert_eq!(rig.stats().transitions, 3_000);
    let permits: Vec<_> = (0..10_000).map(|_| rig.admitted()).collect();
    permits.into_iter().for_each(|permit| rig.settle(permit, Signal::Success));
    assert_eq!((rig.stats().failure_count, rig.stats().late_results), (0, 0));
    rig.call(FAILURE, 4);
    assert_eq!(rig.stats().failure_count, 4);
}

// CB-41, adapted: rejected where configuration is read; here they saturate.
#[test]
fn cb_41_zero_and_absurd_configurations_do_no_harm() {
    let mut rig = Rig::with(|config| {
        config.failure_threshold = 0;
        config.success_threshold = 0;
        config.half_open_max_calls = 0;
        config.timeout = Duration::ZERO;
        config.half_open_timeout = Duration::ZERO;
        config.open_growth = f64::NAN;
        config.max_open = Duration::ZERO;
    });
    rig.call(FAILURE, 1);
    rig.call(Signal::Success, 1);
    assert_eq!(rig.state(), BreakerState::Closed);

    let mut rig = Rig::with(|config| {
        config.failure_threshold = u32::MAX;
        config.timeout = Duration::MAX;
        config.half_open_timeout = Duration::MAX;
        config.ramp = Duration::MAX;
        config.failure_rate =
            Some(FailureRate { percent: u32::MAX, min_calls: u32::MAX, window: Duration::MAX });
    });
    rig.call(FAILURE, 100);
    assert_eq!(rig.state(), BreakerState::Closed);

    let mut rig = Rig::with(|config| config.timeout = Duration::MAX);
    rig.call(FAILURE, 5);
    assert_eq!(rig.admit().expect_err("open for ever"), Timestamp::MAX);
}

// CB-42, true by construction: this crate has no tasks to terminate; `cb_42_...` in tests/dependencies.rs shows that
// it depends on nothing that could run one.

// CB-43, adapted: the limiter's waiters are the pipeline's; `cb_43_...` in tests/pipeline.rs. Here: an open circuit
// tells whoever asks, however they came.
#[test]
fn cb_43_an_open_circuit_is_shut_for_those_who_wait_elsewhere_too() {
    let mut rig = Rig::opened();
    let until = rig.now + seconds(60);
    assert_eq!(rig.breaker.gate(rig.now, &mut rig.events), Gate::Shut(until));
    assert_eq!(rig.breaker.look(rig.now), Gate::Shut(until));
}

// CB-46, adapted: no wall clock enters this crate. Shown with the clock that does: jumps of an hour back change
// nothing, and forward they only end what was due.
#[test]
fn cb_46_clock_jumps_back_do_nothing() {
    let mut rig = Rig::opened();
    let (now, until) = (rig.now, rig.stats().retry_at);
    rig.now = Timestamp::from_secs(1);
    assert!(rig.admit().is_err());
    assert_eq!(rig.stats().retry_at, until);
    rig.now = now + seconds(60);
    rig.call(Signal::Success, 2);
    rig.now = Timestamp::from_secs(1);
    rig.call(FAILURE, 4);
    assert_eq!(rig.state(), BreakerState::Closed);
}

#[test]
fn after_recovery_a_ramp_admits_a_growing_share() {
    let mut rig = Rig::with(|config| config.ramp = seconds(100));
    rig.call(FAILURE, 5);
    rig.pass(60_000);
    rig.call(Signal::Success, 2);
    let mut shares = Vec::new();
    for _ in 0..10 {
        let admitted = (0..100).filter(|_| rig.admit().is_ok()).count();
        shares.push(admitted);
        rig.pass(10_000);
    }
    assert_eq!(shares, [10, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
    assert_eq!((0..100).filter(|_| rig.admit().is_ok()).count(), 100);
}

#[test]
fn a_refusal_of_the_ramp_names_a_moment_in_the_future() {
    let mut rig = Rig::with(|config| config.ramp = Duration::from_nanos(5));
    rig.call(FAILURE, 5);
    rig.pass(60_000);
    rig.call(Signal::Success, 2);
    let retry_at = (0..10).find_map(|_| rig.admit().err()).expect("most are refused at first");
    assert!(retry_at > rig.now);
}
