//! The specification's dictionary, key for key, and everything else under `details`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use omega_policy::{BreakerState, BreakerStats, LeaseStats, LimiterStats, Timestamp};
use serde::{Serialize, Serializer};

use crate::client::Inner;
use crate::clock::Clock;
use crate::registry::Member;
use crate::scope::Scope;

/// How every provider is doing. The four built-in providers are always present.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResilienceStats {
    /// By provider.
    pub circuit_breakers: BTreeMap<String, CircuitBreakerStats>,
    /// By provider.
    pub rate_limiters: BTreeMap<String, RateLimiterStats>,
    /// What the specification does not name.
    pub details: Details,
}

/// One circuit breaker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CircuitBreakerStats {
    /// The provider.
    pub name: String,
    /// `closed`, `open` or `half_open`. A disabled breaker reads `closed`.
    #[serde(serialize_with = "word")]
    pub state: BreakerState,
    /// Consecutive failures, or those that opened it.
    pub failure_count: u32,
    /// Successful probes while half-open.
    pub success_count: u32,
    /// The last failure that counted, in RFC 3339.
    pub last_failure_time: Option<String>,
}

/// One rate limiter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateLimiterStats {
    /// Sent in the last sixty one-second slots. After a full burst plus refill it may read above the limit.
    pub requests_last_minute: u64,
    /// Tokens of the same, as reserved and then settled.
    pub tokens_last_minute: u64,
    /// Calls in flight.
    pub concurrent_requests: u64,
    /// `None` is unlimited.
    pub max_requests_per_minute: Option<u64>,
    /// `None` is unlimited.
    pub max_tokens_per_minute: Option<u64>,
}

/// What the specification does not name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Details {
    /// Calls of this client.
    pub calls: CallDetails,
    /// By provider.
    pub providers: BTreeMap<String, ProviderDetails>,
    /// Connections; absent where a transport of one's own was given.
    pub pool: Option<PoolDetails>,
}

/// Calls since the client was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallDetails {
    /// Begun.
    pub started: u64,
    /// Answered; for streams: begun to be answered.
    pub answered: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Not ended yet. (Streams that have begun count as ended; see `permits_in_flight`.)
    pub in_flight: u64,
    /// Sent to a second target because the first was slow to begin.
    pub hedged: u64,
    /// Of these, answered by the second.
    pub hedges_won: u64,
}

/// One provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProviderDetails {
    /// Permits held by calls and streams at this moment.
    pub permits_in_flight: u64,
    /// Places taken in the queue at this moment.
    pub queued: u64,
    /// Calls ever queued.
    pub queued_total: u64,
    /// Calls the limits refused.
    pub limit_refused_total: u64,
    /// Calls the circuit refused.
    pub circuit_refused_total: u64,
    /// Attempts sent.
    pub sent_total: u64,
    /// Attempts answered completely.
    pub answered_total: u64,
    /// Attempts that failed.
    pub failed_total: u64,
    /// 429s among them.
    pub throttled_total: u64,
    /// Targets refused before they were asked.
    pub refused_total: u64,
    /// Calls that turned from here to another target.
    pub failed_over_total: u64,
    /// Permits and places given back because the caller went away, or the other one of a hedged pair was first.
    pub cancelled_total: u64,
    /// Retries sent.
    pub retries_total: u64,
    /// Retries the budget refused.
    pub budget_refused_total: u64,
    /// Retries the budget would allow now.
    pub budget_available: u64,
    /// When an open circuit will be tested, in RFC 3339.
    pub circuit_retry_at: Option<String>,
    /// Probes of a half-open circuit in flight.
    pub probes_in_flight: u32,
    /// Transitions of the circuit.
    pub transitions_total: u64,
    /// Results that came after a transition and changed nothing.
    pub late_results_total: u64,
    /// Until when the provider asked to be left alone, in RFC 3339.
    pub paused_until: Option<String>,
    /// How many requests may be sent at once, as far as is known now: less than configured where 429s or headers said so.
    pub burst_requests: Option<u64>,
    /// The same of tokens.
    pub burst_tokens: Option<u64>,
    /// The cap on calls in flight now: less than configured while the provider is overloaded and easing off helps.
    pub max_concurrent_now: Option<u32>,
    /// The largest request limit its headers showed, per minute.
    pub observed_max_requests_per_minute: Option<u64>,
    /// The largest token limit its headers showed, per minute.
    pub observed_max_tokens_per_minute: Option<u64>,
    /// How it stands with the processes that share its limits, if any do.
    pub shared: Option<SharedDetails>,
    /// Why it cannot be called at all, if so: no key, no address.
    pub unusable: Option<String>,
}

/// One provider's limits as several processes share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SharedDetails {
    /// `shared`: the store is asked; `away`: it is out of reach, and this process goes on with its share; `idle`: there is
    /// nothing to ask.
    pub standing: &'static str,
    /// Processes that share the limits, by the last answer; 0: there was none.
    pub processes: u32,
    /// This process's share when the store is out of reach, in percent.
    pub share_percent: u32,
    /// Questions to the store.
    pub exchanges_total: u64,
    /// Of these, not answered in time.
    pub lost_total: u64,
}

