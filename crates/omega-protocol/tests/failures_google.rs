//! What Google's error answers mean: one test a row, and every special case.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use omega_policy::{Dimension, FailureKind, Scope};
use omega_protocol::{Dialect, ProviderError};
use proptest::prelude::*;
use serde_json::{Value, json};

fn classify_at(status: u16, body: &[u8], now: &str) -> ProviderError {
    let status = StatusCode::from_u16(status).unwrap();
    Dialect::Google.provider().classify(status, &HeaderMap::new(), body, now.parse::<Timestamp>().unwrap())
}

fn classify_body(status: u16, body: &[u8]) -> ProviderError {
    classify_at(status, body, "2026-11-23T12:00:00Z")
}

fn classify(status: u16, name: &str, message: &str) -> ProviderError {
    let body = json!({"error": {"code": status, "status": name, "message": message}});
    classify_body(status, body.to_string().as_bytes())
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/google/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

macro_rules! rows {
    ($($name:ident: $status:literal, $word:literal, $message:literal => $kind:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let error = classify($status, $word, $message);
                assert_eq!(error.failure.kind, FailureKind::$kind, "{error}");
                assert_eq!(error.status, Some($status));
                let shown = error.to_string();
                for part in [stringify!($status), $word, $message] {
                    assert!(shown.contains(part), "{shown} lacks {part}");
                }
                // The same in a list of one.
                let list = json!([{"error": {"code": $status, "status": $word, "message": $message}}]);
                assert_eq!(classify_body($status, list.to_string().as_bytes()), error);
            }
        )*
    };
}

rows! {
    a_malformed_request_is_invalid: 400, "INVALID_ARGUMENT", "Invalid JSON payload received." => Invalid;
    a_long_prompt_is_context_length:
        400, "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)." => ContextLength;
    a_bad_key_without_details_is_auth: 400, "INVALID_ARGUMENT", "API key expired. Please renew the API key." => Auth;
    a_region_that_is_not_served_is_auth:
        400, "FAILED_PRECONDITION", "User location is not supported for the API use." => Auth;
    a_project_without_billing_is_out_of_quota:
        400, "FAILED_PRECONDITION", "Please enable billing on your project." => OutOfQuota;
    a_missing_credential_is_auth: 401, "UNAUTHENTICATED", "Request had invalid authentication credentials." => Auth;
    depleted_prepaid_credits_are_out_of_quota:
        402, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted." => OutOfQuota;
    a_leaked_key_is_auth: 403, "PERMISSION_DENIED", "Your API key was reported as leaked." => Auth;
    an_unknown_model_is_unknown_model: 404, "NOT_FOUND", "models/gemini-9 is not found for API version v1" => UnknownModel;
    a_timeout_of_the_request_is_transient: 408, "CANCELLED", "The operation was cancelled." => Transient;
    a_client_that_went_away_is_transient: 499, "CANCELLED", "The operation was cancelled." => Transient;
    an_aborted_operation_is_transient: 409, "ABORTED", "The operation was aborted." => Transient;
    an_existing_thing_is_transient: 409, "ALREADY_EXISTS", "It exists already." => Transient;
    a_rate_limit_is_throttled: 429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)." => Throttled;
    a_spend_rate_limit_is_throttled:
        429, "RESOURCE_EXHAUSTED", "Your project exceeded its spend rate. Please retry in 9s." => Throttled;
    depleted_prepaid_credits_said_by_a_429_are_out_of_quota:
        429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted. Please go to AI Studio." => OutOfQuota;
    a_quota_of_nothing_is_out_of_quota:
        429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: x, limit: 0, model: gemini-3.1-pro-preview" => OutOfQuota;
    a_quota_of_half_a_request_is_throttled:
        429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: x, limit: 0.5, model: y" => Throttled;
    an_internal_error_is_server: 500, "INTERNAL", "An internal error has occurred." => Server;
    an_unimplemented_method_is_server: 501, "UNIMPLEMENTED", "Not implemented." => Server;
    an_overloaded_model_is_overloaded: 503, "UNAVAILABLE", "The model is overloaded. Please try again later." => Overloaded;
    high_demand_is_overloaded:
        503, "UNAVAILABLE", "This model is currently experiencing high demand." => Overloaded;
    a_passed_deadline_is_server: 504, "DEADLINE_EXCEEDED", "Deadline expired." => Server;
    a_status_of_next_year_is_read_by_its_number: 422, "OF_NEXT_YEAR", "Something new." => Invalid;
}

