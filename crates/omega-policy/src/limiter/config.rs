//! What can be set, what providers say, and what people see: plain values.

use std::time::Duration;

use crate::Timestamp;

/// The limits of one provider. `Default` is the specification's for a provider it does not name.
#[derive(Clone, Debug, PartialEq)]
pub struct LimiterConfig {
    /// `false`: admits everything at once, still counts. Default `true`.
    pub enabled: bool,
    /// Requests per minute. `None`: unlimited. Default 60.
    pub requests_per_minute: Option<u64>,
    /// Token limits. Default 100,000 in all.
    pub tokens: TokenLimits,
    /// Which tokens the provider counts. Default all.
    pub counted: CountedTokens,
    /// When the provider charges them. Default [`ChargeRule::Actual`].
    pub charge: ChargeRule,
    /// Calls in flight. `None`: unlimited. Default 10.
    pub max_concurrent: Option<u32>,
    /// How much of the minute may be spent at once. Default 6 s.
    pub burst: Duration,
    /// Quota kept back from the burst against clock and network skew; at most a tenth of the burst, and never so much
    /// that less than one whole request fits. Default 0.5 s.
    pub depth_margin: Duration,
    /// Believe in a smaller burst when a 429 comes although there was room, or when headers show one. Never in a larger
    /// one than `burst`. Default `true`.
    pub learn_burst: bool,
    /// Where no limit is configured, follow 429s with a rate found by trial (CUBIC). Default `false`.
    pub pace_unknown: bool,
    /// While the provider says that it is overloaded, keep fewer calls in flight, as long as that helps. Default `false`.
    pub ease_off: bool,
    /// A class of priority that was passed over for this long, per class above it that waits, gets one turn. Zero: never.
    /// Default 7.5 s.
    pub aging: Duration,
    /// How many of these limits the whole quota holds: 1, or more where this limiter has only a share of it. A call that
    /// the whole would let pass is not refused for being larger than the share. Default 1.
    pub shares: u32,
    /// Waiting callers at most. Default 10,000.
    pub max_queue: usize,
}

impl LimiterConfig {
    /// What a tenant that comes back may be served before the others are again: four seconds of the token limit. With
    /// one call's worth a light tenant's second and third call in a row waited for turns (simulator: p99 of 3.3 s where
    /// a call may take a second of the whole quota).
    pub(crate) fn lead(&self) -> u64 {
        let per_minute = match self.tokens {
            TokenLimits::Total(total) => total,
            TokenLimits::Split { input, output } => input.or(output),
        };
        per_minute.or(self.requests_per_minute).unwrap_or(0) / 15
    }
}

impl Default for LimiterConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            requests_per_minute: Some(60),
            tokens: TokenLimits::Total(Some(100_000)),
            counted: CountedTokens::All,
            charge: ChargeRule::Actual,
            max_concurrent: Some(10),
            burst: Duration::from_secs(6),
            depth_margin: Duration::from_millis(500),
            learn_burst: true,
            pace_unknown: false,
            ease_off: false,
            aging: Duration::from_millis(7_500),
            shares: 1,
            max_queue: 10_000,
        }
    }
}

/// Tokens per minute, together or apart. `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenLimits {
    /// One limit over input and output.
    Total(Option<u64>),
    /// Separate limits (Anthropic's ITPM and OTPM).
    Split {
        /// Input tokens per minute.
        input: Option<u64>,
        /// Output tokens per minute.
        output: Option<u64>,
    },
}

/// Which tokens count against a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CountedTokens {
    /// Input (cached included) and output: OpenAI, xAI.
    #[default]
    All,
    /// Input that did not come from the cache, and output: Anthropic.
    WithoutCacheReads,
    /// Input only: Gemini.
    InputOnly,
}

/// When the provider charges tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChargeRule {
    /// Input and `max_tokens` when the call arrives, never returned (OpenAI). What a call without `max_tokens` is
    /// charged in advance is the provider's secret: it is settled by what it used.
    Estimate,
    /// The same, unused `max_tokens` returned at the end.
    EstimateThenRefund,
    /// Input when the call arrives, real output at the end (Anthropic, xAI); the level may go below zero.
    #[default]
    Actual,
}

/// Limits of one model, inside its provider's. Absent ones are not limited further.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelLimits {
    /// Requests per minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute.
    pub tokens_per_minute: Option<u64>,
    /// Calls in flight.
    pub max_concurrent: Option<u32>,
}

/// What a provider's headers said of its quota, each relative to the moment of receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaHint {
    /// Requests.
    pub requests: Option<HintedQuota>,
    /// Tokens, input and output together.
    pub tokens: Option<HintedQuota>,
    /// Input tokens.
    pub input_tokens: Option<HintedQuota>,
    /// Output tokens.
    pub output_tokens: Option<HintedQuota>,
}

/// One dimension of a [`QuotaHint`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintedQuota {
    /// The limit, per minute.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// Until it is full again: shows the depth of the bucket (`learn_burst`). Levels follow `remaining` and flow at the
    /// limit's own pace.
    pub reset: Option<Duration>,
}

/// A snapshot; the first five are the specification's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimiterStats {
    /// Requests sent in the last sixty one-second slots. After a full burst plus refill it may read above the limit.
    pub requests_last_minute: u64,
    /// Tokens sent (reserved, then settled) in the same.
    pub tokens_last_minute: u64,
    /// Calls in flight.
    pub concurrent_requests: u64,
    /// The limit in force; `None` is unlimited.
    pub max_requests_per_minute: Option<u64>,
    /// The limit in force; `None` is unlimited.
    pub max_tokens_per_minute: Option<u64>,
    /// Callers waiting.
    pub queued: u64,
    /// Callers ever queued.
    pub queued_total: u64,
    /// Callers refused.
    pub refused_total: u64,
    /// Until when everything is paused by a provider's hint, if it is.
    pub paused_until: Option<Timestamp>,
    /// The largest limits the provider's headers showed: (requests, tokens) per minute.
    pub observed_limits: (Option<u64>, Option<u64>),
    /// How much may be spent at once as far as is known now: (requests, tokens).
    pub depths: (Option<u64>, Option<u64>),
    /// The cap on calls in flight now, if there is one: `max_concurrent`, or less while the provider is overloaded.
    pub max_concurrent_now: Option<u32>,
}
