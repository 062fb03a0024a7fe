//! Everything at once: every kind of end, circuits that open, pauses, blocked models, headers, models with limits of
//! their own. Whatever happens, everybody who waits is answered once and in time, and nothing is left over.

mod support;

use std::collections::BTreeMap;

use omega_policy::*;
use proptest::prelude::*;
use support::*;

#[derive(Clone, Debug)]
enum Step {
    Arrive { model: u32, tokens: u64, wait: u64 },
    End { which: usize, failure: Option<(FailureKind, u64, bool)> },
    FirstToken(usize),
    Cancel(usize, bool),
    Leave(usize),
    Hint { which: usize, limit: u64, remaining: u64 },
    Reset,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kinds = prop::sample::select(FailureKind::ALL.to_vec());
    let failure = prop::option::weighted(0.6, (kinds, 0u64..40, any::<bool>()));
    let step = prop_oneof![
        8 => (0u32..4, 0u64..300, 0u64..60).prop_map(|(model, tokens, wait)| Step::Arrive { model, tokens, wait }),
        6 => (0usize..16, failure).prop_map(|(which, failure)| Step::End { which, failure }),
        2 => (0usize..16).prop_map(Step::FirstToken),
        1 => (0usize..16, any::<bool>()).prop_map(|(which, sent)| Step::Cancel(which, sent)),
        1 => (0usize..16).prop_map(Step::Leave),
        1 => (0usize..16, 1u64..300, 0u64..300)
            .prop_map(|(which, limit, remaining)| Step::Hint { which, limit, remaining }),
        1 => Just(Step::Reset),
        4 => (0u64..20_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

fn world(scope: BreakerScope, ramp: u64, charge: ChargeRule) -> Rig {
    let mut rig = Rig::with(|config| {
        config.limiter.requests_per_minute = Some(120);
        config.limiter.tokens = TokenLimits::Total(Some(6_000));
        config.limiter.burst = seconds(6);
        config.limiter.max_concurrent = Some(5);
        config.limiter.charge = charge;
        config.breaker.scope = scope;
        config.breaker.timeout = seconds(10);
        config.breaker.half_open_timeout = seconds(15);
        config.breaker.half_open_max_calls = 2;
        config.breaker.ramp = seconds(ramp);
    });
    let limits =
        ModelLimits { requests_per_minute: Some(30), max_concurrent: Some(2), ..ModelLimits::default() };
    rig.pipeline.limit_model(ModelId(2), limits, rig.now);
    rig
}

fn failed((kind, wait, of_model): (FailureKind, u64, bool)) -> Outcome {
    let scope = match of_model {
        true => Scope::Model { resets_in: Some(seconds(wait)) },
        false => Scope::Provider,
    };
    let retry_after = (wait % 2 == 0).then(|| seconds(wait));
    let exhausted = [None, Some(Dimension::Requests), Some(Dimension::Tokens)][wait as usize % 3];
    Outcome::Failure(Failure { scope, retry_after, exhausted, ..Failure::new(kind) })
}

/// The latest moment at which each of them is to be answered.
type Waiting = BTreeMap<Ticket, Timestamp>;

fn absorb(rig: &mut Rig, waiting: &mut Waiting, running: &mut Vec<Permit>) {
    for (ticket, answer) in rig.poll_all() {
        let until = waiting.remove(&ticket).expect("answered twice, or after it left");
        match answer {
            Ok(permit) => {
                assert!(rig.now <= until, "granted after its time");
                running.push(permit);
            }
            Err(Rejection::DeadlineTooSoon { earliest, .. }) => assert!(earliest > rig.now, "come back now?"),
            Err(Rejection::CircuitOpen { retry_at: at } | Rejection::ModelBlocked { until: at }) => {
                assert!(at > rig.now, "come back now?");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(rig.pipeline.next_timeout().is_none_or(|at| at > rig.now), "a busy loop");
}

/// To `target`, stopping wherever the pipeline asks for it.
fn travel(rig: &mut Rig, target: Timestamp, waiting: &mut Waiting, running: &mut Vec<Permit>) {
    while let Some(at) = rig.pipeline.next_timeout().filter(|at| *at <= target) {
        rig.now = at;
        absorb(rig, waiting, running);
    }
    rig.now = target;
    absorb(rig, waiting, running);
    let late = waiting.values().filter(|until| **until < rig.now).count();
    assert_eq!(late, 0, "nobody told them that their time is up");
}

proptest! {
    #[test]
    fn everybody_is_answered_once_and_in_time_and_nothing_is_left(
        scope in prop::sample::select(vec![BreakerScope::Provider, BreakerScope::Model]),
        ramp in prop::sample::select(vec![0u64, 30]),
        charge in prop::sample::select(vec![ChargeRule::Estimate, ChargeRule::EstimateThenRefund, ChargeRule::Actual]),
        steps in steps(),
    ) {
        let mut rig = world(scope, ramp, charge);
        let (mut waiting, mut running) = (Waiting::new(), Vec::new());
        for step in steps {
            match step {
                Step::Pass(millis) => {
                    let target = rig.now + std::time::Duration::from_millis(millis);
                    travel(&mut rig, target, &mut waiting, &mut running);
                }
                Step::Arrive { model, tokens, wait } => {
                    let admit_by = rig.now + seconds(wait);
                    let call = Call { model: ModelId(model), admit_by, ..rig.of_tokens(tokens) };
                    match rig.admit(&call) {
                        Admission::Granted(permit) => running.push(permit),
                        Admission::Queued(ticket) => drop(waiting.insert(ticket, admit_by)),
                        Admission::Rejected(
                            Rejection::DeadlineTooSoon { earliest: at, .. }
                            | Rejection::CircuitOpen { retry_at: at }
                            | Rejection::ModelBlocked { until: at }
                        ) => prop_assert!(at > rig.now, "come back now?"),
                        Admission::Rejected(other) => prop_assert!(false, "{other:?}"),
                    }
                }
                Step::End { which, failure } if !running.is_empty() => {
                    let permit = running.swap_remove(which % running.len());
                    let used = Usage { input_tokens: 50, cached_input_tokens: 0, output_tokens: 100 };
                    let outcome = failure.map_or(Outcome::Success { usage: Some(used) }, failed);
                    let mut call = Call { deadline: rig.now + seconds(100), ..rig.call() };
                    let verdict = rig.end(&mut call, permit, &outcome);
                    if let (Verdict::RetryAt { at, .. }, Outcome::Failure(failure)) = (verdict, &outcome) {
                        let hint = failure.retry_after.unwrap_or_default().min(HINT_MAX);
                        prop_assert!(at >= rig.now + hint && at < call.deadline);
                    }
                }
                Step::FirstToken(which) if !running.is_empty() => {
                    let which = which % running.len();
                    rig.pipeline.first_token(&mut running[which], rig.now);
                }
                Step::Cancel(which, sent) if !running.is_empty() => {
                    let permit = running.swap_remove(which % running.len());
                    let spent = if sent { Spent::Sent { seen: None } } else { Spent::Nothing };
                    rig.pipeline.cancel(permit, spent, rig.now);
                }
                Step::Leave(which) if !waiting.is_empty() => {
                    let ticket = *waiting.keys().nth(which % waiting.len()).expect("within");
                    waiting.remove(&ticket);
                    rig.pipeline.leave(ticket, rig.now);
                }
                Step::Hint { which, limit, remaining } if !running.is_empty() => {
                    let quota = Some(HintedQuota { limit: Some(limit), remaining: Some(remaining), reset: None });
                    let hint = QuotaHint { requests: quota, ..QuotaHint::default() };
                    rig.pipeline.handle_hint(&running[which % running.len()], &hint, rig.now);
                }
                Step::Reset => rig.pipeline.reset_circuit(rig.now),
                _ => {}
            }
            absorb(&mut rig, &mut waiting, &mut running);
            let stats = rig.stats();
            prop_assert_eq!(stats.limiter.concurrent_requests, running.len() as u64);
            prop_assert_eq!(stats.limiter.queued, waiting.len() as u64);
            prop_assert!(running.len() <= 5 && stats.breaker.probes_in_flight <= 2);
        }
        // Nobody ends a call any more: those who wait for a slot are told so when their time is up.
        let far = rig.now + seconds(600);
        travel(&mut rig, far, &mut waiting, &mut running);
        prop_assert!(waiting.is_empty());
        for permit in running.drain(..) {
            rig.pipeline.cancel(permit, Spent::Sent { seen: None }, rig.now);
        }
        let stats = rig.stats();
        prop_assert_eq!((stats.limiter.concurrent_requests, stats.limiter.queued), (0, 0));
        prop_assert_eq!((stats.breaker.probes_in_flight, rig.pipeline.next_timeout()), (0, None));
        // Five minutes after the last word of anybody, a small call of every model is served again.
        rig.pass(86_400_000);
        for model in 0..4 {
            let call = rig.of_model(model);
            rig.pipeline.reset_circuit(rig.now);
            prop_assert!(matches!(rig.admit(&call), Admission::Granted(_)));
        }
    }

    /// Whoever is refused for lack of time is told the very moment at which its turn would have come.
    #[test]
    fn the_moment_a_refused_call_is_told_is_the_moment_it_would_have_been_served(
        before in prop::collection::vec((0u64..300, 0u64..1_500), 1..60),
        debt in prop::option::of(0u64..5_000),
        pause in prop::option::of(0u64..30),
        tokens in 0u64..300,
    ) {
        let mut rig = Rig::with(|config| {
            config.limiter.requests_per_minute = Some(120);
            config.limiter.tokens = TokenLimits::Total(Some(6_000));
            config.limiter.burst = seconds(2);
            // A depth that is learned grows while somebody waits, and the moment of a deep call with it.
            config.limiter.learn_burst = false;
        });
        let mut running = Vec::new();
        for (tokens, gap) in before {
            rig.pass(gap);
            let call = rig.of_tokens(tokens);
            running.extend(rig.poll_all().into_iter().filter_map(|(_, answer)| answer.ok()));
            match rig.admit(&call) {
                Admission::Granted(permit) => running.push(permit),
                Admission::Queued(_) => {}
                Admission::Rejected(other) => prop_assert!(false, "{other:?}"),
            }
        }
        let mut ends = running.into_iter();
        if let (Some(debt), Some(permit)) = (debt, ends.next()) {
            let usage = Some(Usage { input_tokens: debt, ..Usage::default() });
            rig.end(&mut rig.call(), permit, &Outcome::Success { usage });
        }
        if let (Some(pause), Some(permit)) = (pause, ends.next()) {
            let limited = Failure::new(FailureKind::Throttled).with_retry_after(seconds(pause));
            rig.end(&mut rig.call(), permit, &Outcome::Failure(limited));
        }
        rig.poll_all();
        let hasty = Call { admit_by: rig.now, ..rig.of_tokens(tokens) };
        let patient = Call { admit_by: FAR, ..hasty.clone() };
        match rig.admit(&hasty) {
            Admission::Granted(_permit) => {}
            Admission::Rejected(Rejection::DeadlineTooSoon { earliest, .. }) => {
                let ticket = rig.queued(&patient);
                let answers = rig.run();
                let (when, ..) = answers.iter().find(|(_, answered, _)| *answered == ticket).expect("served");
                prop_assert_eq!(*when, earliest);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
