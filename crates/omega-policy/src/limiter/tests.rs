//! Charges, estimates and learning. Waiting and fairness are in tests/limiter.rs, through the pipeline.

use super::*;
use crate::{Failure, FailureKind, Usage};

mod walk;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

fn limiter(change: impl FnOnce(&mut LimiterConfig)) -> RateLimiter {
    let mut config =
        LimiterConfig { burst: Duration::from_secs(60), depth_margin: Duration::ZERO, ..Default::default() };
    change(&mut config);
    let mut limiter = RateLimiter::new(config, at(0));
    limiter.slot(ModelId(3));
    limiter
}

fn charged_by(charge: ChargeRule) -> RateLimiter {
    limiter(|config| config.charge = charge)
}

fn demand(input: u64, max: impl Into<Option<u64>>) -> Demand {
    Demand { input_tokens: input, max_output_tokens: max.into() }
}

fn usage(input: u64, cached: u64, output: u64) -> Usage {
    Usage { input_tokens: input, cached_input_tokens: cached, output_tokens: output }
}

fn spent(limiter: &RateLimiter, dimension: Dimension) -> i128 {
    let bucket = limiter.quotas.bucket(dimension).expect("limited");
    i128::from(bucket.limit()) - bucket.tokens()
}

fn sent(limiter: &mut RateLimiter, input: u64, max: u64) -> Reservation {
    let load = limiter.estimate(0, demand(input, max));
    assert!(limiter.provider_fits(load.reserve, at(0)));
    limiter.take(0, load, at(0))
}

/// A call of these tokens, reserved and used.
fn load(input: u64, output: u64) -> Load {
    Load { reserve: Cost::of_call(input, output), output }
}

/// Headers in the answer to a call that was let go at that very moment.
fn hinted(limiter: &mut RateLimiter, slot: usize, hint: &QuotaHint, now: Timestamp, events: &mut Events) {
    let reservation = Reservation { load: Load::default(), granted: now, own: 0, observed: 0 };
    limiter.handle_hint(slot, &reservation, hint, now, events);
}

#[test]
fn the_defaults_are_those_of_a_provider_nobody_named() {
    let config = LimiterConfig::default();
    assert_eq!(config.requests_per_minute, Some(60));
    assert_eq!(config.tokens, TokenLimits::Total(Some(100_000)));
    assert_eq!(config.max_concurrent, Some(10));
    assert_eq!((config.burst, config.depth_margin), (Duration::from_secs(6), Duration::from_millis(500)));
}

#[test]
fn an_answer_is_settled_by_the_provider_s_charge_rule() {
    // Reserved 1,000 + 4,000; used 900 + 300.
    for (charge, tokens) in
        [(ChargeRule::Estimate, 5_000), (ChargeRule::EstimateThenRefund, 1_200), (ChargeRule::Actual, 1_200)]
    {
        let mut limiter = charged_by(charge);
        let reservation = sent(&mut limiter, 1_000, 4_000);
        limiter.settle(0, reservation, Some(usage(900, 0, 300)), true, at(0));
        assert_eq!(spent(&limiter, Dimension::Tokens), tokens, "{charge:?}");
        assert_eq!(spent(&limiter, Dimension::Requests), 1);
        assert_eq!(limiter.stats(at(0)).tokens_last_minute as i128, tokens);
        assert_eq!(limiter.stats(at(0)).concurrent_requests, 0);
    }
}

#[test]
fn what_was_used_beyond_the_reservation_is_owed() {
    let mut limiter = limiter(|_| {});
    let reservation = sent(&mut limiter, 1_000, 10);
    limiter.settle(0, reservation, Some(usage(1_000, 0, 150_000)), true, at(0));
    assert_eq!(spent(&limiter, Dimension::Tokens), 151_000, "the level may go below zero");
}

#[test]
fn an_answer_without_usage_keeps_its_reservation() {
    let mut limiter = limiter(|_| {});
    let reservation = sent(&mut limiter, 1_000, 500);
    limiter.settle(0, reservation, None, true, at(0));
    assert_eq!(spent(&limiter, Dimension::Tokens), 1_500);
}

