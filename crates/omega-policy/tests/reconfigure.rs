//! Another configuration while everything runs: what is spent stays spent, who waits keeps its place, what is open stays
//! open; and loading the same thing again changes nothing.

use std::time::Duration;

use omega_policy::{
    Admission, BreakerConfig, BreakerScope, BreakerState, BudgetConfig, Call, Chance, Demand, Failure,
    FailureKind, FailureRate, LimiterConfig, ModelId, ModelLimits, Outcome, Permit, Pipeline, PipelineConfig,
    Rejection, RetryConfig, Stats, Timestamp, TokenLimits, Usage,
};

const MODEL: ModelId = ModelId(1);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

/// 60 requests a minute, all at once if need be, and nothing else.
fn config() -> PipelineConfig {
    PipelineConfig {
        limiter: LimiterConfig {
            requests_per_minute: Some(60),
            tokens: TokenLimits::Total(None),
            max_concurrent: None,
            burst: Duration::from_secs(60),
            depth_margin: Duration::ZERO,
            ..LimiterConfig::default()
        },
        ..PipelineConfig::default()
    }
}

fn with(change: impl FnOnce(&mut PipelineConfig)) -> PipelineConfig {
    let mut changed = config();
    change(&mut changed);
    changed
}

fn call(now: Timestamp) -> Call {
    let demand = Demand { input_tokens: 10, max_output_tokens: Some(10) };
    Call::new(MODEL, demand, now + Duration::from_secs(600), now)
}

/// A call that will not wait.
fn at_once(now: Timestamp) -> Call {
    Call { admit_by: now, ..call(now) }
}

fn granted(pipeline: &mut Pipeline, now: Timestamp) -> Option<Permit> {
    match pipeline.admit(&at_once(now), now) {
        Admission::Granted(permit) => Some(permit),
        _ => None,
    }
}

fn succeed(pipeline: &mut Pipeline, permit: Permit, now: Timestamp) {
    let outcome = Outcome::Success { usage: Some(Usage::default()) };
    pipeline.complete(&mut call(now), permit, &outcome, now, Chance::ZERO);
}

fn fail(pipeline: &mut Pipeline, permit: Permit, now: Timestamp) {
    let outcome = Outcome::Failure(Failure::new(FailureKind::Server));
    pipeline.complete(&mut call(now), permit, &outcome, now, Chance::ZERO);
}

/// How many go at this moment.
fn burst(pipeline: &mut Pipeline, now: Timestamp) -> usize {
    let mut all = 0;
    while let Some(permit) = granted(pipeline, now) {
        succeed(pipeline, permit, now);
        all += 1;
        assert!(all < 10_000, "nothing holds them back");
    }
    all
}

fn state(stats: &Stats) -> BreakerState {
    stats.breaker.state
}

#[test]
fn the_same_configuration_changes_nothing() {
    let drive = |reloads: bool| {
        let mut pipeline = Pipeline::new(config(), at(0));
        let mut said = Vec::new();
        for step in 0..400 {
            let now = at(step * 137);
            if reloads {
                pipeline.reconfigure(config(), now);
                pipeline.limit_models([], now);
            }
            if let Some(permit) = granted(&mut pipeline, now) {
                match step % 7 {
                    0 | 1 => fail(&mut pipeline, permit, now),
                    _ => succeed(&mut pipeline, permit, now),
                }
                said.push(step);
            }
            said.push(pipeline.next_timeout().map_or(0, Timestamp::as_nanos));
        }
        (said, pipeline.stats(at(60_000)))
    };
    assert_eq!(drive(false), drive(true));
}

#[test]
fn loading_again_and_again_is_no_gift() {
    let mut pipeline = Pipeline::new(config(), at(0));
    assert_eq!(burst(&mut pipeline, at(0)), 60);
    for round in 0..20 {
        let requests = 60 + round % 3;
        pipeline.reconfigure(with(|c| c.limiter.requests_per_minute = Some(requests)), at(0));
        assert_eq!(burst(&mut pipeline, at(0)), 0, "round {round}");
    }
    for unlimited in [Some(60), None, Some(60)] {
        pipeline.reconfigure(with(|c| c.limiter.requests_per_minute = unlimited), at(0));
    }
    assert_eq!(
        burst(&mut pipeline, at(0)),
        0,
        "what was sent in the last minute counts against a limit that is new"
    );
    for enabled in [false, true] {
        pipeline.reconfigure(with(|c| c.limiter.enabled = enabled), at(0));
    }
    assert_eq!(burst(&mut pipeline, at(0)), 0);
}

