//! The decisions of OMEGA, and nothing else: values in, values out.
//!
//! Time comes in as [`Timestamp`], chance as [`Chance`], results as [`Outcome`]; decisions go out as values. Nothing
//! here reads a clock, draws a number, opens a socket, logs or awaits, so every rule can be tested by calling it.
//!
//! # The tour
//!
//! Three layers protect one credential of one provider, and [`Pipeline`] asks all of them before it takes from any:
//! a circuit breaker ([`BreakerConfig`]) that stops asking a provider which fails, a rate limiter ([`LimiterConfig`])
//! that reserves requests, tokens and concurrency together and lets callers wait in order, and a retry policy
//! ([`RetryConfig`], [`Backoff`]). What a failure means to each of them is one table, [`FailureKind::meaning`].
//!
//! The caller owns the loop. This is all of it, with a provider that fails once:
//!
//! ```
//! use std::time::Duration;
//! use omega_policy::*;
//!
//! let mut now = Timestamp::ZERO;
//! let mut pipeline = Pipeline::new(PipelineConfig::default(), now);
//! let demand = Demand { input_tokens: 200, max_output_tokens: Some(100) };
//! let mut call = Call::new(ModelId(1), demand, now + Duration::from_secs(600), now);
//! call.admit_by = now + Duration::from_secs(30);
//! let mut answers = [Outcome::Failure(Failure::new(FailureKind::Server)), Outcome::Success { usage: None }].into_iter();
//! loop {
//!     let permit = match pipeline.admit(&call, now) {
//!         Admission::Granted(permit) => permit,
//!         Admission::Queued(ticket) => loop {
//!             now = pipeline.next_timeout().expect("it waits for time, not for a slot");
//!             match pipeline.poll_granted(now) {
//!                 Some((turn, Ok(permit))) if turn == ticket => break permit,
//!                 other => panic!("alone in the queue: {other:?}"),
//!             }
//!         },
//!         Admission::Rejected(why) => panic!("tell the caller, or ask another target: {why:?}"),
//!     };
//!     let outcome = answers.next().expect("here the request is sent");
//!     match pipeline.complete(&mut call, permit, &outcome, now, Chance::HALF) {
//!         Verdict::Done => break,
//!         Verdict::RetryAt { at, .. } => now = at,
//!         Verdict::GiveUp(why) => panic!("report the failure, or ask another target: {why:?}"),
//!     }
//! }
//! assert_eq!((call.attempts, now), (2, Timestamp::from_millis(1_500)));
//! ```
//!
//! Two rules for whoever drives it: a [`Permit`] goes back exactly once ([`Pipeline::complete`] or
//! [`Pipeline::cancel`]), and after every arrival [`Pipeline::poll_granted`] is called until it has nothing more.

mod backoff;
mod breaker;
mod bucket;
mod event;
mod first_token;
mod lease;
mod limiter;
mod outcome;
mod pipeline;
mod queue;
mod retry;
mod time;

pub use backoff::{Backoff, Jitter};
pub use breaker::{
    BreakerConfig, BreakerMode, BreakerScope, BreakerState, BreakerStats, FailureRate, SlowFirstToken,
    TripReason,
};
pub use event::Event;
pub use first_token::FirstTokens;
pub use lease::{
    BucketAsk, BucketGrant, CircuitAsk, CircuitReport, Holder, LEASE_EXPIRY, LeaseConfig, LeaseGrant,
    LeaseRequest, LeaseStats, Ledger, Pause, SlotAsk, SlotGrant, Turn,
};
pub use limiter::{
    ChargeRule, CountedTokens, HintedQuota, LimiterConfig, LimiterStats, ModelLimits, QuotaHint, TokenLimits,
};
pub use outcome::{
    Charge, Closed, Dimension, Failure, FailureKind, HINT_MAX, Meaning, Outcome, Probing, Retry, Scope, Usage,
};
pub use pipeline::{
    Admission, Call, Demand, GiveUp, ModelId, Permit, Pipeline, PipelineConfig, Priority, Rejection, Spent,
    Stats, TenantId, Ticket, Verdict,
};
pub use retry::{BudgetConfig, RetryConfig, RetryStats};
pub use time::{Chance, Timestamp};
