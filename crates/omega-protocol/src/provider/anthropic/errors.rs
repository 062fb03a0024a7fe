//! What Anthropic's errors mean, and what its limit headers say.
//!
//! The code in `error.details` decides, then phrases of the message where the same type covers several conditions, then
//! the type, then the status: types of the future are read by their status.
//!
//! Source: platform.claude.com (errors, rate limits), `anthropic` 2.12.0, `@anthropic-ai/sdk` 1.12.0, and error texts
//! recorded by third parties, read 2026-11-23.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use omega_policy::{Dimension, FailureKind, HintedQuota, QuotaHint};
use serde_json::Value;

use crate::classify::{self, says};
use crate::{ProviderError, hints};

/// Money is gone, said by an `invalid_request_error`.
const OUT_OF_CREDIT: &[&str] =
    &["you have reached your specified", "credit balance is too low", "reached your usage limit"];

/// An answer withheld on policy, said by an `invalid_request_error`: long-standing behaviour, in no documentation read.
const WITHHELD: &[&str] = &["blocked by content filtering policy"];

/// The dimensions of the limit headers, the particular ones first: `tokens` repeats whichever of the others is tightest.
const DIMENSIONS: [(&str, Dimension); 4] = [
    ("requests", Dimension::Requests),
    ("input-tokens", Dimension::InputTokens),
    ("output-tokens", Dimension::OutputTokens),
    ("tokens", Dimension::Tokens),
];

/// What an answer other than 2xx means.
pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> ProviderError {
    let mut error = read(Some(status.as_u16()), body);
    classify::apply_headers(&mut error, headers, now);
    if status.as_u16() == 499 && error.failure.should_retry.is_none() {
        // The caller went away, says the provider; asking again by ourselves would serve nobody.
        error.failure.should_retry = Some(false);
    }
    if let Some(id) = hints::header(headers, "request-id") {
        error.request_id = Some(id.to_owned());
    }
    match error.failure.kind {
        FailureKind::Throttled => {
            if let Some((dimension, reset)) = exhausted(headers, now) {
                error.failure.exhausted = Some(dimension);
                error.failure.retry_after = error.failure.retry_after.or(reset);
            }
        }
        FailureKind::OutOfQuota if error.failure.retry_after.is_none() => {
            error.failure.retry_after = resumes_in(&error, now);
        }
        _ => {}
    }
    error
}

/// What an error inside a 2xx means: an event of a stream, or a body. It has the status its type has on its own.
pub(super) fn in_a_2xx(data: &[u8]) -> ProviderError {
    read(None, data)
}

/// Whether a body is an error, in Anthropic's form or a form like it.
pub(super) fn is_error(body: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value["type"] == "error" || value.get("error").is_some_and(|error| error.is_object() || error.is_string())
}

fn read(status: Option<u16>, body: &[u8]) -> ProviderError {
    let value: Option<Value> = serde_json::from_slice(body).ok().filter(Value::is_object);
    let text = |pointer: &str| {
        value.as_ref().and_then(|value| value.pointer(pointer)?.as_str()).filter(|text| !text.is_empty())
    };
    let error_type = text("/error/type").unwrap_or_default();
    let code = text("/error/details/error_code").unwrap_or_default();
    let status = status.unwrap_or_else(|| status_of(error_type));
    let message = match text("/error/message").or_else(|| text("/error")).or_else(|| text("/message")) {
        Some(message) => classify::bounded(message),
        None => classify::message_of_unreadable(status, body),
    };
    let mut error = ProviderError::new(kind(status, error_type, code, &message), message);
    let owned = |text: &str| (!text.is_empty()).then(|| classify::bounded(text));
    error.status = Some(status);
    error.error_type = owned(error_type);
    error.code = owned(code);
    error.request_id = text("/request_id").map(classify::bounded);
    error
}

/// The status an error type comes with.
fn status_of(error_type: &str) -> u16 {
    match error_type {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "conflict_error" => 409,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => 500,
    }
}