#[test]
fn a_bad_key_is_auth_by_its_reason() {
    let error = classify_body(400, &fixture("error_key.json"));
    assert_eq!(error.failure.kind, FailureKind::Auth);
    assert_eq!(
        error.to_string(),
        "400 INVALID_ARGUMENT (API_KEY_INVALID): API key not valid. Please pass a valid API key."
    );
}

#[test]
fn a_quota_per_minute_is_waited_out() {
    let error = classify_body(429, &fixture("error_minute.json"));
    assert_eq!(error.failure.kind, FailureKind::Throttled);
    assert_eq!(
        error.failure.retry_after,
        Some(Duration::from_millis(1681)),
        "RetryInfo before the message's words"
    );
    assert_eq!(error.failure.exhausted, Some(Dimension::Requests));
    assert_eq!(error.failure.scope, Scope::Provider);
    assert_eq!(error.code.as_deref(), Some("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"));
}

#[test]
fn a_token_quota_names_tokens() {
    let mut body: Value = serde_json::from_slice(&fixture("error_minute.json")).unwrap();
    body["error"]["details"][1]["violations"][0] = json!({
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_paid_tier_input_token_count",
        "quotaId": "GenerateContentInputTokensPerModelPerMinute-PaidTier", "quotaValue": "1000000"
    });
    let error = classify_body(429, body.to_string().as_bytes());
    assert_eq!(error.failure.exhausted, Some(Dimension::Tokens));
}

#[test]
fn a_quota_per_day_blocks_the_model_until_midnight_in_the_pacific() {
    let body = fixture("error_day.json");
    for (now, hours) in [
        ("2026-11-23T12:00:00Z", 20), // winter: midnight is 08:00 UTC
        ("2026-11-24T07:59:00Z", 0),  // a minute before
        ("2026-11-24T08:00:00Z", 24), // the boundary itself belongs to the new day
        ("2026-07-01T12:00:00Z", 19), // summer: 07:00 UTC
        ("2026-11-01T07:00:00Z", 25), // the day the clocks go back
    ] {
        let error = classify_at(429, &body, now);
        assert_eq!(error.failure.kind, FailureKind::OutOfQuota);
        let Scope::Model { resets_in: Some(wait) } = error.failure.scope else {
            panic!("{:?}", error.failure)
        };
        assert_eq!(wait.as_secs() / 3600, hours, "at {now}");
        assert_eq!(error.failure.retry_after, None, "the delay it names is misleading");
        assert!(error.code.as_deref().is_some_and(|code| code.contains("PerDay")), "{error}");
    }
}

#[test]
fn a_quota_of_nothing_blocks_the_model_without_a_date() {
    let error = classify_body(429, &fixture("error_zero.json"));
    assert_eq!(error.failure.kind, FailureKind::OutOfQuota);
    assert_eq!(error.failure.scope, Scope::Model { resets_in: None });
    let mut body: Value = serde_json::from_slice(&fixture("error_day.json")).unwrap();
    body["error"]["details"][0]["violations"][0]["quotaValue"] = "0".into();
    let error = classify_body(429, body.to_string().as_bytes());
    assert_eq!(error.failure.scope, Scope::Model { resets_in: None }, "no midnight brings it");
}

#[test]
fn depleted_credits_concern_the_whole_provider() {
    let error = classify(402, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.");
    assert_eq!(error.failure.scope, Scope::Provider);
    assert_eq!(error.failure.retry_after, None);
}

#[test]
fn waits_in_words_are_understood() {
    let wait = |message: &str| classify(429, "RESOURCE_EXHAUSTED", message).failure.retry_after;
    assert_eq!(wait("Please retry in 46.2s."), Some(Duration::from_millis(46_200)));
    assert_eq!(wait("Please retry in 10h17m5.7s."), Some(Duration::from_millis(37_025_700)));
    assert_eq!(wait("Please retry later."), None);
}

#[test]
fn the_header_comes_before_the_body() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("3"));
    headers.insert("x-should-retry", HeaderValue::from_static("false"));
    let now = "2026-11-23T12:00:00Z".parse().unwrap();
    let provider = Dialect::Google.provider();
    let error =
        provider.classify(StatusCode::TOO_MANY_REQUESTS, &headers, &fixture("error_minute.json"), now);
    assert_eq!(error.failure.retry_after, Some(Duration::from_secs(3)));
    assert_eq!(error.failure.should_retry, Some(false));
    assert_eq!(provider.quota_hint(&headers, now), None);
    assert_eq!(provider.request_id(&headers), None);
}