/// The connections of all providers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolDetails {
    /// Open.
    pub connections: usize,
    /// Requests with an answer not yet read to its end.
    pub in_flight: usize,
    /// Requests waiting for a connection.
    pub waiting: usize,
}

pub(crate) fn collect(inner: &Inner) -> ResilienceStats {
    let mut all = ResilienceStats {
        circuit_breakers: BTreeMap::new(),
        rate_limiters: BTreeMap::new(),
        details: Details {
            calls: CallDetails {
                started: inner.calls.started.load(Ordering::Relaxed),
                answered: inner.calls.answered.load(Ordering::Relaxed),
                failed: inner.calls.failed.load(Ordering::Relaxed),
                in_flight: inner.calls.in_flight.load(Ordering::Relaxed),
                hedged: inner.calls.hedged.load(Ordering::Relaxed),
                hedges_won: inner.calls.hedges_won.load(Ordering::Relaxed),
            },
            providers: BTreeMap::new(),
            pool: inner.pool.as_ref().map(|pool| {
                let stats = pool.stats();
                PoolDetails {
                    connections: stats.connections(),
                    in_flight: stats.in_flight(),
                    waiting: stats.waiting(),
                }
            }),
        },
    };
    for member in inner.registry.members() {
        add(&mut all, inner, member);
    }
    all
}

fn add(all: &mut ResilienceStats, inner: &Inner, member: &Member) {
    let scope = &member.scope;
    let (stats, now) = scope.stats();
    let (breaker, limiter, retry) = (stats.breaker, stats.limiter, stats.retry);
    let name = member.name.to_string();
    let ahead = |at: Timestamp| {
        let span = jiff::SignedDuration::try_from(at.saturating_since(now)).ok()?;
        let date = inner.clock.date_of(now).checked_add(span).ok()?;
        Some(date.round(jiff::Unit::Millisecond).unwrap_or(date).to_string())
    };
    let (permits, places) = scope.outstanding();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &scope.counters;
    all.details.providers.insert(
        name.clone(),
        ProviderDetails {
            permits_in_flight: permits,
            queued: places as u64,
            queued_total: count(&counters.queued),
            limit_refused_total: count(&counters.limit_refused),
            circuit_refused_total: count(&counters.circuit_refused),
            sent_total: count(&counters.sent),
            answered_total: count(&counters.answered),
            failed_total: count(&counters.failed),
            throttled_total: count(&counters.throttled),
            refused_total: count(&counters.refused),
            failed_over_total: count(&counters.failed_over),
            cancelled_total: count(&counters.cancelled),
            retries_total: retry.retries,
            budget_refused_total: retry.budget_refused,
            budget_available: retry.budget_available,
            circuit_retry_at: breaker.retry_at.and_then(ahead),
            probes_in_flight: breaker.probes_in_flight,
            transitions_total: breaker.transitions,
            late_results_total: breaker.late_results,
            paused_until: limiter.paused_until.filter(|until| *until > now).and_then(ahead),
            burst_requests: limiter.depths.0,
            burst_tokens: limiter.depths.1,
            max_concurrent_now: limiter.max_concurrent_now,
            observed_max_requests_per_minute: limiter.observed_limits.0,
            observed_max_tokens_per_minute: limiter.observed_limits.1,
            shared: stats.lease.map(shared),
            unusable: member.endpoint().err().map(str::to_owned),
        },
    );
    all.circuit_breakers.insert(name.clone(), circuit(&name, &breaker, &*inner.clock));
    all.rate_limiters.insert(name, of_limiter(&limiter));
}

fn shared(lease: LeaseStats) -> SharedDetails {
    SharedDetails {
        standing: match (lease.is_joined, lease.is_away) {
            (true, _) => "shared",
            (_, true) => "away",
            _ => "idle",
        },
        processes: lease.members,
        share_percent: (lease.share * 100.0).round() as u32,
        exchanges_total: lease.exchanges,
        lost_total: lease.lost,
    }
}

/// A circuit by itself.
pub(crate) fn of_circuit(scope: &Scope) -> CircuitBreakerStats {
    circuit(&scope.name, &scope.stats().0.breaker, scope.clock())
}

fn circuit(name: &str, breaker: &BreakerStats, clock: &dyn Clock) -> CircuitBreakerStats {
    CircuitBreakerStats {
        name: name.to_owned(),
        state: breaker.state,
        failure_count: breaker.failure_count,
        success_count: breaker.success_count,
        last_failure_time: breaker.last_failure.map(|at| clock.date_of(at).to_string()),
    }
}

/// A limiter by itself.
pub(crate) fn of_limiter(limiter: &LimiterStats) -> RateLimiterStats {
    RateLimiterStats {
        requests_last_minute: limiter.requests_last_minute,
        tokens_last_minute: limiter.tokens_last_minute,
        concurrent_requests: limiter.concurrent_requests,
        max_requests_per_minute: limiter.max_requests_per_minute,
        max_tokens_per_minute: limiter.max_tokens_per_minute,
    }
}

fn word<S: Serializer>(state: &BreakerState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.name())
}
