//! The layers together: the specification's examples, and what no single layer can show.

mod support;

use omega_policy::*;
use support::*;

fn at(rig: &Rig, after: u64) -> Timestamp {
    rig.now + seconds(after)
}

#[test]
fn the_defaults_are_the_specification_s() {
    let config = PipelineConfig::default();
    let breaker = &config.breaker;
    assert_eq!(
        (breaker.failure_threshold, breaker.success_threshold, breaker.half_open_max_calls),
        (5, 2, 3)
    );
    assert_eq!((breaker.timeout, breaker.half_open_timeout), (seconds(60), seconds(60)));
    let backoff = &config.retry.backoff;
    assert_eq!(
        (backoff.base_delay, backoff.max_delay, backoff.exponential_base),
        (seconds(1), seconds(60), 2.0)
    );
    assert_eq!((backoff.jitter, config.retry.max_attempts), (Jitter::Proportional, 3));
    assert_eq!((config.limiter.requests_per_minute, config.limiter.max_concurrent), (Some(60), Some(10)));
}

#[test]
fn a_burst_of_100_against_60_per_minute_is_granted_smoothed_and_refused() {
    let mut rig = Rig::with(|config| config.limiter.tokens = TokenLimits::Total(Some(90_000)));
    let start = rig.now;
    let (mut granted, mut queued, mut refused) = (0, 0, Vec::new());
    for _ in 0..100 {
        let call = rig.within(30);
        match rig.admit(&call) {
            Admission::Granted(_permit) => granted += 1,
            Admission::Queued(_) => queued += 1,
            Admission::Rejected(Rejection::DeadlineTooSoon { earliest, dimension }) => {
                assert_eq!(dimension, Dimension::Requests);
                refused.push(earliest);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((granted, queued, refused.len()), (60, 30, 10));
    assert!(
        refused.iter().all(|earliest| *earliest == start + seconds(31)),
        "the exact moment for each of them"
    );

    let answers = rig.run();
    let times: Vec<_> = answers.iter().map(|(when, _, _)| *when).collect();
    let expected: Vec<_> = (1..=30).map(|second| start + seconds(second)).collect();
    assert_eq!(times, expected, "one per second over the next half minute");
    assert!(answers.iter().all(|(_, _, answer)| answer.is_ok()));
    assert_eq!(rig.stats().limiter.requests_last_minute, 90);
}

#[test]
fn with_ten_in_flight_at_a_time_the_same_sixty_need_no_quota_wait() {
    let mut rig = Rig::with(|config| {
        config.limiter.max_concurrent = Some(10);
        config.limiter.depth_margin = std::time::Duration::from_millis(500);
    });
    let start = rig.now;
    let (mut running, mut done) = (Vec::new(), 0);
    for _ in 0..60 {
        let call = rig.within(30);
        match rig.admit(&call) {
            Admission::Granted(permit) => running.push(permit),
            Admission::Queued(_) => {}
            other => panic!("{other:?}"),
        }
    }
    while !running.is_empty() {
        assert_eq!(running.len(), 10);
        rig.pass(200);
        for permit in running.drain(..) {
            let mut call = rig.call();
            rig.pipeline.complete(&mut call, permit, &success(), rig.now, Chance::ZERO);
            done += 1;
        }
        running.extend(rig.poll_all().into_iter().map(|(_, answer)| answer.expect("in time")));
    }
    assert_eq!(done, 60);
    assert_eq!(
        rig.now,
        start + std::time::Duration::from_millis(1_200),
        "six rounds of 200 ms, no other wait"
    );
}

#[test]
fn ten_failing_calls_open_the_circuit_after_five_attempts() {
    let mut rig = Rig::new();
    let mut refused = 0;
    for _ in 0..10 {
        let call = rig.call();
        match rig.admit(&call) {
            Admission::Granted(permit) => {
                let mut call = call;
                rig.end(&mut call, permit, &failure(FailureKind::Server));
            }
            Admission::Rejected(Rejection::CircuitOpen { retry_at }) => {
                assert_eq!(retry_at, at(&rig, 60));
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((rig.state(), refused), (BreakerState::Open, 5));
    assert_eq!(
        rig.events(),
        [Event::Opened { model: None, failures: 5, until: at(&rig, 60), at: rig.now }],
        "one event, with the number of the log line"
    );
}

#[test]
fn the_life_of_a_circuit_through_the_pipeline() {
    let mut rig = Rig::new();
    rig.open();
    rig.pass(60_000);
    rig.once(&success());
    assert_eq!(rig.state(), BreakerState::HalfOpen);
    rig.once(&success());
    assert_eq!(rig.state(), BreakerState::Closed);
    let events = rig.events();
    assert!(matches!(events[..], [Event::Opened { .. }, Event::HalfOpened { .. }, Event::Closed { .. }]));
}

// CB-15, second half: a refusal by the breaker spends nothing.
#[test]
fn cb_15_a_call_refused_by_the_breaker_takes_no_quota() {
    let mut rig = Rig::new();
    rig.open();
    let before = rig.stats().limiter;
    for _ in 0..1_000 {
        let call = rig.call();
        assert!(matches!(rig.rejected(&call), Rejection::CircuitOpen { .. }));
    }
    assert_eq!(rig.stats().limiter, before);
}

// CB-30: the limiter has nothing left when the circuit would let a probe pass; no slot is held by the one that waits.
#[test]
fn cb_30_a_probe_held_back_by_the_limiter_holds_no_slot() {
    let mut rig = Rig::with(|config| {
        config.limiter.requests_per_minute = Some(5);
        config.breaker.timeout = seconds(1);
    });
    rig.open();
    rig.pass(1_000);
    let call = rig.call();
    let waiting = rig.queued(&call);
    assert_eq!(rig.stats().breaker.probes_in_flight, 0);
    let answers = rig.run();
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].1, answers[0].0), (waiting, rig.now));
    assert_eq!(rig.stats().breaker.probes_in_flight, 1);
}

// CB-33: waiters are granted probe slots as these are freed; newcomers are refused meanwhile.
#[test]
fn cb_33_a_waiter_at_a_full_half_open_circuit_goes_when_a_slot_is_freed() {
    let mut rig = Rig::with(|config| {
        config.limiter.requests_per_minute = Some(5);
        config.breaker.timeout = seconds(1);
        config.breaker.half_open_max_calls = 1;
    });
    rig.open();
    rig.pass(1_000);
    let call = rig.call();
    let (first, second) = (rig.queued(&call), rig.queued(&call));
    rig.pass(23_000);
    let mut answers = rig.poll_all();
    assert_eq!(answers.len(), 1, "the second has its quota and waits for the slot");
    let (ticket, probe) = answers.remove(0);
    assert_eq!(ticket, first);
    assert!(matches!(rig.rejected(&call), Rejection::CircuitOpen { retry_at } if retry_at > rig.now));
    assert!(rig.poll().is_none());
    rig.pipeline.cancel(probe.expect("granted"), Spent::Nothing, rig.now);
    let (ticket, probe) = rig.poll().expect("the slot is free");
    assert_eq!(ticket, second);
    assert!(probe.is_ok());
}

#[test]
fn waiters_at_a_hung_half_open_circuit_are_refused_at_its_deadline() {
    let mut rig = Rig::with(|config| {
        config.limiter.requests_per_minute = Some(5);
        config.breaker.timeout = seconds(1);
        config.breaker.half_open_max_calls = 1;
    });
    rig.open();
    rig.pass(1_000);
    let call = rig.call();
    let (_hung, waits) = (rig.queued(&call), rig.queued(&call));
    let answers = rig.run();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[1].1, waits);
    let granted_at = answers[0].0;
    assert_eq!(answers[1].0, granted_at + seconds(60));
    assert!(matches!(answers[1].2, Err(Rejection::CircuitOpen { .. })));
}

// CB-43: all waiters are refused the moment the circuit opens.
#[test]
fn cb_43_waiters_are_refused_when_the_circuit_opens() {
    let mut rig = Rig::new();
    let mut permits = rig.exhaust(60);
    let call = rig.call();
    let waiting: Vec<_> = (0..3).map(|_| rig.queued(&call)).collect();
    let opened_at = rig.now;
    for _ in 0..5 {
        let mut call = rig.call();
        let permit = permits.pop().expect("sixty");
        rig.end(&mut call, permit, &failure(FailureKind::Server));
    }
    let answers = rig.poll_all();
    let tickets: Vec<_> = answers.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(tickets, waiting);
    for (_, answer) in answers {
        assert_eq!(answer.expect_err("shed"), Rejection::CircuitOpen { retry_at: opened_at + seconds(60) });
    }
    assert_eq!(rig.pipeline.next_timeout(), None);
    assert_eq!(rig.stats().breaker.refused, 3);
}

#[test]
fn with_a_circuit_per_model_one_model_s_outage_concerns_no_other() {
    let mut rig = Rig::with(|config| config.breaker.scope = BreakerScope::Model);
    for _ in 0..5 {
        let mut call = rig.of_model(7);
        rig.fail(&mut call, Failure::new(FailureKind::Server));
    }
    let (seven, eight) = (rig.of_model(7), rig.of_model(8));
    assert!(matches!(rig.rejected(&seven), Rejection::CircuitOpen { .. }));
    let _permit = rig.granted(&eight);
    assert_eq!(rig.state(), BreakerState::Open, "the worst of them");
    assert!(matches!(rig.events()[..], [Event::Opened { model: Some(ModelId(7)), .. }]));
    rig.pipeline.reset_circuit(rig.now);
    let _permit = rig.granted(&seven);
}

#[test]
fn a_disabled_breaker_and_a_disabled_limiter_let_everything_pass_and_count_requests() {
    let mut rig = Rig::with(|config| {
        config.breaker.enabled = false;
        config.limiter.enabled = false;
    });
    for _ in 0..1_000 {
        let mut call = rig.of_tokens(u64::MAX);
        let limited = Failure::new(FailureKind::Throttled).with_retry_after(seconds(100));
        rig.fail(&mut call, limited);
        rig.once(&failure(FailureKind::Server));
    }
    assert_eq!(rig.state(), BreakerState::Closed);
    assert_eq!(rig.stats().limiter.requests_last_minute, 2_000);
    assert_eq!(rig.stats().limiter.concurrent_requests, 0);
    assert_eq!(rig.stats().limiter.paused_until, None);
    assert!(rig.events().is_empty());
}

#[test]
fn a_throttled_call_pauses_everything_and_traffic_resumes_paced() {
    let mut rig = Rig::with(|config| config.limiter.learn_burst = false);
    let mut call = rig.call();
    let throttled = Failure {
        exhausted: Some(Dimension::Requests),
        ..Failure::new(FailureKind::Throttled).with_retry_after(seconds(20))
    };
    let start = rig.now;
    assert_eq!(
        rig.fail(&mut call, throttled),
        Verdict::RetryAt { at: start + seconds(20), delay: seconds(20) }
    );
    assert_eq!(rig.events(), [Event::Paused { until: start + seconds(20), at: start }]);
    assert_eq!(rig.stats().limiter.paused_until, Some(start + seconds(20)));
    for _ in 0..3 {
        let call = rig.call();
        rig.queued(&call);
    }
    let times: Vec<_> =
        rig.run().into_iter().map(|(when, _, _)| when.saturating_since(start).as_secs()).collect();
    assert_eq!(times, [20, 20, 21], "what flowed in during the last two seconds, and not a second storm");
    assert_eq!(rig.state(), BreakerState::Closed);
}

#[test]
fn a_throttled_call_that_names_nothing_leaves_one_request_more_to_start_with() {
    let mut rig = Rig::with(|config| config.limiter.learn_burst = false);
    let mut call = rig.call();
    rig.fail(&mut call, Failure::new(FailureKind::Throttled).with_retry_after(seconds(20)));
    let start = rig.now;
    for _ in 0..5 {
        let call = rig.call();
        rig.queued(&call);
    }
    let times: Vec<_> =
        rig.run().into_iter().map(|(when, _, _)| when.saturating_since(start).as_secs()).collect();
    assert_eq!(times, [20, 20, 20, 21, 22]);
}

#[test]
fn waiters_that_a_pause_outlasts_are_told_at_once() {
    let mut rig = Rig::new();
    let mut permits = rig.exhaust(60);
    let (short, long) = (rig.within(10), rig.call());
    let (short, _long) = (rig.queued(&short), rig.queued(&long));
    let mut call = rig.call();
    let limited = Outcome::Failure(Failure::new(FailureKind::Throttled).with_retry_after(seconds(100)));
    let permit = permits.pop().expect("sixty");
    rig.end(&mut call, permit, &limited);
    let answers = rig.poll_all();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, short);
    assert!(matches!(
        answers[0].1,
        Err(Rejection::DeadlineTooSoon { earliest, .. }) if earliest >= rig.now + seconds(100)
    ));
    assert_eq!(rig.stats().limiter.queued, 1);
}

#[test]
fn a_429_of_one_model_pauses_only_that_model() {
    let mut rig = Rig::new();
    let mut call = rig.of_model(7);
    let scope = Scope::Model { resets_in: None };
    let limited = Failure { scope, ..Failure::new(FailureKind::Throttled).with_retry_after(seconds(50)) };
    rig.fail(&mut call, limited);
    let (seven, eight) = (rig.of_model(7), rig.of_model(8));
    let waits = rig.queued(&seven);
    let _permit = rig.granted(&eight);
    let start = rig.now;
    let answers = rig.run();
    assert_eq!((answers[0].0, answers[0].1), (start + seconds(50), waits));
}

#[test]
fn a_spent_quota_of_one_model_blocks_it_until_the_reset_and_leaves_the_circuit_alone() {
    for (resets_in, blocked) in
        [(Some(seconds(7_200)), 7_200), (None, 3_600), (Some(seconds(u64::MAX)), 86_400)]
    {
        let mut rig = Rig::new();
        let spent = Failure { scope: Scope::Model { resets_in }, ..Failure::new(FailureKind::OutOfQuota) };
        let mut permits: Vec<_> = (0..10)
            .map(|_| {
                let call = rig.of_model(7);
                rig.granted(&call)
            })
            .collect();
        let verdict = {
            let mut call = rig.of_model(7);
            let permit = permits.pop().expect("ten");
            rig.end(&mut call, permit, &Outcome::Failure(spent.clone()))
        };
        assert_eq!(verdict, Verdict::GiveUp(GiveUp::NotRetryable));
        let until = rig.now + seconds(blocked);
        for permit in permits {
            let mut call = rig.of_model(7);
            rig.end(&mut call, permit, &Outcome::Failure(spent.clone()));
        }
        assert_eq!(rig.events(), [Event::ModelBlocked { model: ModelId(7), until }]);
        assert_eq!(rig.state(), BreakerState::Closed);
        let (seven, eight) = (rig.of_model(7), rig.of_model(8));
        assert_eq!(rig.rejected(&seven), Rejection::ModelBlocked { until });
        let _permit = rig.granted(&eight);
        rig.now = until;
        let _permit = rig.granted(&seven);
    }
}

#[test]
fn waiters_of_a_model_whose_quota_is_spent_are_told() {
    let mut rig = Rig::with(|config| config.limiter.requests_per_minute = Some(2));
    let (seven, eight) = (rig.of_model(7), rig.of_model(8));
    let (first, _second) = (rig.granted(&seven), rig.granted(&eight));
    let (doomed, waits) = (rig.queued(&seven), rig.queued(&eight));
    let scope = Scope::Model { resets_in: None };
    let mut call = rig.of_model(7);
    rig.end(&mut call, first, &Outcome::Failure(Failure { scope, ..Failure::new(FailureKind::OutOfQuota) }));
    let (ticket, answer) = rig.poll().expect("told");
    assert_eq!(ticket, doomed);
    assert!(matches!(answer, Err(Rejection::ModelBlocked { .. })));
    assert_eq!(rig.pipeline.head(), Some(waits));
}

#[test]
fn an_account_out_of_quota_opens_the_circuit_so_that_the_hammering_stops() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        assert_eq!(rig.once(&failure(FailureKind::OutOfQuota)), Verdict::GiveUp(GiveUp::NotRetryable));
    }
    assert_eq!(rig.state(), BreakerState::Open);
}

