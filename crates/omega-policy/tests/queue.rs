//! Order across models, refusals while waiting, and episodes: the queue as its callers see it.

mod support;

use omega_policy::*;
use support::*;

/// Ten tokens per second, ten deep, requests without bound, and a model 7 with one token per second of its own.
fn two_models() -> Rig {
    let mut rig = Rig::with(|config| {
        config.limiter.requests_per_minute = None;
        config.limiter.tokens = TokenLimits::Total(Some(600));
        config.limiter.burst = seconds(1);
    });
    let limits = ModelLimits { tokens_per_minute: Some(60), ..ModelLimits::default() };
    rig.pipeline.limit_model(ModelId(7), limits, rig.now);
    rig
}

fn sized(rig: &Rig, model: u32, tokens: u64) -> Call {
    Call { model: ModelId(model), ..rig.of_tokens(tokens) }
}

fn throttled(wait: u64) -> Outcome {
    Outcome::Failure(Failure::new(FailureKind::Throttled).with_retry_after(seconds(wait)))
}

#[test]
fn a_small_call_of_another_model_does_not_overtake_whoever_waits_for_the_provider() {
    let mut rig = two_models();
    let (first, large, small) = (sized(&rig, 1, 5), sized(&rig, 1, 10), sized(&rig, 2, 1));
    let _permit = rig.granted(&first);
    let large = rig.queued(&large);
    let small = rig.queued(&small);
    let order: Vec<_> = rig.run().into_iter().map(|(_, ticket, _)| ticket).collect();
    assert_eq!(order, [large, small]);
}

#[test]
fn a_small_call_does_not_overtake_a_large_one_of_its_own_model_that_its_model_holds_back() {
    let mut rig = Rig::with(|config| {
        config.limiter.burst = seconds(1);
        config.limiter.requests_per_minute = None;
    });
    let limits = ModelLimits { tokens_per_minute: Some(600), ..ModelLimits::default() };
    rig.pipeline.limit_model(ModelId(7), limits, rig.now);
    rig.pass(60_000);
    let (large, small) = (sized(&rig, 7, 10), sized(&rig, 7, 1));
    let _permit = rig.granted(&large);
    rig.pass(100);
    let large = rig.queued(&large);
    rig.pass(899);
    // Nearly ten of ten: the large one does not fit yet, the small one would.
    let small = rig.queued(&small);
    let order: Vec<_> = rig.run().into_iter().map(|(_, ticket, _)| ticket).collect();
    assert_eq!(order, [large, small]);
}

#[test]
fn calls_throttled_together_are_one_pause() {
    let mut rig = Rig::new();
    for permit in rig.exhaust(10) {
        let mut call = rig.call();
        rig.end(&mut call, permit, &throttled(20));
        rig.pass(100);
    }
    let pauses = rig.events().into_iter().filter(|event| matches!(event, Event::Paused { .. })).count();
    assert_eq!(pauses, 1);
    let last = rig.now + std::time::Duration::from_millis(19_900);
    assert_eq!(
        rig.stats().limiter.paused_until,
        Some(last),
        "and it lasts as long as the latest of them asked"
    );
}

#[test]
fn a_pause_tells_those_it_outlasts_wherever_they_stand() {
    let mut rig = Rig::new();
    let mut permits = rig.exhaust(60);
    let (patient, hasty) = (rig.call(), rig.within(10));
    let (patient, hasty) = (rig.queued(&patient), rig.queued(&hasty));
    let mut call = rig.call();
    let permit = permits.pop().expect("sixty");
    rig.end(&mut call, permit, &throttled(60));
    let answers = rig.poll_all();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, hasty);
    assert_eq!(rig.pipeline.head(), Some(patient));
}

#[test]
fn the_pause_of_one_model_tells_those_of_it_that_it_outlasts() {
    let mut rig = Rig::with(|config| config.limiter.requests_per_minute = Some(2));
    let (seven, eight) = (rig.of_model(7), rig.of_model(8));
    let (permit, _other) = (rig.granted(&seven), rig.granted(&eight));
    let short = |call: &Call, rig: &Rig| Call { admit_by: rig.now + seconds(35), ..call.clone() };
    let (doomed, waits) = (short(&seven, &rig), short(&eight, &rig));
    let doomed = rig.queued(&doomed);
    let scope = Scope::Model { resets_in: Some(seconds(50)) };
    let mut call = rig.of_model(7);
    let limited = Failure { scope, ..Failure::new(FailureKind::Throttled) };
    let paused_until = rig.now + seconds(50);
    let verdict = rig.end(&mut call, permit, &Outcome::Failure(limited));
    assert_eq!(
        verdict,
        Verdict::RetryAt { at: paused_until, delay: seconds(50) },
        "a reset is a wish to wait too"
    );
    let waits = rig.queued(&waits);
    let mut answers = rig.poll_all();
    assert_eq!(answers.len(), 1);
    let (ticket, answer) = answers.remove(0);
    assert_eq!(ticket, doomed);
    let dimension = Dimension::Requests;
    assert_eq!(answer.expect_err("told"), Rejection::DeadlineTooSoon { earliest: paused_until, dimension });
    let answers = rig.run();
    assert!(answers.len() == 1 && answers[0].1 == waits && answers[0].2.is_ok(), "it inherits the turn");
}