#[test]
fn each_provider_counts_its_own_tokens() {
    for (counted, tokens) in [
        (CountedTokens::All, 1_200),
        (CountedTokens::WithoutCacheReads, 400),
        (CountedTokens::InputOnly, 1_000),
    ] {
        let mut limiter = limiter(|config| config.counted = counted);
        let reservation = sent(&mut limiter, 1_000, 500);
        limiter.settle(0, reservation, Some(usage(1_000, 800, 200)), true, at(0));
        assert_eq!(spent(&limiter, Dimension::Tokens), tokens, "{counted:?}");
    }
}

#[test]
fn separate_limits_are_charged_separately() {
    let mut limiter = limiter(|config| {
        config.tokens = TokenLimits::Split { input: Some(50_000), output: Some(10_000) };
        config.counted = CountedTokens::WithoutCacheReads;
    });
    let reservation = sent(&mut limiter, 1_000, 500);
    assert_eq!(
        (spent(&limiter, Dimension::InputTokens), spent(&limiter, Dimension::OutputTokens)),
        (1_000, 0),
        "output counts as it is written"
    );
    limiter.settle(0, reservation, Some(usage(1_000, 600, 700)), true, at(0));
    assert_eq!(
        (spent(&limiter, Dimension::InputTokens), spent(&limiter, Dimension::OutputTokens)),
        (400, 700)
    );
}

#[test]
fn a_failure_is_charged_as_its_row_and_the_rule_say() {
    use ChargeRule::{Actual, Estimate, EstimateThenRefund};
    let seen = Some(usage(1_000, 0, 70));
    // (kind, seen, charged of 1,000 + 500 under Estimate, EstimateThenRefund, Actual)
    let rows = [
        (FailureKind::Throttled, None, [0, 0, 0]),
        (FailureKind::OutOfQuota, None, [0, 0, 0]),
        (FailureKind::Overloaded, None, [1_500, 1_000, 1_000]),
        (FailureKind::Transient, None, [0, 0, 0]),
        (FailureKind::Server, None, [1_500, 1_000, 1_000]),
        (FailureKind::Timeout, None, [1_500, 1_500, 1_500]),
        (FailureKind::Transport, None, [0, 0, 0]),
        (FailureKind::StreamBroken, None, [1_500, 1_000, 1_000]),
        (FailureKind::StreamBroken, seen, [1_500, 1_070, 1_070]),
        (FailureKind::Auth, None, [0, 0, 0]),
        (FailureKind::Invalid, None, [0, 0, 0]),
        (FailureKind::UnknownModel, None, [0, 0, 0]),
        (FailureKind::ContextLength, None, [0, 0, 0]),
        (FailureKind::ContentFilter, seen, [1_500, 1_070, 1_070]),
    ];
    for (kind, seen, expected) in rows {
        for (rule, expected) in [Estimate, EstimateThenRefund, Actual].into_iter().zip(expected) {
            let mut limiter = charged_by(rule);
            let reservation = sent(&mut limiter, 1_000, 500);
            let failure = Failure { seen, ..Failure::new(kind) };
            limiter.settle_failed(0, reservation, &failure, at(0));
            assert_eq!(spent(&limiter, Dimension::Tokens), expected, "{kind:?} {rule:?}");
            assert_eq!(spent(&limiter, Dimension::Requests), 1, "the request stays charged");
            assert_eq!(limiter.in_flight, 0);
        }
    }
}

#[test]
fn what_was_never_sent_leaves_everything_as_it_was() {
    let mut limiter = limiter(|_| {});
    limiter.limit_model(0, &ModelLimits { tokens_per_minute: Some(9_000), ..Default::default() }, at(0));
    let before = (spent(&limiter, Dimension::Requests), spent(&limiter, Dimension::Tokens));
    let reservation = sent(&mut limiter, 1_000, 500);
    limiter.put_back(0, reservation, at(0));
    assert_eq!((spent(&limiter, Dimension::Requests), spent(&limiter, Dimension::Tokens)), (0, 0));
    assert!(before.0 <= 0 && before.1 <= 0, "full, and for a while already");
    assert_eq!(limiter.last_minute(at(0)), (0, 0));
    assert_eq!(limiter.models[0].in_flight, 0);
    let own = limiter.models[0].limits.as_ref().expect("limited");
    assert_eq!(own.quotas.bucket(Dimension::Tokens).expect("limited").tokens(), 9_000);
}