#[test]
fn a_provider_that_cuts_every_stream_after_one_token_opens_its_circuit_again() {
    let mut rig = Rig::new();
    let broken = failure(FailureKind::StreamBroken);
    rig.open();
    rig.pass(60_000);
    let mut streams = rig.exhaust(2);
    for permit in &mut streams {
        rig.pipeline.first_token(permit, rig.now);
    }
    assert_eq!(rig.state(), BreakerState::Closed, "both probes were judged at their first token");
    for permit in streams {
        let mut call = rig.call();
        rig.end(&mut call, permit, &broken);
    }
    assert_eq!(rig.stats().breaker.failure_count, 2);
    for _ in 0..3 {
        let mut call = rig.call();
        let mut permit = rig.granted(&call);
        rig.pipeline.first_token(&mut permit, rig.now);
        rig.end(&mut call, permit, &broken);
    }
    assert_eq!(rig.state(), BreakerState::Open);
}

#[test]
fn an_episode_of_limiting_is_one_event_and_its_end_another() {
    let mut rig = Rig::with(|config| config.limiter.requests_per_minute = Some(2));
    let _permits = rig.exhaust(2);
    let hits = |events: Vec<Event>| {
        let hit = events.iter().filter(|event| matches!(event, Event::LimitHit { .. })).count();
        let cleared = events.iter().filter(|event| matches!(event, Event::LimitCleared { .. })).count();
        (hit, cleared)
    };
    let (call, impatient) = (rig.call(), rig.within(1));
    for _ in 0..5 {
        rig.queued(&call);
        rig.rejected(&impatient);
    }
    let event = rig.pipeline.poll_event();
    assert!(matches!(
        event,
        Some(Event::LimitHit { dimension: Dimension::Requests, requests_last_minute: 2, .. })
    ));
    assert_eq!(hits(rig.events()), (0, 0));
    rig.run();
    rig.queued(&call);
    rig.run();
    assert_eq!(hits(rig.events()), (0, 0), "it goes on while callers have to wait");
    rig.pass(60_000);
    let _permit = rig.granted(&call);
    assert_eq!(hits(rig.events()), (0, 1));
    let _permit = rig.granted(&call);
    rig.queued(&call);
    assert_eq!(hits(rig.events()), (1, 0), "a new episode");
}

