//! What can be set and seen of a circuit: plain values.

use std::time::Duration;

use crate::Timestamp;

/// How the breaker behaves. `Default` is the specification's.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// `false`: never refuses, records nothing, reads `closed`. Default `true`.
    pub enabled: bool,
    /// Consecutive failures before it opens. At least 1. Default 5.
    pub failure_threshold: u32,
    /// Successes in half-open before it closes. At least 1. Default 2.
    pub success_threshold: u32,
    /// Time before recovery is tested. Default 60 s.
    pub timeout: Duration,
    /// Probes in flight at once in half-open. At least 1. Default 3.
    pub half_open_max_calls: u32,
    /// How long probes may keep a half-open circuit waiting before it counts as a failure. Default 60 s.
    pub half_open_timeout: Duration,
    /// Factor by which each successive open period grows; 1.0 keeps it constant. 1.0 to 10.0. Default 1.0. A period that
    /// grows counts from when the probe that failed was sent.
    pub open_growth: f64,
    /// The longest open period when `open_growth` is above 1. Default 600 s.
    pub max_open: Duration,
    /// A second way to trip: a share of failures in a sliding window. Default: none.
    pub failure_rate: Option<FailureRate>,
    /// A third: a share of slow first tokens. Default: none.
    pub slow_first_token: Option<SlowFirstToken>,
    /// After closing, admit a growing share of calls over this long. Default zero: all at once.
    pub ramp: Duration,
    /// One circuit per provider, or one per model. Default per provider.
    pub scope: BreakerScope,
    /// What it is allowed to do. Default [`BreakerMode::Auto`].
    pub mode: BreakerMode,
    /// Does a 429 weigh as a failure in the failure-rate window? It never counts as a consecutive failure. Default
    /// `false`: a plain 429 says that *we* are too fast, which the limiter answers.
    pub throttled_in_window: bool,
    /// Does a provider that says it is overloaded (529, 503) count as a consecutive failure? Otherwise it weighs in the
    /// failure-rate window alone: overload is answered by pacing. A probe fails by it either way. Default `true`.
    pub overload_counts: bool,
    /// Count consecutive failures by fresh evidence? Then a first token ends a run of failures that came before any
    /// content, long before its answer is complete; and the success of a call that was sent before the run began does
    /// not: a provider that goes down still ends answers it had begun. Default `false`: any complete answer, and nothing
    /// else, ends the run.
    pub fresh_evidence: bool,
    /// May calls that have no other target wait in the queue while the circuit is open, if their time reaches beyond it?
    /// Default `false`: they are refused at once.
    pub queue_when_open: bool,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_threshold: 5,
            success_threshold: 2,
            timeout: Duration::from_secs(60),
            half_open_max_calls: 3,
            half_open_timeout: Duration::from_secs(60),
            open_growth: 1.0,
            max_open: Duration::from_secs(600),
            failure_rate: None,
            slow_first_token: None,
            ramp: Duration::ZERO,
            scope: BreakerScope::Provider,
            mode: BreakerMode::Auto,
            throttled_in_window: false,
            overload_counts: true,
            fresh_evidence: false,
            queue_when_open: false,
        }
    }
}

/// Trip on a share of failures.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureRate {
    /// Share of failures at which the circuit opens, in percent. 1 to 100.
    pub percent: u32,
    /// Calls in the window before the share means anything. Default 20.
    pub min_calls: u32,
    /// The window. Default 60 s, in ten buckets.
    pub window: Duration,
}

/// Trip on a share of slow first tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowFirstToken {
    /// A first token at least this late is slow.
    pub threshold: Duration,
    /// Share of slow calls at which the circuit opens, in percent. 1 to 100.
    pub percent: u32,
    /// Calls in the window before the share means anything.
    pub min_calls: u32,
    /// The window.
    pub window: Duration,
}

/// What one circuit covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerScope {
    /// The provider, as the specification draws it.
    #[default]
    Provider,
    /// Each model of the provider.
    Model,
}

/// Operator's word over the state machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerMode {
    /// The state machine decides.
    #[default]
    Auto,
    /// Refuse everything until told otherwise.
    ForcedOpen,
    /// Count and report, never refuse.
    MetricsOnly,
}

/// What opened a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TripReason {
    /// `failure_threshold` failures without a success between them. Wins when a window trips at the same moment.
    ConsecutiveFailures,
    /// The share of failures in the window.
    FailureRate,
    /// The share of slow first tokens in the window.
    SlowFirstToken,
    /// A probe failed.
    FailedProbe,
    /// Probes were still out when the half-open deadline passed.
    ProbesTimedOut,
    /// Another process of the fleet opened it.
    Elsewhere,
}

/// The three states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum BreakerState {
    /// Calls pass.
    #[default]
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls test recovery.
    HalfOpen,
}

impl BreakerState {
    /// The specification's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A snapshot; the first four are the specification's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerStats {
    /// The state now: an open period that has elapsed still reads `Open` until a call tests it.
    pub state: BreakerState,
    /// Consecutive failures (closed), or those that opened it.
    pub failure_count: u32,
    /// Successful probes in half-open.
    pub success_count: u32,
    /// The last failure that counted.
    pub last_failure: Option<Timestamp>,
    /// When an open circuit will test recovery.
    pub retry_at: Option<Timestamp>,
    /// Probes in flight.
    pub probes_in_flight: u32,
    /// Transitions so far.
    pub transitions: u64,
    /// Calls refused so far.
    pub refused: u64,
    /// Results that came back after a transition and changed nothing.
    pub late_results: u64,
    /// What opened it last.
    pub opened_by: Option<TripReason>,
}
