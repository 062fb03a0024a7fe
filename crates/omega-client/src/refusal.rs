//! What our own layers refuse, in words: who, why, and the moment at which it could be different.

use omega_policy::{Dimension, Rejection, Timestamp};

use crate::error::{Error, ErrorKind};
use crate::registry::Target;
use crate::telemetry;
use crate::watch::seconds;

/// A refusal, as the error that a caller gets.
pub(crate) fn rejected(target: &Target, rejection: &Rejection, now: Timestamp) -> Error {
    let name = &target.member.name;
    let limits = format!("rate_limiting.{name}");
    rejection_of(name, &target.model, &limits, rejection, now).at(name, &target.model)
}

/// The same without a provider.
///
/// - `name`: whose limit or circuit it is.
/// - `limits`: where its limits are set.
pub(crate) fn rejection_of(
    name: &str,
    model: &str,
    limits: &str,
    rejection: &Rejection,
    now: Timestamp,
) -> Error {
    let wait = |at: &Timestamp| at.saturating_since(now);
    match rejection {
        Rejection::CircuitOpen { retry_at } => {
            let wait = wait(retry_at);
            let message = format!("circuit for {name} is open; next try in {} s", seconds(wait));
            Error::new(ErrorKind::CircuitOpen, message).with_retry_after(Some(wait))
        }
        Rejection::ModelBlocked { until } => {
            let wait = wait(until);
            let model = telemetry::one_line(model);
            let message = format!("{name}: the quota for {model} is spent; it resets in {} s", seconds(wait));
            Error::new(ErrorKind::QuotaExhausted, message).with_retry_after(Some(wait))
        }
        Rejection::ExceedsCapacity { dimension, limit, requested } => {
            let what = measured(*dimension);
            Error::new(
                ErrorKind::RateLimited,
                format!(
                    "{name}: the call needs {requested} {what} and the limit is {limit}; no wait helps. Make it \
                     smaller, or raise the limit in {limits}"
                ),
            )
        }
        Rejection::DeadlineTooSoon { earliest, dimension } => {
            let (wait, what) = (wait(earliest), measured(*dimension));
            let message = format!(
                "rate limit for {name} reached ({what}): the call could go in {} s, which is longer than it may wait",
                seconds(wait)
            );
            Error::new(ErrorKind::RateLimited, message).with_retry_after(Some(wait))
        }
        Rejection::QueueFull { earliest } => {
            let wait = wait(earliest);
            let message =
                format!("rate limit for {name} reached: the queue is full; room in {} s", seconds(wait));
            Error::new(ErrorKind::RateLimited, message).with_retry_after(Some(wait))
        }
        _ => Error::new(ErrorKind::RateLimited, format!("{name}: not admitted")),
    }
}

fn measured(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Requests => "requests per minute",
        Dimension::Tokens => "tokens per minute",
        Dimension::InputTokens => "input tokens per minute",
        Dimension::OutputTokens => "output tokens per minute",
        Dimension::Concurrency => "requests in flight",
    }
}
