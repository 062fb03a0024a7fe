//! Waiting: order, fairness, cancellation, bounds; and bugs of other projects, by name.

mod support;

use omega_policy::*;
use proptest::prelude::*;
use support::*;

/// One request per second, tokens without bound.
fn requests_only(per_minute: u64, burst: u64) -> Rig {
    Rig::with(|config| {
        config.limiter.requests_per_minute = Some(per_minute);
        config.limiter.tokens = TokenLimits::Total(None);
        config.limiter.burst = seconds(burst);
    })
}

/// Ten tokens per second, ten deep, requests without bound.
fn tokens_only() -> Rig {
    Rig::with(|config| {
        config.limiter.requests_per_minute = None;
        config.limiter.tokens = TokenLimits::Total(Some(600));
        config.limiter.burst = seconds(1);
    })
}

#[test]
fn waiters_are_served_first_come_first_served() {
    let mut rig = requests_only(60, 1);
    let _permits = rig.exhaust(1);
    let call = rig.call();
    let tickets: Vec<_> = (0..20).map(|_| rig.queued(&call)).collect();
    let served: Vec<_> = rig.run().into_iter().map(|(_, ticket, _)| ticket).collect();
    assert_eq!(served, tickets);
}

// governor: `until_n_ready(10)` on 10/s starved for more than 10 s under a stream of 15/s of single cells.
#[test]
fn governor_a_large_call_is_not_starved_by_a_stream_of_small_ones() {
    let mut rig = tokens_only();
    let start = rig.now;
    let _first = {
        let call = rig.of_tokens(10);
        rig.granted(&call)
    };
    let large = {
        let call = rig.of_tokens(10);
        rig.queued(&call)
    };
    for _ in 0..15 {
        rig.pass(66);
        let small = rig.of_tokens(1);
        rig.queued(&small);
        assert!(rig.poll().is_none(), "nobody overtakes");
    }
    let answers = rig.run();
    assert_eq!(answers[0].1, large);
    assert_eq!(answers[0].0, start + seconds(1), "one refill, not ten seconds");
}

// leaky-bucket: the head was filled bit by bit, and its partial fill came back late when it was cancelled; and a head
// that is never polled blocks everybody.
#[test]
fn leaky_bucket_a_head_that_leaves_or_is_never_polled_blocks_nobody() {
    let mut rig = tokens_only();
    let start = rig.now;
    let _first = {
        let call = rig.of_tokens(10);
        rig.granted(&call)
    };
    let (head, next) = {
        let call = rig.of_tokens(10);
        (rig.queued(&call), rig.queued(&call))
    };
    rig.pass(900);
    rig.pipeline.leave(head, rig.now);
    assert_eq!(rig.pipeline.head(), Some(next));
    let answers = rig.run();
    assert_eq!(
        (answers[0].0, answers[0].1),
        (start + seconds(1), next),
        "the next one inherits all of the wait"
    );
}

// golang/time #69419, throttle-net 2.0: a cancelled reservation left later waiters where they were (2 s instead of 1).
#[test]
fn golang_time_a_cancelled_waiter_gives_its_place_back_at_once() {
    let mut rig = requests_only(60, 1);
    let start = rig.now;
    let _permits = rig.exhaust(1);
    let call = rig.call();
    let tickets: Vec<_> = (0..3).map(|_| rig.queued(&call)).collect();
    rig.pipeline.leave(tickets[0], rig.now);
    rig.pipeline.leave(tickets[1], rig.now);
    let answers = rig.run();
    assert_eq!((answers[0].0, answers[0].1), (start + seconds(1), tickets[2]));
}

// golang/time `WaitN`: what cannot be in time is said at once, and exactly, behind those who wait already.
#[test]
fn golang_time_a_wait_that_would_exceed_the_deadline_is_refused_at_once() {
    let mut rig = requests_only(60, 1);
    let start = rig.now;
    let _permits = rig.exhaust(1);
    for place in 1..=10 {
        let (short, exact) = (rig.within(place - 1), rig.within(place));
        let earliest = start + seconds(place);
        assert_eq!(
            rig.rejected(&short),
            Rejection::DeadlineTooSoon { earliest, dimension: Dimension::Requests }
        );
        rig.queued(&exact);
    }
    assert!(rig.run().iter().all(|(_, _, answer)| answer.is_ok()), "and what was promised is kept");
}

