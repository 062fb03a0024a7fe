//! CB-20 to CB-33: testing recovery.

use super::*;

// CB-20, adapted: "concurrent" is "before any has ended"; that two threads cannot both be admitted is the lock's doing.
#[test]
fn cb_20_of_ten_callers_three_are_admitted() {
    let mut rig = Rig::elapsed();
    let admitted: Vec<_> = (0..10).filter_map(|_| rig.admit().ok()).collect();
    assert_eq!(admitted.len(), 3);
    assert_eq!(rig.stats().probes_in_flight, 3);
}

// CB-21, taken over.
#[test]
fn cb_21_the_call_that_finds_the_period_elapsed_is_itself_a_probe() {
    let mut rig = Rig::with(|config| config.half_open_max_calls = 1);
    rig.call(FAILURE, 5);
    rig.pass(60_000);
    let permit = rig.admitted();
    assert_eq!(permit.role, Role::Probe);
    assert!(rig.admit().is_err());
}

// CB-22, taken over.
#[test]
fn cb_22_one_failure_reopens_two_successes_close_and_one_does_not() {
    let mut rig = Rig::elapsed();
    rig.call(Signal::Success, 1);
    assert_eq!((rig.state(), rig.stats().success_count), (BreakerState::HalfOpen, 1));
    rig.call(FAILURE, 1);
    assert_eq!(rig.state(), BreakerState::Open);
    assert_eq!(rig.stats().opened_by, Some(TripReason::FailedProbe));
    rig.pass(60_000);
    rig.call(Signal::Success, 1);
    assert_eq!(rig.state(), BreakerState::HalfOpen, "the success before the failure is forgotten");
    rig.call(Signal::Success, 1);
    assert_eq!((rig.state(), rig.stats().failure_count), (BreakerState::Closed, 0));
}

// CB-23, taken over.
#[test]
fn cb_23_late_results_of_any_earlier_state_change_nothing_but_a_counter() {
    for signal in [Signal::Success, FAILURE, Signal::Neutral, Signal::Throttled] {
        // From closed, into half-open.
        let mut rig = Rig::new();
        let late = rig.admitted();
        rig.call(FAILURE, 5);
        rig.pass(60_000);
        let _probe = rig.admitted();
        rig.settle(late, signal);
        assert_eq!(rig.state(), BreakerState::HalfOpen);
        assert_eq!((rig.stats().success_count, rig.stats().probes_in_flight), (0, 1));
        assert_eq!(rig.stats().late_results, 1);

        // From one half-open cycle into the next.
        let mut rig = Rig::elapsed();
        let late = rig.admitted();
        rig.call(FAILURE, 1);
        rig.pass(60_000);
        let _probe = rig.admitted();
        rig.settle(late, signal);
        assert_eq!((rig.stats().success_count, rig.stats().probes_in_flight), (0, 1));

        // Across a reset, from closed and from half-open.
        for mut rig in [Rig::new(), Rig::elapsed()] {
            let late = rig.admitted();
            rig.breaker.reset(rig.now, &mut rig.events);
            rig.call(FAILURE, 4);
            rig.settle(late, signal);
            assert_eq!((rig.state(), rig.stats().failure_count), (BreakerState::Closed, 4));
        }
    }
}

// CB-24, taken over.
#[test]
fn cb_24_a_late_ignored_or_cancelled_call_adds_no_slot() {
    let mut rig = Rig::new();
    let (ignored, cancelled) = (rig.admitted(), rig.admitted());
    rig.call(FAILURE, 5);
    rig.pass(60_000);
    let _probes: Vec<_> = (0..3).map(|_| rig.admitted()).collect();
    rig.settle(ignored, Signal::Neutral);
    rig.breaker.release(cancelled);
    assert_eq!(rig.stats().probes_in_flight, 3);
    assert!(rig.admit().is_err());
}

// CB-25, taken over.
#[test]
fn cb_25_a_cancelled_probe_frees_its_slot_and_records_nothing() {
    let mut rig = Rig::elapsed();
    for _ in 0..1_000 {
        let permit = rig.admitted();
        rig.breaker.release(permit);
    }
    assert_eq!(rig.state(), BreakerState::HalfOpen);
    assert_eq!((rig.stats().probes_in_flight, rig.stats().success_count), (0, 0));
    rig.call(Signal::Success, 2);
    assert_eq!(rig.state(), BreakerState::Closed);
}

