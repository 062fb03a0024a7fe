//! What Anthropic's error answers mean: one test a row, and every special case.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use omega_policy::{Dimension, FailureKind, HintedQuota};
use omega_protocol::{Dialect, ProviderError};
use proptest::prelude::*;
use serde_json::json;

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn classify_with(status: u16, list: &[(&str, &str)], body: &[u8]) -> ProviderError {
    let status = StatusCode::from_u16(status).unwrap();
    Dialect::Anthropic.provider().classify(status, &headers(list), body, now())
}

fn classify(status: u16, error_type: &str, code: &str, message: &str) -> ProviderError {
    let mut body =
        json!({"type": "error", "error": {"type": error_type, "message": message}, "request_id": "req_9"});
    if !code.is_empty() {
        body["error"]["details"] = json!({ "error_code": code });
    }
    classify_with(status, &[], body.to_string().as_bytes())
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/anthropic/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

macro_rules! rows {
    ($($name:ident: $status:literal, $error_type:literal, $code:literal, $message:literal => $kind:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let error = classify($status, $error_type, $code, $message);
                assert_eq!(error.failure.kind, FailureKind::$kind, "{error}");
                assert_eq!(error.status, Some($status));
                assert_eq!(error.message, $message);
                assert_eq!(error.request_id.as_deref(), Some("req_9"));
                let shown = error.to_string();
                for part in [stringify!($status), $error_type, $code, $message] {
                    assert!(shown.contains(part), "{shown} lacks {part}");
                }
            }
        )*
    };
}

rows! {
    a_malformed_request_is_invalid:
        400, "invalid_request_error", "", "messages: at least one message is required" => Invalid;
    a_reached_usage_limit_is_out_of_quota:
        400, "invalid_request_error", "", "You have reached your specified API usage limits." => OutOfQuota;
    a_reached_workspace_limit_is_out_of_quota:
        400, "invalid_request_error", "", "You have reached your specified workspace API usage limits." => OutOfQuota;
    an_empty_credit_balance_is_out_of_quota:
        400, "invalid_request_error", "", "Your credit balance is too low to access the Anthropic API." => OutOfQuota;
    a_long_prompt_is_context_length:
        400, "invalid_request_error", "", "prompt is too long: 210000 tokens > 200000 maximum" => ContextLength;
    a_long_prompt_with_its_answer_is_context_length:
        400, "invalid_request_error", "",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000" => ContextLength;
    a_withheld_answer_is_a_content_filter:
        400, "invalid_request_error", "", "Output blocked by content filtering policy" => ContentFilter;
    a_large_image_is_invalid:
        400, "invalid_request_error", "image_dimensions_too_large", "image exceeds the maximum" => Invalid;
    an_organization_on_hold_is_auth:
        400, "invalid_request_error", "organization_on_hold", "This organization is on hold." => Auth;
    a_disabled_encryption_key_is_auth:
        400, "invalid_request_error", "cmek_key_disabled", "The workspace's key is disabled." => Auth;
    a_spend_limit_of_a_linked_organization_is_out_of_quota:
        402, "billing_error", "linked_organization_spend_limit_reached", "The linked organization." => OutOfQuota;
    a_bad_key_is_auth: 401, "authentication_error", "", "invalid x-api-key" => Auth;
    a_billing_error_is_out_of_quota: 402, "billing_error", "", "There is a problem with your payment." => OutOfQuota;
    a_billing_error_of_a_linked_organization_is_out_of_quota:
        402, "billing_error", "linked_organization_billing_unavailable", "The linked organization has unpaid bills." => OutOfQuota;
    a_missing_permission_is_auth: 403, "permission_error", "", "Your API key lacks permission." => Auth;
    an_unknown_model_is_unknown_model: 404, "not_found_error", "", "model: claude-9" => UnknownModel;
    another_missing_thing_is_invalid: 404, "not_found_error", "thread_not_found", "No such thread." => Invalid;
    a_conflict_is_transient:
        409, "conflict_error", "skill_read_blocked_undecryptable", "The skill cannot be read." => Transient;
    a_large_body_is_invalid: 413, "request_too_large", "", "Request exceeds the maximum size" => Invalid;
    a_body_too_large_after_decoding_is_invalid:
        413, "request_too_large", "request_body_too_large_after_decoding", "Too large." => Invalid;
    a_rate_limit_is_throttled: 429, "rate_limit_error", "", "This request would exceed your limit." => Throttled;
    a_growth_limit_is_throttled: 429, "rate_limit_error", "ramp_limit_exceeded", "Usage grew too fast." => Throttled;
    a_tiers_spend_limit_is_out_of_quota:
        429, "rate_limit_error", "enforced_spend_limit_reached", "The monthly limit is reached." => OutOfQuota;
    a_contracts_spend_limit_is_out_of_quota:
        429, "rate_limit_error", "contract_spend_limit_reached", "The contract's limit is reached." => OutOfQuota;
    an_internal_error_is_server: 500, "api_error", "", "Internal server error" => Server;
    an_unreachable_key_service_is_server: 503, "api_error", "cmek_key_unreachable", "Key unreachable." => Server;
    a_503_that_says_overloaded_is_overloaded: 503, "api_error", "", "The service is overloaded." => Overloaded;
    a_timeout_is_server: 504, "timeout_error", "", "The request timed out." => Server;
    an_overloaded_service_is_overloaded: 529, "overloaded_error", "", "Overloaded" => Overloaded;
    a_missing_compaction_is_overloaded:
        529, "overloaded_error", "compaction_unavailable", "Compaction is unavailable." => Overloaded;
    a_type_of_next_year_is_read_by_its_status: 422, "of_next_year_error", "", "Something new." => Invalid;
    a_type_of_next_year_with_a_500_is_server: 500, "of_next_year_error", "", "Something new." => Server;
}