#[test]
fn a_client_that_went_away_is_not_asked_again() {
    for (status, name) in [(499, "CANCELLED"), (408, "CANCELLED"), (499, "")] {
        assert_eq!(classify(status, name, "").failure.should_retry, Some(false), "{status} {name}");
    }
    assert_eq!(classify(408, "", "Request timed out.").failure.should_retry, None);
}

#[test]
fn the_newer_apis_words_are_understood() {
    for (word, kind) in [
        ("rate_limit_exceeded", FailureKind::Throttled),
        ("too_many_requests", FailureKind::Throttled),
        ("quota_exceeded", FailureKind::OutOfQuota),
        ("payment_required", FailureKind::OutOfQuota),
        ("model_not_found", FailureKind::UnknownModel),
        ("service_unavailable", FailureKind::Overloaded),
        ("invalid_request", FailureKind::Invalid),
        ("failed_precondition", FailureKind::Auth),
    ] {
        let body = json!({"error": {"code": word, "message": "m"}}).to_string();
        let status = match kind {
            FailureKind::Throttled => 429,
            FailureKind::OutOfQuota if word == "payment_required" => 402,
            FailureKind::OutOfQuota => 429,
            FailureKind::UnknownModel => 404,
            FailureKind::Overloaded => 503,
            _ => 400,
        };
        let error = classify_body(status, body.as_bytes());
        assert_eq!(error.failure.kind, kind, "{word}");
        assert_eq!(error.code.as_deref(), Some(word));
        // Inside a 2xx the status is the word's own.
        let inside = Dialect::Google.provider().decode_chat(body.as_bytes()).unwrap_err();
        assert_eq!((inside.status, inside.failure.kind), (Some(status), kind), "{word}");
    }
}

#[test]
fn bodies_that_are_not_googles_are_read_by_their_status() {
    for (status, kind) in [
        (400, FailureKind::Invalid),
        (401, FailureKind::Auth),
        (402, FailureKind::OutOfQuota),
        (403, FailureKind::Auth),
        (404, FailureKind::UnknownModel),
        (413, FailureKind::Invalid),
        (429, FailureKind::Throttled),
        (500, FailureKind::Server),
        (502, FailureKind::Server),
        (529, FailureKind::Overloaded),
    ] {
        for body in
            ["", "null", "[]", "{}", "[[]]", "{\"error\":null}", "{\"error\":7}", "<html><title>Oops</title>"]
        {
            assert_eq!(classify_body(status, body.as_bytes()).failure.kind, kind, "{status} {body}");
        }
    }
    let html = classify_body(502, b"<html><title>502 Bad Gateway</title></html>");
    assert!(html.message.contains("502 Bad Gateway"), "{html}");
}

proptest! {
    #[test]
    fn hostile_answers_never_panic(
        status in 100u16..=999,
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(classify_body(status, &body).message.len() < 5_000);
    }

    #[test]
    fn hostile_details_never_panic(text in "\\PC{0,60}", code in any::<i64>(), delay in "[0-9.e+-]{0,40}s?", seconds in 0i64..250_000_000_000) {
        let body = json!({"error": {"code": code, "status": "RESOURCE_EXHAUSTED", "message": format!("{text} limit: 0{text} retry in {delay}"),
            "details": [
                {"@type": format!("{text}/google.rpc.RetryInfo"), "retryDelay": delay},
                {"@type": "google.rpc.QuotaFailure", "violations": [{"quotaId": format!("{text}PerDay")}, 7, null]},
                {"@type": 5}, null, "x"
            ]}});
        let status = StatusCode::from_u16(429).unwrap();
        let now = Timestamp::from_second(seconds).unwrap();
        let error = Dialect::Google.provider().classify(status, &HeaderMap::new(), body.to_string().as_bytes(), now);
        prop_assert_eq!(error.failure.kind, FailureKind::OutOfQuota);
    }
}
