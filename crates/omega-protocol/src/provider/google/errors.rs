//! What Google's errors mean.
//!
//! `status` is a canonical gRPC name; what decides stands in `details`: the reason of a bad key, the quota that was
//! exceeded, the delay asked for. A quota per day is of one model, and its delay is misleadingly short.
//!
//! Source: ai.google.dev (troubleshooting, rate limits, billing), google.rpc error details, and error bodies recorded by
//! third parties, read 2026-11-23.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use omega_policy::{Dimension, FailureKind, Scope};
use serde_json::Value;

use crate::classify::{self, says};
use crate::{ProviderError, hints};

/// Prepaid money is gone.
const OUT_OF_CREDIT: &[&str] =
    &["prepayment", "prepaid", "prepay", "credits are depleted", "credits have been depleted"];

/// The key is wrong, where `details` do not say so.
const BAD_KEY: &[&str] = &["api key not valid", "api key expired", "api_key_invalid"];

/// Pacific time by its rule, so that no time zone database is read. Daily quotas begin anew at its midnight.
///
/// Source: ai.google.dev, "Rate limits", read 2026-11-23 (one field report saw 00:00 UTC instead: earlier, never later
/// than a day).
const PACIFIC: &str = "PST8PDT,M3.2.0,M11.1.0";

/// What an answer other than 2xx means.
pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> ProviderError {
    let body_of = Body::read(body);
    let mut error = body_of.error(Some(status.as_u16()), body);
    classify::apply_headers(&mut error, headers, now);
    if error.failure.should_retry.is_none()
        && (status.as_u16() == 499 || body_of.text("status") == "CANCELLED")
    {
        // The caller went away, says the provider; asking again by ourselves would serve nobody.
        error.failure.should_retry = Some(false);
    }
    if let Scope::Model { resets_in } = &mut error.failure.scope
        && body_of.is_daily()
        && !body_of.is_zero()
    {
        *resets_in = until_midnight_pacific(now);
    }
    error
}

/// What an error inside a 2xx means: an event of a stream, bare JSON in it, or a body.
pub(super) fn in_a_2xx(body: &[u8]) -> ProviderError {
    Body::read(body).error(None, body)
}

/// Whether a body is an error of Google's, alone or in a list of one.
pub(super) fn is_error(body: &[u8]) -> bool {
    Body::read(body).0.is_some()
}

/// The `error` object of a body.
struct Body(Option<Value>);

impl Body {
    fn read(body: &[u8]) -> Self {
        let mut value: Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(first) = value.as_array_mut().and_then(|list| list.first_mut()) {
            value = first.take();
        }
        Self(value.get_mut("error").map(Value::take).filter(|error| error.is_object() || error.is_string()))
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.0.as_ref()?.get(name)
    }

