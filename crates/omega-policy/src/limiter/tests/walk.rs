//! Random walks beside a model that keeps every level as one exact number and looks its charges up in a table of its
//! own: whatever happened, in whatever order, no token was made or lost.

use proptest::prelude::*;

use super::*;
use crate::Scope;

/// Units in a token, and so the units that flow in per nanosecond and token of the limit.
const TOKEN: i128 = 60_000_000_000;

/// A bucket, naively.
#[derive(Clone, Copy, Debug)]
struct Level {
    limit: i128,
    depth: i128,
    level: i128,
    at: i128,
}

impl Level {
    fn full(limit: u64, burst_seconds: i128) -> Self {
        let (limit, nanos) = (i128::from(limit), burst_seconds * 1_000_000_000);
        let depth = (limit * nanos).max(TOKEN);
        let mut full = Self { limit, depth, level: depth, at: 0 };
        full.level = full.brim();
        full
    }

    /// Full for ten milliseconds: what a call deeper than the bucket waits for.
    fn brim(&self) -> i128 {
        self.depth + self.limit * 10_000_000
    }

    fn holds(&self, need: u64) -> bool {
        let need = i128::from(need) * TOKEN;
        self.level >= if need > self.depth { self.brim() } else { need }
    }

    fn take(&mut self, amount: u64) {
        self.level = self.level.min(self.depth) - i128::from(amount) * TOKEN;
    }

    fn pass(&mut self, now: i128) {
        if now > self.at {
            self.level = self.brim().min(self.level + self.limit * (now - self.at));
            self.at = now;
        }
    }

    /// Moves from what was reserved to what was charged.
    fn change(&mut self, reserved: u64, charged: u64) {
        let (reserved, charged) = (i128::from(reserved) * TOKEN, i128::from(charged) * TOKEN);
        let level = self.level + reserved - charged;
        // Given back: never above the depth. Owed: never more than five minutes, unless it was owed already.
        let floor = (-self.limit * 300 * 1_000_000_000).min(self.level);
        self.level =
            if charged <= reserved { level.min(self.depth.max(self.level)) } else { level.max(floor) };
    }

    fn empty(&mut self, keep: i128, from: i128) {
        self.level = self.level.min(keep);
        self.at = self.at.max(from);
    }
}

/// Requests, then all tokens, or input and output apart.
#[derive(Clone, Debug)]
struct Naive {
    rule: ChargeRule,
    split: bool,
    levels: Vec<Level>,
    /// The same of model 1's own: requests and tokens.
    own: Vec<Level>,
}

impl Naive {
    fn amounts(&self, requests: u64, input: u64, output: u64) -> Vec<u64> {
        if self.split { vec![requests, input, output] } else { vec![requests, input + output] }
    }

    fn pass(&mut self, now: u64) {
        self.levels.iter_mut().chain(&mut self.own).for_each(|level| level.pass(i128::from(now)));
    }

    fn take(&mut self, model: usize, cost: (u64, u64, u64)) {
        let amounts = self.amounts(cost.0, cost.1, cost.2);
        self.levels.iter_mut().zip(amounts).for_each(|(level, amount)| level.take(amount));
        if model == 1 {
            self.own[0].take(cost.0);
            self.own[1].take(cost.1 + cost.2);
        }
    }

    fn change(&mut self, model: usize, before: (u64, u64, u64), after: (u64, u64, u64)) {
        let from = self.amounts(before.0, before.1, before.2);
        let to = self.amounts(after.0, after.1, after.2);
        for (level, (from, to)) in self.levels.iter_mut().zip(from.into_iter().zip(to)) {
            level.change(from, to);
        }
        if model == 1 {
            self.own[0].change(before.0, after.0);
            self.own[1].change(before.1 + before.2, after.1 + after.2);
        }
    }
}