#[test]
fn a_larger_limit_fills_faster_and_a_smaller_one_holds_less() {
    let mut pipeline = Pipeline::new(config(), at(0));
    assert_eq!(burst(&mut pipeline, at(0)), 60);
    pipeline.reconfigure(with(|c| c.limiter.requests_per_minute = Some(600)), at(0));
    assert_eq!(burst(&mut pipeline, at(1_000)), 10, "ten a second from now on");
    pipeline.reconfigure(with(|c| c.limiter.requests_per_minute = Some(6)), at(600_000));
    assert_eq!(burst(&mut pipeline, at(600_000)), 6, "no deeper than its burst");
}

#[test]
fn calls_in_flight_stay_counted_and_settle_with_what_they_took_from() {
    let tokens = |limit| {
        with(|c| {
            c.limiter.requests_per_minute = None;
            c.limiter.tokens = TokenLimits::Total(Some(limit));
            c.limiter.max_concurrent = Some(2);
        })
    };
    let mut pipeline = Pipeline::new(tokens(1_000), at(0));
    let first = granted(&mut pipeline, at(0)).expect("room");
    let second = granted(&mut pipeline, at(0)).expect("room");
    pipeline.reconfigure(tokens(2_000), at(0));
    assert!(granted(&mut pipeline, at(0)).is_none(), "two are under way");
    let outcome = Outcome::Success { usage: Some(Usage { input_tokens: 900, ..Usage::default() }) };
    pipeline.complete(&mut call(at(0)), first, &outcome, at(0), Chance::ZERO);
    succeed(&mut pipeline, second, at(0));
    assert_eq!(pipeline.stats(at(0)).limiter.concurrent_requests, 0);
    assert_eq!(pipeline.stats(at(0)).limiter.tokens_last_minute, 900);
    let large = Call { demand: Demand { input_tokens: 150, max_output_tokens: Some(0) }, ..at_once(at(0)) };
    assert!(
        matches!(pipeline.admit(&large, at(0)), Admission::Rejected(_)),
        "what was used was taken after all"
    );
}

#[test]
fn who_waits_keeps_its_place_and_goes_when_there_is_room() {
    let mut pipeline = Pipeline::new(config(), at(0));
    burst(&mut pipeline, at(0));
    let Admission::Queued(ticket) = pipeline.admit(&call(at(0)), at(0)) else { panic!("it waits") };
    pipeline.reconfigure(with(|c| c.limiter.enabled = false), at(0));
    let (served, permit) = pipeline.poll_granted(at(0)).expect("nothing holds it back");
    assert_eq!(served, ticket);
    assert!(permit.is_ok());
}

#[test]
fn who_can_never_go_any_more_is_told_so() {
    let tokens = |limit| with(|c| c.limiter.tokens = TokenLimits::Total(Some(limit)));
    let mut pipeline = Pipeline::new(tokens(100_000), at(0));
    burst(&mut pipeline, at(0));
    let large = Call { demand: Demand { input_tokens: 50_000, max_output_tokens: Some(0) }, ..call(at(0)) };
    let Admission::Queued(ticket) = pipeline.admit(&large, at(0)) else { panic!("it waits") };
    pipeline.reconfigure(tokens(1_000), at(0));
    let (refused, why) = pipeline.poll_granted(at(0)).expect("told at once");
    assert_eq!(refused, ticket);
    assert!(matches!(why, Err(Rejection::ExceedsCapacity { limit: 1_000, .. })), "{why:?}");
}

#[test]
fn an_open_circuit_stays_open_and_no_longer_than_the_new_period() {
    let mut pipeline = Pipeline::new(config(), at(0));
    for _ in 0..5 {
        let permit = granted(&mut pipeline, at(0)).expect("closed");
        fail(&mut pipeline, permit, at(0));
    }
    assert_eq!(state(&pipeline.stats(at(0))), BreakerState::Open);
    let period = |seconds| with(|c| c.breaker.timeout = Duration::from_secs(seconds));
    pipeline.reconfigure(period(600), at(0));
    assert!(granted(&mut pipeline, at(500)).is_none(), "still open");
    pipeline.reconfigure(period(10), at(1_000));
    assert!(granted(&mut pipeline, at(10_000)).is_none());
    assert!(granted(&mut pipeline, at(11_001)).is_some(), "a probe after the shorter period");
}

#[test]
fn failures_stay_counted_when_the_threshold_changes() {
    let threshold = |failures| with(|c| c.breaker.failure_threshold = failures);
    let mut pipeline = Pipeline::new(threshold(10), at(0));
    for _ in 0..3 {
        let permit = granted(&mut pipeline, at(0)).expect("closed");
        fail(&mut pipeline, permit, at(0));
    }
    pipeline.reconfigure(threshold(4), at(0));
    assert_eq!(state(&pipeline.stats(at(0))), BreakerState::Closed);
    let permit = granted(&mut pipeline, at(0)).expect("closed");
    fail(&mut pipeline, permit, at(0));
    assert_eq!(state(&pipeline.stats(at(0))), BreakerState::Open);
}