#[test]
fn an_abandoned_call_keeps_at_least_its_input() {
    for (seen, tokens) in [(None, 1_000), (Some(usage(0, 0, 40)), 1_040), (Some(usage(1_200, 0, 40)), 1_240)]
    {
        let mut limiter = limiter(|_| {});
        let reservation = sent(&mut limiter, 1_000, 500);
        limiter.settle_abandoned(0, reservation, seen, at(0));
        assert_eq!(spent(&limiter, Dimension::Tokens), tokens);
    }
    let mut limiter = charged_by(ChargeRule::Estimate);
    let reservation = sent(&mut limiter, 1_000, 500);
    limiter.settle_abandoned(0, reservation, None, at(0));
    assert_eq!(spent(&limiter, Dimension::Tokens), 1_500, "charged in advance and never returned");
}

#[test]
fn output_is_estimated_by_what_the_model_lately_wrote() {
    let mut limiter = limiter(|_| {});
    assert_eq!(limiter.estimate(0, demand(100, None)).output, 1_024, "nothing is known yet");
    assert_eq!(limiter.estimate(0, demand(100, 50)).output, 50, "the caller's bound is tighter");
    assert_eq!(limiter.estimate(0, demand(100, 1_000_000)).output, 1_024, "it is not charged in advance");
    for _ in 0..50 {
        let reservation = sent(&mut limiter, 100, 50);
        limiter.settle(0, reservation, Some(usage(100, 0, 200)), true, at(0));
        limiter.recent = Recent::new();
        limiter.quotas = Quotas::new(
            Some(60),
            TokenLimits::Total(Some(100_000)),
            Duration::from_secs(60),
            Duration::ZERO,
            at(0),
        );
    }
    assert_eq!(limiter.estimate(0, demand(100, None)).output, 200);
    assert_eq!(limiter.estimate(1, demand(100, None)).output, 1_024, "another model is not known by it");
    for _ in 0..1_000 {
        limiter.models[0].learn(400);
    }
    let learned = limiter.estimate(0, demand(100, None)).output;
    assert!((399..=400).contains(&learned), "it follows a change: {learned}");
}

#[test]
fn a_guess_is_at_most_a_quarter_of_the_limit_and_makes_nothing_impossible() {
    let mut limiter = limiter(|config| {
        config.charge = ChargeRule::Estimate;
        config.tokens = TokenLimits::Total(Some(2_000));
    });
    assert_eq!(limiter.estimate(0, demand(100, None)).reserve.output, 500);
    let cost = limiter.estimate(0, demand(1_990, None)).reserve;
    assert_eq!(cost, Cost::of_call(1_990, 10));
    assert_eq!(limiter.exceeded(0, cost), None);
    limiter.models[0].learn(u64::MAX);
    assert_eq!(limiter.estimate(0, demand(0, None)).reserve.output, 500);
}

#[test]
fn a_huge_max_tokens_never_fits_only_where_it_is_charged_in_advance() {
    for (charge, exceeds) in
        [(ChargeRule::Estimate, true), (ChargeRule::EstimateThenRefund, true), (ChargeRule::Actual, false)]
    {
        let limiter = charged_by(charge);
        let cost = limiter.estimate(0, demand(10, u64::MAX)).reserve;
        assert_eq!(limiter.exceeded(0, cost).is_some(), exceeds, "{charge:?}");
    }
    let input_only = limiter(|config| {
        config.charge = ChargeRule::Estimate;
        config.counted = CountedTokens::InputOnly;
    });
    let cost = input_only.estimate(0, demand(10, u64::MAX)).reserve;
    assert_eq!(input_only.exceeded(0, cost), None);
}

