//! What happens after a failure: wait, give up, or ask another target.

mod support;

use omega_policy::*;
use support::*;

fn server() -> Failure {
    Failure::new(FailureKind::Server)
}

#[test]
fn three_attempts_in_all_with_the_specification_s_delays() {
    let mut rig = Rig::new();
    let mut call = rig.call();
    for (attempt, delay) in [(1, 1), (2, 2)] {
        let verdict = rig.fail(&mut call, server());
        assert_eq!(verdict, Verdict::RetryAt { at: rig.now + seconds(delay), delay: seconds(delay) });
        assert_eq!(call.attempts, attempt);
        rig.pass(delay * 1_000);
    }
    assert_eq!(rig.fail(&mut call, server()), Verdict::GiveUp(GiveUp::AttemptsExhausted));
    let stats = rig.stats().retry;
    assert_eq!((stats.attempts, stats.retries), (3, 2));
}

#[test]
fn one_attempt_means_no_retry() {
    let mut rig = Rig::with(|config| config.retry.max_attempts = 1);
    let mut call = rig.call();
    assert_eq!(rig.fail(&mut call, server()), Verdict::GiveUp(GiveUp::AttemptsExhausted));
}

#[test]
fn a_hint_is_never_undercut_and_a_longer_backoff_stands() {
    for (hint, delay) in [(0, 1), (1, 1), (17, 17), (300, 300), (301, 300)] {
        let mut rig = Rig::new();
        let mut call = rig.call();
        let verdict = rig.fail(&mut call, server().with_retry_after(seconds(hint)));
        assert_eq!(verdict, Verdict::RetryAt { at: rig.now + seconds(delay), delay: seconds(delay) });
    }
}

#[test]
fn a_wait_that_cannot_end_in_time_is_not_begun() {
    let mut rig = Rig::new();
    for (deadline, in_time) in [(10, false), (11, true)] {
        let mut call = Call { deadline: rig.now + seconds(deadline), ..rig.call() };
        let verdict = rig.fail(&mut call, server().with_retry_after(seconds(10)));
        let at = rig.now + seconds(10);
        match in_time {
            true => assert_eq!(verdict, Verdict::RetryAt { at, delay: seconds(10) }),
            false => assert_eq!(verdict, Verdict::GiveUp(GiveUp::DeadlineTooSoon { earliest: at })),
        }
    }
}

#[test]
fn with_another_target_only_a_short_hint_is_waited_out_here() {
    for (hint, here) in [(5, true), (6, false)] {
        let mut rig = Rig::new();
        let mut call = Call { alternative: true, ..rig.call() };
        let verdict =
            rig.fail(&mut call, Failure::new(FailureKind::Throttled).with_retry_after(seconds(hint)));
        match here {
            true => assert!(matches!(verdict, Verdict::RetryAt { .. })),
            false => assert_eq!(verdict, Verdict::GiveUp(GiveUp::AnotherTarget)),
        }
    }
}

#[test]
fn the_provider_s_no_is_obeyed_and_its_yes_adds_nothing() {
    let mut rig = Rig::new();
    for kind in FailureKind::ALL {
        let mut call = rig.call();
        let told = |word| Failure { should_retry: Some(word), ..Failure::new(kind) };
        let mut fresh = Rig::new();
        assert_eq!(fresh.fail(&mut call, told(false)), Verdict::GiveUp(GiveUp::NotRetryable), "{kind:?}");
        let (mut with, mut without) = (rig.call(), rig.call());
        assert_eq!(
            Rig::new().fail(&mut with, told(true)),
            Rig::new().fail(&mut without, Failure::new(kind)),
            "{kind:?}"
        );
    }
    let mut call = Call { attempts: 2, ..rig.call() };
    let insists = Failure { should_retry: Some(true), ..server() };
    assert_eq!(rig.fail(&mut call, insists), Verdict::GiveUp(GiveUp::AttemptsExhausted));
}

#[test]
fn the_failure_that_opens_the_circuit_is_not_retried_and_costs_no_budget() {
    let mut rig = Rig::new();
    rig.repeat(4, &Outcome::Failure(Failure::new(FailureKind::OutOfQuota)));
    let before = rig.stats().retry.budget_available;
    let mut call = rig.call();
    assert_eq!(rig.fail(&mut call, server()), Verdict::GiveUp(GiveUp::CircuitOpen));
    assert_eq!(
        rig.stats().retry.budget_available,
        before + 1,
        "it earned its share as a first try and spent nothing"
    );
}

