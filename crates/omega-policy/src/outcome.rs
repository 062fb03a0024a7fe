//! What became of a call, and THE TABLE: what each kind of failure means to retry, breaker and limiter.
//!
//! Everything that decides anything about a failure asks [`FailureKind::meaning`]. The same table stands in
//! `docs/failures.md` for users; change the two and `tests/outcome.rs` together.

use std::time::Duration;

/// How a call ended, as far as the policies care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered completely. `None`: the provider did not say what it used; the reservation stands as the charge.
    Success {
        /// What the answer cost, normalised.
        usage: Option<Usage>,
    },
    /// Not answered, or not completely.
    Failure(Failure),
}

/// Tokens a call used, normalised over providers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Usage {
    /// Everything the model read, cached input included.
    pub input_tokens: u64,
    /// The part of `input_tokens` that came from the provider's prompt cache.
    pub cached_input_tokens: u64,
    /// Everything the model wrote, reasoning included.
    pub output_tokens: u64,
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong; selects the row of the table.
    pub kind: FailureKind,
    /// How long the provider asked to be left alone, from receipt of its answer. Capped by the policies at
    /// [`HINT_MAX`].
    pub retry_after: Option<Duration>,
    /// The provider's explicit word on retrying (`x-should-retry`). `Some(false)` is obeyed; `Some(true)` never
    /// overrides quota, auth or invalid, and never adds attempts.
    pub should_retry: Option<bool>,
    /// Whom the failure concerns.
    pub scope: Scope,
    /// Which bucket a throttled call found empty, when the provider said so.
    pub exhausted: Option<Dimension>,
    /// Tokens known to be used all the same: a stream broken after it began.
    pub seen: Option<Usage>,
}

impl Failure {
    /// A failure of this kind that concerns the whole provider, without any hint.
    pub const fn new(kind: FailureKind) -> Self {
        Self {
            kind,
            retry_after: None,
            should_retry: None,
            scope: Scope::Provider,
            exhausted: None,
            seen: None,
        }
    }

    /// The same, with a wait the provider asked for.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

/// The longest wait a provider's hint can impose: a hostile `Retry-After: 999999999` must not stop a client for
/// 31 years.
pub const HINT_MAX: Duration = Duration::from_secs(300);

/// Whom a failure concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The provider as this credential sees it.
    #[default]
    Provider,
    /// One model only (Gemini's per-day quotas): blocked until `resets_in` has passed, without moving the breaker.
    Model {
        /// Until the quota resets; `None` when the provider did not say (an hour is assumed).
        resets_in: Option<Duration>,
    },
}

/// A quota dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Dimension {
    /// Requests per minute.
    Requests,
    /// Tokens per minute, input and output together.
    Tokens,
    /// Input tokens per minute, where the provider counts them apart.
    InputTokens,
    /// Output tokens per minute, where the provider counts them apart.
    OutputTokens,
    /// Calls in flight.
    Concurrency,
}

impl Dimension {
    /// Its name in records and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Concurrency => "concurrency",
        }
    }
}

/// The kinds of failure; each is a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FailureKind {
    /// 429: too fast, and waiting helps.
    Throttled,
    /// The money or the day's allowance is gone: `insufficient_quota`, 402, credits, spend limits, per-day quotas.
    OutOfQuota,
    /// The provider says it is overloaded: 529, 503 that says so, `overloaded_error` in a stream.
    Overloaded,
    /// 408, 409, 425: try again, nobody's fault.
    Transient,
    /// 500, 502, 503, 504, 520-524, a malformed body, a 200 that says `failed`.
    Server,
    /// No first byte (or first content) in time.
    Timeout,
    /// Refused, reset, TLS, DNS.
    Transport,
    /// A stream that was cut, stalled, malformed, or ended without its terminator.
    StreamBroken,
    /// 401, 403, and bad keys that answer 400.
    Auth,
    /// 400, 413, 422: the request itself is wrong.
    Invalid,
    /// 404: this provider does not know (or serve) the model.
    UnknownModel,
    /// The prompt is longer than the model's window.
    ContextLength,
    /// The provider refused on policy.
    ContentFilter,
}

