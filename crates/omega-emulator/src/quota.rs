//! Quotas as providers enforce them: a request bucket and token buckets that refill continuously and hold
//! `burst_seconds` worth of a minute's quota. Time is an argument (trace seconds), so the arithmetic can be tested.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// What a provider allows. All limits are per minute of trace time; absent means unlimited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Requests per minute.
    pub rpm: Option<u64>,
    /// Tokens per minute, input and output together.
    pub tpm: Option<u64>,
    /// Input tokens per minute (Anthropic).
    pub itpm: Option<u64>,
    /// Output tokens per minute (Anthropic).
    pub otpm: Option<u64>,
    /// How many seconds of quota may be spent at once. Default 60.
    pub burst_seconds: f64,
    /// What a request is charged, and when. Default: the provider's own rule, see [`ChargeRule`].
    pub charge: Option<ChargeRule>,
    /// Whether a refused request leaves the request bucket alone. Default false: it takes one unit, as the
    /// documentation of OpenAI and of Azure says failed requests do.
    pub free_429: bool,
    /// Whose requests share the buckets. Default: all of the provider's.
    pub scope: QuotaScope,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            rpm: None,
            tpm: None,
            itpm: None,
            otpm: None,
            burst_seconds: 60.0,
            charge: None,
            free_429: false,
            scope: QuotaScope::Provider,
        }
    }
}

impl Quota {
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(self.burst_seconds.is_finite() && self.burst_seconds > 0.0) {
            return Err("burst_seconds must be greater than 0".into());
        }
        for (name, value) in [("rpm", self.rpm), ("tpm", self.tpm), ("itpm", self.itpm), ("otpm", self.otpm)]
        {
            if value == Some(0) {
                return Err(format!(
                    "{name} must be 1 or more; the fault `limit-zero` pretends a quota of zero"
                ));
            }
        }
        Ok(())
    }
}

/// What a request takes from the token buckets, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChargeRule {
    /// Input and `max_tokens` at admission, never given back. OpenAI's documented rule, its default here.
    Est,
    /// The same, but what was not produced is given back at the end.
    Refund,
    /// Input at admission, real output at the end; the bucket may go below zero. Default for Anthropic and xAI.
    Actual,
    /// Input only. Google's rule (its TPM counts input tokens only), its default here.
    Input,
}

/// Whose requests share one set of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaScope {
    /// All requests to the provider.
    #[default]
    Provider,
    /// Requests with the same key.
    Key,
    /// Requests for the same model.
    Model,
}

/// A bucket's name in headers and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Requests,
    Tokens,
    InputTokens,
    OutputTokens,
}

/// One bucket: continuous refill, a capacity, and a level that `charge: actual` may push below zero.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bucket {
    per_minute: f64,
    capacity: f64,
    level: f64,
    at: f64,
}

/// Levels are sums of many small refills; a whole unit must not be refused for a rounding error.
const EPSILON: f64 = 1e-6;

impl Bucket {
    /// Starts full. Always holds at least one unit, or nothing could ever pass.
    fn new(per_minute: u64, burst_seconds: f64, now: f64) -> Self {
        let per_minute = per_minute as f64;
        let capacity = (per_minute * burst_seconds / 60.0).max(1.0);
        Self { per_minute, capacity, level: capacity, at: now }
    }

    fn refill(&mut self, now: f64) {
        let elapsed = (now - self.at).max(0.0);
        self.level = (self.level + elapsed * self.per_minute / 60.0).min(self.capacity);
        self.at = self.at.max(now);
    }

    fn holds(&self, amount: f64) -> bool {
        self.level + EPSILON >= amount
    }

    /// Takes a unit or what is left of one: refusals empty a bucket, they do not put it in debt.
    fn take_one(&mut self) {
        self.level = (self.level - 1.0).max(self.level.min(0.0));
    }

    /// Seconds until `amount` is there; `None` if it never will be.
    fn wait_for(&self, amount: f64) -> Option<f64> {
        (amount <= self.capacity + EPSILON).then(|| (amount - self.level).max(0.0) * 60.0 / self.per_minute)
    }

    fn state(&self, dimension: Dimension) -> BucketState {
        BucketState {
            dimension,
            limit: self.per_minute as u64,
            remaining: (self.level + EPSILON).max(0.0) as u64,
            full_in_s: (self.capacity - self.level).max(0.0) * 60.0 / self.per_minute,
        }
    }
}