#[test]
fn the_last_minute_is_sixty_one_second_slots() {
    let mut limiter = limiter(|_| {});
    for second in 0..120 {
        limiter.recent.sent(10, at(second));
    }
    assert_eq!(limiter.last_minute(at(119)), (60, 600));
    assert_eq!(limiter.last_minute(at(150)), (29, 290));
    assert_eq!(limiter.last_minute(at(178)), (1, 10));
    assert_eq!(limiter.last_minute(at(179)), (0, 0));
}

#[test]
fn observed_limits_tighten_only_their_model_and_expire() {
    let mut limiter = limiter(|_| {});
    let mut events = Events::default();
    let hint = QuotaHint {
        requests: Some(HintedQuota { limit: Some(6), remaining: Some(0), reset: None }),
        ..QuotaHint::default()
    };
    hinted(&mut limiter, 1, &hint, at(0), &mut events);
    let cost = Cost::of_call(1, 1);
    assert!(!limiter.model_fits(1, cost, at(0)));
    assert!(!limiter.model_fits(1, cost, at(9)));
    assert!(limiter.model_fits(1, cost, at(10)), "six per minute is one in ten seconds");
    assert!(
        limiter.model_fits(2, cost, at(0)) && limiter.provider_fits(cost, at(0)),
        "nobody else is slowed"
    );
    hinted(&mut limiter, 1, &hint, at(20), &mut events);
    assert!(!limiter.model_fits(1, cost, at(20)));
    assert!(limiter.model_fits(1, cost, at(320)));
    assert!(limiter.models[1].observed.is_none(), "five minutes without a word");
    assert!(events.pop().is_none());
}

#[test]
fn headers_never_raise_a_configured_limit_and_say_once_that_it_looks_low() {
    let mut limiter = limiter(|_| {});
    let mut events = Events::default();
    let _in_flight = sent(&mut limiter, 10, 10);
    limiter.quotas.drain(Some(Dimension::Requests), at(0), at(0));
    let quota = Some(HintedQuota { limit: Some(10_000), remaining: Some(9_999), reset: None });
    let hint = QuotaHint { requests: quota, tokens: None, ..QuotaHint::default() };
    for _ in 0..3 {
        hinted(&mut limiter, 0, &hint, at(0), &mut events);
    }
    assert!(!limiter.provider_fits(Cost::of_call(1, 1), at(0)), "60 a minute stay 60 a minute");
    assert_eq!(
        events.pop(),
        Some(Event::LimitLooksLow { dimension: Dimension::Requests, configured: 60, observed: 10_000 })
    );
    assert_eq!(events.pop(), None);
    assert_eq!(limiter.stats(at(0)).observed_limits, (Some(10_000), None));
}

#[test]
fn headers_of_the_very_limit_may_raise_the_level_to_what_remains_beside_the_calls_in_flight() {
    let mut limiter = limiter(|_| {});
    let mut events = Events::default();
    let _in_flight = sent(&mut limiter, 10, 10);
    limiter.quotas.drain(Some(Dimension::Requests), at(0), at(0));
    let quota = Some(HintedQuota { limit: Some(60), remaining: Some(30), reset: None });
    let hint = QuotaHint { requests: quota, ..QuotaHint::default() };
    hinted(&mut limiter, 0, &hint, at(0), &mut events);
    assert_eq!(limiter.quotas.bucket(Dimension::Requests).expect("limited").tokens(), 29);

    // With a second model in play, one model's remainder says nothing about the whole.
    limiter.take(1, load(1, 1), at(0));
    limiter.quotas.drain(Some(Dimension::Requests), at(0), at(0));
    hinted(&mut limiter, 0, &hint, at(0), &mut events);
    assert_eq!(limiter.quotas.bucket(Dimension::Requests).expect("limited").tokens(), 0);
}