impl FailureKind {
    /// Every kind, in the table's order.
    pub const ALL: [Self; 13] = [
        Self::Throttled,
        Self::OutOfQuota,
        Self::Overloaded,
        Self::Transient,
        Self::Server,
        Self::Timeout,
        Self::Transport,
        Self::StreamBroken,
        Self::Auth,
        Self::Invalid,
        Self::UnknownModel,
        Self::ContextLength,
        Self::ContentFilter,
    ];

    /// Its name in records and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::OutOfQuota => "out_of_quota",
            Self::Overloaded => "overloaded",
            Self::Transient => "transient",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::StreamBroken => "stream_broken",
            Self::Auth => "auth",
            Self::Invalid => "invalid",
            Self::UnknownModel => "unknown_model",
            Self::ContextLength => "context_length",
            Self::ContentFilter => "content_filter",
        }
    }

    /// THE TABLE. What this failure means to each layer.
    pub const fn meaning(self) -> Meaning {
        use Charge::{AsTheRuleSays, Keep, Refund, Seen};
        use Closed::{Counts, Ignored};
        use Probing::{Fails, FreesTheSlot};
        use Retry::{AnotherTargetFirst, Never, SameTarget};
        let (retry, fallback, closed, probing, charge) = match self {
            //                      retry               fallback closed   probing       charge
            Self::Throttled => (SameTarget, true, Ignored, FreesTheSlot, Refund),
            Self::OutOfQuota => (Never, true, Counts, Fails, Refund),
            Self::Overloaded => (SameTarget, true, Counts, Fails, AsTheRuleSays),
            Self::Transient => (SameTarget, true, Ignored, FreesTheSlot, Refund),
            Self::Server => (SameTarget, true, Counts, Fails, AsTheRuleSays),
            Self::Timeout => (AnotherTargetFirst, true, Counts, Fails, Keep),
            Self::Transport => (SameTarget, true, Counts, Fails, Refund),
            Self::StreamBroken => (SameTarget, true, Counts, Fails, Seen),
            Self::Auth => (Never, true, Ignored, FreesTheSlot, Refund),
            Self::Invalid => (Never, false, Ignored, FreesTheSlot, Refund),
            Self::UnknownModel => (Never, true, Ignored, FreesTheSlot, Refund),
            Self::ContextLength => (Never, true, Ignored, FreesTheSlot, Refund),
            Self::ContentFilter => (Never, false, Ignored, FreesTheSlot, Seen),
        };
        Meaning { retry, fallback, closed, probing, charge }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// May the same request be sent again, and where?
    pub retry: Retry,
    /// May another target be tried?
    pub fallback: bool,
    /// What it does to a closed circuit.
    pub closed: Closed,
    /// What it does to a probe of a half-open circuit.
    pub probing: Probing,
    /// What happens to the tokens reserved for it. The request itself always stays charged once sent.
    pub charge: Charge,
}

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Yes, after the backoff and never before the provider's hint.
    SameTarget,
    /// Only if no other target is left and the deadline allows: a silent provider is not asked again while another
    /// could answer.
    AnotherTargetFirst,
    /// No: it would fail the same way.
    Never,
}

/// What a failure does to a closed circuit. "Ignored" is not success: it does not reset the failure count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// One more consecutive failure.
    Counts,
    /// Nothing.
    Ignored,
}

/// What a failure does to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// The circuit opens again.
    Fails,
    /// Neither recovery nor failure: the slot is freed.
    FreesTheSlot,
}

/// What happens to the reserved tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Given back: the provider rejected the call before charging it.
    Refund,
    /// Given back where the provider's charge rule returns what was not used, kept where it does not.
    AsTheRuleSays,
    /// Kept: it may have run.
    Keep,
    /// Settled with what was seen.
    Seen,
}