#[test]
fn a_circuit_that_is_switched_off_lets_everybody_through_and_begins_closed_again() {
    let enabled = |on| with(|c| c.breaker.enabled = on);
    let mut pipeline = Pipeline::new(enabled(true), at(0));
    let late = granted(&mut pipeline, at(0)).expect("closed");
    for _ in 0..5 {
        let permit = granted(&mut pipeline, at(0)).expect("closed");
        fail(&mut pipeline, permit, at(0));
    }
    pipeline.reconfigure(enabled(false), at(0));
    let through = granted(&mut pipeline, at(0)).expect("off");
    fail(&mut pipeline, through, at(0));
    pipeline.reconfigure(enabled(true), at(0));
    assert_eq!(state(&pipeline.stats(at(0))), BreakerState::Closed);
    fail(&mut pipeline, late, at(0));
    let stats = pipeline.stats(at(0)).breaker;
    assert_eq!((stats.failure_count, stats.late_results), (0, 1), "what was sent before says nothing more");
}

#[test]
fn another_scope_begins_closed_and_late_results_fit_none_of_its_circuits() {
    let scope = |scope| {
        with(|c| c.breaker = BreakerConfig { scope, failure_threshold: 1, ..BreakerConfig::default() })
    };
    let mut pipeline = Pipeline::new(scope(BreakerScope::Provider), at(0));
    for next in [BreakerScope::Model, BreakerScope::Provider, BreakerScope::Model] {
        let late = granted(&mut pipeline, at(0)).expect("closed");
        pipeline.reconfigure(scope(next), at(0));
        fail(&mut pipeline, late, at(0));
        assert_eq!(state(&pipeline.stats(at(0))), BreakerState::Closed, "{next:?}");
        assert!(granted(&mut pipeline, at(0)).is_some());
    }
}

#[test]
fn a_window_of_another_length_begins_anew() {
    let window = |seconds| {
        with(|c| {
            c.breaker.failure_threshold = 1_000;
            c.breaker.failure_rate =
                Some(FailureRate { percent: 50, min_calls: 4, window: Duration::from_secs(seconds) });
        })
    };
    for (seconds, expected) in [(60, BreakerState::Open), (30, BreakerState::Closed)] {
        let mut pipeline = Pipeline::new(window(60), at(0));
        for step in 0..4 {
            if step == 3 {
                pipeline.reconfigure(window(seconds), at(0));
            }
            let permit = granted(&mut pipeline, at(0)).expect("closed");
            fail(&mut pipeline, permit, at(0));
        }
        assert_eq!(state(&pipeline.stats(at(0))), expected, "{seconds} s");
    }
}

#[test]
fn the_retry_budget_keeps_what_is_in_hand() {
    let budget = |opening, per_second| {
        with(|c| {
            let budget = BudgetConfig { percent: 0, per_second, opening };
            c.retry = RetryConfig { budget: Some(budget), ..RetryConfig::default() };
        })
    };
    let left = |pipeline: &Pipeline| pipeline.stats(at(0)).retry.budget_available;
    let mut pipeline = Pipeline::new(budget(10, 0), at(0));
    pipeline.reconfigure(budget(100, 0), at(0));
    assert_eq!(left(&pipeline), 10, "more may be saved, and nothing was");
    pipeline.reconfigure(budget(4, 0), at(0));
    assert_eq!(left(&pipeline), 4);
    pipeline.reconfigure(budget(10, 0), at(0));
    assert_eq!(left(&pipeline), 4);
}

#[test]
fn limits_of_models_come_change_and_go() {
    let limits = |requests| ModelLimits { requests_per_minute: Some(requests), ..ModelLimits::default() };
    let mut pipeline = Pipeline::new(with(|c| c.limiter.requests_per_minute = None), at(0));
    pipeline.limit_models([(MODEL, limits(5))], at(0));
    assert_eq!(burst(&mut pipeline, at(0)), 5);
    pipeline.limit_models([(MODEL, limits(50))], at(0));
    assert_eq!(burst(&mut pipeline, at(0)), 0, "no gift");
    assert_eq!(burst(&mut pipeline, at(6_000)), 5, "fifty a minute from now on");
    pipeline.limit_models([], at(6_000));
    let free = (0..100).filter_map(|_| granted(&mut pipeline, at(6_000))).count();
    assert_eq!(free, 100);
}