#[test]
fn another_program_s_spending_shows_in_the_headers_and_slows_us() {
    let mut limiter = limiter(|_| {});
    let quota = Some(HintedQuota { limit: Some(60), remaining: Some(2), reset: None });
    hinted(
        &mut limiter,
        0,
        &QuotaHint { requests: quota, ..QuotaHint::default() },
        at(0),
        &mut Events::default(),
    );
    let cost = Cost::of_call(1, 1);
    for _ in 0..2 {
        assert!(limiter.model_fits(0, cost, at(0)));
        limiter.take(0, load(1, 1), at(0));
    }
    assert!(!limiter.model_fits(0, cost, at(0)));
    assert!(limiter.model_fits(0, cost, at(1)));
}

#[test]
fn a_reservation_is_settled_only_with_the_buckets_it_was_taken_from() {
    let mut limiter = limiter(|_| {});
    let reservation = sent(&mut limiter, 1_000, 500);
    limiter.limit_model(0, &ModelLimits { tokens_per_minute: Some(60_000), ..Default::default() }, at(0));
    limiter.models[0].take(load(30_000, 0), at(0));
    limiter.put_back(0, reservation, at(0));
    let own = limiter.models[0].limits.as_ref().expect("limited");
    assert_eq!(
        own.quotas.bucket(Dimension::Tokens).expect("limited").tokens(),
        30_000,
        "nothing was refunded here"
    );
}

#[test]
fn ids_beyond_the_bound_share_one_state() {
    let mut limiter = limiter(|_| {});
    assert_eq!(limiter.slot(ModelId(u32::MAX)), 0);
    assert_eq!(limiter.slot(ModelId(4_096)), 0);
    assert_eq!(limiter.slot(ModelId(4_095)), 4_095);
    assert_eq!(limiter.models.len(), 4_096);
}

#[test]
fn a_limit_of_zero_in_a_header_means_unknown() {
    let mut limiter = limiter(|_| {});
    let quota = Some(HintedQuota { limit: Some(0), remaining: Some(0), reset: None });
    hinted(
        &mut limiter,
        0,
        &QuotaHint { requests: quota, ..QuotaHint::default() },
        at(0),
        &mut Events::default(),
    );
    assert!(limiter.model_fits(0, Cost::of_call(1, 1), at(0)));
    assert_eq!(limiter.stats(at(0)).observed_limits, (None, None));
}

#[test]
fn an_answer_nobody_bounded_is_settled_by_what_it_used_under_every_rule() {
    for charge in [ChargeRule::Estimate, ChargeRule::EstimateThenRefund, ChargeRule::Actual] {
        let mut limiter = charged_by(charge);
        let load = limiter.estimate(0, demand(1_000, None));
        let reservation = limiter.take(0, load, at(0));
        let reserved = if charge == ChargeRule::Actual { 1_000 } else { 2_024 };
        assert_eq!(
            spent(&limiter, Dimension::Tokens),
            reserved,
            "a guess, where output is charged in advance"
        );
        limiter.settle(0, reservation, Some(usage(1_000, 0, 30)), false, at(0));
        assert_eq!(spent(&limiter, Dimension::Tokens), 1_030, "{charge:?}");
    }
}

#[test]
fn input_that_came_from_the_cache_altogether_is_charged_nothing_when_a_stream_breaks() {
    let mut limiter = limiter(|config| config.counted = CountedTokens::WithoutCacheReads);
    let reservation = sent(&mut limiter, 1_000, 500);
    let failure = Failure { seen: Some(usage(1_000, 1_000, 7)), ..Failure::new(FailureKind::StreamBroken) };
    limiter.settle_failed(0, reservation, &failure, at(0));
    assert_eq!(spent(&limiter, Dimension::Tokens), 7);
}

fn shown(limit: u64, remaining: impl Into<Option<u64>>) -> Option<HintedQuota> {
    Some(HintedQuota { limit: Some(limit), remaining: remaining.into(), reset: None })
}

