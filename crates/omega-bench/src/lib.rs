//! What the benchmarks share: one quota, one call, and the pipeline that guards it.
//!
//! Every contender in `benches/admission.rs` is given the same work: admit one call of 150 estimated tokens against
//! a request limit, a token limit, a concurrency cap and a circuit breaker, then report that it succeeded with 120.
//! (So few because governor counts in 32 bits per second: at 1,500 its quota would run out in the middle of a run.)

pub mod fleet;
pub mod gateway;

use std::time::Duration;

use omega_policy::{
    Admission, Call, Chance, Demand, LimiterConfig, ModelId, Outcome, Pipeline, PipelineConfig, Timestamp,
    TokenLimits, Usage, Verdict,
};

/// Requests per minute: so many that no run exhausts them, so that every decision is the uncontended one.
pub const REQUESTS_PER_MINUTE: u64 = 4_000_000_000;
/// Tokens per minute; see [`REQUESTS_PER_MINUTE`].
pub const TOKENS_PER_MINUTE: u64 = 4_000_000_000_000;
/// What a call is expected to cost.
pub const ESTIMATE: u32 = 150;
/// What it turns out to cost.
pub const ACTUAL: u32 = 120;

/// The input part of both.
const INPUT: u64 = 100;

/// A pipeline with every layer on and a quota that never binds.
pub fn pipeline(now: Timestamp) -> Pipeline {
    let limiter = LimiterConfig {
        requests_per_minute: Some(REQUESTS_PER_MINUTE),
        tokens: TokenLimits::Total(Some(TOKENS_PER_MINUTE)),
        max_concurrent: Some(1_000),
        burst: Duration::from_secs(60),
        ..LimiterConfig::default()
    };
    Pipeline::new(PipelineConfig { limiter, ..PipelineConfig::default() }, now)
}

/// One call as the driver would describe it.
pub fn call(now: Timestamp) -> Call {
    let demand = Demand { input_tokens: INPUT, max_output_tokens: Some(u64::from(ESTIMATE) - INPUT) };
    let deadline = now + Duration::from_secs(600);
    Call {
        admit_by: now + Duration::from_secs(30),
        failover_wait: Duration::from_secs(5),
        ..Call::new(ModelId(1), demand, deadline, now)
    }
}

/// The result every contender reports.
pub fn answered() -> Outcome {
    Outcome::Success {
        usage: Some(Usage {
            input_tokens: INPUT,
            cached_input_tokens: 0,
            output_tokens: u64::from(ACTUAL) - INPUT,
        }),
    }
}

/// Admits one call and completes it; `true` if it went through both without a wait.
pub fn admit_and_complete(pipeline: &mut Pipeline, outcome: &Outcome, now: Timestamp) -> bool {
    let mut call = call(now);
    match pipeline.admit(&call, now) {
        Admission::Granted(permit) => {
            pipeline.complete(&mut call, permit, outcome, now, Chance::ZERO) == Verdict::Done
        }
        Admission::Queued(_) | Admission::Rejected(_) => false,
    }
}