#[test]
fn a_client_that_went_away_is_not_asked_again() {
    let error = classify_with(499, &[], b"");
    assert_eq!((error.failure.kind, error.failure.should_retry), (FailureKind::Transient, Some(false)));
    let error = classify_with(408, &[], b"");
    assert_eq!((error.failure.kind, error.failure.should_retry), (FailureKind::Transient, None));
}

#[test]
fn bodies_that_are_not_anthropics_are_read_by_their_status() {
    let html = b"<html><head><title>413 Payload Too Large</title></head></html>";
    let error = classify_with(413, &[], html);
    assert_eq!(error.failure.kind, FailureKind::Invalid);
    assert!(error.message.contains("413 Payload Too Large"), "{error}");
    for (status, kind) in [
        (400, FailureKind::Invalid),
        (401, FailureKind::Auth),
        (402, FailureKind::OutOfQuota),
        (403, FailureKind::Auth),
        (404, FailureKind::UnknownModel),
        (408, FailureKind::Transient),
        (409, FailureKind::Transient),
        (425, FailureKind::Transient),
        (429, FailureKind::Throttled),
        (500, FailureKind::Server),
        (502, FailureKind::Server),
        (524, FailureKind::Server),
        (529, FailureKind::Overloaded),
    ] {
        for body in ["", "null", "[]", "{}", "{\"error\":null}", "{\"error\":[]}", "upstream"] {
            assert_eq!(classify_with(status, &[], body.as_bytes()).failure.kind, kind, "{status} {body}");
        }
    }
}