#[test]
fn a_debt_that_makes_a_waiter_late_is_told_at_once_and_those_behind_move_up() {
    let mut rig = Rig::with(|config| {
        config.limiter.tokens = TokenLimits::Total(Some(600));
        config.limiter.max_concurrent = Some(1);
    });
    let running = rig.exhaust(1).pop().expect("one");
    let (hasty, patient) = (rig.within(10), rig.call());
    let (hasty, patient) = (rig.queued(&hasty), rig.queued(&patient));
    let usage = Usage { input_tokens: 900, ..Usage::default() };
    let mut call = rig.call();
    let start = rig.now;
    rig.end(&mut call, running, &Outcome::Success { usage: Some(usage) });
    let (ticket, answer) = rig.poll().expect("told now and not at its deadline");
    assert_eq!(ticket, hasty);
    assert!(matches!(
        answer,
        Err(Rejection::DeadlineTooSoon { earliest, dimension: Dimension::Tokens }) if earliest > start + seconds(30)
    ));
    assert_eq!(rig.pipeline.head(), Some(patient));
}

#[test]
fn whoever_leaves_is_not_told_of_a_refusal() {
    let mut rig = Rig::new();
    let mut permits = rig.exhaust(60);
    let call = rig.call();
    let (leaves, stays) = (rig.queued(&call), rig.queued(&call));
    for _ in 0..5 {
        let mut call = rig.call();
        let permit = permits.pop().expect("sixty");
        rig.end(&mut call, permit, &failure(FailureKind::Server));
    }
    // The circuit is open and both are refused; the first answer is taken, the second is on its way.
    assert_eq!(rig.poll().expect("refused").0, leaves);
    rig.pipeline.leave(stays, rig.now);
    assert!(rig.poll().is_none());
    assert_eq!(rig.pipeline.next_timeout(), None);
}

#[test]
fn an_untold_refusal_is_something_to_do_now() {
    let mut rig = Rig::new();
    let mut permits = rig.exhaust(60);
    let call = rig.call();
    let _waiting = [rig.queued(&call), rig.queued(&call)];
    for _ in 0..5 {
        let mut call = rig.call();
        let permit = permits.pop().expect("sixty");
        rig.end(&mut call, permit, &failure(FailureKind::Server));
    }
    for _ in 0..2 {
        assert_eq!(rig.pipeline.next_timeout(), Some(rig.now));
        assert!(matches!(rig.poll(), Some((_, Err(Rejection::CircuitOpen { .. })))));
    }
    assert_eq!(rig.pipeline.next_timeout(), None);
}

#[test]
fn an_episode_goes_on_while_somebody_still_waits() {
    let mut rig = two_models();
    let (own, other) = (sized(&rig, 7, 1), sized(&rig, 8, 1));
    let _permit = rig.granted(&own);
    rig.queued(&own);
    let _permit = rig.granted(&other);
    let cleared =
        rig.events().into_iter().filter(|event| matches!(event, Event::LimitCleared { .. })).count();
    assert_eq!(cleared, 0);
}

#[test]
fn a_pause_that_has_ended_does_not_begin_again_when_the_clock_steps_back() {
    let mut rig = Rig::new();
    let start = rig.now;
    assert!(matches!(rig.once(&throttled(20)), Verdict::RetryAt { .. }));
    rig.now = start + seconds(30);
    rig.once(&success());
    rig.now = start + seconds(10);
    let call = rig.call();
    let _permit = rig.granted(&call);
    assert_eq!(rig.stats().limiter.paused_until, None);
}

#[test]
fn ten_thousand_waiters_come_and_go_and_leave_nothing() {
    let mut rig = Rig::new();
    let _permits = rig.exhaust(60);
    let call = rig.call();
    let tickets: Vec<_> = (0..10_000).map(|_| rig.queued(&call)).collect();
    assert!(matches!(rig.rejected(&call), Rejection::QueueFull { .. }));
    for ticket in tickets.iter().step_by(2).chain(tickets.iter().skip(1).step_by(2).rev()) {
        rig.pipeline.leave(*ticket, rig.now);
    }
    let stats = rig.stats().limiter;
    assert_eq!((stats.queued, stats.queued_total), (0, 10_000));
    assert_eq!((rig.pipeline.head(), rig.pipeline.next_timeout()), (None, None));
    rig.pass(1_000);
    let _permit = rig.granted(&call);
}

#[test]
fn ten_thousand_refused_waiters_may_go_before_they_are_told() {
    let mut rig = Rig::new();
    let mut permits = rig.exhaust(60);
    let call = rig.call();
    let tickets: Vec<_> = (0..10_000).map(|_| rig.queued(&call)).collect();
    for _ in 0..5 {
        let mut call = rig.call();
        let permit = permits.pop().expect("sixty");
        rig.end(&mut call, permit, &failure(FailureKind::Server));
    }
    assert_eq!(rig.poll().expect("all are refused").0, tickets[0], "whoever waited longest is told first");
    for ticket in tickets.into_iter().rev() {
        rig.pipeline.leave(ticket, rig.now);
    }
    assert!(rig.poll().is_none());
    assert_eq!((rig.stats().breaker.refused, rig.pipeline.next_timeout()), (10_000, None));
}

#[test]
fn a_waiter_whose_time_ends_before_a_full_half_open_circuit_is_told_when_to_come_back() {
    let mut rig = Rig::with(|config| {
        config.limiter.requests_per_minute = Some(5);
        config.breaker.timeout = seconds(1);
        config.breaker.half_open_max_calls = 1;
    });
    rig.open();
    rig.pass(1_000);
    let (patient, hasty) = (rig.call(), rig.within(30));
    let (_probe, hasty) = (rig.queued(&patient), rig.queued(&hasty));
    let answers = rig.run();
    let (when, ticket, answer) = &answers[1];
    assert_eq!(*ticket, hasty);
    assert!(
        matches!(answer, Err(Rejection::CircuitOpen { retry_at }) if retry_at > when),
        "its quota was there and the slot was not: {answer:?}"
    );
}