// CB-26, adapted: a panic unwinds through the guard that holds the permit, which cancels it: a bug of the caller says
// nothing about the provider, and the slot is freed.
#[test]
fn cb_26_a_probe_that_panics_frees_its_slot() {
    let mut rig = Rig::elapsed();
    let permit = rig.admitted();
    rig.breaker.release(permit);
    assert_eq!((rig.state(), rig.stats().probes_in_flight), (BreakerState::HalfOpen, 0));
}

// CB-27, taken over.
#[test]
fn cb_27_an_ignored_error_frees_the_slot_and_recovery_is_still_possible() {
    let mut rig = Rig::elapsed();
    rig.call(Signal::Neutral, 10);
    assert_eq!((rig.state(), rig.stats().probes_in_flight), (BreakerState::HalfOpen, 0));
    rig.call(Signal::Success, 2);
    assert_eq!(rig.state(), BreakerState::Closed);
}

// CB-28, taken over.
#[test]
fn cb_28_a_429_in_a_probe_is_neither_recovery_nor_failure() {
    let mut rig = Rig::elapsed();
    rig.call(Signal::Success, 1);
    rig.call(Signal::Throttled, 10);
    assert_eq!((rig.state(), rig.stats().success_count), (BreakerState::HalfOpen, 1));
    assert_eq!(rig.stats().probes_in_flight, 0);
}

// CB-29, taken over; noticed by the next caller, no timer needed.
#[test]
fn cb_29_probes_that_hang_past_the_half_open_deadline_count_as_one_failure() {
    let mut rig = Rig::elapsed();
    let hung: Vec<_> = (0..3).map(|_| rig.admitted()).collect();
    rig.events();
    rig.pass(59_999);
    assert_eq!(rig.admit().expect_err("full"), rig.now + Duration::from_millis(1));
    rig.pass(1);
    assert!(rig.admit().is_err());
    assert_eq!(rig.state(), BreakerState::Open);
    assert_eq!(rig.stats().opened_by, Some(TripReason::ProbesTimedOut));
    assert_eq!(rig.transitions(), ["opened"]);
    rig.pass(60_000);
    rig.call(Signal::Success, 2);
    assert_eq!(rig.state(), BreakerState::Closed);
    hung.into_iter().for_each(|permit| rig.settle(permit, FAILURE));
    assert_eq!(rig.stats().failure_count, 0);
}

#[test]
fn the_half_open_deadline_does_not_run_while_no_probe_is_out() {
    let mut rig = Rig::elapsed();
    rig.call(Signal::Throttled, 1);
    rig.pass(3_600_000);
    rig.call(Signal::Success, 2);
    assert_eq!(rig.state(), BreakerState::Closed);
}

// CB-30, true by construction: a slot is taken in the same step in which every other layer has already agreed. Shown
// by `cb_30_...` in tests/pipeline.rs; here, that asking takes nothing.
#[test]
fn cb_30_asking_takes_no_slot() {
    let mut rig = Rig::elapsed();
    for _ in 0..100 {
        assert_eq!(rig.breaker.gate(rig.now, &mut rig.events), Gate::Pass);
    }
    assert_eq!((rig.state(), rig.stats().probes_in_flight), (BreakerState::Open, 0));
}

// CB-31, taken over.
#[test]
fn cb_31_rejected_calls_in_half_open_change_no_count() {
    let mut rig = Rig::elapsed();
    rig.call(Signal::Success, 1);
    let _probes: Vec<_> = (0..3).map(|_| rig.admitted()).collect();
    for _ in 0..100 {
        assert!(rig.admit().is_err());
    }
    assert_eq!((rig.stats().success_count, rig.stats().probes_in_flight), (1, 3));
}