fn kind(status: u16, error_type: &str, code: &str, message: &str) -> FailureKind {
    match code {
        // `enforced_…` (the tier's), `contract_…`, and whichever comes next.
        money if money.ends_with("spend_limit_reached") => return FailureKind::OutOfQuota,
        "linked_organization_billing_unavailable" => return FailureKind::OutOfQuota,
        "ramp_limit_exceeded" => return FailureKind::Throttled,
        // The state of the account, not the request, though it comes as a 400: another provider can answer.
        "organization_on_hold"
        | "organization_type_not_supported"
        | "parent_organization_required"
        | "cmek_key_disabled"
        | "cmek_key_network_blocked" => return FailureKind::Auth,
        _ => {}
    }
    match error_type {
        "billing_error" => FailureKind::OutOfQuota,
        "authentication_error" | "permission_error" => FailureKind::Auth,
        // Threads and files can be missing too; the model is when the message names it or no code says otherwise.
        "not_found_error" if code.is_empty() || code.contains("model") => FailureKind::UnknownModel,
        "not_found_error" => FailureKind::Invalid,
        "rate_limit_error" => FailureKind::Throttled,
        "overloaded_error" => FailureKind::Overloaded,
        "timeout_error" => FailureKind::Server,
        "conflict_error" => FailureKind::Transient,
        "request_too_large" => FailureKind::Invalid,
        _ if status < 500 && status != 429 && says(message, OUT_OF_CREDIT) => FailureKind::OutOfQuota,
        _ if status < 500 && says(message, classify::CONTEXT_LENGTH) => FailureKind::ContextLength,
        _ if status < 500 && says(message, WITHHELD) => FailureKind::ContentFilter,
        _ if status == 503 && says(message, classify::OVERLOADED) => FailureKind::Overloaded,
        // "Client closed": nobody's fault.
        _ if status == 499 => FailureKind::Transient,
        _ => classify::by_status(status),
    }
}

/// Which bucket a throttled call found empty, and when it is full again; of several, the one that takes longest,
/// and the sum only where no particular one is empty.
fn exhausted(headers: &HeaderMap, now: Timestamp) -> Option<(Dimension, Option<Duration>)> {
    let empty = |(name, dimension): &(&str, Dimension)| {
        let quota = quota(headers, name, now)?;
        (quota.remaining == Some(0)).then_some((*dimension, quota.reset))
    };
    let (sum, particular) = DIMENSIONS.split_last()?;
    // Of equals `max_by_key` takes the last.
    particular.iter().rev().filter_map(empty).max_by_key(|(_, reset)| *reset).or_else(|| empty(sum))
}

/// When money is there again: the tier's cap on the first of the next month, a limit of one's own on the date the
/// message names.
fn resumes_in(error: &ProviderError, now: Timestamp) -> Option<Duration> {
    let at = if error.code.as_deref() == Some("enforced_spend_limit_reached") {
        let today = now.to_zoned_datetime(TimeZone::UTC).date();
        today.first_of_month().checked_add(1.month()).ok()?
    } else {
        let phrase = "regain access on ";
        let at = hints::find_ignore_case(&error.message, phrase)? + phrase.len();
        error.message.get(at..at + "2026-12-01".len())?.parse::<Date>().ok()?
    };
    let at = at.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO).min(hints::LONGEST))
}

/// What the headers of any answer say about the quota.
///
/// The unified headers (subscription traffic), the priority tier's and fast mode's are other quotas than the one the
/// limiter keeps.
pub(super) fn quota_hint(headers: &HeaderMap, now: Timestamp) -> Option<QuotaHint> {
    let hint = QuotaHint {
        requests: quota(headers, "requests", now),
        tokens: quota(headers, "tokens", now),
        input_tokens: quota(headers, "input-tokens", now),
        output_tokens: quota(headers, "output-tokens", now),
    };
    (hint != QuotaHint::default()).then_some(hint)
}

fn quota(headers: &HeaderMap, dimension: &str, now: Timestamp) -> Option<HintedQuota> {
    let value = |what: &str| hints::header(headers, &format!("anthropic-ratelimit-{dimension}-{what}"));
    let quota = HintedQuota {
        limit: value("limit").and_then(hints::count),
        remaining: value("remaining").and_then(hints::count),
        reset: value("reset").and_then(|reset| hints::rfc3339(reset, headers, now)),
    };
    (quota != HintedQuota::default()).then_some(quota)
}
