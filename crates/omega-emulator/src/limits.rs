//! How each vendor tells a client about its limits: headers on every answer, and the 429.
//!
//! Under a time scale all spans are real (compressed) time, and limits are per real minute: a client that obeys them
//! comes back when it should and is not slower than it need be.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::clock::{Clock, wall};
use crate::problem::{Refusal, anthropic, google, grok, openai};
use crate::provider::Provider;
use crate::quota::{BucketState, Dimension, OverLimit};

/// The headers that show what is left. Google documents none.
pub(crate) fn headers(provider: Provider, buckets: &[BucketState], clock: &Clock) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for bucket in buckets {
        match provider {
            Provider::OpenAi | Provider::Grok => openai_headers(&mut headers, bucket, clock),
            Provider::Anthropic => anthropic_headers(&mut headers, bucket, clock),
            Provider::Google => {}
        }
    }
    headers
}

fn put(headers: &mut HeaderMap, name: String, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// Source: developers.openai.com, Rate limits, read 2026-11-23. xAI's are reported by client libraries only.
fn openai_headers(headers: &mut HeaderMap, bucket: &BucketState, clock: &Clock) {
    let name = match bucket.dimension {
        Dimension::Requests => "requests",
        Dimension::Tokens => "tokens",
        Dimension::InputTokens | Dimension::OutputTokens => return,
    };
    put(headers, format!("x-ratelimit-limit-{name}"), &clock.per_real_minute(bucket.limit).to_string());
    put(headers, format!("x-ratelimit-remaining-{name}"), &bucket.remaining.to_string());
    let reset = go_duration(clock.real_seconds(bucket.full_in_s));
    put(headers, format!("x-ratelimit-reset-{name}"), &reset);
}

/// Source: platform.claude.com, Rate limits, read 2026-11-23. Token counts are rounded to the nearest thousand.
fn anthropic_headers(headers: &mut HeaderMap, bucket: &BucketState, clock: &Clock) {
    let name = match bucket.dimension {
        Dimension::Requests => "requests",
        Dimension::Tokens => "tokens",
        Dimension::InputTokens => "input-tokens",
        Dimension::OutputTokens => "output-tokens",
    };
    let remaining = match bucket.dimension {
        Dimension::Requests => bucket.remaining,
        _ => ((bucket.remaining + 500) / 1_000 * 1_000).min(bucket.limit.max(bucket.remaining)),
    };
    let limit = clock.per_real_minute(bucket.limit);
    put(headers, format!("anthropic-ratelimit-{name}-limit"), &limit.to_string());
    put(headers, format!("anthropic-ratelimit-{name}-remaining"), &remaining.to_string());
    put(headers, format!("anthropic-ratelimit-{name}-reset"), &instant(wall(), clock, bucket.full_in_s));
}

/// An RFC 3339 instant this many trace seconds ahead: whole seconds, rounded up, at normal speed.
fn instant(now: Timestamp, clock: &Clock, trace_seconds: f64) -> String {
    let ahead = SignedDuration::try_from_secs_f64(clock.real_seconds(trace_seconds)).unwrap_or_default();
    let at = now.checked_add(ahead).unwrap_or(now);
    if clock.scale() == 1.0 {
        let up = if at.subsec_nanosecond() > 0 { 1 } else { 0 };
        return Timestamp::from_second(at.as_second() + up).unwrap_or(at).to_string();
    }
    format!("{at:.3}")
}

/// A Go duration: `120ms`, `8.64s`, `6m0s`, `1h2m3.5s`.
pub(crate) fn go_duration(seconds: f64) -> String {
    let millis = (seconds * 1_000.0).ceil().max(0.0) as u64;
    if millis < 1_000 {
        return if millis == 0 { "0s".into() } else { format!("{millis}ms") };
    }
    let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
    let mut text = String::new();
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if hours > 0 || minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    text.push_str(&format!("{}s", rest as f64 / 1_000.0));
    text
}

/// `retry-after`: the trace seconds rounded up to a whole one, then compressed. A fraction where the time scale
/// makes it one; clients take those too.
pub(crate) fn retry_after(trace_seconds: f64, clock: &Clock) -> String {
    let whole = trace_seconds.ceil().max(1.0);
    decimal(clock.real_seconds(whole))
}

/// A number without a needless fraction, with at most six decimals.
pub(crate) fn decimal(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The 429 of a quota.
pub(crate) fn refuse(provider: Provider, over: &OverLimit, model: &str, clock: &Clock) -> Refusal {
    match provider {
        Provider::OpenAi => refuse_openai(over, model, clock),
        Provider::Anthropic => refuse_anthropic(over, clock),
        Provider::Google => refuse_google(over, model, clock),
        Provider::Grok => refuse_grok(over),
    }
}

/// Adds the hints OpenAI sends: whole seconds and milliseconds.
pub(crate) fn hint_openai(refusal: Refusal, trace_seconds: f64, clock: &Clock) -> Refusal {
    let millis = (clock.real_seconds(trace_seconds) * 1_000.0).ceil().max(1.0) as u64;
    refusal.with("retry-after", retry_after(trace_seconds, clock)).with("retry-after-ms", millis.to_string())
}

fn refuse_openai(over: &OverLimit, model: &str, clock: &Clock) -> Refusal {
    let (kind, unit) = match over.dimension {
        Dimension::Requests => ("requests", "requests per min (RPM)"),
        _ => ("tokens", "tokens per min (TPM)"),
    };
    let (limit, used, requested) = (over.limit, over.used, over.requested);
    match over.wait_s {
        Some(wait) => {
            let again = go_duration(clock.real_seconds(wait));
            let message = format!(
                "Rate limit reached for {model} in organization org-emulated on {unit}: Limit {limit}, Used {used}, Requested {requested}. Please try again in {again}. Visit https://platform.openai.com/account/rate-limits to learn more."
            );
            hint_openai(openai(429, Some(kind), Some("rate_limit_exceeded"), None, &message), wait, clock)
        }
        None => {
            let message = format!(
                "Request too large for {model} in organization org-emulated on {unit}: Limit {limit}, Requested {requested}. The input or output tokens must be reduced in order to run successfully. Visit https://platform.openai.com/account/rate-limits to learn more."
            );
            openai(429, Some(kind), Some("rate_limit_exceeded"), None, &message)
        }
    }
}

fn refuse_anthropic(over: &OverLimit, clock: &Clock) -> Refusal {
    let unit = match over.dimension {
        Dimension::Requests => "requests",
        Dimension::Tokens => "tokens",
        Dimension::InputTokens => "input tokens",
        Dimension::OutputTokens => "output tokens",
    };
    let limit = over.limit;
    let message = format!(
        "This request would exceed your organization's rate limit of {limit} {unit} per minute. For details, refer to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage."
    );
    let refusal = anthropic(429, "rate_limit_error", None, &message);
    match over.wait_s {
        Some(wait) => refusal.with("retry-after", retry_after(wait, clock)),
        None => refusal,
    }
}

/// Google's quota refusal, shared with the faults that pretend one.
pub(crate) fn google_quota(
    metric: &str,
    quota_id: &str,
    limit: u64,
    model: &str,
    retry_in_real_s: Option<f64>,
) -> Refusal {
    let metric = format!("generativelanguage.googleapis.com/{metric}");
    let mut message = format!(
        "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n* Quota exceeded for metric: {metric}, limit: {limit}, model: {model}"
    );
    let mut details = vec![
        json!({"@type": "type.googleapis.com/google.rpc.Help", "links": [{
            "description": "Learn more about Gemini API quotas",
            "url": "https://ai.google.dev/gemini-api/docs/rate-limits"}]}),
        json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
            "quotaMetric": metric, "quotaId": quota_id,
            "quotaDimensions": {"location": "global", "model": model}, "quotaValue": limit.to_string()}]}),
    ];
    if let Some(seconds) = retry_in_real_s {
        let delay = decimal((seconds * 1_000.0).ceil() / 1_000.0);
        message.push_str(&format!("\nPlease retry in {delay}s."));
        details.push(
            json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{delay}s")}),
        );
    }
    google(429, "RESOURCE_EXHAUSTED", &message, details)
}