// TN-001: a stale clock reading reused in a loop refilled a 1000/s bucket 77,000 times in 2 s.
#[test]
fn tn_001_a_clock_reading_used_twice_refills_once() {
    let mut rig = requests_only(60_000, 1);
    let (early, late) = (rig.now, rig.now + seconds(2));
    let call = rig.call();
    let mut granted = 0;
    for turn in 0..100_000u32 {
        rig.now = if turn % 2 == 0 { late } else { early };
        granted += usize::from(matches!(
            rig.admit(&Call { admit_by: rig.now, ..call.clone() }),
            Admission::Granted(_)
        ));
    }
    assert_eq!(granted, 1_000, "the depth; the bucket was full at both readings");
}

// TN2-001: wake-ups were not additive, and waiters hung.
#[test]
fn tn2_001_capacity_for_many_answers_many() {
    let mut rig = requests_only(60, 60);
    let _permits = rig.exhaust(60);
    let call = rig.call();
    let _tickets: Vec<_> = (0..50).map(|_| rig.queued(&call)).collect();
    rig.pass(50_000);
    assert_eq!(rig.poll_all().len(), 50);
    assert_eq!(rig.pipeline.next_timeout(), None);
}

// TN2-002: a waiter that held a part of what it needed starved the others for 19 s.
#[test]
fn tn2_002_a_waiter_holds_nothing_until_it_can_take_everything() {
    let mut rig = Rig::new();
    rig.pipeline.limit_model(
        ModelId(7),
        ModelLimits { max_concurrent: Some(1), ..Default::default() },
        rig.now,
    );
    let seven = rig.of_model(7);
    let running = rig.granted(&seven);
    let before = rig.stats().limiter;
    let waiting = rig.queued(&seven);
    let after = rig.stats().limiter;
    assert_eq!(
        (after.requests_last_minute, after.concurrent_requests, after.tokens_last_minute),
        (before.requests_last_minute, before.concurrent_requests, before.tokens_last_minute)
    );
    let eight = rig.of_model(8);
    let _others: Vec<_> = (0..59).map(|_| rig.granted(&eight)).collect();
    rig.pipeline.cancel(running, Spent::Nothing, rig.now);
    let (ticket, answer) = rig.poll().expect("the slot and one request came back");
    assert!(ticket == waiting && answer.is_ok());
}

// TN2-003: a breaker that was told "rolled back" wedged half-open.
#[test]
fn tn2_003_giving_probes_back_does_not_wedge_the_circuit() {
    let mut rig = Rig::with(|config| config.limiter.requests_per_minute = None);
    rig.open();
    rig.pass(60_000);
    for _ in 0..100 {
        for permit in rig.exhaust(3) {
            rig.pipeline.cancel(permit, Spent::Nothing, rig.now);
        }
    }
    rig.once(&success());
    rig.once(&success());
    assert_eq!(rig.state(), BreakerState::Closed);
}

// TN2-006: a waiter was told "retry now" for ever and its deadline never fired.
#[test]
fn tn2_006_a_deadline_passes_even_for_a_waiter_whose_turn_it_is() {
    let mut rig = Rig::with(|config| config.limiter.max_concurrent = Some(1));
    let _running = rig.exhaust(1);
    let call = rig.within(5);
    let start = rig.now;
    rig.queued(&call);
    let answers = rig.run();
    assert!(matches!(answers[0].2, Err(Rejection::DeadlineTooSoon { .. })));
    assert_eq!(answers[0].0, start + std::time::Duration::from_nanos(5_000_000_001));
}

// TN2-007: evicting an idle key forgot its debt. Nothing is evicted here.
#[test]
fn tn2_007_a_debt_is_not_forgotten_however_long_nobody_asks() {
    let mut rig = Rig::with(|config| config.limiter.tokens = TokenLimits::Total(Some(600)));
    let usage = Usage { input_tokens: 2_400, ..Usage::default() };
    rig.once(&Outcome::Success { usage: Some(usage) });
    rig.pass(179_000);
    let call = rig.of_tokens(1);
    assert!(
        matches!(rig.admit(&call), Admission::Queued(_)),
        "2,400 of 600 a minute: three minutes and a moment"
    );
}

// TN2-008: `Retry-After: 999999999` paused a client for 31 years.
#[test]
fn tn2_008_a_hostile_retry_after_is_capped() {
    let mut rig = Rig::new();
    let mut call = rig.call();
    let verdict =
        rig.fail(&mut call, Failure::new(FailureKind::Throttled).with_retry_after(seconds(999_999_999)));
    assert_eq!(verdict, Verdict::RetryAt { at: rig.now + seconds(300), delay: seconds(300) });
    assert_eq!(rig.stats().limiter.paused_until, Some(rig.now + seconds(300)));
}