#[test]
fn the_wait_of_a_rate_limit_is_the_header_and_else_the_empty_buckets_reset() {
    let body = fixture("error_ratelimit.json");
    let buckets = [
        ("date", "Mon, 23 Nov 2026 12:00:10 GMT"),
        ("anthropic-ratelimit-requests-remaining", "999"),
        ("anthropic-ratelimit-requests-reset", "2026-11-23T12:05:00Z"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-11-23T12:00:40Z"),
        ("anthropic-ratelimit-tokens-remaining", "0"),
        ("anthropic-ratelimit-tokens-reset", "2026-11-23T12:00:59Z"),
    ];
    let error = classify_with(429, &buckets, &body);
    assert_eq!(error.failure.exhausted, Some(Dimension::InputTokens), "the particular bucket, not the sum");
    assert_eq!(error.failure.retry_after, Some(Duration::from_secs(30)), "from the answer's own date");
    let mut with_header = buckets.to_vec();
    with_header.push(("retry-after", "7"));
    assert_eq!(classify_with(429, &with_header, &body).failure.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(error.request_id.as_deref(), Some("req_011"));
    let mut both = buckets.to_vec();
    both[1].1 = "0";
    let error = classify_with(429, &both, &body);
    assert_eq!(error.failure.exhausted, Some(Dimension::Requests), "the one that takes longer");
    assert_eq!(error.failure.retry_after, Some(Duration::from_secs(290)));
    let none = classify_with(429, &[], &body);
    assert_eq!((none.failure.exhausted, none.failure.retry_after), (None, None));
}

#[test]
fn retry_words_of_the_header_are_taken_over() {
    let list = [("x-should-retry", "false"), ("retry-after-ms", "1500"), ("request-id", "req_h")];
    let error = classify_with(529, &list, b"{}");
    assert_eq!(error.failure.should_retry, Some(false));
    assert_eq!(error.failure.retry_after, Some(Duration::from_millis(1500)));
    assert_eq!(error.request_id.as_deref(), Some("req_h"));
}

#[test]
fn spend_limits_say_when_money_is_there_again() {
    let tier = classify_with(429, &[], &fixture("error_spend.json"));
    assert_eq!(tier.failure.kind, FailureKind::OutOfQuota);
    assert_eq!(
        tier.to_string().split(':').next(),
        Some("429 rate_limit_error (enforced_spend_limit_reached)")
    );
    let until_december = Duration::from_secs((7 * 24 + 12) * 3600);
    assert_eq!(tier.failure.retry_after, Some(until_december), "the first of the next month, 00:00 UTC");
    let own = classify_with(400, &[], &fixture("error_usage_limit.json"));
    assert_eq!(own.failure.retry_after, Some(until_december), "the date in the message");
    let past = classify(
        400,
        "invalid_request_error",
        "",
        "You have reached your specified API usage limits. You will regain access on 2020-01-01 at 00:00 UTC.",
    );
    assert_eq!(past.failure.retry_after, Some(Duration::ZERO));
    let garbage = classify(
        400,
        "invalid_request_error",
        "",
        "You have reached your specified API usage limits. You will regain access on someday.",
    );
    assert_eq!(garbage.failure.retry_after, None);
}

#[test]
fn limit_headers_become_a_hint() {
    let provider = Dialect::Anthropic.provider();
    let list = [
        ("date", "Mon, 23 Nov 2026 12:00:00 GMT"),
        ("anthropic-ratelimit-requests-limit", "1000"),
        ("anthropic-ratelimit-requests-remaining", "999"),
        ("anthropic-ratelimit-requests-reset", "2026-11-23T12:00:01Z"),
        ("anthropic-ratelimit-input-tokens-limit", "80,000"),
        ("anthropic-ratelimit-output-tokens-remaining", "16000"),
        ("anthropic-ratelimit-tokens-limit", "garbage"),
        ("anthropic-ratelimit-unified-reset", "1790000000"),
        ("anthropic-priority-input-tokens-limit", "5"),
    ];
    let hint = provider.quota_hint(&headers(&list), now()).unwrap();
    let requests =
        HintedQuota { limit: Some(1000), remaining: Some(999), reset: Some(Duration::from_secs(1)) };
    assert_eq!(hint.requests, Some(requests));
    assert_eq!(hint.input_tokens.unwrap().limit, Some(80_000));
    assert_eq!(hint.output_tokens.unwrap().remaining, Some(16_000));
    assert_eq!(hint.tokens, None);
    assert_eq!(provider.quota_hint(&headers(&list[7..]), now()), None, "other quotas than the limiter's");
    assert_eq!(provider.quota_hint(&HeaderMap::new(), now()), None);
    assert_eq!(
        provider.request_id(&headers(&[("request-id", "req_1"), ("x-request-id", "x")])),
        Some("req_1")
    );
}

proptest! {
    #[test]
    fn hostile_answers_never_panic(
        status in 100u16..=999,
        body in prop::collection::vec(any::<u8>(), 0..300),
        value in "[ -~]{0,40}",
    ) {
        let list = [
            ("retry-after", value.as_str()),
            ("date", value.as_str()),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", value.as_str()),
        ];
        let error = classify_with(status, &list, &body);
        prop_assert!(error.message.len() < 5_000);
        let _ = Dialect::Anthropic.provider().quota_hint(&headers(&list), now());
    }

    #[test]
    fn messages_are_bounded_and_never_panic(message in "(regain access on |limit: )?\\PC{0,60}", repeat in 1usize..300) {
        let error = classify(400, "invalid_request_error", "", &message.repeat(repeat));
        prop_assert!(error.message.len() < 5_000);
    }
}