    fn text(&self, name: &str) -> &str {
        self.field(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn message(&self) -> &str {
        self.0.as_ref().and_then(Value::as_str).unwrap_or_else(|| self.text("message"))
    }

    /// The details of a type, by the end of its name.
    fn details(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let all = self.field("details").and_then(Value::as_array);
        all.into_iter().flatten().filter(move |detail| {
            detail
                .get("@type")
                .and_then(Value::as_str)
                .is_some_and(|name| name.rsplit(['.', '/']).next() == Some(kind))
        })
    }

    fn reason(&self) -> Option<&str> {
        self.details("ErrorInfo").find_map(|info| info.get("reason")?.as_str())
    }

    fn violations(&self) -> impl Iterator<Item = &Value> {
        self.details("QuotaFailure")
            .flat_map(|failure| failure.get("violations").and_then(Value::as_array))
            .flatten()
    }

    fn quota_ids(&self) -> impl Iterator<Item = &str> {
        self.violations().filter_map(|violation| violation.get("quotaId")?.as_str())
    }

    fn is_daily(&self) -> bool {
        self.quota_ids().any(|id| id.contains("PerDay")) || self.text("code") == "quota_exceeded"
    }

    /// A quota of nothing: this project may not use the model at all.
    fn is_zero(&self) -> bool {
        let nothing = |value: &Value| value.as_str() == Some("0") || value.as_u64() == Some(0);
        let in_text = |text: &str| {
            text.match_indices("limit: 0").any(|(at, phrase)| {
                let mut after = text[at + phrase.len()..].chars();
                match after.next() {
                    Some('.') => !after.next().is_some_and(|next| next.is_ascii_digit()),
                    Some(next) => !next.is_ascii_digit(),
                    None => true,
                }
            })
        };
        self.violations().any(|violation| violation.get("quotaValue").is_some_and(nothing))
            || in_text(self.message())
    }

    /// Which bucket was empty: quota ids name tokens or requests.
    fn exhausted(&self) -> Option<Dimension> {
        let names = |word: &str| {
            self.violations().any(|violation| {
                ["quotaId", "quotaMetric"].iter().any(|name| {
                    let text = violation.get(*name).and_then(Value::as_str).unwrap_or_default();
                    hints::find_ignore_case(text, word).is_some()
                })
            })
        };
        // Google's token limits count input only; the limiter keeps them as its tokens.
        match (names("token"), names("request")) {
            (true, _) => Some(Dimension::Tokens),
            (false, true) => Some(Dimension::Requests),
            (false, false) => None,
        }
    }

    /// `RetryInfo`, then the message's words.
    fn delay(&self) -> Option<Duration> {
        let delay = self.details("RetryInfo").find_map(|info| info.get("retryDelay")?.as_str());
        delay.and_then(hints::protobuf_duration).or_else(|| hints::in_text(self.message()))
    }

    fn error(&self, status: Option<u16>, body: &[u8]) -> ProviderError {
        let code = self.field("code");
        let own_status = code.and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let name = self.text("status");
        let known = |status: &u16| (100..1000).contains(status);
        let status = status.or(own_status.filter(known)).unwrap_or_else(|| {
            let name = if name.is_empty() { self.text("code") } else { name };
            status_of(name)
        });
        let message = match self.message() {
            "" => classify::message_of_unreadable(status, body),
            message => classify::bounded(message),
        };
        let kind = self.kind(status);
        let mut error = ProviderError::new(kind, message);
        error.status = Some(status);
        let owned = |text: &str| (!text.is_empty()).then(|| classify::bounded(text));
        error.error_type = owned(name);
        error.code = self
            .reason()
            .or_else(|| self.quota_ids().find(|id| id.contains("PerDay")).or_else(|| self.quota_ids().next()))
            .and_then(owned)
            .or_else(|| owned(self.text("code")));
        match kind {
            FailureKind::Throttled => {
                error.failure.exhausted = self.exhausted();
                error.failure.retry_after = self.delay();
            }
            FailureKind::OutOfQuota if self.is_daily() || self.is_zero() => {
                error.failure.scope = Scope::Model { resets_in: None };
            }
            FailureKind::Overloaded | FailureKind::Server | FailureKind::Transient => {
                error.failure.retry_after = self.delay();
            }
            _ => {}
        }
        error
    }

    fn kind(&self, status: u16) -> FailureKind {
        let message = self.message();
        if self.reason().is_some_and(|reason| reason.starts_with("API_KEY_")) || says(message, BAD_KEY) {
            return FailureKind::Auth;
        }
        if status == 402 || self.text("code") == "payment_required" {
            return FailureKind::OutOfQuota;
        }
        let by_name =
            if status_of(self.text("status")) == 0 { self.text("code") } else { self.text("status") };
        match by_name {
            "RESOURCE_EXHAUSTED" | "rate_limit_exceeded" | "quota_exceeded" | "too_many_requests" => {
                let is_gone = says(message, OUT_OF_CREDIT) || self.is_daily() || self.is_zero();
                if is_gone { FailureKind::OutOfQuota } else { FailureKind::Throttled }
            }
            // A precondition of the account (its region, its billing), not of the request: another provider can answer.
            "FAILED_PRECONDITION" | "failed_precondition" if says(message, &["billing"]) => {
                FailureKind::OutOfQuota
            }
            "FAILED_PRECONDITION" | "failed_precondition" => FailureKind::Auth,
            "INVALID_ARGUMENT" | "OUT_OF_RANGE" | "invalid_request"
                if says(message, classify::CONTEXT_LENGTH) =>
            {
                FailureKind::ContextLength
            }
            "UNAVAILABLE" | "service_unavailable" => FailureKind::Overloaded,
            "CANCELLED" | "ABORTED" | "ALREADY_EXISTS" => FailureKind::Transient,
            _ if status == 499 => FailureKind::Transient,
            _ if status == 503 && says(message, classify::OVERLOADED) => FailureKind::Overloaded,
            _ if status == 400 && says(message, classify::CONTEXT_LENGTH) => FailureKind::ContextLength,
            _ => classify::by_status(status),
        }
    }
}

/// The HTTP status of a canonical name (google.rpc.Code) or of a word of the newer API; 500 for others, 0 for none.
fn status_of(name: &str) -> u16 {
    match name {
        "" => 0,
        "INVALID_ARGUMENT"
        | "FAILED_PRECONDITION"
        | "OUT_OF_RANGE"
        | "invalid_request"
        | "failed_precondition" => 400,
        "UNAUTHENTICATED" => 401,
        "payment_required" => 402,
        "PERMISSION_DENIED" => 403,
        "NOT_FOUND" | "not_found" | "model_not_found" => 404,
        "ALREADY_EXISTS" | "ABORTED" => 409,
        "RESOURCE_EXHAUSTED" | "rate_limit_exceeded" | "quota_exceeded" | "too_many_requests" => 429,
        "CANCELLED" => 499,
        "UNIMPLEMENTED" => 501,
        "UNAVAILABLE" | "service_unavailable" => 503,
        "DEADLINE_EXCEEDED" => 504,
        _ => 500,
    }
}

fn until_midnight_pacific(now: Timestamp) -> Option<Duration> {
    let zone = TimeZone::posix(PACIFIC).ok()?;
    let tomorrow = now.to_zoned_datetime(zone.clone()).date().checked_add(1.day()).ok()?;
    let midnight = tomorrow.to_datetime(Time::midnight()).to_zoned_datetime(zone).ok()?.timestamp();
    Duration::try_from(midnight.duration_since(now)).ok()
}