#[test]
fn an_observed_limit_that_changes_is_no_gift() {
    let mut limiter = limiter(|_| {});
    let (mut events, cost) = (Events::default(), Cost::of_call(1, 1));
    let mut granted = 0;
    for turn in 0..100 {
        let limit = if turn % 2 == 0 { 10 } else { 20 };
        let hint = QuotaHint { requests: shown(limit, None), ..QuotaHint::default() };
        hinted(&mut limiter, 0, &hint, at(0), &mut events);
        while limiter.model_fits(0, cost, at(0)) {
            limiter.take(0, load(1, 1), at(0));
            granted += 1;
        }
    }
    assert_eq!(granted, 10, "the depth of the first, once");
}

#[test]
fn each_observed_limit_expires_by_itself() {
    let mut limiter = limiter(|_| {});
    let (mut events, large) = (Events::default(), Cost::of_call(5_000, 0));
    let both = QuotaHint { requests: shown(30, 30), tokens: shown(600, 0), ..QuotaHint::default() };
    hinted(&mut limiter, 0, &both, at(0), &mut events);
    let requests = QuotaHint { requests: shown(30, 30), ..QuotaHint::default() };
    for second in (0..300).step_by(10) {
        hinted(&mut limiter, 0, &requests, at(second), &mut events);
        // A call deeper than the bucket goes when it is full, which takes a minute of 600.
        if limiter.model_fits(0, large, at(second)) {
            limiter.take(0, load(5_000, 0), at(second));
        }
    }
    assert!(!limiter.model_fits(0, large, at(299)));
    assert!(limiter.model_fits(0, large, at(300)), "nobody has spoken of tokens for five minutes");
    let observed = limiter.models[0].observed.as_ref().expect("requests are still spoken of");
    assert_eq!(observed.quotas.limit(Dimension::Requests), Some(30));
}

#[test]
fn after_a_429_what_is_given_back_does_not_fill_the_emptied_bucket() {
    // Five calls of 10 + 1,000 in flight; a sixth is told that the tokens are gone. The provider (rule `Actual`) has
    // charged the inputs and will charge outputs as they come.
    for (rule, expected) in [(ChargeRule::Actual, -5 * 100), (ChargeRule::EstimateThenRefund, 5 * 900)] {
        let mut limiter = charged_by(rule);
        let running: Vec<_> = (0..5).map(|_| sent(&mut limiter, 10, 1_000)).collect();
        limiter.throttled(None, Some(Dimension::Tokens), Duration::ZERO, at(0), &mut Events::default());
        for reservation in running {
            limiter.settle(0, reservation, Some(usage(10, 0, 100)), true, at(0));
        }
        let bucket = limiter.quotas.bucket(Dimension::Tokens).expect("limited");
        assert_eq!(
            bucket.tokens(),
            expected,
            "{rule:?}: nothing, less what they wrote, or plus what was reserved there"
        );
    }
}

#[test]
fn a_throttled_model_without_limits_of_its_own_resumes_paced() {
    let mut limiter = limiter(|_| {});
    let (mut events, cost) = (Events::default(), Cost::of_call(1, 1));
    for exhausted in [None, Some(Dimension::Requests)] {
        let from = if exhausted.is_none() { 0 } else { 1_000 };
        limiter.throttled(Some(1), exhausted, Duration::from_secs(20), at(from), &mut events);
        assert!(limiter.model_fits(2, cost, at(from)), "nobody else is slowed");
        let mut granted = vec![0; 25];
        for second in from..from + 25 {
            // At most ten at once, so that a storm fails the test instead of never ending it.
            for _ in 0..10 {
                if limiter.model_fits(1, cost, at(second)) {
                    limiter.take(1, load(1, 1), at(second));
                    granted[(second - from) as usize] += 1;
                }
            }
        }
        let first = if exhausted.is_none() { 3 } else { 2 };
        let expected = [vec![0; 20], vec![first], vec![1; 4]].concat();
        assert_eq!(
            granted, expected,
            "two seconds of quota when the pause ends, then one a second: no storm"
        );
    }
    limiter.throttled(Some(1), None, Duration::ZERO, at(2_000), &mut events);
    assert!(limiter.model_fits(1, Cost::of_call(1, 1), at(2_300)));
    assert!(limiter.models[1].observed.is_none(), "and it is forgotten");
}