fn refuse_google(over: &OverLimit, model: &str, clock: &Clock) -> Refusal {
    let (metric, id) = match over.dimension {
        Dimension::Requests => {
            ("generate_requests_per_model", "GenerateRequestsPerMinutePerProjectPerModel-PaidTier")
        }
        _ => (
            "generate_content_paid_tier_input_token_count",
            "GenerateContentInputTokensPerModelPerMinute-PaidTier",
        ),
    };
    google_quota(metric, id, over.limit, model, over.wait_s.map(|wait| clock.real_seconds(wait)))
}

fn refuse_grok(over: &OverLimit) -> Refusal {
    let (unit, what) = match over.dimension {
        Dimension::Requests => ("Requests per Second", "requests"),
        _ => ("Tokens per Minute", "tokens"),
    };
    let actual = over.used + over.requested;
    let limit = if over.dimension == Dimension::Requests { over.limit.div_ceil(60) } else { over.limit };
    let message = format!(
        "Too many {what} for team emulated. Your team's rate limit is — {unit} (actual/limit): {actual}/{limit}. Please see https://console.x.ai for your limits."
    );
    grok(429, "Some resource has been exhausted", &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_written_as_go_does() {
        for (seconds, text) in [
            (0.0, "0s"),
            (0.12, "120ms"),
            (1.0, "1s"),
            (8.64, "8.64s"),
            (360.0, "6m0s"),
            (3723.5, "1h2m3.5s"),
            (3600.0, "1h0m0s"),
        ] {
            assert_eq!(go_duration(seconds), text);
        }
    }

    #[tokio::test]
    async fn retry_after_is_whole_seconds_and_compressed_under_a_time_scale() {
        assert_eq!(retry_after(0.2, &Clock::start(1.0)), "1");
        assert_eq!(retry_after(5.1, &Clock::start(1.0)), "6");
        assert_eq!(retry_after(5.1, &Clock::start(60.0)), "0.1");
    }

    #[tokio::test]
    async fn reset_instants_are_whole_seconds_rounded_up() {
        let now: Timestamp = "2026-11-23T12:00:00.25Z".parse().expect("an instant");
        assert_eq!(instant(now, &Clock::start(1.0), 10.0), "2026-11-23T12:00:11Z");
        assert_eq!(instant(now, &Clock::start(10.0), 10.0), "2026-11-23T12:00:01.250Z");
    }

    #[tokio::test]
    async fn each_vendor_says_it_its_own_way() {
        let clock = Clock::start(1.0);
        let over = OverLimit {
            dimension: Dimension::Tokens,
            limit: 500_000,
            used: 498_000,
            requested: 8_000,
            wait_s: Some(0.72),
        };
        let body = |provider| match refuse(provider, &over, "m", &clock).body {
            crate::problem::RefusalBody::Json(value) => value,
            crate::problem::RefusalBody::Html(_) => panic!("not JSON"),
        };
        let openai = body(Provider::OpenAi);
        let message = openai["error"]["message"].as_str().expect("a message");
        assert!(message.contains("Limit 500000, Used 498000, Requested 8000. Please try again in 720ms."));
        assert_eq!(body(Provider::Anthropic)["error"]["type"], "rate_limit_error");
        let google = body(Provider::Google);
        assert_eq!(google["error"]["details"][2]["retryDelay"], "0.72s");
        assert!(
            google["error"]["message"].as_str().is_some_and(|text| text.contains("Please retry in 0.72s."))
        );
        assert!(body(Provider::Grok)["error"].is_string());
    }
}