// CB-32, adapted: a slow but healthy probe closes; slowness is judged in the closed state's window alone.
#[test]
fn cb_32_a_slow_healthy_probe_closes() {
    let mut rig = Rig::with(|config| {
        config.slow_first_token =
            Some(SlowFirstToken { threshold: seconds(1), percent: 1, min_calls: 1, window: seconds(60) });
    });
    rig.call(FAILURE, 5);
    rig.pass(60_000);
    for _ in 0..2 {
        let mut permit = rig.admitted();
        rig.pass(50_000);
        rig.first_token(&mut permit, seconds(50));
        rig.settle_after(permit, Signal::Success, seconds(50));
    }
    assert_eq!(rig.state(), BreakerState::Closed);
}

// CB-33, adapted: who waits and is woken is the pipeline's; `cb_33_...` in tests/pipeline.rs. Here: the gate opens the
// moment a slot is freed.
#[test]
fn cb_33_the_gate_opens_when_a_slot_is_freed() {
    let mut rig = Rig::elapsed();
    let mut probes: Vec<_> = (0..3).map(|_| rig.admitted()).collect();
    let deadline = rig.now + seconds(60);
    assert_eq!(rig.breaker.gate(rig.now, &mut rig.events), Gate::Wait(deadline));
    let permit = probes.pop().expect("three");
    rig.breaker.release(permit);
    assert_eq!(rig.breaker.gate(rig.now, &mut rig.events), Gate::Pass);
}

#[test]
fn a_probe_is_settled_at_its_first_token_and_frees_its_slot_once() {
    let mut rig = Rig::elapsed();
    let mut permit = rig.admitted();
    rig.first_token(&mut permit, Duration::ZERO);
    rig.first_token(&mut permit, Duration::ZERO);
    assert_eq!((rig.stats().success_count, rig.stats().probes_in_flight), (1, 0));
    rig.settle(permit, Signal::Success);
    assert_eq!((rig.stats().success_count, rig.stats().probes_in_flight), (1, 0), "it is not counted twice");
    rig.call(Signal::Success, 1);
    assert_eq!(rig.state(), BreakerState::Closed);
}

#[test]
fn streams_that_break_after_closing_the_circuit_count_as_failures_of_the_closed_circuit() {
    let mut rig = Rig::elapsed();
    let mut probes: Vec<_> = (0..2).map(|_| rig.admitted()).collect();
    for permit in &mut probes {
        rig.first_token(permit, Duration::ZERO);
    }
    assert_eq!(rig.state(), BreakerState::Closed);
    for permit in probes {
        rig.settle(permit, FAILURE);
    }
    assert_eq!(rig.stats().failure_count, 2, "both spoke for recovery, and both were wrong");
    for _ in 0..3 {
        let mut permit = rig.admitted();
        rig.first_token(&mut permit, Duration::ZERO);
        rig.settle(permit, FAILURE);
    }
    assert_eq!(rig.state(), BreakerState::Open, "a provider that cuts every stream opens its circuit");
    assert_eq!(rig.stats().late_results, 0);
}

#[test]
fn a_settled_probe_that_breaks_while_the_circuit_is_still_testing_reopens_it() {
    let mut rig = Rig::elapsed();
    let mut permit = rig.admitted();
    rig.first_token(&mut permit, Duration::ZERO);
    rig.settle(permit, FAILURE);
    assert_eq!(rig.state(), BreakerState::Open);
}

#[test]
fn a_settled_probe_of_an_earlier_cycle_is_late_like_any_other() {
    let mut rig = Rig::elapsed();
    let mut old = rig.admitted();
    rig.first_token(&mut old, Duration::ZERO);
    rig.call(FAILURE, 1);
    rig.pass(60_000);
    rig.call(Signal::Success, 2);
    assert_eq!(rig.state(), BreakerState::Closed);
    rig.settle(old, FAILURE);
    assert_eq!((rig.stats().failure_count, rig.stats().late_results), (0, 1));
}

#[test]
fn a_settled_probe_does_not_outlive_a_reset() {
    let mut rig = Rig::elapsed();
    let mut probes: Vec<_> = (0..2).map(|_| rig.admitted()).collect();
    rig.first_token(&mut probes[0], Duration::ZERO);
    rig.breaker.reset(rig.now, &mut rig.events);
    probes.into_iter().for_each(|permit| rig.settle(permit, FAILURE));
    assert_eq!((rig.stats().failure_count, rig.stats().late_results), (0, 2));
}