#[test]
fn a_clock_that_steps_back_is_treated_as_standing_still() {
    let mut rig = Rig::new();
    let _permits = rig.exhaust(60);
    let call = rig.call();
    rig.queued(&call);
    let now = rig.now;
    for earlier in [Timestamp::ZERO, Timestamp::from_secs(999)] {
        rig.now = earlier;
        assert!(rig.poll().is_none());
        assert_eq!(rig.pipeline.next_timeout(), Some(now + seconds(1)));
    }
    rig.now = now + seconds(1);
    assert!(rig.poll().is_some());
}

#[test]
fn a_call_whose_time_is_up_is_not_sent() {
    let mut rig = Rig::new();
    let call = Call { deadline: rig.now, ..rig.call() };
    assert_eq!(
        rig.rejected(&call),
        Rejection::DeadlineTooSoon { earliest: rig.now, dimension: Dimension::Requests }
    );
    assert!(rig.events().is_empty(), "no limit was hit");
}

#[test]
fn the_operator_s_word_is_obeyed_at_once() {
    let mut rig = Rig::new();
    let call = rig.call();
    rig.pipeline.set_breaker_mode(BreakerMode::ForcedOpen, rig.now);
    assert!(matches!(rig.rejected(&call), Rejection::CircuitOpen { .. }));
    assert_eq!(rig.state(), BreakerState::Open);
    rig.pipeline.set_breaker_mode(BreakerMode::Auto, rig.now);
    let _permit = rig.granted(&call);
}

#[test]
fn hostile_usage_stops_us_for_no_longer_than_a_hint_could() {
    let mut rig = Rig::new();
    let usage = Usage { input_tokens: u64::MAX, cached_input_tokens: u64::MAX, output_tokens: u64::MAX };
    rig.once(&Outcome::Success { usage: Some(usage) });
    let call = rig.call();
    let start = rig.now;
    rig.queued(&call);
    let answers = rig.run();
    assert!(answers[0].2.is_ok());
    assert!(answers[0].0 <= start + seconds(301));
}