/// A bucket as headers show it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BucketState {
    pub(crate) dimension: Dimension,
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Trace seconds until it is full again.
    pub(crate) full_in_s: f64,
}

/// What a request is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worth {
    /// Input tokens that count (Anthropic: without cache reads).
    pub(crate) input: u64,
    /// Output tokens reserved: `max_tokens`, or the size of the planned answer where none was given.
    pub(crate) max_output: u64,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OverLimit {
    pub(crate) dimension: Dimension,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) requested: u64,
    /// Trace seconds until it would pass; `None`: never.
    pub(crate) wait_s: Option<f64>,
}

/// What was taken from the buckets for one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reservation {
    scope: String,
    /// Tokens taken so far.
    pub(crate) charged: u64,
    reserved_output: u64,
}

#[derive(Debug, Default)]
struct Buckets {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    input: Option<Bucket>,
    output: Option<Bucket>,
}

impl Buckets {
    fn new(quota: &Quota, now: f64) -> Self {
        let bucket = |limit: Option<u64>| limit.map(|limit| Bucket::new(limit, quota.burst_seconds, now));
        Self {
            requests: bucket(quota.rpm),
            tokens: bucket(quota.tpm),
            input: bucket(quota.itpm),
            output: bucket(quota.otpm),
        }
    }

    fn named(&mut self) -> [(Dimension, &mut Option<Bucket>); 4] {
        [
            (Dimension::Requests, &mut self.requests),
            (Dimension::Tokens, &mut self.tokens),
            (Dimension::InputTokens, &mut self.input),
            (Dimension::OutputTokens, &mut self.output),
        ]
    }

    fn refill(&mut self, now: f64) {
        for (_, bucket) in self.named() {
            if let Some(bucket) = bucket {
                bucket.refill(now);
            }
        }
    }
}

/// The quota of one provider and what is left of it.
#[derive(Debug)]
pub(crate) struct Ledger {
    quota: Quota,
    rule: ChargeRule,
    scopes: HashMap<String, Buckets>,
}

impl Ledger {
    /// - `default_rule`: the provider's own charge rule, used where the quota names none.
    pub(crate) fn new(quota: Quota, default_rule: ChargeRule) -> Self {
        let rule = quota.charge.unwrap_or(default_rule);
        Self { quota, rule, scopes: HashMap::new() }
    }

    /// The name of the buckets a request belongs to.
    pub(crate) fn scope(&self, key: &str, model: &str) -> String {
        match self.quota.scope {
            QuotaScope::Provider => String::new(),
            QuotaScope::Key => key.to_owned(),
            QuotaScope::Model => model.to_owned(),
        }
    }

    fn buckets(&mut self, scope: &str, now: f64) -> &mut Buckets {
        let quota = &self.quota;
        let buckets = self.scopes.entry(scope.to_owned()).or_insert_with(|| Buckets::new(quota, now));
        buckets.refill(now);
        buckets
    }

    /// Takes a request and its tokens, all or nothing. A refusal still takes one request unit unless `free_429`.
    pub(crate) fn admit(&mut self, scope: &str, worth: Worth, now: f64) -> Result<Reservation, OverLimit> {
        let (rule, free_429) = (self.rule, self.quota.free_429);
        // Under `actual` the output is unknown yet: nothing is asked for, but a bucket in debt refuses.
        let (total, output) = match rule {
            ChargeRule::Est | ChargeRule::Refund => (worth.input + worth.max_output, worth.max_output),
            ChargeRule::Actual | ChargeRule::Input => (worth.input, 0),
        };
        let buckets = self.buckets(scope, now);
        let asked = [
            (Dimension::Requests, &mut buckets.requests, 1),
            (Dimension::Tokens, &mut buckets.tokens, total),
            (Dimension::InputTokens, &mut buckets.input, worth.input),
            (Dimension::OutputTokens, &mut buckets.output, output),
        ];
        // A bucket in debt refuses even a request that asks nothing of it.
        let needed = |amount: u64| (amount as f64).max(EPSILON * 2.0);
        let refusal = asked.iter().find_map(|(dimension, bucket, amount)| {
            let bucket = bucket.as_ref().filter(|bucket| !bucket.holds(needed(*amount)))?;
            Some(OverLimit {
                dimension: *dimension,
                limit: bucket.per_minute as u64,
                used: (bucket.capacity - bucket.level).max(0.0).round() as u64,
                requested: *amount,
                wait_s: None,
            })
        });
        if let Some(mut refusal) = refusal {
            if let Some(requests) = asked[0].1.as_mut().filter(|_| !free_429) {
                requests.take_one();
            }
            // Counted after the refusal has taken its unit, and over all buckets: who obeys the hint is served.
            let waits = asked.iter().filter_map(|(_, bucket, amount)| Some((bucket.as_ref()?, *amount)));
            refusal.wait_s = waits
                .map(|(bucket, amount)| bucket.wait_for(needed(amount)))
                .try_fold(0.0_f64, |longest, wait| Some(longest.max(wait?)));
            return Err(refusal);
        }
        for (_, bucket, amount) in asked {
            if let Some(bucket) = bucket {
                bucket.level -= amount as f64;
            }
        }
        Ok(Reservation { scope: scope.to_owned(), charged: total, reserved_output: output })
    }

