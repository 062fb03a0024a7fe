//! The contenders: the same work, done by OMEGA and by the two closest things one can build from crates.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use omega_bench::{ACTUAL, ESTIMATE, answered, call, pipeline};
use omega_policy::{Admission, Chance, Timestamp, Verdict};

/// OMEGA as the driver uses it: one lock for the admission, one for the completion, one clock read.
pub struct Omega {
    origin: Instant,
    shared: Mutex<omega_policy::Pipeline>,
    outcome: omega_policy::Outcome,
}

impl Omega {
    pub fn new() -> Self {
        let shared = Mutex::new(pipeline(Timestamp::ZERO));
        Self { origin: Instant::now(), shared, outcome: answered() }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.origin.elapsed().as_nanos() as u64)
    }

    pub fn round_trip(&self) -> bool {
        let now = self.now();
        let mut call = call(now);
        let admission = self.shared.lock().expect("no bench thread panics").admit(&call, now);
        let Admission::Granted(permit) = admission else { return false };
        let mut pipeline = self.shared.lock().expect("no bench thread panics");
        pipeline.complete(&mut call, permit, &self.outcome, now, Chance::ZERO) == Verdict::Done
    }
}

/// throttle-net: requests, tokens and concurrency... its `MultiLimiter` has no concurrency dimension, so it is spared
/// that part of the work; the breaker wraps a throttle that never refuses, since it wraps a single limiter.
pub struct ThrottleNet {
    limits: throttle_net::MultiLimiter,
    breaker: throttle_net::CircuitBreaker<throttle_net::Throttle>,
}

impl ThrottleNet {
    pub fn new() -> Self {
        let limits = throttle_net::MultiLimiter::builder()
            .dimension("requests", throttle_net::Throttle::per_second(u32::MAX))
            .dimension("tokens", throttle_net::Throttle::per_second(u32::MAX))
            .build();
        let breaker =
            throttle_net::CircuitBreaker::builder().build(throttle_net::Throttle::per_second(u32::MAX));
        Self { limits, breaker }
    }

    pub fn round_trip(&self) -> bool {
        let estimate = [("requests", 1), ("tokens", ESTIMATE)];
        if !self.limits.try_acquire_costs(black_box(&estimate)) {
            return false;
        }
        let Ok(Some(permit)) = self.breaker.try_acquire() else { return false };
        permit.success();
        self.limits.settle_costs(&estimate, &[("requests", 1), ("tokens", ACTUAL)]);
        true
    }
}

/// Four crates side by side. Nothing is atomic across them, nothing can be given back, nobody queues in order.
pub struct Composed {
    requests: governor::DefaultDirectRateLimiter,
    tokens: governor::DefaultDirectRateLimiter,
    concurrency: Arc<tokio::sync::Semaphore>,
    breaker: failsafe::StateMachine<
        failsafe::failure_policy::ConsecutiveFailures<failsafe::backoff::EqualJittered>,
        (),
    >,
}

impl Composed {
    pub fn new() -> Self {
        let quota = governor::Quota::per_second(NonZeroU32::MAX);
        let backoff = failsafe::backoff::equal_jittered(Duration::from_secs(60), Duration::from_secs(60));
        let policy = failsafe::failure_policy::consecutive_failures(5, backoff);
        Self {
            requests: governor::RateLimiter::direct(quota),
            tokens: governor::RateLimiter::direct(quota),
            concurrency: Arc::new(tokio::sync::Semaphore::new(1_000)),
            breaker: failsafe::StateMachine::new(policy, ()),
        }
    }

    pub fn round_trip(&self) -> bool {
        let tokens = NonZeroU32::new(ESTIMATE).expect("not zero");
        let admitted = self.requests.check().is_ok() && matches!(self.tokens.check_n(tokens), Ok(Ok(())));
        let slot = self.concurrency.try_acquire();
        if !admitted || slot.is_err() || !self.breaker.is_call_permitted() {
            return false;
        }
        self.breaker.on_success();
        true
    }
}