#[test]
fn an_empty_budget_fails_fast_and_first_tries_go_on() {
    let mut rig = Rig::with(|config| {
        config.retry.budget = Some(BudgetConfig { percent: 0, per_second: 0, opening: 2 });
        config.limiter.requests_per_minute = None;
    });
    let transient = Failure::new(FailureKind::Transient);
    for _ in 0..2 {
        let mut call = rig.call();
        assert!(matches!(rig.fail(&mut call, transient.clone()), Verdict::RetryAt { .. }));
    }
    for _ in 0..100 {
        let mut call = rig.call();
        assert_eq!(rig.fail(&mut call, transient.clone()), Verdict::GiveUp(GiveUp::BudgetExhausted));
    }
    assert_eq!(rig.stats().retry.budget_refused, 100);
}

#[test]
fn an_answer_is_done() {
    let mut rig = Rig::new();
    assert_eq!(rig.once(&success()), Verdict::Done);
}

#[test]
fn chance_spreads_the_delay() {
    let mut rig = Rig::new();
    let mut call = rig.call();
    let permit = rig.granted(&call);
    let verdict =
        rig.pipeline.complete(&mut call, permit, &Outcome::Failure(server()), rig.now, Chance::HALF);
    let delay = std::time::Duration::from_millis(1_500);
    assert_eq!(verdict, Verdict::RetryAt { at: rig.now + delay, delay });
}

#[test]
fn decorrelated_jitter_grows_from_the_delay_before() {
    let mut rig = Rig::with(|config| {
        config.retry.max_attempts = 10;
        config.retry.backoff.jitter = Jitter::Decorrelated;
        config.breaker.enabled = false;
    });
    let mut call = rig.call();
    let mut delays = Vec::new();
    for chance in [Chance::HALF, Chance::HALF, Chance::ZERO, Chance::HALF] {
        let permit = rig.granted(&call);
        let failed = failure(FailureKind::Server);
        match rig.pipeline.complete(&mut call, permit, &failed, rig.now, chance) {
            Verdict::RetryAt { delay, .. } => delays.push(delay.as_millis()),
            other => panic!("{other:?}"),
        }
        assert_eq!(call.last_delay.as_millis(), *delays.last().expect("just pushed"));
    }
    // Half way between 1 s and three times the one before; a short draw makes the next one short again.
    assert_eq!(delays, [2_000, 3_500, 1_000, 2_000]);
}

#[test]
fn a_pause_that_outlasts_the_call_is_not_slept_through() {
    let limited = |wait| Failure::new(FailureKind::Throttled).with_retry_after(seconds(wait));
    for (alternative, expected) in [
        (false, GiveUp::DeadlineTooSoon { earliest: Timestamp::from_secs(1_200) }),
        (true, GiveUp::AnotherTarget),
    ] {
        let mut rig = Rig::new();
        let mut permits = rig.exhaust(2);
        let mut other = rig.call();
        let permit = permits.pop().expect("two");
        rig.end(&mut other, permit, &Outcome::Failure(limited(200)));
        // Its own hint is short, but nobody will be let go for 200 s.
        let mut call = Call { deadline: rig.now + seconds(60), alternative, ..rig.call() };
        let permit = permits.pop().expect("one");
        let verdict = rig.end(&mut call, permit, &Outcome::Failure(limited(2)));
        assert_eq!(verdict, Verdict::GiveUp(expected));
        assert_eq!(rig.stats().retry.budget_available, 11, "the other's retry, and not its own");
    }
}

#[test]
fn calls_that_were_never_sent_earn_no_retries() {
    let mut rig = Rig::new();
    let before = rig.stats().retry;
    for _ in 0..100 {
        let call = rig.call();
        let permit = rig.granted(&call);
        rig.pipeline.cancel(permit, Spent::Nothing, rig.now);
        rig.pass(500);
    }
    let after = rig.stats().retry;
    assert_eq!((after.attempts, after.budget_available), (before.attempts, before.budget_available));
}