    /// Takes one request unit without asking: a request that fails for another reason counts too.
    pub(crate) fn count_failed(&mut self, scope: &str, now: f64) {
        if let Some(requests) = &mut self.buckets(scope, now).requests {
            requests.take_one();
        }
    }

    /// Corrects what was taken, now that the real output is known. Returns the tokens charged in all.
    pub(crate) fn settle(&mut self, reservation: &Reservation, output: u64, now: f64) -> u64 {
        let rule = self.rule;
        let buckets = self.buckets(&reservation.scope, now);
        // Positive: take more; negative: give back.
        let correction = match rule {
            ChargeRule::Est | ChargeRule::Input => 0,
            ChargeRule::Refund => output as i64 - reservation.reserved_output as i64,
            ChargeRule::Actual => output as i64,
        };
        let correction = if rule == ChargeRule::Refund { correction.min(0) } else { correction };
        for bucket in [&mut buckets.tokens, &mut buckets.output].into_iter().flatten() {
            bucket.level = (bucket.level - correction as f64).min(bucket.capacity);
        }
        reservation.charged.saturating_add_signed(correction)
    }

    /// The buckets as headers show them.
    pub(crate) fn state(&mut self, scope: &str, now: f64) -> Vec<BucketState> {
        let buckets = self.buckets(scope, now);
        buckets
            .named()
            .into_iter()
            .filter_map(|(dimension, bucket)| bucket.as_ref().map(|bucket| bucket.state(dimension)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(quota: Quota) -> Ledger {
        Ledger::new(quota, ChargeRule::Est)
    }

    fn worth(input: u64, max_output: u64) -> Worth {
        Worth { input, max_output }
    }

    #[test]
    fn a_full_minute_may_be_burst_and_refills_continuously() {
        let mut ledger = ledger(Quota { rpm: Some(60), ..Quota::default() });
        for _ in 0..60 {
            ledger.admit("", worth(1, 1), 0.0).expect("within the burst");
        }
        let refusal = ledger.admit("", worth(1, 1), 0.0).expect_err("the minute is spent");
        assert_eq!((refusal.dimension, refusal.limit, refusal.used), (Dimension::Requests, 60, 60));
        assert_eq!(refusal.wait_s, Some(1.0));
        assert!(ledger.admit("", worth(1, 1), 0.5).is_err());
        assert!(ledger.admit("", worth(1, 1), 2.0).is_ok());
    }

    #[test]
    fn burst_seconds_bound_what_may_be_spent_at_once() {
        let mut ledger = ledger(Quota { rpm: Some(60), burst_seconds: 2.0, ..Quota::default() });
        assert!(ledger.admit("", worth(0, 1), 0.0).is_ok());
        assert!(ledger.admit("", worth(0, 1), 0.0).is_ok());
        assert!(ledger.admit("", worth(0, 1), 0.0).is_err());
    }

    #[test]
    fn a_refusal_takes_a_request_unit_unless_it_is_free() {
        for (free_429, remaining) in [(false, 8), (true, 9)] {
            let mut ledger = ledger(Quota { rpm: Some(10), tpm: Some(100), free_429, ..Quota::default() });
            ledger.admit("", worth(60, 40), 0.0).expect("fits exactly");
            let refusal = ledger.admit("", worth(1, 0), 0.0).expect_err("no tokens left");
            assert_eq!(refusal.dimension, Dimension::Tokens);
            assert_eq!(ledger.state("", 0.0)[0].remaining, remaining, "free_429 {free_429}");
        }
    }

    #[test]
    fn hammering_an_empty_request_bucket_keeps_it_empty_but_not_in_debt() {
        let mut ledger = ledger(Quota { rpm: Some(60), burst_seconds: 1.0, ..Quota::default() });
        ledger.admit("", worth(0, 1), 0.0).expect("one unit");
        for tenth in 1..10 {
            assert!(ledger.admit("", worth(0, 1), f64::from(tenth) / 10.0).is_err());
        }
        assert!(ledger.admit("", worth(0, 1), 1.9).is_ok(), "one second after the last refusal");
    }

    #[test]
    fn whoever_waits_as_long_as_told_is_served() {
        let mut ledger =
            ledger(Quota { rpm: Some(60), tpm: Some(600), burst_seconds: 1.0, ..Quota::default() });
        ledger.admit("", worth(5, 5), 0.0).expect("the first");
        let mut now = 0.4;
        for _ in 0..20 {
            let wait = ledger.admit("", worth(5, 5), now).expect_err("too early").wait_s.expect("finite");
            ledger.admit("", worth(5, 5), now + wait).expect("as told");
            now += wait + 0.3;
        }
    }

    #[test]
    fn a_request_larger_than_the_bucket_never_fits() {
        let mut ledger = ledger(Quota { tpm: Some(1_000), ..Quota::default() });
        let refusal = ledger.admit("", worth(900, 101), 0.0).expect_err("too large");
        assert_eq!((refusal.requested, refusal.wait_s), (1_001, None));
    }

    #[test]
    fn est_keeps_the_reservation_refund_returns_the_rest_and_actual_charges_at_the_end() {
        for (rule, after_admission, after_settling, charged) in [
            (ChargeRule::Est, 500, 500, 500),
            (ChargeRule::Refund, 500, 870, 130),
            (ChargeRule::Actual, 900, 870, 130),
            (ChargeRule::Input, 900, 900, 100),
        ] {
            let mut ledger = ledger(Quota { tpm: Some(1_000), charge: Some(rule), ..Quota::default() });
            let reservation = ledger.admit("", worth(100, 400), 0.0).expect("fits");
            assert_eq!(ledger.state("", 0.0)[0].remaining, after_admission, "{rule:?}");
            assert_eq!(ledger.settle(&reservation, 30, 0.0), charged, "{rule:?}");
            assert_eq!(ledger.state("", 0.0)[0].remaining, after_settling, "{rule:?}");
        }
    }

    #[test]
    fn a_bucket_in_debt_refuses_until_it_is_paid_back() {
        let quota = Quota {
            otpm: Some(600),
            burst_seconds: 1.0,
            charge: Some(ChargeRule::Actual),
            ..Quota::default()
        };
        let mut ledger = ledger(quota);
        let reservation = ledger.admit("", worth(5, 100), 0.0).expect("output is not known yet");
        ledger.settle(&reservation, 30, 0.0);
        let refusal = ledger.admit("", worth(5, 100), 1.0).expect_err("20 tokens of debt, 10 per second");
        assert_eq!(refusal.dimension, Dimension::OutputTokens);
        assert!((refusal.wait_s.expect("finite") - 1.0).abs() < 0.01);
        assert!(ledger.admit("", worth(5, 100), 2.1).is_ok());
    }

    #[test]
    fn keys_and_models_have_their_own_buckets_when_asked_for() {
        let mut by_key = ledger(Quota { rpm: Some(1), scope: QuotaScope::Key, ..Quota::default() });
        for key in ["a", "b"] {
            let scope = by_key.scope(key, "m");
            assert!(by_key.admit(&scope, worth(0, 0), 0.0).is_ok(), "{key}");
            assert!(by_key.admit(&scope, worth(0, 0), 0.0).is_err(), "{key}");
        }
        let by_model = ledger(Quota { scope: QuotaScope::Model, ..Quota::default() });
        assert_eq!(by_model.scope("a", "m"), "m");
    }

    #[test]
    fn the_time_until_full_is_what_is_missing_over_the_rate() {
        let mut ledger = ledger(Quota { tpm: Some(600), ..Quota::default() });
        ledger.admit("", worth(100, 0), 0.0).expect("fits");
        let state = &ledger.state("", 0.0)[0];
        assert_eq!((state.remaining, state.limit), (500, 600));
        assert!((state.full_in_s - 10.0).abs() < 1e-9);
    }
}