// TN2-009/010: a pause holds, and its end wakes those who wait.
#[test]
fn tn2_009_010_a_pause_holds_and_its_end_wakes() {
    let mut rig = Rig::new();
    let mut call = rig.call();
    rig.fail(&mut call, Failure::new(FailureKind::Throttled).with_retry_after(seconds(7)));
    let waiting = rig.call();
    rig.queued(&waiting);
    rig.pass(6_999);
    assert!(rig.poll().is_none());
    assert_eq!(rig.pipeline.next_timeout(), Some(rig.now + std::time::Duration::from_millis(1)));
    rig.pass(1);
    assert!(rig.poll().is_some());
}

// TN2-014: a call is counted when it is sent, not when it is answered.
#[test]
fn tn2_014_a_call_is_charged_when_it_is_sent() {
    let mut rig = requests_only(2, 60);
    let _running = rig.exhaust(2);
    assert_eq!(rig.stats().limiter.requests_last_minute, 2);
    let call = rig.call();
    rig.queued(&call);
}

// TN2-016: settling while paused charged nothing.
#[test]
fn tn2_016_an_overrun_is_charged_while_paused() {
    let mut rig = Rig::with(|config| config.limiter.tokens = TokenLimits::Total(Some(600)));
    let mut running = rig.exhaust(2);
    let mut call = rig.call();
    let limited = Outcome::Failure(Failure::new(FailureKind::Throttled).with_retry_after(seconds(30)));
    let permit = running.pop().expect("two");
    rig.end(&mut call, permit, &limited);
    let usage = Usage { input_tokens: 600, ..Usage::default() };
    let permit = running.pop().expect("one");
    rig.end(&mut call, permit, &Outcome::Success { usage: Some(usage) });
    let start = rig.now;
    let call = rig.of_tokens(1);
    rig.queued(&call);
    assert!(
        rig.run()[0].0 > start + seconds(80),
        "ten a second from a level near minus six hundred, after the pause"
    );
}

// TN2-020: a cancelled permit recorded an outcome.
#[test]
fn tn2_020_a_cancelled_permit_records_no_outcome() {
    let mut rig = Rig::new();
    rig.repeat(4, &failure(FailureKind::Server));
    for permit in rig.exhaust(50) {
        rig.pipeline.cancel(permit, Spent::Sent { seen: None }, rig.now);
    }
    assert_eq!((rig.state(), rig.stats().breaker.failure_count), (BreakerState::Closed, 4));
}

// TN-003: dropping many keys took 1.8 ms under the lock. Here ids are bounded, and the rest share one state.
#[test]
fn tn_003_a_flood_of_models_is_bounded() {
    let mut rig = Rig::with(|config| config.limiter.requests_per_minute = None);
    for model in 0..100_000 {
        let call = rig.of_model(model * 40_000);
        let permit = rig.granted(&call);
        rig.pipeline.cancel(permit, Spent::Nothing, rig.now);
    }
    assert_eq!(rig.stats().limiter.concurrent_requests, 0);
}

#[test]
fn a_model_that_is_held_back_holds_back_nobody_else() {
    let mut rig = Rig::new();
    let limits = ModelLimits { requests_per_minute: Some(1), ..Default::default() };
    rig.pipeline.limit_model(ModelId(7), limits, rig.now);
    let (seven, eight) = (rig.of_model(7), rig.of_model(8));
    let _first = rig.granted(&seven);
    let start = rig.now;
    let waiting = rig.queued(&seven);
    let _others: Vec<_> = (0..59).map(|_| rig.granted(&eight)).collect();
    let behind = rig.queued(&eight);
    assert_eq!(rig.pipeline.head(), Some(waiting), "it has waited longest");
    let answers = rig.run();
    assert_eq!((answers[0].0, answers[0].1), (start + seconds(1), behind));
    assert_eq!((answers[1].0, answers[1].1), (start + seconds(60), waiting));
}

