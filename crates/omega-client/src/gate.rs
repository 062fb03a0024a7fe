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
use tokio::sync::broadcast;

use crate::circuit::EVENTS_KEPT;
use crate::client::UnifiedLLMClient;
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::events::{ClientEvent, Events};
use crate::refusal::rejection_of;
use crate::registry::Models;
use crate::scope::{Decision, Held, Scope};
use crate::stats::{self, RateLimiterStats};

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
    events: broadcast::Sender<ClientEvent>,
    /// Where its limits are set, for messages.
    limits_at: &'static str,
}

/// The right to one call. Dropped without [`Pass::settle`], it is charged what was estimated.
#[must_use = "a pass that is dropped is given back"]
pub struct Pass {
    held: Held,
    call: Call,
}

impl UnifiedLLMClient {
    /// A gate on this client's clock. Where limits are shared with other processes, so are those of gates of one name.
    ///
    /// - `name`: whose it is, for messages: `key team-a`.
    pub fn gate(&self, name: &str, limits: &GateLimits) -> Gate {
        let (clock, subscribers) = (Arc::clone(&self.inner.clock), self.inner.subscribers.clone());
        let gate = Gate::new(clock, subscribers, name, limits, "keys");
        if let Some(sharing) = &self.inner.sharing {
            sharing.share(&gate.scope, format!("gate:{name}"));
        }
        gate
    }
}

fn gated(limits: &GateLimits) -> PipelineConfig {
    PipelineConfig {
        breaker: BreakerConfig { enabled: false, ..BreakerConfig::default() },
        limiter: LimiterConfig {
            requests_per_minute: limits.requests_per_minute,
            tokens: TokenLimits::Total(limits.tokens_per_minute),
            max_concurrent: limits.max_concurrent,
            ..unlimited()
        },
        ..PipelineConfig::default()
    }
}

/// A limiter of our own without limits: it would be exactly as deep as it says, and charges what was used.
pub(crate) fn unlimited() -> LimiterConfig {
    LimiterConfig {
        requests_per_minute: None,
        tokens: TokenLimits::Total(None),
        max_concurrent: None,
        burst: Duration::from_secs(60),
        depth_margin: Duration::ZERO,
        charge: ChargeRule::Actual,
        learn_burst: false,
        pace_unknown: false,
        ease_off: false,
        ..LimiterConfig::default()
    }
}

impl Gate {
    /// A gate on the system's clock, for code that is not a call of [`UnifiedLLMClient`]. Waiting in it needs a tokio
    /// runtime with its time driver enabled.
    ///
    /// - `name`: whose limit it is, for messages.
    pub fn alone(name: &str, limits: &GateLimits) -> Self {
        Self::alone_on(Arc::new(SystemClock::new()), name, limits)
    }

    /// The same on a clock of one's own.
    pub fn alone_on(clock: Arc<dyn Clock>, name: &str, limits: &GateLimits) -> Self {
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        Self::new(clock, events, name, limits, "its settings")
    }

    fn new(
        clock: Arc<dyn Clock>,
        events: broadcast::Sender<ClientEvent>,
        name: &str,
        limits: &GateLimits,
        limits_at: &'static str,
    ) -> Self {
        let pipeline = Pipeline::new(gated(limits), clock.now());
        let scope = Scope::new(name, pipeline, Models::default(), clock, events.clone());
        Self { scope, events, limits_at }
    }

    /// Listens to what happens to it from now on: episodes of limiting. Those of a client's gate are among the client's.
    pub fn subscribe(&self) -> Events {
        Events(self.events.subscribe())
    }

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
        let refused = |rejection: Rejection| {
            rejection_of(&self.scope.name, "", self.limits_at, &rejection, self.scope.now())
        };
        let held = match self.scope.admit(&call, None, now) {
            Decision::Granted(held) => held,
            Decision::Queued(place) => place.await.map_err(refused)?,
            Decision::Busy(rejection) | Decision::Refused(rejection) => return Err(refused(rejection)),
        };
        let mut pass = Pass { held, call };
        pass.held.sent(InputEstimate { tokens: input_tokens, ..InputEstimate::default() });
        Ok(pass)
    }

    /// How it is doing, in the specification's words.
    pub fn stats(&self) -> RateLimiterStats {
        stats::of_limiter(&self.scope.stats().0.limiter)
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