/// What a call that reserved `(input, output)` and was expected to write `expected` is charged in the end, by a table of
/// its own.
fn charged(
    rule: ChargeRule,
    end: &End,
    (input, output): (u64, u64),
    expected: u64,
    promised: bool,
) -> (u64, u64, u64) {
    use ChargeRule::Estimate;
    let most = |seen: (u64, u64)| (1, input.max(seen.0), output.max(seen.1));
    match (end, rule) {
        (End::Answered(None), _) => (1, input, expected),
        (End::Answered(Some(used)), Estimate) if promised => most(*used),
        (End::Answered(Some(used)), _) => (1, used.0, used.1),
        (End::Unsent, _) => (0, 0, 0),
        (End::Left(seen), Estimate) => most(seen.unwrap_or_default()),
        (End::Left(seen), _) => {
            let seen = seen.unwrap_or_default();
            (1, input.max(seen.0), seen.1)
        }
        (End::Failed(kind, seen), rule) => match kind {
            FailureKind::Timeout => {
                let (_, read, written) = most(seen.unwrap_or_default());
                (1, read, written.max(expected))
            }
            FailureKind::Overloaded
            | FailureKind::Server
            | FailureKind::StreamBroken
            | FailureKind::ContentFilter => match (rule, seen) {
                (Estimate, seen) => most(seen.unwrap_or_default()),
                (_, Some((read, written))) if *read > 0 => (1, *read, *written),
                (_, seen) => (1, input, seen.map_or(0, |seen| seen.1)),
            },
            _ => (1, 0, 0),
        },
    }
}

type Seen = Option<(u64, u64)>;

#[derive(Clone, Debug)]
enum End {
    Answered(Seen),
    Failed(FailureKind, Seen),
    Left(Seen),
    Unsent,
}

#[derive(Clone, Debug)]
enum Step {
    Admit { model: usize, input: u64, max: Option<u64> },
    End(usize, End),
    Throttle { hint: u64, named: Option<Dimension> },
    Pass(u64),
}