#[test]
fn waiters_held_back_by_their_own_model_do_not_darken_another_model_s_forecast() {
    let mut rig = Rig::new();
    let limits = ModelLimits { requests_per_minute: Some(1), ..Default::default() };
    rig.pipeline.limit_model(ModelId(7), limits, rig.now);
    let (seven, eight) = (rig.of_model(7), rig.of_model(8));
    let _first = rig.granted(&seven);
    for waiters in [100, 400] {
        let _waiting: Vec<_> = (0..waiters).map(|_| rig.queued(&seven)).collect();
        let soon = Call { admit_by: rig.now, ..eight.clone() };
        let _permit = rig.granted(&soon);
    }
    let _others: Vec<_> = (0..57).map(|_| rig.granted(&eight)).collect();
    let (too_soon, in_time) = (rig.within(0), rig.within(1));
    let earliest = rig.now + seconds(1);
    assert_eq!(
        rig.rejected(&too_soon),
        Rejection::DeadlineTooSoon { earliest, dimension: Dimension::Requests }
    );
    rig.queued(&in_time);
}

#[test]
fn what_can_never_fit_is_said_immediately() {
    let mut rig = Rig::with(|config| config.limiter.charge = ChargeRule::Estimate);
    let call = rig.of_tokens(100_001);
    let expected =
        Rejection::ExceedsCapacity { dimension: Dimension::Tokens, limit: 100_000, requested: 100_001 };
    assert_eq!(rig.rejected(&call), expected);
    let huge = Call { demand: Demand { input_tokens: 1, max_output_tokens: Some(u64::MAX) }, ..rig.call() };
    assert!(matches!(rig.rejected(&huge), Rejection::ExceedsCapacity { requested: u64::MAX, .. }));
    assert!(rig.events().is_empty(), "no limit was hit: it is this call that is too large");

    let mut none = requests_only(0, 60);
    let call = none.call();
    assert!(matches!(
        none.rejected(&call),
        Rejection::ExceedsCapacity { dimension: Dimension::Requests, limit: 0, .. }
    ));
}

#[test]
fn a_call_above_the_burst_and_within_the_minute_goes_when_the_bucket_is_full() {
    let mut rig = tokens_only();
    let start = rig.now;
    let large = rig.of_tokens(600);
    let _permit = rig.granted(&large);
    let small = rig.of_tokens(1);
    rig.queued(&small);
    rig.queued(&large);
    let times: Vec<_> =
        rig.run().iter().map(|(when, _, _)| when.saturating_since(start).as_millis()).collect();
    assert_eq!(
        times,
        [59_100, 60_110],
        "the next ones pay: 590 owed, then full again, and for a while already"
    );
}

#[test]
fn a_wait_of_zero_means_never() {
    let mut rig = Rig::with(|config| config.limiter.max_concurrent = Some(1));
    let call = rig.within(0);
    let running = rig.granted(&call);
    let why = rig.rejected(&call);
    assert!(matches!(
        why,
        Rejection::DeadlineTooSoon { earliest, dimension: Dimension::Concurrency } if earliest > rig.now
    ));
    rig.pipeline.cancel(running, Spent::Nothing, rig.now);
    let _permit = rig.granted(&call);
}

#[test]
fn retries_may_wait_up_to_the_deadline() {
    let mut rig = requests_only(60, 1);
    let _permits = rig.exhaust(1);
    let first = rig.within(0);
    assert!(matches!(rig.admit(&first), Admission::Rejected(_)));
    let retry = Call { attempts: 1, ..first };
    rig.queued(&retry);
}

#[test]
fn the_queue_is_bounded() {
    let mut rig = Rig::with(|config| {
        config.limiter.requests_per_minute = Some(60);
        config.limiter.burst = seconds(1);
        config.limiter.max_queue = 5;
    });
    let _permits = rig.exhaust(1);
    let call = rig.call();
    let _tickets: Vec<_> = (0..5).map(|_| rig.queued(&call)).collect();
    assert_eq!(rig.rejected(&call), Rejection::QueueFull { earliest: rig.now + seconds(6) });
}

#[test]
fn the_forecast_of_a_long_queue_is_as_exact_as_that_of_a_short_one() {
    let mut rig = requests_only(60, 1);
    let _permits = rig.exhaust(1);
    let call = rig.call();
    for place in 1..=1_000 {
        let probe = rig.within(0);
        let earliest = rig.now + seconds(place);
        assert_eq!(
            rig.rejected(&probe),
            Rejection::DeadlineTooSoon { earliest, dimension: Dimension::Requests }
        );
        rig.queued(&call);
    }
}

