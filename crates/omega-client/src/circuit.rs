//! A circuit breaker of one's own, around anything that can fail: the same pipeline as a provider's, without limits.

use std::sync::Arc;
use std::time::Duration;

use omega_policy::{
    BreakerConfig, Call, Chance, Demand, Failure, FailureKind, ModelId, Outcome, Pipeline, PipelineConfig,
    Rejection,
};
use omega_protocol::InputEstimate;
use tokio::sync::broadcast;

use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::events::{ClientEvent, Events};
use crate::gate::unlimited;
use crate::refusal::rejection_of;
use crate::registry::Models;
use crate::scope::{Decision, Held, Scope};
use crate::stats::{self, CircuitBreakerStats};

/// Events that a slow subscriber of one circuit or gate may fall behind.
pub(crate) const EVENTS_KEPT: usize = 64;

/// A circuit breaker for code that is not a call of [`UnifiedLLMClient`](crate::UnifiedLLMClient). Clones share it.
///
/// ```
/// use omega_client::{BreakerSettings, Circuit};
///
/// let circuit = Circuit::new("search", BreakerSettings { failure_threshold: 1, ..BreakerSettings::default() });
/// circuit.enter().expect("it is closed").fail();
/// assert!(circuit.enter().is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Circuit {
    scope: Arc<Scope>,
    events: broadcast::Sender<ClientEvent>,
}

/// The right to try once. Dropped without a verdict it says nothing about what it protects.
#[must_use = "a pass without a verdict teaches the circuit nothing"]
pub struct CircuitPass {
    held: Held,
    call: Call,
}

impl Circuit {
    /// A closed circuit on the system's clock.
    ///
    /// - `name`: for messages, log lines and statistics.
    pub fn new(name: &str, settings: BreakerConfig) -> Self {
        Self::on(Arc::new(SystemClock::new()), name, settings)
    }

    /// The same on a clock of one's own.
    pub fn on(clock: Arc<dyn Clock>, name: &str, settings: BreakerConfig) -> Self {
        let config = PipelineConfig { breaker: settings, limiter: unlimited(), ..PipelineConfig::default() };
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let pipeline = Pipeline::new(config, clock.now());
        let scope = Scope::new(name, pipeline, Models::default(), clock, events.clone());
        Self { scope, events }
    }

    /// Asks to try.
    ///
    /// # Errors
    /// [`ErrorKind::CircuitOpen`](crate::ErrorKind::CircuitOpen) with the time to come back: the circuit is open, or
    /// half-open with every probe out.
    pub fn enter(&self) -> Result<CircuitPass, Error> {
        let now = self.scope.now();
        // Nothing here waits, so the deadline is only a moment that has not passed.
        let call = Call::new(ModelId::OTHER, Demand::default(), now + Duration::from_secs(24 * 3600), now);
        let call = Call { admit_by: now + Duration::from_nanos(1), ..call };
        let refused =
            |rejection: Rejection| rejection_of(&self.scope.name, "", "", &rejection, self.scope.now());
        let mut held = match self.scope.admit(&call, None, now) {
            Decision::Granted(held) => held,
            Decision::Queued(place) => {
                place.leave();
                return Err(refused(Rejection::CircuitOpen { retry_at: now }));
            }
            Decision::Busy(rejection) | Decision::Refused(rejection) => return Err(refused(rejection)),
        };
        held.sent(InputEstimate::default());
        Ok(CircuitPass { held, call })
    }

    /// How it is doing.
    pub fn stats(&self) -> CircuitBreakerStats {
        stats::of_circuit(&self.scope)
    }

    /// Closes it by hand and forgets its failures.
    pub fn reset(&self) {
        self.scope.reset_circuit();
    }

    /// Listens to its transitions from now on. Times count from when it was made.
    pub fn subscribe(&self) -> Events {
        Events(self.events.subscribe())
    }
}

impl CircuitPass {
    /// It went well.
    pub fn succeed(self) {
        self.conclude(&Outcome::Success { usage: None });
    }

    /// It failed, in a way that says something about what is protected.
    pub fn fail(self) {
        self.conclude(&Outcome::Failure(Failure::new(FailureKind::Server)));
    }

    fn conclude(mut self, outcome: &Outcome) {
        let now = self.held.scope().now();
        self.held.complete(&mut self.call, outcome, now, Chance::ZERO);
    }
}

impl std::fmt::Debug for CircuitPass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CircuitPass").finish_non_exhaustive()
    }
}