fn seen() -> impl Strategy<Value = Seen> {
    prop::option::of((0u64..3_000, 0u64..3_000))
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => seen().prop_map(End::Answered),
        3 => (prop::sample::select(FailureKind::ALL.to_vec()), seen()).prop_map(|(kind, seen)| End::Failed(kind, seen)),
        1 => seen().prop_map(End::Left),
        1 => Just(End::Unsent),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let named = prop::option::of(prop::sample::select(vec![
        Dimension::Requests,
        Dimension::Tokens,
        Dimension::InputTokens,
        Dimension::OutputTokens,
    ]));
    let step = prop_oneof![
        6 => (0usize..3, 0u64..4_000, prop::option::of(0u64..4_000))
            .prop_map(|(model, input, max)| Step::Admit { model, input, max }),
        5 => (0usize..16, ends()).prop_map(|(which, end)| Step::End(which, end)),
        1 => (0u64..20, named).prop_map(|(hint, named)| Step::Throttle { hint, named }),
        // Odd nanoseconds on purpose: nothing may be rounded away.
        3 => (0u64..20_000_000_123).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

fn both(rule: ChargeRule, split: bool) -> (RateLimiter, Naive) {
    let mut limiter = limiter(|config| {
        config.charge = rule;
        config.requests_per_minute = Some(70);
        config.tokens = TokenLimits::Total(Some(41_000));
        if split {
            config.tokens = TokenLimits::Split { input: Some(31_000), output: Some(17_000) };
        }
        config.burst = Duration::from_secs(20);
        config.max_concurrent = None;
    });
    let limits = ModelLimits {
        requests_per_minute: Some(50),
        tokens_per_minute: Some(23_000),
        ..ModelLimits::default()
    };
    limiter.limit_model(1, &limits, at(0));
    let shared = if split { vec![70, 31_000, 17_000] } else { vec![70, 41_000] };
    let full = |limits: Vec<u64>| limits.into_iter().map(|limit| Level::full(limit, 20)).collect();
    (limiter, Naive { rule, split, levels: full(shared), own: full(vec![50, 23_000]) })
}

/// The limiter's levels, in the order of the model's, as of `now`.
fn levels(limiter: &mut RateLimiter, now: Timestamp) -> (Vec<i128>, Vec<i128>) {
    use Dimension::{InputTokens, OutputTokens, Requests, Tokens};
    let read = |quotas: &mut Quotas| {
        let dimensions = [Requests, Tokens, InputTokens, OutputTokens];
        let mut levels = Vec::new();
        for dimension in dimensions {
            if let Some(bucket) = quotas.bucket_mut(dimension) {
                bucket.refill(now);
                levels.push(bucket.level());
            }
        }
        levels
    };
    let own = limiter.models[1].limits.as_mut().map(|own| read(&mut own.quotas));
    (read(&mut limiter.quotas), own.expect("limited"))
}

fn as_usage(seen: (u64, u64)) -> Usage {
    usage(seen.0, 0, seen.1)
}

proptest! {
    #[test]
    fn levels_are_those_of_an_exact_model_after_any_history(
        rule in prop::sample::select(vec![ChargeRule::Estimate, ChargeRule::EstimateThenRefund, ChargeRule::Actual]),
        split in any::<bool>(),
        steps in steps(),
    ) {
        let (mut limiter, mut naive) = both(rule, split);
        let mut running: Vec<(usize, Reservation, bool)> = Vec::new();
        let (mut now, mut events) = (Timestamp::ZERO, Events::default());
        for step in steps {
            match step {
                Step::Pass(nanos) => now = now + Duration::from_nanos(nanos),
                Step::Admit { model, input, max } => {
                    naive.pass(now.as_nanos());
                    let load = limiter.estimate(model, demand(input, max));
                    let cost = load.reserve;
                    let fits = limiter.model_fits(model, cost, now) && limiter.provider_fits(cost, now);
                    let needs = naive.amounts(1, cost.input, cost.output);
                    let mut expected = limiter.paused_until <= now
                        && naive.levels.iter().zip(needs).all(|(level, need)| level.holds(need));
                    if model == 1 {
                        expected &= naive.own[0].holds(1) && naive.own[1].holds(cost.input + cost.output);
                    }
                    prop_assert_eq!(fits, expected);
                    if fits && limiter.exceeded(model, cost).is_none() {
                        running.push((model, limiter.take(model, load, now), max.is_some()));
                        naive.take(model, (1, cost.input, cost.output));
                    }
                }
                Step::End(which, end) if !running.is_empty() => {
                    naive.pass(now.as_nanos());
                    let (model, reservation, promised) = running.swap_remove(which % running.len());
                    let Load { reserve: Cost { input, output, .. }, output: expected } = reservation.load;
                    let charged = charged(naive.rule, &end, (input, output), expected, promised);
                    match end {
                        End::Answered(used) => {
                            limiter.settle(model, reservation, used.map(as_usage), promised, now);
                        }
                        End::Failed(kind, seen) => {
                            let failure = Failure { seen: seen.map(as_usage), ..Failure::new(kind) };
                            prop_assert_eq!(failure.scope, Scope::Provider);
                            limiter.settle_failed(model, reservation, &failure, now);
                        }
                        End::Left(seen) => {
                            limiter.settle_abandoned(model, reservation, seen.map(as_usage), now);
                        }
                        End::Unsent => limiter.put_back(model, reservation, now),
                    }
                    naive.change(model, (1, input, output), charged);
                }
                Step::Throttle { hint, named } => {
                    naive.pass(now.as_nanos());
                    limiter.throttled(None, named, Duration::from_secs(hint), now, &mut events);
                    // Two seconds of quota flow in before the pause ends.
                    let resumes = limiter.paused_until.as_nanos().saturating_sub(2_000_000_000);
                    let from = i128::from(resumes.max(now.as_nanos()));
                    for (index, level) in naive.levels.iter_mut().enumerate() {
                        let hit = match (index, split) {
                            (0, _) => named == Some(Dimension::Requests),
                            (1, false) => named.is_some_and(|named| named != Dimension::Requests),
                            (1, true) => matches!(named, Some(Dimension::Tokens | Dimension::InputTokens)),
                            _ => matches!(named, Some(Dimension::Tokens | Dimension::OutputTokens)),
                        };
                        match (named, hit) {
                            (Some(_), true) => level.empty(0, from),
                            (Some(_), false) => {}
                            (None, _) if index == 0 => level.empty(TOKEN, from),
                            (None, _) => level.empty(level.limit * 1_000_000_000, from),
                        }
                    }
                }
                Step::End(..) => {}
            }
            naive.pass(now.as_nanos());
            let expected = |levels: &[Level]| levels.iter().map(|level| level.level).collect::<Vec<_>>();
            let (shared, own) = levels(&mut limiter, now);
            prop_assert_eq!(shared, expected(&naive.levels));
            prop_assert_eq!(own, expected(&naive.own));
            prop_assert_eq!(limiter.in_flight as usize, running.len());
        }
        for (model, reservation, _) in running {
            limiter.put_back(model, reservation, now);
        }
        prop_assert_eq!(limiter.in_flight, 0);
        prop_assert!(limiter.models.iter().all(|model| (model.in_flight, model.reserved) == (0, Cost::default())));
    }
}
