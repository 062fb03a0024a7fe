//! A limit of one's own in front of the calls: so many requests, tokens and calls at once for one caller.
//!
//! The same pipeline as a provider's, without a circuit: who would exceed its limit waits its turn, or is told when to
//! come back.

use std::sync::Arc;
use std::time::Duration;

use omega_policy::{
    BreakerConfig, Call, ChargeRule, Demand, LimiterConfig, ModelId, Outcome, Pipeline, PipelineConfig,
    Priority, Rejection, TokenLimits, Usage,
};
use omega_protocol::InputEstimate;

use crate::client::UnifiedLLMClient;
use crate::error::Error;
use crate::refusal::rejection_of;
use crate::registry::Models;
use crate::scope::{Decision, Held, Scope};

/// What one caller may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateLimits {
    /// Requests per minute. `None`: as many as there is quota for.
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute, input and output. `None`: as many as there is quota for.
    pub tokens_per_minute: Option<u64>,
    /// Calls in flight. `None`: any number.
    pub max_concurrent: Option<u32>,
}

/// The gate of one caller. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate {
    scope: Arc<Scope>,
}

/// The right to one call. Dropped without [`Pass::settle`], it is charged what was estimated.
#[must_use = "a pass that is dropped is given back"]
pub struct Pass {
    held: Held,
    call: Call,
}

impl UnifiedLLMClient {
    /// A gate on this client's clock.
    ///
    /// - `name`: whose it is, for messages: `key team-a`.
    pub fn gate(&self, name: &str, limits: &GateLimits) -> Gate {
        let clock = Arc::clone(&self.inner.clock);
        let pipeline = Pipeline::new(gated(limits), clock.now());
        let subscribers = self.inner.subscribers.clone();
        Gate { scope: Scope::new(name, pipeline, Models::default(), clock, subscribers) }
    }
}

fn gated(limits: &GateLimits) -> PipelineConfig {
    PipelineConfig {
        breaker: BreakerConfig { enabled: false, ..BreakerConfig::default() },
        limiter: LimiterConfig {
            requests_per_minute: limits.requests_per_minute,
            tokens: TokenLimits::Total(limits.tokens_per_minute),
            max_concurrent: limits.max_concurrent,
            // A limit of our own: it is exactly as deep as it says, and charges what was used.
            burst: Duration::from_secs(60),
            depth_margin: Duration::ZERO,
            charge: ChargeRule::Actual,
            learn_burst: false,
            pace_unknown: false,
            ease_off: false,
            ..LimiterConfig::default()
        },
        ..PipelineConfig::default()
    }
}

impl Gate {
    /// Waits for its turn, at most for `max_wait`.
    ///
    /// # Errors
    /// [`ErrorKind::RateLimited`](crate::ErrorKind::RateLimited) with the time to come back, at once if that is later.
    pub async fn enter(
        &self,
        input_tokens: u64,
        max_output_tokens: Option<u64>,
        priority: Priority,
        max_wait: Duration,
    ) -> Result<Pass, Error> {
        let now = self.scope.now();
        let demand = Demand { input_tokens, max_output_tokens };
        let deadline = now + max_wait.max(Duration::from_nanos(1));
        let mut call = Call::new(ModelId::OTHER, demand, deadline, now);
        call.priority = priority;
        call.admit_by = deadline;
        let refused =
            |rejection: Rejection| rejection_of(&self.scope.name, "", "keys", &rejection, self.scope.now());
        let held = match self.scope.admit(&call, None, now) {
            Decision::Granted(held) => held,
            Decision::Queued(place) => place.await.map_err(refused)?,
            Decision::Busy(rejection) | Decision::Refused(rejection) => return Err(refused(rejection)),
        };
        let mut pass = Pass { held, call };
        pass.held.sent(InputEstimate { tokens: input_tokens, ..InputEstimate::default() });
        Ok(pass)
    }

    /// (requests, tokens) of the last minute, and calls in flight.
    pub fn usage(&self) -> (u64, u64, u64) {
        let limiter = self.scope.stats().0.limiter;
        (limiter.requests_last_minute, limiter.tokens_last_minute, limiter.concurrent_requests)
    }
}

impl Pass {
    /// The call ended, and cost this as far as is known.
    pub fn settle(mut self, usage: Option<Usage>) {
        let now = self.held.scope().now();
        self.held.complete(&mut self.call, &Outcome::Success { usage }, now, omega_policy::Chance::ZERO);
    }
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pass").finish_non_exhaustive()
    }
}