#[test]
fn a_freed_slot_goes_to_the_head_at_once() {
    let mut rig = Rig::with(|config| config.limiter.max_concurrent = Some(1));
    let mut running = rig.exhaust(1);
    let call = rig.call();
    let (first, second) = (rig.queued(&call), rig.queued(&call));
    assert_eq!(
        rig.pipeline.next_timeout(),
        Some(FAR + std::time::Duration::from_nanos(1)),
        "only their deadlines"
    );
    let mut ended = rig.call();
    let permit = running.pop().expect("one");
    rig.end(&mut ended, permit, &success());
    let (ticket, permit) = rig.poll().expect("the slot is free");
    assert_eq!(ticket, first);
    assert!(rig.poll().is_none());
    rig.pipeline.cancel(permit.expect("granted"), Spent::Nothing, rig.now);
    assert_eq!(rig.poll().expect("again").0, second);
}

#[test]
fn extremes_of_the_limits_do_no_harm() {
    for limit in [1, u64::MAX] {
        for tokens in [0, 1, u64::MAX] {
            let mut rig = Rig::with(|config| {
                config.limiter.requests_per_minute = Some(limit);
                config.limiter.tokens = TokenLimits::Total(Some(limit));
            });
            let call = rig.of_tokens(tokens);
            for now in [Timestamp::ZERO, Timestamp::from_secs(2_000), Timestamp::MAX] {
                rig.now = now;
                if let Admission::Granted(permit) = rig.admit(&call) {
                    let usage =
                        Usage { input_tokens: u64::MAX, cached_input_tokens: 0, output_tokens: u64::MAX };
                    rig.end(&mut call.clone(), permit, &Outcome::Success { usage: Some(usage) });
                }
                rig.poll_all();
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arrive { tokens: u64, model: u32, wait: u64 },
    End(usize, u8, u64),
    Leave(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0u64..120, 0u32..3, 0u64..90).prop_map(|(tokens, model, wait)| Step::Arrive { tokens, model, wait }),
        4 => (0usize..16, 0u8..4, 0u64..200).prop_map(|(which, how, used)| Step::End(which, how, used)),
        1 => (0usize..16).prop_map(Step::Leave),
        3 => (0u64..5_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..250)
}

proptest! {
    /// Never more than depth and rate in any window, first come first served in each model, nothing left at the end.
    #[test]
    fn the_limiter_keeps_its_promises_on_any_walk(steps in steps()) {
        let mut rig = Rig::with(|config| {
            config.limiter.requests_per_minute = Some(120);
            config.limiter.tokens = TokenLimits::Total(Some(1_200));
            config.limiter.burst = seconds(6);
            config.limiter.max_concurrent = Some(4);
        });
        rig.pipeline.limit_model(ModelId(2), ModelLimits { max_concurrent: Some(2), ..Default::default() }, rig.now);
        let mut running: Vec<(Permit, usize)> = Vec::new();
        let mut waiting: Vec<(Ticket, u32)> = Vec::new();
        let mut grants: Vec<Option<Timestamp>> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(millis) => rig.pass(millis),
                Step::Arrive { tokens, model, wait } => {
                    let call = Call { model: ModelId(model), admit_by: rig.now + seconds(wait), ..rig.of_tokens(tokens) };
                    match rig.admit(&call) {
                        Admission::Granted(permit) => {
                            prop_assert!(!waiting.iter().any(|(_, lane)| *lane == model), "overtook its own model");
                            running.push((permit, grants.len()));
                            grants.push(Some(rig.now));
                        }
                        Admission::Queued(ticket) => waiting.push((ticket, model)),
                        Admission::Rejected(Rejection::DeadlineTooSoon { .. }) => {}
                        Admission::Rejected(other) => prop_assert!(false, "{other:?}"),
                    }
                }
                Step::End(which, how, used) if !running.is_empty() => {
                    let (permit, number) = running.swap_remove(which % running.len());
                    let usage = Usage { input_tokens: used, ..Usage::default() };
                    match how {
                        0 => rig.pipeline.cancel(permit, Spent::Nothing, rig.now),
                        1 => rig.pipeline.cancel(permit, Spent::Sent { seen: Some(usage) }, rig.now),
                        2 => drop(rig.end(&mut rig.call(), permit, &Outcome::Success { usage: Some(usage) })),
                        _ => drop(rig.end(&mut rig.call(), permit, &failure(FailureKind::Invalid))),
                    }
                    // What was never sent does not count toward the provider's window.
                    if how == 0 {
                        grants[number] = None;
                    }
                }
                Step::Leave(which) if !waiting.is_empty() => {
                    let (ticket, ..) = waiting.remove(which % waiting.len());
                    rig.pipeline.leave(ticket, rig.now);
                }
                _ => {}
            }
            for (ticket, answer) in rig.poll_all() {
                let place = waiting.iter().position(|(waits, ..)| *waits == ticket);
                prop_assert!(place.is_some(), "answered twice, or after it left");
                let (_, model) = waiting.remove(place.expect("checked"));
                if let Ok(permit) = answer {
                    prop_assert!(!waiting.iter().any(|(other, lane)| *lane == model && *other < ticket));
                    running.push((permit, grants.len()));
                    grants.push(Some(rig.now));
                }
            }
            let stats = rig.stats().limiter;
            prop_assert_eq!(stats.concurrent_requests, running.len() as u64);
            prop_assert_eq!(stats.queued, waiting.len() as u64);
            prop_assert!(running.len() <= 4);
            prop_assert!(rig.pipeline.next_timeout().is_none_or(|at| at > rig.now), "a busy loop");
        }
        // 120 a minute, 12 deep.
        let grants: Vec<Timestamp> = grants.into_iter().flatten().collect();
        for (first, from) in grants.iter().enumerate() {
            for (count, to) in grants[first..].iter().enumerate() {
                let flowed = to.saturating_since(*from).as_millis() * 2 / 1_000;
                prop_assert!((count as u128) < 12 + flowed + 1);
            }
        }
        // Everything is returned: no permit, no place and no slot is left.
        running.into_iter().for_each(|(permit, _)| rig.pipeline.cancel(permit, Spent::Nothing, rig.now));
        waiting.into_iter().for_each(|(ticket, ..)| rig.pipeline.leave(ticket, rig.now));
        let stats = rig.stats();
        prop_assert_eq!((stats.limiter.concurrent_requests, stats.limiter.queued), (0, 0));
        prop_assert_eq!(rig.pipeline.next_timeout(), None);
        prop_assert_eq!(stats.breaker.transitions, 0);
    }

    /// Against an exact model of one limit: who goes when, with nobody leaving, is what a ruler would say.
    #[test]
    fn waiting_times_are_those_of_an_exact_model(arrivals in prop::collection::vec((0u64..2_000, 1u64..10), 1..60)) {
        let mut rig = tokens_only();
        let start = rig.now;
        let mut expected: Vec<u64> = Vec::new();
        // Ten deep, ten a second, in thousandths of a token and milliseconds.
        let (mut level, mut last, mut clock) = (10_000u64, 0u64, 0u64);
        let mut actual = Vec::new();
        let mut tickets = std::collections::BTreeMap::new();
        let absorb = |rig: &mut Rig, until: Timestamp, tickets: &mut std::collections::BTreeMap<Ticket, usize>, actual: &mut Vec<(usize, u64)>| {
            while let Some(at) = rig.pipeline.next_timeout().filter(|at| *at <= until) {
                rig.now = at;
                for (ticket, answer) in rig.poll_all() {
                    assert!(answer.is_ok());
                    let index = tickets.remove(&ticket).expect("queued");
                    actual.push((index, rig.now.saturating_since(start).as_millis() as u64));
                }
            }
            rig.now = until;
        };
        for (index, (gap, tokens)) in arrivals.iter().enumerate() {
            clock += gap;
            // The model: served at the first millisecond at which the level suffices, never before the one in front.
            let from = clock.max(last);
            level = (level + (from - last) * 10).min(10_000);
            let missing = (tokens * 1_000).saturating_sub(level);
            let when = from + missing.div_ceil(10);
            level = (level + (when - from) * 10).min(10_000) - tokens * 1_000;
            last = when;
            expected.push(when);
            absorb(&mut rig, start + std::time::Duration::from_millis(clock), &mut tickets, &mut actual);
            let call = rig.of_tokens(*tokens);
            match rig.admit(&call) {
                Admission::Granted(_permit) => actual.push((index, clock)),
                Admission::Queued(ticket) => drop(tickets.insert(ticket, index)),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        absorb(&mut rig, start + seconds(500_000), &mut tickets, &mut actual);
        actual.sort_unstable();
        let actual: Vec<u64> = actual.into_iter().map(|(_, when)| when).collect();
        prop_assert_eq!(actual, expected);
    }
}
